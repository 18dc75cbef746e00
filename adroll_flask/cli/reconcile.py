"""``flask adroll reconcile``: did every paid order reach AdRoll, and why not."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Final

import click
from flask.cli import with_appcontext

from adroll_flask.redaction import csv_safe
from adroll_flask.reporting.order_lists import (
    REST_FIELDS,
    reached,
    read_orders,
    rest_fields,
    summary,
    sums,
)

from .app_runtime import Refusal, current_runtime
from .printing import AS_JSON, bar, show

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
    columns: tuple[str, ...],
    group: str | None,
    name: str,
    rest: str | None,
    tolerance: float,
    as_json: bool,
) -> None:
    """Compare the shop's list of paid orders with what was reported.

    FILE is CSV with a line of names, or JSON lines; "-" is standard input. Exits with 1 where more
    than --tolerance per cent of the orders were never reported or are dead letters.
    """
    from adroll_flask.reporting.reconciliation import COLUMNS, ReconcileError, Reconciliation

    named = dict(part.split("=", 1) for part in columns if "=" in part)
    if len(named) < len(columns) or not named.keys() <= COLUMNS.keys():
        raise click.UsageError(f"--column takes WHAT=NAME, with WHAT one of {', '.join(COLUMNS)}")
    orders = read_orders(_lines(file))
    found = Reconciliation(
        current_runtime().reporter, orders, columns=named, group=group, name=name
    )
    try:
        with (
            click.open_file(rest, "w", encoding="utf-8") if rest else nullcontext() as file_of_rest
        ):
            write = None if file_of_rest is None else csv.writer(file_of_rest).writerow
            if write is not None:
                write(REST_FIELDS)
            for order in found:
                if write is not None and not reached(order):
                    write(csv_safe(value) for value in rest_fields(order).values())
    except ReconcileError as problem:
        raise Refusal(str(problem), slug="order-list") from None
    lines = [text + _HINTS.get(kind, "") for kind, text in summary(found, group)]
    show(as_json, sums(found), "\n".join(lines))
    raise SystemExit(1 if found.lost * 100 > tolerance else 0)


def _lines(file: IO[str]) -> Iterator[str]:
    """The lines of *file*, with a progress bar where it has a size."""
    path = Path(getattr(file, "name", "-"))
    with bar("orders", path.stat().st_size if path.is_file() else None) as progress:
        for line in file:
            progress(len(line))
            yield line
