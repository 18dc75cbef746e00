"""The outbox as an app has it: what a report does with it, and its parts behind.

A report is one append to the journal; it loads no SQL. ``session=`` and
``ADROLL_OUTBOX_COMMIT="database"`` put the same entry into the database instead. What knows the
database is made when somebody first asks for it: delivery, a command, a page.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from adroll_flask.counters import Counters
from adroll_flask.errors import EventError
from adroll_flask.forks import PerProcess, made_once

from . import location, model, schema
from .journal import Journal, waiting_bytes
from .model import OutboxFailed

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.orm import Session, SessionTransaction

    from adroll_flask.settings import Settings

    from .admin import Admin
    from .destination import DestinationState
    from .ingest import Ingest
    from .lookups import Lookups
    from .queue import Queue
    from .transitions import Amend

#: Bytes of one event; AdRoll's are about one thousand.
PAYLOAD_BYTES: Final = 1 << 20
#: Seconds between two measurements of what waits in the database, which count its rows.
_WEIGH_EVERY: Final = 5.0
#: How many keys are known, and for how many seconds.
_MOST_KEYS: Final = 10_000
_KEYS_LIVE: Final = 900.0
#: Seconds that a call waits in all: connection, lock and statement.
PATIENCE: Final = 0.25
_AT_ONCE: Final = 2
_INSERT: Final = schema.insert_into("adroll_inbox", ("id", "line"))
_OTHER: Final = (
    "session= takes a session bound to the outbox's database; this one is bound to another. Let"
    " ADROLL_OUTBOX_URL name the session's database, or report without session="
)


class Bell:
    """Ends a wait for work in this process."""

    def __init__(self) -> None:
        self._rung = PerProcess(threading.Event)
        self.waiters: int = 0

    def ring(self) -> None:
        """End the wait that is under way, or the next one at once."""
        self._rung.own().set()

    def wait(self, timeout: float) -> bool:
        """Return after *timeout* seconds, or at the next ring: then with true."""
        self.waiters += 1
        try:
            return self._rung.own().wait(timeout)
        finally:
            self.waiters -= 1
            self._rung.own().clear()


class RecentKeys:
    """Remembers what this process reported lately, so that a reload is told ``duplicate`` without
    a database: the newest ten thousand keys for a quarter of an hour.

    It gives a receipt its word and decides nothing: the entry goes on to the outbox, whose index
    does. So it has no lock: its steps are calls that the interpreter does not divide.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Id, when, and whether it was held.
        self._known: OrderedDict[model.OrderKey | None, tuple[str, float, bool]] = OrderedDict()

    def find(self, event: model.NewEvent) -> str | None:
        """The id of what *event* is a duplicate of, where its key is known."""
        id, at, was_held = self._known.get(event.order, ("", float("-inf"), False))
        # A second report, without a hold, says that the held one is to be sent.
        is_other = was_held and event.held_for is None
        return None if is_other or self._clock() - at > _KEYS_LIVE else id

    def held(self, order: model.OrderKey) -> str | None:
        """The id of the held event of *order*."""
        id, _, was_held = self._known.get(order, (None, 0.0, False))
        return id if was_held else None

    def add(self, event: model.NewEvent) -> None:
        """Remember *event*, which was kept."""
        if event.key is None:
            return
        self._known[event.order] = event.id, self._clock(), event.held_for is not None
        while len(self._known) > _MOST_KEYS:
            with suppress(KeyError):  # another thread was here
                self._known.popitem(last=False)


def _no_changes(payload: bytes, changes: Mapping[str, Any]) -> tuple[bytes, str, float]:
    raise EventError("release", "an outbox that stands alone cannot change an event")


class Outbox:
    """Where events wait. Safe for threads, processes, hosts and forks.

    Opens nothing and makes nothing before its first use.

    :param folder: for the SQLite file and the journal: the instance folder.
    :param clock: seconds since the epoch; tells the time on SQLite, servers have their own.
    :param amend: makes the event that a release with other values says of a held one.
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
        #: Failed reports by name and reason, and what keeps a count in two threads one; a fork's
        #: parent tells of its own.
        self._failed: PerProcess[tuple[threading.RLock, Counter[tuple[str, str]]]] = PerProcess(
            lambda: (threading.RLock(), Counter())
        )
        #: What waits in the database, bytes; and with the journal, as a share of the size bound.
        self._weight, self._used = 0, 0.0
        self._weigh_at = float("-inf")
        self.bell: Bell = Bell()

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
        known, event.at = self._recent.find(event), self._clock()
        try:
            # A flood of bad events must not shut good ones out: it may fill half of the bound.
            self._check_room(1.0 if event.dead is None else 0.5)
            if len(event.payload) > PAYLOAD_BYTES:
                raise OutboxFailed("too_large")
            self._keep(event.id, model.encode(event), session)
        except OutboxFailed as failure:
            if known is None:  # else the one that was kept before is there
                self.note_failure(event.name, failure.reason)
                raise
        if known is None:
            after_commit(session, self._recent.add, event)
        return known or event.id

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
        # A visitor's no counts beyond it, but a flood of them has an end, too.
        self._check_room(2.0 if isinstance(entry, model.Withdrawal) else 1.0)
        self._append(model.encode(entry))

    def note_failure(self, name: str, reason: str) -> None:
        """Count a report that failed; written as soon as the journal takes something again."""
        lock, failed = self._failed.own()
        with lock:
            failed[name, reason] += 1

    def _keep(self, id: str, line: bytes, session: Any) -> None:
        if session is not None:
            self._inbox.put(session, id, line)
            self._add_weight(line)
            return
        if self._settings.outbox_commit == "database":
            try:
                self._inbox.commit(id, line)
            except OutboxFailed as failure:
                self._counters.add("commit_in_journal", failure.reason)
            else:
                self._add_weight(line)
                return
        self._append(line)

    def _add_weight(self, line: bytes) -> None:
        if self._weigh_at > 0:  # else nobody measures here, who would set it right again
            self._weight += len(line)

    def _check_room(self, share: float) -> None:
        if self._used >= share:
            self._count()  # a command has no thread that does, nor has every server
        if self._used >= share:
            raise OutboxFailed("full")

    def _append(self, line: bytes) -> None:
        self._journal.append(line)
        # Until the thread counts again, which may be at a request to AdRoll that hangs.
        if most := self._settings.outbox_max_bytes:
            self._used += len(line) / most
        if self.bell.waiters:
            self.bell.ring()

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
        self._count()
        self._journal.rotate()
        self.tell_failures()

    def _count(self) -> None:
        """Count what waits in the journal, beside what was last found in the database."""
        if most := self._settings.outbox_max_bytes:
            self._used = (self._weight + waiting_bytes(self.folder)) / most

    def tell_failures(self) -> None:
        """Write down what was not taken before, as far as the journal takes it now."""
        lock, failed = self._failed.own()
        with lock, suppress(OutboxFailed):
            for (name, reason), amount in list(failed.items()):
                told = model.Counted(self._clock(), name, "failed", reason, amount=amount)
                self._append(model.encode(told))
                del failed[name, reason]

    # -- the parts that know the database ------------------------------------------------------
    # Each is imported and made at its first use: an app's start pays for none of them. Of what two
    # threads make at once either will do, since all of their state is in the database.

    @made_once
    def database(self) -> schema.Database:
        """The outbox's database; opens no connection."""
        return open_database(self.place, self._settings, self._clock)

    @made_once
    def ingest(self) -> Ingest:
        """The way of what was reported into the database."""
        from .ingest import Ingest, RowWriter
        from .transitions import Holds

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
        """What is asked of it."""
        from .lookups import Lookups

        return Lookups(self.database, self.ingest.take_in_all, partial(waiting_bytes, self.folder))

    @made_once
    def admin(self) -> Admin:
        """What people and commands change."""
        from .admin import Admin

        return Admin(self.database, self.ingest, self.lookups)

    @made_once
    def _inbox(self) -> Inbox:
        return Inbox(self.database)

    def destination(self, account: str) -> DestinationState:
        """AdRoll as all workers of *account* see it."""
        from .destination import DestinationState

        return DestinationState(self.database, account)

    def exists(self) -> bool:
        """False where nothing can be waiting: no journal, no SQLite file. Never raises."""
        place = self.place
        try:
            return not isinstance(place, Path) or place.exists() or self.folder.is_dir()
        except OSError:  # a folder that may not be entered: who works with it tells of that
            return True

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
    kept = settings.dedupe_days * model.DAY
    if isinstance(where, Path):
        from .sqlite import SqliteDatabase

        return SqliteDatabase(where, kept=kept, sync=settings.outbox_sync, clock=clock)
    from .server import ServerDatabase

    return ServerDatabase(where, kept=kept)


# -- the journal's own entries in the database -----------------------------------------------------
#
# ``session=`` puts an entry into the table ``adroll_inbox`` in the transaction of the shop's own
# SQLAlchemy session; ``ADROLL_OUTBOX_COMMIT="database"`` commits it before the call returns, or in
# time: no driver's own time-outs bound what a half-open connection or a held lock takes. So another
# thread commits, and the call waits for it for a quarter of a second.


@dataclass(slots=True)
class Inbox:
    """Puts entries into the table, in a transaction of their own or in somebody's."""

    database: schema.Database
    _known: WeakSet[Engine] = field(default_factory=WeakSet)
    #: Commits at a time: the connections that they take may be the shop's database's.
    _slots: PerProcess[threading.BoundedSemaphore] = field(
        default_factory=lambda: PerProcess(lambda: threading.BoundedSemaphore(_AT_ONCE))
    )
    #: A commit that took too long: while it is under way, the next calls need not wait for it.
    _stuck: threading.Thread | None = None

    def commit(self, id: str, line: bytes) -> None:
        """Commit an entry in a transaction of its own.

        :param id: the entry's own; one that comes twice is kept once.
        :raises OutboxFailed: not within :data:`PATIENCE` seconds. It may be committed later: then
            what else the caller does with the event is in the outbox once, by its id.
        """
        if self._stuck is not None and self._stuck.is_alive():
            raise OutboxFailed("unavailable", "an earlier commit is still under way")
        until, slots = time.monotonic() + PATIENCE, self._slots.own()
        if not slots.acquire(timeout=PATIENCE):
            raise OutboxFailed("locked", "others commit")
        failures = [OutboxFailed("error", "the commit was ended")]

        def write() -> None:
            try:
                self.database.write(lambda tx: tx.execute(_INSERT, id=id, line=line))
                failures.clear()
            except OutboxFailed as failure:
                failures[0] = failure
            except Exception as failure:
                failures[0] = OutboxFailed("error", type(failure).__name__)
            finally:
                slots.release()

        thread = threading.Thread(target=write, name="adroll-commit", daemon=True)
        try:
            thread.start()
        except RuntimeError as failure:  # the system gives no more threads, or Python ends
            slots.release()
            raise OutboxFailed("unavailable", str(failure)) from None
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            self._stuck = thread
            raise OutboxFailed("locked", "the database took too long")
        if failures:
            raise failures[0]

    def put(self, session: Any, id: str, line: bytes) -> None:
        """Put an entry into the transaction of *session*.

        :raises ConfigurationError: *session* is bound to another database, or the table is missing.
        """
        from sqlalchemy import text
        from sqlalchemy.exc import StatementError
        from sqlalchemy.orm import Session, scoped_session

        if not isinstance(session, Session | scoped_session):
            raise location.wrong_url(
                "session= takes a synchronous SQLAlchemy session of the outbox's database"
            )
        self._check_bind(session)
        statement = text(schema.filled(self.database.dialect, _INSERT))
        try:
            session.execute(statement, {"id": id, "line": line})
        except StatementError as exc:
            # The caller may log what it catches; the visitor's values stay out of it.
            exc.params = None
            exc.hide_parameters = True
            raise

    def _check_bind(self, session: Any) -> None:
        engine = session.get_bind().engine
        if engine in self._known:
            return
        if engine.name.replace("mariadb", "mysql") != self.database.dialect:
            raise location.wrong_url(_OTHER)
        connection = session.connection()
        if schema.schema_version(connection) is None:
            raise location.wrong_url(
                "the session's database has no table adroll_inbox. If it is another than the"
                " outbox's, let ADROLL_OUTBOX_URL name it; then run"
                " `flask adroll outbox create-table`, or add the table to the migrations"
            )
        # Not the addresses: a pooler, a forwarded port and an alias lead to the same database, and
        # the same address may lead to another schema.
        query = "SELECT value FROM adroll_meta WHERE name = 'outbox_id'"
        ours = self.database.read(lambda tx: schema.one(tx.rows(query)))
        if schema.one(schema.runner(connection)(query)) != ours:
            raise location.wrong_url(_OTHER)
        self._known.add(engine)


# -- after the shop's commit -----------------------------------------------------------------------

#: Where a session's own dictionary (``Session.info``) has what waits for its commit.
_INFO: Final = "adroll_flask.after_commit"


def after_commit(session: Any, action: Callable[..., None], *its: object) -> None:
    """Call *action* with *its* once after the outermost transaction of *session* commits.

    Never if that transaction, or the savepoint in which this was called, rolls back.

    :param session: a ``Session`` or ``scoped_session``; ``None``: it is called now.
    """
    if session is None:
        action(*its)
        return
    target: Session = session() if callable(session) else session
    waiting: _AfterCommit | None = target.info.get(_INFO)
    if waiting is None:
        waiting = target.info[_INFO] = _AfterCommit(target)
    waiting.add(target, partial(action, *its))


class _AfterCommit:
    """The actions of one session; they go with the transaction in which each was added.

    A long session has a listener an event and not one a report: SQLAlchemy keeps those that ran
    once for as long as the session lives.
    """

    def __init__(self, session: Session) -> None:
        from sqlalchemy import event

        self._actions: dict[SessionTransaction | None, list[Callable[[], None]]] = {}
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, session: Session, action: Callable[[], None]) -> None:
        innermost = session.get_nested_transaction() or session.get_transaction()
        self._actions.setdefault(innermost, []).append(action)

    def _committed(self, session: Session) -> None:
        """SQLAlchemy calls this for a released savepoint as well, which is no commit yet."""
        savepoint = session.get_nested_transaction()
        if savepoint is not None:
            released = self._actions.pop(savepoint, [])
            self._actions.setdefault(savepoint.parent, []).extend(released)
            return
        actions, self._actions = self._actions, {}
        for action in chain(*actions.values()):
            action()

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        # What is still here was not committed: it was rolled back, or the session was closed.
        self._actions.pop(transaction, None)


def is_database_error(problem: BaseException) -> bool:
    """True where SQLAlchemy raised *problem*; asked only where a session is in use."""
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(problem, SQLAlchemyError)
