"""``flask adroll outbox …``: look after what waits, what is held and what died."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

import click
from flask.cli import with_appcontext

from adroll_flask.errors import ConfigurationError, EventError
from adroll_flask.findings.finding import in_words, meaning, texts, why_of
from adroll_flask.findings.rules import Moment
from adroll_flask.outbox import admin, model
from adroll_flask.outbox.location import locate
from adroll_flask.outbox.lookups import wire_of
from adroll_flask.outbox.outbox import open_database
from adroll_flask.plurals import counted
from adroll_flask.redaction import short_key
from adroll_flask.reporting import kept_events
from adroll_flask.reporting.lists import spellings
from adroll_flask.times import iso, span

from . import console
from .console import AS_JSON, Refusal, current_runtime, show, until, when

_STATE = click.option("--state", type=click.Choice(model.STATES), help="Only events of this state.")
_RISK: Final = "AdRoll may have them already: what it has is counted twice if it is sent again"
_LATER: Final = "a worker has it; try again once it is settled, or taken back after its lease"
_UNKNOWN: Final = (
    "It is unknown here. No event has this id, and no visitor refused to have it reported"
)
#: How a step of an event's life is told.
_STEPS: Final = texts("words.toml", "step/")


@console.commands.group(invoke_without_command=True)
@console.shop_and_json
@click.pass_context
def outbox(context: click.Context, account: str | None) -> None:
    """Look after the events that wait and those that died.

    Without a command it shows the number of events in each state, the oldest event, why it waits,
    and the last error.
    """
    if context.invoked_subcommand is None:
        with_appcontext(_status)(account)


# -- which events ---------------------------------------------------------------------------


def _event(id: str) -> model.Row:
    """The event whose id is *id*.

    :raises Refusal: there is none.
    """
    if (row := current_runtime().outbox.lookups.show(id.lower())) is None:
        raise Refusal("there is no such event", slug="no-such-event")
    return row


def _say_refused(refused: Iterable[tuple[str, str]]) -> None:
    for id, why in refused:
        click.echo(f"{id}: {why}", err=True)


# -- looking --------------------------------------------------------------------------------


def _status(account: str | None) -> None:
    runtime = current_runtime()
    database = runtime.outbox.database
    lookups = runtime.outbox.lookups.of(account)
    counts = lookups.counts()
    version = int(lookups.notes("schema_version").get("schema_version", 0))
    tables = f"schema {version}" if version else "not there yet; the first report makes it"
    verdicts = counts.pop("decided")
    size = lookups.bytes_waiting()
    late = runtime.outbox.queue.oldest_due(None if account is None else [account])
    by_account = runtime.outbox.queue.waiting_by_account()
    accounts = {eid: number for eid, number in by_account.items() if account in (None, eid)}
    moment = Moment(runtime, account=account)
    lines: list[tuple[str, object]] = [
        ("engine", f"{database.dialect}, {tables}"),
        *counts.items(),
        ("no hold yet", counted(verdicts, "verdict") if verdicts else ""),
        ("oldest due", "" if late is None else span(late)),
        ("kept back", console.keeps(runtime, account)),
        ("last error", in_words("waiting", moment.destination.last_error or "")),
    ]
    for eid, number in accounts.items():
        if eid != runtime.settings.advertisable_eid:
            lines.append(("of account", f"{eid or 'none'}: {counted(number, 'event')} waiting"))
    lines.append(("journal", f"{counted(size, 'byte')}, to be taken in" if size else ""))
    data = {
        "counts": counts,
        "accounts": accounts,
        "oldest_due": late,
        "destinations": {eid: asdict(state) for eid, state in lookups.destinations().items()},
        "journal_bytes": size,
        "engine": database.dialect,
        "schema_version": version,
        "verdicts": verdicts,
    }
    show(data, "\n".join(f"{name:<11} {text}" for name, text in lines if text != ""))


@outbox.command("list")
@click.option("--dead", "state", flag_value="dead", help="Only dead letters.")
@_STATE
@click.option("--newest", is_flag=True, help="The newest first, instead of the next to be sent.")
@click.option("--limit", default=100, show_default=True, type=console.NUMBER)
@console.shop_and_json
def list_(state: Any, newest: bool, limit: int, account: str | None) -> None:
    """List events, without the visitors' values."""
    runtime = current_runtime()
    rows = runtime.outbox.lookups.of(account).list(state, limit, newest=newest)
    accounts = {row.advertisable_eid for row in rows} | {runtime.settings.advertisable_eid or ""}
    head = ("id", "state", "event", "happened", "value", "attempts", "account", "key", "due", "why")
    lines = [
        (
            row.id,
            row.state,
            row.name,
            when(row.occurred_at),
            kept_events.value_in(row.digest),
            f"{row.attempts}{' unsure' if row.unsure else ''}",
            row.advertisable_eid if len(accounts) > 1 else "",
            short_key(row.key or ""),
            until(row, runtime.clock()),
            why_of(row),
        )
        for row in rows
    ]
    show([row.as_dict() for row in rows], console.table(head, lines) if rows else "no events")


@outbox.command("show")
@click.argument("id")
@click.option("--full", is_flag=True, help="With the visitor's values.")
def show_(id: str, full: bool) -> None:
    """Show one event as JSON.

    Without --full, no visitor's values are in it.
    """
    click.echo(json.dumps(_whole(_event(id), full), indent=2))


@outbox.command()
@_STATE
@click.option("--full", is_flag=True, help="With the visitors' values.")
def export(state: Any, full: bool) -> None:
    """Write events as JSON lines.

    Without --full, no visitor's values are in them.
    """
    for row in current_runtime().outbox.lookups.pages(state):
        click.echo(json.dumps(_whole(row, full), ensure_ascii=False))


def _whole(row: model.Row, full: bool) -> dict[str, Any]:
    """*row* and the event in it; without *full* it has no values of the visitor."""
    event = wire_of(row.payload) if full and row.payload else kept_events.carried(row)
    return row.as_dict() | {"event": event}


@outbox.command("find")
@click.argument("order")
@console.shop_and_json
def outbox_find(order: str, account: str | None) -> None:
    """Show an order's life.

    Reported, held, each attempt, delivered, or why not. ORDER is the shop's order id. Exits with 1
    where nothing is known of it.
    """
    _show_life(order, account=account)


def _show_life(order: str, *, failed: bool = False, account: str | None = None) -> None:
    # Imported here, since the whole dashboard comes with it.
    from adroll_flask.dashboard import orders

    runtime = current_runtime()
    moment = Moment(runtime, account=account)
    known_order = kept_events.find_order(runtime.reporter, order, account=account)
    lines = []
    events = [row.as_dict() for row in known_order.events]
    data: dict[str, Any] = {"events": events, "suppressed": []}
    for name, why in known_order.suppressed.items():
        at = iso(why.at).replace("T", " ")
        data["suppressed"].append(f"{name} not reported\n  {at}  suppressed: {why.reason}")
        title = meaning("suppressed", why.reason).title
        lines.append(f"{name} not reported\n  {when(why.at)}  suppressed: {title}")
    for row in known_order.events:
        lines += _life_lines(row, moment)
    # In the words of the dashboard's page.
    if not known_order and runtime.paid_orders.missing(order):
        data["alike"] = []
        lines = [f"{order}: It was paid and never reported"]
    elif not known_order:
        data["alike"] = [*kept_events.orders_alike(runtime.reporter, order, account)]
        meant = f". Did you mean {', '.join(data['alike'])}?" if data["alike"] else ""
        began = when(moment.began) if moment.began else ""
        may_be_older = orders.may_be_older(began, moment.settings.dedupe_days)
        lines = [f"{order}: {_UNKNOWN}{meant}", may_be_older]
    show(data, "\n".join(lines), failed=failed or not known_order)


def _life_lines(row: model.Row, moment: Moment) -> Iterator[str]:
    """The life of one event, a line each, in the words of the dashboard's page."""
    from adroll_flask.dashboard import orders

    order = orders.order_shown(row)
    about = [f"{row.name} {row.id}", f"order {order}" if order else ""]
    about += [kept_events.value_in(row.digest), "dry run" if row.dry_run else ""]
    about.append(moment.settings.shop_names.get(row.advertisable_eid, ""))
    yield ", ".join(filter(None, about))
    for step in kept_events.life(row):
        if step.kind == "now":
            due = until(row, moment.now)
            yield f"  {'now':<22}  {row.state}" + (f", due {due}" if due else "")
        else:
            between = ": " if step.kind in ("dead", "cancelled") else ", "
            words = filter(None, (_STEPS[step.kind]["title"], orders.said_of(step)))
            yield f"  {when(step.at or moment.now):<22}  {between.join(words)}"
    if had := orders.had_by(row, moment.settings):
        yield f"  {had}"
    why = orders.why_not_sent(moment, row.advertisable_eid) if row.state == "waiting" else ""
    if why:
        yield f"  {why}"
    if matched := kept_events.matched_by(row):
        yield f"  matched by  {matched}"
    if (kept := kept_events.carried(row)) is not None:
        yield f"  carried  {json.dumps(kept, ensure_ascii=False)}"


# -- held orders, by hand -------------------------------------------------------------------


@outbox.command()
@click.argument("order")
@AS_JSON
def release(order: str) -> None:
    """Let a held order be sent: it is paid. Then show its life, as find does."""
    _decide_by_hand("release", order)


@outbox.command()
@click.argument("order")
@AS_JSON
def cancel(order: str) -> None:
    """Let a held or waiting order not be sent. Then show its life, as find does."""
    _decide_by_hand("cancel", order)


def _decide_by_hand(kind: Literal["release", "cancel"], order: str) -> None:
    reporter = current_runtime().reporter
    lookups = current_runtime().outbox.lookups
    rows = _rows_of_order(order)
    key = _meant_key(kind, order, rows)
    receipt = reporter.decide(kind, order, {}, key=key)
    if receipt.status not in ("released", "cancelled"):
        raise Refusal(f"{receipt.status}: {receipt.reason}", slug="decision-refused")
    row = lookups.of_orders([key]).get(key, rows[key])
    is_ended = row.state in ("dead", "cancelled")
    is_too_late = is_ended if kind == "release" else not is_ended
    if is_too_late:
        click.echo(f"{order} is {row.state}: too late to {kind} it", err=True)
    _show_life(order, failed=is_too_late)


def _rows_of_order(order: str) -> Mapping[model.OrderKey, model.Row]:
    """The rows of *order*, of all accounts; by the first of its spellings that has any."""
    reporter = current_runtime().reporter
    lookups = current_runtime().outbox.lookups
    accounts = (*reporter.settings.accounts, "")
    try:
        for spelling in spellings(order):
            possible = {reporter.order_key(spelling, host) for host in accounts}
            # It may be held as a dry run, of a page that ADROLL_HOSTS does not list.
            possible |= {key._replace(dry_run=True) for key in possible}
            rows = lookups.of_orders([*possible])
            if rows:
                return rows
    except EventError as problem:
        raise Refusal(str(problem), slug="decision-refused") from None
    return {}


def _meant_key(kind: str, order: str, rows: Mapping[model.OrderKey, model.Row]) -> model.OrderKey:
    """The key of the one row that is meant: one that can still be changed, and is no dry run."""
    may_change = ("held",) if kind == "release" else ("held", "waiting")
    keys = [key for key, row in rows.items() if row.state in may_change] or [*rows]
    keys = [key for key in keys if not key.dry_run] or keys
    if len(keys) != 1:  # the order id may be a slip
        why = "several accounts have this order" if keys else "no such order is held here"
        why = f"{why}, so nothing was done; flask adroll outbox find {order}"
        raise Refusal(f"{why} says what is known of it", slug="decision-refused")
    return keys[0]


# -- changing -------------------------------------------------------------------------------


@outbox.command("retry")
@click.argument("ids", nargs=-1)
@click.option("--reason", help="All dead letters of this reason: invalid:value, or invalid.")
@click.option("--all-dead", is_flag=True, help="All but those restored, moved or unsure.")
def outbox_retry(ids: tuple[str, ...], reason: str | None, all_dead: bool) -> None:
    """Let dead letters be sent again. An invalid one has to be fixed first.

    Each is checked, and the site's before_report functions are asked. What they keep back now is
    removed and counted as suppressed.

    Dead letters with the reason restored, moved or unsure may have reached AdRoll. They are sent
    again only if an ID or --reason names them. If AdRoll has them, it counts them twice.
    """
    if [bool(ids), bool(reason), all_dead].count(True) != 1:
        raise click.UsageError("give ids, --reason or --all-dead")
    lookups = current_runtime().outbox.lookups
    rows: Sequence[model.Row] = lookups.those(ids)
    if not ids:
        dead = lookups.list("dead", console.MOST_EVENTS)
        rows = [row for row in dead if reason in (None, row.reason, row.reason.split(":")[0])]
        if dead and not rows:
            there = ", ".join(sorted({row.reason for row in dead}))
            raise click.UsageError(f"no dead letter has the reason {reason}; there are {there}")
    risky = [row for row in rows if row.reason in model.RISKY]
    if all_dead:
        rows = [row for row in rows if row.reason not in model.RISKY]
    done = kept_events.retry_dead(current_runtime().reporter, ids or [row.id for row in rows])
    _say_refused(done.refused)
    if risky:
        text = f"{counted(len(risky), 'dead letter')} restored, moved or unsure"
        unsent = ": not sent unless an id or --reason names them" if all_dead else ""
        click.echo(f"{text}{unsent}. {_RISK}.", err=True)
    if done.suppressed:
        click.echo(f"{counted(done.suppressed, 'event')} suppressed by before_report")
    click.echo(f"{counted(done.sent, 'event')} will be sent again")
    raise SystemExit(1 if done.refused and ids else 0)


@outbox.command()
@click.argument("id")
@click.argument("file", type=click.File("rb"))
def fix(id: str, file: Any) -> None:
    """Give a dead letter another event, and let that be sent.

    FILE holds the event as JSON; "-" is standard input.
    """
    row = _event(id)
    payload = file.read()
    try:
        content = json.loads(payload)
        # The commands show and export print this, with the event in it.
        if isinstance(content, dict) and {"id", "state", "event"} <= content.keys():
            why = "takes the event alone: flask adroll outbox show --full ID | jq .event"
        elif row.state != "dead":
            why = f"this event is {row.state}, it is no dead letter"
        else:
            why = kept_events.fix_dead(current_runtime().reporter, row, payload)
    except (ValueError, RecursionError) as problem:
        why = f"{'' if isinstance(problem, EventError) else 'no JSON: '}{problem}"
    if why:
        raise Refusal(why, slug="fix-refused")
    click.echo("1 event will be sent")


@outbox.command("drop")
@click.argument("ids", nargs=-1)
@click.option("--advertisable", metavar="EID", help="All of this account: waiting, held, dead.")
def outbox_drop(ids: tuple[str, ...], advertisable: str | None) -> None:
    """Remove events for good and free their deduplication keys.

    An order that was dropped can be reported again at once. For up to 15 minutes the process that
    reported it still says duplicate, but the order is taken.

    An event that a worker has taken stays. A delivered event stays too: its key keeps the order
    from being sent a second time.
    """
    if bool(ids) == (advertisable is not None):
        raise click.UsageError("give ids or --advertisable EID")
    store = current_runtime().outbox
    existing = {row.id for row in store.lookups.those(ids)}
    refused = [(id, "there is no such event") for id in ids if id not in existing]
    dropped = admin.Changed(0)
    if store.exists():
        dropped = store.admin.drop(ids or None, account=advertisable)
    undropped = [row for row in store.lookups.those(ids) if row.state != "delivered"]
    refused += [(row.id, f"is {row.state}, {_LATER}") for row in undropped]
    _say_refused(refused)
    console.say_delivered(dropped.delivered, "they stay, and keep their keys")
    click.echo(f"{counted(dropped.events, 'event')} dropped")
    raise SystemExit(1 if refused or dropped.delivered else 0)


# -- the database ---------------------------------------------------------------------------


@outbox.command()
def restored() -> None:
    """Say that the outbox's database came back from a copy.

    The original may have sent what waits in the copy. So all of it becomes dead letters (restored)
    until somebody retries them. Run this command when the copy is in its place, and before the site
    and its workers start. Older dead letters of the copy stay as they are: the original may have
    sent them since, too. Where no copy is, it refuses.
    """
    store = current_runtime().outbox
    if not store.has_place() or not store.database.is_ready():
        where = console.place_of(store)
        raise Refusal(f"there is no copy of an outbox: {where}", slug="outbox-not-made")
    count = store.admin.restored()
    click.echo(f"{counted(count, 'event')} will not be sent until retried")


@outbox.command("create-table")
def create_table() -> None:
    """Make the outbox's tables where they are missing.

    Safe to run at any time, from many processes.
    """
    store = current_runtime().outbox
    store.database.create_tables()
    click.echo(f"the outbox's tables are there: {console.place_of(store)}")


@outbox.command("move-from")
@click.argument("old", envvar="ADROLL_OLD_OUTBOX_URL", metavar="OLD")
def move_from(old: str) -> None:
    """Move all that another outbox holds into this one.

    This one is the outbox of ADROLL_OUTBOX_URL. OLD is the address of the other, in the same form.
    If OLD holds a password, give it in the environment as ADROLL_OLD_OUTBOX_URL: no list of
    processes shows that. Stop the site and its workers first. The old outbox sends nothing of what
    was moved. If a move is stopped, run it again before anything else uses one of the two.
    """
    runtime = current_runtime()
    try:
        source = locate(old, Path(runtime.folder))
    except ConfigurationError as problem:
        raise click.UsageError(f"OLD {problem.problem}") from None
    with closing(open_database(source, runtime.settings, runtime.clock)) as database:
        try:
            is_there = (not isinstance(source, Path) or source.is_file()) and database.is_ready()
        except model.ForeignFile as problem:
            raise Refusal(f"OLD {problem.problem}", slug="outbox-move") from None
        except model.OutboxFailed as problem:
            reason = f"the old outbox cannot be used: {problem}"
            raise Refusal(reason, slug="outbox-move") from None
        if not is_there:
            raise Refusal(f"there is no outbox at {source}", slug="outbox-move")
        try:
            states = admin.move_outbox(database, runtime.outbox.database)
        except admin.NotMoved as problem:
            raise Refusal(str(problem), slug="outbox-move") from None
    parts = ", ".join(f"{states[state]:,} {state}" for state in model.STATES if states[state])
    click.echo(f"{counted(states.total(), 'event')} moved{': ' if parts else ''}{parts}")
