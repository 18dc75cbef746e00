"""What several tests need: small sites, shops, engines and servers. No tests in here."""

from __future__ import annotations

from pathlib import Path

#: The checkout: programs that tests start run in it, so that they find ``tests.support``.
ROOT = Path(__file__).resolve().parents[2]
#: The pages of the documentation.
PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md") if not {"node_modules", "_build"} & {*path.parts}
)

#: Seconds after which a test gives up waiting for what has to come: long enough for a machine at
#: full load, which a wait for a state never spends where the state comes.
PATIENCE = 60.0
