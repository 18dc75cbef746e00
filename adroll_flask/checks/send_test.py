"""One event through the real client, and what AdRoll answers: ``send-test`` and the dashboard."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adroll_flask.delivery.answers import Answer
    from adroll_flask.runtime import Runtime
    from adroll_flask.settings import Settings


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
        answer = Client(settings, runtime.transport, clock=runtime.clock).send(
            [payload], dry_run=True
        )
    except AdRollError as problem:
        return SendTestResult(False, f"Nothing was sent: {problem}")
    return _result(settings, json.loads(payload), answer)


def _result(settings: Settings, body: dict[str, Any], answer: Answer) -> SendTestResult:
    return SendTestResult(
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


def keep_result(runtime: Runtime, name: str, result: SendTestResult) -> bool:
    """Keep what came of one for the dashboard's page Test; False: the outbox cannot take it.

    Nothing of it is kept where nothing was sent.
    """
    from adroll_flask.errors import AdRollError

    answer = result.answer
    if not answer:
        return False
    try:
        runtime.outbox.trials.keep(
            name,
            good=result.ok,
            answer=str(answer["status"] or answer["reason"]),
            words="; ".join(answer["errors"]),
        )
    except AdRollError:
        return False  # what was asked for is the answer
    return True
