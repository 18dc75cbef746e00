"""``flask adroll history``: what was delivered, lost and kept back, by the hour, day or cause; and
``reconcile``: did every paid order reach AdRoll, and why not."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime, tzinfo
from operator import attrgetter
from typing import IO, Any, Final

import click

from adroll_flask.events.names import BITS
from adroll_flask.findings import sums
from adroll_flask.findings.finding import row_of, summary
from adroll_flask.outbox.model import APART, HistoryColumn, HistorySum
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.redaction import csv_safe
from adroll_flask.reporting import lists, reconciliation
from adroll_flask.times import span

from . import console
from .console import AS_JSON, Refusal, current_runtime

OUTCOMES: Final = (
    "delivered",
    "dead",
    "expired",
    "suppressed",
    "duplicate",
    "cancelled",
    "invalid",
    "failed",
    "unused",
    "too_late",
    *APART,
)
#: By what is asked: times as they are named, or another column.
_TIMES: Final = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}
_OTHERS: Final[dict[str, HistoryColumn]] = {
    "event": "event_name",
    "reason": "reason",
    "identifier": "identifiers",
}
_ALIKE: Final = attrgetter("reason", "outcome", "currency")


@console.commands.command("history")
@click.option("--since", default="7d", show_default=True, help="24h, 7d, 4w, 13m or a date.")
@click.option("--by", type=click.Choice([*_TIMES, *_OTHERS]), default="day", show_default=True)
@console.SHOP
@AS_JSON
def history(since: str, by: str, account: str | None) -> None:
    """Show what became of events, and of their values.

    Days and hours are those of ADROLL_TIME_ZONE. A dead letter that is sent again is no loss any
    more. These are counted apart: dry runs; what the sandbox had; releases and cancellations of
    orders that were not held (unused); and refunds, which are cancellations and smaller releases
    after the delivery (too_late).
    """
    runtime = current_runtime()
    zone = runtime.settings.time_zone
    column = _OTHERS.get(by, "at")
    begin = console.since_when(since, runtime.clock(), zone)
    rows = runtime.outbox.lookups.of(account).history(begin, (column, "outcome", "currency"))
    rows_in_order = sorted(rows, key=lambda row: (getattr(row, column), row.outcome, row.currency))
    # Several hours are of one day; the reason of a row is free for what it is asked by.
    named = [row._replace(reason=_name(row, by, zone)) for row in rows_in_order]
    data = [
        {
            by: name,
            "outcome": outcome,
            "events": sum(row.events for row in its),
            "value": f"{sum(row.value for row in its):f}",
            "currency": currency,
            "median_seconds": sums.within(delays, 0.5),
            "p95_seconds": sums.within(delays, 0.95),
            "delays": delays,
        }
        for (name, outcome, currency), its in sums.by(_ALIKE, named).items()
        for delays in [sums.delays_of(its)]
    ]
    console.show(data, _table(named, by) if named else "nothing happened")


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


def _table(rows: Sequence[HistorySum], by: str) -> str:
    shown = [name for name in OUTCOMES if any(row.outcome == name for row in rows)]
    shares = (0.5, 0.95) if by in _TIMES else ()
    lines = []
    for group, its in sums.by(lambda row: row.reason, rows).items():
        events = (sum(row.events for row in its if row.outcome == name) for name in shown)
        within = (_within(sums.delays_of(its), share) for share in shares)
        values = [_money(its, "delivered"), _money(its, "too_late")]
        lines.append([group, *(f"{number:,}" for number in events), *within, *values])
    times = ("median", "95 %")[: len(shares)]
    return console.table([by, *shown, *times, "value delivered", "value refunded"], lines)


def _money(rows: Sequence[HistorySum], outcome: str) -> str:
    money = sorted(sums.money(row for row in rows if row.outcome == outcome))
    return ", ".join(f"{value:,.2f} {currency}".strip() for currency, value in money)


# -- the shop's list ------------------------------------------------------------------------------

_TARGET: Final = click.File("w", encoding="utf-8", lazy=True)
_PER_CENT: Final = click.FloatRange(0, 100)
#: Where there is more about orders of a status.
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
@click.option("--rest", type=_TARGET, help="Write the orders that did not arrive, as CSV.")
@click.option(
    "--tolerance", default=0.0, show_default=True, type=_PER_CENT, help="Per cent that may be lost."
)
@console.SHOP
@AS_JSON
def reconcile(file: IO[str], rest: IO[str] | None, tolerance: float, **how: Any) -> None:
    """Compare the shop's list of paid orders with what was reported.

    FILE is CSV with a line of names, or JSON lines. "-" is standard input. Lost orders are those
    that were never reported, are dead letters, or were held until the hold ended. Exits with 1 if
    more than --tolerance per cent of the orders are lost. Orders that were not to be reported do
    not count.
    """
    orders = lists.read_orders(lists.texts_of(file))
    compared = reconciliation.Reconciliation(current_runtime().reporter, orders, **how)
    write: Any = csv.writer(rest).writerow if rest else lambda _: None
    try:
        write((*reconciliation.Order._fields, "reason"))
        for order in compared:
            if order.is_rest:
                write(csv_safe(value) for value in row_of(order).values())
    except lists.ReconcileError as problem:
        raise Refusal(str(problem), slug="order-list") from None
    lines = [text + _HINTS.get(status, "") for (status, _), text in summary(compared)]
    console.show(compared.sums(), "\n".join(lines), failed=compared.lost * 100 > tolerance)
