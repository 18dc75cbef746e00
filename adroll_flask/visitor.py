"""Who the visitor is: the signed record, AdRoll's cookie beside it, and tokens for the time after.

Plain values in, plain values out; both adapters use it through :class:`Records`. The record
(``adroll_visitor``) is the truth for a year; ``__adroll_fpc`` is its working copy for the pixel and
stays raw, because the pixel reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from . import packing
from .errors import ConfigurationError, TokenExpired, TokenForged
from .identifiers import accept_adct, normalise_first_party_cookie
from .record import Record
from .signing import Expired, Forged, Signer, derive_key

if TYPE_CHECKING:
    from .counters import Counters
    from .settings import Settings

RECORD_COOKIE = "adroll_visitor"
FIRST_PARTY_COOKIE = "__adroll_fpc"
#: AdRoll's cookie lives for a year (s2s-api.md, "The first-party cookie"); so does the record.
COOKIE_LIFE = 365 * 86_400
#: "Renewed at most once a day": a record younger than this is left alone.
RENEW_AFTER = 86_400

#: Cookies of one name beyond this are not looked at (cookie bombs).
_MOST_COOKIES = 8
#: A first-party cookie or record longer than this is not looked at.
_LONGEST_VALUE = 1024
_MEMO = 2048


@dataclass(frozen=True, slots=True, repr=False)
class Visitor:
    """What the site knows of one visitor.

    Its ``repr`` says which identifiers are there, never their values.
    """

    #: The click id of the visitor's newest ad click.
    adct: str | None = None
    #: When that click arrived, epoch seconds.
    adct_at: float | None = None
    #: How it came: ``"url"`` (the server saw the landing) or ``"kit"`` (the browser told us).
    adct_source: str | None = None
    #: AdRoll's first-party cookie, normalised.
    first_party_cookie: str | None = None
    #: Where it came from: ``"pixel"`` (through the kit), ``"browser"`` (found in a request's
    #: cookies) or ``"server"`` (generated here).
    first_party_cookie_source: str | None = None
    #: The visitor's address, where this came from a request or a token.
    ip: str | None = None
    #: The site's host at the time, likewise.
    host: str | None = None
    #: Whether tracking was allowed at the time; ``None``: not yet asked.
    consent: bool | None = None
    _records: Records | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        known = [name for name in ("adct", "first_party_cookie") if getattr(self, name)]
        return f"<Visitor {', '.join(known) or 'unknown'}>"

    def __bool__(self) -> bool:
        return self.adct is not None or self.first_party_cookie is not None

    def token(self) -> str:
        """A signed text of at most 450 characters to report with when the browser is gone.

        Store it with the order or in a payment's metadata, and give it back as
        ``report_conversion(visitor=token, ...)``. It carries the click id, the first-party
        cookie, the address, the host, the time and the consent: no e-mail, no user agent.

        :raises ConfigurationError: there is no secret key to sign with.
        """
        if self._records is None:
            raise ConfigurationError("ADROLL_SECRET_KEY", "this visitor belongs to no app")
        return self._records.token(self)


@dataclass(frozen=True, slots=True, repr=False)
class Seen:
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


_NOTHING = Seen(None, None, False)


def _pairs(header: str) -> list[tuple[str, str]]:
    """The cookies of our two names in a raw header; "a look at the raw header" and no more."""
    pairs = []
    for part in header.split(";"):
        if "adroll" in part:
            name, _, value = part.partition("=")
            name = name.strip()
            if name in (RECORD_COOKIE, FIRST_PARTY_COOKIE):
                pairs.append((name, value.strip()))
    return pairs


def _values(pairs: Sequence[tuple[str, str]], name: str) -> list[str]:
    values = [value for found, value in pairs if found == name]
    return [
        value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
        for value in values[:_MOST_COOKIES]
        if len(value) <= _LONGEST_VALUE
    ]


def _normalise(value: str) -> str | None:
    # A date text contains spaces and colons, which scripts store percent-encoded.
    return normalise_first_party_cookie(unquote(value) if "%" in value else value)


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
        self._token_max_age = settings.token_max_age
        self._record_signer = Signer(keys, "record", clock=clock) if keys else None
        self._token_signer = Signer(keys, "token", clock=clock) if keys else None
        self.derive_key = derive_key(keys, "derived-cookie")
        # Records that this process has verified or signed, so that a known visitor's next
        # request costs a look-up and no signature check. Two generations bound it.
        self._known: dict[str, Record] = {}
        self._known_before: dict[str, Record] = {}

    @property
    def can_sign(self) -> bool:
        """False where the site has no secret key: then nothing is kept."""
        return self._record_signer is not None

    def read(self, header: str) -> Seen:
        """What the raw ``Cookie`` *header* says.

        Of several ``__adroll_fpc`` the one equal to the record wins, else the first well-formed.
        """
        if FIRST_PARTY_COOKIE not in header and RECORD_COOKIE not in header:
            return _NOTHING
        pairs = _pairs(header)
        record: Record | None = None
        for text in _values(pairs, RECORD_COOKIE):
            record = self._verified(text)
            if record is not None:
                break
        cookie: str | None = None
        for value in _values(pairs, FIRST_PARTY_COOKIE):
            if record is not None and value == record.first_party_cookie:
                cookie = value
                break
            normal = _normalise(value)
            if normal is None:
                self._counters.add("cookie_ignored", "malformed")
            elif record is not None and normal == record.first_party_cookie:
                cookie = normal
                break
            elif cookie is None:
                cookie = normal
        return Seen(record, cookie, bool(pairs))

    def _verified(self, text: str) -> Record | None:
        known = self._known.get(text)
        if known is None:
            known = self._known_before.get(text)
        if known is not None:
            if self._clock() - known.signed_at <= COOKIE_LIFE:
                return known
            self._counters.add("record_ignored", "expired")
            return None
        if self._record_signer is None:
            return None
        try:
            payload, signed_at = self._record_signer.unsign(text, COOKIE_LIFE)
            record, _ip, _host = packing.unpack(payload, signed_at)
            # The signature says that we wrote it; an older version may have taken a click id
            # that this one does not.
            if record.adct is not None and accept_adct(record.adct) is None:
                raise ValueError("adct")
        except Expired:
            self._counters.add("record_ignored", "expired")
            return None
        except (Forged, ValueError):
            self._counters.add("record_ignored", "forged")
            return None
        self._remember(text, record)
        return record

    def _remember(self, text: str, record: Record) -> None:
        if len(self._known) >= _MEMO:
            self._known_before, self._known = self._known, {}
        self._known[text] = record

    def sign(self, record: Record) -> str:
        """*record* as the value of the ``adroll_visitor`` cookie."""
        if self._record_signer is None:
            raise ConfigurationError("ADROLL_SECRET_KEY", "set it (or SECRET_KEY) to keep visitors")
        text = self._record_signer.sign(packing.pack(record))
        self._remember(text, replace(record, signed_at=float(int(self._clock()))))
        return text

    def visitor(
        self, record: Record, *, ip: str | None, host: str | None, consent: bool | None
    ) -> Visitor:
        """*record* as views see it."""
        return Visitor(
            adct=record.adct,
            adct_at=record.adct_at,
            adct_source=record.adct_source,
            first_party_cookie=record.first_party_cookie,
            first_party_cookie_source=record.first_party_cookie_source,
            ip=ip,
            host=host,
            consent=consent,
            _records=self,
        )

    def token(self, visitor: Visitor) -> str:
        """*visitor* as signed text, see :meth:`Visitor.token`."""
        if self._token_signer is None:
            raise ConfigurationError(
                "ADROLL_SECRET_KEY", "set it (or SECRET_KEY) to make visitor tokens"
            )
        record = Record(
            adct=visitor.adct,
            adct_at=visitor.adct_at,
            adct_source=visitor.adct_source,
            first_party_cookie=visitor.first_party_cookie,
            first_party_cookie_source=visitor.first_party_cookie_source,
            consent=visitor.consent,
        )
        payload = packing.pack(record, ip=visitor.ip, host=visitor.host, most=packing.TOKEN_BYTES)
        return self._token_signer.sign(payload)

    def from_token(self, text: str) -> tuple[Visitor, float]:
        """The visitor of a token, and when the token was made (epoch seconds).

        :raises TokenExpired: ours, but older than ``ADROLL_TOKEN_MAX_AGE``.
        :raises TokenForged: not ours, or changed.
        """
        if self._token_signer is None:
            raise ConfigurationError(
                "ADROLL_SECRET_KEY", "set it (or SECRET_KEY) to take visitor tokens"
            )
        if len(text) > packing.TOKEN_CHARS:
            raise TokenForged
        try:
            payload, minted_at = self._token_signer.unsign(text, self._token_max_age)
            record, ip, host = packing.unpack(payload, minted_at)
        except Expired:
            raise TokenExpired from None
        except (Forged, ValueError):
            raise TokenForged from None
        return self.visitor(record, ip=ip, host=host, consent=record.consent), minted_at
