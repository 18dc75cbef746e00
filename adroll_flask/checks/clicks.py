"""Sends a click id along a page's redirects, and names the hop at which it gets lost."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from adroll_flask.redaction import safe_url
from adroll_flask.visitor.records import RECORD_COOKIE

from .finding import Finding

_TIMEOUT = (5.0, 15.0)
#: As many as browsers follow (Fetch, "HTTP-redirect fetch", step 7).
_MOST_HOPS = 20
#: What is looked for in a page that may redirect by itself, bytes.
_MOST_HTML = 100_000
_REFRESH = re.compile(
    r"<meta\b[^>]*http-equiv\s*=\s*[\"']?refresh\b[^>]*\bcontent\s*=\s*"
    r"(?:\"\s*[\d.]+\s*[;,]\s*(?:url\s*=\s*)?'?([^\"']+)|'\s*[\d.]+\s*[;,]\s*(?:url\s*=\s*)?([^']+))",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"[a-z]{2}([_-][a-z]{2})?\Z", re.IGNORECASE)
_CONSENT = re.compile(r"consent|cookie|privacy|gdpr|age-?(check|gate|verification)", re.IGNORECASE)
_ADCT = re.compile(r"(?:^|[?&#])adct=([^&#]*)")
_MORE = "docs/how-to/click-trackers.md has each case"
_FLASK = 'in Flask redirect(f"{url_for(…)}?{request.query_string.decode()}")'


def click_findings(url: str) -> list[Finding]:
    """Follow *url* as a click on an ad does, with a click id that AdRoll never gave.

    An https page is also asked for by http, as an old ad would.

    :raises requests.RequestException: a hop could not be fetched.
    """
    import requests

    findings = [_follow(url)]
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.port is None:
        try:
            plain = _follow(urlunsplit(parts._replace(scheme="http")))
        except requests.RequestException:
            # Nothing answers there: no ad leads there either.
            return findings
        if plain.level != "ok":
            findings.append(plain)
    return findings


def _follow(url: str) -> Finding:
    import requests

    probe = f"check-{secrets.token_hex(8)}"
    at = _with_adct(url, probe)
    subject = safe_url(url)
    lost: Finding | None = None
    with requests.Session() as session:
        # What a browser sends with a click on a link.
        session.headers.update(
            {
                "User-Agent": "adroll_flask check",
                "Accept": "text/html",
                "Accept-Language": "en",
                "Sec-Fetch-Dest": "document",
            }
        )
        for hop in range(1, _MOST_HOPS + 1):
            response = session.get(at, timeout=_TIMEOUT, allow_redirects=False, stream=True)
            with response:
                to = _next(response, at)
            if to is None:
                return _arrived(subject, hop - 1, lost)
            if not _is_web(to):
                return Finding(
                    "error",
                    subject,
                    f"hop {hop} leads to an address that is no page",
                    _MORE,
                    slug="click-lost",
                )
            carried = _carried(to, probe)
            if lost is None and carried != "whole":
                lost = _lost(subject, hop, at, to, carried)
            if lost is not None and not _keeps_record(session, to):
                # The app itself, where a hop is its own, keeps a click in its cookie.
                return lost
            at = to
    return Finding(
        "error",
        subject,
        f"redirects more than {_MOST_HOPS} times: no browser arrives",
        "a page that redirects until a cookie is set loops for visitors who keep none",
        slug="click-lost",
    )


def _with_adct(url: str, probe: str) -> str:
    parts = urlsplit(url)
    query = f"{parts.query}&adct={probe}" if parts.query else f"adct={probe}"
    return urlunsplit(parts._replace(query=query, path=parts.path or "/"))


def _next(response: Any, at: str) -> str | None:
    """Where a response leads, by its status or by the page itself; ``None``: it is the end."""
    if 300 <= response.status_code < 400 and "Location" in response.headers:
        # requests reads headers as Latin-1; browsers as UTF-8.
        raw: bytes = response.headers["Location"].encode("latin-1", "replace")
        return urljoin(at, raw.decode(errors="replace"))
    if "text/html" in response.headers.get("Content-Type", "").lower():
        start = next(response.iter_content(_MOST_HTML), b"").decode(errors="replace")
        found = _REFRESH.search(start)
        if found:
            return urljoin(at, unescape(found[1] or found[2]).strip())
    return None


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _carried(url: str, probe: str) -> str:
    """``whole``, ``inside`` (in another parameter), ``changed`` or ``lost``."""
    values = _ADCT.findall(url)
    if probe in values:
        return "whole"
    if values:
        return "changed"
    for _ in range(3):
        if probe in url:
            return "inside"
        url = unquote(url)
    return "lost"


def _keeps_record(session: Any, to: str) -> bool:
    import requests

    asked = session.prepare_request(requests.Request("GET", to))
    return RECORD_COOKIE in asked.headers.get("Cookie", "")


def _arrived(subject: str, hops: int, lost: Finding | None) -> Finding:
    if lost is not None:
        return Finding(
            "ok",
            subject,
            f"a click id arrives: {lost.text}, but by then the app has it in its cookie",
        )
    way = "" if not hops else " over 1 redirect" if hops == 1 else f" over {hops} redirects"
    return Finding("ok", subject, f"a click id arrives{way}")


def _lost(subject: str, hop: int, at: str, to: str, carried: str) -> Finding:
    why, fix = _cause(urlsplit(at), urlsplit(to))
    step = f"hop {hop}, {safe_url(at)} to {safe_url(to)}"
    text = {
        "changed": f"the click id is changed at {step} ({why})",
        "inside": f"the click id is put into another parameter at {step} ({why}), and gets lost "
        "unless the page there hands it on",
        "lost": f"the click id gets lost at {step} ({why})",
    }[carried]
    return Finding("error", subject, text, f"{fix}; {_MORE}", slug="click-lost")


def _cause(at: SplitResult, to: SplitResult) -> tuple[str, str]:
    """What kind of redirect this is, and how that kind keeps the query."""
    same_path = (at.path or "/") == (to.path or "/")
    mine, theirs = at.hostname or "", to.hostname or ""
    if _CONSENT.search(to.path) or _CONSENT.search(theirs.partition(".")[0]):
        return "a consent page", f"give it the query as well, and back: {_FLASK}"
    if mine == theirs and (at.scheme, to.scheme) == ("http", "https") and same_path:
        return "from http to https", "nginx: return 301 https://$host$request_uri;"
    if mine.removeprefix("www.") == theirs.removeprefix("www.") and mine != theirs:
        return "from one name of the site to another", (
            f"nginx: return 301 $scheme://{theirs}$request_uri;"
        )
    if mine != theirs:
        return "a click tracker, or another site", (
            "have the tracker hand its query on to the page (most have a setting for it, or a "
            "macro to put at the end of the target)"
        )
    if not same_path and at.path.rstrip("/") == to.path.rstrip("/"):
        return "a trailing slash", (
            "nginx: return 301 $uri/$is_args$args; (Flask's own redirect keeps the query)"
        )
    if any(_LANGUAGE.match(part) for part in _added(at.path, to.path)):
        return "a choice of language", f"nginx: return 302 /en$request_uri; {_FLASK}"
    return "a redirect of the site's own", (
        f"nginx: add $is_args$args to the target, or use $request_uri; {_FLASK}"
    )


def _added(before: str, after: str) -> Iterator[str]:
    known = set(before.split("/"))
    return (part for part in after.split("/") if part and part not in known)
