"""Reporting events that were kept elsewhere: an export, an API payload, a shop's own list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import EventError

if TYPE_CHECKING:
    from .outbox import NewEvent
    from .runtime import Runtime

_MOST_FAULTS = 100


def import_lines(
    runtime: Runtime, lines: Iterable[str], *, only_check: bool = False
) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """Put each line's event into the outbox.

    :param lines: one JSON object each, see ``flask adroll import --help``.
    :param only_check: check them and keep nothing.
    :returns: counts by status, and the faulty lines' numbers with what is wrong (the first 100).
    """
    counts: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            new = _event(runtime, line)
        except EventError as problem:
            counts["invalid"] += 1
            if len(faults) < _MOST_FAULTS:
                faults.append((number, str(problem)))
            continue
        status = "good" if only_check else runtime.outbox.put(new).status
        counts[status] += 1
    return dict(counts), faults


def _event(runtime: Runtime, line: str) -> NewEvent:
    from .context import Context
    from .events import build, recheck_wire, wire_bytes
    from .outbox import NewEvent, new_id

    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise EventError("line", "takes one JSON object") from None
    if not isinstance(data, Mapping):
        raise EventError("line", "takes one JSON object")
    settings = runtime.settings
    now = runtime.clock()
    key: Any = None
    if isinstance(data.get("event"), Mapping):  # an export's line
        key = data.get("deduplication_key")
        data = data["event"]
    if "event_name" in data:
        event = recheck_wire(json.dumps(data), email_forms=settings.email, now=now)
        key = key or event.order_id
    else:
        fields = {name: value for name, value in data.items() if name != "name"}
        context = Context(
            advertisable_eid=settings.advertisable_eid,
            pixel_eid=settings.pixel_eid,
            now=now,
            email_forms=settings.email,
            derive_key=runtime.site.records.derive_key,
        )
        built = build(data.get("name", ""), fields, context, strict=True)
        event, key = built.event, built.key
    return NewEvent(
        id=new_id(now),
        name=event.event_name,
        advertisable_eid=event.advertisable_eid or settings.advertisable_eid or "",
        dry_run=settings.dry_run,
        key=key,
        payload=wire_bytes(event),
        occurred_at=event.timestamp,
        digest=None if key is None else f"{event.value} {event.currency}",
    )
