"""Of which times an outbox knows what was reported.

It knows of all since it began. A copy that took the place of its original knows nothing of the time
from its last write until it was put there: that is a gap. An outbox that is moved takes what it
knows along. What was paid at another time is unknown here: the outbox before this one may have sent
it, and nothing here tells.

An order that was not to be reported is noted under a hash that only who has the app's key can make.
With another key nothing tells such an order from one that was forgotten: up to the last one that
was noted under the former key, what is not found may have been suppressed.

Kept in ``adroll_meta``: ``began``; ``gap:<when it began>`` with when it ended; and for each account
and key ``key:<account>:<tag of the key>`` with when an order was suppressed under it last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from . import model, schema
from .model import NewEvent
from .schema import Tx

_BEGAN: Final = "began"
_GAP: Final = "gap:"
_KEY: Final = "key:"
#: Digits with which the hash of a suppressed order says its key, see ``dedupe_key.secret_tag``.
_TAG_LENGTH: Final = 4
#: When housekeeping was last, by the database's clock (older_copy.py).
NOTED: Final = "noted"
#: That a visitor brought a cookie of ours that is older than the outbox.
OLDER: Final = "older:cookie"
#: Seconds by which the clocks of hosts may differ.
_MOMENT: Final = 60.0
#: Seconds by which an order is older than its report, where it was not reported when it was paid.
_LONG_AGO: Final = 3600.0
#: The reason of what rests since another outbox may have sent it; and the error of each event.
BEFORE: Final = "before_outbox"
_RESTS: Final = (
    "it was paid before this outbox began, or in a gap of what it knows; another outbox may have"
    " sent it. Retry it only if that was not so."
)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Of which times an outbox knows; all are seconds since the epoch by its clock.

    :param began: since when.
    :param gaps: of which times after that it knows nothing: begin and end.
    :param kept: seconds for which the key of an order is kept.
    :param has_older_cookies: whether a visitor brought a cookie of ours that is older.
    :param former_key_until: when an order was suppressed last under a key that the app has no more.
    """

    began: float
    gaps: tuple[tuple[float, float], ...]
    kept: float
    has_older_cookies: bool
    former_key_until: float = 0.0

    def covers(self, at: float | None, now: float) -> bool:
        """Whether an order that was paid at *at* would be known here, had it been reported.

        :param at: ``None``: no time is known; then it may be as old as a key is kept.

        >>> Knowledge(100.0, ((200.0, 300.0),), 50.0, False).covers(250.0, now=400.0)
        False
        >>> Knowledge(100.0, ((200.0, 300.0),), 50.0, False).covers(None, now=351.0)
        True
        """
        if at is None:
            ends = [end for _, end in self.gaps]
            return now - max([self.began, *ends]) >= self.kept
        is_in_gap = any(begin < at < end for begin, end in self.gaps)
        return at >= self.began - _MOMENT and not is_in_gap

    def remembers(self, at: float | None, now: float) -> bool:
        """Whether an order that was paid at *at* is known here now, had it been reported: as
        :meth:`covers`, and its key is kept still."""
        return self.covers(at, now) and (at is None or at >= now - self.kept)

    def knows(self, at: float | None, now: float) -> bool:
        """As :meth:`remembers`, had it been reported or suppressed: not under a former key.

        >>> Knowledge(100.0, (), 50.0, False, former_key_until=120.0).knows(110.0, now=130.0)
        False
        """
        last = now - self.kept if at is None else at
        return self.remembers(at, now) and last > self.former_key_until

    def original_may_have_released(self, reported_at: float, paid_at: float | None) -> bool:
        """Whether the outbox that this one is a copy of may have released an order since.

        :param reported_at: when the order was reported with a hold.
        :param paid_at: ``None``: no time is known.

        >>> copy = Knowledge(100.0, ((200.0, 300.0),), 50.0, False)
        >>> copy.original_may_have_released(150.0, 250.0)
        True
        >>> copy.original_may_have_released(350.0, None)
        False
        """
        return any(
            reported_at <= begin and (paid_at is None or begin - _MOMENT < paid_at < end)
            for begin, end in self.gaps
        )


def knowledge_of(tx: Tx, eids: Iterable[str] = (), tag: str = "") -> Knowledge:
    """What the outbox knows.

    :param eids: the accounts whose suppressed orders matter.
    :param tag: of the key under which these are noted now.
    """
    began = schema.meta(tx, _BEGAN)
    notes = schema.metas(tx, _GAP).items()
    gaps = [
        (schema.number(name.removeprefix(_GAP), 0.0), schema.number(end, tx.now))
        for name, end in notes
    ]
    former = [0.0]
    for eid in eids:
        notes_of_keys = schema.metas(tx, f"{_KEY}{eid}:")
        notes_of_keys.pop(f"{_KEY}{eid}:{tag}", None)
        former += [schema.number(at, tx.now) for at in notes_of_keys.values()]
    return Knowledge(
        began=schema.number(began, tx.now),
        gaps=tuple(sorted(gaps)),
        kept=tx.kept_until - tx.now,
        has_older_cookies=schema.meta(tx, OLDER) is not None,
        former_key_until=max(former),
    )


def note_keys(tx: Tx, suppressed: Iterable[tuple[str, str, float]]) -> None:
    """Note under which keys orders were suppressed.

    :param suppressed: of each order its account, its hash, and when it was suppressed.
    """
    last: dict[str, float] = {}
    for eid, order, at in suppressed:
        name = f"{_KEY}{eid}:{order[:_TAG_LENGTH]}"
        last[name] = max(at, last.get(name, at))
    # In one order: hosts that write the same notes do not wait in a circle.
    for name, at in sorted(last.items()):
        # Files are read in any order.
        if at > schema.number(schema.meta(tx, name), 0.0):
            schema.set_meta(tx, name, repr(at))


def add_gap(tx: Tx) -> None:
    """Note that this is a copy: of the time since its last write it knows nothing."""
    written = _last_write(tx)
    if written < tx.now:
        schema.insert(tx, "adroll_meta", name=f"{_GAP}{written!r}", value=repr(tx.now))


def _last_write(tx: Tx) -> float:
    """When something was written last, as far as that is noted; now, where the clock is behind."""
    times = [schema.meta(tx, name) for name in (_BEGAN, "housekeeping_at")]
    for newest in (
        "SELECT queued_at FROM adroll_event ORDER BY id DESC LIMIT 1",
        "SELECT max(seen_at) FROM adroll_account",
    ):
        times.append(schema.first_value(tx.rows(newest)))
    past = [at for at in (schema.number(time, 0.0) for time in times) if 0.0 < at <= tx.now]
    return max(past, default=tx.now)


def take_over(tx: Tx, metas: dict[str, str]) -> None:
    """Know what another outbox knew, whose notes are *metas*, instead of what this one knows."""
    for name, value in metas.items():
        if name in (_BEGAN, OLDER, NOTED) or name.startswith((_GAP, _KEY)):
            schema.set_meta(tx, name, value)


# -- orders that another outbox may have sent ------------------------------------------------------


def note_orders(tx: Tx, name: str, keys: Sequence[str]) -> None:
    """Note that orders with these keys were paid at a time of which nothing is known here."""
    outbox = schema.meta(tx, "outbox_id") or ""
    about = {"reason": BEFORE, "marked_at": tx.now, "forget_at": tx.kept_until}
    schema.insert_all(
        tx, "adroll_mark", [{"hash": _hash(name, key, outbox), **about} for key in keys]
    )


def _hash(name: str, key: str, outbox: str) -> str:
    return model.keyed_hash(model.ORDER_HASH, f"{name}\0{key}", outbox)


def let_unknown_rest(tx: Tx, events: Iterable[NewEvent]) -> None:
    """Make dead letters of those that another outbox may have sent.

    An event says so itself by its time, or the shop's list of paid orders has said so of its order.
    What is imported somebody has asked for.
    """
    keyed = [
        event
        for event in events
        if event.key
        and event.dead is None
        and event.held_for is None
        and event.identifiers < model.IMPORTED
    ]
    old = [event for event in keyed if event.at - event.occurred_at > _LONG_AGO]
    if old:
        knowledge = knowledge_of(tx)
        for event in old:
            # What the journal had before the outbox began, no other outbox took in.
            began_before = knowledge.began <= event.at
            if began_before and not knowledge.covers(event.occurred_at, tx.now):
                event.dead = BEFORE, _RESTS
    marked = "SELECT hash FROM adroll_mark WHERE"
    # A range, which the primary key finds.
    orders = f"hash >= '{model.ORDER_HASH}' AND hash < '{model.VISITOR_HASH}'"
    if not keyed or not tx.rows(f"{marked} {orders} LIMIT 1"):
        return
    outbox = schema.meta(tx, "outbox_id") or ""
    by_hash = {_hash(event.name, event.key or "", outbox): event for event in keyed}
    for (order_hash,) in tx.rows(f"{marked} hash {{in_ids}}", ids=[*by_hash]):
        by_hash[order_hash].dead = BEFORE, _RESTS
