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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from . import request_state
from .middleware import AdRollMiddleware

if TYPE_CHECKING:
    from flask import Flask

    from .events.build import Event
    from .outbox import NewEvent, Put
    from .outbox.protocol import Decided
    from .outbox.record_format import Record, Verdict

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
        self._held: dict[str, tuple[str, Event]] = {}
        self._verdicts: dict[str, Verdict] = {}
        #: Of orders that were held: their ids, and what was decided.
        self._ids: dict[str, str] = {}
        self._decided: dict[str, Literal["release", "cancel"]] = {}
        #: Order ids that were cancelled, oldest first.
        self.cancelled: list[str] = []
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

    @property
    def held(self) -> list[Event]:
        """What is held and neither released nor cancelled; released it is among the others."""
        return [event for _id, event in self._held.values()]

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
                f"reported: {self._names() or 'nothing'}"
                + (f"; held: {len(self._held)}" if self._held else "")
                + (f"; invalid: {dead}" if dead else "")
            )
        return found[0]

    def clear(self) -> None:
        """Forget what was reported so far, and the deduplication keys."""
        self._events.clear()
        self._held.clear()
        self._verdicts.clear()
        self._ids.clear()
        self._decided.clear()
        self.cancelled.clear()
        self.dead_letters.clear()

    # -- what a runtime asks of its outbox ------------------------------------------------

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        from .events.build import recheck_wire, value_digest
        from .outbox import Put

        # Not ahead of its own time, whatever clock the app under test has.
        now = max(event.occurred_at, time.time())
        parsed = recheck_wire(event.payload, email_forms=_ALL_FORMS, now=now)
        if event.key is not None:
            for kept_id, key, kept in self._events:
                if key == event.key and kept.event_name == event.name:
                    same = value_digest(kept) == value_digest(parsed)
                    return Put("duplicate", kept_id, same)
            if event.key in self.cancelled:
                return Put("duplicate", event.id)
            if event.key in self._held:
                kept_id = self._held[event.key][0]
                if event.held_for is not None:
                    return Put("duplicate", kept_id)
                self._free(event.key, None)
                return Put("queued", kept_id)
            if event.held_for is not None:
                self._held[event.key] = event.id, parsed
                self._ids[event.key] = event.id
                verdict = self._verdicts.pop(event.key, None)
                if verdict is not None:
                    self._apply(verdict)
                return Put("queued", event.id)
        self._events.append((event.id, event.key, parsed))
        return Put("queued", event.id)

    def decide(self, verdict: Verdict, *, session: Any = None) -> Decided:
        from .outbox.protocol import Decided

        self._apply(verdict)
        id = self._ids.get(verdict.key)
        if id is None:
            return Decided()
        before = self._decided.get(verdict.key)
        if before != "cancel":
            self._decided[verdict.key] = verdict.kind
        return Decided(id, before or "")

    def _apply(self, verdict: Verdict) -> None:
        key = verdict.key
        if verdict.kind == "cancel":
            gone = [entry for entry in self._events if entry[1] == key]
            if key not in self._held and not gone:
                self._verdicts[key] = verdict
                return
            self._held.pop(key, None)
            self._events = [entry for entry in self._events if entry not in gone]
            self.cancelled.append(key)
        elif key in self._held:
            self._free(key, verdict.changes)
        elif key not in self.cancelled:
            self._verdicts.setdefault(key, verdict)

    def _free(self, key: str, changes: Mapping[str, Any] | None) -> None:
        from .events.release import amend

        id, event = self._held.pop(key)
        if changes:
            from .events.build import recheck_wire

            wire, _digest, at = amend(_wire(event), changes, email_forms=_ALL_FORMS, clock=_far)
            event = recheck_wire(wire, email_forms=_ALL_FORMS, now=at)
        self._events.append((id, key, event))

    def put_dead(self, event: NewEvent, reason: str, error: str) -> Put:
        from .outbox import Put

        self.dead_letters.append(DeadLetter(event.name, error))
        return Put("queued", event.id)

    def note_failure(self, name: str, reason: str) -> None:
        """Forget it."""

    def waiting(self) -> int:
        return len(self._events)

    def record(self, record: Record) -> None:
        from .outbox.record_format import Withdrawal
        from .reporting.erasure import matcher

        if isinstance(record, Withdrawal):
            match = matcher(cookie=record.first_party_cookie, adct=record.adct)
            self._events = [kept for kept in self._events if not match(json.loads(_wire(kept[2])))]
            self._held = {
                key: kept
                for key, kept in self._held.items()
                if not match(json.loads(_wire(kept[1])))
            }


def _far() -> float:
    """A clock that no event under test is ahead of."""
    return float("inf")


def _wire(event: Event) -> bytes:
    from .events.build import wire_bytes

    return wire_bytes(event)


@contextmanager
def reports(app: Flask | AdRollMiddleware) -> Iterator[Reported]:
    """Collect what *app* reports instead of keeping and sending it.

    Events are checked as in production, and a wrong one raises in an app with ``TESTING``. A
    client that never saw a page gets the first-party cookie that the page would have set.

    :param app: a Flask app with AdRoll on it, or the middleware.
    """
    if isinstance(app, AdRollMiddleware):
        runtime = app.runtime
    else:
        runtime = request_state.runtime_of(app, "reports")
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
