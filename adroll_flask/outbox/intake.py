"""The way into the outbox: what a request does with it, which loads no SQLAlchemy.

A report is one append to the journal. Everything that knows SQL is made when somebody asks.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adroll_flask.counters import Counters
from adroll_flask.interruptions import let_through

from .duplicates import RecentKeys
from .forwarder import Forwarder
from .journal import JournalFailed, JournalWriter
from .journal_files import noted_usage, waiting_bytes
from .location import JOURNAL_NAME, locate
from .protocol import (
    Decided,
    OutboxFailed,
    Put,
)
from .record_format import (
    Counted,
    EventRecord,
    NewEvent,
    Record,
    Verdict,
    Withdrawal,
    counted_as,
    encode,
    encode_event,
)
from .session import after_commit
from .states import PAYLOAD_BYTES, clean_key
from .wake import Bell

if TYPE_CHECKING:
    from adroll_flask.settings import Settings

    from .holds import Amend
    from .in_session import SessionPut
    from .parts import Parts

#: Seconds after which a file of the journal is finished, so that it can be removed once it is read.
FILE_LIFE: Final = 60.0
#: Beside the journal's files.
_FREED: Final = "keys-freed"
_NOT_PLAIN: Final = re.compile(r"[^!-~]")


class SqlIntake:
    """An outbox as reports see it: a journal, and the database where a call asks for it.

    See :class:`.protocol.Intake`.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        clock: Callable[[], float],
        counters: Counters,
        on_forward: Callable[[], None],
        amend: Amend,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._where = where = locate(settings.outbox_url, folder)
        self._instance = folder
        self._folder = journal_folder(settings, folder)
        self._journal = JournalWriter(
            self._folder,
            sync=settings.outbox_sync == "full",
            clock=clock,
            max_bytes=settings.outbox_max_bytes or None,
        )
        self._recent = RecentKeys(freed=self._folder / _FREED)
        #: Failed reports by name and reason, and the process that counts them.
        self._failed: tuple[int, Counter[tuple[str, str]]] = (0, Counter())
        self._bell = Bell(
            None if isinstance(where, Path) or where.get_driver_name() != "psycopg" else where
        )
        self._made: Parts | None = None
        self._on_forward = on_forward
        self._amend = amend
        # Where others deliver, this host's reports go into the outbox by themselves.
        elsewhere = settings.delivery == "worker"
        self._forwarder = Forwarder(self._forward, counters, self.load) if elsewhere else None

    @property
    def _parts(self) -> Parts:
        parts = self._made
        if parts is None:
            parts = self._made = self._make()
        return parts

    def _make(self) -> Parts:
        from .parts import make_parts

        return make_parts(
            self._where,
            self._settings,
            self._counters,
            journal=self._folder,
            instance=self._instance,
            clock=self._clock,
            amend=self._amend,
            recent=self._recent,
            bell=self._bell,
            finish_file=self._finish_file,
        )

    def _finish_file(self) -> None:
        self._journal.retire(FILE_LIFE)

    def load(self) -> None:
        _ = self._parts
        if not isinstance(self._where, Path) and self._where.get_driver_name() == "psycopg":
            from . import postgresql  # noqa: F401

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        try:
            put = self._put(event, session)
        except OutboxFailed as failure:
            self.note_failure(event.name, failure.reason)
            raise
        if put.status == "duplicate":
            changed = "" if put.same else "another_value"
            became = counted_as("duplicate", changed, event.dry_run)
            with suppress(OutboxFailed):
                self.record(
                    Counted(
                        *(self._clock(), event.name, *became),
                        *(event.identifiers, event.digest),
                    )
                )
        return put

    def _put(self, event: NewEvent, session: Any) -> Put:
        if event.key is not None:
            event.key = clean_key(event.key)
        if len(event.payload) > PAYLOAD_BYTES:
            raise OutboxFailed("too_large")
        known = self._recent.find(event)
        if known is not None:
            return known
        if session is not None:
            return self._put_in_session(event, session)
        put = self._put_directly(event)
        if put is None:
            self._append(encode_event(event, self._clock()))
            put = Put("queued", event.id)
        if put.status == "queued":
            self._recent.add(event)
        return put

    def _put_directly(self, event: NewEvent | Verdict) -> Put | None:
        if self._settings.outbox_commit != "database":
            return None
        try:
            return self._parts.direct.put(event)
        except OutboxFailed as failure:
            let_through(failure)
            self._counters.add("commit_in_journal", failure.reason)
            return None

    def decide(self, verdict: Verdict, *, session: Any = None) -> Decided:
        verdict = replace(verdict, key=clean_key(verdict.key))
        known = self._recent.decided(verdict)
        if session is not None:
            self._in_session().decide(session, verdict)
            after_commit(session, lambda: self._recent.decide(verdict))
            return known
        if self._put_directly(verdict) is None:
            self.record(verdict)
        self._recent.decide(verdict)
        return known

    def _put_in_session(self, event: NewEvent, session: Any) -> Put:
        return self._in_session().put(session, event)

    def _in_session(self) -> SessionPut:
        parts = self._parts
        if parts.in_session is None:
            from .in_session import SessionPut

            parts.in_session = SessionPut(
                parts.database, parts.ingest.rows, self._where, self._clock
            )
        return parts.in_session

    def put_dead(self, event: NewEvent, reason: str, error: str) -> Put:
        if event.key is not None:
            event.key = clean_key(event.key)
        if len(event.payload) > PAYLOAD_BYTES:
            raise OutboxFailed("too_large")
        event.name = _NOT_PLAIN.sub("?", event.name)[:40]
        known = self._recent.find(event)
        if known is not None:
            return known
        try:
            self._check_share()
            self.record(EventRecord(event, self._clock(), (reason[:40], error[:1000])))
        except OutboxFailed as failure:
            self.note_failure(event.name, failure.reason)
            raise
        self._recent.add(event, dead=True)
        return Put("queued", event.id)

    def _check_share(self) -> None:
        """A flood of bad events must not shut good ones out: they may fill half of the bound."""
        most = self._settings.outbox_max_bytes
        if not most:
            return
        used = noted_usage(self._folder).outbox_bytes + waiting_bytes(self._folder)
        if used > most // 2:
            raise OutboxFailed("full")

    def note_failure(self, name: str, reason: str) -> None:
        pid, failed = self._failed
        if pid != os.getpid():  # a fork's parent tells of its own
            failed = Counter()
            self._failed = os.getpid(), failed
        failed[_NOT_PLAIN.sub("?", name)[:40], reason] += 1

    def _tell_failures(self) -> None:
        """Into the journal with what it did not take, now that it takes something."""
        (pid, failed), self._failed = self._failed, (0, Counter())
        if pid != os.getpid():
            return
        for (name, reason), amount in failed.items():
            record = Counted(self._clock(), name, "failed", reason, amount=amount)
            try:
                self._journal.append(encode(record))
            except JournalFailed as failure:
                let_through(failure)
                for _ in range(amount):
                    self.note_failure(name, reason)

    def record(self, record: Record) -> None:
        self._append(encode(record))
        if isinstance(record, Withdrawal):
            # What the file tells of the visitor goes with it, as soon as it has been read.
            with suppress(JournalFailed):
                self._journal.close()

    def record_file(self, token: str, frames: Iterable[bytes], length: int) -> None:
        # Nobody is told: who has so many takes them in as well.
        try:
            self._journal.append_file(token, frames, length)
        except JournalFailed as failure:
            let_through(failure)
            raise OutboxFailed(failure.reason, str(failure)) from None

    def _append(self, data: bytes) -> None:
        try:
            self._journal.append(data)
        except JournalFailed as failure:
            let_through(failure)
            raise OutboxFailed(failure.reason, str(failure)) from None
        if self._failed[1]:
            self._tell_failures()
        if self._bell.waiters:
            self._bell.ring()
        if self._forwarder is not None:
            self._forwarder.tell()

    def _forward(self) -> int:
        ingest = self._parts.ingest
        count = ingest.take_in()
        ingest.note_usage()
        self._finish_file()
        self._on_forward()
        return count


def journal_folder(settings: Settings, folder: Path) -> Path:
    """Where the journal is.

    :param folder: the instance folder.
    """
    return folder / (settings.journal_folder or JOURNAL_NAME)
