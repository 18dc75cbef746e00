"""Reads and writes what identifies the visitors of one app; all adapters go through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, fields
from functools import lru_cache
from typing import Any
from wsgiref.types import WSGIEnvironment

from adroll_flask import errors
from adroll_flask.counters import Counters
from adroll_flask.settings import Settings

from .identifiers import normalise_first_party_cookie
from .packing import pack, unpack
from .record import Record, VisitorData
from .request_cookies import COOKIE_LIFE, RequestCookies, cookies_in, our_pairs, record_cookie
from .signing import Signer, derived_key
from .tokens import LONGEST_TOKEN, TOKEN_BYTES, ReadToken, Visitor

#: Cookies of one name beyond this are not looked at (cookie bombs). Whoever holds a sister host
#: can put cookies of our names before the true ones (RFC 6265, section 5.4, orders them by path
#: and age), but no more than a browser keeps for a site: about 180.
_MOST_COOKIES = 200


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
        # For cookies that are not secure, and for secure ones: the record's has another name there.
        names = [record_cookie(self.settings, secure=secure) for secure in (False, True)]
        self._pairs = [our_pairs(name) for name in names]
        #: False where the site has no secret key: then nothing is kept.
        self.can_sign: bool = bool(keys)
        self._record_signer = Signer(keys, "record", clock=self.clock)
        self._token_signer = Signer(keys, "token", clock=self.clock)
        #: For HMACs: of the oldest key, so that what they make outlives a rotation.
        self.derive_key: bytes | None = None
        self.dedupe_secret: bytes | None = None
        if keys:
            self.derive_key = derived_key(keys[-1], "derived-cookie")
            self.dedupe_secret = derived_key(keys[-1], "deduplication-key")
        # A known visitor's next request costs a look-up instead of ten times as much: 2,048 records
        # are remembered as verified. What is refused raises, and is not remembered.
        unsign = self._record_signer.unsign
        self._verified = lru_cache(2048)(lambda text: unpack(*unsign(text, COOKIE_LIFE))[0])

    def read(self, header: str, *, secure: bool) -> RequestCookies:
        """What the raw ``Cookie`` *header* says.

        Of several ``__adroll_fpc`` the one that the record has counts, else the first that is
        well-formed.

        :param secure: our cookies are ``Secure`` here, see :func:`.request_cookies.record_cookie`.
        """
        records, cookies = cookies_in(header, self._pairs[secure])
        if not records and not cookies:
            return RequestCookies()
        record: Record | None = None
        for text in records[:_MOST_COOKIES]:
            record = self._record(text)
            if record is not None:
                break
        if record is not None and record.first_party_cookie in cookies:  # nearly always
            return RequestCookies(record, record.first_party_cookie, True)
        forms = [normalise_first_party_cookie(value) for value in cookies[:_MOST_COOKIES]]
        if None in forms:
            self.counters.add("cookie_ignored", "malformed", forms.count(None))
        return RequestCookies(record, next(filter(None, forms), None), True)

    def _record(self, text: str) -> Record | None:
        if not self.can_sign:
            return None
        try:
            record = self._verified(text)
            if self.clock() - record.signed_at > COOKIE_LIFE:
                raise errors.TokenExpiredError  # it was not yet when it was remembered
            return record
        except errors.TokenExpiredError:
            why = "expired"
        except ValueError:
            why = "forged"
        self.counters.add("record_ignored", why)
        return None

    def sign(self, record: Record) -> str:
        """*record* as the value of the ``adroll_visitor`` cookie."""
        return self._record_signer.sign(pack(record))

    def visitor(self, record: Record, **about: Any) -> Visitor:
        """*record* as views see it.

        :param about: what a request says beside it, by the names of :class:`VisitorData`.
        """
        data = {field.name: getattr(record, field.name) for field in fields(VisitorData)}
        return Visitor(**data | about, _make=self._token_of)

    def _token_of(self, data: VisitorData, max_age: int | None) -> str:
        """The token of *data*.

        :param max_age: its own life, seconds.
        :raises ConfigurationError: there is no secret key.
        """
        return self._token_signer.sign(pack(data, max_age=max_age, most=TOKEN_BYTES))

    def read_token(self, text: str) -> ReadToken:
        """What the token *text* says.

        :raises TokenExpiredError: ours, but so old that a no since then may be forgotten.
        :raises TokenForgedError: not ours, or changed.
        :raises TokenEmptyError: an empty text.
        :raises ConfigurationError: there is no secret key.
        """
        if not text[:LONGEST_TOKEN].strip():
            raise errors.TokenEmptyError
        if len(text) > LONGEST_TOKEN:
            raise errors.TokenForgedError
        payload, made_at = self._token_signer.unsign(text, self.settings.withdrawals_kept)
        record, max_age = unpack(payload, made_at)
        life = max_age or self.settings.token_max_age
        return ReadToken(self.visitor(record), made_at, self.clock() - made_at > life)
