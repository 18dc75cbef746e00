"""A program that places the snippet into pages, one for each line of JSON that it reads."""

import importlib.util
import json
import sys
from typing import Any

from tests.support import ROOT

# The module alone: under valgrind, importing the package takes a minute.
SPEC: Any = importlib.util.spec_from_file_location(
    "placement", ROOT / "adroll_flask/page/placement.py"
)
PLACEMENT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(PLACEMENT)
SNIPPET = b"<script async data-adroll></script>"


def place(page: bytes, step: int) -> None:
    """*page* whole, or in pieces of *step* bytes."""
    placer = PLACEMENT.Placer(SNIPPET, charset="utf-8")
    if not step:
        placer.feed(page, final=True)
        return
    for begin in range(0, len(page), step):
        placer.feed(page[begin : begin + step])
    placer.feed(b"", final=True)


if __name__ == "__main__":
    for line in sys.stdin:
        told = json.loads(line)
        start, piece, end = (told[name].encode("latin-1") for name in ("start", "piece", "end"))
        place(start + piece * (told["size"] // len(piece)) + end, told["step"])
        print(flush=True)
