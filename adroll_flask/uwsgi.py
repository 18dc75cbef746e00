"""What a uWSGI configuration means for threads and forks."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that a configuration breaks or endangers."""

    level: Literal["error", "warning"]
    text: str
    mend: str


def problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong for an app that delivers in a thread of its own.

    Without ``enable-threads`` uWSGI never initialises Python's GIL, so that threads of an app do
    not run; ``threads`` enables them as well (uWSGI's "Things to know").

    :param options: uWSGI's options by name.

    >>> [problem.level for problem in problems({"master": "true", "threads": "4"})]
    ['warning']
    """

    def on(name: str) -> bool:
        value = str(options.get(name, "")).lower()
        return name in options and value not in ("0", "false", "off", "no", "none")

    if not (on("enable-threads") or on("threads")):
        yield Problem(
            "error",
            "enable-threads is off: the delivery thread never runs",
            "set enable-threads = true, or ADROLL_DELIVERY = 'worker'",
        )
    if on("master") and not (on("lazy-apps") or on("lazy")):
        yield Problem(
            "warning",
            "the master loads the app and forks: what is opened at import is shared by all workers",
            "report nothing at import time, or set lazy-apps = true",
        )


def running_options() -> dict[str, Any] | None:
    """The options of the uWSGI that this process runs in, or ``None``."""
    module = sys.modules.get("uwsgi")
    if module is None:
        return None
    return {
        key: value.decode() if isinstance(value, bytes) else value
        for key, value in module.opt.items()
    }
