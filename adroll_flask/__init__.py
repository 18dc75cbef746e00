"""Tell AdRoll of every conversion on a Flask or WSGI site, server to server."""

from __future__ import annotations

from ._version import __version__
from .errors import (
    AdRollError,
    ConfigurationError,
    DeliveryError,
    EventError,
    TokenEmpty,
    TokenError,
    TokenExpired,
    TokenForged,
)
from .extension import AdRoll
from .functions import (
    cancel_conversion,
    current_visitor,
    forget_visitor,
    identify,
    release_conversion,
    report_conversion,
    report_event,
    reset_identity,
)
from .middleware import AdRollMiddleware
from .reporting.receipt import Receipt
from .signals import (
    event_delivered,
    event_queued,
    event_rejected,
    event_suppressed,
    visitor_identified,
)
from .visitor.records import Visitor

__all__ = [
    "AdRoll",
    "AdRollError",
    "AdRollMiddleware",
    "ConfigurationError",
    "DeliveryError",
    "EventError",
    "Receipt",
    "TokenEmpty",
    "TokenError",
    "TokenExpired",
    "TokenForged",
    "Visitor",
    "__version__",
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
