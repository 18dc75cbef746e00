"""Who the visitor is: the signed record, AdRoll's cookie beside it, and tokens for the time after.

Plain values in, plain values out; both adapters use it through :class:`Records`. The record
(``adroll_visitor``) is the truth for a year; ``__adroll_fpc`` is its working copy for the pixel and
stays raw, because the pixel reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from adroll_flask.errors import (
    ConfigurationError,
    EventError,
    TokenEmptyError,
    TokenExpiredError,
    TokenForgedError,
)
from adroll_flask.settings import LONGEST_TOKEN_LIFE

from .identifiers import accept_seconds, normalise_first_party_cookie
from .record import TOKEN_BYTES, TOKEN_CHARS_WITH_AGENT, Known, Record, pack, unpack
from .signing import Expired, Forged, Signer, derive_key

if TYPE_CHECKING:
    from adroll_flask.counters import Counters
    from adroll_flask.settings import Settings

FIRST_PARTY_COOKIE = "__adroll_fpc"
#: The pixel sets AdRoll's cookie for a year; so long lives the record.
COOKIE_LIFE = 365 * 86_400
#: "Renewed at most once a day": a record younger than this is left alone.
RENEW_AFTER = 86_400

#: Cookies of one name beyond this are not looked at (cookie bombs). Whoever holds a sister host
#: can put cookies of our names before the true ones (RFC 6265, section 5.4, orders them by path
#: and age), but no more than a browser keeps for a site: about 180.
_MOST_COOKIES = 200
#: Records that a process remembers as verified.
_MEMO = 2048


@dataclass(frozen=True, slots=True, repr=False)
class Visitor(Known):
    """What the site knows of one visitor.

    Its ``repr`` says which identifiers are there, never their values.
    """

    #: The visitor's address, where this came from a request or a token.
    ip: str | None = None
    #: The site's host at the time, likewise.
    host: str | None = None
    #: The browser's user agent, where this came from a request, or from a token that has it.
    user_agent: str | None = None
    _records: Records | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        known = [name for name in ("adct", "first_party_cookie") if getattr(self, name)]
        return f"<Visitor {', '.join(known) or 'unknown'}>"

    def __bool__(self) -> bool:
        return self.adct is not None or self.first_party_cookie is not None

    def token(self, *, max_age: timedelta | float | None = None, user_agent: bool = False) -> str:
        """A signed text to report with when the browser is gone.

        Store it with the order, in a payment's metadata or with the account, and give it back as
        ``report_conversion(visitor=token, ...)``. It carries the click id, the first-party
        cookie, the address, the host, the time and the consent: no e-mail. Of a visitor who said
        no it carries nothing but the no.

        It has at most 450 characters, and at most 1,050 with the user agent. Characters are ASCII
        letters, digits, ``-``, ``_`` and ``.``.

        :param max_age: how long the token is taken, a ``timedelta`` or seconds: more than 0 and at
            most a year, as long as AdRoll's cookie lives. Default: ``ADROLL_TOKEN_MAX_AGE`` at the
            time of the report. For accounts that buy after months.
        :param user_agent: take the browser's user agent along (its first 512 characters), so that
            the report need not be told.
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
        if self._records is None:
            raise ConfigurationError("ADROLL_SECRET_KEY", "this visitor belongs to no app")
        return self._records.token(
            self,
            max_age=None if max_age is None else _life(max_age),
            user_agent=user_agent,
        )


def _life(max_age: object) -> int:
    """A token's own life, whole seconds."""
    takes = "takes a timedelta or seconds, from 1 second to 365 days"
    seconds = accept_seconds(max_age, "max_age", takes)
    if not 1 <= seconds <= LONGEST_TOKEN_LIFE:
        raise EventError("max_age", f"{takes}; it got one out of range")
    return int(seconds)


@dataclass(slots=True, eq=False, repr=False)
class RequestCookies:
    """What a request's ``Cookie`` header says of the visitor."""

    #: The valid record, if any.
    record: Record | None
    #: The well-formed first-party cookie that counts, normalised.
    cookie: str | None
    #: True where any cookie of ours or AdRoll's is in the header.
    any: bool

    @property
    def merged(self) -> Record:
        """The record with the browser's own cookie, which beats it."""
        record = self.record or Record()
        return record.with_cookie(self.cookie, "browser") if self.cookie else record

    def settled(self, now: float) -> bool:
        """True where nothing needs writing: a record in order, its working copy beside it."""
        record = self.record
        return (
            record is not None
            and self.cookie is not None
            and record.first_party_cookie == self.cookie
            and now - record.signed_at < RENEW_AFTER
        )


_NOTHING = RequestCookies(None, None, False)


def _values(header: str, names: tuple[str, str]) -> tuple[list[str], list[str]]:
    """The cookies of our two names in a raw header, which need no other parsing."""
    values: tuple[list[str], list[str]] = ([], [])
    for part in header.split(";"):
        if names[0] not in part and names[1] not in part:
            continue  # told at once, of a site's many cookies
        name, _, value = part.partition("=")
        name = name.strip()
        if name in names:
            value = value.strip()
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            values[names.index(name)].append(value)
    return values


def _verify(signer: Signer, text: str) -> Record:
    """The record that *text* is.

    :raises Forged: it is none of ours.
    :raises Expired: it is older than a record lives.
    :raises ValueError: we signed it, and cannot read it.
    """
    payload, signed_at = signer.unsign(text, COOKIE_LIFE)
    return unpack(payload, signed_at)[0]


def _there(signer: Signer | None, what: str) -> Signer:
    if signer is None:
        raise ConfigurationError("ADROLL_SECRET_KEY", f"set it (or SECRET_KEY) to {what}")
    return signer


class Records:
    """Reads and writes what identifies visitors; one per app.

    :param settings: the app's.
    :param counters: where ignored records are counted, forged and expired apart.
    :param keys: the signing keys, newest first; none: nothing can be kept.
    :param clock: returns epoch seconds.
    """

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        *,
        keys: Sequence[str | bytes],
        clock: Callable[[], float],
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._cookie_name = settings.cookie_name
        self._token_max_age = settings.token_max_age
        self._record_signer = Signer(keys, "record", clock=clock) if keys else None
        self._token_signer = Signer(keys, "token", clock=clock) if keys else None
        self.derive_key: bytes | None = derive_key(keys, "derived-cookie")
        self.dedupe_secret: bytes | None = derive_key(keys, "deduplication-key")
        # A known visitor's next request costs a look-up instead of ten times as much. What is
        # refused raises, and is not remembered.
        self._verified = (
            lru_cache(_MEMO)(partial(_verify, self._record_signer)) if self._record_signer else None
        )

    @property
    def can_sign(self) -> bool:
        """False where the site has no secret key: then nothing is kept."""
        return self._record_signer is not None

    def read(self, header: str) -> RequestCookies:
        """What the raw ``Cookie`` *header* says.

        Of several ``__adroll_fpc`` the one equal to the record wins, else the first well-formed.
        """
        record_cookie = self._cookie_name
        if FIRST_PARTY_COOKIE not in header and record_cookie not in header:
            return _NOTHING
        records, cookies = _values(header, (record_cookie, FIRST_PARTY_COOKIE))
        record: Record | None = None
        for text in records[:_MOST_COOKIES]:
            record = self._record(text)
            if record is not None:
                break
        cookie: str | None = None
        for value in cookies[:_MOST_COOKIES]:
            if record is not None and value == record.first_party_cookie:
                cookie = value
                break
            normal = normalise_first_party_cookie(value)
            if normal is None:
                self._counters.add("cookie_ignored", "malformed")
            elif record is not None and normal == record.first_party_cookie:
                cookie = normal
                break
            elif cookie is None:
                cookie = normal
        return RequestCookies(record, cookie, bool(records or cookies))

    def _record(self, text: str) -> Record | None:
        if self._verified is None:
            return None
        record: Record | None
        try:
            record = self._verified(text)
        except (Forged, ValueError):
            self._counters.add("record_ignored", "forged")
            return None
        except Expired:
            record = None
        # One that is remembered may have expired since.
        if record is None or self._clock() - record.signed_at > COOKIE_LIFE:
            self._counters.add("record_ignored", "expired")
            return None
        return record

    def sign(self, record: Record) -> str:
        """*record* as the value of the ``adroll_visitor`` cookie."""
        return _there(self._record_signer, "keep visitors").sign(
            pack(record, replaced=record.replaced)
        )

    def visitor(self, record: Record, *, consent: bool | None, **about: str | None) -> Visitor:
        """*record* as views see it.

        :param about: ``ip``, ``host`` and ``user_agent``.
        """
        known: dict[str, Any] = {one.name: getattr(record, one.name) for one in fields(Known)}
        return Visitor(**known | about | {"consent": consent}, _records=self)

    def token(self, visitor: Visitor, *, max_age: int | None, user_agent: bool) -> str:
        """*visitor* as signed text, see :meth:`Visitor.token`."""
        signer = _there(self._token_signer, "make visitor tokens")
        # Of somebody who said no, or has not been asked, the answer alone is kept.
        known = bool(visitor) or visitor.consent is True
        payload = pack(
            visitor,
            ip=visitor.ip if known else None,
            host=visitor.host if known else None,
            user_agent=visitor.user_agent if known and user_agent else None,
            max_age=max_age,
            most=TOKEN_BYTES,
        )
        return signer.sign(payload)

    def from_token(self, text: str) -> tuple[Visitor, float]:
        """The visitor of a token, and when the token was made (epoch seconds).

        :raises TokenExpiredError: ours, but older than it says itself, or than
            ``ADROLL_TOKEN_MAX_AGE``.
        :raises TokenForgedError: not ours, or changed.
        :raises TokenEmptyError: an empty text.
        """
        if not text.strip():
            raise TokenEmptyError
        signer = _there(self._token_signer, "take visitor tokens")
        if len(text) > TOKEN_CHARS_WITH_AGENT:
            raise TokenForgedError
        try:
            longest = max(self._token_max_age, LONGEST_TOKEN_LIFE)
            payload, minted_at = signer.unsign(text, longest)
            record, about, max_age = unpack(payload, minted_at)
        except Expired:
            raise TokenExpiredError from None
        except (Forged, ValueError):
            raise TokenForgedError from None
        if self._clock() - minted_at > (max_age or self._token_max_age):
            raise TokenExpiredError
        return self.visitor(record, consent=record.consent, **about), minted_at
