"""Tell AdRoll of every conversion on a Flask, WSGI or ASGI site, server to server."""

# "as" says that a name is public (typing.python.org, "Distributing type information").
import importlib
import typing

from ._version import __version__ as __version__
from .errors import AdRollError as AdRollError
from .errors import ConfigurationError as ConfigurationError
from .errors import DeliveryError as DeliveryError
from .errors import EventError as EventError
from .errors import TokenEmptyError as TokenEmptyError
from .errors import TokenError as TokenError
from .errors import TokenExpiredError as TokenExpiredError
from .errors import TokenForgedError as TokenForgedError
from .events.page_location import app_location as app_location
from .extension import AdRoll as AdRoll
from .public_functions import cancel_conversion as cancel_conversion
from .public_functions import current_visitor as current_visitor
from .public_functions import forget_visitor as forget_visitor
from .public_functions import identify as identify
from .public_functions import release_conversion as release_conversion
from .public_functions import report_conversion as report_conversion
from .public_functions import report_event as report_event
from .public_functions import reset_identity as reset_identity
from .reporting.receipt import Receipt as Receipt
from .signals import event_delivered as event_delivered
from .signals import event_queued as event_queued
from .signals import event_rejected as event_rejected
from .signals import event_suppressed as event_suppressed
from .signals import visitor_identified as visitor_identified
from .visitor.tokens import Visitor as Visitor

if typing.TYPE_CHECKING:
    from .asgi import AdRollASGIMiddleware as AdRollASGIMiddleware
    from .events.event import Event as Event
    from .middleware import AdRollMiddleware as AdRollMiddleware

#: Imported at the first use: most programs need not wait for them at their start.
_LATE = {
    "AdRollASGIMiddleware": ".asgi",
    "AdRollMiddleware": ".middleware",
    "Event": ".events.event",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATE[name], __name__), name)
