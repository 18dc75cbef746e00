"""Asks AdRoll itself, for ``flask adroll send-test``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import Answer
    from .runtime import Runtime
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of ``flask adroll send-test``."""

    ok: bool
    meaning: str
    request: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON takes it; the token is not in it."""
        return asdict(self)

    def as_text(self) -> str:
        """The result as a person reads it; the token is not in it."""
        lines = []
        if self.request:
            lines += [
                f"POST {self.request['url']}",
                "Authorization: Token ********",
                "Content-Type: application/json",
                "Content-Encoding: gzip",
                "",
                json.dumps(self.request["body"], indent=2),
                "",
            ]
        if self.answer:
            lines.append(f"answer: {self.answer['status'] or 'none'} ({self.answer['reason']})")
            lines += [f"        {text}" for text in self.answer["errors"]]
        lines.append(self.meaning)
        return "\n".join(lines)


_MEANINGS = {
    "accepted": "AdRoll takes this event: the account, the token and the event's form are right.",
    "content": "AdRoll refuses the event's content: see its words above.",
    "too_large": "AdRoll says that one event is too large, which it is not: look for a proxy.",
    "throttled": "AdRoll asks to wait: too many requests, or it is busy. Try again later.",
    "held": "The address, the account or the token is at fault, not the event: compare "
    "ADROLL_API_URL, ADROLL_ADVERTISABLE_EID and ADROLL_ACCESS_TOKEN with what AdRoll gave you.",
    "failed_sure": "No connection to AdRoll: name resolution, firewall, proxy or TLS.",
    "unsure": "AdRoll did not answer properly; the request may have arrived. Try again later.",
}


def send_test_event(runtime: Runtime, name: str) -> Trial:
    """Send one event with ``dry_run=true`` through the real client.

    :param name: one of the thirteen.
    """
    from .client import Client
    from .context import Context
    from .errors import AdRollError
    from .events import build

    settings = runtime.settings
    if settings.missing:
        return Trial(False, f"{' and '.join(settings.missing)} not set: nothing was sent.")
    now = time.time()
    fields: dict[str, Any] = {}
    if name == "purchase":
        fields = {"order_id": "send-test", "value": "1.00", "currency": "USD"}
    context = Context(
        advertisable_eid=settings.advertisable_eid,
        pixel_eid=settings.pixel_eid,
        now=now,
        page_location="https://example.com/adroll-flask-send-test",
        # TEST-NET-3 (RFC 5737): an address that is nobody's.
        ip="203.0.113.1",
        user_agent="adroll_flask send-test",
        adct="adroll-flask-send-test",
    )
    try:
        built = build(name, fields, context, strict=True)
        answer = Client(settings, runtime.transport, clock=runtime.clock).send(
            [built.payload], dry_run=True
        )
    except AdRollError as problem:
        return Trial(False, f"Nothing was sent: {problem}")
    return _result(settings, json.loads(built.payload), answer)


def _result(settings: Settings, body: dict[str, Any], answer: Answer) -> Trial:
    return Trial(
        ok=answer.kind == "accepted",
        meaning=_MEANINGS[answer.kind],
        request={
            "url": f"{settings.api_url}?advertisable={settings.advertisable_eid}&dry_run=true",
            "body": [body],
        },
        answer={
            "status": answer.status,
            "reason": answer.reason,
            "kind": answer.kind,
            "errors": [str(hint) for hint in answer.errors],
        },
    )
