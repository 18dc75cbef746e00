"""Looks at the place of an outbox, and says what is wrong there, without making anything."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adroll_flask.redaction import database_words, safe_url

if TYPE_CHECKING:
    from sqlalchemy import URL

    from adroll_flask.outbox import OutboxFailed, Overview
    from adroll_flask.runtime import Runtime

_TROUBLES = {
    "locked": "is locked: somebody else works with it and does not end",
    "read_only": "may not be written by this user",
    "disk_full": "has no room left on its disk",
    "corrupt": "is damaged",
}


def outbox_state(runtime: Runtime) -> Literal["no file", "no tables", "ready"]:
    """What is there of the outbox; looking makes neither file nor tables.

    :raises OutboxFailed: its database cannot be worked with.
    :raises ConfigurationError: there is no outbox over such a database.
    """
    place = runtime.outbox_place
    if place is None:
        return "ready"
    if isinstance(place, Path):
        try:
            if not place.exists():
                # What waits in the journal makes it, as soon as somebody looks.
                return "ready" if runtime.may_have_events() else "no file"
            tables = _file_has_tables(place)
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


def outbox_trouble(runtime: Runtime, problem: OutboxFailed) -> tuple[str, str]:
    """What is wrong with the outbox's database, and the fix; never its user or password."""
    place = runtime.outbox_place
    cause = str(problem).partition(": ")[2]
    kind = f" ({cause})" if cause else ""
    if place is None:
        return (
            f"the outbox cannot be worked with: {problem}",
            "look at the outbox the app was given",
        )
    if isinstance(place, Path):
        what = _TROUBLES.get(problem.reason, "cannot be opened or worked with")
        if problem.reason == "corrupt":
            fix = "copy what you want to save: the next use moves it aside and makes a new one"
        else:
            fix = "make the file and its folder readable and writable for the app's user"
        return f"the file {place} {what}{kind}", fix
    name = safe_url(place.render_as_string(hide_password=True))
    if problem.reason == "unavailable":
        what = "does not answer, or does not let this user in"
        fix = "start it, or correct the URL: host, port, database, user and password"
    else:
        what = _TROUBLES.get(problem.reason, "cannot be worked with")
        fix = "see the database's own log; correct the URL or the user's rights there"
    return f"the database at {name} {what}{kind}", fix


def nothing_kept(runtime: Runtime) -> Overview:
    """The overview of an outbox whose file is not there yet."""
    from adroll_flask.outbox import Destination, Overview
    from adroll_flask.outbox.journal_files import waiting_bytes
    from adroll_flask.outbox.states import NUMBER

    return Overview(
        counts=dict.fromkeys(NUMBER, 0),
        oldest_due=None,
        rates={},
        destination=Destination(),
        holds=(),
        journal_bytes=waiting_bytes(runtime.journal_folder),
        engine="sqlite",
        schema_version=0,
    )
