"""What a machine without an engine is told."""

import re
import shutil
from typing import Any

import pytest

from tests.support import ROOT, engines


@pytest.mark.parametrize("on_ci", [False, True])
def test_a_missing_engine_says_how_to_get_it(on_ci: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", str(on_ci).lower())
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    ends: Any = pytest.fail.Exception if on_ci else pytest.skip.Exception
    with pytest.raises(ends, match="no webkit: apt-get install webkit2gtk-driver xvfb"):
        engines.demand("webkit")


def test_ci_installs_every_engine() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    wanted = dict(re.findall(r"^want (\S+) (\S+)$", script, re.MULTILINE))
    for programs in engines.NEEDED.values():
        assert programs.items() <= wanted.items()
    assert "chromium" in wanted
