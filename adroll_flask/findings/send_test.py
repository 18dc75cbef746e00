"""One event through the real client, and what AdRoll answers: ``send-test``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from adroll_flask.errors import AdRollError
from adroll_flask.events.build import trial_event

from .reasons import meaning

if TYPE_CHECKING:
    from adroll_flask.runtime import Runtime


_HEADERS: Final = (
    "Authorization: Token ********",
    "Content-Type: application/json",
    "Content-Encoding: gzip",
)


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
            body = json.dumps(self.request["body"], indent=2)
            lines = [f"POST {self.request['url']}", *_HEADERS, "", body, ""]
        if self.answer:
            lines.append(f"answer: {self.answer['status'] or 'none'} ({self.answer['reason']})")
            lines += [f"        {text}" for text in self.answer["errors"]]
        return "\n".join([*lines, self.meaning])


def send_test_event(runtime: Runtime, name: str) -> SendTestResult:
    """Send one event with ``dry_run=true`` through the real client.

    :param name: one of the thirteen.
    """
    from adroll_flask.delivery.client import Client

    settings = runtime.settings
    if missing := " and ".join(settings.missing):
        return SendTestResult(False, f"{missing} not set: {meaning('answer', 'none').title}")
    try:
        payload = trial_event(settings.account, time.time(), name)
        client = Client(settings, runtime.transport, clock=runtime.clock)
        answer = client.send([payload], dry_run=True)
    except AdRollError as problem:
        return SendTestResult(False, f"Nothing was sent: {problem}")
    url = f"{settings.api_url}?advertisable={settings.advertisable_eid}&dry_run=true"
    said: dict[str, Any] = {"status": answer.status, "reason": answer.reason, "kind": answer.kind}
    said["errors"] = [*answer.errors]
    request = {"url": url, "body": [json.loads(payload)]}
    title = meaning("answer", answer.kind).title
    return SendTestResult(answer.kind == "accepted", title, request, said)
