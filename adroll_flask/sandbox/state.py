"""What the sandbox has seen: events, requests, pixels. Bounded; safe between threads."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import event_checks
from .event_api import Judged
from .journal import SandboxJournal
from .journeys import Journeys, Record, remember

#: Orders whose ids are remembered for duplicates; each takes about 200 bytes.
_MOST_ORDERS = 1_000_000
_COUNTED = (
    "requests",
    "events",
    "accepted",
    "rejected",
    "held_back",
    "dry_run",
    "duplicates",
    "both_sides",
    "matched",
    "clicks",
    "pixel_pages",
    "pixel_events",
)


class SandboxState:
    """Everything that the sandbox remembers.

    :param keep: how many events, requests and visitors are kept in full; ids for duplicates and
        the totals are kept beyond that.
    :param journal: where inputs are written so that a later start can replay them.
    :param clock: the time, epoch seconds.
    """

    def __init__(
        self,
        *,
        keep: int = 5000,
        journal: str | Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keep < 1:
            raise ValueError("keep must be at least 1")
        self.keep = keep
        self.clock = clock
        self.changed: threading.Condition = threading.Condition(threading.RLock())
        self.closed: bool = False
        #: Grows with every change; a viewer compares it.
        self.version: int = 0
        #: Grows with every event that is new or changed; each event carries its own.
        self.revision: int = 0
        #: Grows with every :meth:`clear`.
        self.generation: int = 0
        self._clear()
        self._journal: SandboxJournal | None = None
        if journal is not None:
            opened = SandboxJournal(journal, keep=keep)
            for entry in opened.read():
                self._add(*entry)
            self._journal = opened

    def _clear(self) -> None:
        self.generation += 1
        self._next_id = 1
        self._events: deque[Record] = deque(maxlen=self.keep)
        self._tracked: deque[Record] = deque(maxlen=self.keep)
        self._requests: deque[Record] = deque(maxlen=self.keep)
        self._journeys = Journeys(self.keep)
        self._orders: OrderedDict[bytes, int] = OrderedDict()
        self._pixel_orders: OrderedDict[bytes, Record] = OrderedDict()
        self._totals: Counter[str] = Counter()
        self._names: Counter[str] = Counter()
        self._carried: Counter[str] = Counter()

    # -- what comes in ---------------------------------------------------------------------------

    def add_batch(self, batch: Sequence[Judged], *, request: int) -> None:
        """Keep the events of one request to the event API, with the verdict on each."""
        # AdRoll takes a batch or refuses it: what is in order goes down with the rest.
        refused = any(judged.faults for judged in batch)
        with self.changed:
            now = self.clock()
            for judged in batch:
                verdict = "accepted"
                if refused:
                    verdict = "rejected" if judged.faults else "held_back"
                what = (judged.event, judged.faults, verdict, judged.dry_run, judged.warnings)
                self._add("event", now, *what, request=request)
            self.touch()

    def add_click(self, adct: str, to: str) -> None:
        """Keep a click on the ad."""
        with self.changed:
            self._add("click", self.clock(), adct, to)
            self.touch()

    def add_pixel(self, sighting: Mapping[str, Any]) -> None:
        """Keep what the pixel reported from a page: a cookie that it saw or an event."""
        with self.changed:
            self._add("pixel", self.clock(), sighting)
            self.touch()

    def start_request(self, method: str, path: str, connection: str) -> Record:
        """Keep a request to the event API; :meth:`note` fills in what became of it."""
        with self.changed:
            self._totals["requests"] += 1
            record: Record = {
                "id": self._totals["requests"],
                "at": self.clock(),
                "method": method,
                "path": path,
                "connection": connection,
                "status": None,
                "outcome": "open",
                "events": 0,
                "bytes": 0,
                "gzip": False,
                "dry_run": None,
                "fault": None,
                "warnings": [],
            }
            self._requests.append(record)
            return record

    def note(self, record: Record, **what: Any) -> None:
        """Write down what became of a request."""
        with self.changed:
            record.update(what)
            self.touch()

    def clear(self) -> None:
        """Forget everything, the file's content included."""
        with self.changed:
            self._clear()
            if self._journal is not None:
                self._journal.clear()
            self.touch()

    def close(self) -> None:
        """Let go of the file and of those who wait; closing twice does no harm."""
        with self.changed:
            self.closed = True
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            self.touch()

    def touch(self) -> None:
        """Tell those who wait that something changed."""
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    # -- how it is kept --------------------------------------------------------------------------

    def _add(self, kind: str, now: float, *what: Any, request: int = 0) -> None:
        """Keep one thing that came in, and write it down; a later start adds it again.

        :param request: the event's; requests are not written down.
        """
        if self._journal is not None:
            self._journal.write([kind, now, *what])
        if kind == "event":
            self._add_event(request, now, *what)
        elif kind == "click":
            self._add_click(now, *what)
        else:
            self._add_pixel(now, *what)

    def _add_event(
        self,
        request: int,
        now: float,
        event: Any,
        faults: Iterable[event_checks.Fault],
        verdict: str,
        dry_run: bool,
        warnings: Sequence[str],
    ) -> None:
        accepted = verdict == "accepted"
        name, order = event_checks.name_and_order(event)
        coverage = event_checks.coverage(event)
        step = "event" if accepted else "refused event"
        happened = _happened(event, now)
        journey = self._journeys.trace(event, step, name, happened)
        record: Record = {
            "id": self._next_id,
            "received_at": now,
            "happened_at": happened,
            "verdict": verdict,
            "errors": [
                {"field": path, "code": code, "message": message} for path, code, message in faults
            ],
            "warnings": [*warnings, *(event_checks.warnings(event) if accepted else ())],
            "event_name": name,
            "order_id": order,
            "dry_run": dry_run,
            "duplicate": False,
            "duplicate_of": None,
            "reported_by_pixel_too": False,
            "coverage": coverage,
            "journey": journey,
            "request": request,
            "event": event,
        }
        self._next_id += 1
        self._totals["events"] += 1
        self._totals["dry_run" if accepted and dry_run else verdict] += 1
        if accepted and not dry_run:
            self._names[str(name)] += 1
            self._carried.update(coverage["carried"])
            self._totals["matched"] += journey["matched_by"] is not None
            self._look_for_twins(record)
        self._publish(record)
        self._events.append(record)

    def _look_for_twins(self, record: Record) -> None:
        if record["order_id"] is None:
            return
        key = _order_key(record["event_name"], record["order_id"])
        first = self._orders.get(key)
        if first is None:
            remember(self._orders, key, record["id"], _MOST_ORDERS)
        else:
            record["duplicate"] = True
            record["duplicate_of"] = first
            self._totals["duplicates"] += 1
        if twin := self._pixel_orders.get(key):
            self._totals["both_sides"] += not twin["reported_by_server_too"]
            record["reported_by_pixel_too"] = twin["reported_by_server_too"] = True

    def _add_click(self, now: float, adct: str, to: str) -> None:
        self._totals["clicks"] += 1
        self._journeys.click(adct, to, now)

    def _add_pixel(self, now: float, sighting: Mapping[str, Any]) -> None:
        kind = sighting["kind"]
        cookie = sighting["cookie"]
        name = sighting["name"]
        if kind == "cookie":
            self._totals["pixel_pages"] += 1
            if cookie:
                by = "site" if sighting["adopted"] else "pixel"
                self._journeys.page(cookie, sighting["adct"], sighting["page"], now, by)
            return
        self._totals["pixel_events"] += 1
        # The page view is a step already: the cookie was reported for it.
        if cookie and kind == "track" and name != "pageView":
            self._journeys.step("pixel event", cookie, name, now)
        record: Record = {
            "id": self._totals["pixel_events"],
            "received_at": now,
            "kind": kind,
            "event_name": name,
            "order_id": sighting["order_id"],
            "cookie": cookie,
            "page": sighting["page"],
            "attributes": sighting["attributes"],
            "reported_by_server_too": False,
        }
        self._tracked.append(record)
        if kind == "track" and record["order_id"] is not None:
            self._look_for_server_twin(record)

    def _look_for_server_twin(self, record: Record) -> None:
        key = _order_key(record["event_name"] or "", record["order_id"])
        seen_before = key in self._pixel_orders
        remember(self._pixel_orders, key, record, self.keep)
        if key not in self._orders:
            return
        record["reported_by_server_too"] = True
        self._totals["both_sides"] += not seen_before
        for event in self._events:
            if event["id"] == self._orders[key]:
                event["reported_by_pixel_too"] = True
                self._publish(event)

    def _publish(self, record: Record) -> None:
        self.revision += 1
        record["revision"] = self.revision

    # -- what goes out ---------------------------------------------------------------------------

    def events(self, *, after: int = 0, **match: Any) -> list[Record]:
        """Return the kept events, oldest first, that are new or changed after a revision."""
        with self.changed:
            return [
                dict(record)
                for record in self._events
                if record["revision"] > after
                and all(record.get(name) == value for name, value in match.items())
            ]

    def tracked(self) -> list[Record]:
        """Return what pages told the pixel, oldest first."""
        with self.changed:
            return [dict(record) for record in self._tracked]

    def requests(self) -> list[Record]:
        """Return the requests to the event API, oldest first."""
        with self.changed:
            return [dict(record) for record in self._requests]

    def clicks(self) -> list[Record]:
        """Return the clicks on the ad, oldest first."""
        with self.changed:
            return [dict(record) for record in self._journeys.clicks.values()]

    def totals(self) -> Record:
        """Count everything, kept or not."""
        with self.changed:
            return {
                **{name: self._totals[name] for name in _COUNTED},
                "distinct_orders": len(self._orders),
                "names": dict(sorted(self._names.items())),
            }

    def meter(self) -> Record:
        """Coverage over all accepted events: how often each identifier was there."""
        with self.changed:
            events = self._totals["accepted"]
            share = len(event_checks.IDENTIFIERS) * events
            return {
                "events": events,
                "score": round(self._carried.total() / share, 3) if share else None,
                "carried": {name: self._carried[name] for name in event_checks.IDENTIFIERS},
            }


def _order_key(name: str, order: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{order}".encode("utf-8", "replace"), digest_size=12).digest()


def _happened(event: Any, now: float) -> float:
    """When an event happened by its own word, as far as that can be believed."""
    timestamp = event.get("timestamp") if isinstance(event, dict) else None
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float):
        return now
    return timestamp if 0 < timestamp < now else now
