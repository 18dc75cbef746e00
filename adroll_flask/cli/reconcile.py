"""``flask adroll reconcile``: did every paid order reach AdRoll, and why not."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

import click
from flask.cli import with_appcontext

from adroll_flask.plurals import counted
from adroll_flask.redaction import csv_safe
from adroll_flask.reporting.order_lists import (
    REST_FIELDS,
    reached,
    read_orders,
    rest_fields,
    summary,
    sums,
)

from .app_runtime import current_runtime
from .refusal import Refusal

if TYPE_CHECKING:
    from adroll_flask.reporting.reconciliation import Order

#: Where there is more about orders of a status.
_HINTS = {
    "waiting": "; outbox says when",
    "held": "; release them with outbox release",
    "dead": "; see outbox list --dead",
}
#: Bytes between two steps of the progress bar.
_STEP = 1 << 18


@click.command("reconcile")
@click.argument("file", type=click.File("r", encoding="utf-8-sig", errors="replace"))
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="WHAT=NAME",
    help='What a column is called: order_id="Order no."; also value, currency, time, token.',
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
@click.option(
    "--report-missing",
    is_flag=True,
    help="Report what was never reported and has a visitor's token in its column.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the sums as JSON.")
@with_appcontext
def reconcile(
    file: IO[str],
    columns: tuple[str, ...],
    group: str | None,
    name: str,
    rest: str | None,
    tolerance: float,
    report_missing: bool,
    as_json: bool,
) -> None:
    """Compare FILE, the shop's list of paid orders, with what was reported ("-": standard input).

    FILE is CSV with a line of names, or JSON lines. Exits with 1 where more than --tolerance per
    cent of the orders were never reported or are dead letters.
    """
    from adroll_flask.reporting.reconciliation import COLUMNS, ReconcileError, Reconciliation

    named = dict(part.split("=", 1) for part in columns if "=" in part)
    if len(named) < len(columns) or not named.keys() <= COLUMNS.keys():
        raise click.UsageError(f"--column takes WHAT=NAME, with WHAT one of {', '.join(COLUMNS)}")
    found = Reconciliation(
        current_runtime().parts, _orders(file), columns=named, group=group, name=name
    )
    reported = 0
    try:
        with _rest(rest) as write:
            for order in found:
                write(order)
                if report_missing and order.status == "missing" and order.token:
                    reported += _report(name, order)
    except ReconcileError as problem:
        raise Refusal(str(problem), slug="order-list") from None
    if as_json:
        click.echo(json.dumps({**sums(found), "reported_now": reported}))
    else:
        click.echo("\n".join(text + _HINTS.get(kind, "") for kind, text in summary(found, group)))
        if report_missing:
            click.echo(f"{counted(reported, 'order')} reported now")
    raise SystemExit(1 if found.lost * 100 > tolerance else 0)


def _report(name: str, order: Order) -> bool:
    from adroll_flask import report_event

    fields: dict[str, Any] = {"value": order.value, "currency": order.currency}
    fields |= {"timestamp": order.time, "order_id": order.order_id, "visitor": order.token}
    given: dict[str, Any] = {key: value for key, value in fields.items() if value}
    receipt = report_event(name, **given)  # type: ignore[arg-type]
    if receipt.status != "queued":
        click.echo(f"{order.order_id}: {receipt.status}: {receipt.reason}", err=True)
    return receipt.status == "queued"


# -- reading --------------------------------------------------------------------------------


def _orders(file: IO[str]) -> Iterator[Mapping[str, Any]]:
    with _shown(file) as lines:
        yield from read_orders(lines)


@contextlib.contextmanager
def _shown(file: IO[str]) -> Iterator[Iterator[str]]:
    """The lines of *file*, with a progress bar where there is a terminal and a size."""
    error = sys.stderr
    try:
        size = file.seek(0, 2)
        file.seek(0)
    except (OSError, ValueError):
        size = 0
    if not size or not error.isatty():
        yield iter(file)
        return
    with click.progressbar(length=size, label="orders", file=error) as bar:

        def lines() -> Iterator[str]:
            done = 0
            for line in file:
                done += len(line.encode("utf-8", "replace"))
                if done >= _STEP:
                    bar.update(done)
                    done = 0
                yield line
            bar.update(done)

        yield lines()


# -- writing --------------------------------------------------------------------------------


@contextlib.contextmanager
def _rest(path: str | None) -> Iterator[Any]:
    """Writes what did not reach AdRoll as it should have."""
    if path is None:
        yield lambda order: None
        return
    with click.open_file(path, "w", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(REST_FIELDS)

        def write(order: Order) -> None:
            if not reached(order):
                writer.writerow(csv_safe(value) for value in rest_fields(order).values())

        yield write
