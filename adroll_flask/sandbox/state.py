"""What the sandbox has seen: events, clicks, cookies, requests. Bounded; safe between threads."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from adroll_flask.sandbox import rules
from adroll_flask.sandbox.intake import Batch
from adroll_flask.sandbox.journal import Journal

Record = dict[str, Any]
#: Orders whose ids are remembered for duplicates; each takes about 150 bytes.
MOST_ORDERS = 1_000_000
_STEPS = 12


class _Visitor:
    """The steps of one visitor, found by click id or first-party cookie."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps: deque[Record] = deque(maxlen=_STEPS)


class State:
    """Everything that the sandbox remembers.

    :param keep: how many events, requests and visitors are kept in full; ids for duplicates and
        the totals are kept beyond that.
    :param journal: where inputs are written so that a later start can replay them.
    """

    def __init__(
        self,
        *,
        keep: int = 5000,
        journal: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keep < 1:
            raise ValueError("keep must be at least 1")
        self.keep = keep
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        self.closed = False
        self._clear()
        self._journal: Journal | None = None
        if journal is not None:
            opened = Journal(journal, keep=keep)
            for entry in opened.read():
                self._replay(entry)
            self._journal = opened

    def _clear(self) -> None:
        self.revision: int = getattr(self, "revision", 0)
        self.generation: int = getattr(self, "generation", 0) + 1
        self._next_id = 1
        self._events: deque[Record] = deque(maxlen=self.keep)
        self._tracked: deque[Record] = deque(maxlen=self.keep)
        self._requests: deque[Record] = deque(maxlen=self.keep)
        self._clicks: OrderedDict[str, Record] = OrderedDict()
        self._cookies: OrderedDict[str, Record] = OrderedDict()
        self._visitors: OrderedDict[str, _Visitor] = OrderedDict()
        self._orders: dict[bytes, list[int]] = {}
        self._pixel_orders: OrderedDict[bytes, Record] = OrderedDict()
        self._totals: Counter[str] = Counter()
        self._carried: Counter[str] = Counter()

    # -- what comes in ---------------------------------------------------------------------------

    def add_batch(self, batch: Batch, *, status: int, request: int = 0) -> None:
        """Keep the events of one request to the event API, with the verdict on each."""
        taken = 200 <= status < 300
        with self.changed:
            now = self.clock()
            for judged in batch.events:
                verdict = "accepted" if taken else "rejected" if judged.faults else "held back"
                self._add_event(
                    judged.event, judged.faults, verdict, batch.dry_run, request=request, now=now
                )
            self._touch()

    def add_click(self, adct: str, to: str) -> None:
        """Keep a click on the ad."""
        with self.changed:
            self._add_click(adct, to, self.clock())
            self._touch()

    def add_pixel(self, sighting: Mapping[str, Any]) -> None:
        """Keep what the pixel reported from a page: a cookie that it saw or an event."""
        with self.changed:
            self._add_pixel(sighting, self.clock())
            self._touch()

    def start_request(self, method: str, path: str) -> Record:
        """Keep a request to the event API; the caller fills in its outcome."""
        with self.changed:
            self._totals["requests"] += 1
            record: Record = {
                "id": self._totals["requests"],
                "at": self.clock(),
                "method": method,
                "path": path,
                "status": None,
                "outcome": "open",
                "events": 0,
                "bytes": 0,
                "gzip": False,
                "dry_run": None,
                "connection": None,
                "fault": None,
            }
            self._requests.append(record)
            return record

    def note(self, record: Record, **what: Any) -> None:
        with self.changed:
            record.update(what)
            self._touch()

    def clear(self) -> None:
        with self.changed:
            self._clear()
            if self._journal is not None:
                self._journal.clear()
            self._touch()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
            if self._journal is not None:
                self._journal.close()

    def _touch(self) -> None:
        self.changed.notify_all()

    # -- how it is kept --------------------------------------------------------------------------

    def _add_event(
        self,
        event: Any,
        faults: Iterable[rules.Fault],
        verdict: str,
        dry_run: bool,
        *,
        request: int,
        now: float,
    ) -> None:
        if self._journal is not None:
            self._journal.write(["event", now, event, list(faults), verdict, dry_run])
        accepted = verdict == "accepted"
        name, order = _name(event), _order(event)
        coverage = rules.coverage(event)
        record: Record = {
            "id": self._next_id,
            "received_at": now,
            "verdict": verdict,
            "errors": [
                {"field": path, "code": code, "message": message} for path, code, message in faults
            ],
            "warnings": rules.warnings(event) if accepted else [],
            "event_name": name,
            "order_id": order,
            "dry_run": dry_run,
            "duplicate": False,
            "duplicate_of": None,
            "reported_by_pixel_too": False,
            "coverage": coverage,
            "journey": None,
            "request": request,
            "event": event,
        }
        self._next_id += 1
        self._totals["events"] += 1
        self._totals["dry run" if accepted and dry_run else verdict] += 1
        if accepted and not dry_run:
            self._carried.update(coverage["carried"])
            self._totals["identifiers"] += len(coverage["carried"])
            self._totals["name:" + str(name)] += 1
            self._look_for_twins(record, event)
        record["journey"] = self._journey(record, event, now)
        self._publish(record)
        self._events.append(record)

    def _look_for_twins(self, record: Record, event: Mapping[str, Any]) -> None:
        if record["order_id"] is None:
            return
        key = _order_key(record["event_name"], record["order_id"])
        seen = self._orders.get(key)
        if seen is None:
            if len(self._orders) >= MOST_ORDERS:
                del self._orders[next(iter(self._orders))]
            self._orders[key] = [record["id"], 1]
        else:
            seen[1] += 1
            record["duplicate"], record["duplicate_of"] = True, seen[0]
            self._totals["duplicates"] += 1
        if twin := self._pixel_orders.get(key):
            record["reported_by_pixel_too"] = twin["reported_by_server_too"] = True
            self._totals["both sides"] += 1

    def _add_click(self, adct: str, to: str, now: float) -> None:
        if self._journal is not None:
            self._journal.write(["click", now, adct, to])
        self._totals["clicks"] += 1
        _remember(self._clicks, adct, {"adct": adct, "at": now, "to": to}, self.keep)
        self._visitor(adct, None).steps.append({"what": "click", "at": now, "detail": _host(to)})

    def _add_pixel(self, sighting: Mapping[str, Any], now: float) -> None:
        if self._journal is not None:
            self._journal.write(["pixel", now, dict(sighting)])
        cookie, page = sighting.get("cookie"), sighting.get("page")
        adct = sighting.get("adct")
        kind = sighting["kind"]
        self._totals["pixel " + kind] += 1
        if cookie:
            known = self._cookies.get(cookie) or {
                "value": cookie,
                "at": now,
                "by": "site" if sighting.get("adopted") else "pixel",
                "pages": 0,
            }
            if kind == "cookie":
                known["pages"] += 1
            _remember(self._cookies, cookie, known, self.keep)
        visitor = self._visitor(adct, cookie) if adct or cookie else None
        if kind == "cookie":
            if visitor is not None:
                visitor.steps.append({"what": "page", "at": now, "detail": _path(page)})
            return
        name = sighting.get("name")
        if visitor is not None and kind == "track" and name != "pageView":
            visitor.steps.append({"what": "pixel event", "at": now, "detail": name})
        record: Record = {
            "id": self._totals["pixel track"] + self._totals["pixel identify"],
            "received_at": now,
            "kind": kind,
            "event_name": name,
            "order_id": sighting.get("order_id"),
            "cookie": cookie,
            "page": page,
            "attributes": sighting.get("attributes"),
            "reported_by_server_too": False,
        }
        if kind == "track" and record["order_id"] is not None:
            key = _order_key(str(name), record["order_id"])
            _remember(self._pixel_orders, key, record, self.keep)
            if seen := self._orders.get(key):
                record["reported_by_server_too"] = True
                self._totals["both sides"] += 1
                for event in self._events:
                    if event["id"] == seen[0]:
                        event["reported_by_pixel_too"] = True
                        self._publish(event)
        self._tracked.append(record)

    def _visitor(self, adct: str | None, cookie: str | None) -> _Visitor:
        keys = [kind + value for kind, value in (("a:", adct), ("c:", cookie)) if value]
        found = {id(one): one for key in keys if (one := self._visitors.get(key)) is not None}
        visitor = next(iter(found.values()), None) or _Visitor()
        if len(found) == 2:
            # A click and a cookie that were strangers until now: one visitor, one line of steps.
            steps = sorted((step for one in found.values() for step in one.steps), key=_at)
            visitor.steps = deque(steps, maxlen=_STEPS)
        for key in keys:
            _remember(self._visitors, key, visitor, 2 * self.keep)
        return visitor

    def _journey(self, record: Record, event: Any, now: float) -> Record:
        held = event.get("identifiers") if isinstance(event, dict) else None
        held = held if isinstance(held, dict) else {}
        adct, cookie = _text(held.get("adct")), _text(held.get("first_party_cookie"))
        visitor = self._visitor(adct, cookie) if adct or cookie else None
        steps = list(visitor.steps) if visitor is not None else []
        if visitor is not None:
            label = {"accepted": "event"}.get(record["verdict"], "refused event")
            visitor.steps.append({"what": label, "at": now, "detail": record["event_name"]})
        click = self._clicks.get(adct) if adct else None
        seen = self._cookies.get(cookie) if cookie else None
        clicked = next((step for step in steps if step["what"] == "click"), None)
        return {
            "matched_by": "click id" if click else "first-party cookie" if clicked else None,
            "click": None
            if not adct
            else {
                "adct": adct,
                "known": click is not None,
                "at": click["at"] if click else None,
                "to": click["to"] if click else None,
            },
            "cookie": None
            if not cookie
            else {
                "value": cookie,
                "seen_by_pixel": seen is not None,
                "at": seen["at"] if seen else None,
                "made_by": seen["by"] if seen else None,
                "pages": seen["pages"] if seen else 0,
            },
            "steps": steps,
        }

    def _publish(self, record: Record) -> None:
        self.revision += 1
        record["revision"] = self.revision

    def _replay(self, entry: list[Any]) -> None:
        kind, now, *rest = entry
        if kind == "event":
            event, faults, verdict, dry_run = rest
            found = [(path, code, message) for path, code, message in faults]
            self._add_event(event, found, verdict, dry_run, request=0, now=now)
        elif kind == "click":
            self._add_click(rest[0], rest[1], now)
        elif kind == "pixel":
            self._add_pixel(rest[0], now)

    # -- what goes out ---------------------------------------------------------------------------

    def events(self, *, after: int = 0, **match: Any) -> list[Record]:
        """Return the kept events, oldest first, changed after revision ``after``."""
        with self.changed:
            return [
                dict(record)
                for record in self._events
                if record["revision"] > after
                and all(record.get(name) == value for name, value in match.items())
            ]

    def tracked(self) -> list[Record]:
        with self.changed:
            return [dict(record) for record in self._tracked]

    def requests(self) -> list[Record]:
        with self.changed:
            return [dict(record) for record in self._requests]

    def clicks(self) -> list[Record]:
        with self.changed:
            return [dict(record) for record in self._clicks.values()]

    def totals(self) -> Record:
        """Count everything, kept or not."""
        with self.changed:
            count = self._totals
            return {
                "requests": count["requests"],
                "events": count["events"],
                "accepted": count["accepted"],
                "rejected": count["rejected"],
                "held_back": count["held back"],
                "dry_run": count["dry run"],
                "duplicates": count["duplicates"],
                "both_sides": count["both sides"],
                "distinct_orders": len(self._orders),
                "clicks": count["clicks"],
                "pixel_pages": count["pixel cookie"],
                "pixel_events": count["pixel track"],
                "names": {
                    key.removeprefix("name:"): value
                    for key, value in sorted(count.items())
                    if key.startswith("name:")
                },
            }

    def meter(self) -> Record:
        """Coverage over all accepted events: how often each identifier was there."""
        with self.changed:
            events = self._totals["accepted"]
            share = len(rules.IDENTIFIERS) * events
            return {
                "events": events,
                "score": round(self._totals["identifiers"] / share, 3) if share else None,
                "carried": {name: self._carried[name] for name in rules.IDENTIFIERS},
            }


def _remember(where: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    where[key] = value
    where.move_to_end(key)
    while len(where) > most:
        where.popitem(last=False)


def _at(step: Record) -> float:
    return float(step["at"])


def _order_key(name: str, order: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{order}".encode("utf-8", "replace"), digest_size=12).digest()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _name(event: Any) -> str | None:
    return _text(event.get("event_name")) if isinstance(event, dict) else None


def _order(event: Any) -> str | None:
    attributes = event.get("event_attributes") if isinstance(event, dict) else None
    return _text(attributes.get("order_id")) if isinstance(attributes, dict) else None


def _host(url: Any) -> str:
    return str(url).partition("://")[2].partition("/")[0].partition("?")[0]


def _path(url: Any) -> str:
    rest = str(url or "").partition("://")[2]
    return "/" + rest.partition("/")[2].partition("?")[0].partition("#")[0]
