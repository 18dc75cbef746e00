"""The built site: `make docs` without a network, and what its pages ask a browser to load."""

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selectolax.lexbor import LexborHTMLParser

from tests.support import PAGES, ROOT
from tests.support.docs_site import built_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


#: What a browser follows by itself; other links in a head (next, search, canonical) it does not.
FOLLOWED = ("stylesheet", "icon", "preload", "preconnect", "modulepreload")


class Loads:
    """What a page has the browser load by itself, and where its links lead."""

    def __init__(self, page: Path) -> None:
        tree = LexborHTMLParser(page.read_text())

        def values(selector: str, name: str) -> list[str]:
            return [one.attributes.get(name) or "" for one in tree.css(selector)]

        self.ids = {*values("[id]", "id")}
        self.links = values("a", "href")
        self.loaded = values(", ".join(f"link[rel~={rel}]" for rel in FOLLOWED), "href")
        for name in ("src", "srcset", "data"):
            self.loaded += values(f"[{name}]:not(a):not(link)", name)


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


def test_how_to_is_an_index_by_question_with_each_of_its_pages() -> None:
    folder = ROOT / "docs" / "how-to"
    linked = re.findall(r"\]\(([\w/-]+\.md)\)", (folder / "index.md").read_text())
    pages = {str(path.relative_to(folder)) for path in folder.rglob("*.md")} - {"index.md"}
    assert set(linked) == pages
    assert len(linked) == len(pages), "each page stands in one place"
    titles = [(folder / page).read_text().partition("\n")[0] for page in pages]
    assert len(set(titles)) == len(titles)


def test_what_cannot_be_installed_yet_is_said_in_one_place() -> None:
    """The README's Install, which ``make published`` changes; extras, too."""
    told = "It is not on PyPI yet"
    for path in (ROOT / "README.md", *PAGES, *(ROOT / "examples").rglob("*.md")):
        text = path.read_text()
        assert not re.search(r"pip install adroll-flask\b(?!\[)", text), path
        assert text.count("path/to/clone") == (3 if path == ROOT / "README.md" else 0), path
        assert text.count(told) == (path == ROOT / "README.md"), path


def test_after_the_first_upload_one_command_says_so_once_all_is_filled_in(tmp_path: Path) -> None:
    for name in ("README.md", "pyproject.toml", "adroll_flask/_version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    make = ["make", "--file", str(ROOT / "Makefile"), "--directory", str(tmp_path), "published"]
    for name, placeholder, filled, refusal in (
        ("pyproject.toml", ".invalid", ".example", "tool.publication"),
        ("adroll_flask/_version.py", "bool = False", "bool = True", "DOCS_ARE_PUBLISHED"),
    ):
        refused = subprocess.run(make, capture_output=True, text=True)
        assert (refused.returncode != 0, refusal in refused.stdout) == (True, True), refused
        path = tmp_path / name
        path.write_text(path.read_text().replace(placeholder, filled))
    subprocess.run(make, check=True, capture_output=True)
    text = (tmp_path / "README.md").read_text()
    assert "$ pip install adroll-flask\n" in text
    assert "clone" not in text.partition("## Install")[2].partition("## What it runs on")[0]


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
        "../reference/settings.html#adroll-max-age",
        "../reference/commands.html#flask-adroll-outbox-retry",
        "../reference/functions.html#report-conversion",
    ):
        assert address in links
    places = Loads(site / "reference" / "commands.html").ids
    assert {"flask-adroll-check", "flask-adroll-outbox-retry"} <= places
