"""One event through the real client, and what AdRoll answers: ``send-test``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .reasons import meaning

if TYPE_CHECKING:
    from adroll_flask.runtime import Runtime


@dataclass(frozen=True, slots=True)
class SendTestResult:
    """What came of it.

    :param meaning: what the answer means, as a person reads it.
    :param request: the address and the body; the token is not in it.
    """

    ok: bool
    meaning: str
    request: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)

    def as_text(self) -> str:
        """The result as a person reads it; the token is not in it."""
        lines = []
        if self.request:
            headers = ("Authorization: Token ********", "Content-Type: application/json")
            lines += [f"POST {self.request['url']}", *headers, "Content-Encoding: gzip", ""]
            lines += [json.dumps(self.request["body"], indent=2), ""]
        if self.answer:
            lines.append(f"answer: {self.answer['status'] or 'none'} ({self.answer['reason']})")
            lines += [f"        {text}" for text in self.answer["errors"]]
        lines.append(self.meaning)
        return "\n".join(lines)


def send_test_event(runtime: Runtime, name: str) -> SendTestResult:
    """Send one event with ``dry_run=true`` through the real client.

    :param name: one of the thirteen.
    """
    from adroll_flask.delivery.client import Client
    from adroll_flask.errors import AdRollError
    from adroll_flask.events.trial import trial_event

    settings = runtime.settings
    if settings.missing:
        missing = " and ".join(settings.missing)
        return SendTestResult(
            False,
            f"{missing} not set: nothing was sent. To try things out, set ADROLL_SANDBOX to True "
            "and run `flask adroll sandbox`.",
        )
    try:
        payload = trial_event(settings.advertisable_eid, settings.pixel_eid, time.time(), name)
        client = Client(settings, runtime.transport, clock=runtime.clock)
        answer = client.send([payload], dry_run=True)
    except AdRollError as problem:
        return SendTestResult(False, f"Nothing was sent: {problem}")
    url = f"{settings.api_url}?advertisable={settings.advertisable_eid}&dry_run=true"
    errors = [str(hint) for hint in answer.errors]
    said = {"status": answer.status, "reason": answer.reason, "kind": answer.kind}
    return SendTestResult(
        ok=answer.kind == "accepted",
        meaning=meaning("answer", answer.kind).title,
        request={"url": url, "body": [json.loads(payload)]},
        answer=said | {"errors": errors},
    )
