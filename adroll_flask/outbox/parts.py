"""What knows SQL behind an outbox, made together when somebody first asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adroll_flask.counters import Counters

from .admin import Admin
from .database import Database, Tx
from .dead_letters import DeadLetters
from .destination import DestinationState
from .direct_commit import DirectCommit
from .duplicates import RecentKeys, put_of
from .figures import Figures
from .holds import Amend, Holds
from .housekeeping import Housekeeping
from .ingest import Ingest
from .lapsed_leases import LapsedLeases
from .orders import Orders
from .protocol import Put
from .queue import Queue
from .record_format import NewEvent, Verdict
from .rows import RowWriter
from .totals import TotalsReader
from .trials import Trials
from .wake import Bell, announce

if TYPE_CHECKING:
    from sqlalchemy import URL

    from adroll_flask.settings import Settings

    from .in_session import SessionPut


@dataclass(slots=True)
class Parts:
    """The parts of one outbox."""

    database: Database
    ingest: Ingest
    queue: Queue
    destination: DestinationState
    admin: Admin
    housekeeping: Housekeeping
    figures: Figures
    orders: Orders
    dead_letters: DeadLetters
    trials: Trials
    direct: DirectCommit
    in_session: SessionPut | None = None


def make_parts(
    where: Path | URL,
    settings: Settings,
    counters: Counters,
    *,
    journal: Path,
    instance: Path,
    clock: Callable[[], float],
    amend: Amend,
    recent: RecentKeys,
    bell: Bell,
    finish_file: Callable[[], None],
) -> Parts:
    """Make them; opens no connection.

    :param journal: the folder of this host's journal.
    :param instance: the folder where an older version kept its spill file.
    :param recent: the keys that this process knows; forgotten where keys became free.
    :param finish_file: finishes this process's journal file where it is old enough.
    """
    database = open_database(where, settings, clock)
    holds = Holds(counters, amend, settings.hold_max, settings.dedupe_days)
    rows = RowWriter(
        holds,
        dedupe_days=settings.dedupe_days,
        withdrawals_kept=settings.withdrawals_kept,
        clock=clock,
    )
    ingest = Ingest(database, journal, instance, rows, counters, announce=announce)

    def insert(event: NewEvent, tx: Tx) -> Put:
        kept = rows.insert_one(tx, event)
        return Put("queued", event.id) if kept is None else put_of(event, kept)

    def commit(event: NewEvent | Verdict) -> Put:
        if isinstance(event, Verdict):
            database.write(lambda tx: holds.decide(tx, [event]))
            return Put("queued", "")
        return database.write(partial(insert, event))

    return Parts(
        database=database,
        ingest=ingest,
        queue=Queue(
            *(database, ingest, holds),
            LapsedLeases(counters, settings.on_unsure, settings.dedupe_days),
            *(counters, settings.dedupe_days, bell),
        ),
        destination=DestinationState(database),
        admin=Admin(database, ingest, settings.dedupe_days, dropped=recent.free),
        housekeeping=Housekeeping(database, ingest, holds, settings.dedupe_days, finish_file),
        figures=Figures(database, ingest, TotalsReader(database, ingest)),
        orders=Orders(database, ingest),
        dead_letters=DeadLetters(database),
        trials=Trials(database),
        direct=DirectCommit(commit),
    )


def open_database(where: Path | URL, settings: Settings, clock: Callable[[], float]) -> Database:
    """The database at *where*; opens no connection."""
    if isinstance(where, Path):
        from .sqlite import SqliteDatabase

        return SqliteDatabase(
            where, sync=settings.outbox_sync, clock=clock, dedupe_days=settings.dedupe_days
        )
    from .server import ServerDatabase

    return ServerDatabase(where)
