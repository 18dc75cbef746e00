"""What a machine without an engine is told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.engines import NEEDED, demand

RUN = (Path(__file__).parents[2] / ".ci" / "run").read_text()


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("on_ci", [False, True])
def test_a_missing_engine_says_how_to_get_it_and_fails_on_ci(
    name: str, on_ci: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", str(on_ci).lower())
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    ends: Any = pytest.fail.Exception if on_ci else pytest.skip.Exception
    packages = " ".join(NEEDED[name].values())
    with pytest.raises(ends, match=f"no {name}: apt-get install {packages}"):
        demand(name)


def test_ci_installs_every_engine() -> None:
    wanted = dict(re.findall(r"^want (\S+) (\S+)$", RUN, re.MULTILINE))
    for programs in NEEDED.values():
        assert programs.items() <= wanted.items()
    assert "chromium" in wanted
