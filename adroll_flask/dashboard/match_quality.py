"""Which identifiers events carry, the one next step that would add most, and how fresh they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from adroll_flask.events.coverage import BITS, names_off
from adroll_flask.outbox.schema import DELAYS

from . import plots
from .next_steps import next_step
from .page import Data, Page, Visit
from .periods import PERIOD, PERIODS, chosen, named

if TYPE_CHECKING:
    from adroll_flask.outbox.protocol import HistoryColumn, HistorySum

#: The name in the query of the event whose shares are plotted.
EVENT: Final = "event"
_ALL: Final = "all"
_COLUMNS: Final[tuple[HistoryColumn, ...]] = ("event_name", "outcome", "identifiers")
#: How people call the identifiers.
LABELS: Final = {
    "adct": "click id",
    "first_party_cookie": "first-party cookie",
    "email": "e-mail in plain",
    "email_sha256": "e-mail, SHA-256",
    "email_md5": "e-mail, MD5",
    "user_id": "user id",
    "device_id": "device id",
}
_TONES: Final = ("one", "two", "three", "four", "five", "six", "soft")


def data(visit: Visit) -> Data:
    """The identifiers of what was delivered in the chosen span."""
    period = chosen(visit.argument(PERIOD), "month")
    sums = [
        row
        for row in visit.sums.of(visit.store, period, visit.now, _COLUMNS, delays=True)
        if row.outcome == "delivered"
    ]
    off = names_off(visit.runtime.settings.email)
    names = [name for name in BITS if name not in off or _with(sums, name)]
    events = sorted({row.event_name for row in sums}, key=lambda name: (name != "purchase", name))
    event = visit.argument(EVENT, "purchase" if "purchase" in events else _ALL)
    shown = [row for row in sums if event in (_ALL, row.event_name)]
    total = sum(row.events for row in shown)
    shares = {name: _share(_with(shown, name), total) for name in names}
    return {
        "period": period.name,
        "span": period.title,
        "event": event,
        "events": events,
        "delivered": total,
        "identifiers": [
            {"name": name, "label": LABELS[name], "share": shares[name]}
            | {"events": _with(shown, name)}
            for name in names
        ],
        "off": [LABELS[name] for name in off],
        "mean": _mean(shown, names),
        "next": _next(visit, event, names),
        "by_event": [_of_event(name, sums, names) for name in events],
        "steps": _steps(period.steps(visit.now), shown, names),
        "freshness": _freshness(shown),
    }


def _next(visit: Visit, event: str, names: Sequence[str]) -> dict[str, Any] | None:
    """The next step, by the last week's events: what is done already needs no advice."""
    rows = [
        row
        for row in visit.sums.of(visit.store, named("week"), visit.now, _COLUMNS, delays=True)
        if row.outcome == "delivered" and event in (_ALL, row.event_name)
    ]
    total = sum(row.events for row in rows)
    if not total:
        return None
    shares = {name: _share(_with(rows, name), total) for name in names}
    return next_step(shares, visit.runtime.settings)._asdict()


def _with(rows: Iterable[HistorySum], name: str) -> int:
    """Events that carry an identifier."""
    return sum(row.events for row in rows if row.identifiers & BITS[name])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(rows: Sequence[HistorySum], names: Sequence[str]) -> float | None:
    """How many identifiers an event carries."""
    total = sum(row.events for row in rows)
    return sum(_with(rows, name) for name in names) / total if total else None


def _of_event(event: str, sums: Sequence[HistorySum], names: Sequence[str]) -> dict[str, Any]:
    rows = [row for row in sums if row.event_name == event]
    total = sum(row.events for row in rows)
    shares = {name: _share(_with(rows, name), total) for name in names}
    return {"event": event, "events": total, "mean": _mean(rows, names), "shares": shares}


def _steps(
    begins: Sequence[int], rows: Sequence[HistorySum], names: Sequence[str]
) -> list[dict[str, Any]]:
    totals: Counter[int] = Counter()
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for row in rows:
        totals[row.at] += row.events
        for name in names:
            if row.identifiers & BITS[name]:
                counts[name][row.at] += row.events
    return [
        {"at": at, "events": totals[at]}
        | {"shares": {name: _share(counts[name][at], totals[at]) for name in names}}
        for at in begins
    ]


def _freshness(rows: Sequence[HistorySum]) -> dict[str, Any]:
    """How long it took from event to delivery."""
    delays = [sum(column) for column in zip(*(row.delays for row in rows), strict=True)]
    total = sum(delays)
    buckets = []
    passed = 0
    for place, events in enumerate(delays):
        passed += events
        end = DELAYS[place] if place < len(DELAYS) else None
        buckets.append({"within": end, "events": events, "share": _share(passed, total)})
    return {
        "median": _within(buckets, 0.5),
        "most": _within(buckets, 0.95),
        "buckets": buckets,
    }


def _within(buckets: Sequence[Mapping[str, Any]], share: float) -> int | None:
    """Seconds within which *share* were delivered; ``None``: more than a day, or none at all."""
    for bucket in buckets:
        if bucket["share"] is not None and bucket["share"] >= share:
            return bucket["within"]  # type: ignore[no-any-return]
    return None


def rows(data: Data) -> Iterable[Mapping[str, object]]:
    """The share of each identifier by event."""
    for one in data["by_event"]:
        for name, share in one["shares"].items():
            yield {
                "event": one["event"],
                "delivered": one["events"],
                "identifier": name,
                "share": "" if share is None else f"{share:.4f}",
            }


def duration(seconds: int | None) -> str:
    """The end of a bucket: ``5 s``, ``15 min``, ``6 h``, ``1 day``; ``None``: ``longer``."""
    if seconds is None:
        return "longer"
    for size, unit in ((86_400, "day"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def view(visit: Visit, data: Data) -> Data:
    """What the template needs beside the data."""
    period, steps = chosen(visit.argument(PERIOD), "month"), data["steps"]
    buckets = data["freshness"]["buckets"]
    labels = [duration(bucket["within"]) for bucket in buckets]
    return {
        "periods": PERIODS,
        "duration": duration,
        "labels": LABELS,
        "tones": dict(zip(BITS, _TONES, strict=True)),
        "plot": plots.lines(
            [period.label(step["at"]) for step in steps],
            [period.full(step["at"]) for step in steps],
            [
                plots.Series(
                    one["label"],
                    _TONES[list(BITS).index(one["name"])],
                    [step["shares"][one["name"]] for step in steps],
                )
                for one in data["identifiers"]
            ],
            top=1.0,
        ),
        "delays": plots.stacked(
            labels,
            [f"within {label}" if label != "longer" else label for label in labels],
            [plots.Series("delivered", "one", [bucket["events"] for bucket in buckets])],
        ),
    }


PAGE = Page("match-quality", "Match quality", data, rows, view=view, arguments=(PERIOD, EVENT))
