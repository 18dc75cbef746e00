"""Each sentence of the documents that promise something, and the test that shows it.

``promises.toml`` has each sentence, a line of a list or a row of a table being one as well, by its
first words: with the tests that show it, or among those that promise nothing of ours (what AdRoll
or a browser does, an advice, a definition, a figure that was measured).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT

DOCUMENTS: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("promises.toml").read_text()
)
_GLOSSARY = re.compile(r"^(`{3,})\{glossary\}$(.*?)^\1$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r"^ *(`{3,}).*?^ *\1`*$", re.MULTILINE | re.DOTALL)
_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z`*\[\"])")
_RULE = re.compile(r"[|\s:-]+")
#: A row that has but figures behind its first cell: what was measured.
_FIGURES = re.compile(r"\|[^|]*\|[\d\s.,/()+×|of-]+")


def sentences(text: str) -> list[str]:
    """The sentences of a page without its headings, code and figures, each on one line."""
    found: list[str] = []
    text = _FENCE.sub("\n\n", _GLOSSARY.sub(r"\2", text))
    for paragraph in re.split(r"\n\s*\n", text):
        pieces: list[str] = [""]
        for line in map(str.strip, paragraph.splitlines()):
            if line.startswith("#") or _RULE.fullmatch(line) or _FIGURES.fullmatch(line):
                continue
            if line.startswith(("|", "- ")):
                pieces.append("")
            pieces[-1] += f" {line}"
        for piece in map(str.strip, pieces):
            found += [piece.strip("| ")] if piece.startswith("|") else _END.split(piece)
    return [sentence.removeprefix("- ") for sentence in found if sentence]


@pytest.mark.parametrize("page", DOCUMENTS)
def test_each_sentence_is_shown_by_a_test_or_promises_nothing(page: str) -> None:
    shown, nothing = DOCUMENTS[page]["shown"], DOCUMENTS[page]["no_promise"]
    known = [*shown, *nothing]
    said = sentences((ROOT / page).read_text())
    for words in known:
        found = [sentence for sentence in said if sentence.startswith(words)]
        assert len(found) == 1, f"{page}: {len(found)} sentences begin with: {words}"
    for sentence in said:
        assert sentence.startswith(tuple(known)), (
            f"{page}: which test shows this? Name it in tests/house/promises.toml: {sentence}"
        )


@pytest.mark.parametrize("page", DOCUMENTS)
def test_each_test_that_is_named_is_there(page: str) -> None:
    for words, tests in DOCUMENTS[page]["shown"].items():
        assert tests, f"{page}: {words}"
        for name in tests:
            path, _, test = name.partition("::")
            assert f"def {test}(" in (ROOT / path).read_text(), f"{page}: {words}: {name}"


def test_each_page_that_says_something_has_its_table() -> None:
    pages = [ROOT / "SECURITY.md", *(ROOT / "docs" / "explanation").glob("*.md")]
    found = {str(page.relative_to(ROOT)) for page in pages if sentences(page.read_text())}
    assert found == set(DOCUMENTS)


def test_a_sentence_that_is_new_is_missed() -> None:
    text = "# No\n\nOne. Two\ngoes on: `x` too.\n\n| a | b |\n| --- | --- |\n| c | d |\n| e | 1 |\n"
    text += "\n```\nno\n```\n\n```{glossary}\ng\n  Is. It\n  is.\n```\n\n- e\n  f\n"
    said = ["One.", "Two goes on:", "`x` too.", "a | b", "c | d", "g Is.", "It is.", "e f"]
    assert sentences(text) == said
