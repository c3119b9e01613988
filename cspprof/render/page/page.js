"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const PREFIX = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 };
  const number = cell => { // of 1,234 or 12.3 % or 12.0 MiB; null for words
    const [, digits, unit] = cell.textContent.match(/^([\d,.]+)(?: (\S+))?$/) || [];
    return digits ? Number(digits.replaceAll(",", "")) * (PREFIX[unit] || 1) : null;
  };

  // Colors follow the system; a button switches between light and dark.
  const theme = document.getElementById("theme");
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = dark() ? "Light colors" : "Dark colors"; };
  theme.hidden = false;
  theme.onclick = () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; name(); };
  name();

  // Layer tables: sort, filter and fold the rows of the page.
  const tables = all("table.layers").map(table => {
    const details = table.closest("details"), controls = details.querySelector(".controls");
    const body = table.tBodies[0], headers = [...table.tHead.rows[0].cells];
    const search = controls.querySelector("input"), kind = controls.querySelector(".kind"), stage = controls.querySelector(".stage");
    const grouped = controls.querySelector(".group"), summary = controls.querySelector("output");
    const macs = headers.findIndex(h => h.textContent === "MACs"), cio = headers.findIndex(h => h.textContent.startsWith("CIO"));
    const rows = [], above = [];
    for (const tr of body.rows) {
      const depth = Number(tr.className.match(/d(\d)/)[1]), cells = [...tr.cells];
      const row = {
        tr, depth, module: tr.classList.contains("m"), open: true, order: rows.length, children: [],
        parent: depth ? above[depth - 1] : null, kind: cells[1].textContent, stage: cells[2].textContent,
        cells,
      };
      if (row.module) {
        above[depth] = row;
        const label = tr.cells[0].lastChild, button = document.createElement("button");
        button.type = "button";
        button.textContent = label.textContent;
        label.replaceWith(button);
        button.setAttribute("aria-expanded", "true");
        button.onclick = () => { row.open = !row.open; show(); };
        row.button = button;
      }
      row.path = (row.parent ? `${row.parent.path}.` : "") + cells[0].textContent;
      if (row.parent) { // search, screen readers and flat lists use the whole path
        row.parent.children.push(row);
        const prefix = document.createElement("i");
        prefix.textContent = `${row.parent.path}.`;
        cells[0].prepend(prefix);
      }
      row.text = `${row.path} ${row.kind} ${row.stage}`.toLowerCase();
      rows.push(row);
    }
    const leaves = rows.filter(r => !r.module), nested = leaves.length < rows.length;
    const total = column => leaves.reduce((sum, r) => sum + (number(r.cells[column]) || 0), 0);
    const totals = { macs: total(macs), cio: total(cio) };
    const options = (select, of) => [...new Set(leaves.map(of))].forEach(value => select.add(new Option(value, value)));
    options(kind, r => r.kind);
    options(stage, r => r.stage);
    let tree = nested, column = -1, down = true;

    // Open as many levels as fit on one screen.
    const visible = depth => rows.filter(r => r.depth <= depth).length;
    let level = 0;
    while (visible(level + 1) <= 24 && visible(level + 1) < rows.length) level += 1;
    rows.forEach(r => { r.open = r.depth < level; });

    const compare = (a, b) => {
      if (column < 0) return a.order - b.order;
      const x = number(a.cells[column]), y = number(b.cells[column]);
      const by = x === null && y === null ? a.cells[column].textContent.localeCompare(b.cells[column].textContent)
        : (x ?? -Infinity) - (y ?? -Infinity);
      return (down ? -by : by) || a.order - b.order;
    };
    const sorted = list => [...list].sort(compare).flatMap(r => [r, ...sorted(r.children)]);

    function show() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const filtering = words.length > 0 || kind.value !== "" || stage.value !== "";
      const hit = leaves.filter(r => words.every(w => r.text.includes(w)) && (!kind.value || r.kind === kind.value) && (!stage.value || r.stage === stage.value));
      const keep = new Set(hit);
      if (tree) for (let r of hit) while ((r = r.parent)) keep.add(r);
      const expanded = r => { for (let p = r.parent; p; p = p.parent) if (!p.open) return false; return true; };
      for (const r of rows) {
        r.tr.hidden = !keep.has(r) || (r.module && !tree) || (tree && !filtering && !expanded(r));
        r.button?.setAttribute("aria-expanded", String(filtering || r.open));
      }
      body.append(...(tree ? sorted(rows.filter(r => !r.parent)) : [...leaves].sort(compare)).map(r => r.tr));
      table.classList.toggle("tree", tree);
      const sum = (column, of) => {
        const n = hit.reduce((s, r) => s + (number(r.cells[column]) || 0), 0);
        return `${n.toLocaleString("en")}${of ? ` (${(100 * n / of).toFixed(1)} %)` : ""}`;
      };
      summary.textContent = `${hit.length} of ${leaves.length} rows: MACs ${sum(macs, totals.macs)}, CIO ${sum(cio, totals.cio)}`;
    }

    headers.forEach((th, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes);
      th.append(button);
      button.onclick = () => {
        const numeric = i > 4;
        if (column !== i) { column = i; down = numeric; } else if (down === numeric) down = !down; else column = -1;
        headers.forEach((h, j) => h.setAttribute("aria-sort", j !== column ? "none" : down ? "descending" : "ascending"));
        show();
      };
    });
    search.oninput = kind.onchange = stage.onchange = show;
    grouped.onclick = () => { tree = !tree; grouped.setAttribute("aria-pressed", String(tree)); show(); };
    grouped.hidden = !nested;
    const setAll = open => () => { rows.forEach(r => { r.open = open; }); show(); };
    for (const [name, open] of [["expand", true], ["fold", false]]) {
      const button = controls.querySelector(`.${name}`);
      button.onclick = setAll(open);
      button.hidden = !nested;
    }
    controls.hidden = false;
    show();
    return {
      table,
      reveal(tr) {
        const row = rows.find(r => r.tr === tr);
        details.open = true;
        for (let p = row.parent; p; p = p.parent) p.open = true;
        if (tr.hidden) { search.value = kind.value = stage.value = ""; }
        if (row.module && !tree) { tree = true; grouped.setAttribute("aria-pressed", "true"); }
        show();
        all("tr.here").forEach(t => t.classList.remove("here"));
        tr.classList.add("here");
        tr.tabIndex = -1;
        tr.scrollIntoView({ block: "center" });
        tr.focus({ preventScroll: true });
      },
    };
  });
  const go = id => {
    const tr = document.getElementById(id), of = tr && tables.find(t => t.table.contains(tr));
    if (of) of.reveal(tr);
  };
  addEventListener("hashchange", () => go(location.hash.slice(1)));
  if (location.hash) go(location.hash.slice(1));

  // Charts: split the path of each series into marks with a link to their row and a tooltip. The Tab key stops once per
  // chart; arrow keys move between marks.
  const tip = document.getElementById("tip");
  const tooltip = (id, value) => { // the value of a mark and the details in its row
    const row = document.getElementById(id);
    if (!row) return value;
    const cells = [...row.cells].map(c => c.textContent);
    return `${cells[0]}: ${value}\n${cells[1]}${cells[4] ? `, ${cells[3]} → ${cells[4]}` : ""}`;
  };
  const showTooltip = (mark, x, y) => {
    tip.textContent = mark.tooltip;
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
  };
  const element = (tag, within) => within.appendChild(document.createElementNS(within.namespaceURI, tag));
  const splitMarks = series => {
    const path = series.firstElementChild, parts = path.getAttribute("d").split(/(?=M)/);
    const marks = series.dataset.marks.split("\n").map((line, i) => {
      const [, id, value] = line.match(/^(\S+) (.*)$/), linked = id !== "-";
      const mark = element(linked ? "a" : "g", series);
      mark.tooltip = linked ? tooltip(id, `${value} ${series.dataset.unit}`.trim()) : value;
      element("path", mark).setAttribute("d", parts[i]);
      if (linked) {
        mark.setAttribute("href", `#${id}`);
        mark.setAttribute("aria-label", mark.tooltip);
        mark.addEventListener("click", event => { event.preventDefault(); history.replaceState(null, "", `#${id}`); go(id); });
        mark.addEventListener("focus", () => { const box = mark.getBoundingClientRect(); showTooltip(mark, box.right, box.top); });
        mark.addEventListener("blur", () => { tip.hidden = true; });
      }
      return mark;
    });
    path.remove();
    return marks;
  };
  const activate = svg => {
    const marks = all("[data-marks]", svg).flatMap(splitMarks), links = marks.filter(m => m.tagName === "a");
    links.forEach((mark, i) => {
      mark.setAttribute("tabindex", i ? -1 : 0);
      mark.addEventListener("keydown", event => {
        const next = links[i + ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key])];
        if (!next) return;
        event.preventDefault();
        mark.setAttribute("tabindex", -1);
        next.setAttribute("tabindex", 0);
        next.focus();
      });
    });
    svg.addEventListener("pointermove", event => {
      const mark = event.target.parentElement;
      if (mark.tooltip) showTooltip(mark, event.clientX, event.clientY); else tip.hidden = true;
    });
    svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  };
  // A chart has a wide and a narrow drawing with the same marks; only the visible one gets links and tooltips.
  for (const narrow of all("svg.narrow")) {
    const wide = all("[data-marks]", narrow.previousElementSibling);
    all("[data-copy]", narrow).forEach((series, i) => {
      Object.assign(series.dataset, wide[i].dataset);
      const path = series.firstElementChild; // the marks of the wide drawing, or a path of its own
      if (path.tagName === "use") path.replaceWith(Object.assign(wide[i].firstElementChild.cloneNode(), { id: "" }));
    });
  }
  const waiting = new Set(all("svg.chart"));
  const activateVisible = () => waiting.forEach(svg => {
    if (getComputedStyle(svg).display === "none") return;
    waiting.delete(svg);
    activate(svg);
  });
  activateVisible();
  addEventListener("resize", activateVisible);

  // A hint above each region that scrolls sideways.
  const sizes = new ResizeObserver(entries => entries.forEach(({ target }) => {
    const region = target.closest(".wide");
    region.toggleAttribute("data-scrolls", region.scrollWidth > region.clientWidth + 1);
  }));
  all(".wide, .wide > *").forEach(part => sizes.observe(part));
  addEventListener("keydown", event => { if (event.key === "Escape") tip.hidden = true; });
  addEventListener("beforeprint", () => { tip.hidden = true; });
})();
