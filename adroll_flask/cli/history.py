"""``flask adroll history``: what was delivered, lost and kept back, by the hour, day or cause; and
``reconcile``: did every paid order reach AdRoll, and why not."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, tzinfo
from typing import IO, Any, Final, TypeAlias

import click
from flask.cli import with_appcontext

from adroll_flask.events.names import BITS
from adroll_flask.findings import sums
from adroll_flask.findings.finding import of_order
from adroll_flask.outbox.model import HistoryColumn, HistorySum
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.plurals import span
from adroll_flask.redaction import csv_safe
from adroll_flask.reporting import lists, reconciliation

from . import console
from .console import AS_JSON, Refusal, current_runtime

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
def history(since: str, by: str) -> None:
    """Show what became of events, and of their values.

    Days and hours are those of ADROLL_TIME_ZONE. A dead letter that is sent again is no loss any
    more. Dry runs are counted apart, and so are releases and cancellations of no hold (unused) or
    of what was delivered (too_late).
    """
    runtime = current_runtime()
    zone, column = runtime.settings.time_zone, _OTHERS.get(by, "at")
    begin = console.since_when(since, runtime.clock(), zone)
    found = runtime.outbox.lookups.history(begin, (column, "outcome", "currency"), delays=True)
    rows = _named(
        sorted(found, key=lambda row: (getattr(row, column), row.outcome, row.currency)), by, zone
    )
    data = []
    for name, row in rows:
        times = (sums.within(row.delays, share) for share in (0.5, 0.95))
        values = (row.outcome, row.events, f"{row.value:f}", row.currency, *times)
        told = dict(zip(_COLUMNS, values, strict=True))
        data.append({by: name, **told, "delays": list(row.delays)})
    console.show(data, _table(rows, by) if rows else "nothing happened")


def _named(rows: Sequence[HistorySum], by: str, zone: tzinfo) -> Sequence[_Named]:
    """*rows* with the names of what they are of; hours are those of *zone*, or become its days."""
    found: dict[tuple[str, str, str], HistorySum] = {}
    for row in rows:
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


def _within(delays: Sequence[int], share: float) -> str:
    if (seconds := sums.within(delays, share)) is not None:
        return f"< {span(seconds)}"
    return f"> {span(DELAYS[-1])}" if any(delays) else ""


def _table(rows: Sequence[_Named], by: str) -> str:
    shown = [name for name in OUTCOMES if any(row.outcome == name for _, row in rows)]
    shares = (0.5, 0.95) if by in _TIMES else ()
    lines = []
    for group, named in sums.by(lambda one: one[0], rows).items():
        its = [row for _, row in named]
        delays = [sum(column) for column in zip(*(row.delays for row in its), strict=True)]
        events = (sum(row.events for row in its if row.outcome == name) for name in shown)
        within = (_within(delays, share) for share in shares)
        money = sorted(sums.money(row for row in its if row.outcome == "delivered"))
        values = ", ".join(f"{value:,.2f} {currency}".strip() for currency, value in money)
        lines.append([group, *(f"{number:,}" for number in events), *within, values])
    return console.table([by, *shown, *("median", "95 %")[: len(shares)], "value delivered"], lines)


# -- the shop's list ------------------------------------------------------------------------------

_TARGET: Final = click.Path(dir_okay=False, allow_dash=True)
_PER_CENT: Final = click.FloatRange(0, 100)
#: Where there is more about orders of a status.
_HINTS: Final = {
    "waiting": "; outbox says when",
    "held": "; release them with outbox release",
    "dead": "; see outbox list --dead",
}


@click.command("reconcile")
@click.argument("file", type=click.File("r", encoding="utf-8-sig", errors="replace"))
@console.pairs(
    reconciliation.COLUMNS,
    "--column",
    "columns",
    help='Which column has it: order_id="Order no."; also value, currency, time.',
)
@click.option("--group", help="Count the orders that were never reported by this column.")
@click.option("--event", "name", default="purchase", show_default=True, help="Reported as this.")
@click.option("--rest", type=_TARGET, help="Write all that did not arrive as it should, as CSV.")
@click.option(
    "--tolerance", default=0.0, show_default=True, type=_PER_CENT, help="Per cent that may be lost."
)
@AS_JSON
@with_appcontext
def reconcile(file: IO[str], rest: str | None, tolerance: float, **how: Any) -> None:
    """Compare the shop's list of paid orders with what was reported.

    FILE is CSV with a line of names, or JSON lines; "-" is standard input. Exits with 1 where more
    than --tolerance per cent of the orders were never reported or are dead letters.
    """
    orders = lists.read_orders(console.lines_of(file, "orders"))
    found = reconciliation.Reconciliation(current_runtime().reporter, orders, **how)
    try:
        with click.open_file(rest, "w", encoding="utf-8") if rest else nullcontext() as to:
            write: Any = csv.writer(to).writerow if to else lambda _: None
            write(reconciliation.TOLD)
            for order in found:
                if not order.has_arrived:
                    write(csv_safe(value) for value in order.told().values())
    except lists.ReconcileError as problem:
        raise Refusal(str(problem), slug="order-list") from None
    summary = found.summary(of_order)
    lines = [text + _HINTS.get(status, "") for (status, _), text in summary]
    console.show(found.sums(), "\n".join(lines), failed=found.lost * 100 > tolerance)
