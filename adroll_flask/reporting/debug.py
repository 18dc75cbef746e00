"""``ADROLL_DEBUG``: each event as it is reported, and what became of it, on standard error.

No visitor's values: of what a call gave, the names, and what a shop itself made of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from blinker import NamedSignal

from adroll_flask.redaction import short_key
from adroll_flask.signals import event_delivered, event_rejected

from .receipt import Receipt
from .reporter import Reporter


class TellingReporter(Reporter):
    """A reporter that says what came of each call."""

    def report(self, name: str, fields: Mapping[str, Any], **about: Any) -> Receipt:
        """As :meth:`.Reporter.report`."""
        receipt = super().report(name, fields, **about)
        order, coverage = fields.get("order_id"), receipt.coverage
        value = f"{fields.get('value', '')} {fields.get('currency', '')}".strip()
        parts = [
            f"{name} {short_key(str(order))}" if order is not None else name,
            value if value[:1].isdigit() else "",
            f"{receipt.status} {receipt.id or ''}".strip(),
            receipt.reason,
            str(coverage) if coverage.carried else "",
            f"missing: {', '.join(coverage.missing)}" if coverage.missing else "",
        ]
        _say("; ".join(part for part in parts if part))
        return receipt


def say_outcome(signal: NamedSignal, values: Mapping[str, Any]) -> None:
    """Say what delivery made of an event."""
    if signal is event_delivered:
        _say(f"{values['name']}; delivered {values['id']}" + "; maybe twice" * values["unsure"])
    elif signal is event_rejected and not values["reason"].startswith("invalid"):
        _say(f"{values['name']}; dead {values['id']}; {values['reason']}")


def _say(text: str) -> None:
    sys.stderr.write(f"AdRoll: {text}\n")
