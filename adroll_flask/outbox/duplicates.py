"""What makes two events one: the rule for duplicate orders.

Two events are one where account, dry run, name and deduplication key are the same: the unique index
of :mod:`.schema` says so for all hosts, when records become rows. :class:`RecentKeys` says it at
once for what this process reported lately, so that a reload is told ``duplicate`` without a
database. How a key is written is :mod:`adroll_flask.events.dedupe_key`'s.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from adroll_flask.interruptions import let_through

from .database import Tx, key_in, key_out
from .journal_locks import NO_FOLLOW
from .ownership import open_file
from .protocol import Decided, OutboxFailed, Put
from .record_format import NewEvent, Verdict
from .states import HELD

#: How many keys are known, and for how many seconds.
_MOST: Final = 10_000
_LIFE: Final = 900.0
#: Deduplication key, name, dry run and account of an event.
_Key: TypeAlias = tuple[str, str, bool, str]
#: Id, digest and state of the event that has a key.
Same: TypeAlias = tuple[str, str | None, int]
#: No such event is seen.
NONE: Final[Same] = ("", None, -1)
#: The value of what before_report has yet to pass may still change.
_DIGEST: Final = (
    "CASE WHEN reason IN ('invalid:before_report', 'invalid:held') THEN NULL ELSE digest END"
)
_OF: Final = (
    "FROM adroll_event WHERE advertisable_eid = :eid"
    " AND dry_run = :dry_run AND event_name = :name AND dedupe_key"
)
_SAME: Final = f"SELECT id, {_DIGEST}, state {_OF} = :key"
_SAME_OF_MANY: Final = f"SELECT dedupe_key, id, {_DIGEST}, state {_OF} {{in_ids}}"


class RecentKeys:
    """Remembers keys, the newest ten thousand for a quarter of an hour.

    No lock: each of its steps is one call that the interpreter does not divide. What is forgotten
    too early is dropped by the outbox's index.

    :param freed: a file of this host whose time tells when keys became free; looked at where a key
        is known, which is rare.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, freed: Path | None = None
    ) -> None:
        self._clock = clock
        self._freed = freed
        self._freed_at = self._look()
        self._known: OrderedDict[_Key, tuple[str, str | None, float, bool]] = OrderedDict()
        self._decided: OrderedDict[_Key, Literal["release", "cancel"]] = OrderedDict()

    def find(self, event: NewEvent) -> Put | None:
        """What became of *event*, where its key is known."""
        if event.key is None:
            return None
        found = self._known.get((event.key, event.name, event.dry_run, event.advertisable_eid))
        if found is None or self._clock() - found[2] > _LIFE:
            return None
        if self._look() != self._freed_at:
            self._freed_at = self._look()
            self._known.clear()
            self._decided.clear()
            return None
        if found[3] and event.held_for is None:
            return None  # it says that the held one is to be sent
        return Put("duplicate", found[0], same=found[1] in (None, event.digest))

    def decided(self, verdict: Verdict) -> Decided:
        """What is known of the event that *verdict* is about."""
        key = (verdict.key, verdict.name, verdict.dry_run, verdict.advertisable_eid)
        found = self._known.get(key)
        if found is None or not found[3]:
            return Decided()
        return Decided(found[0], self._decided.get(key, ""))

    def decide(self, verdict: Verdict) -> None:
        """Remember *verdict*, which is kept."""
        key = (verdict.key, verdict.name, verdict.dry_run, verdict.advertisable_eid)
        if self._decided.get(key) != "cancel":  # which is the stronger
            self._decided[key] = verdict.kind
            _keep(self._decided)

    def add(self, event: NewEvent, *, dead: bool = False) -> None:
        """Remember *event*, which was kept.

        :param dead: as a dead letter, whose value may change before it is sent.
        """
        if event.key is None:
            return
        key = (event.key, event.name, event.dry_run, event.advertisable_eid)
        digest = None if dead else event.digest
        self._known[key] = event.id, digest, self._clock(), event.held_for is not None
        self._decided.pop(key, None)
        _keep(self._known)

    def free(self) -> None:
        """Forget all, in each process of this host: keys became free."""
        self._known.clear()
        self._decided.clear()
        if self._freed is not None and self._freed.parent.is_dir():
            try:
                os.close(open_file(self._freed, os.O_RDWR | NO_FOLLOW))
                now = time.time_ns()  # finer than the kernel's: two drops have two times
                os.utime(self._freed, ns=(now, now))
                self._freed_at = now
            except OSError as exc:
                let_through(exc)  # the others forget in a quarter of an hour, as other hosts do

    def _look(self) -> int:
        try:
            return 0 if self._freed is None else os.stat(self._freed).st_mtime_ns
        except OSError as exc:
            let_through(exc)
            return 0


def _keep(known: OrderedDict[_Key, Any]) -> None:
    """The newest of *known*."""
    while len(known) > _MOST:
        try:
            known.popitem(last=False)
        except KeyError:  # another thread was here
            return


def put_of(event: NewEvent, kept: Same) -> Put:
    """What became of *event*, which the database did not insert.

    :param kept: what has its id or key, or :data:`NONE`.
    :raises OutboxFailed: it is not there, nor is one with its key.
    """
    if kept is NONE:
        raise OutboxFailed("data")
    if kept[0] == event.id or releases(event, kept):
        return Put("queued", kept[0])
    return Put("duplicate", kept[0], same=kept[1] in (None, event.digest))


def same(tx: Tx, event: NewEvent) -> Same | None:
    """The event that has *event*'s id or key."""
    query = f"SELECT id, {_DIGEST}, state FROM adroll_event WHERE id = :id"
    rows = tx.rows(query, id=event.id)
    if rows or event.key is None:
        return (rows[0][0], rows[0][1], rows[0][2]) if rows else None
    rows = tx.rows(
        _SAME,
        eid=event.advertisable_eid,
        dry_run=int(event.dry_run),
        name=event.name,
        key=key_in(tx.dialect, event.key),
    )
    return (rows[0][0], rows[0][1], rows[0][2]) if rows else None


def same_by_key(tx: Tx, events: Sequence[NewEvent]) -> dict[str, Same]:
    """The event that has the key of each of *events*, by their ids; a query an account and name."""
    alike: defaultdict[tuple[str, bool, str], dict[str, str]] = defaultdict(dict)
    for event in events:
        if event.key is not None:
            alike[event.advertisable_eid, event.dry_run, event.name][event.id] = event.key
    found: dict[str, Same] = {}
    for (eid, dry_run, name), keys in alike.items():
        rows = tx.rows(
            _SAME_OF_MANY,
            eid=eid,
            dry_run=int(dry_run),
            name=name,
            ids=[key_in(tx.dialect, key) for key in set(keys.values())],
        )
        there = {key_out(row[0]): (row[1], row[2], row[3]) for row in rows}
        found |= {id: there[key] for id, key in keys.items() if key in there}
    return found


def releases(event: NewEvent, kept: Same) -> bool:
    """True where *event* is a second report, without a hold, of an order that is held."""
    return event.held_for is None and kept[2] == HELD


def release_of(event: NewEvent, at: float) -> Verdict:
    """What a second report without a hold says of the held one."""
    return Verdict(
        at, "release", event.name, event.advertisable_eid, event.dry_run, event.key or ""
    )
