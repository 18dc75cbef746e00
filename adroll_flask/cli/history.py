"""``flask adroll history``: what was delivered, lost and kept back, by the hour, day or cause.
``flask adroll reconcile``: whether every paid order reached AdRoll, and why not."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from operator import attrgetter
from typing import IO, Any, Final

import click

from adroll_flask.amounts import added
from adroll_flask.events.names import BITS
from adroll_flask.findings import sums
from adroll_flask.findings.finding import row_of, summary
from adroll_flask.outbox.model import APART, HistoryColumn, HistorySum
from adroll_flask.redaction import csv_safe
from adroll_flask.reporting import lists, reconciliation
from adroll_flask.times import written

from . import console

#: What can become of an event, of a report of which no event came, and of a release or a
#: cancellation that changed nothing.
_OF_EVENTS: Final = ("delivered", "dead", "expired", "cancelled")
_OF_REPORTS: Final = ("suppressed", "duplicate", "invalid", "failed")
_OF_DECISIONS: Final = ("unused", "too_late")
OUTCOMES: Final = _OF_EVENTS + _OF_REPORTS + _OF_DECISIONS + APART
#: Values of --by: forms of times, and other columns of the history.
_TIMES: Final = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}
_OTHERS: Final[dict[str, HistoryColumn]] = {
    "event": "event_name",
    "reason": "reason",
    "identifier": "identifiers",
}


@console.commands.command("history")
@click.option("--since", default="7d", show_default=True, help="24h, 7d, 4w or a date.")
@click.option("--by", type=click.Choice([*_TIMES, *_OTHERS]), default="day", show_default=True)
@console.shop_and_json
def history(since: str, by: str, account: str | None) -> None:
    """Show what became of events, and of their values.

    Days and hours are those of ADROLL_TIME_ZONE. A dead letter that is sent again is no loss any
    more. These are counted apart: dry runs; what the sandbox had; releases and cancellations of
    orders that were not held (unused); and refunds, which are cancellations and smaller releases
    after the delivery (too_late).
    """
    runtime = console.current_runtime()
    zone = runtime.settings.time_zone
    column = _OTHERS.get(by, "at")
    begin = console.since_when(since, runtime.clock(), zone)
    columns: Sequence[HistoryColumn] = (column, "outcome", "currency")
    rows = runtime.outbox.lookups.of(account).history(begin, columns)
    in_order = sorted(rows, key=attrgetter(*columns))
    groups = sums.by(lambda row: _name(row, by, zone), in_order)  # several hours are of one day
    data = [
        {by: name, "outcome": outcome, "currency": currency, **_sums(alike)}
        for name, group in groups.items()
        for (outcome, currency), alike in sums.by(attrgetter("outcome", "currency"), group).items()
    ]
    console.show(data, _history_table(groups, by) if groups else "nothing happened")


def _sums(rows: Sequence[HistorySum]) -> dict[str, Any]:
    delays = sums.delays_of(rows)
    return {
        "events": sum(row.events for row in rows),
        "value": f"{added(row.value for row in rows):f}",
        "median_seconds": sums.within(delays, 0.5),
        "p95_seconds": sums.within(delays, 0.95),
        "delays": delays,
    }


def _name(row: HistorySum, by: str, zone: tzinfo) -> str:
    if by in _TIMES:
        return written(_TIMES[by], row.at, zone)
    if by == "identifier":
        return "+".join(name for name, bit in BITS.items() if row.identifiers & bit) or "none"
    return row.event_name or row.reason


def _history_table(groups: Mapping[str, Sequence[HistorySum]], by: str) -> str:
    happened = {row.outcome for rows in groups.values() for row in rows}
    shown = [name for name in OUTCOMES if name in happened]
    lines = []
    for name, rows in groups.items():
        events = [sum(row.events for row in rows if row.outcome == outcome) for outcome in shown]
        numbers = [f"{number:,}" for number in events]
        values = [_money(rows, "delivered"), _money(rows, "too_late")]
        lines.append([name, *numbers, *values])
    return console.table([by, *shown, "value delivered", "value refunded"], lines)


def _money(rows: Sequence[HistorySum], outcome: str) -> str:
    money = sorted(sums.worth_of(row for row in rows if row.outcome == outcome))
    return ", ".join(sums.amount_text(value, currency) for currency, value in money)


# -- the shop's list ------------------------------------------------------------------------------

_TARGET: Final = click.File("w", encoding="utf-8", lazy=True)
_PER_CENT: Final = click.FloatRange(0, 100)
#: By status, which command tells more about such orders.
_HINTS: Final = {
    "waiting": "; outbox says when",
    "held": "; release them with outbox release",
    "dead": "; see outbox list --dead",
}


@console.commands.command("reconcile")
@click.argument("file", type=click.File("r", encoding="utf-8-sig", errors="replace"))
@console.pairs(
    lists.COLUMNS,
    "--column",
    "columns",
    help='The column of order_id, value, currency or time: order_id="Order no."',
)
@click.option("--group", help="Count orders that were never reported by this column's values.")
@click.option("--rest", type=_TARGET, default=os.devnull, help="Write what did not arrive, as CSV.")
@click.option(
    "--tolerance", default=0.0, show_default=True, type=_PER_CENT, help="Per cent that may be lost."
)
@console.shop_and_json
def reconcile(file: IO[str], rest: IO[str], tolerance: float, **how: Any) -> None:
    """Compare the shop's list of paid orders with what was reported.

    FILE is CSV with a line of names, or JSON lines. "-" is standard input. Lost orders are those
    that were never reported, were dry runs, are dead letters, or were held until the hold ended.
    Exits with 1 if more than --tolerance per cent of the orders are lost. Orders that were not to
    be reported do not count.
    """
    orders = lists.read_orders(file)
    compared = reconciliation.Reconciliation(console.current_runtime().reporter, orders, **how)
    table = csv.writer(rest)
    try:
        table.writerow((*reconciliation.Order._fields, "reason"))
        for order in compared:
            if order.is_rest:
                table.writerow(map(csv_safe, row_of(order).values()))
    except lists.ReconcileError as problem:
        raise console.Refusal(str(problem), slug=problem.slug) from None
    lines = [text + _HINTS.get(status, "") for (status, _), text in summary(compared)]
    console.show(compared.sums(), "\n".join(lines), failed=compared.lost * 100 > tolerance)
