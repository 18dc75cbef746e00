"""Pages that need nothing but a shell, typed as they stand: real processes, real commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pages import Page, Shell

#: By page: how many of its commands are only looked at.
TYPED = {
    "docs/tutorial/index.md": 1,
    "docs/how-to/go-live.md": 0,
    "CONTRIBUTING.md": 1,
    "docs/explanation/benchmarks.md": 2,
    "docs/how-to/django.md": 1,
    "docs/how-to/bottle.md": 1,
    "docs/how-to/pyramid.md": 1,
}
#: With the proofs; and the framework that a page is for.
SLOW = ("benchmarks", "django", "bottle", "pyramid")
NEEDED = {"django": "django", "bottle": "bottle", "pyramid": "pyramid_tm"}


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
