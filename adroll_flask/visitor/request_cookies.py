"""Our cookies in a request: which of them count, and when they are to be written again.

The record (``adroll_visitor``) is the truth for a year; ``__adroll_fpc`` is its working copy for
the pixel and stays raw, because the pixel reads it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adroll_flask.settings import Settings
from adroll_flask.times import DAY

from .record import Record

FIRST_PARTY_COOKIE = "__adroll_fpc"
#: The record lives as long as AdRoll's cookie, which the pixel sets for a year.
COOKIE_LIFE = 365 * DAY
#: A record that was signed less than this ago is not signed anew for its age.
RENEW_AFTER = DAY


def are_secure(settings: Settings, *, over_https: bool) -> bool:
    """Whether our cookies are ``Secure`` in the answer to a request."""
    return over_https if settings.cookie_secure is None else settings.cookie_secure


def record_cookie(settings: Settings, *, secure: bool) -> str:
    """The name of the record's cookie.

    With ``__Host-`` browsers take it from a secure response of the host itself alone, without a
    ``Domain`` (RFC 6265bis, section 4.1.3.2). No sibling host and no plain HTTP can write it.

    :param secure: our cookies are ``Secure`` here.

    >>> record_cookie(Settings(), secure=True), record_cookie(Settings(), secure=False)
    ('__Host-adroll_visitor', 'adroll_visitor')
    """
    is_of_this_host = secure and settings.cookie_domain is None
    return f"__Host-{settings.cookie_name}" if is_of_this_host else settings.cookie_name


def cookie_names(settings: Settings) -> set[str]:
    """The names of all cookies of ours that responses may set."""
    records = {record_cookie(settings, secure=secure) for secure in (True, False)}
    return {FIRST_PARTY_COOKIE, *records}


@dataclass(slots=True, eq=False, repr=False)
class RequestCookies:
    """What a request's ``Cookie`` header says of the visitor."""

    #: The valid record, if any.
    record: Record | None = None
    #: The well-formed first-party cookie that counts, normalised.
    cookie: str | None = None
    #: True where any cookie of ours or AdRoll's is in the header.
    any: bool = False

    def settled(self, now: float) -> bool:
        """True where nothing needs writing: a record in order, its working copy beside it."""
        if self.record is None or self.cookie is None:
            return False
        is_young = now - self.record.signed_at < RENEW_AFTER
        return is_young and self.record.first_party_cookie == self.cookie


def our_pairs(record_cookie: str) -> re.Pattern[str]:
    """The pattern of our two cookies in a raw ``Cookie`` header, with a semicolon put before it."""
    names = f"{re.escape(record_cookie)}|{FIRST_PARTY_COOKIE}"
    return re.compile(rf";[ \t]*({names})[ \t]*=[ \t]*([^;]*)")


def cookies_in(header: str, pairs: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The values of our two cookies in a raw ``Cookie`` header: records, and AdRoll's own cookies.

    A site may have many others, which are passed over.

    >>> cookies_in('a=1; adroll_visitor="x"; __adroll_fpc =y ', our_pairs("adroll_visitor"))
    (['x'], ['y'])
    """
    records: list[str] = []
    cookies: list[str] = []
    for name, text in pairs.findall(f";{header}"):
        # No other spaces: to browsers a name with one is another, which a sibling host may set.
        value = text.rstrip(" \t")
        if value[:1] == '"' and value[-1:] == '"' and len(value) > 1:
            value = value[1:-1]
        values = cookies if name == FIRST_PARTY_COOKIE else records
        values.append(value)
    return records, cookies
