"""Who the visitor is: the signed record, AdRoll's cookie beside it, and tokens for the time after.

Plain values in, plain values out; both adapters use it through :class:`Visitors`. The record
(``adroll_visitor``) is the truth for a year; ``__adroll_fpc`` is its working copy for the pixel and
stays raw, because the pixel reads it. Record and token are packed into few bytes and signed.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from datetime import timedelta
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Any
from wsgiref.types import WSGIEnvironment

from itsdangerous import BadData, encoding
from itsdangerous import Signer as TextSigner

from adroll_flask import errors
from adroll_flask.counters import Counters
from adroll_flask.settings import LONGEST_TOKEN_LIFE, Settings

from .identifiers import accept_seconds, normalise_first_party_cookie

#: How many click ids that a newer one replaced a record remembers, by a short hash each.
_REPLACED = 3


@dataclass(frozen=True, slots=True, repr=False)
class Known:
    """What identifies a visitor, wherever it is kept."""

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
    #: Whether tracking was allowed at the time; ``None``: not yet asked. Of a record: what the kit
    #: told us, where the server cannot see it itself.
    consent: bool | None = None
    #: The visitor's address, where this came from a request or a token.
    ip: str | None = None
    #: The site's host at the time, likewise.
    host: str | None = None
    #: The browser's user agent, where this came from a request, or from a token that has it.
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Record(Known):
    """The content of ``adroll_visitor``, or of a token."""

    #: Short hashes of click ids that newer ones replaced.
    replaced: tuple[bytes, ...] = ()
    #: When it was signed, epoch seconds; 0: not yet. Two records that say the same are equal,
    #: whenever they were signed.
    signed_at: float = field(default=0.0, compare=False)

    def with_adct(self, adct: str, now: float, source: str) -> Record:
        """This record after a click: a newer click id replaces an older one.

        The kit may speak late, from a tab that was opened before the newest click: a click id
        that was replaced already does not come back through it.
        """
        if adct == self.adct:
            return self
        mark = _short_hash(adct)
        if source == "kit" and mark in self.replaced:
            return self
        replaced = self.replaced
        if self.adct is not None:
            replaced = (_short_hash(self.adct), *replaced)
        replaced = tuple(old for old in replaced if old != mark)[:_REPLACED]
        return replace(self, adct=adct, adct_at=now, adct_source=source, replaced=replaced)

    def with_cookie(self, value: str, source: str) -> Record:
        """This record with the browser's or the server's first-party cookie."""
        if value == self.first_party_cookie and (
            source == self.first_party_cookie_source or source == "browser"
        ):
            # "browser" says less than what is known of the same value already.
            return self
        return replace(self, first_party_cookie=value, first_party_cookie_source=source)


def _short_hash(text: str) -> bytes:
    return sha256(text.encode()).digest()[:4]


# -- in few bytes ----------------------------------------------------------------------------
#
# A payment provider's metadata field takes 500 characters, and a click id may have 240 of them.
# What itsdangerous' serializers write of that is too long: with a cookie, an IPv6 address and a
# host it is 413 characters of JSON, and 504 to 519 deflated and signed. So the cookie's hex
# becomes bytes, and the other texts, all ASCII, take seven bits a character: 447 characters,
# signed. Reading them takes no longer (42 microseconds with such a click id, 15 with one of eight
# characters).
#
# One byte says how many bytes of a cookie in AdRoll's own form follow: none, or 16 of its hex and 6
# of its milliseconds. Then come nine texts, joined by U+001F.

#: The longest token: what payment providers' metadata hold (Stripe: 500 characters a value).
TOKEN_CHARS = 450
#: What is left of it for us: less 43 characters of SHA-256 signature, 6 of time, 2 separators;
#: base64 takes four characters for three bytes.
TOKEN_BYTES = (TOKEN_CHARS - 43 - 6 - 2) * 3 // 4
#: Characters of a user agent that a token takes along; browsers' own have about 150.
AGENT_CHARS = 512
#: The longest token with a user agent: seven bits a character and a separator, four characters of
#: base64 for three bytes.
TOKEN_CHARS_WITH_AGENT = TOKEN_CHARS + -(-(AGENT_CHARS + 1) * 7 // 8) * 4 // 3 + 1

#: Kept as a digit each.
_SOURCES = (None, "url", "kit", "pixel", "browser", "server")
_CONSENTS = (None, True, False)
_USUAL = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,13})\Z")
_SEPARATOR = "\x1f"
#: Where among the texts they are.
_COOKIE, _HOST = 3, 7
#: The seven bits of each character, and characters by them.
_BITS = [f"{code:07b}" for code in range(128)]
_CHARACTERS = {bits: chr(code) for code, bits in enumerate(_BITS)}


def pack(
    known: Known,
    *,
    replaced: tuple[bytes, ...] = (),
    max_age: int | None = None,
    most: int | None = None,
) -> bytes:
    """*known* as bytes, its user agent cut after :data:`AGENT_CHARS` characters.

    :param replaced: a record's.
    :param max_age: the token's own life, seconds.
    :param most: bytes that the result may have beside a user agent; a host that does not fit is
        left out, then a cookie of an unusual form.
    """
    usual = _USUAL.match(known.first_party_cookie or "")
    cookie = bytes.fromhex(usual[1]) + int(usual[2]).to_bytes(6, "big") if usual else b""
    digits = (
        f"{_CONSENTS.index(known.consent)}{_SOURCES.index(known.adct_source)}"
        f"{_SOURCES.index(known.first_party_cookie_source)}"
    )
    odd = "" if usual else known.first_party_cookie or ""
    host = known.host or ""
    texts = [
        digits,
        known.adct or "",
        f"{int(known.adct_at or 0):x}" if known.adct is not None else "",
        odd,
        b"".join(replaced).hex(),
        known.ip or "",
        f"{max_age or 0:x}",
        host if host.isascii() and _SEPARATOR not in host else "",
        "",
    ]

    def packed() -> bytes:
        return bytes([len(cookie)]) + cookie + _seven(_SEPARATOR.join(texts))

    for gives_way in (_HOST, _COOKIE):
        if most is not None and len(packed()) > most:
            texts[gives_way] = ""
    if known.user_agent is not None:
        texts[-1] = re.sub(r"[^ -~]", "?", known.user_agent[:AGENT_CHARS]).strip()
    return packed()


def unpack(payload: bytes, signed_at: float = 0.0) -> tuple[Record, int | None]:
    """The record in *payload*, and the token's own life, seconds.

    :param signed_at: when it was signed, epoch seconds.
    :raises ValueError: it is not of this form.
    """
    size = payload[0] if payload else -1
    if size not in (0, 22) or len(payload) <= size:
        raise ValueError("another form")
    try:
        digits, adct, at, odd, replaced, ip, age, host, agent = _text(payload[1 + size :])
        consent, adct_source, cookie_source = map(int, digits)
        marks = bytes.fromhex(replaced)
        cookie = f"{payload[1:17].hex()}-{int.from_bytes(payload[17:23])}" if size else odd
        record = Record(
            adct=adct or None,
            adct_at=float(int(at, 16)) if adct else None,
            adct_source=_SOURCES[adct_source],
            first_party_cookie=cookie or None,
            first_party_cookie_source=_SOURCES[cookie_source],
            consent=_CONSENTS[consent],
            ip=str(ip_address(ip)) if ip else None,
            host=host or None,
            user_agent=agent or None,
            replaced=tuple(marks[n : n + 4] for n in range(0, len(marks), 4)),
            signed_at=signed_at,
        )
        return record, int(age, 16) or None
    except (IndexError, OverflowError):
        raise ValueError("another form") from None


def _seven(text: str) -> bytes:
    # A leading 1 keeps the length: without it leading zero bits would be lost.
    bits = "1" + "".join([_BITS[code] for code in text.encode("ascii")])
    return int(bits, 2).to_bytes((len(bits) + 7) // 8, "big")


def _text(packed: bytes) -> list[str]:
    bits = f"{int.from_bytes(packed, 'big'):b}"[1:]
    if len(bits) % 7:
        raise ValueError("cut short")
    text = "".join([_CHARACTERS[bits[n : n + 7]] for n in range(0, len(bits), 7)])
    return text.split(_SEPARATOR)


# -- signed ----------------------------------------------------------------------------------
#
# Two purposes, two keys: a visitor's record (the cookie) and a visitor's token cannot stand in for
# each other. Expired is not forged: the caller is told which.

#: What :meth:`Signer.sign` writes; base64 decoders skip other characters silently.
_TEXT = re.compile(r"[A-Za-z0-9_.-]+\Z")
#: Seconds by which another host's clock may be ahead; itsdangerous would grant none, and a visitor
#: who meets two hosts within a moment would lose the record.
_AHEAD = 3600


class Signer:
    """Signs bytes for one purpose.

    :param keys: newest first, as ``ADROLL_SECRET_KEY`` is written; at least one.
    :param purpose: part of the key, so that a text signed for one purpose fails for another.
    :param clock: returns epoch seconds.

    >>> signer = Signer(["secret"], "record", clock=lambda: 1_700_000_000)
    >>> signer.unsign(signer.sign(b"hello"), max_age=60)
    (b'hello', 1700000000.0)
    """

    def __init__(
        self, keys: Sequence[str | bytes], purpose: str, *, clock: Callable[[], float]
    ) -> None:
        # itsdangerous signs with the last key of a list and verifies with all of them.
        # It would derive each key anew for each text; ours are derived already.
        self._signer = TextSigner(
            [_derived(key, purpose) for key in reversed(keys)],
            key_derivation="none",
            digest_method=sha256,
        )
        self._clock = clock

    def sign(self, payload: bytes) -> str:
        """*payload* as URL-safe text with the present time and a signature."""
        # The form of itsdangerous' TimestampSigner, whose clock tests cannot set, and which makes a
        # datetime of what is compared as a number.
        now = encoding.base64_encode(encoding.int_to_bytes(int(self._clock())))
        return self._signer.sign(encoding.base64_encode(payload) + b"." + now).decode("ascii")

    def unsign(self, text: str, max_age: float) -> tuple[bytes, float]:
        """The payload of *text* and when it was signed (epoch seconds).

        :param max_age: seconds for which a signature is taken.
        :raises TokenForgedError: the signature is not ours.
        :raises TokenExpiredError: it is, but older than *max_age*, or of a time that is yet to
            come.
        """
        if not _TEXT.match(text):
            raise errors.TokenForgedError
        try:
            body, _, stamp = self._signer.unsign(text).rpartition(b".")
            payload = encoding.base64_decode(body)
            when = float(encoding.bytes_to_int(encoding.base64_decode(stamp)))
        except BadData:
            raise errors.TokenForgedError from None
        if not -_AHEAD <= int(self._clock()) - when <= max_age:
            raise errors.TokenExpiredError
        return payload, when


def _derived(key: str | bytes, purpose: str) -> bytes:
    secret = key.encode() if isinstance(key, str) else key
    return hmac.digest(secret, f"adroll_flask.{purpose}".encode(), "sha256")


# -- read and written ------------------------------------------------------------------------

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

    _visitors: Visitors | None = field(default=None, compare=False)

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
        letters, digits, ``-``, ``_`` and ``.``. It is empty where ``ADROLL_ENABLED`` is off.

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
        if self._visitors is None:
            if self == Visitor():  # what calls give that can do nothing, in a checkout, too
                return ""
            raise errors.ConfigurationError("ADROLL_SECRET_KEY", "this visitor belongs to no app")
        life = None
        if max_age is not None:
            takes = "takes a timedelta or seconds, from 1 second to 365 days"
            seconds = accept_seconds(max_age, "max_age", takes)
            if not 1 <= seconds <= LONGEST_TOKEN_LIFE:
                raise errors.EventError("max_age", f"{takes}; it got one out of range")
            life = int(seconds)
        self._visitors.need_key("make visitor tokens")
        # Of somebody who said no, or has not been asked, the answer alone is kept.
        asked = self or self.consent is True
        known: Known = self if asked else Known(consent=self.consent)
        if not user_agent:
            known = replace(known, user_agent=None)
        packed = pack(known, max_age=life, most=TOKEN_BYTES)
        return self._visitors.token_signer.sign(packed)


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


@dataclass(eq=False, repr=False)
class Visitors:
    """Reads and writes what identifies visitors; one per app, which all its requests share.

    :param settings: the app's.
    :param counters: where ignored records are counted, forged and expired apart.
    :param keys: the signing keys, newest first; none: nothing can be kept.
    :param clock: returns epoch seconds.
    :param request_of: turns an environ into what ``ADROLL_CONSENT``'s callable takes.
    """

    settings: Settings
    counters: Counters
    keys: InitVar[Sequence[str | bytes]]
    clock: Callable[[], float]
    request_of: Callable[[WSGIEnvironment], object] = lambda environ: environ

    def __post_init__(self, keys: Sequence[str | bytes]) -> None:
        #: False where the site has no secret key: then nothing is kept.
        self.can_sign: bool = bool(keys)
        self._record_signer = Signer(keys, "record", clock=self.clock)
        self.token_signer: Signer = Signer(keys, "token", clock=self.clock)
        # For HMACs: of the oldest key, so that what they make outlives a rotation.
        self.derive_key: bytes | None = _derived(keys[-1], "derived-cookie") if keys else None
        self.dedupe_secret: bytes | None = _derived(keys[-1], "deduplication-key") if keys else None
        # A known visitor's next request costs a look-up instead of ten times as much. What is
        # refused raises, and is not remembered.
        unsign = self._record_signer.unsign
        self._verified = lru_cache(_MEMO)(lambda text: unpack(*unsign(text, COOKIE_LIFE))[0])

    def read(self, header: str) -> RequestCookies:
        """What the raw ``Cookie`` *header* says.

        Of several ``__adroll_fpc`` the one equal to the record wins, else the first well-formed.
        """
        record_cookie = self.settings.cookie_name
        if FIRST_PARTY_COOKIE not in header and record_cookie not in header:
            return _NOTHING
        records, cookies = _values(header, (record_cookie, FIRST_PARTY_COOKIE))
        record = next(filter(None, map(self._record, records[:_MOST_COOKIES])), None)
        known = None if record is None else record.first_party_cookie
        if known is not None and cookies[:1] == [known]:  # nearly always
            return RequestCookies(record, known, True)
        forms = [normalise_first_party_cookie(value) for value in cookies[:_MOST_COOKIES]]
        if None in forms:
            self.counters.add("cookie_ignored", "malformed", forms.count(None))
        cookie = known if known and known in forms else next(filter(None, forms), None)
        return RequestCookies(record, cookie, bool(records or cookies))

    def _record(self, text: str) -> Record | None:
        if not self.can_sign:
            return None
        try:
            record = self._verified(text)
            if self.clock() - record.signed_at > COOKIE_LIFE:
                raise errors.TokenExpiredError  # since it was remembered
            return record
        except errors.TokenExpiredError:
            why = "expired"
        except ValueError:
            why = "forged"
        self.counters.add("record_ignored", why)
        return None

    def sign(self, record: Record) -> str:
        """*record* as the value of the ``adroll_visitor`` cookie."""
        return self._record_signer.sign(pack(record, replaced=record.replaced))

    def visitor(self, record: Record, **about: Any) -> Visitor:
        """*record* as views see it.

        :param about: what a request says beside it, by the names of :class:`Known`.
        """
        known = {one.name: getattr(record, one.name) for one in fields(Known)}
        return Visitor(**known | about, _visitors=self)

    def from_token(self, text: str) -> tuple[Visitor, float]:
        """The visitor of a token, and when the token was made (epoch seconds).

        :raises TokenExpiredError: ours, but older than it says itself, or than
            ``ADROLL_TOKEN_MAX_AGE``.
        :raises TokenForgedError: not ours, or changed.
        :raises TokenEmptyError: an empty text.
        :raises ConfigurationError: there is no secret key.
        """
        if not text.strip():
            raise errors.TokenEmptyError
        self.need_key("take visitor tokens")
        if len(text) > TOKEN_CHARS_WITH_AGENT:
            raise errors.TokenForgedError
        payload, minted_at = self.token_signer.unsign(text, self.settings.withdrawals_kept)
        try:
            record, max_age = unpack(payload, minted_at)
        except ValueError:
            raise errors.TokenForgedError from None
        if self.clock() - minted_at > (max_age or self.settings.token_max_age):
            raise errors.TokenExpiredError
        return self.visitor(record), minted_at

    def need_key(self, what: str) -> None:
        """Refuse *what* nobody can do without a secret key.

        :raises ConfigurationError: there is none.
        """
        if not self.can_sign:
            raise errors.ConfigurationError(
                "ADROLL_SECRET_KEY", f"set it (or SECRET_KEY) to {what}"
            )
