"""What commands share: the app's AdRoll, options, refusals, printing, and times as people write
them."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final

import click
from flask import current_app
from flask.cli import AppGroup, ScriptInfo

from adroll_flask import request_state
from adroll_flask.errors import ConfigurationError, help_for
from adroll_flask.events.names import suggestion
from adroll_flask.findings.rules import Moment, outbox_trouble, what_delays
from adroll_flask.outbox.model import OutboxFailed, Row
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.plurals import counted
from adroll_flask.redaction import safe_url
from adroll_flask.reporting.lists import read_time
from adroll_flask.request_state import EXTENSION
from adroll_flask.runtime import Runtime
from adroll_flask.times import DAY, HOUR, WEEK, span, written

WITHOUT_FLASK: Final = "python -m adroll_flask"
_SPAN: Final = re.compile(r"(\d{1,5})\s*([hdw])\Z")
_UNITS: Final = {"h": HOUR, "d": DAY, "w": WEEK}

#: Events that one command looks at.
MOST_EVENTS: Final = 100_000
NUMBER: Final = click.IntRange(1, MOST_EVENTS)
#: Where a command's context has whether JSON was asked for: :func:`show` looks there.
_JSON: Final = "adroll_flask.json"


def _note_json(context: click.Context, _option: click.Parameter, is_asked: bool) -> None:
    context.meta[_JSON] = is_asked


AS_JSON = click.option(
    "--json", is_flag=True, expose_value=False, callback=_note_json, help="Print JSON."
)


def _account_of(context: click.Context, _option: click.Parameter, host: str | None) -> str | None:
    """The account of the shop that was named; ``None``: all shops."""
    if host is None:
        return None
    try:
        settings = context.ensure_object(ScriptInfo).load_app().extensions[EXTENSION].settings
    except (ConfigurationError, KeyError):
        return None  # the app does not start, or has no AdRoll: the command says so
    account: str | None = settings.shop_of(host)
    if account is None:
        there = ", ".join(settings.shop_names.values()) or "this site has one shop"
        raise click.BadParameter(f"{host} is no host of a shop; there are: {there}")
    return account


#: Which shop is looked at: the command is given the advertisable EID of its account.
_SHOP: Final = click.option(
    "--shop",
    "account",
    metavar="HOST",
    callback=_account_of,
    help="Only of this shop, of several in ADROLL_ACCOUNTS.",
)


def shop_and_json(command: Any) -> Any:
    """The options ``--shop`` and ``--json``, for a command that shows figures or findings."""
    return _SHOP(AS_JSON(command))


class Refusal(click.ClickException):
    """A command did nothing, or not all of it.

    :param slug: the part of ``docs/errors.md`` that explains it.
    """

    def __init__(self, message: str, *, slug: str) -> None:
        super().__init__(message)
        self.slug = slug


class Commands(AppGroup):
    """``flask adroll``, which Flask knows by an entry point, even where the app does not start.

    Flask makes the app when a command asks for it. If a setting is wrong then, or a database is
    down, the command says so in one line and without a traceback.
    """

    def invoke(self, context: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # An order's id may have a letter that a file's or a terminal's encoding lacks.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(context)
        except click.ClickException as problem:
            refusal = problem
        except OutboxFailed as problem:
            app = context.ensure_object(ScriptInfo).load_app()
            finding = outbox_trouble(app.extensions[EXTENSION], problem)
            refusal = Refusal(f"{finding.sentence} {finding.todo}", slug=problem.slug)
        except ConfigurationError as problem:
            text = f"{problem.key}: {problem.problem}"
            if problem.others:
                more = counted(len(problem.others), "more wrong setting")
                text += f" (and {more}; {context.command_path} check lists all)"
            refusal = Refusal(text, slug=problem.slug)
        slug = getattr(refusal, "slug", "command-usage")
        text = as_typed(f"{refusal.format_message()}\n{help_for(slug)}")
        refusal.format_message = lambda: text  # type: ignore[method-assign]
        raise refusal


commands: Commands = Commands(
    "adroll", help="AdRoll server to server: set up, deliver, look after events."
)


def current_runtime() -> Runtime:
    """The current app's AdRoll.

    :raises ConfigurationError: it has none. The commands are there for any app.
    """
    return request_state.runtime_of(current_app, "flask adroll")


def as_typed(text: str) -> str:
    """*text* with commands in the form in which this command was typed.

    On a site without Flask, ``flask adroll check`` finds no app. There it is
    ``python -m adroll_flask --app shop.wsgi:application check``.
    """
    context = click.get_current_context(silent=True)
    root = context.find_root() if context is not None else None
    if root is None or root.info_name != WITHOUT_FLASK:
        return text
    app = root.params.get("app")
    return text.replace("flask adroll", WITHOUT_FLASK + (f" --app {app}" if app else ""))


def show(data: object, text: str, *, failed: bool = False) -> None:
    """Print *data* as JSON where that was asked for, else *text*; see :func:`as_typed`.

    :param failed: exit with 1 after that.
    """
    is_json = click.get_current_context().meta[_JSON]
    click.echo(as_typed(json.dumps(data) if is_json else text))
    if failed:
        raise SystemExit(1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table without the columns that are empty; numbers stand to the right.

    >>> print(table(["day", "dead", "events"], [["Monday", "", "9"], ["Tuesday", "", "12"]]))
    day      events
    Monday        9
    Tuesday      12
    """
    columns = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    aligned = []
    for number, column in enumerate(columns):
        width = max(map(len, column))
        is_of_numbers = all(not cell or cell[0].isdigit() for cell in column[1:])
        to_the_right = is_of_numbers and number > 0
        aligned.append([c.rjust(width) if to_the_right else c.ljust(width) for c in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))


def place_of(outbox: Outbox) -> str:
    """Where *outbox*'s database is: its file, or its address without the password."""
    place = outbox.place
    return str(place) if isinstance(place, Path) else safe_url(str(place))


def say_delivered(number: int, what: str) -> None:
    """Say how many events could not be changed, as they had been delivered, and *what* follows."""
    if number:
        click.echo(f"{counted(number, 'event')} had been delivered: {what}", err=True)


def pairs(names: Collection[str], *option: str, help: str) -> Callable[..., Any]:
    """An option ``NAME=TEXT`` that may be given many times. NAME is one of *names*."""

    def read(_context: click.Context, _option: click.Parameter, texts: Sequence[str]) -> Any:
        values = {}
        for text in texts:
            name, _, rest = (part.strip() for part in text.partition("="))
            if name not in names:
                there = suggestion(name, names) or f"; there are {', '.join(names)}"
                raise click.BadParameter(f"there is no {name!r}{there}")
            if not rest:
                raise click.BadParameter('takes NAME="text", such as order_id="Order no."')
            values[name] = rest
        return values

    help_text = f"{help}; may be given many times."
    return click.option(*option, multiple=True, callback=read, metavar="NAME=TEXT", help=help_text)


def when(at: float) -> str:
    """A time as people read it, in the shop's zone, as the dashboard's pages write it."""
    return written("%-d %b %Y, %H:%M %Z", at, current_runtime().settings.time_zone)


def until(row: Row, now: float) -> str:
    """``in 14 minutes`` for an event that is due, or whose hold ends, only then; else nothing."""
    seconds = row.due_at - now
    return f"in {span(seconds)}" if row.state in ("waiting", "held") and seconds >= 1 else ""


def keeps(runtime: Runtime, account: str | None = None) -> str:
    """What keeps events from AdRoll at present; empty: nothing is known."""
    if runtime.settings.missing:
        return f"{' and '.join(runtime.settings.missing)} not set"
    moment = Moment(runtime, account=account)
    if (finding := what_delays(moment)) is not None:
        why = finding.sentence.removesuffix(moment.waits).removesuffix(".")
        return f"{why}: {as_typed(finding.command)}" if finding.command else why
    first = moment.lookups.list("waiting", 1)
    due = until(first[0], moment.now) if first else ""
    return f"the next is due {due}" if due else ""


def since_when(text: str, now: float, zone: tzinfo = UTC) -> float:
    """The time that an option gives, seconds since the epoch.

    :param text: ``24h``, ``7d`` or ``4w`` ago, a date, a time of ISO 8601, or seconds since the
        epoch.
    :param zone: of a date, and of a time without an offset.
    :raises click.BadParameter: *text* is none of these.
    """
    if match := _SPAN.match(text):
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        return read_time(text, zone)
    except ValueError:
        text = "takes 24h, 7d, 4w, or a date or time such as 2026-11-01"
        raise click.BadParameter(text) from None
