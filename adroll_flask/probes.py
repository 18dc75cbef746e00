"""Looks at a live page and at AdRoll itself, for ``flask adroll check --url`` and ``send-test``."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .checks import Finding
from .redaction import describe, safe_url
from .visitor import FIRST_PARTY_COOKIE, RECORD_COOKIE

if TYPE_CHECKING:
    from .answers import Answer
    from .runtime import Runtime
    from .settings import Settings

_TIMEOUT = (5.0, 15.0)


def check_url(url: str, settings: Settings) -> list[Finding]:
    """Fetch a page twice, as two new visitors, and judge its cacheability and the snippet.

    :param url: a page of the site, as visitors reach it.
    """
    import requests

    subject = safe_url(url)
    if urlsplit(url).scheme not in ("http", "https"):
        return [Finding("error", "--url", "takes a full http or https URL")]
    try:
        with requests.Session() as session:
            first = session.get(url, timeout=_TIMEOUT, headers=_document())
        with requests.Session() as session:
            second = session.get(url, timeout=_TIMEOUT, headers=_document())
            tag = second.headers.get("ETag")
            third = None
            if tag:
                headers = {**_document(), "If-None-Match": tag}
                session.cookies.clear()
                third = session.get(url, timeout=_TIMEOUT, headers=headers)
    except requests.RequestException as problem:
        return [Finding("error", subject, f"could not be fetched: {describe(problem)}")]
    findings: list[Finding] = []
    ours = _set_by_us(first) | _set_by_us(second)
    control = first.headers.get("Cache-Control", "")
    cacheable = _shared_cacheable(first.headers)
    if cacheable and ours:
        findings.append(
            Finding(
                "error",
                subject,
                f"may be kept by a shared cache ({control or 'by its headers'}) and sets "
                f"{' and '.join(sorted(ours))}: visitors would share an identity",
                "is a proxy adding cache headers after the app? List the path in "
                "ADROLL_CACHED_PATHS",
            )
        )
    elif cacheable:
        findings.append(Finding("ok", subject, "as cacheable as it was: no cookie of ours"))
    elif ours and control.strip().lower() == "private":
        findings.append(
            Finding(
                "info",
                subject,
                "says nothing about caching itself; where we set a cookie it became private",
                "a CDN that caches it all the same needs the path in ADROLL_CACHED_PATHS",
            )
        )
    else:
        findings.append(Finding("ok", subject, "its own cache headers are as the site set them"))
    vary = {name.strip().lower() for name in first.headers.get("Vary", "").split(",")}
    if cacheable and "cookie" in vary:
        findings.append(
            Finding(
                "warning",
                subject,
                "is cacheable but varies by Cookie: a cache keeps one copy a visitor",
                "a view that calls current_visitor() or reads the session does this",
            )
        )
    if first.headers.get("Age") or "hit" in first.headers.get("X-Cache", "").lower():
        findings.append(Finding("info", subject, "came from a cache"))
    if third is not None:
        same = third.status_code == 304
        findings.append(
            Finding(
                "ok" if same else "warning",
                subject,
                "a conditional request is answered 304"
                if same
                else f"a conditional request with its own ETag is answered {third.status_code}",
            )
        )
    return findings + _snippet(subject, first, settings)


def _document() -> dict[str, str]:
    return {"Sec-Fetch-Dest": "document", "Accept": "text/html", "User-Agent": "adroll_flask check"}


def _set_by_us(response: Any) -> set[str]:
    names = {cookie.name for cookie in response.cookies}
    for earlier in response.history:
        names |= {cookie.name for cookie in earlier.cookies}
    return names & {RECORD_COOKIE, FIRST_PARTY_COOKIE}


def _shared_cacheable(headers: Any) -> bool:
    control = headers.get("Cache-Control", "").lower()
    if "no-store" in control or "private" in control:
        return False
    return (
        any(word in control for word in ("public", "s-maxage"))
        or ("max-age=" in control and "max-age=0" not in control)
        or "CDN-Cache-Control" in headers
        or "Surrogate-Control" in headers
    )


def _snippet(subject: str, response: Any, settings: Settings) -> list[Finding]:
    if "text/html" not in response.headers.get("Content-Type", ""):
        return [Finding("info", subject, "is no HTML page")]
    count = response.text.count("data-adroll")
    findings = []
    if count == 0:
        findings.append(
            Finding(
                "error" if settings.inject else "warning",
                subject,
                "does not carry the snippet",
                "is the page compressed before AdRoll sees it? Call AdRoll's init_app after the "
                "compressing extension's; or place {{ adroll_snippet() }} in the template",
            )
        )
    elif count > 1:
        findings.append(
            Finding("warning", subject, f"carries the snippet {count} times", "place it once")
        )
    else:
        findings.append(Finding("ok", subject, "carries the snippet once"))
    policy = response.headers.get("Content-Security-Policy", "")
    if policy and "strict-dynamic" in policy and settings.csp_nonce is None:
        findings.append(
            Finding(
                "error",
                subject,
                "its Content-Security-Policy has strict-dynamic, and the tag has no nonce",
                "set ADROLL_CSP_NONCE",
            )
        )
    return findings


# -- send-test -----------------------------------------------------------------------------


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
            "errors": [
                " ".join(part for part in (hint.field, hint.message, hint.code) if part)
                for hint in answer.errors
            ],
        },
    )
