"""Runs AdRoll's sandbox beside the shop, for as long as the shop runs."""

from __future__ import annotations

import os
import runpy
import sys
import threading


def _end_with_the_shop() -> None:
    # The shop holds the other end and never writes: the end of the input is the shop's end.
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_shop, daemon=True).start()
    runpy.run_module("adroll_flask.sandbox", run_name="__main__", alter_sys=True)
