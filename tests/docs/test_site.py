"""The built site: `make docs` without a network, and what its pages ask a browser to load."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import adroll_flask
from tests.support import PAGES, ROOT
from tests.support.docs_site import built_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


class Loads(HTMLParser):
    """What a page has the browser load by itself, and where its links lead."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if "id" in given:
            self.ids.add(given["id"] or "")
        if tag == "a":
            self.links.append(given.get("href") or "")
        elif tag == "link":
            # A browser follows these by itself; the others (next, search, canonical) it does not.
            rel = (given.get("rel") or "").split()
            if {"stylesheet", "icon", "preload", "preconnect", "modulepreload"} & {*rel}:
                self.loaded.append(given.get("href") or "")
        else:
            self.loaded += [
                given[name] or "" for name in ("src", "srcset", "data") if name in given
            ]


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for address in Loads(page).loaded:
            assert not urlsplit(address).netloc, f"{page.name}: {address}"
    for style in site.rglob("*.css"):
        text = style.read_text()
        assert "url(http" not in text, style
        assert "url(//" not in text, style
        assert "@import" not in text, style


def test_each_public_name_has_its_place_in_the_reference(site: Path) -> None:
    ids: set[str] = set()
    for page in (site / "reference").rglob("*.html"):
        ids |= Loads(page).ids
    for name in adroll_flask.__all__:
        if name != "__version__":
            homes = ("adroll_flask", "adroll_flask.signals", "adroll_flask.errors")
            assert {f"{home}.{name}" for home in homes} & ids, name


def test_what_is_searched_is_on_the_site(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    assert "release_convers" in index  # stemmed
    assert (site / "search.html").exists()


def test_an_address_that_is_not_there_has_a_page_that_works_from_any_folder(site: Path) -> None:
    found = Loads(site / "404.html")
    assert all(address.startswith("/") for address in found.loaded if address)
    assert "/index.html" in found.links


def test_programs_find_every_page_as_text(site: Path) -> None:
    index = (site / "llms.txt").read_text()
    assert index.startswith("# adroll_flask\n\n> Tell AdRoll of every conversion")
    linked = set(re.findall(r"\]\(([^)]+\.txt)\)", index))
    pages = {str(path.relative_to(ROOT / "docs").with_suffix(".txt")) for path in PAGES}
    assert pages - {"index.txt"} == linked
    for address in linked:
        assert (site / address).read_text().strip(), address
    full = (site / "llms-full.txt").read_text()
    assert "release_conversion" in full
    assert "Delivery, and what an answer means" in full


def test_a_setting_a_command_and_a_function_are_links_wherever_they_stand(site: Path) -> None:
    links = Loads(site / "explanation" / "delivery.html").links
    for address in (
        "../reference/settings.html#confval-ADROLL_MAX_AGE",
        "../reference/commands.html#flask-adroll-outbox-retry",
        "../reference/functions.html#adroll_flask.report_conversion",
    ):
        assert address in links
    places = Loads(site / "reference" / "commands.html").ids
    assert {"flask-adroll-check", "flask-adroll-outbox-retry"} <= places


def test_no_link_between_pages_leads_nowhere(site: Path) -> None:
    pages = {path: Loads(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in pages.items():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not address or address == "#":
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert there.exists(), f"{path.name}: {address}"
            if parts.fragment and there in pages:
                assert parts.fragment in pages[there].ids | {"top"}, f"{path.name}: {address}"
