"""``flask adroll outbox …``: look after what waits and what died."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from .errors import ConfigurationError
from .plurals import counted

if TYPE_CHECKING:
    from .outbox import Outbox, Overview, Row, State
    from .runtime import Runtime

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_STATES: tuple[State, ...] = ("waiting", "claimed", "sending", "delivered", "dead")
_STATE = click.Choice(_STATES)
#: Events of one state that one command looks at.
_MOST = 100_000
#: Digits of an id, and the fewest of them that are taken for its beginning.
_ID_DIGITS = 32
_BEGINNING = re.compile(r"[0-9a-f]{4,32}\Z")
#: Why an event in one of these states cannot be dropped.
_WHY_KEPT: dict[State, str] = {
    "claimed": "is claimed, a worker is about to send it; try again once a worker has settled it, "
    "or has taken it back after its lease",
    "sending": "is sending, its request may be under way or have reached AdRoll; try again once a "
    "worker has settled it, or has taken it back after its lease",
}
#: Characters of a deduplication key in a list.
_KEY_SHOWN = 36
#: Where a command's context keeps the AdRoll that it works with.
_USED = "adroll_flask.runtime"
#: Ids that are listed where a beginning is that of several.
_MOST_LISTED = 5


def current_runtime() -> Runtime:
    """The current app's AdRoll.

    :raises ConfigurationError: it has none. The commands are there for any app.
    """
    runtime: Runtime | None = current_app.extensions.get("adroll")
    if runtime is None:
        raise ConfigurationError(
            "AdRoll", "this app has none; call AdRoll(app) or adroll.init_app(app)"
        )
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_USED] = runtime
    return runtime


def used_runtime(context: click.Context) -> Runtime | None:
    """The AdRoll that a command has worked with, also after its app context has ended."""
    return context.meta.get(_USED)


def _kept_outbox() -> Outbox | None:
    """The app's outbox; ``None`` where its file is not there: looking must not make it."""
    runtime = current_runtime()
    place = runtime.outbox_place
    return None if isinstance(place, Path) and not place.exists() else runtime.outbox


def _outbox() -> Outbox:
    """The app's outbox, for a command on events that it should have."""
    store = _kept_outbox()
    if store is None:
        raise click.ClickException("there is no such event: nothing was reported yet")
    return store


@click.group(cls=AppGroup, invoke_without_command=True)
@_AS_JSON
@click.pass_context
def outbox(context: click.Context, as_json: bool) -> None:
    """Counts by state, the oldest event, rates, holds and the last error; or a command."""
    if context.invoked_subcommand is None:
        with_appcontext(_status)(as_json)


def _status(as_json: bool) -> None:
    from .probes import nothing_kept

    store = _kept_outbox()
    overview = nothing_kept(current_runtime()) if store is None else store.overview()
    if as_json:
        click.echo(json.dumps(asdict(overview)))
        return
    next_due = ""
    if store is not None and overview.counts["waiting"] and overview.oldest_due is None:
        next_due = _next_due(current_runtime())
    click.echo(_as_text(overview, next_due))


def _next_due(runtime: Runtime) -> str:
    """``in 14 minutes`` where the first of the waiting events is not due yet, else nothing."""
    return "".join(_until(row, runtime.clock()) for row in runtime.outbox.list("waiting", 1))


def why_waiting(runtime: Runtime) -> str:
    """What keeps events from AdRoll at present, as far as the outbox knows; empty: nothing."""
    if runtime.settings.missing:
        return f"{' and '.join(runtime.settings.missing)} not set"
    destination = runtime.outbox.destination()
    if destination.held:
        return f"held: {destination.held}; flask adroll send-test shows what AdRoll answers"
    reasons = []
    if destination.failures:
        count = counted(destination.failures, "failure")
        reasons.append(
            f"AdRoll is down or out of reach, {count} in a row: {destination.last_error}"
        )
    if destination.paused_for > 0:
        text = f"paused for {counted(math.ceil(destination.paused_for), 'second')}"
        known = destination.failures or not destination.last_error
        reasons.append(text if known else f"{text}: {destination.last_error}")
    if not reasons and (due := _next_due(runtime)):
        reasons.append(f"the next is due {due}")
    return "; ".join(reasons)


def _as_text(overview: Overview, next_due: str) -> str:
    made = f"schema {overview.schema_version}"
    if not overview.schema_version:
        made = "not there yet; it is made with the first report"
    lines = [f"engine      {overview.engine}, {made}"]
    lines += [f"{state:<11} {count}" for state, count in overview.counts.items()]
    if overview.oldest_due is not None:
        lines.append(f"oldest due  {_ago(overview.oldest_due)}")
    if next_due:
        lines.append(f"next due    {next_due}")
    for span, rates in overview.rates.items():
        some = ", ".join(f"{count} {name}" for name, count in rates.items() if count)
        lines.append(f"last {span:<6} {some or 'nothing'}")
    destination = overview.destination
    if destination.held:
        since = time.time() - (destination.held_since or time.time())
        lines.append(f"HELD        {destination.held}, for {_ago(since)}; no event is blamed")
    if destination.paused_for > 0:
        lines.append(f"paused      for {destination.paused_for:.0f} s more")
    if destination.failures:
        lines.append(f"down        {counted(destination.failures, 'failure')} in a row")
    if destination.last_error:
        lines.append(f"last error  {destination.last_error}")
    for begin, end, reason in overview.holds:
        until = f"until {_when(end)}" if end is not None else "still"
        lines.append(f"hold        {_when(begin)}, {until}: {reason}")
    if overview.spilled_bytes:
        size = counted(overview.spilled_bytes, "byte")
        lines.append(f"spill file  {size}, for the next worker to read back")
    return "\n".join(lines)


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return counted(round(seconds), "second")


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) + "Z"


class _NotFound(click.ClickException):
    """An id, or the beginning of one, that names no event of those that a command is about."""


def _whole_id(store: Outbox, given: str, states: Sequence[State] = _STATES) -> str:
    """The id that begins with *given*, of the events in *states*; a whole one as it is.

    :raises _NotFound: there is none, or more than one.
    """
    beginning = given.lower().removesuffix("…").removesuffix("...")
    if not _BEGINNING.match(beginning):
        raise _NotFound(
            "takes an event's id, or at least its first four digits; outbox list shows it"
        )
    if len(beginning) == _ID_DIGITS:
        return beginning
    found: list[str] = []
    for state in states:
        rows = store.list(state, _MOST)
        if len(rows) == _MOST:
            raise _NotFound(
                f"there are too many {state} events to look for a beginning: give the whole id"
            )
        found += [row.id for row in rows if row.id.startswith(beginning)]
    kind = "dead letter" if list(states) == ["dead"] else "event"
    if not found:
        raise _NotFound(f"no {kind}'s id begins with {beginning}")
    if len(found) > 1:
        some = ", ".join(found[:_MOST_LISTED]) + (", …" if len(found) > _MOST_LISTED else "")
        raise _NotFound(
            f"{beginning} begins the ids of {counted(len(found), kind)}, give more of it: {some}"
        )
    return found[0]


def _dead_letter(store: Outbox, given: str) -> Row:
    """The dead letter whose id begins with *given*.

    :raises _NotFound: there is none, or more than one, or the event is alive.
    """
    row = store.show(_whole_id(store, given, ["dead"]))
    if row is None:
        raise _NotFound("there is no such event")
    if row.state != "dead":
        raise _NotFound(f"this event is {row.state}, it is no dead letter")
    return row


@outbox.command("list")
@click.option("--dead", "state", flag_value="dead", help="Only dead letters.")
@click.option("--state", "state", type=_STATE)
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, _MOST))
@_AS_JSON
def list_(state: Any, limit: int, as_json: bool) -> None:
    """List events, without the visitors' values."""
    store = _kept_outbox()
    rows = () if store is None else store.list(state, limit)
    if as_json:
        click.echo(json.dumps([_row(row) for row in rows]))
        return
    now = current_runtime().clock()
    for row in rows:
        mark = " unsure" if row.unsure else ""
        due = _until(row, now)
        parts = [
            f"{row.id}  {row.state:<9} {row.name:<13} {_when(row.occurred_at)}",
            f"{counted(row.attempts, 'attempt')}{mark}",
            f"key {_short_key(row.key)}" if row.key else "",
            f"due {due}" if due else "",
            ": ".join(part for part in (row.reason, row.error) if part),
        ]
        click.echo("  ".join(part for part in parts if part))
    if not rows:
        click.echo("no events")


def _short_key(key: str) -> str:
    """An order's id, or what else tells events apart; the end of a long one goes."""
    if "@" in key:
        return "[email]"
    return key if len(key) <= _KEY_SHOWN else f"{key[: _KEY_SHOWN - 1]}…"


def _until(row: Row, now: float) -> str:
    """``in 14 minutes`` for a waiting event that is not due yet, else nothing."""
    left = row.due_at - now
    return f"in {_ago(left)}" if row.state == "waiting" and left >= 1 else ""


def _row(row: Row) -> dict[str, Any]:
    fields = asdict(row)
    fields.pop("payload")
    return fields


@outbox.command()
@click.argument("id")
@click.option("--full", is_flag=True, help="With the visitor's values.")
def show(id: str, full: bool) -> None:
    """Show one event as JSON; the visitor's values are replaced without --full.

    The beginning of the ID is enough where no other event's is the same.
    """
    from .redaction import redact_event

    store = _outbox()
    row = store.show(_whole_id(store, id))
    if row is None:
        raise click.ClickException("there is no such event")
    fields = _row(row)
    wire = json.loads(row.payload) if row.payload else None
    fields["event"] = wire if full or wire is None else redact_event(wire)
    click.echo(json.dumps(fields, indent=2))


@outbox.command()
@click.argument("ids", nargs=-1)
@click.option("--all-dead", is_flag=True, help="All dead letters that can be sent.")
def retry(ids: tuple[str, ...], all_dead: bool) -> None:
    """Let dead letters be sent again. An invalid one has to be mended first.

    The beginning of an ID is enough where no other dead letter's is the same.
    """
    if bool(ids) == all_dead:
        raise click.UsageError("give either ids or --all-dead")
    if all_dead and _kept_outbox() is None:
        click.echo("0 events will be sent again")
        return
    store = _outbox()
    chosen = ids or tuple(row.id for row in store.list("dead", _MOST))
    good, bad = _sendable(store, chosen)
    count = store.retry(good) if good else 0
    for id, text in bad:
        click.echo(f"{id}: {text}", err=True)
    click.echo(f"{counted(count, 'event')} will be sent again")
    raise SystemExit(1 if bad and ids else 0)


def _sendable(store: Outbox, ids: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    from .errors import EventError
    from .events import recheck_wire

    good: list[str] = []
    bad: list[tuple[str, str]] = []
    for given in ids:
        try:
            row = _dead_letter(store, given)
        except _NotFound as problem:
            bad.append((given, problem.message))
            continue
        if not row.payload:
            bad.append((row.id, "has no content any more"))
        elif row.reason.startswith("invalid"):
            try:
                recheck_wire(row.payload, email_forms=current_runtime().settings.email)
            except EventError as problem:
                bad.append((row.id, f"mend it first (outbox mend): {problem}"))
            else:
                good.append(row.id)
        else:
            good.append(row.id)
    return good, bad


@outbox.command()
@click.argument("id")
@click.argument("file", type=click.File("rb"))
def mend(id: str, file: Any) -> None:
    """Give a dead letter the event in FILE (JSON, "-": standard input) and let it be sent.

    The beginning of the ID is enough where no other dead letter's is the same.
    """
    from .errors import EventError
    from .events import recheck_wire, wire_bytes

    store = _outbox()
    id = _dead_letter(store, id).id
    payload = file.read()
    _refuse_other_forms(payload)
    try:
        event = recheck_wire(payload, email_forms=current_runtime().settings.email)
    except EventError as problem:
        raise click.ClickException(str(problem)) from None
    if not store.mend(id, wire_bytes(event), event.order_id):
        _dead_letter(store, id)  # somebody may have been faster
        raise click.ClickException(
            "another event has reported this order (the same deduplication key): "
            f"this one can only be removed, with outbox drop {id}"
        )
    click.echo("1 event will be sent")


def _refuse_other_forms(payload: bytes) -> None:
    """Say what a file holds that is no event at all; what is wrong with one is said elsewhere.

    :raises click.ClickException: without any of the file's own words.
    """
    try:
        told = json.loads(payload)
    except json.JSONDecodeError as problem:
        place = f"line {problem.lineno}, column {problem.colno}"
        raise click.ClickException(f"no JSON, {place}: {problem.msg}") from None
    except UnicodeDecodeError as problem:
        raise click.ClickException(f"no JSON: byte {problem.start + 1} is not UTF-8") from None
    except (ValueError, RecursionError):
        return
    # What show and export print about an event, with the event in it.
    if isinstance(told, dict) and {"id", "state", "event"} <= told.keys():
        raise click.ClickException(
            'takes the event alone, the member "event" of this: '
            "flask adroll outbox show --full ID | jq .event"
        )


@outbox.command()
@click.argument("ids", nargs=-1, required=True)
def drop(ids: tuple[str, ...]) -> None:
    """Remove events for good and free their deduplication keys.

    One that a worker is about to send, or is sending, stays.
    The beginning of an ID is enough where no other event's is the same.
    """
    store = _outbox()
    whole: list[str] = []
    kept: list[tuple[str, str]] = []
    for given in ids:
        try:
            id = _whole_id(store, given)
        except _NotFound as problem:
            kept.append((given, problem.message))
            continue
        if store.show(id) is None:
            kept.append((id, "there is no such event"))
        else:
            whole.append(id)
    count = store.drop(whole)
    # Only now, since a worker may have been faster.
    for row in filter(None, map(store.show, whole)):
        kept.append((row.id, _WHY_KEPT.get(row.state, "has changed meanwhile; try again")))
    for id, text in kept:
        click.echo(f"{id}: {text}", err=True)
    click.echo(f"{counted(count, 'event')} dropped")
    raise SystemExit(1 if kept else 0)


@outbox.command()
@click.option("--state", type=_STATE)
@click.option("--full", is_flag=True, help="With the visitors' values.")
def export(state: Any, full: bool) -> None:
    """Write events as JSON lines; the visitors' values are replaced without --full."""
    store = _kept_outbox()
    for line in () if store is None else store.export(state, full=full):
        click.echo(line)


@outbox.command("create-table")
def create_table() -> None:
    """Make or upgrade the outbox's tables; safe to run at any time, from many processes."""
    from sqlalchemy.exc import SQLAlchemyError

    from .probes import outbox_failure

    try:
        current_runtime().outbox.create_tables()
    except (SQLAlchemyError, sqlite3.Error, OSError) as problem:
        raise outbox_failure(problem) from None
    click.echo("the outbox's tables are there")
