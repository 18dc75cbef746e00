"""The outbox's tables as version 1 made them, before there was a journal."""

from __future__ import annotations

from tests.support.outbox_engines import EID, Bench

OUTBOX_ID = "0123456789abcdef0123456789abcdef"

_SQLITE = """
CREATE TABLE adroll_event (
    seq INTEGER NOT NULL PRIMARY KEY, id VARCHAR(32) NOT NULL,
    state SMALLINT DEFAULT 0 NOT NULL, event_name VARCHAR(40) NOT NULL,
    advertisable_eid VARCHAR(40) NOT NULL, dry_run SMALLINT NOT NULL,
    dedupe_key VARCHAR(255), digest VARCHAR(64), payload BLOB,
    occurred_at DOUBLE NOT NULL, queued_at DOUBLE NOT NULL, due_at DOUBLE NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL, unsure SMALLINT DEFAULT 0 NOT NULL,
    claim VARCHAR(32), error TEXT, reason VARCHAR(40), settled_at DOUBLE);
CREATE UNIQUE INDEX adroll_event_key
    ON adroll_event (advertisable_eid, dry_run, event_name, dedupe_key)
    WHERE dedupe_key IS NOT NULL;
CREATE INDEX adroll_event_due ON adroll_event (state, due_at);
CREATE TABLE adroll_destination (
    id INTEGER NOT NULL PRIMARY KEY, paused_until DOUBLE DEFAULT 0 NOT NULL,
    held VARCHAR(64), fingerprint VARCHAR(64), held_since DOUBLE,
    failures INTEGER DEFAULT 0 NOT NULL, last_error TEXT, last_error_at DOUBLE,
    probe_until DOUBLE DEFAULT 0 NOT NULL, next_slot_at DOUBLE DEFAULT 0 NOT NULL);
CREATE TABLE adroll_hold (
    id INTEGER NOT NULL PRIMARY KEY, began_at DOUBLE NOT NULL, ended_at DOUBLE,
    reason VARCHAR(64) NOT NULL);
CREATE TABLE adroll_tally (
    minute INTEGER NOT NULL, slot INTEGER NOT NULL, delivered INTEGER DEFAULT 0 NOT NULL,
    dead INTEGER DEFAULT 0 NOT NULL, retried INTEGER DEFAULT 0 NOT NULL,
    unsure INTEGER DEFAULT 0 NOT NULL, PRIMARY KEY (minute, slot));
CREATE TABLE adroll_meta (
    name VARCHAR(40) NOT NULL PRIMARY KEY, value VARCHAR(64) NOT NULL)
"""
_POSTGRESQL = """
CREATE TABLE adroll_event (
    id VARCHAR(32) NOT NULL, state SMALLINT DEFAULT 0 NOT NULL,
    event_name VARCHAR(40) NOT NULL, advertisable_eid VARCHAR(40) NOT NULL,
    dry_run SMALLINT NOT NULL, dedupe_key VARCHAR(255), digest VARCHAR(64), payload BYTEA,
    occurred_at DOUBLE PRECISION NOT NULL, queued_at DOUBLE PRECISION NOT NULL,
    due_at DOUBLE PRECISION NOT NULL, attempts INTEGER DEFAULT 0 NOT NULL,
    unsure SMALLINT DEFAULT 0 NOT NULL, claim VARCHAR(32), error TEXT, reason VARCHAR(40),
    settled_at DOUBLE PRECISION, PRIMARY KEY (id))
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX adroll_event_key
    ON adroll_event (advertisable_eid, dry_run, event_name, dedupe_key)
    WHERE dedupe_key IS NOT NULL;
CREATE INDEX adroll_event_due ON adroll_event (state, due_at);
CREATE TABLE adroll_destination (
    id INTEGER NOT NULL, paused_until DOUBLE PRECISION DEFAULT 0 NOT NULL, held VARCHAR(64),
    fingerprint VARCHAR(64), held_since DOUBLE PRECISION, failures INTEGER DEFAULT 0 NOT NULL,
    last_error TEXT, last_error_at DOUBLE PRECISION,
    probe_until DOUBLE PRECISION DEFAULT 0 NOT NULL,
    next_slot_at DOUBLE PRECISION DEFAULT 0 NOT NULL, PRIMARY KEY (id));
CREATE TABLE adroll_hold (
    id SERIAL NOT NULL, began_at DOUBLE PRECISION NOT NULL, ended_at DOUBLE PRECISION,
    reason VARCHAR(64) NOT NULL, PRIMARY KEY (id));
CREATE TABLE adroll_tally (
    minute INTEGER NOT NULL, slot INTEGER NOT NULL, delivered INTEGER DEFAULT 0 NOT NULL,
    dead INTEGER DEFAULT 0 NOT NULL, retried INTEGER DEFAULT 0 NOT NULL,
    unsure INTEGER DEFAULT 0 NOT NULL, PRIMARY KEY (minute, slot));
CREATE TABLE adroll_meta (
    name VARCHAR(40) NOT NULL, value VARCHAR(64) NOT NULL, PRIMARY KEY (name))
"""
_MARIADB = """
CREATE TABLE adroll_event (
    id VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    state SMALLINT NOT NULL DEFAULT 0,
    event_name VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    advertisable_eid VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    dry_run SMALLINT NOT NULL, dedupe_key VARBINARY(1020),
    digest VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin, payload MEDIUMBLOB,
    occurred_at DOUBLE NOT NULL, queued_at DOUBLE NOT NULL, due_at DOUBLE NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, unsure SMALLINT NOT NULL DEFAULT 0,
    claim VARCHAR(32) CHARACTER SET ascii COLLATE ascii_bin, error TEXT,
    reason VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin, settled_at DOUBLE,
    PRIMARY KEY (id)) ENGINE=InnoDB CHARSET=utf8mb4;
CREATE UNIQUE INDEX adroll_event_key
    ON adroll_event (advertisable_eid, dry_run, event_name, dedupe_key);
CREATE INDEX adroll_event_due ON adroll_event (state, due_at);
CREATE TABLE adroll_destination (
    id INTEGER NOT NULL, paused_until DOUBLE NOT NULL DEFAULT 0,
    held VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin,
    fingerprint VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin, held_since DOUBLE,
    failures INTEGER NOT NULL DEFAULT 0, last_error TEXT, last_error_at DOUBLE,
    probe_until DOUBLE NOT NULL DEFAULT 0, next_slot_at DOUBLE NOT NULL DEFAULT 0,
    PRIMARY KEY (id)) ENGINE=InnoDB CHARSET=utf8mb4;
CREATE TABLE adroll_hold (
    id INTEGER NOT NULL AUTO_INCREMENT, began_at DOUBLE NOT NULL, ended_at DOUBLE,
    reason VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (id)) ENGINE=InnoDB CHARSET=utf8mb4;
CREATE TABLE adroll_tally (
    minute INTEGER NOT NULL, slot INTEGER NOT NULL, delivered INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0, retried INTEGER NOT NULL DEFAULT 0,
    unsure INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (minute, slot)) ENGINE=InnoDB CHARSET=utf8mb4;
CREATE TABLE adroll_meta (
    name VARCHAR(40) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    value VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    PRIMARY KEY (name)) ENGINE=InnoDB CHARSET=utf8mb4
"""
_DDL = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL, "mariadb": _MARIADB}
_COLUMNS = (
    "id, state, event_name, advertisable_eid, dry_run, dedupe_key, digest, payload, occurred_at,"
    " queued_at, due_at, attempts, unsure, claim, settled_at"
)


def make_version_1(bench: Bench, *, late: bool = False) -> None:
    """Make the tables in an empty database.

    :param late: as the last of version 1 had them, with the time of the first refusal.
    """
    ddl = _DDL[bench.engine]
    if late:
        double = "DOUBLE PRECISION" if bench.engine == "postgresql" else "DOUBLE"
        ddl = ddl.replace("reason VARCHAR(40)", f"refused_at {double}, reason VARCHAR(40)", 1)
    for statement in ddl.split(";"):
        bench.execute(statement)
    bench.execute("INSERT INTO adroll_destination (id) VALUES (1)")
    for name, value in (("schema_version", "1"), ("outbox_id", OUTBOX_ID)):
        bench.execute("INSERT INTO adroll_meta VALUES (:name, :value)", name=name, value=value)


def insert_version_1(
    bench: Bench,
    id: str,
    *,
    state: int = 0,
    key: str | None = None,
    payload: bytes | None = b'{"event_name":"purchase","identifiers":{"adct":"click-1"}}',
    due_in: float = -60.0,
    claim: str | None = None,
) -> None:
    """An event as version 1 wrote it."""
    now = bench.now()
    # SQLite's key was a number made from the id, and its negative once the event was delivered.
    seq = (int(id[:18], 16) >> 3) & 0x3FFF_FFFF_FFFF_FFFF
    numbered = ("seq, ", ":seq, ") if bench.engine == "sqlite" else ("", "")
    values: dict[str, object] = {"seq": -seq if state == 3 else seq} if numbered[0] else {}
    bench.execute(
        f"INSERT INTO adroll_event ({numbered[0]}{_COLUMNS}) VALUES ({numbered[1]}:id, :state,"
        " 'purchase', :eid, 0, :key, '59.9 EUR', :payload, :now, :now, :due, 0, 0, :claim,"
        " :settled)",
        id=id,
        state=state,
        eid=EID,
        key=key.encode() if key is not None and bench.engine == "mariadb" else key,
        payload=payload,
        now=now - 60.0,
        due=now + due_in,
        claim=claim,
        settled=now - 60.0 if state > 2 else None,
        **values,
    )
