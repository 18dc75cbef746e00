"""The site's own functions: who is logged in, what may be reported, what was paid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from adroll_flask.errors import ConfigurationError, EventError, let_through, nothing_to_await
from adroll_flask.events import names
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe_lines

if TYPE_CHECKING:
    from adroll_flask.events.build import Built
    from adroll_flask.events.event import Event
    from adroll_flask.visitor.tracked_request import TrackedRequest

logger: Logger = get_logger("adroll_flask.reporting")

_F = TypeVar("_F", bound="Callable[..., object]")

#: Event in, event or ``None`` out.
BeforeReport: TypeAlias = "Callable[[Event], Event | None]"

#: What ``@adroll.paid_orders`` takes: gives mappings with ``order_id`` and, where known, ``value``,
#: ``currency``, ``at`` (when it was paid) and ``group`` (such as the payment method).
PaidOrdersFunction: TypeAlias = "Callable[[datetime, datetime], Iterable[Mapping[str, Any]]]"

_IDENTITY = ("email", "user_id", "device_id")


@dataclass(slots=True)
class SiteFunctions:
    """The functions that a site has set so far, with ``@adroll.before_report`` and the like.

    :param identity: says who is logged in.
    :param arguments: what *identity* and ``ADROLL_CSP_NONCE`` take in a request, by its environ.
    :param paid_orders: lists the shop's paid orders.
    :param identified: gives what ``identify()`` was told of the current request's visitor.
    :param are_here: False where a command knows a site's settings and not its app.
    """

    before_report: list[BeforeReport] = field(default_factory=list)
    identity: Callable[..., object] | None = None
    arguments: Callable[[dict[str, Any]], tuple[Any, ...]] = lambda environ: ()
    paid_orders: PaidOrdersFunction | None = None
    identified: Callable[[], Mapping[str, Any]] = dict
    are_here: bool = True

    def set_once(self, name: str, function: _F) -> _F:
        """Keep *function* under *name*.

        :raises ConfigurationError: there is another already.
        """
        if getattr(self, name) not in (None, function):
            raise ConfigurationError(name, "there is such a function already", slug="set-up-twice")
        setattr(self, name, function)
        return function

    def who(self, tracked: TrackedRequest) -> Mapping[str, Any]:
        """Who is logged in, as fields of an event.

        :raises EventError: the function returned something else.
        """
        function = self.identity
        identity = None if function is None else function(*self.arguments(tracked.environ))
        if identity is None:
            return {}
        if not isinstance(identity, Mapping):
            what = "has to return a dict of email, user_id, device_id, or None"
            raise EventError("identity", what + nothing_to_await(identity))
        if unknown := [str(key) for key in identity if key not in _IDENTITY]:
            what = f"has to return email, user_id, device_id; {names.shown(unknown[0])} is none"
            raise EventError("identity", what)
        return {key: value for key, value in identity.items() if value not in (None, "")}

    def passed(self, built: Built, *, strict: bool = False) -> Built | None:
        """The event as ``before_report`` lets it pass; ``None``: one of them keeps it back.

        Each is asked in turn and sees what the one before it returned, checked.

        :param strict: raise what one of them raises.
        :raises EventError: one failed, or returned something that cannot be sent: its field is
            ``before_report``.
        """
        for function in self.before_report:
            try:
                changed = function(built.event)
                if changed is None:
                    return None
                if isinstance(changed, type(built.event)):
                    built = built.changed(changed)
                    continue
                why = "has to return the event, another one, or None" + nothing_to_await(changed)
            except Exception as problem:
                let_through(problem)
                if strict:
                    raise
                if isinstance(problem, EventError):
                    why = str(problem)
                else:
                    detail = describe_lines(problem)
                    logger.error("before_report failed: %s [before-report-failed]", detail)
                    why = f"raised {type(problem).__name__}"
            # Kept, not sent: the function may have been there to keep this very event back.
            raise EventError("before_report", why)
        return built
