"""What an outbox lets others look up: orders by their keys, what could not be sent, sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from .silence import Silence
from .values import (
    DeadLetter,
    Ended,
    HistoryBy,
    HistoryColumn,
    HistoryRow,
    HistorySum,
    KnownOrder,
    Row,
    State,
    SuppressedOrder,
    Totals,
)


class Trial(NamedTuple):
    """One made-up event that was sent with ``dry_run=true``.

    :param at: when, seconds since the epoch.
    :param answer: AdRoll's status, ``200``, or why none came, ``dns``.
    :param words: what AdRoll said.
    """

    at: float
    name: str
    good: bool
    answer: str
    words: str


class TrialLookup(Protocol):
    """The last test events and their answers."""

    def keep(self, name: str, *, good: bool, answer: str, words: str) -> None:
        """Keep the answer to one; older ones than the newest twenty are forgotten."""
        ...

    def newest(self, most: int = 20) -> tuple[Trial, ...]:
        """The newest *most*, newest first."""
        ...


class OrderLookup(Protocol):
    """Looks orders up; keys are those of :func:`adroll_flask.events.dedupe_key.kept_key`."""

    def take_in_all(self) -> None:
        """Take in what this host's journal holds, before many orders are looked up."""
        ...

    def find(self, key: str, names: Sequence[str]) -> tuple[Row, ...]:
        """The events of *names* that have this key, oldest first, with their payload."""
        ...

    def known(self, name: str, eid: str, keys: Sequence[str]) -> dict[str, KnownOrder]:
        """What is known of the orders with these keys that were reported as events *name*."""
        ...

    def suppressed(self, hashes: Sequence[str]) -> dict[str, SuppressedOrder]:
        """Why orders were suppressed, by their hash."""
        ...

    def reported(self, name: str, since: float, until: float) -> Iterator[KnownOrder]:
        """Orders that are or will be with AdRoll and occurred between two times."""
        ...

    def without_key(self, name: str) -> Iterator[tuple[str, Row]]:
        """Dead letters that were invalid, by the order id in them."""
        ...

    def since(self, id: str) -> Iterator[Row]:
        """Events that were reported after the one with *id*, which need not be there."""
        ...

    def those(self, ids: Sequence[str]) -> tuple[Row, ...]:
        """The events of *ids* that are there."""
        ...


class DeadLetterLookup(Protocol):
    """What problems are made of. Counts no rows in full and takes nothing in: pages ask this."""

    def newest(self, most: int) -> tuple[DeadLetter, ...]:
        """The newest *most* dead letters, newest first."""
        ...

    def of_order(self, order: str, most: int) -> tuple[Row, ...]:
        """Invalid events, which have no key, that have *order* as their order id; newest first.

        :param most: dead letters that are looked through, the newest.
        """
        ...

    def ended(self, since: float) -> tuple[Ended, ...]:
        """What could not be sent since the hour of *since*, by event, reason and day."""
        ...

    def corrections(self) -> str:
        """A text that changes whenever hours of the history that are over were corrected.

        They are where dead letters are sent again: these are no loss any more.
        """
        ...

    def open_counts(self, most: int) -> dict[State, int]:
        """Events that are not over, by state, each counted up to *most*."""
        ...

    def newest_events(
        self,
        most: int,
        name: str | None = None,
        before: str | None = None,
        *,
        dry_runs: bool = False,
    ) -> tuple[Row, ...]:
        """The newest *most* events, newest first, without their payload.

        :param name: only events of this name, of those that were reported lately.
        :param before: only events that were reported before the one with this id.
        :param dry_runs: only dry runs, likewise.
        """
        ...


class Figures(Protocol):
    """What pages, commands and monitoring show in numbers."""

    def history(self, since: float, by: HistoryBy) -> tuple[HistoryRow, ...]:
        """What happened since *since* (seconds since the epoch), in sums; counts no events."""

    def history_sums(
        self,
        since: float,
        columns: Sequence[HistoryColumn],
        *,
        hours: int = 1,
        delays: bool = False,
    ) -> tuple[HistorySum, ...]:
        """The same by several columns at once.

        :param hours: what ``at`` stands for: 1, 6, 24 or 168 hours; days and weeks are UTC's.
        :param delays: with the histogram of event to delivery.
        """

    def silences(self) -> tuple[Silence, ...]:
        """Events of which too few reach AdRoll for the time of day; counts no events."""

    def totals(self) -> Totals:
        """Sums since the first event and the present state, for monitoring; counts no events."""

    def note_silences(self) -> tuple[Silence, ...]:
        """Those that began since the last look, of whichever process; each is told once."""

    def unsettled(self, most: int) -> tuple[HistorySum, ...]:
        """What waits or is held, by event, ``waiting`` or ``held``, and currency.

        :param most: events of each state that are looked at.
        """
        ...
