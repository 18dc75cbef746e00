"""Every block of Python and of commands in what users read is run; there is no exception."""

import re
from pathlib import Path

import pytest

from tests.support import PAGES, ROOT
from tests.support.pages import Page, Shell, blocks

READ = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    *("adroll_flask/sandbox/README.md", "static/README.md"),
    *(str(path.relative_to(ROOT)) for path in PAGES),
]


#: What Sphinx makes something of; it is no code.
DIRECTIVES = re.compile(r"\{.*\}")


TESTS = [path.read_text() for path in sorted(Path(__file__).parent.glob("test_*.py"))]


#: By page: how many of its commands are only looked at.
TYPED = {
    "docs/tutorial/index.md": 1,
    "docs/how-to/go-live.md": 0,
    "CONTRIBUTING.md": 1,
    "docs/explanation/measuring.md": 2,
    "docs/how-to/django.md": 2,
    "docs/how-to/bottle.md": 1,
    "docs/how-to/pyramid.md": 1,
    "docs/how-to/fastapi.md": 1,
    "docs/how-to/starlette.md": 1,
    "docs/how-to/litestar.md": 1,
    "docs/how-to/quart.md": 1,
}


def with_code() -> list[str]:
    """The pages that have code."""
    return [
        page
        for page in READ
        if any(not DIRECTIVES.fullmatch(block.language) for block in blocks(page))
    ]


def run_whole() -> set[str]:
    """The pages that a test runs as a context manager, which demands all of their blocks."""
    found: set[str] = set()
    for text in TESTS:
        named = dict(re.findall(r'^(\w+) = ("[\w/.-]+\.md")$', text, re.MULTILINE))
        opened = re.findall(r'\bPage\((\w+|"[^"]+")[^)]*\) as ', text)
        found |= {named.get(page, page).strip('"') for page in opened}
    return found


WHOLE = run_whole() | {*TYPED}


@pytest.mark.parametrize("page", with_code())
def test_the_blocks_of_each_page_are_run(page: str) -> None:
    for block in blocks(page):
        assert block.language, f"{block}: name its language, text where it is none"
        if block.language in ("python", "console"):
            assert page in WHOLE, f"{block}, below {block.section!r}"


# -- pages that need nothing but a shell, typed as they stand: real processes, real commands ------


#: With the proofs; and the framework that a page is for.
SLOW = ("benchmarks", "django", "bottle", "pyramid", "starlette", "litestar", "quart")


NEEDED = {"pyramid": "pyramid_tm"} | {
    name: name for name in ("django", "bottle", "fastapi", "starlette", "litestar", "quart")
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if Path(name).stem in SLOW else [])
        for name in TYPED
    ],
)
def test_a_page_works_as_it_stands(name: str, tmp_path: Path) -> None:
    if module := NEEDED.get(Path(name).stem):
        pytest.importorskip(module)
    with Shell(tmp_path) as shell, Page(name, shell) as page:
        page.run()
    assert shell.typed
    assert len(shell.untyped) == TYPED[name], shell.untyped
