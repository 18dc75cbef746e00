"""One object in front of the parts; what a request needs of it loads no SQLAlchemy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from adroll_flask.counters import Counters

from .intake import Intake
from .listen import Bell
from .location import locate
from .protocol import (
    Claim,
    Claimed,
    Destination,
    NewEvent,
    Outbox,
    OutboxFailed,
    Outcome,
    Overview,
    Put,
    Row,
    State,
)
from .spill import Spilled, SpillFile
from .states import DAY

if TYPE_CHECKING:
    from adroll_flask.settings import Settings

    from .claims import Claims
    from .destination import Shared
    from .enqueue import Enqueue
    from .fileclaims import FileClaims
    from .housekeeping import Housekeeping
    from .operations import Operations
    from .store import Store

logger = logging.getLogger("adroll_flask.outbox")

SPILL_NAME: Final = "adroll-spill.jsonl"
#: Reasons for which the spill file would be no better place.
_FINAL: Final = frozenset({"full", "too_large", "data"})
#: Batches of the spill file that one claim, or one request, reads back.
_CLAIM_BATCHES: Final = 10
_PUT_BATCHES: Final = 1


def open_outbox(
    settings: Settings,
    *,
    folder: str | Path,
    clock: Callable[[], float] = time.time,
    counters: Counters | None = None,
) -> Outbox:
    """The app's outbox; opens no connection and makes no table before its first use.

    :param folder: for the SQLite file and the spill file: the instance folder.
    :param clock: seconds since the epoch; tells the time on SQLite, servers have their own.
    :raises ConfigurationError: ``ADROLL_OUTBOX_URL`` names a database that cannot be one.
    """
    return SqlOutbox(settings, Path(folder), clock, counters or Counters())


@dataclass(slots=True)
class _Parts:
    store: Store
    claims: Claims | FileClaims
    shared: Shared
    enqueue: Enqueue
    operations: Operations
    housekeeping: Housekeeping


class SqlOutbox:
    """The outbox over an SQL database; see :class:`Outbox` for what its methods do."""

    def __init__(
        self, settings: Settings, folder: Path, clock: Callable[[], float], counters: Counters
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._where = where = locate(settings.outbox_url, folder.absolute())
        self._server: Any = None if isinstance(where, Path) else where
        self._file = (
            Intake(where, sync=settings.outbox_sync, max_bytes=settings.outbox_max_bytes)
            if isinstance(where, Path)
            else None
        )
        self._spill = SpillFile(folder.absolute() / SPILL_NAME, max_bytes=settings.outbox_max_bytes)
        self._bell = Bell(
            None if isinstance(where, Path) or where.get_driver_name() != "psycopg" else where
        )
        self._made: _Parts | None = None
        self._may_have_spilled = True
        self._next_look = float("-inf")

    def __repr__(self) -> str:
        engine = "sqlite" if isinstance(self._where, Path) else self._where.get_backend_name()
        return f"<Outbox on {engine}>"

    @property
    def _parts(self) -> _Parts:
        parts = self._made
        if parts is None:
            parts = self._made = self._make()
        return parts

    def _make(self) -> _Parts:
        from .claims import Claims
        from .destination import Shared
        from .enqueue import Enqueue
        from .fileclaims import FileClaims
        from .housekeeping import Housekeeping
        from .operations import Operations
        from .store import Store

        settings, counters = self._settings, self._counters
        store = Store(self._file or self._server, clock=self._clock)
        shared = Shared(store)
        days = settings.dedupe_days
        how = counters, settings.on_unsure, days
        claims: Claims | FileClaims
        if self._file is None:
            claims = Claims(store, *how)
        else:
            claims = FileClaims(self._file, self._clock, *how)
        return _Parts(
            store=store,
            claims=claims,
            shared=shared,
            enqueue=Enqueue(store, counters, self._where, settings.outbox_max_bytes, days),
            operations=Operations(store, shared, counters, days),
            housekeeping=Housekeeping(store),
        )

    def load(self) -> None:
        _ = self._parts
        if self._server is not None and self._server.get_driver_name() == "psycopg":
            from . import postgresql  # noqa: F401

    # -- in ---------------------------------------------------------------------------------

    def put(self, event: NewEvent, *, session: Any = None) -> Put:
        if session is not None:
            return self._parts.enqueue.put_in(session, event)
        file = self._file
        try:
            if file is not None:
                put = file.put(event, self._clock())
            else:
                put = self._parts.enqueue.put(event)
                self._read_back_soon()
        except OutboxFailed as exc:
            if exc.reason in _FINAL:
                raise
            return self._put_aside(Spilled(event, time.time()), exc.reason)
        if self._bell.waiters:
            self._bell.ring()
        return put

    def put_dead(self, event: NewEvent, reason: str, error: str) -> str:
        try:
            if self._file is not None:
                now = self._clock()
                due = now + self._settings.dedupe_days * DAY
                return self._file.put_dead(event, reason[:40], error[:1000], now, due).id
            self._parts.enqueue.put_dead(event, reason, error)
        except OutboxFailed as exc:
            if exc.reason in _FINAL:
                raise
            self._put_aside(Spilled(event, time.time(), (reason, error)), exc.reason)
        return event.id

    def _put_aside(self, spilled: Spilled, reason: str) -> Put:
        self._spill.append(spilled)
        self._may_have_spilled = True
        return Put("queued", spilled.event.id, spilled=reason)

    def _read_back_soon(self) -> None:
        """On a host without a worker its own requests bring spilled events back, a few a second.

        A SQLite file has its worker on the same host.
        """
        if not self._may_have_spilled or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + 1.0
        self._may_have_spilled = self._spill.exists()
        if self._may_have_spilled:
            self._read_back(_PUT_BATCHES)

    def _read_back(self, batches: int) -> None:
        try:
            count = self._parts.enqueue.take_back(self._spill, batches=batches)
        except (OutboxFailed, OSError) as exc:
            logger.warning("the spill file cannot be read back yet: %s", type(exc).__name__)
            return
        if count:
            self._counters.add("outbox_read_back", amount=count)
            logger.warning("%d events came back from the spill file", count)

    # -- out --------------------------------------------------------------------------------

    def claim(self, limit: int = 100, lease: float = 60.0) -> Claim | None:
        if self._spill.exists():
            self._read_back(_CLAIM_BATCHES)
        return self._parts.claims.claim(limit, lease)

    def begin_sending(self, claim: Claim, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        return self._parts.claims.begin_sending(claim, ids)

    def extend(self, claim: Claim, lease: float = 60.0) -> int:
        return self._parts.claims.extend(claim, lease)

    def settle(self, claim: Claim, outcomes: Sequence[Outcome]) -> int:
        return self._parts.claims.settle(claim, outcomes)

    def due(self, most: int) -> int:
        return self._parts.claims.due(most)

    def waiting(self) -> int:
        # What was spilled waits as well: a flush that counted the table alone would end early.
        if self._spill.exists():
            self._read_back(_CLAIM_BATCHES)
        return self._parts.operations.waiting() + self._spill.exists()

    def oldest_due(self) -> float | None:
        return self._parts.operations.oldest_due()

    def unheld_age(self, event: Claimed) -> float:
        return self._parts.shared.unheld_age(event)

    def wait_for_work(self, timeout: float) -> None:
        self._bell.wait(timeout)

    def wake(self) -> None:
        self._bell.ring()

    def announce(self) -> None:
        self._bell.ring()
        if self._file is None:
            self._parts.enqueue.announce()

    # -- the destination --------------------------------------------------------------------

    def destination(self) -> Destination:
        return self._parts.shared.destination()

    def pause(self, seconds: float, error: str = "") -> None:
        self._parts.shared.pause(seconds, error)

    def hold(self, reason: str, fingerprint: str, error: str = "") -> bool:
        return self._parts.shared.hold(reason, fingerprint, error)

    def end_hold(self) -> bool:
        return self._parts.shared.end_hold()

    def failed(self, error: str) -> int:
        return self._parts.shared.failed(error)

    def succeeded(self) -> None:
        self._parts.shared.succeeded()

    def try_probe(self, fingerprint: str, lease: float = 60.0) -> bool:
        return self._parts.shared.try_probe(fingerprint, lease)

    def take_slot(self, per_second: float) -> float:
        return self._parts.shared.take_slot(per_second)

    # -- by hand ----------------------------------------------------------------------------

    def adopt(self, advertisable_eid: str) -> int:
        return self._parts.operations.adopt(advertisable_eid)

    def counts(self) -> dict[str, int]:
        return self._parts.operations.counts()

    def overview(self) -> Overview:
        return self._parts.operations.overview(self._spill.size())

    def list(self, state: State | None = None, limit: int = 100) -> tuple[Row, ...]:
        return self._parts.operations.list(state, limit)

    def show(self, id: str) -> Row | None:
        return self._parts.operations.show(id)

    def retry(self, ids: Sequence[str] | None = None) -> int:
        return self._parts.operations.retry(ids)

    def drop(self, ids: Sequence[str]) -> int:
        return self._parts.operations.drop(ids)

    def mend(self, id: str, payload: bytes, key: str | None = None) -> bool:
        return self._parts.operations.mend(id, payload, key)

    def export(self, state: State | None = None, *, full: bool = False) -> Iterator[str]:
        return self._parts.operations.export(state, full=full)

    def forget(self, match: Callable[[dict[str, Any]], bool]) -> int:
        if self._spill.exists():
            self._parts.enqueue.take_back(self._spill)
        return self._parts.operations.forget(match)

    def housekeep(self) -> int:
        return self._parts.housekeeping.housekeep()

    def exists(self) -> bool:
        return self._file is None or self._file.path.exists() or self._spill.exists()

    def create_tables(self) -> None:
        self._parts.store.create_tables()

    def close(self) -> None:
        self._bell.close()
        if self._made is not None:
            self._made.store.close()
        if self._file is not None:
            self._file.close()
