"""What one app's delivery is made of, handed down as one object."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from adroll_flask.counters import Counters
from adroll_flask.outbox.protocol import Claimed, Outbox
from adroll_flask.settings import Settings

from .client import Client
from .tracing import Tracing

#: Told of each event's end, ``delivered`` or ``dead``, once that is committed.
OnOutcome = Callable[[str, Claimed, str], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What is the same for all requests of one deliverer.

    :param clock: seconds since the epoch.
    :param monotonic: seconds, for what only this process waits for.
    :param tracing: who traces requests, at present.
    """

    outbox: Outbox
    client: Client
    settings: Settings
    counters: Counters
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    on_outcome: OnOutcome | None = None
    tracing: Callable[[], Tracing | None] = lambda: None
