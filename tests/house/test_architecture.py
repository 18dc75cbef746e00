"""The page for newcomers names what is there: folders, modules and tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adroll_flask.outbox.values import NUMBER
from tests.support import ROOT

#: Of tests that write one themselves.
MADE_UP = {"page.md"}
PAGES = ["docs/explanation/architecture.md", "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:adroll_flask|tests|docs|static|\.ci)/[^`]*)`", text))
    assert len(named) > 5
    for name in named:
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not test or f"def {test}(" in (ROOT / path).read_text(), name


def test_the_picture_of_states_has_each_of_them_and_no_other() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    picture = text.partition("stateDiagram-v2\n")[2].partition("```")[0]
    ends = {end for pair in re.findall(r"^ +(\S+) --> ([^:\s]+)", picture, re.M) for end in pair}
    assert ends - {"[*]", "journal"} == set(NUMBER)


def test_no_comment_names_a_document_that_is_not_here() -> None:
    for folder in ("adroll_flask", "tests", "benchmarks", "demo_app", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"[\w/-]+\.md\b", path.read_text()):
                there = [ROOT / name, ROOT / "docs" / name, *ROOT.glob(f"*/{Path(name).name}")]
                there += ROOT.glob(f"docs/*/{Path(name).name}")
                assert any(one.exists() for one in there) or name in MADE_UP, f"{path}: {name}"


def test_every_folder_of_the_package_has_its_row() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    folders = {path.parent.name for path in (ROOT / "adroll_flask").glob("*/__init__.py")}
    assert {name for name in folders if f"| `adroll_flask/{name}/` |" not in text} == set()


def test_where_to_start_is_a_module_of_the_folder() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(adroll_flask/\w+/)` .* \| (`[^|]*`) \|$", text, re.MULTILINE)
    assert len(rows) >= 7
    for folder, start in rows:
        for module in re.findall(r"`(\w+\.py)`", start):
            assert (ROOT / folder / module).is_file(), f"{folder}{module}"


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_make_that_is_named_is_there(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", (ROOT / page).read_text())) - targets <= set()


def test_the_changelog_begins_with_the_first_release_and_fits_on_a_page() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    releases = [line for line in lines if line.startswith("## ")]
    assert releases[-1].startswith("## 0.1")
    assert len(lines) <= 60 * len(releases)
