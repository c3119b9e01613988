"""The HTML report in a real browser: sorting, filtering, folding, links, keyboard, colours, and who it shuts out.

Chromium is found on the path or named by CSPPROF_BROWSER. Without one these tests skip; with CSPPROF_REQUIRE_BROWSER
set, as in CI, they fail instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import cspprof
from cspprof.analysis.layer_rows import kind_label, layer_rows
from cspprof.render.page.document import html_page

REQUIRED = bool(os.environ.get("CSPPROF_REQUIRE_BROWSER"))
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip
NARROW, WIDE = 390, 1280


def absent(what: str) -> None:
    message = f"{what}, so the report is not tried in a browser"
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
    """Half as long, for rules that are asked of every element, and with every kind of element that the other has."""
    names = "resnext50,depths=(1,1,1,1)", "csp_resnext50,depths=(2,1,1,1),fusion=last"
    path = written(tmp_path_factory.mktemp("shallow"), *names)
    assert kinds(path) >= kinds(file)
    return path


def kinds(path: Path) -> set[tuple[str, ...]]:
    """Tags with their classes, roles and names of attributes."""
    found: set[tuple[str, ...]] = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            held = dict(attributes)
            found.add((tag, held.get("class") or "", held.get("role") or "", *sorted(held)))

    Reader().feed(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def open_page(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """`open_page(width)` is the report in a window; when the tests are over nothing may have been complained of or
    asked for."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        absent("playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CSPPROF_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        absent("there is no Chromium")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("browser")), executable_path=program, args=FLAGS, color_scheme="light"
        )

        def opened(width: int = WIDE, fragment: str = "", file: Path = file, **media: Any) -> Any:
            page = context.new_page()
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=media.get("color_scheme", "light"), media=media.get("media", "screen"))
            page.on("console", lambda message: complaints.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
            page.on("request", lambda request: request.url.split("#")[0] == file.as_uri() or request.url.startswith(
                "data:,") or complaints.append(f"request: {request.url}"))  # fmt: skip
            page.goto(file.as_uri() + fragment)
            return page

        yield opened
        context.close()
    assert complaints == []


@pytest.fixture
def page(open_page: Callable[..., Any]) -> Iterator[Any]:
    opened = open_page()
    yield opened
    opened.close()


def table_of(page: Any, model: int = 1) -> Any:
    return page.locator("table.layers").nth(model)


def shown(page: Any, column: int = 0, model: int = 1) -> list[str]:
    """The cells of one column in the rows that are seen, in order."""
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


def test_it_opens_on_modules_that_fit_on_a_screen(page: Any) -> None:
    assert shown(page) == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert controls(page).locator("output").text_content() == (
        "194 of 194 rows: MACs 3,964,616,704 (100.0 %), CIO 32,642,024 (100.0 %)"
    )


def test_a_flat_list_sorts_by_any_column_both_ways_and_back(page: Any) -> None:
    modules = controls(page).locator(".group")
    modules.click()
    assert modules.get_attribute("aria-pressed") == "false"
    before = shown(page)
    assert len(before) == 194
    assert sort_by(page, "params") == "descending"
    values = numbers(shown(page, 9))
    assert values == sorted(values, reverse=True)
    assert sort_by(page, "params") == "ascending"
    assert numbers(shown(page, 9)) == sorted(values)
    assert sort_by(page, "params") == "none"
    assert shown(page) == before
    assert sort_by(page, "live memory") == "descending"
    assert shown(page, 10)[0] == "8.00 MiB"
    assert sort_by(page, "stage") == "ascending"
    assert shown(page, 2) == sorted(shown(page, 2))


def test_within_modules_sorting_keeps_the_tree(page: Any) -> None:
    sort_by(page, "CIO")
    assert shown(page) == ["stage1", "stage2", "stage3", "stem", "stage4", "head"]


def test_filtering_shows_what_matches_under_its_modules_and_adds_it_up(page: Any) -> None:
    box = controls(page)
    box.locator("input").fill("stage1 conv 1×1")
    paths = shown(page)
    assert paths[0] == "stage1"
    assert all(p.startswith("stage1") for p in paths)
    assert set(shown(page, 1)[-1:]) == {"conv 1×1"}
    told = box.locator("output").text_content()
    wanted = [r for r in layer_rows(cspprof.profile("csp_resnext50")) if (r.stage, kind_label(r.spec)) == ("stage1", "conv 1×1")]
    macs = sum(r.spec.macs or 0 for r in wanted)
    assert told.startswith(f"{len(wanted)} of 194 rows: MACs {macs:,} (")
    box.locator("input").fill("no such layer")
    assert shown(page) == []
    assert box.locator("output").text_content().startswith("0 of 194 rows: MACs 0 (0.0 %)")
    box.locator("input").fill("")
    box.locator("select.kind").select_option("max pool")
    assert shown(page) == ["stem", "stem.pool"]
    box.locator("select.kind").select_option("")
    box.locator("select.stage").select_option("head")
    assert shown(page)[0] == "head"
    box.locator("select.stage").select_option("")
    assert len(shown(page)) == 6


def test_modules_fold_by_click_by_key_and_all_at_once(page: Any) -> None:
    button = table_of(page).locator("tbody button", has_text="stage1").first
    assert button.get_attribute("aria-expanded") == "false"
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    assert "stage1.transition" in shown(page)
    button.press("Enter")
    assert len(shown(page)) == 6
    controls(page).locator(".expand").click()
    opened = len(shown(page))
    assert opened == table_of(page).locator("tbody tr").count()
    controls(page).locator(".fold").click()
    assert len(shown(page)) == 6


def test_a_bar_tells_its_value_and_leads_to_its_row(page: Any) -> None:
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


def test_a_bar_leads_to_its_row_past_filters_and_closed_tables(page: Any) -> None:
    page.locator("details.layers").nth(1).evaluate("d => { d.open = false; }")
    controls(page, 0).locator("input").evaluate("i => { i.value = 'nothing'; i.oninput(); }")
    for model, at in ((0, 3), (1, 70)):
        bar = page.locator("svg.chart").first.locator("a").nth(at)
        bar.click()
        assert page.locator(bar.get_attribute("href")).is_visible(), model


def test_an_address_with_a_row_opens_there(open_page: Callable[..., Any]) -> None:
    page = open_page(fragment="#r1-40")
    assert page.locator("#r1-40").is_visible()
    page.close()


def test_a_box_of_the_stages_leads_to_its_first_layer(page: Any) -> None:
    box = page.locator("svg.stages").nth(1).locator("a", has_text="stage2")
    box.click()
    row = page.locator(box.get_attribute("href"))
    assert row.is_visible()
    assert row.locator("th").text_content().startswith("stage2.")


def test_a_chart_is_one_stop_of_the_tab_key_and_arrows_walk_it(page: Any) -> None:
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


def test_the_first_stop_leads_past_the_navigation(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0


def test_colours_follow_the_system_and_the_button(open_page: Callable[..., Any]) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = open_page(color_scheme="dark")
    assert dark.evaluate(paper) == "rgb(20, 23, 26)"
    dark.locator("#theme").click()
    assert dark.evaluate(paper) == "rgb(255, 255, 255)"
    dark.close()


def test_paper_has_no_controls_and_light_colours(open_page: Callable[..., Any]) -> None:
    page = open_page(color_scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert controls(page).is_hidden()
    assert page.locator("nav").is_hidden()
    assert table_of(page).is_visible()
    page.close()


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_the_page_itself_never_scrolls_sideways(width: int, open_page: Callable[..., Any]) -> None:
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_no_rule_of_accessibility_is_broken(
    width: int, scheme: str, open_page: Callable[..., Any], shallow: Path
) -> None:
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        absent("axe-playwright-python is not installed")
    page = open_page(width, file=shallow, color_scheme=scheme)
    controls(page).locator(".expand").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()
