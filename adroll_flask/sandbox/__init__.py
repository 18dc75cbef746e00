"""AdRoll on a laptop: event API, pixel, ad and a live view of what arrives.

It stands in for AdRoll and knows nothing of the package that it is shipped with: its rules come
from AdRoll's documentation alone.
"""

from __future__ import annotations

from .app import create_app
from .event_checks import ACCESS_TOKEN, ADVERTISABLE_EID, PIXEL_EID, Account
from .local_only import Unsafe
from .serving import RunningSandbox, make_server, running, serve

__all__ = [
    "ACCESS_TOKEN",
    "ADVERTISABLE_EID",
    "PIXEL_EID",
    "Account",
    "RunningSandbox",
    "Unsafe",
    "create_app",
    "make_server",
    "running",
    "serve",
]
