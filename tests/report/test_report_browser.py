"""The page in a real browser: nothing is loaded or complained about, and it can be used in both colour schemes, on a
phone, and by keyboard."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from bitplan.progress import Reporter
from bitplan.report.command import make_report
from bitplan.report.palette import PALETTE

from .browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install it to test the page in a browser")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, results: Path) -> Path:
    path = tmp_path_factory.mktemp("pages")
    shutil.copytree(results, path, dirs_exist_ok=True)
    make_report(path / "out", path / "report.html", path / "other", False, Reporter(quiet=True))
    return path / "report.html"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1000, 360])
def test_it_loads_nothing_complains_of_nothing_and_fits(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.value("document.documentElement.scrollWidth") <= width
    picture = Image.open(io.BytesIO(browser.screenshot()))
    red, green, blue = bytes.fromhex(PALETTE["paper"][dark][1:])
    assert picture.convert("RGB").getpixel((2, 2)) == (red, green, blue)
    ink = browser.value("getComputedStyle(document.querySelector('h1')).color")
    assert ink == f"rgb{tuple(bytes.fromhex(PALETTE['ink'][dark][1:]))}"


def test_the_policy_of_the_page_forbids_what_it_does_not_hold(browser: Browser, page: Path, tmp_path: Path) -> None:
    (tmp_path / "seen.js").write_text("")
    text = page.read_text().replace("</main>", f'<script src="{(tmp_path / "seen.js").as_uri()}"></script></main>')
    (tmp_path / "changed.html").write_text(text)
    browser.open(tmp_path / "changed.html")
    assert any("Content Security Policy" in json.dumps(event) for event in browser.complaints())


def test_plots_are_read_by_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("Tab")
    assert browser.value("document.activeElement.className") == "skip"
    marks = "[...document.querySelectorAll('#layers .mark')]"
    assert browser.value(f"{marks}.map(mark => mark.tabIndex).join()") == "0,-1,-1,-1"
    browser.value(f"{marks}[0].focus()")
    readout = "document.querySelector('#layers .readout').textContent"
    first = browser.value(readout)
    assert first.startswith("stem: ")
    browser.press("ArrowRight")
    assert browser.value(f"{marks}.indexOf(document.activeElement)") == 1
    assert browser.value(readout).startswith("layer <b>")
    browser.press("End")
    assert browser.value(readout).startswith("head: ")
    browser.press("ArrowRight")  # there is no further one
    assert browser.value(readout).startswith("head: ")
    browser.press("Tab")  # to the table, which scrolls by keyboard
    assert browser.value("document.activeElement.className") == "scroll"


def test_wide_tables_and_plots_scroll_in_their_own_box(browser: Browser, page: Path) -> None:
    browser.open(page, width=360)
    boxes = browser.value("[...document.querySelectorAll('.scroll')].map(box => [box.clientWidth, box.scrollWidth])")
    assert all(shown <= 360 for shown, _ in boxes)
    assert sum(needed > shown for shown, needed in boxes) >= 3
    assert browser.value("innerWidth") == 360
