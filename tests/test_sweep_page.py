"""The page of a sweep in a browser: any two numbers, any part of the axes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from test_report_browser import FLAGS, NARROW, missing

from cspprof.sweeps.candidate import Row
from cspprof.sweeps.explorer import explorer_page
from cspprof.sweeps.front import Objective, front

pytestmark = pytest.mark.slow

NUMBERS = [(4, 4), (2, 8), (8, 2), (8, 8), (2, 9)]
"""MACs and parameters; the first three are Pareto-optimal."""


def row(position: int, macs: int, params: int) -> Row:
    axes = {"gamma": [0.25, 0.5][position % 2], "name": "</script><b>"}
    values = {"macs": macs, "params": params, "moc": macs / params}
    return Row(bytes([position]), position, f"net{position}", axes, "1x3x8x8", "ok", values, (), "", 0.1, "")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browser = os.environ.get("CSPPROF_BROWSER") or which("chromium") or which("google-chrome")
    if browser is None:
        missing("no Chromium")
    rows = [row(i, *numbers) for i, numbers in enumerate(NUMBERS)]
    best = front(lambda: iter(rows), [Objective("macs", False), Objective("params", False)], [])
    path = tmp_path_factory.mktemp("sweep") / "page.html"
    path.write_text(explorer_page(lambda: iter(rows), best, 5), encoding="utf-8")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        opened = chromium.new_page(viewport={"width": NARROW, "height": 900})
        failures: list[str] = []
        opened.on("pageerror", lambda error: failures.append(str(error)))
        opened.goto(Path(path).as_uri())
        yield opened
        assert failures == []
        chromium.close()


def names(page: Any) -> list[str]:
    return [text.split(" ")[0] for text in page.locator("#front tr.row td:first-child").all_inner_texts()]


def test_the_front_follows_the_numbers_and_the_filters(page: Any) -> None:
    assert names(page) == ["net1", "net0", "net2"]
    assert Counter(dot.get_attribute("class") for dot in page.locator("circle").all()) == {"front": 3, "dominated": 2}
    page.get_by_label("gamma").select_option("0.25")
    assert names(page) == ["net4", "net0", "net2"]
    page.get_by_label("gamma").select_option("")
    page.get_by_label("up").select_option("moc")
    assert names(page) == ["net1", "net0", "net2"]
    page.get_by_label("up").select_option("params")


def test_a_chosen_candidate_shows_every_number(page: Any) -> None:
    page.locator("#front tr.row").nth(1).click()
    texts = page.locator("#detail td").all_inner_texts()
    assert dict(zip(texts[::2], texts[1::2], strict=True))["params"] == "4"
    assert page.locator("circle.chosen").count() == 1


def test_nothing_is_wider_than_a_phone(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW
