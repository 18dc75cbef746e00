"""``flask adroll outbox find`` and ``tail``: one order's life, and what happens as it happens."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from adroll_flask.plurals import counted
from adroll_flask.redaction import short_key
from adroll_flask.reporting.order_life import FoundOrder, StepKind, carried, find_order, life

from .app_runtime import current_runtime
from .outbox_text import until, when

if TYPE_CHECKING:
    from adroll_flask.outbox import Outbox, Row

#: Seconds between two looks.
_EVERY = 1.0
#: Seconds for which events of other hosts' journals may come in late.
_LATE = 120.0
#: Unsettled events that are watched at once.
_MOST_WATCHED = 10_000


#: How a step of an event's life is told.
_TOLD: Mapping[StepKind, str] = {
    "held": "reported, with a hold",
    "kept": "kept, not sent",
    "dead": "dead letter",
}


def _life_lines(row: Row, now: float) -> Iterator[str]:
    """The life of one event, a line each."""
    mark = ", dry run" if row.dry_run else ""
    yield f"{row.name} {row.id}{mark}"
    for step in life(row):
        if step.kind == "now":
            due = until(row, now)
            yield f"  now                   {row.state}" + (f", due {due}" if due else "")
        else:
            told = _TOLD.get(step.kind, step.kind)
            between = ": " if step.kind in ("dead", "cancelled") else ", "
            said = f"{between}{step.said}" if step.said else ""
            yield f"  {when(now if step.at is None else step.at)}  {told}{said}"
    kept = carried(row)
    if kept is not None:
        yield f"  carried  {json.dumps(kept, ensure_ascii=False)}"


def show_order(store: Outbox | None, order: str, as_json: bool) -> bool:
    """Print all that is known of *order*; False: nothing."""
    runtime = current_runtime()
    secret = runtime.services.records.dedupe_secret
    found = FoundOrder() if store is None else find_order(store, order, secret)
    lines = [
        f"{why.name} not reported\n  {when(why.at)}  suppressed: {why.reason}"
        for why in found.suppressed
    ]
    if as_json:
        events = [row.as_dict() for row in found.events]
        click.echo(json.dumps({"events": events, "suppressed": lines}))
    else:
        for row in found.events:
            lines += _life_lines(row, runtime.clock())
        click.echo("\n".join(lines) or f"{order} was never reported to this outbox")
    return bool(found)


class Tail:
    """Looks at the outbox again and again and tells what is new.

    :param begin: from when on, seconds since the epoch.
    """

    def __init__(self, store: Outbox, begin: float) -> None:
        self._store = store
        self._begin = begin
        #: Events that are known, with state, attempts and when they were last told of.
        self._known: dict[str, tuple[str, int, float]] = {}
        self.counts: Counter[str] = Counter()
        for row in store.admin.list("waiting", _MOST_WATCHED):
            self._known[row.id] = row.state, row.attempts, row.queued_at

    def look(self, now: float) -> Iterator[str]:
        """What has happened since the last look, a line each."""
        floor = f"{max(0, int((now - _LATE) * 256_000)) << 72:032x}"
        for row in self._store.orders.since(floor):
            if row.id not in self._known and row.queued_at >= self._begin:
                self._known[row.id] = "waiting", 0, row.queued_at
                yield self._line(row, row.queued_at, "reported", "")
        watched = [id for id, (state, _, _) in self._known.items() if state != "over"]
        for row in self._store.orders.those(watched[-_MOST_WATCHED:]):
            yield from self._changed(row)
        for id, (state, _, at) in list(self._known.items()):
            if state == "over" and at < now - 2 * _LATE:
                del self._known[id]

    def _changed(self, row: Row) -> Iterator[str]:
        _state, attempts, at = self._known[row.id]
        if row.state in ("delivered", "dead"):
            self._known[row.id] = "over", row.attempts, row.settled_at or at
            after = max(0.0, (row.settled_at or at) - row.occurred_at)
            why = ": ".join(part for part in (row.reason, row.error) if part)
            said = f"after {after:.0f} s" if row.state == "delivered" else why
            yield self._line(row, row.settled_at or at, row.state, said)
        elif len(row.attempt_log) and row.attempt_log[-1].at > at:
            last = row.attempt_log[-1]
            self._known[row.id] = row.state, attempts, last.at
            said = last.words or last.answer
            yield self._line(row, last.at, "unsure" if last.unsure else "retry", said)

    def _line(self, row: Row, at: float, what: str, said: str) -> str:
        self.counts[what] += 1
        key = short_key(row.key) if row.key else row.id[:14]
        return f"{when(at)}  {what:<9}  {row.name:<13}  {key:<20}  {said}".rstrip()


def follow(store: Outbox) -> None:
    """Print what happens until Ctrl-C, then what there was."""
    clock = current_runtime().clock
    tail = Tail(store, clock())
    try:
        click.echo("waiting for events; Ctrl-C ends this", err=True)
        while True:
            for line in tail.look(clock()):
                click.echo(line)
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        counts = ", ".join(f"{number} {what}" for what, number in tail.counts.items())
        click.echo(f"\n{counts or counted(0, 'event')}", err=True)
