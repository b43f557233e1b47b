"""The report in a browser: what can be pressed works, texts stay texts, and nothing is asked of the network."""

from __future__ import annotations

import base64
import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from evidence.browser import CHROMIUM, Page
from evidence.pages import NASTY, QUERIES, full, html_of

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]
ENTER, ESCAPE = ("Enter", 13, "\r"), ("Escape", 27)
LINES = "[...document.querySelectorAll('.queries .open')].map((line) => line.textContent)"
OVERHANG = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
COUNT = "document.getElementById('queries-count').textContent"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every section, whose texts try to be HTML."""
    folder = tmp_path_factory.mktemp("report")
    found = full(f"</script><img src=x onerror='window.broken=1'>{NASTY}")
    of = [dataclasses.replace(group, query=f"{group.query} <script>window.broken=1</script>") for group in found.groups]
    html_of(dataclasses.replace(found, groups=of), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    browser.errors.clear()
    browser.requests.clear()
    browser.open(report)
    yield browser
    assert browser.errors == []
    assert set(browser.requests) == {report.as_uri()}


def kind(page: Page, selector: str, text: str) -> None:
    """Type a text into a field."""
    page.run(f"document.querySelector('{selector}').focus()")
    page.call("Input.insertText", text=text)


def test_texts_are_shown_and_not_run(page: Page) -> None:
    page.run("document.querySelector('.open').click()")
    page.wait("document.querySelector('.side')")
    assert "<script>window.broken=1</script>" in page.run("document.querySelector('.open').textContent")
    assert "<script>alert('x')</script>" in page.run("document.querySelector('.side .text').textContent")
    assert page.run("window.broken") is None
    assert page.run("document.images.length") == 0


def test_the_biggest_losses_stand_first_and_columns_sort(page: Page) -> None:
    changes = "[...document.querySelectorAll('#queries-body tr td:last-child')].map((cell) => cell.textContent)"
    first = [float(text.replace("−", "-")) for text in page.run(changes)]
    assert first == sorted(first)
    assert len(first) == 20
    page.run("document.querySelector('#queries-head button[data-column=\"3\"]').click()")
    last = [float(text.replace("−", "-")) for text in page.run(changes)]
    assert last == sorted(last, reverse=True)
    assert last[0] > first[-1]
    sorts = "[...document.querySelectorAll('#queries-head th')].map((head) => head.getAttribute('aria-sort'))"
    assert page.run(sorts) == [None, "none", "none", "none", "descending"]


def test_pages_filters_and_search_agree_with_the_counts(page: Page) -> None:
    assert page.run(COUNT) == f"1–20 of {QUERIES + 2}"
    page.run("document.getElementById('queries-next').click()")
    page.run("document.getElementById('queries-next').click()")
    assert page.run(COUNT) == f"41–42 of {QUERIES + 2}"
    assert page.run("document.getElementById('queries-next').disabled")
    told = page.run("[...document.querySelectorAll('.counts b')].map((count) => Number(count.textContent))")
    for show, count in zip(("won", "tied", "lost"), told, strict=True):
        page.run(f"(() => {{ const show = document.getElementById('queries-show'); show.value = '{show}';"
                 " show.dispatchEvent(new Event('input')); })()")  # fmt: skip
        assert page.run(COUNT).endswith(f" of {count}")
    page.open(Path(page.run("location.pathname")))
    kind(page, "#queries-search", "QUERY 7")
    assert sorted(line.partition(" <")[0] for line in page.run(LINES)) == [f"query {number}" for number in (17, 27, 37, 7)]


def test_a_query_opens_by_keyboard_with_its_rankings_side_by_side(page: Page) -> None:
    page.run("document.querySelector('.open').focus()")
    page.press(*ENTER)
    page.wait("document.querySelector('.side')")
    assert page.run("document.querySelector('.open').getAttribute('aria-expanded')") == "true"
    sides = "[...document.querySelectorAll('.side')].map((side) => side.querySelector('h4').textContent)"
    assert page.run(sides) == ["student", "student-distilled", "big teacher"]
    listed = "[...side.querySelectorAll('li')].map((item) => item.dataset.passage)"
    places = f"[...document.querySelectorAll('.side')].map((side) => {listed})"
    before, after, _ = page.run(places)
    moves = page.run("[...document.querySelectorAll('.side')[1].querySelectorAll('li')]"
                     ".map((item) => item.querySelector('.moved')?.textContent ?? '')")  # fmt: skip
    wanted = [before.index(passage) - place for place, passage in enumerate(after)]
    assert moves == [f"{'▲' if by > 0 else '▼'}{abs(by)}" if by else "" for by in wanted]
    page.run("document.querySelectorAll('.side')[1].querySelector('li').focus()")
    assert page.run("document.querySelectorAll('.same').length") == 3
    page.run("document.querySelector('.open').focus()")
    page.press(*ENTER)
    assert page.run("document.querySelectorAll('.side').length") == 0


def test_definitions_open_by_keyboard_and_close_by_escape(page: Page) -> None:
    page.run("document.querySelector('#changes .term').focus()")
    page.press(*ENTER)
    opened = "document.querySelector('.means:popover-open')?.textContent ?? ''"
    assert "candidates hold a positive passage" in page.run(opened)
    page.press(*ESCAPE)
    assert page.run(opened) == ""


def test_light_and_dark_follow_the_system_and_the_button(page: Page, report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.run(paper)
    page.open(report, dark=True)
    dark = page.run(paper)
    assert light != dark
    for expected in (light, dark):
        page.run("document.getElementById('theme').click()")
        assert page.run(paper) == expected


def test_no_page_is_wider_than_a_phone(page: Page, report: Path) -> None:
    page.open(report, width=390, height=844)
    page.run("document.querySelector('.open').click()")
    page.wait("document.querySelector('.side')")
    assert page.run(OVERHANG) == 0


def test_figures_have_names_and_descriptions_for_those_who_hear_them(page: Page) -> None:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    figures = [node for node in nodes if node.get("role", {}).get("value") in ("image", "img", "graphics-document")]
    assert len(figures) == page.run("document.querySelectorAll('svg').length") > 10
    assert all(node["name"]["value"] and node["description"]["value"] for node in figures)
    named = [node for node in nodes if node.get("role", {}).get("value") in ("button", "combobox", "searchbox")]
    assert len(named) > 20
    assert all(node["name"]["value"] for node in named if not node.get("ignored"))


def test_on_paper_the_definitions_are_a_list_and_nothing_hangs_over(page: Page, report: Path) -> None:
    page.open(report, width=720, media="print", dark=True)
    visible = "[...document.querySelectorAll('.means')].filter((means) => means.getBoundingClientRect().height > 0).length"
    assert page.run(visible) == page.run("document.querySelectorAll('.means').length") > 20
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run(OVERHANG) == 0
    assert len(base64.b64decode(page.call("Page.printToPDF")["data"])) > 50_000


def test_without_scripts_all_but_the_table_is_there(page: Page, report: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.call("Page.navigate", url=report.as_uri())
        read = ""
        for _ in range(1_000):  # its own scripts cannot say when the page is there
            nodes = page.call("Accessibility.getFullAXTree")["nodes"]
            read = " ".join(str(node.get("name", {}).get("value", "")) for node in nodes)
            if "Written by distilrank" in read:
                break
        assert "The table of all queries needs scripts" in read
        assert "Biggest losses" in read
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_picture_of_each_theme(page: Page, report: Path, tmp_path: Path) -> None:
    sizes = []
    for dark in (False, True):
        page.open(report, width=1200, height=2400, dark=dark)
        page.picture(tmp_path / "report.png")
        data = (tmp_path / "report.png").read_bytes()
        assert struct.unpack(">II", data[16:24]) == (1200, 2400)
        sizes.append(len(data))
    assert min(sizes) > 40_000
