"""``flask adroll reconcile``: did every paid order reach AdRoll, and why not."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from typing import IO, Any, Final

import click
from flask.cli import with_appcontext

from adroll_flask.findings.reasons import of_order
from adroll_flask.redaction import csv_safe
from adroll_flask.reporting.lists import ReconcileError, read_orders
from adroll_flask.reporting.reconciliation import COLUMNS, TOLD, Reconciliation

from .console import AS_JSON, Refusal, current_runtime, lines_of, pairs, show

#: Where there is more about orders of a status.
_HINTS: Final = {
    "waiting": "; outbox says when",
    "held": "; release them with outbox release",
    "dead": "; see outbox list --dead",
}


@click.command("reconcile")
@click.argument("file", type=click.File("r", encoding="utf-8-sig", errors="replace"))
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="WHAT=NAME",
    callback=pairs(COLUMNS),
    help='What a column is called: order_id="Order no."; also value, currency, time.',
)
@click.option("--group", help="Count the orders that were never reported by this column.")
@click.option("--event", "name", default="purchase", show_default=True, help="Reported as this.")
@click.option(
    "--rest",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="Write all orders that did not reach AdRoll, or with another value, as CSV.",
)
@click.option(
    "--tolerance",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0, 100),
    help="Per cent of orders that may be lost without exit code 1.",
)
@AS_JSON
@with_appcontext
def reconcile(
    file: IO[str],
    columns: dict[str, str],
    group: str | None,
    name: str,
    rest: str | None,
    tolerance: float,
) -> None:
    """Compare the shop's list of paid orders with what was reported.

    FILE is CSV with a line of names, or JSON lines; "-" is standard input. Exits with 1 where more
    than --tolerance per cent of the orders were never reported or are dead letters.
    """
    orders = read_orders(lines_of(file, "orders"))
    found = Reconciliation(
        current_runtime().reporter, orders, columns=columns, group=group, name=name
    )
    try:
        with (
            click.open_file(rest, "w", encoding="utf-8") if rest else nullcontext() as file_of_rest
        ):
            write: Any = csv.writer(file_of_rest).writerow if file_of_rest else lambda _: None
            write(TOLD)
            for order in found:
                if not order.has_arrived:
                    write(csv_safe(value) for value in order.told().values())
    except ReconcileError as problem:
        raise Refusal(str(problem), slug="order-list") from None
    lines = [text + _HINTS.get(status, "") for (status, _), text in found.summary(of_order)]
    show(found.sums(), "\n".join(lines), failed=found.lost * 100 > tolerance)
