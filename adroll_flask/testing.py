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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from msgspec.structs import asdict

from . import request_state
from .events.event import Event, checked
from .events.fix import rebuilt
from .events.names import EventDefaults
from .outbox.model import Entry, NewEvent, OrderKey, Verdict, Withdrawal

__all__ = ["DeadLetter", "Reported", "reports"]

#: Which forms may leave was decided at the report; here none is taken away.
_ALL_FORMS = ("sha256", "md5", "plain")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that could not be sent as it was."""

    name: str
    #: The field at fault and what it takes.
    error: str


@dataclass(slots=True)
class _Kept:
    """An event with its id, and what has become of it."""

    id: str
    event: Event
    state: Literal["queued", "held", "cancelled"]
    #: Of the visitor's record.
    record_id: str | None


class Reported:
    """What was reported meanwhile, oldest first, without duplicates.

    >>> reported = Reported()
    >>> len(reported)
    0
    """

    def __init__(self) -> None:
        #: By order, or by id where there is none.
        self._kept: dict[OrderKey | str, _Kept] = {}
        #: Releases and cancellations by order, also those that came before the hold.
        self._verdicts: dict[OrderKey | str, Verdict] = {}
        #: Order ids that were cancelled, oldest first.
        self.cancelled: list[str] = []
        #: Events that were invalid.
        self.dead_letters: list[DeadLetter] = []
        self.oldest_cookie: float = 0.0  # so that no cookie counts as older

    def __iter__(self) -> Iterator[Event]:
        return (kept.event for kept in self._kept.values() if kept.state == "queued")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Reported {self._names() or 'nothing'}>"

    def _names(self) -> str:
        return ", ".join(event.event_name for event in self)

    @property
    def held(self) -> list[Event]:
        """What is held, and neither released nor cancelled."""
        return [kept.event for kept in self._kept.values() if kept.state == "held"]

    def named(self, name: str) -> list[Event]:
        """The events of one name."""
        return [event for event in self if event.event_name == name]

    def one(self, name: str) -> Event:
        """The one event of *name*.

        :raises AssertionError: there is none, or more than one; the text lists what there is.
        """
        events = self.named(name)
        if len(events) != 1:
            dead = "; ".join(f"{letter.name}: {letter.error}" for letter in self.dead_letters)
            raise AssertionError(
                f"{len(events)} events named {name!r} were reported; "
                f"reported: {self._names() or 'nothing'}"
                + (f"; held: {len(self.held)}" if self.held else "")
                + (f"; invalid: {dead}" if dead else "")
            )
        return events[0]

    def clear(self) -> None:
        """Forget what was reported so far, and the deduplication keys."""
        self._kept.clear()
        self._verdicts.clear()
        self.cancelled.clear()
        self.dead_letters.clear()

    # -- what a runtime asks of its outbox ------------------------------------------------

    def put(self, event: NewEvent, *, session: Any = None) -> str:
        if event.dead is not None:
            name = json.loads(event.payload).get("event_name")
            self.dead_letters.append(DeadLetter(name, event.dead[1]))
            return event.id
        # By its own time, whatever clock the app under test has: it must not lie in the future.
        defaults = EventDefaults(now=event.occurred_at, email_forms=_ALL_FORMS)
        parsed = rebuilt(event.payload, defaults).event
        place = event.order or event.id
        is_held = event.held_for is not None
        kept = self._kept.get(place)
        if kept is None:
            state: Literal["queued", "held"] = "held" if is_held else "queued"
            kept = self._kept[place] = _Kept(event.id, parsed, state, event.record_id)
            if place in self._verdicts:
                self._apply(self._verdicts[place], kept)
        elif kept.state == "held" and not is_held:
            self._release(place, kept)
        else:
            return kept.id
        return event.id

    def decide(self, verdict: Verdict, *, session: Any = None) -> str | None:
        # A cancellation is the stronger of the two.
        if verdict.order not in self._verdicts or verdict.kind == "cancel":
            self._verdicts[verdict.order] = verdict
        kept = self._kept.get(verdict.order)
        if kept is None:
            return None
        self._apply(self._verdicts[verdict.order], kept)
        return kept.id

    def _apply(self, verdict: Verdict, kept: _Kept) -> None:
        if verdict.kind == "release" and kept.state == "held":
            self._release(verdict.order, kept, verdict.changes)
        elif verdict.kind == "cancel" and kept.state != "cancelled":
            kept.state = "cancelled"
            self.cancelled.append(verdict.order.key)

    def _release(self, place: OrderKey | str, kept: _Kept, changes: Any = None) -> None:
        if changes:
            kept.event = checked({**asdict(kept.event), **changes})
        kept.state = "queued"
        self._kept[place] = self._kept.pop(place)  # it is now the newest

    def note_failure(self, name: str, reason: str, account: str = "") -> None:
        """Forget it."""

    def record(self, entry: Entry) -> None:
        if isinstance(entry, Withdrawal):
            events = self._kept.items()
            self._kept = {
                place: kept for place, kept in events if kept.record_id != entry.record_id
            }


@contextmanager
def reports(app: object) -> Iterator[Reported]:
    """Collect what *app* reports instead of keeping and sending it.

    Events are checked as in production, and a wrong one raises in an app with ``TESTING``. A
    client that never saw a page gets the first-party cookie that the page would have set.

    It sees what any client asks of the app: Flask's, Starlette's ``TestClient``, httpx with
    ``ASGITransport``.

    :param app: a Flask app with AdRoll on it, the middleware, or a FastAPI or Starlette app that
        has it by ``add_middleware``.
    :raises ConfigurationError: it has no AdRoll.
    """
    reported = Reported()
    with request_state.runtime_of(app, "reports").collecting(reported):
        yield reported


if find_spec("pytest") is not None:  # the context manager works without it
    import pytest

    @pytest.fixture(name="reported")
    def reported_fixture(app: object) -> Iterator[Reported]:
        """What the suite's ``app`` reports during one test."""
        with reports(app) as reported:
            yield reported
