"""The HTML report in a browser: sorting, filtering, folding, links, keyboard, colors and accessibility.

The tests use the Chromium on the path or at CSPPROF_BROWSER. Without one they skip, or fail if
CSPPROF_REQUIRE_BROWSER is set, as in CI.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import quick

import cspprof
from cspprof.analysis.layer_rows import kind_label, layer_rows
from cspprof.render.page.document import html_page

pytestmark = pytest.mark.slow

REQUIRED = bool(os.environ.get("CSPPROF_REQUIRE_BROWSER"))
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
NARROW, WIDE = 390, 1280


def missing(what: str) -> None:
    message = f"{what}, so the report is not tested in a browser"
    pytest.fail(message) if REQUIRED else pytest.skip(message)


def written(folder: Path, *names: str) -> Path:
    path = folder / "report.html"
    path.write_text(html_page([cspprof.profile(name) for name in names]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"), "resnext50", "csp_resnext50")


@pytest.fixture(scope="module")
def shallow(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shorter page with every kind of element, for rules that check every element."""
    names = "resnext50,depths=(1,1,1,1)", "csp_resnext50,depths=(2,1,1,1),fusion=last"
    path = written(tmp_path_factory.mktemp("shallow"), *names)
    assert element_kinds(path) >= element_kinds(file)
    return path


def element_kinds(path: Path) -> set[tuple[str, ...]]:
    """Tags with their classes, roles and attribute names."""
    found: set[tuple[str, ...]] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            held = dict(attributes)
            found.add((tag, held.get("class") or "", held.get("role") or "", *sorted(held)))

    Reader().feed(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def open_page(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """`open_page(width)` opens the report. At the end no page may have logged a message or sent a request."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CSPPROF_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        missing("no Chromium was found")
    problems: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("browser")), executable_path=program, args=FLAGS, color_scheme="light"
        )

        def opened(width: int = WIDE, fragment: str = "", file: Path = file, **media: Any) -> Any:
            page = context.new_page()
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=media.get("color_scheme", "light"), media=media.get("media", "screen"))
            page.on("console", lambda message: problems.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: problems.append(f"error: {error}"))
            page.on("request", lambda request: request.url.split("#")[0] == file.as_uri() or request.url.startswith(
                "data:,") or problems.append(f"request: {request.url}"))  # fmt: skip
            page.goto(file.as_uri() + fragment)
            return page

        yield opened
        context.close()
    assert problems == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Iterator[Any]:
    opened = open_page()
    yield opened
    opened.close()


def table_of(page: Any, model: int = 1) -> Any:
    return page.locator("table.layers").nth(model)


def visible_cells(page: Any, column: int = 0, model: int = 1) -> list[str]:
    """The cells of one column in the visible rows, in order."""
    cells = table_of(page, model).locator("tbody tr:not([hidden])").locator(f":nth-child({column + 1})")
    found: list[str] = cells.evaluate_all("list => list.filter(c => c.matches('th, td')).map(c => c.textContent)")
    return found


def sort_by(page: Any, name: str, model: int = 1) -> str:
    header = table_of(page, model).locator("thead th").filter(has_text=name)
    header.locator("button").click()
    return str(header.get_attribute("aria-sort"))


def controls(page: Any, model: int = 1) -> Any:
    return page.locator(".controls").nth(model)


def numbers(texts: list[str]) -> list[int]:
    return [int(t.replace(",", "") or 0) for t in texts]


def test_page_opens_with_modules_that_fit_on_a_screen(page: Any) -> None:
    assert visible_cells(page) == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert controls(page).locator("output").text_content() == (
        "194 of 194 rows: MACs 3,964,616,704 (100.0 %), CIO 32,642,024 (100.0 %)"
    )


@pytest.mark.slow
def test_a_flat_list_sorts_by_any_column(page: Any) -> None:
    modules = controls(page).locator(".group")
    modules.click()
    assert modules.get_attribute("aria-pressed") == "false"
    before = visible_cells(page)
    assert len(before) == 194
    assert sort_by(page, "params") == "descending"
    values = numbers(visible_cells(page, 9))
    assert values == sorted(values, reverse=True)
    assert sort_by(page, "params") == "ascending"
    assert numbers(visible_cells(page, 9)) == sorted(values)
    assert sort_by(page, "params") == "none"
    assert visible_cells(page) == before
    assert sort_by(page, "live memory") == "descending"
    assert visible_cells(page, 10)[0] == "8.00 MiB"
    assert sort_by(page, "stage") == "ascending"
    assert visible_cells(page, 2) == sorted(visible_cells(page, 2))


def test_sorting_keeps_the_module_tree(page: Any) -> None:
    sort_by(page, "CIO")
    assert visible_cells(page) == ["stage1", "stage2", "stage3", "stem", "stage4", "head"]


@pytest.mark.slow
def test_filtering_shows_matches_with_their_modules_and_sums(page: Any) -> None:
    box = controls(page)
    box.locator("input").fill("stage1 conv 1×1")
    paths = visible_cells(page)
    assert paths[0] == "stage1"
    assert all(p.startswith("stage1") for p in paths)
    assert set(visible_cells(page, 1)[-1:]) == {"conv 1×1"}
    summary = box.locator("output").text_content()
    wanted = [
        r
        for r in layer_rows(cspprof.profile("csp_resnext50"))
        if (r.stage, kind_label(r.spec)) == ("stage1", "conv 1×1")
    ]
    macs = sum(r.spec.macs or 0 for r in wanted)
    assert summary.startswith(f"{len(wanted)} of 194 rows: MACs {macs:,} (")
    box.locator("input").fill("no such layer")
    assert visible_cells(page) == []
    assert box.locator("output").text_content().startswith("0 of 194 rows: MACs 0 (0.0 %)")
    box.locator("input").fill("")
    box.locator("select.kind").select_option("max pool")
    assert visible_cells(page) == ["stem", "stem.pool"]
    box.locator("select.kind").select_option("")
    box.locator("select.stage").select_option("head")
    assert visible_cells(page)[0] == "head"
    box.locator("select.stage").select_option("")
    assert len(visible_cells(page)) == 6


@pytest.mark.slow
def test_modules_fold_by_click_by_key_and_together(page: Any) -> None:
    button = table_of(page).locator("tbody button", has_text="stage1").first
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    assert "stage1.transition" in visible_cells(page)
    button.press("Enter")
    assert len(visible_cells(page)) == 6
    controls(page).locator(".expand").click()
    opened = len(visible_cells(page))
    assert opened == table_of(page).locator("tbody tr").count()
    controls(page).locator(".fold").click()
    assert len(visible_cells(page)) == 6


def test_a_bar_has_a_tooltip_and_links_to_its_row(page: Any) -> None:
    bar = page.locator("svg.chart").first.locator("a").nth(70)
    name = bar.get_attribute("aria-label")
    assert "BFLOPs\n" in name
    bar.hover()
    assert page.locator("#tip").text_content() == name
    bar.click()
    row = page.locator(bar.get_attribute("href"))
    assert row.is_visible()
    assert row.locator("th").text_content() == name.split(":")[0]
    assert page.evaluate("document.activeElement.id") == bar.get_attribute("href")[1:]
    assert page.url.endswith(bar.get_attribute("href"))


def test_a_bar_link_clears_filters_and_opens_tables(page: Any) -> None:
    page.locator("details.layers").nth(1).evaluate("d => { d.open = false; }")
    controls(page, 0).locator("input").evaluate("i => { i.value = 'nothing'; i.oninput(); }")
    for model, at in ((0, 3), (1, 70)):
        bar = page.locator("svg.chart").first.locator("a").nth(at)
        bar.click()
        assert page.locator(bar.get_attribute("href")).is_visible(), model


def test_a_url_fragment_opens_its_row(open_page: Callable[..., Any]) -> None:
    page = open_page(fragment="#r1-40")
    assert page.locator("#r1-40").is_visible()
    page.close()


def test_a_stage_box_links_to_its_first_layer(page: Any) -> None:
    box = page.locator("svg.stages").nth(1).locator("a", has_text="stage2")
    box.click()
    row = page.locator(box.get_attribute("href"))
    assert row.is_visible()
    assert row.locator("th").text_content().startswith("stage2.")


def test_tab_stops_once_per_chart_and_arrow_keys_move_between_marks(page: Any) -> None:
    svg = page.locator("svg.chart").first
    links = svg.locator("a")
    assert links.evaluate_all("list => list.filter(a => a.tabIndex === 0).length") == 1
    links.first.focus()
    page.keyboard.press("ArrowRight")
    assert links.nth(1).evaluate("a => a === document.activeElement")
    assert page.locator("#tip").text_content() == links.nth(1).get_attribute("aria-label")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "TR"


def test_the_first_tab_stop_skips_the_navigation(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0


def test_colors_follow_the_system_and_the_button(open_page: Callable[..., Any]) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    dark = open_page(color_scheme="dark")
    assert dark.evaluate(background) == "rgb(20, 23, 26)"
    dark.locator("#theme").click()
    assert dark.evaluate(background) == "rgb(255, 255, 255)"
    dark.close()


def test_print_has_no_controls_and_light_colors(open_page: Callable[..., Any]) -> None:
    page = open_page(color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert controls(page).is_hidden()
    assert page.locator("nav").is_hidden()
    assert table_of(page).is_visible()
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_page_does_not_scroll_horizontally(width: int, open_page: Callable[..., Any]) -> None:
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


def test_charts_fit_on_a_phone_with_readable_text_and_tooltips(open_page: Callable[..., Any]) -> None:
    page = open_page(NARROW)
    charts = page.locator("svg.chart:visible")
    assert charts.count() == page.locator("svg.chart").count() / 2
    assert page.locator(".wide[data-scrolls] svg.chart").count() == 0
    sizes = "list => list.map(svg => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"
    assert min(charts.evaluate_all(sizes)) > 10  # CSS pixels
    bar = charts.first.locator("a").nth(70)
    assert "BFLOPs\n" in bar.get_attribute("aria-label")
    bar.click()
    assert page.locator(bar.get_attribute("href")).is_visible()
    page.close()


@pytest.mark.slow
def test_a_page_of_seven_models_is_readable_on_a_phone(
    open_page: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [f"resnext50,depths=(1,1,1,{n})" for n in range(1, 8)]
    page = open_page(NARROW, file=written(tmp_path_factory.mktemp("seven"), *names))
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW
    charts = page.locator("svg.chart:visible")
    assert charts.count() == page.locator("svg.chart").count() / 2 > 15
    assert page.locator(".wide[data-scrolls] svg.chart").count() == 0
    assert charts.evaluate_all(OVERLAPS) == []
    headings = page.locator("table.metrics tbody th")
    assert min(headings.evaluate_all("list => list.map(th => th.clientWidth)")) >= 90
    page.close()


def test_the_drawing_for_a_phone_has_the_bars_of_the_wide_one(open_page: Callable[..., Any]) -> None:
    page = open_page(NARROW)
    bars = page.locator("svg.narrow g.bars").first
    wide = page.locator("svg.chart:not(.narrow) [data-marks]").first.get_attribute("data-marks").split("\n")
    assert bars.locator("a").count() == len(wide)
    first, last = (bars.locator("a").nth(i).bounding_box() for i in (0, len(wide) - 1))
    drawing = page.locator("svg.narrow").first.bounding_box()
    assert drawing["x"] + 60 < first["x"] < drawing["x"] + 90  # behind the axis, which is at 70 of 380 units
    assert first["x"] < last["x"] < drawing["x"] + drawing["width"]
    page.close()


@pytest.mark.slow
def test_a_layer_table_fits_or_shows_that_it_scrolls(open_page: Callable[..., Any]) -> None:
    for width, scrolls in ((NARROW, True), (WIDE, False)):
        page = open_page(width)
        controls(page).locator(".expand").click()
        region = page.locator(".wide:has(table.layers)").nth(1)
        assert region.evaluate("r => r.scrollWidth > r.clientWidth") == scrolls
        page.wait_for_function(
            "([r, s]) => r.hasAttribute('data-scrolls') === s", arg=[region.element_handle(), scrolls]
        )
        content = region.evaluate("r => getComputedStyle(r, '::before').content")
        assert content == ('"Scroll sideways ↔"' if scrolls else "none")
        page.close()


OVERLAPS = """svgs => svgs.flatMap(svg => {
  const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([name, a], i) => boxes.slice(0, i).filter(([, b]) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
    Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3
  ).map(([other]) => `${name} on ${other}`));
})"""
"""The texts of a drawing that overprint each other."""


@pytest.mark.slow
@pytest.mark.parametrize("width", quick([WIDE, NARROW], 1))
def test_labels_of_stage_graphs_do_not_overprint(
    width: int, open_page: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = open_page(width, file=written(tmp_path_factory.mktemp("detectors"), "csp_peleenet_efm", "peleenet_yolo"))
    assert page.locator("svg.pair:visible").count() == 1
    assert page.locator("svg.stages, svg.pair:visible").evaluate_all(OVERLAPS) == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_texts_of_charts_do_not_overprint(width: int, open_page: Callable[..., Any]) -> None:
    page = open_page(width)
    assert page.locator("svg.chart:visible").evaluate_all(OVERLAPS) == []
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_accessibility_rules_hold(width: int, scheme: str, open_page: Callable[..., Any], shallow: Path) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        missing("axe-playwright-python is not installed")
    page = open_page(width, file=shallow, color_scheme=scheme)
    controls(page).locator(".expand").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()
