"""For a site's own tests: see what was reported, and never reach the network.

As a context manager::

    from adroll_flask.testing import reports

    def test_a_purchase_is_reported(app, client):
        with reports(app) as reported:
            client.post("/buy")
        assert reported.one("purchase").order_id == "1001"

or as a pytest fixture, where the suite has a fixture ``app``; in ``conftest.py``::

    pytest_plugins = ["adroll_flask.testing"]

    def test_a_purchase_is_reported(client, reported):
        client.post("/buy")
        assert reported.one("purchase").value == Decimal("59.90")
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .middleware import AdRollMiddleware
from .runtime import Runtime

if TYPE_CHECKING:
    from flask import Flask

    from .events import Event
    from .outbox import NewEvent, Put

__all__ = ["DeadLetter", "Reported", "reports"]

#: What may leave was decided before; here nothing is taken away.
_ALL_FORMS = ("sha256", "md5", "plain")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could not be sent as it was."""

    name: str
    #: The field at fault and what it takes.
    error: str


class Reported:
    """What was reported while it was looking, oldest first; duplicates are not in it.

    >>> reported = Reported()
    >>> len(reported)
    0
    """

    def __init__(self) -> None:
        self._events: list[tuple[str, str | None, Event]] = []
        #: Events that were invalid.
        self.dead_letters: list[DeadLetter] = []

    def __iter__(self) -> Iterator[Event]:
        return (event for _id, _key, event in self._events)

    def __len__(self) -> int:
        return len(self._events)

    def __repr__(self) -> str:
        return f"<Reported {self._names() or 'nothing'}>"

    def _names(self) -> str:
        return ", ".join(event.event_name for event in self)

    def named(self, name: str) -> list[Event]:
        """The events of one name."""
        return [event for event in self if event.event_name == name]

    def one(self, name: str) -> Event:
        """The one event of *name*.

        :raises AssertionError: there is none, or more than one; the text lists what there is.
        """
        found = self.named(name)
        if len(found) != 1:
            dead = "; ".join(f"{letter.name}: {letter.error}" for letter in self.dead_letters)
            raise AssertionError(
                f"{len(found)} events named {name!r} were reported; "
                f"reported: {self._names() or 'nothing'}" + (f"; invalid: {dead}" if dead else "")
            )
        return found[0]

    def clear(self) -> None:
        """Forget what was reported so far, and the deduplication keys."""
        self._events.clear()
        self.dead_letters.clear()

    # -- what a runtime asks of its outbox ------------------------------------------------

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        from .events import recheck_wire
        from .outbox import Put

        # Not ahead of its own time, whatever clock the app under test has.
        now = max(event.occurred_at, time.time())
        parsed = recheck_wire(event.payload, email_forms=_ALL_FORMS, now=now)
        if event.key is not None:
            for kept_id, key, kept in self._events:
                if key == event.key and kept.event_name == event.name:
                    same = (kept.value, kept.currency) == (parsed.value, parsed.currency)
                    return Put("duplicate", kept_id, same)
        self._events.append((event.id, event.key, parsed))
        return Put("queued", event.id)

    def put_dead(self, event: NewEvent, reason: str, error: str) -> str:
        self.dead_letters.append(DeadLetter(event.name, error))
        return event.id

    def waiting(self) -> int:
        return len(self._events)

    def forget(self, match: Any) -> int:
        kept = [entry for entry in self._events if not match(json.loads(_wire(entry[2])))]
        gone = len(self._events) - len(kept)
        self._events = kept
        return gone


def _wire(event: Event) -> bytes:
    from .events import wire_bytes

    return wire_bytes(event)


@contextmanager
def reports(app: Flask | AdRollMiddleware) -> Iterator[Reported]:
    """Collect what *app* reports instead of keeping and sending it.

    Events are checked as in production, and a wrong one raises in an app with ``TESTING``. A
    client that never saw a page gets the first-party cookie that the page would have set.

    :param app: a Flask app with AdRoll on it, or the middleware.
    """
    runtime: Runtime
    runtime = app.runtime if isinstance(app, AdRollMiddleware) else app.extensions["adroll"]
    reported = Reported()
    with runtime.collecting(reported):
        yield reported


if find_spec("pytest") is not None:  # the context manager works without it
    import pytest

    @pytest.fixture(name="reported")
    def reported_fixture(app: Flask | AdRollMiddleware) -> Iterator[Reported]:
        """What the suite's ``app`` reports during one test."""
        with reports(app) as found:
            yield found
