"""``flask adroll outbox release`` and ``cancel``: decide on a held conversion by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import click
from flask.cli import with_appcontext

from adroll_flask.errors import EventError

from .app_runtime import current_runtime
from .outbox_text import when
from .refusal import Refusal

if TYPE_CHECKING:
    from adroll_flask.outbox import Row
    from adroll_flask.runtime import Runtime

#: Invalid dead letters that are looked through for an order, the newest.
_MOST_LETTERS: Final = 20_000
_AHEAD = click.option(
    "--ahead", is_flag=True, help="Also for an order that nobody held yet: kept until it comes."
)


@click.command()
@click.argument("order")
@click.option("--value", help="The amount, where it has changed: 59.90.")
@click.option("--currency", help="The currency, where it has changed: EUR.")
@click.option("--now", "at", flag_value="release", help="Report it with the present time.")
@_AHEAD
@with_appcontext
def release(
    order: str, value: str | None, currency: str | None, at: str | None, ahead: bool
) -> None:
    """Let the held conversion of ORDER be sent."""
    changes = {"value": value, "currency": currency}
    _decide("release", order, changes, at or "purchase", ahead)


@click.command()
@click.argument("order")
@_AHEAD
@with_appcontext
def cancel(order: str, ahead: bool) -> None:
    """Forget the conversion of ORDER, held or waiting: it will not be sent."""
    _decide("cancel", order, {}, "purchase", ahead)


def _decide(
    kind: Literal["release", "cancel"],
    order: str,
    changes: dict[str, Any],
    at: str,
    ahead: bool,
) -> None:
    from adroll_flask.events.release import accept_changes

    runtime = current_runtime()
    # Whoever types wants no change left out, and no error with its traceback.
    _changes, wrong = accept_changes(changes)
    if wrong:
        raise Refusal("; ".join(map(str, wrong)), slug="decision-refused")
    holding = runtime.holding
    try:
        verdict = holding.verdict(kind, order)
        # Looking must not make a file.
        before = runtime.outbox.admin.find(verdict) if runtime.may_have_events() else None
        if before is None and not ahead:
            raise Refusal(_unknown(runtime, kind, order), slug="decision-refused")
        if kind == "release":
            receipt = holding.release(order, changes, at)
        else:
            receipt = holding.cancel(order)
    except EventError as problem:
        raise Refusal(str(problem), slug="decision-refused") from None
    if receipt.status not in ("released", "cancelled"):
        raise Refusal(f"{receipt.status}: {receipt.reason}", slug="decision-refused")
    row = runtime.outbox.admin.find(verdict)
    done = row is not None and _is_done(kind, row)
    if kind == "release" and done and (before is None or before.state == "held"):
        # A worker may be quicker than this second look: what this command did is what is told.
        told = "will be sent"
    else:
        told = _told(kind, row, runtime.settings.hold_max)
        if kind == "release" and done and any(changes.values()):
            told, done = f"{told}; too late for another value or currency", False
    click.echo(f"{order}: {told}", err=not done)
    raise SystemExit(0 if done else 1)


def _unknown(runtime: Runtime, kind: str, order: str) -> str:
    """What is said of an order that nobody held; whoever typed it may have mistyped it."""
    if runtime.may_have_events():
        for letter in runtime.outbox.dead_letters.of_order(order, _MOST_LETTERS):
            return (
                f"{order} is not held, it is a dead letter ({letter.error or letter.reason}); "
                f"flask adroll outbox show {letter.id} shows it, and outbox drop forgets it"
            )
    return (
        f"no such order is held here, so nothing was done; with --ahead the {kind} is kept for "
        f"{runtime.settings.hold_max / 86_400:g} days, for an order that comes in later"
    )


def _is_done(kind: str, row: Row) -> bool:
    if kind == "cancel":
        return row.state in ("cancelled", "dead")
    return row.state in ("waiting", "claimed", "sending", "delivered")


def _told(kind: str, row: Row | None, longest: int) -> str:
    if row is None:
        days = longest / 86_400
        return f"no such order is held here yet; the {kind} is kept for {days:g} days"
    if row.state == "delivered":
        at = when(row.settled_at or row.due_at)
        return f"delivered at {at}" + (", too late to cancel it" if kind == "cancel" else "")
    if row.state == "sending":
        return "is being sent" + (
            "; cancelled if AdRoll does not take it" if kind == "cancel" else ""
        )
    if row.state == "dead":
        return f"is a dead letter: {row.error or row.reason}"
    if row.state == "cancelled":
        return "cancelled" if row.reason == "cancelled" else "its hold had expired"
    return "will be sent"
