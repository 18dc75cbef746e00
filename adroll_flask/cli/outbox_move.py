"""``flask adroll outbox move-from``: into the site's outbox, all that another one holds."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import click
from flask.cli import with_appcontext

from adroll_flask.errors import ConfigurationError
from adroll_flask.plurals import counted

from .app_runtime import current_runtime
from .outbox_ids import STATES
from .refusal import Refusal


@click.command("move-from")
@click.argument("old", envvar="ADROLL_OLD_OUTBOX_URL", metavar="OLD")
@with_appcontext
def move_from(old: str) -> None:
    """Move all that the outbox at OLD holds into the one of ADROLL_OUTBOX_URL.

    OLD is an address as ADROLL_OUTBOX_URL takes it; ADROLL_OLD_OUTBOX_URL of the environment is
    one that no process list shows. The site and its workers are stopped meanwhile. What was moved
    is not sent from the old outbox any more. A move that was stopped goes on if it is run again.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from adroll_flask.checks.outbox_state import outbox_failure
    from adroll_flask.outbox import OutboxFailed
    from adroll_flask.outbox.location import locate
    from adroll_flask.outbox.moving import NotMoved, move
    from adroll_flask.outbox.parts import open_database

    runtime = current_runtime()
    try:
        source = locate(old, Path(runtime.folder).absolute())
    except ConfigurationError as problem:
        raise click.UsageError(f"OLD {problem.problem}") from None
    if isinstance(source, Path) and not source.exists():
        raise Refusal(f"there is no outbox at {source}", slug="outbox-move")
    target = runtime.outbox_place
    if target is None or source == target:
        raise Refusal("both addresses are of the same outbox", slug="outbox-move")
    databases = [
        open_database(place, runtime.settings, runtime.clock) for place in (source, target)
    ]
    try:
        databases[0].create_tables()
    except (OutboxFailed, SQLAlchemyError, sqlite3.Error, OSError) as problem:
        secrets = () if isinstance(source, Path) else (source.username, source.password)
        why = (
            outbox_failure(problem, *secrets) if not isinstance(problem, OutboxFailed) else problem
        )
        raise Refusal(f"the old outbox cannot be worked with: {why}", slug="outbox-move") from None
    done = [0]

    def moved(count: int) -> None:
        done[0] += count
        if sys.stderr.isatty():
            click.echo(f"\r{done[0]:,} events", nl=False, err=True)

    try:
        states = move(*databases, dedupe_days=runtime.settings.dedupe_days, moved=moved)
    except NotMoved as problem:
        raise Refusal(str(problem), slug="outbox-move") from None
    except (OutboxFailed, SQLAlchemyError, sqlite3.Error, OSError) as problem:
        raise outbox_failure(problem) from None
    finally:
        for database in databases:
            database.close()
    if done[0] and sys.stderr.isatty():
        click.echo(err=True)
    parts = [f"{states[state]:,} {state}" for state in STATES if states[state]]
    told = f": {', '.join(parts)}" if parts else ""
    click.echo(f"{counted(states.total(), 'event')} moved{told}")
