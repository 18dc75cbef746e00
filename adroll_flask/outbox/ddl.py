"""The statements that make an outbox in a SQLite file; light."""

from __future__ import annotations

from typing import Final

from .states import VERSION

#: What SQLAlchemy makes of ``schema.Tables("sqlite")``, so that a request need not import it; a
#: test compares the two.
DDL: Final = (
    """CREATE TABLE IF NOT EXISTS adroll_event (
        seq INTEGER NOT NULL PRIMARY KEY, id VARCHAR(32) NOT NULL,
        state SMALLINT DEFAULT 0 NOT NULL, event_name VARCHAR(40) NOT NULL,
        advertisable_eid VARCHAR(40) NOT NULL, dry_run SMALLINT NOT NULL,
        dedupe_key VARCHAR(255), digest VARCHAR(64), payload BLOB,
        occurred_at DOUBLE NOT NULL, queued_at DOUBLE NOT NULL, due_at DOUBLE NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL, unsure SMALLINT DEFAULT 0 NOT NULL,
        claim VARCHAR(32), error TEXT, reason VARCHAR(40), settled_at DOUBLE)""",
    """CREATE UNIQUE INDEX IF NOT EXISTS adroll_event_key
        ON adroll_event (advertisable_eid, dry_run, event_name, dedupe_key)
        WHERE dedupe_key IS NOT NULL""",
    "CREATE INDEX IF NOT EXISTS adroll_event_due ON adroll_event (state, due_at)",
    """CREATE TABLE IF NOT EXISTS adroll_destination (
        id INTEGER NOT NULL PRIMARY KEY, paused_until DOUBLE DEFAULT 0 NOT NULL,
        held VARCHAR(64), fingerprint VARCHAR(64), held_since DOUBLE,
        failures INTEGER DEFAULT 0 NOT NULL, last_error TEXT, last_error_at DOUBLE,
        probe_until DOUBLE DEFAULT 0 NOT NULL, next_slot_at DOUBLE DEFAULT 0 NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS adroll_hold (
        id INTEGER NOT NULL PRIMARY KEY, began_at DOUBLE NOT NULL, ended_at DOUBLE,
        reason VARCHAR(64) NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS adroll_tally (
        minute INTEGER NOT NULL, slot INTEGER NOT NULL, delivered INTEGER DEFAULT 0 NOT NULL,
        dead INTEGER DEFAULT 0 NOT NULL, retried INTEGER DEFAULT 0 NOT NULL,
        unsure INTEGER DEFAULT 0 NOT NULL, PRIMARY KEY (minute, slot))""",
    """CREATE TABLE IF NOT EXISTS adroll_meta (
        name VARCHAR(40) NOT NULL PRIMARY KEY, value VARCHAR(64) NOT NULL)""",
    "INSERT OR IGNORE INTO adroll_destination (id) VALUES (1)",
    f"INSERT OR IGNORE INTO adroll_meta VALUES ('schema_version', '{VERSION}')",  # noqa: S608
    "INSERT OR IGNORE INTO adroll_meta VALUES ('outbox_id', lower(hex(randomblob(16))))",
)

TABLES: Final = frozenset(
    {"adroll_event", "adroll_destination", "adroll_hold", "adroll_tally", "adroll_meta"}
)
