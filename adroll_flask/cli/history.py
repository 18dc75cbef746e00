"""``flask adroll history``: what was delivered, lost and kept back, by the hour, day or cause."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any, Final, TypeAlias

import click
from flask.cli import with_appcontext

from adroll_flask.events.names import BITS
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.outbox.values import HistoryColumn, HistorySum
from adroll_flask.plurals import span

from .console import AS_JSON, current_runtime, kept_outbox, show, since_when, table

OUTCOMES: Final = (
    *("delivered", "dead", "expired", "suppressed"),
    *("duplicate", "cancelled", "invalid", "failed"),
    *("unused", "too_late", "dry_run"),
)
#: By what is asked: times as they are named, or another column.
_TIMES: Final = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}
_OTHERS: Final[dict[str, HistoryColumn]] = {
    "event": "event_name",
    "reason": "reason",
    "identifier": "identifiers",
}
_COLUMNS: Final = ("outcome", "events", "value", "currency", "median_seconds", "p95_seconds")
#: A sum, and the name of what it is of.
_Named: TypeAlias = tuple[str, HistorySum]


@click.command("history")
@click.option("--since", default="7d", show_default=True, help="24h, 7d, 4w, 13m or a date.")
@click.option("--by", type=click.Choice([*_TIMES, *_OTHERS]), default="day", show_default=True)
@AS_JSON
@with_appcontext
def history(since: str, by: str, as_json: bool) -> None:
    """Show what became of events, and of their values.

    Days and hours are those of ADROLL_TIME_ZONE. A dead letter that is sent again is no loss any
    more. Dry runs are counted apart, and so are releases and cancellations of no hold (unused) or
    of what was delivered (too_late).
    """
    runtime = current_runtime()
    begin = since_when(since, runtime.clock(), runtime.settings.time_zone)
    store = kept_outbox()
    column = _OTHERS.get(by, "at")
    sums: Sequence[HistorySum] = ()
    if store is not None:
        sums = store.lookups.history(begin, (column, "outcome", "currency"), delays=True)
        sums = sorted(sums, key=lambda row: (getattr(row, column), row.outcome, row.currency))
    rows = _named(sums, by, runtime.settings.time_zone)
    data = [{**_plain(name, row, by), "delays": list(row.delays)} for name, row in rows]
    show(as_json, data, _sums(rows, by) if rows else "nothing happened")


def _named(sums: Sequence[HistorySum], by: str, zone: tzinfo) -> Sequence[_Named]:
    """*sums* with the names of what they are of; hours are those of *zone*, or become its days."""
    found: dict[tuple[str, str, str], HistorySum] = {}
    for row in sums:
        key = (_name(row, by, zone), row.outcome, row.currency)
        if had := found.get(key):
            delays = tuple(map(sum, zip(row.delays, had.delays, strict=True)))
            events, value = row.events + had.events, row.value + had.value
            row = row._replace(events=events, value=value, delays=delays)
        found[key] = row
    return [(name, row) for (name, *_), row in found.items()]


def _name(row: HistorySum, by: str, zone: tzinfo) -> str:
    if by in _TIMES:
        return datetime.fromtimestamp(row.at, zone).strftime(_TIMES[by])
    if by == "identifier":
        return "+".join(name for name, bit in BITS.items() if row.identifiers & bit) or "none"
    return row.event_name or row.reason


def _plain(name: str, row: HistorySum, by: str) -> dict[str, Any]:
    from adroll_flask.dashboard.numbers import within

    times = (within(row.delays, share) for share in (0.5, 0.95))
    values = (row.outcome, row.events, f"{row.value:f}", row.currency, *times)
    return {by: name, **dict(zip(_COLUMNS, values, strict=True))}


def _within(delays: Sequence[int], share: float) -> str:
    from adroll_flask.dashboard.numbers import within

    seconds = within(delays, share)
    if seconds is None:
        return f"> {span(DELAYS[-1])}" if any(delays) else ""
    return f"< {span(seconds)}"


def _sums(rows: Sequence[_Named], by: str) -> str:
    from adroll_flask.findings.sums import money

    groups: dict[str, list[HistorySum]] = defaultdict(list)
    for name, row in rows:
        groups[name].append(row)
    shown = [name for name in OUTCOMES if any(row.outcome == name for _, row in rows)]
    shares = (0.5, 0.95) if by in _TIMES else ()
    lines = []
    for group, its in groups.items():
        delays = [sum(column) for column in zip(*(row.delays for row in its), strict=True)]
        events = (sum(row.events for row in its if row.outcome == name) for name in shown)
        within = (_within(delays, share) for share in shares)
        sums = sorted(money(row for row in its if row.outcome == "delivered"))
        values = ", ".join(f"{value:,.2f} {currency}".strip() for currency, value in sums)
        lines.append([group, *(f"{number:,}" for number in events), *within, values])
    return table([by, *shown, *("median", "95 %")[: len(shares)], "value delivered"], lines)
