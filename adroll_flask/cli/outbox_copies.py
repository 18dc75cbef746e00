"""``flask adroll outbox backup`` and ``restored``: copies of an outbox, and their return."""

from __future__ import annotations

from pathlib import Path

import click
from flask.cli import with_appcontext

from adroll_flask.plurals import counted

from .app_runtime import current_runtime, kept_outbox
from .refusal import Refusal

_SERVERS = {
    "postgresql": "pg_dump --table='adroll_*'",
    "mysql": "mariadb-dump or mysqldump with --single-transaction",
    "mariadb": "mariadb-dump with --single-transaction",
}


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@with_appcontext
def backup(file: Path) -> None:
    """Copy a SQLite outbox into FILE while everything goes on.

    The copy carries a mark: what waits in it becomes dead letters when it is used as an outbox,
    since the original has gone on and may have sent them.
    """
    place = current_runtime().outbox_place
    if place is not None and not isinstance(place, Path):
        tool = _SERVERS[place.get_backend_name()]
        raise Refusal(
            f"the outbox is on a server, whose own tool copies it: {tool}. After a restore, and "
            "before any worker starts: flask adroll outbox restored (docs/how-to/backup.md)",
            slug="outbox-copy",
        )
    store = kept_outbox()
    if store is None:
        raise Refusal("there is no outbox to copy: nothing was reported yet", slug="outbox-copy")
    if file.exists():
        raise Refusal(f"{file} is there already; give the name of a new file", slug="outbox-copy")
    try:
        store.housekeeping.backup(file)
    except OSError as problem:
        why = problem.strerror or type(problem).__name__
        raise Refusal(f"{file} cannot be made: {why}", slug="outbox-copy") from None
    click.echo(f"the outbox is copied to {file}")


@click.command()
@with_appcontext
def restored() -> None:
    """Say that the outbox's database was restored from a copy: nothing in it is sent by itself.

    What waits becomes dead letters (restored) until somebody retries it. Needed after the restore
    of a server's dump or of a file that was not copied by outbox backup.
    """
    store = kept_outbox()
    count = 0 if store is None else store.housekeeping.lay_to_rest()
    click.echo(f"{counted(count, 'event')} will not be sent until retried")
