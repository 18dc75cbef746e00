"""What uWSGI means for threads and forks."""

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
    fix: str


def problems(options: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong for an app that delivers in a thread of its own, as far as options tell.

    Before its version 2.0.27 uWSGI let Python's threads run only with ``enable-threads``, or with
    ``threads``, which brings it; since then they always do, and the option is left without effect.

    :param options: uWSGI's options by name.

    >>> [problem.level for problem in problems({"master": "true"})]
    ['warning']
    >>> [problem.level for problem in problems({"master": "true", "threads": "4"})]
    []
    """

    def on(name: str) -> bool:
        value = str(options.get(name, "")).lower()
        return name in options and value not in ("0", "false", "off", "no", "none")

    if not (on("enable-threads") or on("threads")):
        yield Problem(
            "warning",
            "enable-threads is off: before uWSGI 2.0.27 no delivery thread is started",
            "set enable-threads = true, or ADROLL_DELIVERY = 'worker'",
        )


def running_problems() -> Iterator[Problem]:
    """What is wrong with the uWSGI that this process runs in, if it does."""
    if not _threads_are_on():
        yield Problem(
            "error",
            "enable-threads is off: no delivery thread is started, events wait in the outbox",
            "set enable-threads = true, or run flask adroll worker",
        )


def may_start_threads() -> bool:
    """False where a thread would freeze, with whatever it holds; true beside other servers.

    That is in a process that loads the app and forks afterwards: uWSGI forks past Python's own
    ``fork``, and where a thread has the GIL at that moment, no child ever gets it. It is so too
    where threads are off. Worker and mule number are 0 until uWSGI has forked, or has decided not
    to; also in a spooler, whose events the workers deliver.
    """
    module = sys.modules.get("uwsgi")
    return module is None or (
        _threads_are_on() and (module.worker_id() != 0 or module.mule_id() != 0)
    )


def _threads_are_on() -> bool:
    # 0 or 1, as it came out of version and options.
    return bool(getattr(sys.modules.get("uwsgi"), "has_threads", True))
