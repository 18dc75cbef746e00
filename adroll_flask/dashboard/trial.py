"""Try it out: a test event, the last dry runs, and all that ``flask adroll check`` finds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flask import current_app

from adroll_flask.checks.app import check_app
from adroll_flask.checks.send_test import keep_result, send_test_event
from adroll_flask.events.names import EVENT_NAMES
from adroll_flask.redaction import short_key

from .page import Data, Done, Page, Visit

#: Dry runs that are listed.
_LISTED: Final = 20
_UNASKED: Final = (
    "the site's own endpoints are not asked from here, where visitors are served: flask adroll"
    " check asks them"
)
_ORDER: Final = ("error", "warning", "info", "ok")


def data(visit: Visit) -> Data:
    """What is wrong, and the last dry runs."""
    app: Any = current_app
    runtime, store = visit.runtime, visit.store
    findings = check_app(app._get_current_object(), runtime, unasked=_UNASKED)
    trials = () if store is None else store.trials.newest()
    lookup = None if store is None else store.dead_letters
    dry_runs = () if lookup is None else lookup.newest_events(_LISTED, dry_runs=True)
    return {
        "findings": [
            finding.as_dict()
            for finding in sorted(findings, key=lambda finding: _ORDER.index(finding.level))
        ],
        "trials": [trial._asdict() for trial in trials],
        "dry_runs": [
            {
                "id": row.id,
                "name": row.name,
                "order": short_key(row.key) if row.key else "",
                "state": row.state,
                "occurred_at": row.occurred_at,
                "why": ": ".join(part for part in (row.reason, row.error) if part),
            }
            for row in dry_runs
        ],
        "sent": None,
    }


def send(visit: Visit) -> Done | Data:
    """Send one made-up event with ``dry_run=true``: AdRoll checks it and forgets it."""
    name = visit.request.form.get("event", "pageView")
    if name not in EVENT_NAMES:
        return Done("There is no such event.", good=False)
    result = send_test_event(visit.runtime, name)
    keep_result(visit.runtime, name, result)
    body = json.dumps(result.request["body"], indent=2) if result.request else ""
    return {**data(visit), "sent": {**result.as_dict(), "name": name, "body": body}}


def rows(data: Data) -> Iterator[Mapping[str, object]]:
    """What was found."""
    yield from data["findings"]


def view(_visit: Visit, _data: Data) -> Data:
    """What the template has beside the data."""
    return {"event_names": EVENT_NAMES}


PAGE: Final = Page("test", "Test", data, rows, actions={"send": send}, view=view)
