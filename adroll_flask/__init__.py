"""Tell AdRoll of every conversion on a Flask or WSGI site, server to server."""

from __future__ import annotations

from ._version import __version__
from .calls import (
    current_visitor,
    forget_visitor,
    identify,
    report_conversion,
    report_event,
)
from .errors import (
    AdRollError,
    ConfigurationError,
    DeliveryError,
    EventError,
    TokenError,
    TokenExpired,
    TokenForged,
)
from .extension import AdRoll
from .middleware import AdRollMiddleware
from .receipt import Receipt
from .signals import (
    event_delivered,
    event_queued,
    event_rejected,
    event_suppressed,
    visitor_identified,
)
from .visitor import Visitor

__all__ = [
    "AdRoll",
    "AdRollError",
    "AdRollMiddleware",
    "ConfigurationError",
    "DeliveryError",
    "EventError",
    "Receipt",
    "TokenError",
    "TokenExpired",
    "TokenForged",
    "Visitor",
    "__version__",
    "current_visitor",
    "event_delivered",
    "event_queued",
    "event_rejected",
    "event_suppressed",
    "forget_visitor",
    "identify",
    "report_conversion",
    "report_event",
    "visitor_identified",
]
