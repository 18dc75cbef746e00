"""Every error that the package raises on purpose, and those from outside that it lets through.

::

    AdRollError
    ├── ConfigurationError      a setting is wrong or missing
    ├── EventError              an event cannot be sent as it is (also a ValueError)
    │   └── TokenError          a visitor token cannot be used
    │       ├── TokenExpiredError    ours, but too old
    │       ├── TokenForgedError     not signed with any of our keys, or cut
    │       └── TokenEmptyError      an empty text
    ├── DeliveryError           a request to AdRoll had no token or no answer; stays in delivery
    ├── ReconcileError          a list of orders cannot be read (reporting.lists)
    └── OutboxFailed            the outbox cannot be worked with (outbox.model)

No message holds a visitor's value: texts name the field and what it takes. Each error has the
address of its explanation, as the last line of its traceback and as ``help_url``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from inspect import iscoroutinefunction
from traceback import walk_stack, walk_tb
from types import FrameType, TracebackType
from typing import Any, Final

from ._version import DOCS_URL

#: What explains the errors of one field, or of one setting (in upper case, however that is spelt);
#: others have their class's explanation.
_ABOUT: Mapping[str, str] = {
    "visitor": "visitor-needed",
    "first_party_cookie": "visitor-needed",
    "adct": "visitor-needed",
    "currency": "money",
    "value": "money",
    "timestamp": "event-time",
    "products": "products",
    "product_map": "products",
    "event_name": "event-name",
    "before_report": "before-report-failed",
    "identity": "identity-function-failed",
    "hold": "hold-length",
    "ip": "proxy-address",
    "email": "email",
    "user_id": "identifiers",
    "device_id": "identifiers",
    "SECRET_KEY": "secret-key-missing",
    "OUTBOX_URL": "outbox-url",
}


def help_url(slug: str) -> str:
    """The address of what ``docs/errors.md`` says under *slug*."""
    return f"{DOCS_URL}errors.html#{slug}"


class AdRollError(Exception):
    """Base of all errors of this package."""

    #: The part of ``docs/errors.md`` that explains it.
    slug: str = "internal-fault"

    def __init__(self, text: str = "", *, slug: str | None = None) -> None:
        super().__init__(text)
        if slug is not None:
            self.slug = slug
        # Tracebacks end in it, and the text itself stays short where it is logged or kept.
        self.add_note(self.help_url)

    def __reduce__(self) -> tuple[Any, ...]:
        # Between processes (Celery, a pool) an exception is made again with its text for arguments,
        # which is not what ours take.
        return Exception.__new__, (type(self), *self.args), vars(self)

    @property
    def help_url(self) -> str:
        """The address of its explanation."""
        return help_url(self.slug)


class ConfigurationError(AdRollError):
    """A setting is wrong or missing.

    :param key: the configuration key, for example ``"ADROLL_PIXEL"``.
    :param problem: what it got (a kind, never the value) and what it takes.
    :param others: further errors of the same kind; the text has a line for each.
    :param slug: what explains it in ``docs/errors.md``.
    """

    slug = "setting"

    def __init__(
        self,
        key: str,
        problem: str,
        *,
        others: Sequence[ConfigurationError] = (),
        slug: str | None = None,
    ) -> None:
        text = "\n".join([f"{key}: {problem}", *map(str, others)])
        super().__init__(text, slug=slug or _ABOUT.get(key.upper().removeprefix("ADROLL_")))
        self.key = key
        self.problem = problem
        self.others: tuple[ConfigurationError, ...] = tuple(others)
        for address in sorted({other.help_url for other in others}.difference(self.__notes__)):
            self.add_note(address)


def refuse_asgi(app: object, call: str) -> None:
    """Refuse an ASGI app, whose name nobody else would say in its place.

    :raises ConfigurationError: *app* is one.
    """
    call_method = getattr(type(app), "__call__", None)  # noqa: B004 - which one, not whether
    if iscoroutinefunction(app) or iscoroutinefunction(call_method):
        raise ConfigurationError(
            call,
            f"takes a WSGI app; this is an ASGI app ({type(app).__module__}): wrap it, "
            "AdRollMiddleware(a2wsgi.ASGIMiddleware(app), …), and run it under a WSGI server",
            slug="asgi",
        )


class EventError(AdRollError, ValueError):
    """An event cannot be sent as it is.

    :param field: the argument at fault, for example ``"currency"`` or ``"products[1].price"``.
    :param expected: what the field takes, as a phrase; never the value that was given.
    """

    slug = "event-field"

    def __init__(self, field: str, expected: str) -> None:
        about = _ABOUT.get(field.partition("[")[0]) if self.slug == EventError.slug else None
        super().__init__(f"{field}: {expected}", slug=about)
        self.field = field
        self.expected = expected


class TokenError(EventError):
    """A visitor token cannot be used."""

    slug = "visitor-token"
    #: What is told of every error of this class.
    problem: str = "the token cannot be used"

    def __init__(self, field: str = "visitor", expected: str = "") -> None:
        super().__init__(field, expected or self.problem)


class TokenExpiredError(TokenError):
    """The token is ours but older than its ``max_age``, or than ``ADROLL_TOKEN_MAX_AGE``."""

    problem = (
        "the token has expired (its max_age, or ADROLL_TOKEN_MAX_AGE); pass adct= or "
        "first_party_cookie="
    )


class TokenForgedError(TokenError):
    """The token was not signed with one of this site's keys, or was changed or cut on its way."""

    problem = "the token is not signed with this site's key, or was cut"


class TokenEmptyError(TokenError):
    """The token is an empty text: none was stored."""

    problem = (
        "the token is empty; store current_visitor().token() with the order, or pass "
        "visitor=None where there is no visitor"
    )


class DeliveryError(AdRollError):
    """AdRoll did not take a request.

    :param reason: a short name such as ``"refused"`` or ``"read_timeout"``.
    :param text: what is told of it; without one, the reason.
    """

    slug = "request-failed"

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason)
        self.reason = reason


# -- exceptions that come from outside while we are at work ----------------------------------------
#
# Promise 1 says that a fault of ours is not the shop's: what our code raises is logged and counted.
# A time limit is neither: Celery's soft time limit and RQ's raise an `Exception` out of a signal
# handler, gevent's and eventlet's timeouts may throw one into a greenlet that waits. To swallow it
# would let the site's task run past its limit. (What is no `Exception` we never catch.)

#: Where a greenlet waits: an exception that is raised there was thrown into it.
_SWITCHES: Final = (
    "gevent._gevent_c_greenlet_primitives",
    "gevent._greenlet_primitives",
    "gevent._gevent_cgreenlet",
    "eventlet.hubs.hub",
)


def let_through(problem: BaseException) -> None:
    """Raise the exception from outside that *problem* is, or that led to it, if any.

    To be called in the ``except`` clause that would otherwise handle *problem*.

    An exception that the caller was handling when it called us is not looked at, though Python
    has it as the context of ours.
    """
    start = sys._getframe(1).f_back
    callers = {frame for frame, _line in walk_stack(start)} if start is not None else set()
    for one in causes(problem, hidden=True):
        trace = one.__traceback__
        if one is not problem and trace is not None and trace.tb_frame in callers:
            return
        if trace is not None and _from_outside(one, trace):
            raise one


def causes(problem: BaseException, *, hidden: bool = False) -> Iterator[BaseException]:
    """*problem* and what led to it, as tracebacks show it.

    :param hidden: also what ``from None`` keeps out of them.
    """
    seen: set[int] = set()
    current: BaseException | None = problem
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        context = None if current.__suppress_context__ and not hidden else current.__context__
        current = current.__cause__ or context


def _from_outside(problem: BaseException, trace: TracebackType) -> bool:
    below = trace.tb_frame
    for frame, _line in walk_tb(trace.tb_next):
        if _is_handler(frame, below):
            return True
        below = frame
    # A socket's own timeout is thrown in as well, as an OSError.
    return below.f_globals.get("__name__") in _SWITCHES and not isinstance(problem, OSError)


def _is_handler(frame: FrameType, below: FrameType) -> bool:
    """True where *frame* is a signal handler's: it was given the frame that it interrupted."""
    code = frame.f_code
    count = code.co_argcount + bool(code.co_flags & 4) + code.co_kwonlyargcount
    # Of a value of the shop's nothing is asked, not even its class: it may raise.
    return any(
        value is below or (type(value) is tuple and any(one is below for one in value))
        for value in map(frame.f_locals.get, code.co_varnames[:count])
    )
