"""May this visitor be followed? The server's decision, from plain values.

Unknown counts as no. The browser's half of the decision is the kit's.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adroll_flask.counters import Counters
from adroll_flask.errors import ConfigurationError, help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe
from adroll_flask.settings import Settings

logger: Logger = get_logger("adroll_flask")


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and why.

    >>> Decision(False, None, "unknown").granted
    False
    """

    #: Cookies, session, pixel and events are allowed.
    granted: bool
    #: The visitor's answer: ``None`` where nobody has asked yet.
    answer: bool | None
    #: ``"granted"``, ``"refused"``, ``"gpc"``, ``"unknown"``, ``"error"`` (the site's callable or
    #: the TC string could not be used; counted) or ``"default"`` (no consent is configured).
    reason: str


_BY_ANSWER: Mapping[bool | None, Decision] = {
    True: Decision(True, True, "granted"),
    False: Decision(False, False, "refused"),
    None: Decision(False, None, "unknown"),
}
_DEFAULT = Decision(True, True, "default")
_GPC = Decision(False, False, "gpc")
_ERROR = Decision(False, None, "error")


def decide(
    settings: Settings,
    *,
    gpc: bool,
    cookies: Callable[[], Mapping[str, str]],
    request: object,
    recorded: bool | None,
    counters: Counters,
) -> Decision:
    """Decide from the browser's signal, the site's setting and what the visitor told us before.

    :param settings: ``consent``, ``honor_gpc`` and the ``tcf_*`` keys are read.
    :param gpc: the request carried ``Sec-GPC: 1``.
    :param cookies: gives the request's cookies; asked only where the TC string is needed.
    :param request: handed to the site's callable as it is.
    :param recorded: the answer that the kit brought in and our signed record carries.
    :param counters: ``consent_error:<why>`` counts what could not be used.

    >>> decide(Settings(), gpc=True, cookies=dict, request=None, recorded=None,
    ...        counters=Counters()).reason
    'gpc'
    """
    if gpc and settings.honor_gpc:
        return _GPC
    if settings.consent is None:
        return _DEFAULT
    if settings.consent == "tcf":
        text = cookies().get(settings.tcf_cookie)
        return _of_tc_string(text, settings, counters) if text else _BY_ANSWER[recorded]
    if not callable(settings.consent):
        return _ERROR  # Settings.from_mapping lets no other value through
    return _of_callable(settings.consent, request, recorded, counters)


def _of_callable(
    ask: Callable[[object], object], request: object, recorded: bool | None, counters: Counters
) -> Decision:
    try:
        answer = ask(request)
    except Exception as error:
        let_through(error)
        _report("raised", f"the ADROLL_CONSENT callable raised {describe(error)}", counters)
        return _ERROR
    if answer is None:
        return _BY_ANSWER[recorded]
    if answer is True or answer is False:
        return _BY_ANSWER[answer]
    if inspect.iscoroutine(answer):
        answer.close()
    # A truthy text such as "denied" must not pass for consent.
    problem = (
        f"takes a callable that returns True, False or None; it gave a {type(answer).__name__}"
    )
    _report("wrong_type", str(ConfigurationError("ADROLL_CONSENT", problem)), counters)
    return _ERROR


def _of_tc_string(text: str, settings: Settings, counters: Counters) -> Decision:
    from .tcf import consents

    try:
        answer = consents(text, vendor=settings.tcf_vendor, purposes=settings.tcf_purposes)
    except ValueError as error:
        _report("tc_string", f"{settings.tcf_cookie}: {error}", counters)
        return _ERROR
    return _BY_ANSWER[answer]


def _report(why: str, text: str, counters: Counters) -> None:
    # Once per app at WARNING: what fails for one request fails for each of them.
    level = logging.DEBUG if counters.get("consent_error", why) else logging.WARNING
    counters.add("consent_error", why)
    logger.log(level, "Consent counts as unknown: %s (%s)", text, help_url("consent-unknown"))
