"""The outbox as an app has it: what a report does with it, and its parts behind.

A report is one append to the journal; it loads no SQL. ``session=`` and
``ADROLL_OUTBOX_COMMIT="database"`` put the same entry into the database instead. What knows the
database is made when somebody first asks for it: delivery, a command, a page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adroll_flask.counters import CounterKey, Counters
from adroll_flask.errors import EventError
from adroll_flask.forks import PerProcess, StillAtForks, made_once
from adroll_flask.times import DAY

from . import local_files, location, model, schema
from .inbox import Inbox, after_commit
from .journal import Journal, waiting_bytes
from .model import OutboxFailed
from .recent_keys import RecentKeys
from .wake_up import WakeUp

if TYPE_CHECKING:
    from sqlalchemy import URL

    from adroll_flask.settings import Settings

    from .admin import Admin
    from .clocks import Clocks
    from .destination import DestinationState
    from .holds import Amend
    from .ingest import Ingest
    from .lookups import Lookups
    from .queue import Queue

#: Bytes of one event; AdRoll's are about one thousand.
PAYLOAD_BYTES: Final = 1 << 20
#: Seconds between two measurements of what waits in the database, which count its rows.
_WEIGH_EVERY: Final = 5.0


def _no_changes(payload: bytes, changes: Mapping[str, Any]) -> tuple[bytes, str, float]:
    raise EventError("release", "an outbox that stands alone cannot change an event")


class Outbox:
    """Where events wait. Safe for threads, processes, hosts and forks.

    Opens nothing and makes nothing before its first use.

    :param folder: for the SQLite file and the journal: the instance folder.
    :param clock: seconds since the epoch; tells the time on SQLite, servers have their own.
    :param amend: changes a held event as its release says.
    :raises ConfigurationError: ``ADROLL_OUTBOX_URL`` names a database that cannot be one.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        folder: str | Path,
        clock: Callable[[], float] = time.time,
        counters: Counters | None = None,
        amend: Amend = _no_changes,
    ) -> None:
        folder = Path(folder).absolute()
        self._settings = settings
        self._clock = clock
        self._counters = counters or Counters()
        self._amend = amend
        #: The SQLite file, or the database.
        self.place: Path | URL = location.locate(settings.outbox_url, folder)
        #: Where this host's journal is.
        self.folder: Path = location.journal_folder(settings, folder)
        self._journal = Journal(self.folder, sync=settings.outbox_sync == "full", clock=clock)
        self._recent = RecentKeys()
        #: Failed reports by name, reason and account; a fork's parent writes its own down.
        self._failures: PerProcess[Counters] = PerProcess(Counters)
        #: How many of each are written down.
        self._failures_kept: PerProcess[dict[CounterKey, int]] = PerProcess(dict)
        #: Bytes that wait in the database; and those with the journal's, as a share of the bound.
        self._weight = 0
        self._used = 0.0
        self._weigh_at = float("-inf")
        self.wake_up: WakeUp = WakeUp()
        #: For work in other SQLite files than the outbox's own.
        self.still: StillAtForks = StillAtForks()
        #: When the oldest cookie of ours was signed that came in since the last measurement.
        self.oldest_cookie: float = float("inf")

    # -- reports ----------------------------------------------------------------------------

    def put(self, event: model.NewEvent, *, session: Any = None) -> str:
        """Keep *event*; when this returns no kill loses it (with *session*: once that commits).

        :param session: an SQLAlchemy session bound to the outbox's database; its owner commits.
        :returns: the id of the event that is kept: another one's where this process has seen the
            key lately. A duplicate goes to the outbox all the same, where it is dropped, counted
            and shown as any other, or taken if the key is free.
        :raises OutboxFailed: the journal did not take it, or the bound is reached.
        :raises ConfigurationError: *session* is bound to another database, or the table is
            missing there.
        """
        order = event.order
        is_held = event.held_for is not None
        kept_id = self._recent.find(order, is_held=is_held)
        event.at = self._clock()
        try:
            # A flood of bad events must not shut good ones out: it may fill half of the bound.
            self._check_room(1.0 if event.dead is None else 0.5)
            if len(event.payload) > PAYLOAD_BYTES:
                raise OutboxFailed("too_large")
            self._keep(event.id, model.encode(event), session)
        except OutboxFailed as failure:
            if kept_id is None:  # else the one that was kept before is there
                self.note_failure(event.name, failure.reason, event.advertisable_eid)
                raise
        if kept_id is not None:
            return kept_id
        if session is None:
            self._recent.add(order, event.id, is_held)
        else:
            after_commit(session, self._recent.add, order, event.id, is_held)
        return event.id

    def decide(self, verdict: model.Verdict, *, session: Any = None) -> str | None:
        """Keep that a held event is to be sent, or forgotten.

        :param session: as for :meth:`put`.
        :returns: the event's id, where this process held it lately.
        :raises OutboxFailed: as for :meth:`put`, as does :class:`ConfigurationError`.
        """
        self._keep(model.new_id(self._clock()), model.encode(verdict), session)
        return self._recent.held(verdict.order)

    def record(self, entry: model.Entry) -> None:
        """Keep something else that the outbox has to know: a withdrawal, a suppressed report.

        :raises OutboxFailed: the journal did not take it, or the bound is reached.
        """
        # A visitor's no is taken beyond the bound, but not a flood of them.
        self._check_room(2.0 if isinstance(entry, model.Withdrawal) else 1.0)
        self._append(model.encode(entry))

    def note_failure(self, name: str, reason: str, account: str = "") -> None:
        """Count a report that failed; written as soon as the journal takes something again."""
        self._failures.own().add(name, reason, account=account)

    def _keep(self, id: str, line: bytes, session: Any) -> None:
        if session is not None:
            self._inbox.put(session, id, line)
            return
        if self._settings.outbox_commit == "database":
            try:
                self._inbox.commit(id, line)
            except OutboxFailed as failure:
                self._counters.add("commit_in_journal", failure.reason)
            else:
                return
        self._append(line)

    def _check_room(self, share: float) -> None:
        if self._used >= share:
            self._count()  # a command has no thread that counts, and not every server has one
        if self._used >= share:
            raise OutboxFailed("full")

    def _append(self, line: bytes) -> None:
        self._journal.append(line)
        # An estimate, until the thread counts again. A request to AdRoll that hangs may hold it up.
        if most := self._settings.outbox_max_bytes:
            self._used += len(line) / most
        if self.wake_up.waiters:
            self.wake_up.wake()

    # -- beside the requests ----------------------------------------------------------------

    def measure(self) -> None:
        """Look after the journal: the size bound, its files, what it did not take before.

        The thread beside the requests calls it at least once a second while there are reports.
        """
        if self._settings.outbox_max_bytes:
            now = time.monotonic()
            if now >= self._weigh_at and self.exists():
                with suppress(OutboxFailed):  # the step that follows tells of it
                    self._weight = self.ingest.weigh()
                # Counting a million rows takes a while: at most for a hundredth of the time.
                self._weigh_at = now + max(_WEIGH_EVERY, 100 * (time.monotonic() - now))
        with suppress(OutboxFailed):  # the step that follows tells of it
            if "_inbox" in self.__dict__:
                self._inbox.compare(self._clock())
            if self.oldest_cookie < float("inf") and self.exists():
                self.lookups.note_older_cookie(self.oldest_cookie)
                self.oldest_cookie = float("inf")
        self._count()
        self._journal.rotate()
        self.tell_failures()

    def _count(self) -> None:
        """Count what waits in the journal, beside what was last found in the database."""
        if most := self._settings.outbox_max_bytes:
            self._used = (self._weight + waiting_bytes(self.folder)) / most

    def tell_failures(self) -> None:
        """Write down the failed reports, as far as the journal takes that now."""
        kept = self._failures_kept.own()
        for failed, amount in self._failures.own().items():
            before = kept.get(failed, 0)
            if amount == before:
                continue
            name, reason, account = failed
            kept[failed] = amount  # before the append, so that nobody else writes it, too
            entry = model.Counted(self._clock(), name, "failed", reason, amount - before)
            entry.advertisable_eid = account
            try:
                self._append(model.encode(entry))
            except OutboxFailed:
                kept[failed] = before
                return

    # -- the parts that know the database ------------------------------------------------------
    # Each is imported and made at its first use: an app's start pays for none of them.

    @made_once
    def database(self) -> schema.Database:
        """The outbox's database; opens no connection."""
        return open_database(self.place, self._settings, self._clock)

    @made_once
    def ingest(self) -> Ingest:
        """The way of what was reported into the database."""
        from .holds import Holds
        from .ingest import Ingest
        from .rows import RowWriter

        settings = self._settings
        holds = Holds(self._counters, self._amend, settings.hold_max)
        rows = RowWriter(holds, settings.withdrawals_kept, self._clock)
        return Ingest(self.database, self.folder, rows, self._counters)

    @made_once
    def queue(self) -> Queue:
        """The way of events to AdRoll."""
        from .queue import Queue

        return Queue(self.database, self.ingest, self._settings.on_unsure)

    @made_once
    def lookups(self) -> Lookups:
        """Questions to it."""
        from .lookups import Lookups

        return Lookups(
            self.database,
            self.ingest.take_in_all,
            partial(waiting_bytes, self.folder),
            self._settings.other_side,
            self._settings.serves,
            self._settings.time_zone,
        )

    @made_once
    def clocks(self) -> Clocks:
        """Notes of this host's clock."""
        from .clocks import Clocks

        return Clocks(self.database)

    @made_once
    def admin(self) -> Admin:
        """What people and commands change."""
        from .admin import Admin

        return Admin(self.database, self.ingest, self.lookups)

    @made_once
    def _inbox(self) -> Inbox:
        return Inbox(self.database, self.place)

    def destination(self, account: str) -> DestinationState:
        """AdRoll as all workers of *account* see it."""
        from .destination import DestinationState

        return DestinationState(self.database, account)

    def exists(self) -> bool:
        """False where nothing can be waiting: no journal, no SQLite file. Never raises."""
        place = self.place
        try:
            return (
                not isinstance(place, Path)
                or local_files.is_there(place)
                or local_files.is_there(self.folder)
            )
        except OSError:  # a folder that may not be entered: who works with it tells of that
            return True

    def is_made(self) -> bool:
        """Whether its tables are there, in a database that can be written; looking makes none.

        :raises OutboxFailed: the database cannot be worked with.
        :raises ConfigurationError: there is no outbox over such a database.
        """
        if not self.has_place():
            # What waits in the journal makes it, as soon as somebody looks.
            return self.exists()
        # The file may be there and its tables may not: somebody is about to make them.
        is_new = isinstance(self.place, Path) and self.lookups.bytes_waiting() > 0
        return self.database.is_ready() or is_new

    def has_place(self) -> bool:
        """Whether SQLite's file is there; True of a server.

        :raises OutboxFailed: its folder may not be entered.
        """
        try:
            return not isinstance(self.place, Path) or local_files.is_there(self.place)
        except OSError as problem:
            raise OutboxFailed("read_only", type(problem).__name__) from None

    def close(self) -> None:
        """Close this process's files and connections; the next call opens them again."""
        self.tell_failures()
        self._journal.close()
        if "database" in self.__dict__:
            self.database.close()


def open_database(
    where: Any, settings: Settings, clock: Callable[[], float] = time.time
) -> schema.Database:
    """The database at *where*, of :func:`.location.locate`; opens no connection."""
    kept = settings.dedupe_days * DAY
    if isinstance(where, Path):
        from .sqlite import SqliteDatabase

        return SqliteDatabase(where, kept=kept, sync=settings.outbox_sync, clock=clock)
    from .server import ServerDatabase

    return ServerDatabase(where, kept=kept)
