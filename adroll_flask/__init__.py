"""Tell AdRoll of every conversion on a Flask or WSGI site, server to server."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import (
    AdRollError,
    ConfigurationError,
    DeliveryError,
    EventError,
    TokenEmptyError,
    TokenError,
    TokenExpiredError,
    TokenForgedError,
)
from .extension import AdRoll
from .middleware import AdRollMiddleware
from .public_functions import (
    cancel_conversion,
    current_visitor,
    forget_visitor,
    identify,
    release_conversion,
    report_conversion,
    report_event,
    reset_identity,
)
from .reporting.reporter import Receipt
from .signals import (
    event_delivered,
    event_queued,
    event_rejected,
    event_suppressed,
    visitor_identified,
)
from .visitor.record import Visitor

if TYPE_CHECKING:
    from .events.event import Event
    from .events.location import app_location

__all__ = [
    "AdRoll",
    "AdRollError",
    "AdRollMiddleware",
    "ConfigurationError",
    "DeliveryError",
    "Event",
    "EventError",
    "Receipt",
    "TokenEmptyError",
    "TokenError",
    "TokenExpiredError",
    "TokenForgedError",
    "Visitor",
    "__version__",
    "app_location",
    "cancel_conversion",
    "current_visitor",
    "event_delivered",
    "event_queued",
    "event_rejected",
    "event_suppressed",
    "forget_visitor",
    "identify",
    "release_conversion",
    "report_conversion",
    "report_event",
    "reset_identity",
    "visitor_identified",
]


def __getattr__(name: str) -> Any:
    # Loaded when somebody asks: what an event is made of is no matter of most programs' start.
    module = {"Event": "event", "app_location": "location"}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".events.{module}", __name__), name)
