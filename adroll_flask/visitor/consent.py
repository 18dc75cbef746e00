"""May this visitor be tracked? The server's decision, from plain values.

Unknown counts as no. The browser's half of the decision is the kit's. A no takes the cookies back;
what is remembered of it, and erased, is told in :mod:`adroll_flask.outbox.erasure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.types import WSGIEnvironment

from werkzeug.sansio.http import parse_cookie

from adroll_flask.errors import let_through, nothing_to_await
from adroll_flask.logs import logger
from adroll_flask.redaction import describe

from .identifiers import kind

if TYPE_CHECKING:
    from .visitors import Visitors


class Decision(NamedTuple):
    """What was decided, and why."""

    #: True: cookies, session, pixel and events are allowed; ``None``: nobody has asked yet.
    granted: bool | None
    #: Why nothing may be kept or reported, as it is counted; empty: it may. ``consent_error``: the
    #: site's callable or the TC string could not be used, which is counted by itself, too.
    refusal: str


_BY_ANSWER: Mapping[bool | None, Decision] = {
    True: Decision(True, ""),
    False: Decision(False, "consent_refused"),
    None: Decision(None, "consent_unknown"),
}


def decide(visitors: Visitors, environ: WSGIEnvironment, recorded: bool | None) -> Decision:
    """Decide from the browser's signal, the site's setting and what the visitor told us before.

    What cannot be used of the site's setting is counted as ``consent_error:<why>``.

    :param environ: the request's; its cookies are read only where the TC string is needed.
    :param recorded: the answer that the kit brought in and our signed record carries.
    """
    settings = visitors.settings
    # A browser and its extension may both say it, and servers join the two.
    if settings.honor_gpc and environ.get("HTTP_SEC_GPC", "")[:1] == "1":
        return Decision(False, "consent_gpc")
    if settings.consent is None:
        return _BY_ANSWER[True]
    try:
        answer = _asked(visitors, environ)
    except _Unusable as unusable:
        why, problem = unusable.args
        # What fails for one request fails for each of them.
        if visitors.counters.add("consent_error", why):
            logger.warning("Consent counts as unknown: %s [consent-unknown]", problem)
        return Decision(None, "consent_error")
    return _BY_ANSWER[recorded if answer is None else answer]


def decide_later(visitors: Visitors, recorded: bool | None) -> Decision:
    """The decision when the browser is gone.

    :param recorded: the answer that a token carries.
    """
    if recorded is None and visitors.settings.consent is None:
        return _BY_ANSWER[True]
    return _BY_ANSWER[recorded]


class _Unusable(Exception):
    """The site's setting gives no answer. Its arguments say why: as it is counted, and in words."""


def _asked(visitors: Visitors, environ: WSGIEnvironment) -> bool | None:
    """What the server itself can see of the answer.

    :raises _Unusable: nothing that is one.
    """
    settings = visitors.settings
    ask: Any = settings.consent
    if ask == "gpp":
        # The platform's answer is in the browser: the kit tells it, and the record keeps it.
        return None
    if ask == "tcf":
        # Not werkzeug.http's, which raises where any cookie, of whatever script, is not UTF-8.
        cookies = parse_cookie(environ.get("HTTP_COOKIE"))
        # Of several, as of a host and its domain, an old yes may come before the newer no.
        texts = [text for text in cookies.getlist(settings.tcf_cookie) if text]
        if not texts:
            return None
        from .tcf import consents

        vendor = settings.tcf_vendor
        purposes = settings.tcf_purposes
        try:
            return all(consents(text, vendor=vendor, purposes=purposes) for text in texts)
        except ValueError as error:
            raise _Unusable("tc_string", f"{settings.tcf_cookie}: {error}") from None
    try:
        answer = ask(visitors.request_of(environ))
    except Exception as error:
        let_through(error)
        problem = f"the ADROLL_CONSENT callable raised {describe(error)}"
        raise _Unusable("raised", problem) from None
    if answer is None or isinstance(answer, bool):
        return answer
    # A truthy text such as "denied" must not pass for consent.
    takes = f"takes a callable that returns True, False or None{nothing_to_await(answer)}"
    raise _Unusable("wrong_type", f"ADROLL_CONSENT: {takes}; it gave {kind(answer)}")
