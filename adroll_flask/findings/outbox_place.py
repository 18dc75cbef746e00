"""Looks at the place of an outbox, and says what is wrong there, without making anything."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adroll_flask.redaction import database_words, safe_url

from .finding import TABLE, Finding, found

if TYPE_CHECKING:
    from sqlalchemy import URL

    from adroll_flask.outbox import OutboxFailed
    from adroll_flask.runtime import Runtime


def outbox_state(runtime: Runtime) -> Literal["no file", "no tables", "ready"]:
    """What is there of the outbox; looking makes neither file nor tables.

    :raises OutboxFailed: its database cannot be worked with.
    :raises ConfigurationError: there is no outbox over such a database.
    """
    from adroll_flask.outbox.journal_reader import waiting_bytes

    place = runtime.outbox_place
    if place is None:
        return "ready"
    if isinstance(place, Path):
        try:
            if not place.exists():
                # What waits in the journal makes it, as soon as somebody looks.
                return "ready" if runtime.may_have_events() else "no file"
            # So it is while somebody else is about to make its tables.
            tables = _file_has_tables(place) or waiting_bytes(runtime.journal_folder) > 0
        except (OSError, sqlite3.Error) as problem:
            raise outbox_failure(problem) from None
    else:
        tables = _server_has_tables(place)
    return "ready" if tables else "no tables"


def _file_has_tables(path: Path) -> bool:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'adroll_meta'")
        return found.fetchone() is not None


def _server_has_tables(url: URL) -> bool:
    from sqlalchemy.exc import SQLAlchemyError

    from adroll_flask.outbox.schema import schema_version
    from adroll_flask.outbox.server import make_engine

    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return schema_version(connection) is not None
    except (SQLAlchemyError, OSError) as problem:
        raise outbox_failure(problem, url.username, url.password) from None
    finally:
        engine.dispose()


def outbox_failure(problem: Exception, *secrets: str | None) -> OutboxFailed:
    """What a database's own error means, in its own words where they hold no values.

    :param secrets: user and password of the database's URL.
    """
    from adroll_flask.outbox import OutboxFailed, server, sqlite

    original = getattr(problem, "orig", None) or problem
    at = sqlite if isinstance(original, sqlite3.Error) else server
    reason = at.reason_of(original if at is sqlite else problem)
    return OutboxFailed(reason, database_words(original, *secrets))


def outbox_trouble(runtime: Runtime, problem: OutboxFailed) -> Finding:
    """What is wrong with the outbox's database, and the fix; never its user or password."""
    place, subject, name = runtime.outbox_place, "ADROLL_OUTBOX_URL", "outbox-unavailable"
    if place is None:
        return found(f"{name}/given", subject, why=problem)
    cause = str(problem).partition(": ")[2]
    why = f" ({cause})" if cause else ""
    variant = f"{name}/{problem.reason}"
    name = variant if variant in TABLE else name
    if isinstance(place, Path):
        what = f"the file {place}"
        return found(name, subject, what=what, why=why, place=place, folder=place.parent)
    what = f"the database at {safe_url(place.render_as_string(hide_password=True))}"
    if problem.reason == "unavailable":
        return found(f"{name}/server", subject, what=what, why=why)
    return found(name, subject, what=what, why=why, fix=TABLE[name]["server_fix"])
