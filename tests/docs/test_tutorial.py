"""The tutorial, typed as it stands: real processes, each command and each line of code."""

from __future__ import annotations

from pathlib import Path

from tests.support.pages import Page, Shell


def test_the_tutorial_works_as_it_stands(tmp_path: Path) -> None:
    with (
        Shell(tmp_path) as shell,
        Page("docs/tutorial/index.md", shell) as page,
    ):
        page.run()
    assert set(shell.untyped) == {"pip install adroll-flask pytest"}
