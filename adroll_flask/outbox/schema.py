"""The outbox's tables, how they come to be, and how an older version of them is brought up.

All tables are named ``adroll_…``. One index, ``(state, due_at)``, serves every question that is
asked often: what is due, which lease lapsed, which row may go. ``due_at`` therefore means, by
state: when it may be sent; when the lease ends; when the hold expires; when the row may be removed.

Upgrades only ever add: during a rolling deployment an older process works on a newer schema.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from . import identifier_hashes
from .dialect import FRAGMENTS
from .states import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

#: Ten processes that start at once queue here instead of failing on each other's CREATE TABLE.
_LOCK: Final = 0x41645265

_EVENT: Final = """CREATE TABLE {if_missing}adroll_event (
    {first_column},
    state SMALLINT DEFAULT 0 NOT NULL,
    event_name {code}(40){binary} NOT NULL,
    advertisable_eid {code}(40){binary} NOT NULL,
    dry_run SMALLINT NOT NULL,
    dedupe_key {key},
    digest {code}(64){binary},
    payload {payload},
    occurred_at {double} NOT NULL,
    queued_at {double} NOT NULL,
    due_at {double} NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    unsure SMALLINT DEFAULT 0 NOT NULL,
    claim {code}(32){binary},
    error TEXT,
    reason {code}(40){binary},
    settled_at {double},
    {added}){event_options}"""
#: What later versions added to a row: keyed hashes of the visitor's cookie and click id while the
#: event waits, by which an erasure finds it; a mask of its identifiers; when AdRoll first refused
#: it; since version 3, when what it says of the visitor was learnt, where that was before;
#: since version 4, the trace context of the request that reported it.
_ADDED: Final = (
    ("cookie_hash", "{code}(32){binary}"),
    ("click_hash", "{code}(32){binary}"),
    ("identifiers", "SMALLINT DEFAULT 0 NOT NULL"),
    ("refused_at", "{double}"),
    ("attempt_log", "TEXT"),
    ("released_at", "{double}"),
    ("learnt_at", "{double}"),
    ("trace", "{code}(64){binary}"),
)
_INDEXES: Final = {
    "adroll_event_key": (
        "CREATE UNIQUE INDEX {if_missing}adroll_event_key ON adroll_event"
        " (advertisable_eid, dry_run, event_name, dedupe_key) {with_key}"
    ),
    "adroll_event_due": "CREATE INDEX {if_missing}adroll_event_due ON adroll_event (state, due_at)",
    "adroll_event_cookie": (
        "CREATE INDEX {if_missing}adroll_event_cookie ON adroll_event (cookie_hash) {with_cookie}"
    ),
    "adroll_verdict_kept": (
        "CREATE INDEX {if_missing}adroll_verdict_kept ON adroll_verdict (kept_at)"
    ),
    "adroll_event_click": (
        "CREATE INDEX {if_missing}adroll_event_click ON adroll_event (click_hash) {with_click}"
    ),
}
_OTHERS: Final = {
    "adroll_destination": """CREATE TABLE {if_missing}adroll_destination (
    id INTEGER NOT NULL PRIMARY KEY,
    paused_until {double} DEFAULT 0 NOT NULL,
    held {code}(64){binary},
    fingerprint {code}(64){binary},
    held_since {double},
    failures INTEGER DEFAULT 0 NOT NULL,
    last_error TEXT,
    last_error_at {double},
    probe_until {double} DEFAULT 0 NOT NULL,
    next_slot_at {double} DEFAULT 0 NOT NULL){options}""",
    "adroll_hold": """CREATE TABLE {if_missing}adroll_hold (
    id {number_key},
    began_at {double} NOT NULL,
    ended_at {double},
    reason {code}(64){binary} NOT NULL){options}""",
    "adroll_meta": """CREATE TABLE {if_missing}adroll_meta (
    name {code}(40){binary} NOT NULL PRIMARY KEY,
    value {code}(64){binary} NOT NULL){options}""",
    "adroll_journal": """CREATE TABLE {if_missing}adroll_journal (
    file {code}(120){binary} NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    read_at {double} NOT NULL){options}""",
    "adroll_withdrawal": """CREATE TABLE {if_missing}adroll_withdrawal (
    visitor {code}(32){binary} NOT NULL PRIMARY KEY,
    withdrawn_at {double} NOT NULL,
    forget_at {double} NOT NULL){options}""",
    "adroll_suppressed": """CREATE TABLE {if_missing}adroll_suppressed (
    order_hash {code}(32){binary} NOT NULL PRIMARY KEY,
    reason {code}(40){binary} NOT NULL,
    suppressed_at {double} NOT NULL,
    forget_at {double} NOT NULL){options}""",
    "adroll_verdict": """CREATE TABLE {if_missing}adroll_verdict (
    advertisable_eid {code}(40){binary} NOT NULL,
    dry_run SMALLINT NOT NULL,
    event_name {code}(40){binary} NOT NULL,
    dedupe_key {key} NOT NULL,
    verdict {code}(8){binary} NOT NULL,
    changes TEXT,
    kept_at {double} NOT NULL,
    PRIMARY KEY (advertisable_eid, dry_run, event_name, dedupe_key)){options}""",
    "adroll_trial": """CREATE TABLE {if_missing}adroll_trial (
    id {number_key},
    tried_at {double} NOT NULL,
    event_name {code}(40){binary} NOT NULL,
    good SMALLINT NOT NULL,
    answer {code}(64){binary} NOT NULL,
    words TEXT NOT NULL){options}""",
    "adroll_history": """CREATE TABLE {if_missing}adroll_history (
    hour INTEGER NOT NULL,
    slot SMALLINT NOT NULL,
    event_name {code}(40){binary} NOT NULL,
    outcome {code}(16){binary} NOT NULL,
    reason {code}(40){binary} NOT NULL,
    identifiers SMALLINT NOT NULL,
    currency {code}(3){binary} NOT NULL,
    events BIGINT NOT NULL,
    value BIGINT NOT NULL,
    {delays},
    PRIMARY KEY (hour, slot, event_name, outcome, reason, identifiers, currency)){options}""",
}
#: Upper ends of the histogram of event to delivery, seconds; the last column takes the rest.
DELAYS: Final = (1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)
DELAY_COLUMNS: Final = tuple(f"delay_{number}" for number in range(len(DELAYS) + 1))

#: Runs a statement with its parameters; gives the rows of a query.
Run = Callable[[str, Mapping[str, Any]], list[Any]]


def _filled(statement: str, dialect: str) -> str:
    added = ",\n    ".join(f"{name} {kind}" for name, kind in _ADDED)
    delays = ",\n    ".join(f"{name} BIGINT NOT NULL" for name in DELAY_COLUMNS)
    statement = statement.replace("{added}", added).replace("{delays}", delays)
    return statement.format_map(FRAGMENTS[dialect])


def make(run: Run, dialect: str) -> None:
    """Make what is missing in *run*'s database, or bring older tables up; idempotent."""

    def fill(statement: str, **values: Any) -> list[Any]:
        return run(_filled(statement, dialect), values)

    version = version_in(run, dialect)
    if version is not None and version >= VERSION:
        return
    # What is missing, one by one: MariaDB and MySQL commit each statement, and may have been
    # stopped between any two.
    for name, statement in {"adroll_event": _EVENT, **_OTHERS}.items():
        if not fill("{table_exists}", name=name):
            fill(statement)
    for name, kind in _ADDED:
        if not fill("{column_exists}", name="adroll_event", column=name):
            fill(f"ALTER TABLE adroll_event ADD COLUMN {name} {kind}")
    if dialect == "sqlite" and version is not None:
        # The key of version 1 was a number derived from the id.
        fill("CREATE UNIQUE INDEX IF NOT EXISTS adroll_event_id ON adroll_event (id)")
    for name, statement in _INDEXES.items():
        if not fill("{index_exists}", name=name):
            fill(statement)
    fill("{insert} adroll_destination (id) VALUES (1) {or_ignore}")
    for name, value in (
        ("schema_version", str(VERSION)),
        # By this a session's database is told from another that looks the same.
        ("outbox_id", secrets.token_hex(16)),
    ):
        fill(
            "{insert} adroll_meta (name, value) VALUES (:name, :value) {or_ignore}",
            name=name,
            value=value,
        )
    if version is not None:
        _add_hashes(fill)
    fill("UPDATE adroll_meta SET value = :value WHERE name = 'schema_version'", value=str(VERSION))


def _add_hashes(fill: Callable[..., list[Any]]) -> None:
    """What waits under version 1 is found by an erasure as well."""
    key = str(fill("SELECT value FROM adroll_meta WHERE name = 'outbox_id'")[0][0]).encode()
    last = ""
    while rows := fill(
        "SELECT id, payload FROM adroll_event WHERE payload IS NOT NULL AND cookie_hash IS NULL"
        " AND click_hash IS NULL AND id > :last ORDER BY id LIMIT 500",
        last=last,
    ):
        for id, payload in rows:
            cookie, click = identifier_hashes.of_payload(bytes(payload), key)
            fill(
                "UPDATE adroll_event SET cookie_hash = :cookie, click_hash = :click WHERE id = :id",
                cookie=cookie,
                click=click,
                id=id,
            )
        last = rows[-1][0]


def version_in(run: Run, dialect: str) -> int | None:
    """The version of the tables in *run*'s database; ``None`` where there are none."""
    exists = FRAGMENTS[dialect]["table_exists"]
    if not run(exists, {"name": "adroll_meta"}):
        return None
    rows = run("SELECT value FROM adroll_meta WHERE name = 'schema_version'", {})
    return int(rows[0][0]) if rows else None


# -- for migrations: an SQLAlchemy connection ------------------------------------------------


def create_tables(connection: Connection) -> None:
    """Make the outbox's tables, or bring older ones to this version; idempotent.

    Runs in the connection's transaction (MariaDB and MySQL commit at each statement), so that it
    fits a migration::

        def upgrade():
            create_tables(op.get_bind())

    :param connection: to the outbox's database.
    """
    with _alone(connection):
        make(_runner(connection), connection.dialect.name)


def drop_tables(connection: Connection) -> None:
    """Remove the outbox's tables with everything in them: the other half of a migration.

    :param connection: to the outbox's database.
    """
    run = _runner(connection)
    for name in ("adroll_event", *_OTHERS, "adroll_tally"):
        run(f"DROP TABLE IF EXISTS {name}", {})


def schema_version(connection: Connection) -> int | None:
    """The version of the tables in this database; ``None`` where there are none."""
    return version_in(_runner(connection), connection.dialect.name)


def _runner(connection: Connection) -> Run:
    from sqlalchemy import text

    def run(statement: str, values: Mapping[str, Any]) -> list[Any]:
        result = connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []

    return run


def _alone(connection: Connection) -> AbstractContextManager[None]:
    dialect = connection.dialect.name
    run = _runner(connection)
    if dialect == "postgresql":
        run(f"SELECT pg_advisory_xact_lock({_LOCK})", {})
    return _mysql_lock(run) if dialect in ("mysql", "mariadb") else nullcontext()


@contextmanager
def _mysql_lock(run: Run) -> Iterator[None]:
    # The lock is the server's, so its name holds the database's.
    lock = "CONCAT('adroll_outbox_', MD5(DATABASE()))"
    run(f"SELECT GET_LOCK({lock}, 60)", {})
    try:
        yield
    finally:
        run(f"SELECT RELEASE_LOCK({lock})", {})
