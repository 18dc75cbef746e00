"""Every error that the package raises on purpose.

::

    AdRollError
    ├── ConfigurationError      a setting is wrong or missing
    ├── EventError              an event cannot be sent as it is (also a ValueError)
    │   └── TokenError          a visitor token cannot be used
    │       ├── TokenExpired    ours, but too old
    │       └── TokenForged     not signed with any of our keys, or cut
    └── DeliveryError           AdRoll did not take a request

No message holds a visitor's value: texts name the field and what it takes.
"""

from __future__ import annotations

from collections.abc import Sequence


class AdRollError(Exception):
    """Base of all errors of this package."""


class ConfigurationError(AdRollError):
    """A setting is wrong or missing.

    :param key: the configuration key, for example ``"ADROLL_PIXEL"``.
    :param problem: what it got (a kind, never the value) and what it takes.
    :param others: further errors of the same kind; the text has a line for each.
    """

    def __init__(
        self, key: str, problem: str, *, others: Sequence[ConfigurationError] = ()
    ) -> None:
        super().__init__("\n".join([f"{key}: {problem}", *map(str, others)]))
        self.key = key
        self.problem = problem
        self.others = tuple(others)


class EventError(AdRollError, ValueError):
    """An event cannot be sent as it is.

    :param field: the argument at fault, for example ``"currency"`` or ``"products[1].price"``.
    :param expected: what the field takes, as a phrase; never the value that was given.
    """

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected


class TokenError(EventError):
    """A visitor token cannot be used."""


class TokenExpired(TokenError):
    """The token is ours but older than ``ADROLL_TOKEN_MAX_AGE``."""

    def __init__(self) -> None:
        super().__init__("visitor", "the token has expired; pass adct= or first_party_cookie=")


class TokenForged(TokenError):
    """The token was not signed with one of this site's keys, or was changed or cut on its way."""

    def __init__(self) -> None:
        super().__init__("visitor", "the token is not signed with this site's key, or was cut")


class DeliveryError(AdRollError):
    """AdRoll did not take a request.

    :param status: the HTTP status, or ``None`` where no answer came.
    :param reason: a short name such as ``"refused"`` or ``"read_timeout"``.
    """

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        super().__init__(reason if status is None else f"{reason} (HTTP {status})")
        self.reason = reason
        self.status = status
