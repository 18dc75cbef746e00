"""What CI has to have."""

import re

from tests.support import ROOT, engines


def test_ci_installs_every_engine() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    wanted = dict(re.findall(r"^want (\S+) (\S+)$", script, re.MULTILINE))
    for programs in engines.NEEDED.values():
        assert programs.items() <= wanted.items()
    assert "chromium" in wanted
