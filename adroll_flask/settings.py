"""The extension's configuration: read once, checked once, then frozen.

Every ``#:`` comment below is the reference of one ``ADROLL_*`` key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigurationError

_EID = re.compile(r"[A-Z0-9]{8,40}\Z")
_HOST = re.compile(r"\.?(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\Z", re.IGNORECASE)
_PREFIX = re.compile(r"(/[A-Za-z0-9_.~-]+)+\Z")
_EMAIL_FORMS = ("sha256", "md5", "plain")

DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """One app's configuration, made by :meth:`from_mapping`.

    Attributes are the keys in lower case without ``ADROLL_``: ``ADROLL_MAX_AGE`` is ``max_age``.
    Its ``repr`` names no value, since some are secrets.
    """

    #: The advertisable's public id, upper-case letters and digits, from AdRoll's dashboard.
    advertisable_eid: str | None = None
    #: The pixel's public id, upper-case letters and digits, from AdRoll's dashboard.
    pixel_eid: str | None = None
    #: The Server Access Token that an AdRoll account manager issues: a text, or a callable that
    #: returns one (asked before each request to AdRoll, so that it may rotate).
    access_token: str | Callable[[], str] | None = field(default=None, repr=False)
    #: Signs the visitor's record and tokens; a list rotates, newest first.
    #: Default: the app's ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.
    secret_key: tuple[str | bytes, ...] = field(default=(), repr=False)
    #: Off: the API is there and does nothing.
    enabled: bool = True
    #: Programmer errors raise instead of becoming dead letters. ``None``: while the app is in
    #: debug or testing mode, looked up at each call.
    strict: bool | None = None
    #: AdRoll validates events and forgets them.
    dry_run: bool = False
    #: The event API's address. Plain http is refused except to this machine.
    api_url: str = "https://srv.adroll.com/api"
    #: ``"load"``: the kit loads the pixel; ``"present"``: the site has it already;
    #: ``"none"``: there is no pixel.
    pixel: str = "load"
    #: Where the pixel's script is; ``{advertisable_eid}`` is filled in.
    pixel_url: str = "https://s.adroll.com/j/{advertisable_eid}/roundtrip.js"
    #: Put the snippet into HTML responses.
    inject: bool = True
    #: The path below which our endpoints live.
    url_prefix: str = "/_adroll"
    #: A callable that returns the response's Content-Security-Policy nonce (Flask-Talisman's
    #: ``csp_nonce`` for example). The WSGI middleware's callable takes the environ.
    csp_nonce: Callable[..., str | None] | None = None
    #: Path patterns (``fnmatch``) that a CDN caches whatever the headers say.
    cached_paths: tuple[str, ...] = ()
    #: The ``Domain`` of ``adroll_visitor``: a domain name, or ``"auto"`` for the registrable
    #: domain by the public suffix list. Default: the page's host.
    cookie_domain: str | None = None
    #: ``Secure`` on our cookies. ``None``: as the request came in.
    cookie_secure: bool | None = None
    #: Where events wait: any SQLAlchemy URL. Default: a SQLite file in the instance folder.
    outbox_url: str | None = field(default=None, repr=False)
    #: Bytes of waiting events beyond which a report fails, loudly. 0: no bound.
    outbox_max_bytes: int = 1 << 30
    #: ``"normal"``: a power cut may cost the last moment, a process kill nothing;
    #: ``"full"``: neither, at the price of a disk flush a report. SQLite only.
    outbox_sync: str = "normal"
    #: ``"thread"``: delivered in this process; ``"worker"``: by ``flask adroll worker`` or
    #: Celery; ``"sync"``: before the report returns, for scripts.
    delivery: str = "thread"
    #: Seconds that a report may wait for company before its batch is sent.
    linger: float = 1.0
    #: Seconds of unheld time after which an event that AdRoll never took is dead.
    max_age: int = 7 * DAY
    #: Days during which the same deduplication key is reported once.
    dedupe_days: int = 90
    #: What happens to an event whose request was lost on its way: ``"retry"`` or ``"drop"``.
    on_unsure: str = "retry"
    #: Requests a second to AdRoll, over all workers together. ``None``: no limit of ours.
    max_requests_per_second: float | None = None
    #: ``None``: granted unless Global Privacy Control says no; ``"tcf"``: the TC string in the
    #: consent cookie; or a callable that takes the request and returns True, False or None
    #: (not yet asked).
    consent: str | Callable[[Any], bool | None] | None = None
    #: The cookie in which the consent platform keeps the TC string.
    tcf_cookie: str = "euconsent-v2"
    #: The vendor in the IAB's Global Vendor List whose consent is asked: NextRoll is 130.
    tcf_vendor: int = 130
    #: The TCF purposes needed: 1 (store and access), 7 (measure advertising performance).
    tcf_purposes: tuple[int, ...] = (1, 7)
    #: ``Sec-GPC: 1`` is a no.
    honor_gpc: bool = True
    #: Which forms of an e-mail address leave the server: any of sha256, md5, plain.
    email: tuple[str, ...] = ("sha256",)
    #: Milliseconds that the kit waits for the pixel's answer.
    kit_wait: int = 3000
    #: Seconds for which a visitor token is taken.
    token_max_age: int = 90 * DAY

    def __repr__(self) -> str:
        return f"<Settings {'on' if self.enabled else 'off'}>"

    @property
    def sendable(self) -> bool:
        """True where nothing that AdRoll needs for a request is missing."""
        return bool(self.advertisable_eid and self.pixel_eid and self.access_token)

    @property
    def missing(self) -> tuple[str, ...]:
        """The keys that sending needs and that are not set."""
        needed = ("advertisable_eid", "pixel_eid", "access_token")
        return tuple(f"ADROLL_{name.upper()}" for name in needed if not getattr(self, name))

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``ADROLL_*`` key of *config*.

        :param config: a mapping such as ``app.config``; other keys are ignored.
        :raises ConfigurationError: a value is wrong, or an ``ADROLL_*`` key is unknown; it names
            all that are.

        >>> Settings.from_mapping({"ADROLL_PIXEL": "none"}).pixel
        'none'
        """
        known = {f"ADROLL_{f.name.upper()}": f.name for f in fields(cls)}
        values: dict[str, Any] = {}
        faults: list[ConfigurationError] = []
        for key, value in config.items():
            if not isinstance(key, str) or not key.startswith("ADROLL_"):
                continue
            name = known.get(key)
            if name is None:
                faults.append(ConfigurationError(key, _suggest(key, known)))
                continue
            try:
                checked = _CHECKS[name](key, value)
            except ConfigurationError as fault:
                faults.append(fault)
                continue
            if checked is not None:
                values[name] = checked
        if faults:
            first, *others = faults
            raise ConfigurationError(first.key, first.problem, others=others)
        return cls(**values)


def _suggest(key: str, known: Mapping[str, str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key, known, 1)
    return f"there is no such setting; did you mean {near[0]}?" if near else "no such setting"


def app_keys(config: Mapping[str, Any]) -> tuple[str | bytes, ...]:
    """The app's own keys, newest first: ``SECRET_KEY``, then ``SECRET_KEY_FALLBACKS``."""
    keys = [config.get("SECRET_KEY"), *(config.get("SECRET_KEY_FALLBACKS") or ())]
    return tuple(key for key in keys if isinstance(key, str | bytes) and key)


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return f"a value of type {type(value).__name__}"


def _wrong(key: str, value: object, takes: str) -> ConfigurationError:
    return ConfigurationError(key, f"takes {takes}; it got {_kind(value)}")


_Check = Callable[[str, Any], Any]


def _boolean(key: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise _wrong(key, value, "True or False")
    return value


def _optional(check: _Check) -> _Check:
    def checked(key: str, value: Any) -> Any:
        return None if value is None else check(key, value)

    return checked


def _choice(*choices: str) -> _Check:
    takes = "one of " + ", ".join(repr(choice) for choice in choices)

    def checked(key: str, value: Any) -> Any:
        if not isinstance(value, str):
            raise _wrong(key, value, takes)
        if value not in choices:
            raise ConfigurationError(key, f"takes {takes}; it got another text")
        return value

    return checked


def _number(
    kind: type, least: float, unit: str, *, most: float = 1e12, positive: bool = False
) -> _Check:
    word = "a whole number" if kind is int else "a number"
    takes = f"{word} of {unit}, {'more than' if positive else 'at least'} {least:g}"

    def checked(key: str, value: Any) -> Any:
        allowed = int if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise _wrong(key, value, takes)
        if not (least <= value <= most) or (positive and value == least):
            raise ConfigurationError(key, f"takes {takes}; it got one out of range")
        return kind(value)

    return checked


def _text(key: str, value: Any, takes: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # Flask's loader parses the environment as JSON: digits alone arrive as a number.
        raise ConfigurationError(
            key, f"takes {takes}; it got a number: quote it (in the environment: '\"123\"')"
        )
    if not isinstance(value, str):
        raise _wrong(key, value, takes)
    return value


def _eid(key: str, value: Any) -> Any:
    takes = "an AdRoll id: 8 to 40 upper-case letters and digits"
    text = _text(key, value, takes)
    if not text:
        return None
    if not _EID.match(text):
        raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
    return text


def _token(key: str, value: Any) -> Any:
    takes = "the Server Access Token as a text, or a callable that returns it"
    if callable(value):
        return value
    text = _text(key, value, takes)
    if not text:
        return None
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ConfigurationError(
            key, f"takes {takes}; it got a text with spaces or characters that no header carries"
        )
    return text


def _secrets(key: str, value: Any) -> Any:
    takes = "a text, bytes, or a list of these, newest first"
    keys = [value] if isinstance(value, str | bytes | int) else value
    if not isinstance(keys, Sequence):
        raise _wrong(key, value, takes)
    for one in keys:
        if isinstance(one, int):
            raise ConfigurationError(key, f"takes {takes}; it got a number: quote it")
        if not isinstance(one, str | bytes):
            raise _wrong(key, one, takes)
        if not one:
            raise ConfigurationError(key, f"takes {takes}; it got an empty one")
    return tuple(keys)


def is_loopback(host: str) -> bool:
    """True for ``localhost`` and loopback addresses."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _url(*, secret: bool) -> _Check:
    takes = "an https URL (plain http only to this machine)"

    def checked(key: str, value: Any) -> Any:
        text = _text(key, value, takes)
        try:
            parts = urlsplit(text)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError:
            raise ConfigurationError(key, f"takes {takes}; it got a text of another form") from None
        if parts.scheme not in ("https", "http") or not host or not text.isascii():
            raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
        if parts.username or parts.password:
            raise ConfigurationError(key, f"takes {takes} without user name and password")
        if secret and parts.scheme == "http" and not is_loopback(host):
            raise ConfigurationError(
                key, f"takes {takes}: the access token would cross the network in the clear"
            )
        return text

    return checked


def _prefix(key: str, value: Any) -> Any:
    takes = "a path such as '/_adroll': a leading slash, no trailing one"
    text = _text(key, value, takes)
    if not _PREFIX.match(text):
        raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
    return text


def _function(takes: str) -> _Check:
    def checked(key: str, value: Any) -> Any:
        if not callable(value):
            raise _wrong(key, value, takes)
        return value

    return checked


def _texts(takes: str, choices: Sequence[str] | None = None) -> _Check:
    def checked(key: str, value: Any) -> Any:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, Sequence | set | frozenset):
            raise _wrong(key, value, takes)
        for item in items:
            if not isinstance(item, str):
                raise _wrong(key, item, takes)
            if choices is not None and item not in choices:
                raise ConfigurationError(key, f"takes {takes}; it got another text")
        return tuple(items)

    return checked


def _purposes(key: str, value: Any) -> Any:
    takes = "a list of TCF purpose numbers from 1 to 24"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _wrong(key, value, takes)
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int) or not 1 <= item <= 24:
            raise _wrong(key, item, takes)
    return tuple(value)


def _domain(key: str, value: Any) -> Any:
    takes = "a domain name such as 'shop.example', or 'auto'"
    text = _text(key, value, takes)
    if not _HOST.match(text) or (text != "auto" and "." not in text.strip(".")):
        raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
    return text.lstrip(".").lower()


def _cookie_name(key: str, value: Any) -> Any:
    takes = "a cookie's name"
    text = _text(key, value, takes)
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", text):
        raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
    return text


def _outbox_url(key: str, value: Any) -> Any:
    takes = "an SQLAlchemy database URL such as 'sqlite:////var/lib/shop/adroll.sqlite'"
    text = _text(key, value, takes)
    if not re.match(r"[a-z][a-z0-9+_]*:", text):
        raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
    return text


def _consent(key: str, value: Any) -> Any:
    takes = "None, 'tcf', or a callable that takes the request"
    if callable(value) or value == "tcf":
        return value
    if isinstance(value, str):
        raise ConfigurationError(key, f"takes {takes}; it got another text")
    raise _wrong(key, value, takes)


_CHECKS: Mapping[str, _Check] = {
    "advertisable_eid": _optional(_eid),
    "pixel_eid": _optional(_eid),
    "access_token": _optional(_token),
    "secret_key": _optional(_secrets),
    "enabled": _boolean,
    "strict": _optional(_boolean),
    "dry_run": _boolean,
    "api_url": _url(secret=True),
    "pixel": _choice("load", "present", "none"),
    "pixel_url": _url(secret=False),
    "inject": _boolean,
    "url_prefix": _prefix,
    "csp_nonce": _optional(_function("a callable that returns the response's nonce")),
    "cached_paths": _texts("a list of path patterns such as '/products/*'"),
    "cookie_domain": _optional(_domain),
    "cookie_secure": _optional(_boolean),
    "outbox_url": _optional(_outbox_url),
    "outbox_max_bytes": _number(int, 0, "bytes", most=1 << 62),
    "outbox_sync": _choice("normal", "full"),
    "delivery": _choice("thread", "worker", "sync"),
    "linger": _number(float, 0, "seconds", most=60),
    "max_age": _number(int, 0, "seconds", positive=True),
    "dedupe_days": _number(int, 1, "days", most=3650),
    "on_unsure": _choice("retry", "drop"),
    "max_requests_per_second": _optional(_number(float, 0, "requests a second", positive=True)),
    "consent": _optional(_consent),
    "tcf_cookie": _cookie_name,
    "tcf_vendor": _number(int, 1, "the vendor list", most=65_535),
    "tcf_purposes": _purposes,
    "honor_gpc": _boolean,
    "email": _texts("any of 'sha256', 'md5', 'plain'", _EMAIL_FORMS),
    "kit_wait": _number(int, 0, "milliseconds", most=60_000),
    "token_max_age": _number(int, 0, "seconds", positive=True),
}
