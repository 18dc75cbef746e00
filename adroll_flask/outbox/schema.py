"""The outbox's tables, and how they come to be.

All tables are named ``adroll_…``. One index, ``(state, advertisable_eid, due_at)``, serves every
question that is asked often: what of an account is due, which lease lapsed, which row may go.
``due_at`` therefore means, by state: when it may be sent; when the lease ends; when the hold
expires; when the row may be removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from .database import FRAGMENTS, insert_into

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Of the tables that this release makes.
VERSION: Final = 1
#: Ten processes that start at once queue here instead of failing on each other's CREATE TABLE.
_LOCK: Final = 0x41645265

#: Upper ends of the histogram of event to delivery, seconds; the last column takes the rest.
DELAYS: Final = (1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400)
DELAY_COLUMNS: Final = tuple(f"delay_{number}" for number in range(len(DELAYS) + 1))
#: Each table's columns, and what follows them.
_TABLES: Final = {
    "adroll_event": """{first_column},
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
    cookie_hash {code}(32){binary},
    click_hash {code}(32){binary},
    identifiers SMALLINT DEFAULT 0 NOT NULL,
    refused_at {double},
    attempt_log TEXT,
    released_at {double},
    learnt_at {double}){event_options}""",
    "adroll_account": """advertisable_eid {code}(40){binary} NOT NULL PRIMARY KEY,
    paused_until {double} DEFAULT 0 NOT NULL,
    stopped {code}(64){binary},
    fingerprint {code}(64){binary},
    stopped_since {double},
    failures INTEGER DEFAULT 0 NOT NULL,
    last_error TEXT,
    last_error_at {double},
    probe_until {double} DEFAULT 0 NOT NULL,
    next_slot_at {double} DEFAULT 0 NOT NULL,
    seen_at {double}){options}""",
    "adroll_stop": """id {number_key},
    advertisable_eid {code}(40){binary} NOT NULL,
    began_at {double} NOT NULL,
    ended_at {double},
    reason {code}(64){binary} NOT NULL){options}""",
    "adroll_meta": """name {code}(60){binary} NOT NULL PRIMARY KEY,
    value {code}(64){binary} NOT NULL){options}""",
    "adroll_inbox": """id {code}(32){binary} NOT NULL PRIMARY KEY,
    line {payload} NOT NULL){options}""",
    "adroll_journal": """file {code}(120){binary} NOT NULL PRIMARY KEY,
    position BIGINT NOT NULL,
    read_at {double} NOT NULL){options}""",
    "adroll_withdrawal": """visitor {code}(32){binary} NOT NULL PRIMARY KEY,
    withdrawn_at {double} NOT NULL,
    forget_at {double} NOT NULL){options}""",
    "adroll_suppressed": """order_hash {code}(32){binary} NOT NULL PRIMARY KEY,
    reason {code}(40){binary} NOT NULL,
    suppressed_at {double} NOT NULL,
    forget_at {double} NOT NULL){options}""",
    "adroll_history": """hour INTEGER NOT NULL,
    slot SMALLINT NOT NULL,
    event_name {code}(40){binary} NOT NULL,
    outcome {code}(16){binary} NOT NULL,
    reason {code}(40){binary} NOT NULL,
    identifiers SMALLINT NOT NULL,
    currency {code}(3){binary} NOT NULL,
    events BIGINT NOT NULL,
    value {money} NOT NULL,
    {delays},
    PRIMARY KEY (hour, slot, event_name, outcome, reason, identifiers, currency)){options}""",
}
_INDEXES: Final = {
    "adroll_event_key": "(advertisable_eid, dry_run, event_name, dedupe_key) {with_key}",
    "adroll_event_due": "(state, advertisable_eid, due_at)",
    "adroll_event_cookie": "(cookie_hash) {with_cookie}",
    "adroll_event_click": "(click_hash) {with_click}",
}

#: Runs a statement with its parameters; gives the rows of a query.
Run = Callable[[str, Mapping[str, Any]], list[Any]]


def columns_of(table: str) -> tuple[str, ...]:
    """The names of a table's columns, but for a number that is the database's own key."""
    found = [line.split()[0] for line in _TABLES[table].splitlines()]
    own: dict[str, tuple[str, ...]] = {
        "{first_column},": ("id",),
        "id": () if "{number_key}" in _TABLES[table] else ("id",),
    }
    own |= {"{delays},": DELAY_COLUMNS, "PRIMARY": ()}
    return tuple(name for column in found for name in own.get(column, (column,)))


def make(run: Run, dialect: str) -> None:
    """Make what is missing in *run*'s database; idempotent."""
    delays = ",\n    ".join(f"{name} BIGINT NOT NULL" for name in DELAY_COLUMNS)

    def fill(statement: str, **values: Any) -> list[Any]:
        statement = statement.replace("{delays}", delays)
        return run(statement.format_map(FRAGMENTS[dialect]), values)

    # What is missing, one by one: MariaDB and MySQL commit each statement, and may have been
    # stopped between any two.
    for name, columns in _TABLES.items():
        if not fill("{table_exists}", name=name):
            fill(f"CREATE TABLE {name} ({columns}")
    for name, columns in _INDEXES.items():
        if not fill("{index_exists}", name=name):
            unique = "UNIQUE " * (name == "adroll_event_key")
            fill(f"CREATE {unique}INDEX {name} ON adroll_event {columns}")
    # The outbox's own id is the key of the visitors' hashes, and tells a session's database from
    # another that looks the same. The version comes last: with it all is there.
    for name, value in (("outbox_id", secrets.token_hex(16)), ("schema_version", str(VERSION))):
        fill(insert_into("adroll_meta", ("name", "value")), name=name, value=value)


def version_in(run: Run, dialect: str) -> int | None:
    """The version of the tables in *run*'s database; ``None`` where there are none."""
    if not run(FRAGMENTS[dialect]["table_exists"], {"name": "adroll_meta"}):
        return None
    rows = run("SELECT value FROM adroll_meta WHERE name = 'schema_version'", {})
    return int(rows[0][0]) if rows else None


# -- for migrations: an SQLAlchemy connection ------------------------------------------------------


def create_tables(connection: Connection) -> None:
    """Make the outbox's tables; idempotent.

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
    for name in _TABLES:
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


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    dialect, run = connection.dialect.name, _runner(connection)
    if dialect == "postgresql":  # which gives the lock back with the transaction
        run(f"SELECT pg_advisory_xact_lock({_LOCK})", {})
    if dialect not in ("mysql", "mariadb"):
        yield
        return
    # The lock is the server's, so its name holds the database's.
    lock = "CONCAT('adroll_outbox_', MD5(DATABASE()))"
    run(f"SELECT GET_LOCK({lock}, 60)", {})
    try:
        yield
    finally:
        run(f"SELECT RELEASE_LOCK({lock})", {})
