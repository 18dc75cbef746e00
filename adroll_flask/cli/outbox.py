"""``flask adroll outbox …``: look after what waits and what died."""

from __future__ import annotations

import json
import sqlite3
from copy import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from flask.cli import AppGroup, with_appcontext

from adroll_flask.plurals import counted
from adroll_flask.redaction import short_key

from .app_runtime import current_runtime, kept_outbox
from .outbox_copies import backup, restored
from .outbox_holds import cancel, release
from .outbox_ids import (
    MOST_EVENTS,
    STATES,
    accept_ids,
    dead_letter,
    existing_id,
    whole_id,
)
from .outbox_move import move_from
from .outbox_text import next_due, overview_text, until, when
from .refusal import Refusal

if TYPE_CHECKING:
    from adroll_flask.outbox import Outbox, State

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_STATE = click.Choice(STATES)
#: Why an event in one of these states cannot be dropped.
_WHY_KEPT: dict[State, str] = {
    "claimed": "is claimed, a worker is about to send it; try again once a worker has settled it, "
    "or has taken it back after its lease",
    "sending": "is sending, its request may be under way or have reached AdRoll; try again once a "
    "worker has settled it, or has taken it back after its lease",
}


def _outbox() -> Outbox:
    """The app's outbox, for a command on events that it should have."""
    store = kept_outbox()
    if store is None:
        raise Refusal("there is no such event: nothing was reported yet", slug="no-such-event")
    return store


@click.group(cls=AppGroup, invoke_without_command=True)
@_AS_JSON
@click.pass_context
def outbox(context: click.Context, as_json: bool) -> None:
    """Counts by state, the oldest event, rates, holds and the last error; or a command."""
    if context.invoked_subcommand is None:
        with_appcontext(_status)(as_json)


def _status(as_json: bool) -> None:
    from adroll_flask.checks.outbox_state import nothing_kept

    store = kept_outbox()
    overview = nothing_kept(current_runtime()) if store is None else store.admin.overview()
    if as_json:
        click.echo(json.dumps(asdict(overview)))
        return
    due = ""
    if store is not None and overview.counts["waiting"] and overview.oldest_due is None:
        due = next_due(current_runtime())
    click.echo(overview_text(overview, due))


@outbox.command("list")
@click.option("--dead", "state", flag_value="dead", help="Only dead letters.")
@click.option("--state", "state", type=_STATE)
@click.option("--name", help="Only events of this name.")
@click.option("--since", help="Reported since: 24h, 7d, or a date.")
@click.option("--newest", is_flag=True, help="The newest first, instead of the next to be sent.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, MOST_EVENTS))
@_AS_JSON
def list_(
    state: Any, name: str | None, since: str | None, newest: bool, limit: int, as_json: bool
) -> None:
    """List events, without the visitors' values."""
    from .history import since_when

    store = kept_outbox()
    begin = since_when(since, current_runtime().clock()) if since else None
    rows = () if store is None else store.admin.list(state, limit, name, begin, newest=newest)
    if as_json:
        click.echo(json.dumps([row.as_dict() for row in rows]))
        return
    now = current_runtime().clock()
    for row in rows:
        mark = " unsure" if row.unsure else ""
        due = until(row, now)
        parts = [
            f"{row.id}  {row.state:<9} {row.name:<13} {when(row.occurred_at)}",
            row.digest if row.digest[:1].isdigit() else "",  # an event without a value says None
            f"{counted(row.attempts, 'attempt')}{mark}",
            f"key {short_key(row.key)}" if row.key else "",
            f"{'hold ends' if row.state == 'held' else 'due'} {due}" if due else "",
            ": ".join(part for part in (row.reason, row.error) if part),
        ]
        click.echo("  ".join(part for part in parts if part))
    if not rows:
        click.echo("no events")


@outbox.command()
@click.argument("id")
@click.option("--full", is_flag=True, help="With the visitor's values.")
def show(id: str, full: bool) -> None:
    """Show one event as JSON; the visitor's values are replaced without --full.

    The beginning of the ID is enough where no other event's is the same.
    """
    from adroll_flask.redaction import redact_event

    store = _outbox()
    row = store.admin.show(whole_id(store, id))
    if row is None:
        raise Refusal("there is no such event", slug="no-such-event")
    fields = row.as_dict()
    wire = json.loads(row.payload) if row.payload else None
    fields["event"] = wire if full or wire is None else redact_event(wire)
    click.echo(json.dumps(fields, indent=2))


@outbox.command()
@click.argument("order")
@_AS_JSON
def find(order: str, as_json: bool) -> None:
    """Show the life of ORDER, the shop's order id: reported, each attempt, delivered, or why not.

    Exits with 1 where it was never reported.
    """
    from .outbox_find import show_order

    raise SystemExit(0 if show_order(kept_outbox(), order, as_json) else 1)


@outbox.command()
def tail() -> None:
    """Show what happens as it happens, a line each, until Ctrl-C."""
    from .outbox_find import follow

    follow(current_runtime().outbox)


@outbox.command()
@click.argument("ids", nargs=-1)
@click.option("--all-dead", is_flag=True, help="All dead letters that can be sent.")
def retry(ids: tuple[str, ...], all_dead: bool) -> None:
    """Let dead letters be sent again. An invalid one has to be fixed first.

    Each is checked, and the site's before_report functions are asked: what they keep back now is
    removed and counted as suppressed.

    The beginning of an ID is enough where no other dead letter's is the same.
    """
    if bool(ids) == all_dead:
        raise click.UsageError("give either ids or --all-dead")
    if all_dead and kept_outbox() is None:
        click.echo("0 events will be sent again")
        return
    from adroll_flask.reporting.dead_letters import retry_dead

    store = _outbox()
    accepted, refused = accept_ids(ids, lambda given: dead_letter(store, given).id)
    if all_dead:
        accepted = [row.id for row in store.admin.list("dead", MOST_EVENTS)]
    done = retry_dead(current_runtime().reporter, accepted)
    refused += done.refused
    _show_refused(refused)
    if done.suppressed:
        click.echo(f"{counted(done.suppressed, 'event')} suppressed by before_report")
    click.echo(f"{counted(done.sent, 'event')} will be sent again")
    raise SystemExit(1 if refused and ids else 0)


def _show_refused(refused: list[tuple[str, str]]) -> None:
    for id, why in refused:
        click.echo(f"{id}: {why}", err=True)


@outbox.command()
@click.argument("id")
@click.argument("file", type=click.File("rb"))
def fix(id: str, file: Any) -> None:
    """Give a dead letter the event in FILE (JSON, "-": standard input) and let it be sent.

    The beginning of the ID is enough where no other dead letter's is the same.
    """
    from adroll_flask.errors import EventError
    from adroll_flask.reporting.dead_letters import REPORTED_ALREADY, fix_dead

    store = _outbox()
    id = dead_letter(store, id).id
    payload = file.read()
    _refuse_other_forms(payload)
    try:
        fixed = fix_dead(current_runtime().parts, id, payload)
    except EventError as problem:
        raise Refusal(str(problem), slug="fix-refused") from None
    if not fixed:
        dead_letter(store, id)  # somebody may have been faster
        raise Refusal(f"{REPORTED_ALREADY} {id}", slug="fix-refused")
    click.echo("1 event will be sent")


# What the command was called at first.
_mend = copy(fix)
_mend.name, _mend.hidden = "mend", True
outbox.add_command(_mend)


def _refuse_other_forms(payload: bytes) -> None:
    """Say what a file holds that is no event at all; what is wrong with one is said elsewhere.

    :raises click.ClickException: without any of the file's own words.
    """
    try:
        told = json.loads(payload)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise Refusal(f"no JSON, {place}: {problem.msg}", slug="fix-refused") from None
    except UnicodeDecodeError as problem:
        raise Refusal(
            f"no JSON: byte {problem.start + 1} is not UTF-8", slug="fix-refused"
        ) from None
    except (ValueError, RecursionError):
        return
    # What show and export print about an event, with the event in it.
    if isinstance(told, dict) and {"id", "state", "event"} <= told.keys():
        raise Refusal(
            'takes the event alone, the member "event" of this: '
            "flask adroll outbox show --full ID | jq .event",
            slug="fix-refused",
        )


@outbox.command()
@click.argument("ids", nargs=-1, required=True)
def drop(ids: tuple[str, ...]) -> None:
    """Remove events for good and free their deduplication keys.

    An order that was dropped can be reported again at once. Where it was reported on another host,
    that host's processes call it a duplicate for up to 15 minutes.

    One that a worker is about to send, or is sending, stays.
    The beginning of an ID is enough where no other event's is the same.
    """
    store = _outbox()
    accepted, refused = accept_ids(ids, lambda given: existing_id(store, given))
    count = store.admin.drop(accepted)
    # Only now, since a worker may have been faster.
    for row in filter(None, map(store.admin.show, accepted)):
        refused.append((row.id, _WHY_KEPT.get(row.state, "has changed meanwhile; try again")))
    _show_refused(refused)
    click.echo(f"{counted(count, 'event')} dropped")
    raise SystemExit(1 if refused else 0)


outbox.add_command(release)
outbox.add_command(cancel)
outbox.add_command(backup)
outbox.add_command(restored)
outbox.add_command(move_from)


@outbox.command()
@click.option("--state", type=_STATE)
@click.option("--full", is_flag=True, help="With the visitors' values.")
def export(state: Any, full: bool) -> None:
    """Write events as JSON lines; the visitors' values are replaced without --full."""
    store = kept_outbox()
    for line in () if store is None else store.admin.export(state, full=full):
        click.echo(line)


@outbox.command("create-table")
def create_table() -> None:
    """Make or upgrade the outbox's tables; safe to run at any time, from many processes."""
    from sqlalchemy.exc import SQLAlchemyError

    from adroll_flask.checks.outbox_state import outbox_failure

    try:
        current_runtime().outbox.housekeeping.create_tables()
    except (SQLAlchemyError, sqlite3.Error, OSError) as problem:
        raise outbox_failure(problem) from None
    click.echo("the outbox's tables are there")
