"""The page in a browser: it shows an order, tells an error, asks for a key, and asks nobody else anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from evidence.browser import CHROMIUM, Page
from serving.servers import running, stand_in

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")]
TEXTS = "[...document.querySelectorAll('#order .text')].map((text) => text.textContent)"
SAID = "document.getElementById('said').textContent"
OVERHANG = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass(frozen=True)
class Url:
    """What `Page.open` asks of a file."""

    url: str

    def as_uri(self) -> str:
        return self.url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(stand_in(), max_chars=200) as client:
        yield client


def opened(page: Page, client: httpx.Client, **how: Any) -> None:
    page.errors.clear()
    page.requests.clear()
    page.open(Url(f"{client.base_url}/"), **how)  # type: ignore[arg-type]
    page.wait("document.getElementById('about').textContent.includes('tokens') || !document.getElementById('locked').hidden")


def typed(page: Page, field: str, text: str) -> None:
    page.run(f"document.getElementById('{field}').select()")
    page.call("Input.insertText", text=text)


def ranked(page: Page) -> None:
    page.run("document.querySelector('button').click()")
    page.wait("!document.querySelector('button').disabled")


def test_an_order_is_shown_and_texts_stay_texts(browser: Page, client: httpx.Client) -> None:
    opened(browser, client)
    assert browser.run("document.getElementById('model').textContent") == "stand-in"
    typed(browser, "query", "why")
    nasty = "<script>window.broken=1</script> river"
    typed(browser, "texts", f"stone\n{nasty}\n\n  \nwindow")
    browser.run("document.getElementById('query').focus()")
    browser.press("Enter", 13, "\r")
    browser.wait("document.querySelectorAll('#order li').length === 3")
    body = {"query": "why", "texts": ["stone", nasty, "window"]}
    ranks = client.post("/rerank", json=body).json()
    assert browser.run(TEXTS) == [body["texts"][rank["index"]] for rank in ranks]
    moved = browser.run("[...document.querySelectorAll('.moved')].map((each) => each.textContent.trim())")
    assert moved == [
        "" if rank["index"] == place else f"{'▲' if rank['index'] > place else '▼'}{abs(rank['index'] - place)}"
        for place, rank in enumerate(ranks)
    ]
    assert browser.run("window.broken") is None
    assert browser.run(SAID).startswith("3 passages in ")
    assert browser.errors == []
    assert all(url.startswith((str(client.base_url), "data:")) for url in browser.requests)


def test_an_error_is_told(browser: Page, client: httpx.Client) -> None:
    opened(browser, client)
    typed(browser, "texts", "r" * 201)
    ranked(browser)
    assert "must have less than 201 characters" in browser.run(SAID)


def test_a_locked_server_asks_for_its_key(browser: Page) -> None:
    with running(stand_in(), key="open-sesame") as locked:
        opened(browser, locked)
        browser.wait("!document.getElementById('locked').hidden")
        ranked(browser)
        assert "a key is needed" in browser.run(SAID)
        typed(browser, "key", "open-sesame")
        ranked(browser)
        assert browser.run("document.querySelectorAll('#order li').length") == 3


def test_the_documentation_is_shown_without_any_other_host(browser: Page, client: httpx.Client) -> None:
    browser.requests.clear()
    browser.open(Url(f"{client.base_url}/docs"))  # type: ignore[arg-type]
    browser.wait("document.querySelectorAll('.opblock').length >= 7")
    assert all(url.startswith((str(client.base_url), "data:", "blob:")) for url in browser.requests)


def test_everything_has_a_name_and_nothing_hangs_over_on_a_phone(browser: Page, client: httpx.Client) -> None:
    opened(browser, client, width=360, height=740)
    typed(browser, "texts", "river" * 30 + "\nstone")
    ranked(browser)
    browser.wait("document.querySelectorAll('#order li').length === 2")
    assert browser.run(OVERHANG) == 0
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [node for node in nodes if node.get("role", {}).get("value") in ("button", "textbox", "meter", "list", "link")]
    assert {"button", "textbox", "meter"} <= {node["role"]["value"] for node in named}
    asked = [node for node in named if node["role"]["value"] != "list" and not node.get("ignored")]
    assert all(node["name"]["value"] for node in asked)


def test_a_picture_of_each_theme(browser: Page, client: httpx.Client, tmp_path: Path) -> None:
    papers = []
    folder = Path(os.environ.get("DISTILRANK_PICTURES", tmp_path))
    for theme in ("light", "dark"):
        opened(browser, client, width=900, height=800, dark=theme == "dark")
        ranked(browser)
        browser.wait("document.querySelectorAll('#order li').length === 3")
        papers.append(browser.run("getComputedStyle(document.body).backgroundColor"))
        browser.picture(folder / f"{theme}.png")
        assert (folder / f"{theme}.png").stat().st_size > 10_000
    assert papers[0] != papers[1]
