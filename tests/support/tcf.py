"""The TC strings of the reference implementation: ``tests/data/tcf/make.mjs`` wrote them."""

import json
from typing import Any

from . import ROOT

CASES: list[dict[str, Any]] = json.loads(
    (ROOT / "tests" / "data" / "tcf" / "strings.json").read_text("utf-8")
)["cases"]
STRINGS: dict[str, str] = {case["name"]: case["string"] for case in CASES}
YES, NO = STRINGS["130 alone"], STRINGS["nobody"]
