"""The visitor as views see one, and tokens: signed texts for the time when the browser is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import NamedTuple

from adroll_flask import errors
from adroll_flask.settings import LONGEST_TOKEN_LIFE

from .identifiers import accept_seconds
from .record import VisitorData

#: Characters of a token without a user agent, at most: payment providers' metadata hold it (Stripe:
#: 500 characters a value).
TOKEN_CHARS = 450
#: Bytes of its content, at most: 43 characters are the SHA-256 signature, 6 the time, 2 separate
#: them. base64 takes four characters for three bytes.
TOKEN_BYTES = (TOKEN_CHARS - 43 - 6 - 2) * 3 // 4
#: Characters of a token with a user agent, at most. A longer text is none of ours.
LONGEST_TOKEN = 1050


@dataclass(slots=True, repr=False, unsafe_hash=True)
class Visitor(VisitorData):
    """What the site knows of one visitor.

    Its ``repr`` says which identifiers are there, never their values.
    """

    #: The app's: makes the token of what is known of a visitor, with its own life in seconds.
    _make: Callable[[VisitorData, int | None], str] | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        identifiers = [name for name in ("adct", "first_party_cookie") if getattr(self, name)]
        return f"<Visitor {', '.join(identifiers) or 'unknown'}>"

    def __bool__(self) -> bool:
        return self.adct is not None or self.first_party_cookie is not None

    def token(self, *, max_age: timedelta | float | None = None, user_agent: bool = False) -> str:
        """A signed text to report with when the browser is gone.

        Store it with the order, in a payment's metadata or with the account, and give it back as
        ``report_conversion(visitor=token, ...)``. It carries the click id, the first-party
        cookie, the address, the host, the time and the consent: no e-mail. Of a visitor who said
        no it carries nothing but the no.

        It has at most 450 characters, and at most 1,050 with the user agent. Characters are ASCII
        letters, digits, ``-``, ``_`` and ``.``. It is empty where ``ADROLL_ENABLED`` is off.

        :param max_age: how long the token is taken, a ``timedelta`` or seconds: more than 0 and at
            most a year, as long as AdRoll's cookie lives. Default: ``ADROLL_TOKEN_MAX_AGE`` at the
            time of the report. For accounts that buy after months.
        :param user_agent: take the browser's user agent along (its first 512 characters). The
            report then has it.
        :raises EventError: *max_age* is no time, or out of range.
        :raises ConfigurationError: there is no secret key to sign with.

        >>> from datetime import timedelta
        >>> from flask import Flask
        >>> from adroll_flask import AdRoll, current_visitor
        >>> app = Flask("shop")
        >>> app.secret_key = "secret"
        >>> _ = AdRoll(app)
        >>> with app.test_request_context("/signup?adct=click123"):
        ...     token = current_visitor().token(max_age=timedelta(days=365), user_agent=True)
        """
        if self._make is None:
            # A call that can do nothing gives this visitor, and must not break a checkout.
            if self == Visitor():
                return ""
            raise errors.ConfigurationError("ADROLL_SECRET_KEY", "this visitor belongs to no app")
        life = None
        if max_age is not None:
            takes = "takes a timedelta or seconds, from 1 second to 365 days"
            seconds = accept_seconds(max_age, "max_age", takes)
            if not 1 <= seconds <= LONGEST_TOKEN_LIFE:
                raise errors.EventError("max_age", f"{takes}; it got one out of range")
            life = int(seconds)
        # Of a visitor who said no, or was not asked, the token has the answer alone.
        is_whole = self or self.consent is True
        data: VisitorData = self if is_whole else VisitorData(consent=self.consent)
        if not user_agent:
            data = replace(data, user_agent=None)
        return self._make(data, life)


class ReadToken(NamedTuple):
    """What a token says."""

    visitor: Visitor
    #: When it was made, epoch seconds.
    made_at: float
    #: It is older than its own life; if it has none, than ``ADROLL_TOKEN_MAX_AGE``.
    is_expired: bool
