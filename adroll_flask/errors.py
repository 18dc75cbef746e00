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
    │   └── NoAnswer                 no answer came (delivery.transport)
    ├── ReconcileError          a list of orders cannot be read (reporting.lists)
    └── OutboxFailed            the outbox cannot be worked with (outbox.model)
        └── ForeignFile              its file may not be ours (also a ConfigurationError)

No message holds a visitor's value: texts name the field and what it takes. Each error says where it
is explained, in the last line of its traceback and as ``help``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from inspect import getargvalues, isawaitable, iscoroutine, iscoroutinefunction, signature
from traceback import walk_stack, walk_tb
from types import FrameType
from typing import Any

from ._version import DOCS_ARE_PUBLISHED, DOCS_URL

#: What explains the errors of a field, or of a setting (in upper case and without ``ADROLL_``). The
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


def help_for(slug: str) -> str:
    """Where to read what ``docs/errors.md`` says under *slug*: an address, or a command."""
    return f"{DOCS_URL}errors.html#{slug}" if DOCS_ARE_PUBLISHED else f"flask adroll explain {slug}"


def documented(place: str) -> str:
    """The address of a page of the documentation, or its file in the repository.

    :param place: ``marketing.html#what-a-click-id-does-not-prove``.
    """
    if DOCS_ARE_PUBLISHED:
        return DOCS_URL + place
    return f"docs/{place.partition('#')[0].removesuffix('.html')}.md"


class AdRollError(Exception):
    """Base of all errors of this package."""

    #: The part of ``docs/errors.md`` that explains it.
    slug: str = "internal-fault"

    def __init__(self, text: str = "", *, slug: str | None = None) -> None:
        super().__init__(text)
        if slug is not None:
            self.slug = slug
        # Tracebacks end in a note, and the text itself stays short where it is logged or kept.
        self.add_note(self.help)

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception that goes to another process (Celery, a pool) is made again there with its
        # text as the argument. Ours take other arguments.
        return Exception.__new__, (type(self), *self.args), vars(self)

    @property
    def help(self) -> str:
        """Where its explanation is: an address, or a command that prints it."""
        return help_for(self.slug)


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
        for place in sorted({other.help for other in others}.difference(self.__notes__)):
            self.add_note(place)


def refuse_asgi(app: object, call: str) -> None:
    """Refuse an ASGI app where a WSGI app is taken, and name what takes it.

    :raises ConfigurationError: *app* is one.
    """
    if _is_asgi(app):
        raise ConfigurationError(
            call,
            f"takes a WSGI app; this is an ASGI app ({type(app).__module__}): "
            "AdRollASGIMiddleware(app, …) takes it",
            slug="asgi",
        )


def refuse_wsgi(app: object, call: str) -> None:
    """Refuse a WSGI app where an ASGI app is taken, and name what takes it.

    :raises ConfigurationError: *app* is one, or an app of ASGI 2.
    """
    if _is_asgi(app):
        return
    try:
        # Some ASGI apps are plain callables that give something to await.
        signature(app).bind(None, None, None)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigurationError(
            call,
            f"takes an ASGI 3 app, called with scope, receive and send; this is none "
            f"({type(app).__module__}): a WSGI app takes AdRollMiddleware(app, …), a Flask app "
            "AdRoll(app)",
            slug="asgi",
        ) from None
    except ValueError:  # it has no signature that Python knows
        return


def _is_asgi(app: object) -> bool:
    call_method = getattr(type(app), "__call__", None)  # noqa: B004 - which one, not whether
    return iscoroutinefunction(app) or iscoroutinefunction(call_method)


def nothing_to_await(answer: object) -> str:
    """The end of an error about a site's plain function that returned something to await.

    A coroutine is closed: otherwise Python would warn of it. Empty: *answer* cannot be awaited.
    """
    if iscoroutine(answer):
        answer.close()
    return ", and nothing to await" if isawaitable(answer) else ""


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
    #: The text of an error that is raised without one.
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
    :param text: the error's text; empty: the reason.
    """

    slug = "request-failed"

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason)
        self.reason = reason


# -- exceptions that come from outside while we are at work ----------------------------------------
#
# Promise 1 says that a fault of ours is not the shop's: what our code raises is logged and counted.
# A time limit is neither: Celery's soft time limit and RQ's raise an `Exception` out of a signal
# handler. To swallow it would let the site's task run past its limit. (What is no `Exception`, such
# as gevent's and eventlet's timeouts, we never catch.)


def let_through(problem: BaseException) -> None:
    """Raise the exception from outside that *problem* is, or that led to it; else do nothing.

    To be called in the ``except`` clause that would otherwise handle *problem*.

    An exception that the caller was handling when it called us is not looked at, though Python
    has it as the context of ours.
    """
    callers = {frame for frame, _line in walk_stack(sys._getframe(1))}
    for cause in causes(problem, hidden=True):
        frames = [frame for frame, _line in walk_tb(cause.__traceback__)]
        if not frames:
            continue
        if cause is not problem and frames[0] in callers:
            return
        if any(map(_is_handler, frames[1:], frames)):
            raise cause


def causes(problem: BaseException, *, hidden: bool = False) -> Iterator[BaseException]:
    """*problem* and what led to it, as tracebacks show it.

    :param hidden: also what ``from None`` keeps out of them.
    """
    passed: set[int] = set()
    current: BaseException | None = problem
    while current is not None and id(current) not in passed:
        passed.add(id(current))
        yield current
        context = None if current.__suppress_context__ and not hidden else current.__context__
        current = current.__cause__ or context


def _is_handler(frame: FrameType, below: FrameType) -> bool:
    """True where *frame* is a signal handler's: it was given the frame that it interrupted."""
    names, rest, _, values = getargvalues(frame)
    arguments = [values.get(name) for name in names]
    others = values.get(rest) if rest is not None else None
    if type(others) is tuple:
        arguments += others
    # Nothing is asked of a value of the shop's, not even its class: that may raise.
    return any(value is below for value in arguments)
