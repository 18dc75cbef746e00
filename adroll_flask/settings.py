"""The extension's configuration: what each ``ADROLL_*`` key takes; read once, checked once, frozen.

Every ``#:`` comment of :class:`Settings` is the reference of one key. No error text holds a value:
it may be a secret under the wrong key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from difflib import get_close_matches
from functools import cache, cached_property, partial
from importlib.util import find_spec
from pathlib import PurePath
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypedDict, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

from . import host_names
from .errors import ConfigurationError

DAY = 86_400
#: The longest life that a token may be given, seconds: it holds AdRoll's cookie, which lives no
#: longer.
LONGEST_TOKEN_LIFE = 365 * DAY
#: What the sandbox knows: the package and the sandbox do not import each other.
SANDBOX_ACCOUNT: Mapping[str, str] = {
    "advertisable_eid": "SANDBOXADVERTISABLE01X",
    "pixel_eid": "SANDBOXPIXEL0000000001",
    "access_token": "sandbox-token",
}
#: Where it listens, unless told otherwise.
_SANDBOX_ADDRESS = "http://127.0.0.1:5001"
#: Names under which deployments say what they are, and hosts that run nothing but deployments.
STAGES = ("FLASK_ENV", "APP_ENV", "ENV", "ENVIRONMENT", "PYTHON_ENV", "DEPLOY_ENV", "STAGE")
PLATFORMS: Final = ("DYNO", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME", "WEBSITE_INSTANCE_ID")


@dataclass(frozen=True, slots=True)
class Account:
    """Where events go: an advertisable, its pixel, and the token with which they are sent."""

    advertisable_eid: str | None = None
    pixel_eid: str | None = None
    access_token: str | Callable[[], str] | None = field(default=None, repr=False)


# -- what a setting takes ------------------------------------------------------------------

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"\.?{_LABEL}(\.{_LABEL})*\Z", re.IGNORECASE)
_FORM: Final = "a text of another form"


class _Got(Exception):
    """A value that a setting does not take: what kind of thing it is, and what explains it."""

    def __init__(self, got: str, *, slug: str | None = None) -> None:
        super().__init__(got)
        self.slug = slug


@dataclass(frozen=True, slots=True)
class _Takes:
    """What a setting takes, in words and as a check that gives the value as it is kept.

    Callables and ``None`` are not checked: they are taken where the setting's type has them.
    """

    what: str
    check: Callable[[Any], Any]


def _other(value: object) -> _Got:
    return _Got("nothing" if value is None else f"a value of type {type(value).__name__}")


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # Flask's loader parses the environment as JSON: digits alone arrive as a number.
        raise _Got("a number: quote it (in the environment: '\"123\"')")
    if not isinstance(value, str):
        raise _other(value)
    return value


def _pattern(what: str, pattern: str) -> _Takes:
    def check(value: Any) -> str:
        if not re.fullmatch(pattern, text := _text(value)):
            raise _Got(_FORM)
        return text

    return _Takes(what, check)


def _list(what: str, check: Callable[[Any], Any] = _text) -> _Takes:
    """What takes a list, or one of its items alone."""

    def items(value: Any) -> tuple[Any, ...]:
        one = isinstance(value, str | bytes) or not isinstance(value, Sequence | set | frozenset)
        return tuple(dict.fromkeys(map(check, [value] if one else value)))

    return _Takes(what, items)


@partial(_Takes, "True or False")
def _boolean(value: Any) -> bool:
    # Flask's loader takes the environment for JSON, which has "true" and no "True".
    if isinstance(value, str) and value in ("True", "False"):
        return value == "True"
    if not isinstance(value, bool):
        raise _other(value)
    return value


def _choice(*choices: str, what: str = "") -> _Takes:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise _Got("another text") if choices and isinstance(value, str) else _other(value)
        return value

    return _Takes(what or "one of " + ", ".join(map(repr, choices)), check)


def _number(kind: type, least: int, unit: str, *, most: float = 1e12) -> _Takes:
    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            raise _other(value)
        if not least <= value <= most:
            raise _Got("one out of range")
        return kind(value)

    return _Takes(f"a {'whole ' * (kind is int)}number of {unit}, at least {least}", check)


# -- of one --------------------------------------------------------------------------------


@partial(_Takes, "the Server Access Token as a text, or a callable that returns it")
def _token(value: Any) -> Any:
    text = _text(value)
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise _Got("a text with spaces or characters that no header carries")
    return text


def _secret(value: Any) -> Any:
    if not (value if isinstance(value, bytes) else _text(value)):
        raise _Got("an empty one")
    return value


def _http(value: Any) -> SplitResult:
    """The parts of an address of http or https."""
    text = _text(value)
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise _Got(_FORM) from None
    if parts.scheme not in ("https", "http") or not host or not re.fullmatch("[!-~]+", text):
        raise _Got(_FORM)
    return parts


def _url(*, secret: bool) -> _Takes:
    @partial(_Takes, "an https URL (plain http only to this machine)")
    def check(value: Any) -> str:
        parts = _http(value)
        if parts.username or parts.password:
            raise _Got("one with user name and password")
        if secret and parts.scheme == "http" and not host_names.is_loopback(parts.hostname or ""):
            raise _Got("plain http: the access token would cross the network in the clear")
        return str(value)

    return check


def _origin(value: Any) -> str:
    """As browsers write it (RFC 6454, section 6.1): lower case, no port that goes without."""
    parts = _http(value)
    host, port = parts.hostname or "", parts.port
    origin = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}"
    # Nothing but these: no path, no user.
    whole = value.lower().removesuffix(f":{port}") == origin
    if not whole or port == 0 or not (_HOST.match(host) or host_names.is_ip(host)):
        raise _Got(_FORM)
    standard = {"http": 80, "https": 443}[parts.scheme]
    return origin if port in (None, standard) else f"{origin}:{port}"


@partial(_Takes, "True, False, the sandbox's port, or its address such as 'http://sandbox:5001'")
def _sandbox(value: Any) -> bool | str:
    """Whether there is a sandbox, or its address: a port is one of this machine."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value < 65_536:
            raise _Got("one out of range")
        wanted: bool | str = f"http://127.0.0.1:{value}"
    elif isinstance(value, str) and value not in ("True", "False"):
        wanted = _origin(value.rstrip("/"))
    else:
        wanted = _boolean.check(value)
    if wanted and os.environ.get("ADROLL_SANDBOX_ALLOW_PRODUCTION") != "1":
        production = ("production", "prod")
        signs = [name for name in STAGES if os.environ.get(name, "").lower() in production]
        signs += [name for name in PLATFORMS if os.environ.get(name)]
        if signs:
            why = f"{signs[0]} says that this is production, where events would vanish"
            raise _Got(f"True where {why} in the sandbox", slug="sandbox-in-production")
    return wanted


def _host(value: Any) -> str:
    text = _text(value)
    if not text.isascii():
        raise _Got("one that is not ASCII: write it as browsers send it ('xn--…')")
    if not (_HOST.match(text) or host_names.is_ip(text)):
        raise _Got(_FORM)
    return text.lower()


@partial(_Takes, "a domain name such as 'shop.example', or 'auto'")
def _domain(value: Any) -> str:
    text = _text(value)
    if text == "auto" and find_spec("publicsuffixlist") is None:
        extra = "pip install 'adroll-flask[domains]'"
        raise _Got(f"'auto' without the list of public suffixes: {extra}", slug="cookie-domain")
    if not _HOST.match(text) or (text != "auto" and "." not in text.strip(".")):
        raise _Got(_FORM)
    return text.lstrip(".").lower()


@partial(_Takes, "the path of a folder")
def _folder(value: Any) -> str:
    return _text(str(value) if isinstance(value, PurePath) else value)


@partial(_Takes, "the IANA name of a time zone such as 'Europe/Berlin'")
def _time_zone(value: Any) -> tzinfo:
    from zoneinfo import ZoneInfo

    text = _text(value)
    try:
        return UTC if text == "UTC" else ZoneInfo(text)
    except (ValueError, OSError, LookupError):
        raise _Got("one that this machine does not know (pip install tzdata brings all)") from None


@partial(
    _Takes,
    "an SQLAlchemy database URL such as 'sqlite:////var/lib/shop/adroll.sqlite', of SQLite, "
    "PostgreSQL, MariaDB or MySQL",
)
def _outbox_url(value: Any) -> str:
    text = _text(value)
    backend = re.match(r"([a-z][a-z0-9_]*)(\+\w+)?:", text)
    if backend is None:
        raise _Got(_FORM)
    if backend[1] == "postgres":  # as some hosts write it, and SQLAlchemy once took
        raise _Got("'postgres://…': write 'postgresql://…'")
    if backend[1] not in ("sqlite", "postgresql", "mysql", "mariadb"):
        raise _Got("another database")
    return text


@partial(
    _Takes,
    "accounts by host: {'shop.fr': {'advertisable_eid': …, 'pixel_eid': …, 'access_token': …}}",
)
def _accounts(value: Any) -> dict[str, Account]:
    if not isinstance(value, Mapping):
        raise _other(value)
    accounts: dict[str, Account] = {}
    for host, given in value.items():
        name = _host(host)
        if not isinstance(given, Mapping) or not given.keys() <= {*Account.__annotations__}:
            raise _Got(f"another thing for {name!r}")
        try:
            account = Account(**{key: accept(key, key, one) for key, one in given.items()})
        except ConfigurationError as fault:
            raise _Got(f"for {name!r} another: {fault}") from None
        if not (account.advertisable_eid and account.pixel_eid):
            raise _Got(f"one without both ids for {name!r}")
        accounts[name] = account
    return accounts


_EID = _pattern("an AdRoll id: 8 to 40 upper-case letters and digits", "([A-Z0-9]{8,40})?")
_SECRETS = _list("a text, bytes, or a list of these, newest first", _secret)
_PREFIX = _pattern(
    "a path such as '/_adroll': a leading slash, no trailing one", r"(/[A-Za-z0-9_.~-]+)+"
)
_ORIGINS = _list(
    "a list of origins such as 'https://www.shop.example', without a path or a wildcard", _origin
)
_HOSTS = _list(
    "a list of host names such as 'www.shop.example' or '.shop.example', without ports", _host
)
_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
# AdRoll's own is its pixel's to write, and a cookie of ours under its name would destroy it. One
# that begins with '__Host-' takes no Domain (RFC 6265bis, section 4.1.3.2), in any case of letters.
_COOKIE = _pattern(
    "a cookie's name, none of AdRoll's own such as '__adroll_fpc' and none with '__Host-'",
    rf"(?!__adroll|__ar_v4|(?i:__host-)){_NAME}",
)
_NONCE = _choice(what="a callable that returns the response's nonce")
_SECONDS = _number(int, 1, "seconds")
_CONSENT = _choice("tcf", what="None, 'tcf', or a callable that takes the request")
_PURPOSES = _list("a list of TCF purpose numbers from 1 to 24", _number(int, 1, "", most=24).check)
_FORMS = _list("any of 'sha256', 'md5', 'plain'", _choice("sha256", "md5", "plain").check)
Texts = str | Sequence[str] | set[str] | frozenset[str]
Secrets = str | bytes | Sequence[str | bytes]


class SettingValues(TypedDict, total=False):
    """The settings as they are given, in lower case without ``ADROLL_``."""

    advertisable_eid: Annotated[str | None, _EID]
    pixel_eid: Annotated[str | None, _EID]
    access_token: Annotated[str | Callable[[], str] | None, _token]
    accounts: Annotated[Mapping[str, Mapping[str, Any]], _accounts]
    secret_key: Annotated[Secrets | None, _SECRETS]
    enabled: bool
    sandbox: Annotated[bool | int | str, _sandbox]
    strict: bool | None
    dry_run: bool
    debug: bool
    api_url: Annotated[str, _url(secret=True)]
    pixel: Literal["load", "present", "none"]
    pixel_url: Annotated[str, _url(secret=False)]
    inject: bool
    url_prefix: Annotated[str, _PREFIX]
    csp_nonce: Annotated[Callable[..., str | None] | None, _NONCE]
    cached_paths: Annotated[Texts, _list("a list of path patterns such as '/products/*'")]
    origins: Annotated[Texts, _ORIGINS]
    hosts: Annotated[Texts, _HOSTS]
    cookie_name: Annotated[str, _COOKIE]
    cookie_domain: Annotated[str | None, _domain]
    cookie_secure: bool | None
    session: Literal["always", "join"]
    outbox_url: Annotated[str | None, _outbox_url]
    outbox_max_bytes: Annotated[int, _number(int, 0, "bytes", most=1 << 62)]
    outbox_sync: Literal["normal", "full"]
    outbox_commit: Literal["journal", "database"]
    journal_folder: Annotated[str | PurePath | None, _folder]
    delivery: Literal["thread", "worker", "sync"]
    linger: Annotated[float, _number(float, 0, "seconds", most=60)]
    max_age: Annotated[int, _SECONDS]
    dedupe_days: Annotated[int, _number(int, 1, "days", most=3650)]
    hold_max: Annotated[int, _SECONDS]
    on_unsure: Literal["retry", "drop"]
    remember_suppressed: bool
    consent: Annotated[str | Callable[[Any], bool | None] | None, _CONSENT]
    tcf_cookie: Annotated[str, _pattern("a cookie's name", _NAME)]
    tcf_vendor: Annotated[int, _number(int, 1, "the vendor list", most=65_535)]
    tcf_purposes: Annotated[Sequence[int], _PURPOSES]
    honor_gpc: bool
    email: Annotated[Texts, _FORMS]
    private_parameters: Annotated[Texts, _list("a list of names of parameters such as '*email*'")]
    kit_wait: Annotated[int, _number(int, 0, "milliseconds", most=60_000)]
    token_max_age: Annotated[int, _SECONDS]
    time_zone: Annotated[str, _time_zone]


@cache
def _table() -> Mapping[str, tuple[_Takes, set[Any]]]:
    """What each setting takes, and of which kinds its type is."""
    table = {}
    for name, hint in get_type_hints(SettingValues, include_extras=True).items():
        takes = _boolean
        if get_origin(hint) is Annotated:
            hint, takes = get_args(hint)
        elif get_origin(hint) is Literal:
            takes = _choice(*get_args(hint))
        table[name] = takes, {get_origin(kind) or kind for kind in get_args(hint)}
    return table


def accept(name: str, key: str, value: Any) -> Any:
    """*value* as the setting *name* keeps it; ``None`` where that stands for the default.

    :param key: what the error calls it.
    :raises ConfigurationError: it is none that the setting takes.
    """
    takes, kinds = _table()[name]
    if (value is None and NoneType in kinds) or (callable(value) and Callable in kinds):
        return value
    try:
        checked = takes.check(value)
    except _Got as got:
        raise ConfigurationError(key, f"takes {takes.what}; it got {got}", slug=got.slug) from None
    return None if isinstance(checked, str) and not checked else checked  # it says nothing


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """One app's configuration, made by :meth:`from_mapping`.

    Attributes are the keys in lower case without ``ADROLL_``: ``ADROLL_MAX_AGE`` is ``max_age``.
    Its ``repr`` names no value, since some are secrets.
    """

    #: The advertisable's public id, upper-case letters and digits, from AdRoll's dashboard.
    #: Default: none; sending needs it.
    advertisable_eid: str | None = None
    #: The pixel's public id, upper-case letters and digits, from AdRoll's dashboard.
    #: Default: none; sending needs it.
    pixel_eid: str | None = None
    #: The Server Access Token that an AdRoll account manager issues: a text, or a callable that
    #: returns one (asked once before each batch, so that it may rotate).
    #: Default: none; sending needs it.
    access_token: str | Callable[[], str] | None = field(default=None, repr=False)
    #: Further accounts by host: ``{"shop.fr": {"advertisable_eid": …, "pixel_eid": …,
    #: "access_token": …}}``; ``".shop.fr"`` is that domain and all below it. An event's account is
    #: that of its page's host (of the request, the token or ``page_location``), and the one above
    #: where the host is not here. Default: none.
    accounts: Mapping[str, Account] = field(default_factory=dict, repr=False)
    #: Signs the visitor's record and tokens; a list rotates, newest first.
    #: Default: the app's ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.
    secret_key: tuple[str | bytes, ...] = field(default=(), repr=False)
    #: Off: the API is there and does nothing.
    enabled: bool = True
    #: On: account, token and addresses are those of the sandbox on this machine
    #: (``flask adroll sandbox``), whatever the accounts' own settings say; a number is the port of
    #: one that was started with ``--port``, a text its address, such as ``"http://sandbox:5001"``
    #: in a compose file (then browsers need ``ADROLL_PIXEL_URL`` as they reach it). A set
    #: ``ADROLL_API_URL`` or ``ADROLL_PIXEL_URL`` stays as it is. Refused in production.
    sandbox: bool | str = False
    #: Programmer errors raise instead of becoming dead letters.
    #: Default: while the app is in debug or testing mode, looked up at each call.
    strict: bool | None = None
    #: AdRoll validates events and forgets them.
    dry_run: bool = False
    #: Print each event as it is reported, and what became of it, on standard error; no visitor's
    #: values.
    debug: bool = False
    #: The event API's address. Plain http is refused except to this machine.
    api_url: str = "https://srv.adroll.com/api"
    #: ``"load"``: the kit loads the pixel; ``"present"``: the site has it already;
    #: ``"none"``: there is no pixel.
    pixel: str = "load"
    #: Where the pixel's script is; ``{advertisable_eid}`` is filled in.
    pixel_url: str = "https://s.adroll.com/j/{advertisable_eid}/roundtrip.js"
    #: Put the snippet into HTML responses. Off: templates place it, with ``adroll_snippet()``.
    inject: bool = True
    #: The path below which our endpoints live.
    url_prefix: str = "/_adroll"
    #: A callable that returns the response's Content-Security-Policy nonce (Flask-Talisman's
    #: ``csp_nonce`` for example). The WSGI middleware's callable takes the environ.
    csp_nonce: Callable[..., str | None] | None = None
    #: Path patterns (``fnmatch``) that a CDN caches whatever the headers say.
    cached_paths: tuple[str, ...] = ()
    #: Front ends on other origins (``"https://www.shop.example"``) that may load the kit and post
    #: identity. Exactly these: no wildcard.
    origins: tuple[str, ...] = ()
    #: The hosts that are real, without ports; ``".shop.example"`` is that domain and all below it.
    #: Events of pages and requests elsewhere (staging, a copied database) go out as dry runs, and
    #: pages there load no pixel. Empty: all are real.
    hosts: tuple[str, ...] = ()
    #: The cookie that holds the visitor's record, for two shops on one host; none of AdRoll's own,
    #: and none with ``__Host-``, since it has a ``Domain``.
    cookie_name: str = "adroll_visitor"
    #: The ``Domain`` of ``adroll_visitor``: a domain name, or ``"auto"`` for the registrable
    #: domain by the public suffix list (the extra ``domains``). Default: the page's host.
    cookie_domain: str | None = None
    #: ``Secure`` on our cookies. Default: as the request came in.
    cookie_secure: bool | None = None
    #: ``"always"``: ``session["adroll"]`` shows click id and cookie to views from the first visit
    #: on; ``"join"``: only in sessions that the site has anyway. With Flask's own sessions neither
    #: begins one; ``"always"`` begins one of another kind, or beside a callable ``consent``.
    session: str = "always"
    #: Where events wait: an SQLAlchemy URL. A server is asked by the driver that the extra
    #: installs, whichever the URL names. Default: a SQLite file in the instance folder.
    outbox_url: str | None = field(default=None, repr=False)
    #: Bytes that wait, in the journal and in the outbox, beyond which a report fails, loudly. A
    #: report that is invalid fails from half of them on, to leave room for good ones. 0: no bound.
    outbox_max_bytes: int = 1 << 30
    #: ``"normal"``: a power cut may cost the last moment, a process kill nothing;
    #: ``"full"``: neither, at the price of a disk flush a report.
    outbox_sync: str = "normal"
    #: ``"journal"``: a report returns once the host's journal has it; ``"database"``: once the
    #: outbox's database has it, for hosts whose disk does not outlive them. The latter waits
    #: 250 ms at most, then the journal takes the event.
    outbox_commit: str = "journal"
    #: The folder of this host's journal; a relative path is relative to the instance folder.
    #: Default: ``adroll-journal`` in the instance folder.
    journal_folder: str | None = None
    #: ``"thread"``: delivered in this process; ``"worker"``: by ``flask adroll worker`` or
    #: Celery; ``"sync"``: before the report returns, for scripts.
    delivery: str = "thread"
    #: Seconds that a report may wait for company before its batch is sent.
    linger: float = 1.0
    #: Seconds from AdRoll's first answer that did not take an event until it is dead.
    max_age: int = 7 * DAY
    #: Days during which the same deduplication key is reported once.
    dedupe_days: int = 90
    #: Seconds after which a held conversion that nobody released is dropped.
    hold_max: int = 7 * DAY
    #: What happens to an event whose request was lost on its way: ``"retry"`` or ``"drop"``.
    on_unsure: str = "retry"
    #: Keep a keyed hash of a suppressed order's id with the reason for 13 months, nothing of the
    #: visitor, so that ``flask adroll reconcile`` tells "no consent" from "never reported".
    remember_suppressed: bool = True
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
    email: tuple[str, ...] = ("sha256", "md5")
    #: Names of parameters that mean a person, as patterns (``fnmatch``, in any case): they are left
    #: out of the page's URL before it is kept or sent. ``adct`` always stays.
    private_parameters: tuple[str, ...] = (
        *("*email*", "*phone*", "name", "first*name", "last*name", "*token*", "*password*"),
    )
    #: Milliseconds that the kit waits for the pixel's answer. After half of them it tells the click
    #: id.
    kit_wait: int = 3000
    #: Seconds for which a visitor token is taken that has no ``max_age`` of its own.
    token_max_age: int = 90 * DAY
    #: The zone of days, weeks and months in the dashboard and in ``flask adroll history``: an IANA
    #: name such as ``"Europe/Berlin"``. Default: ``'UTC'``.
    time_zone: tzinfo = UTC

    def __repr__(self) -> str:
        return f"<Settings {'on' if self.enabled else 'off'}>"

    @property
    def missing(self) -> tuple[str, ...]:
        """The keys that sending needs and that are not set; none where each host has its own."""
        needed = Account.__annotations__
        missing = tuple(f"ADROLL_{name.upper()}" for name in needed if not getattr(self, name))
        return () if self.accounts and len(missing) == len(needed) else missing

    @cached_property
    def account(self) -> Account:
        """The account of every host that has none of its own."""
        return Account(self.advertisable_eid, self.pixel_eid, self.access_token)

    @property
    def served_accounts(self) -> dict[str, Account]:
        """All accounts that this process serves, by advertisable EID."""
        accounts = (self.account, *self.accounts.values())
        return {one.advertisable_eid: one for one in accounts if one.advertisable_eid}

    def serves(self, eid: str) -> bool:
        """Whether events of the account *eid*, or of none yet, are this process's to send.

        Where no account is set, all are: whose they are is not known here.
        """
        return eid in ("", *(self.served_accounts or [eid]))

    def account_of(self, host: str) -> Account:
        """The account of the events of pages at *host*, a name without its port.

        An unknown host (an empty text) has the one that is there for all; of several domains that
        it is below, the longest counts.
        """
        if not self.accounts:
            return self.account
        own = self.accounts.get(host_names.in_ascii(host))
        above = (name for name in self.accounts if host_names.is_listed(host, (name,)))
        return own or self.accounts.get(max(above, key=len, default=""), self.account)

    @property
    def withdrawals_kept(self) -> int:
        """Seconds for which a visitor's no is known: as long as a token may come back."""
        return max(self.token_max_age, LONGEST_TOKEN_LIFE)

    def is_real(self, host: str) -> bool:
        """False where ``ADROLL_HOSTS`` says that nothing real happens at *host*.

        An unknown host (an empty text) is nowhere else.
        """
        return not (host and self.hosts) or host_names.is_listed(host, self.hosts)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``ADROLL_*`` key of *config*.

        :param config: a mapping such as ``app.config``; other keys are ignored.
        :raises ConfigurationError: a value is wrong, or an ``ADROLL_*`` key is unknown; it names
            all that are.

        >>> Settings.from_mapping({"ADROLL_PIXEL": "none"}).pixel
        'none'
        """
        given = {key: config[key] for key in config if str(key).startswith("ADROLL_")}
        return cls.checked(given, "setting", lambda name: f"ADROLL_{name.upper()}")

    @classmethod
    def checked(
        cls,
        given: Mapping[str, Any],
        what: str,
        called: Callable[[str], str],
        also: Iterable[str] = (),
    ) -> Settings:
        """The settings that *given* says.

        :param what: what errors call a key: a setting, or a call's argument.
        :param called: gives the key of a setting, its name in lower case without ``ADROLL_``.
        :param also: what else the call takes.
        :raises ConfigurationError: as of :meth:`from_mapping`.
        """
        names = {called(name): name for name in _table()}
        values: dict[str, Any] = {}
        faults: list[ConfigurationError] = []
        for key, value in given.items():
            try:
                if key not in names:
                    bare = {one.upper().removeprefix("ADROLL_"): one for one in (*names, *also)}
                    meant = get_close_matches(key.upper().removeprefix("ADROLL_"), bare, 1)
                    ask = f"; did you mean {bare[meant[0]]}?" if meant else ""
                    text = f"there is no such {what}{ask}"
                    raise ConfigurationError(key, text, slug="setting-unknown")
                checked = accept(names[key], key, value)
                if checked is not None:
                    values[names[key]] = checked
            except ConfigurationError as fault:
                faults.append(fault)
        if "enabled" not in values and environment_says("ENABLED") is False:
            values["enabled"] = False
        if values.get("sandbox"):
            address = _SANDBOX_ADDRESS if values["sandbox"] is True else values["sandbox"]
            addresses = {
                "api_url": f"{address}/api",
                "pixel_url": f"{address}/j/{{advertisable_eid}}/roundtrip.js",
            }
            values = {**addresses, **values, **SANDBOX_ACCOUNT, "accounts": {}}
        settings = cls(**values)
        served = settings.served_accounts
        all_of_them = (settings.account, *settings.accounts.values())
        if any(one.advertisable_eid and served[one.advertisable_eid] != one for one in all_of_them):
            text = "takes one pixel and one token for an advertisable"
            faults.append(ConfigurationError(called("accounts"), text))
        if faults:
            first, *more = faults
            raise ConfigurationError(first.key, first.problem, others=more, slug=first.slug)
        return settings


def environment_says(name: str) -> bool | None:
    """What ``FLASK_ADROLL_<name>`` or ``ADROLL_<name>`` of the environment says, if anything."""
    for prefix in ("FLASK_ADROLL_", "ADROLL_"):
        said = os.environ.get(prefix + name, "").lower()
        if said in ("true", "1", "false", "0"):
            return said in ("true", "1")
    return None
