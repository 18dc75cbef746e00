"""May this visitor be followed? The server's decision, from plain values.

Unknown counts as no. The browser's half of the decision is the kit's.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.types import WSGIEnvironment

from werkzeug.sansio.http import parse_cookie

from adroll_flask.errors import ConfigurationError, let_through
from adroll_flask.logs import logger
from adroll_flask.redaction import describe

if TYPE_CHECKING:
    from .record import Visitors


class Decision(NamedTuple):
    """What was decided, and why.

    >>> bool(Decision(None, "unknown").granted)
    False
    """

    #: True: cookies, session, pixel and events are allowed; ``None``: nobody has asked yet.
    granted: bool | None
    #: ``"granted"``, ``"refused"``, ``"gpc"``, ``"unknown"``, ``"error"`` (the site's callable or
    #: the TC string could not be used; counted) or ``"default"`` (no consent is configured).
    reason: str

    @property
    def refusal(self) -> str:
        """Why nothing may be kept or reported, as it is counted; empty: it may."""
        return "" if self.granted else f"consent_{self.reason}"


_BY_ANSWER: Mapping[bool | None, Decision] = {
    True: Decision(True, "granted"),
    False: Decision(False, "refused"),
    None: Decision(None, "unknown"),
}
_DEFAULT = Decision(True, "default")


def decide(visitors: Visitors, environ: WSGIEnvironment, recorded: bool | None) -> Decision:
    """Decide from the browser's signal, the site's setting and what the visitor told us before.

    What cannot be used of the site's setting is counted as ``consent_error:<why>``.

    :param environ: the request's; its cookies are read only where the TC string is needed.
    :param recorded: the answer that the kit brought in and our signed record carries.
    """
    settings = visitors.settings
    if settings.honor_gpc and environ.get("HTTP_SEC_GPC") == "1":
        return Decision(False, "gpc")
    if settings.consent is None:
        return _DEFAULT
    answer, why, problem = _asked(visitors, environ)
    if why:
        # What fails for one request fails for each of them.
        if visitors.counters.add("consent_error", why):
            logger.warning("Consent counts as unknown: %s [consent-unknown]", problem)
        return Decision(None, "error")
    return _BY_ANSWER[recorded if answer is None else answer]


def decide_later(visitors: Visitors, recorded: bool | None) -> Decision:
    """The decision when the browser is gone.

    :param recorded: the answer that a token carries.
    """
    is_default = recorded is None and visitors.settings.consent is None
    return _DEFAULT if is_default else _BY_ANSWER[recorded]


def _asked(visitors: Visitors, environ: WSGIEnvironment) -> tuple[bool | None, str, str]:
    """The answer; why there is none that can be used, as it is counted and as it is told."""
    settings = visitors.settings
    ask: Any = settings.consent
    if ask == "tcf":
        # Not werkzeug.http's, which raises where any cookie, of whatever script, is not UTF-8.
        text = parse_cookie(environ.get("HTTP_COOKIE")).get(settings.tcf_cookie)
        if not text:
            return None, "", ""
        from .tcf import consents

        try:
            vendor, purposes = settings.tcf_vendor, settings.tcf_purposes
            return consents(text, vendor=vendor, purposes=purposes), "", ""
        except ValueError as error:
            return None, "tc_string", f"{settings.tcf_cookie}: {error}"
    try:
        answer = ask(visitors.request_of(environ))
    except Exception as error:
        let_through(error)
        return None, "raised", f"the ADROLL_CONSENT callable raised {describe(error)}"
    if answer is None or isinstance(answer, bool):
        return answer, "", ""
    if inspect.iscoroutine(answer):
        answer.close()
    # A truthy text such as "denied" must not pass for consent.
    takes = "takes a callable that returns True, False or None"
    problem = ConfigurationError("ADROLL_CONSENT", f"{takes}; it gave a {type(answer).__name__}")
    return None, "wrong_type", str(problem)
