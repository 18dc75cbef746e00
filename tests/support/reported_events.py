"""What an app's outbox holds, as AdRoll's JSON."""

from __future__ import annotations

import json
from typing import Any

from adroll_flask import AdRollMiddleware


def kept(app: Any, state: Any = None) -> list[dict[str, Any]]:
    """The events of a Flask app or of the middleware, oldest first."""
    runtime = app.runtime if isinstance(app, AdRollMiddleware) else app.extensions["adroll"]
    shown = [runtime.outbox.lookups.show(row.id) for row in runtime.outbox.lookups.list(state)]
    # An id begins with its time. Times in the outbox are the database's: of two events that
    # were taken in one after the other on a busy machine, the later one may seem the older.
    rows = sorted((row for row in shown if row is not None), key=lambda row: row.id)
    return [json.loads(row.payload) for row in rows if row.payload]
