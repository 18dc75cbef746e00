"""The extension's configuration: what each ``ADROLL_*`` key takes; read once, checked once, frozen.

Every ``#:`` comment of :class:`Settings` is the reference of one key. No error text holds a value:
somebody may have put a secret under the wrong key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, tzinfo
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, TypedDict, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

from . import host_names
from .accounts import Account, AccountsOfHosts
from .errors import ConfigurationError
from .times import DAY

#: Seconds that a token may live at most: as long as AdRoll's cookie, whose value it holds.
LONGEST_TOKEN_LIFE = 365 * DAY
#: Environment variables that name a deployment's stage.
STAGES = ("FLASK_ENV", "APP_ENV", "ENV", "ENVIRONMENT", "PYTHON_ENV", "DEPLOY_ENV", "STAGE")
#: Values of these, in lower case, that mean production.
_PRODUCTION: Final = ("production", "prod")
#: Environment variables that only a deployment has.
PLATFORMS: Final = ("DYNO", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME", "WEBSITE_INSTANCE_ID")

#: Hosts whose disk is lost with each deployment. Each is known by an environment variable and its
#: value (empty: any). Containers of Fargate and of App Runner have the same variable.
FLEETING: Final = {
    "Heroku": ("DYNO", ""),
    "Cloud Run": ("K_SERVICE", ""),
    "AWS Fargate or App Runner": ("AWS_EXECUTION_ENV", "AWS_ECS_FARGATE"),
    "Fly": ("FLY_APP_NAME", ""),
}


def fleeting_host() -> str:
    """Which of the hosts in :data:`FLEETING` this is; empty: none of them."""
    for host, (name, value) in FLEETING.items():
        if os.environ.get(name) and value in ("", os.environ[name]):
            return host
    return ""


# -- what a setting takes ------------------------------------------------------------------

_OTHER_FORM: Final = "a text of another form"


class _Got(Exception):
    """A value that a setting does not take.

    Its text says what kind of value it is. *slug* names what the page of errors says of the fault.
    """

    def __init__(self, got: str, *, slug: str | None = None) -> None:
        super().__init__(got)
        self.slug = slug


@dataclass(frozen=True, slots=True)
class _Takes:
    """What a setting takes: in words, and as a check that returns the value as it is kept.

    A check gets neither callables nor ``None``: the setting's type says whether it takes them.
    """

    what: str
    check: Callable[[Any], Any]


def _of_other_type(value: object) -> _Got:
    return _Got("nothing" if value is None else f"a value of type {type(value).__name__}")


def _checked_text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # Flask's loader parses the environment as JSON: digits alone arrive as a number.
        raise _Got("a number: quote it (in the environment: '\"123\"')")
    if not isinstance(value, str):
        raise _of_other_type(value)
    return value


def _pattern(what: str, pattern: str) -> _Takes:
    def check(value: Any) -> str:
        text = _checked_text(value)
        if not re.fullmatch(pattern, text):
            raise _Got(_OTHER_FORM)
        return text

    return _Takes(what, check)


def _list(what: str, check: Callable[[Any], Any] = _checked_text) -> _Takes:
    """A list of what *check* takes, or one such item. An item that is there twice is kept once."""

    def items(value: Any) -> tuple[Any, ...]:
        is_text = isinstance(value, str | bytes)
        is_list = isinstance(value, Sequence | set | frozenset) and not is_text
        return tuple(dict.fromkeys(map(check, value if is_list else [value])))

    return _Takes(what, items)


def _boolean(value: Any) -> bool:
    # Flask's loader parses the environment as JSON, where "true" is a boolean and "True" a text.
    if isinstance(value, str) and value in ("True", "False"):
        return value == "True"
    if not isinstance(value, bool):
        raise _of_other_type(value)
    return value


def _choice(*choices: str, what: str = "") -> _Takes:
    def check(value: Any) -> Any:
        if not choices or not isinstance(value, str):  # without choices it takes a callable alone
            raise _of_other_type(value)
        if value not in choices:
            raise _Got("another text")
        return value

    return _Takes(what or "one of " + ", ".join(map(repr, choices)), check)


def _number(kind: type, least: int, unit: str, *, most: float = 1e12) -> _Takes:
    types = int if kind is int else int | float

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, types):
            raise _of_other_type(value)
        if not least <= value <= most:
            raise _Got("one out of range")
        return kind(value)

    number = "a whole number" if kind is int else "a number"
    return _Takes(f"{number} of {unit}, at least {least}", check)


# -- what single settings take ---------------------------------------------------------------


def _token(value: Any) -> Any:
    text = _checked_text(value)
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise _Got("a text with spaces or characters that no header carries")
    return text


def _secret(value: Any) -> Any:
    secret = value if isinstance(value, bytes) else _checked_text(value)
    if not secret:
        raise _Got("an empty one")
    return secret


def _http(value: Any) -> SplitResult:
    """The parts of an address of http or https."""
    text = _checked_text(value)
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and parts.port != 0  # port raises where it is no number
    except ValueError:
        raise _Got(_OTHER_FORM) from None
    if parts.scheme not in ("https", "http") or not is_whole or not re.fullmatch("[!-~]+", text):
        raise _Got(_OTHER_FORM)
    return parts


def _url(value: Any) -> str:
    parts = _http(value)
    if parts.username or parts.password:
        raise _Got("one with user name and password")
    return str(value)


def _api_url(value: Any) -> str:
    parts = _http(value)
    if parts.scheme == "http" and not host_names.is_loopback(parts.hostname or ""):
        raise _Got("plain http: the access token would cross the network in the clear")
    return _url(value)


def _origin(value: Any) -> str:
    """An origin as browsers write it (RFC 6454, section 6.1): lower case, no standard port."""
    parts = _http(value)
    host = parts.hostname or ""
    port = parts.port
    origin = f"{parts.scheme}://[{host}]" if ":" in host else f"{parts.scheme}://{host}"
    has_more = value.lower().removesuffix(f":{port}") != origin  # a path, a user
    if has_more or not (host_names.is_name(host) or host_names.is_ip(host)):
        raise _Got(_OTHER_FORM)
    standard = {"http": 80, "https": 443}[parts.scheme]
    return origin if port in (None, standard) else f"{origin}:{port}"


def _sandbox(value: Any) -> bool | str:
    """Whether there is a sandbox, or its address. A number is a port of this machine."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 < value < 65_536:  # FLASK_ADROLL_SANDBOX=1 is meant as a switch.
            raise _Got("one out of range")
        sandbox: bool | str = f"http://127.0.0.1:{value}"
    elif isinstance(value, str) and value not in ("True", "False"):
        sandbox = _origin(value.rstrip("/"))
    else:
        sandbox = _boolean(value)
    if sandbox and os.environ.get("ADROLL_SANDBOX_ALLOW_PRODUCTION") != "1":
        _refuse_production()
    return sandbox


def _refuse_production() -> None:
    signs = [name for name in STAGES if os.environ.get(name, "").lower() in _PRODUCTION]
    signs += [name for name in PLATFORMS if os.environ.get(name)]
    if signs:
        why = f"{signs[0]} says that this is production, where events would vanish"
        raise _Got(f"True where {why} in the sandbox", slug="sandbox-in-production")


def _host(value: Any) -> str:
    text = _checked_text(value)
    if not text.isascii():
        raise _Got("one that is not ASCII: write it as browsers send it ('xn--…')")
    if not (host_names.is_name(text.removeprefix(".")) or host_names.is_ip(text)):
        raise _Got(_OTHER_FORM)
    return text.lower()


def _domain(value: Any) -> str:
    text = _checked_text(value)
    if text == "auto":
        if find_spec("publicsuffixlist") is None:
            extra = "pip install 'adroll-flask[domains]'"
            raise _Got(f"'auto' without the list of public suffixes: {extra}", slug="cookie-domain")
    elif "." not in text.strip(".") or not host_names.is_name(text.lstrip(".")):
        raise _Got(_OTHER_FORM)
    return text.strip(".").lower()


def _folder(value: Any) -> str:
    return _checked_text(str(value) if isinstance(value, PurePath) else value)


def _time_zone(value: Any) -> tzinfo:
    from zoneinfo import ZoneInfo

    text = _checked_text(value)
    try:
        return UTC if text == "UTC" else ZoneInfo(text)  # UTC needs no data of zones
    except (ValueError, OSError, LookupError):
        raise _Got("one that this machine does not know (pip install tzdata brings all)") from None


def _outbox_url(value: Any) -> str:
    text = _checked_text(value)
    backend = re.match(r"([a-z][a-z0-9_]*)(\+\w+)?:", text)
    if backend is None:
        raise _Got(_OTHER_FORM)
    if backend[1] == "postgres":  # as some hosts write it, and SQLAlchemy once took
        raise _Got("'postgres://…': write 'postgresql://…'")
    if backend[1] not in ("sqlite", "postgresql", "mysql", "mariadb"):
        raise _Got("another database")
    return text


def _accounts(value: Any) -> dict[str, Account]:
    if not isinstance(value, Mapping):
        raise _of_other_type(value)
    accounts: dict[str, Account] = {}
    for host, entry in value.items():
        name = _host(host)
        if not isinstance(entry, Mapping) or not entry.keys() <= {*Account.__annotations__}:
            raise _Got(f"another thing for {name!r}")
        try:
            account = Account(**{key: as_kept(key, key, item) for key, item in entry.items()})
        except ConfigurationError as fault:
            raise _Got(f"for {name!r} another: {fault}") from None
        if not (account.advertisable_eid and account.pixel_eid):
            raise _Got(f"one without both ids for {name!r}")
        accounts[name] = account
    return accounts


_BOOLEAN = _Takes("True or False", _boolean)
_TOKEN = _Takes("the Server Access Token as a text, or a callable that returns it", _token)
_SANDBOX = _Takes(
    "True, False, the sandbox's port, or its address such as 'http://sandbox:5001'", _sandbox
)
_ACCOUNTS = _Takes(
    "accounts by host: {'shop.fr': {'advertisable_eid': …, 'pixel_eid': …, 'access_token': …}}",
    _accounts,
)
_API_URL = _Takes("an https URL (plain http only to this machine)", _api_url)
_PIXEL_URL = _Takes(_API_URL.what, _url)
_DOMAIN = _Takes("a domain name such as 'shop.example', or 'auto'", _domain)
_OUTBOX_URL = _Takes(
    "an SQLAlchemy database URL such as 'sqlite:////var/lib/shop/adroll.sqlite', of SQLite, "
    "PostgreSQL, MariaDB or MySQL",
    _outbox_url,
)
_FOLDER = _Takes("the path of a folder", _folder)
_TIME_ZONE = _Takes("the IANA name of a time zone such as 'Europe/Berlin'", _time_zone)
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
# The pixel writes AdRoll's own cookies: ours under such a name would destroy one of them. The
# prefix '__Host-' is added where it may be (RFC 6265bis, section 4.1.3.2).
_COOKIE = _pattern(
    "a cookie's name, none of AdRoll's own such as '__adroll_fpc' and none with '__Host-'",
    rf"(?!__adroll|__ar_v4|(?i:__host-)){_NAME}",
)
_NONCE = _choice(what="a callable that returns the response's nonce")
_SECONDS = _number(int, 1, "seconds")
_CONSENT = _choice("tcf", "gpp", what="None, 'tcf', 'gpp', or a callable that takes the request")
_PURPOSES = _list("a list of TCF purpose numbers from 1 to 24", _number(int, 1, "", most=24).check)
_FORMS = _list("any of 'sha256', 'md5', 'plain'", _choice("sha256", "md5", "plain").check)
Texts = str | Sequence[str] | set[str] | frozenset[str]


class SettingValues(TypedDict, total=False):
    """What each setting takes, under its name in lower case without ``ADROLL_``.

    :class:`Settings` has the same names, with the values as they are kept; a test compares the
    names. There are two classes, since type checkers read the keyword arguments of a call only from
    a ``TypedDict``.
    """

    advertisable_eid: Annotated[str | None, _EID]
    pixel_eid: Annotated[str | None, _EID]
    access_token: Annotated[str | Callable[[], str] | None, _TOKEN]
    accounts: Annotated[Mapping[str, Mapping[str, Any]], _ACCOUNTS]
    secret_key: Annotated[str | bytes | Sequence[str | bytes] | None, _SECRETS]
    enabled: bool
    sandbox: Annotated[bool | int | str, _SANDBOX]
    strict: bool | None
    dry_run: bool
    debug: bool
    api_url: Annotated[str, _API_URL]
    pixel: Literal["load", "present", "none"]
    pixel_url: Annotated[str, _PIXEL_URL]
    inject: bool
    url_prefix: Annotated[str, _PREFIX]
    csp_nonce: Annotated[Callable[..., str | None] | None, _NONCE]
    cached_paths: Annotated[Texts, _list("a list of path patterns such as '/products/*'")]
    origins: Annotated[Texts, _ORIGINS]
    hosts: Annotated[Texts, _HOSTS]
    cookie_name: Annotated[str, _COOKIE]
    cookie_domain: Annotated[str | None, _DOMAIN]
    cookie_secure: bool | None
    outbox_url: Annotated[str | None, _OUTBOX_URL]
    outbox_max_bytes: Annotated[int, _number(int, 0, "bytes", most=1 << 62)]
    outbox_sync: Literal["normal", "full"]
    outbox_commit: Literal["journal", "database"]
    journal_folder: Annotated[str | PurePath | None, _FOLDER]
    delivery: Literal["thread", "worker", "sync"]
    linger: Annotated[float, _number(float, 0, "seconds", most=60)]
    max_age: Annotated[int, _SECONDS]
    dedupe_days: Annotated[int, _number(int, 1, "days", most=3650)]
    hold_max: Annotated[int, _SECONDS]
    on_unsure: Literal["retry", "drop"]
    remember_suppressed: bool
    consent: Annotated[str | Callable[[Any], bool | Awaitable[bool | None] | None] | None, _CONSENT]
    tcf_cookie: Annotated[str, _pattern("a cookie's name", _NAME)]
    tcf_vendor: Annotated[int, _number(int, 1, "the vendor list", most=65_535)]
    tcf_purposes: Annotated[Sequence[int], _PURPOSES]
    honor_gpc: bool
    email: Annotated[Texts, _FORMS]
    private_parameters: Annotated[Texts, _list("a list of names of parameters such as '*email*'")]
    kit_wait: Annotated[int, _number(int, 0, "milliseconds", most=60_000)]
    token_max_age: Annotated[int, _SECONDS]
    time_zone: Annotated[str, _TIME_ZONE]


@cache
def _takes_by_name() -> Mapping[str, tuple[_Takes, set[Any]]]:
    """What each setting takes, and the types of which its type is a union (none: it is no union).

    The types tell :func:`as_kept` whether it takes a callable, and whether it takes ``None``.
    """
    table = {}
    for name, hint in get_type_hints(SettingValues, include_extras=True).items():
        takes = _BOOLEAN
        if get_origin(hint) is Annotated:
            hint, takes = get_args(hint)
        elif get_origin(hint) is Literal:
            takes = _choice(*get_args(hint))
        table[name] = takes, {get_origin(kind) or kind for kind in get_args(hint)}
    return table


def as_kept(name: str, key: str, value: Any) -> Any:
    """*value* as the setting *name* keeps it; ``None`` means the default.

    :param key: what the error calls the setting.
    :raises ConfigurationError: the setting does not take *value*.
    """
    takes, kinds = _takes_by_name()[name]
    if value is None and type(None) in kinds:
        return None
    if callable(value) and Callable in kinds:
        return value
    try:
        checked = takes.check(value)
    except _Got as got:
        raise ConfigurationError(key, f"takes {takes.what}; it got {got}", slug=got.slug) from None
    return None if checked == "" else checked  # an empty text: the default


def _unknown_key(key: str, what: str, known: Iterable[str]) -> ConfigurationError:
    bare = {name.upper().removeprefix("ADROLL_"): name for name in known}
    near = get_close_matches(key.upper().removeprefix("ADROLL_"), bare, 1)
    hint = f"; did you mean {bare[near[0]]}?" if near else ""
    return ConfigurationError(key, f"there is no such {what}{hint}", slug="setting-unknown")


_PRIVATE = ("*email*", "*phone*", "name", "first*name", "last*name", "*token*", "*password*")


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings(AccountsOfHosts):
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
    #: "access_token": …}}``; ``".shop.fr"`` is that domain and all below it. The host of an event's
    #: page decides: that of ``page_location``, of the token or of the request. Events of other
    #: hosts belong to the account of the three settings above. Default: none.
    accounts: Mapping[str, Account] = field(default_factory=dict, repr=False)
    #: Signs the visitor's record and tokens; a list rotates, newest first.
    #: Default: the app's ``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``.
    secret_key: tuple[str | bytes, ...] = field(default=(), repr=False)
    #: Off: the API is there and does nothing.
    enabled: bool = True
    #: On: events go to the sandbox on this machine (``flask adroll sandbox``), with the sandbox's
    #: token, and each account has EIDs of its own there. A number is the port at which it starts. A
    #: text is its address, such as ``"http://sandbox:5001"`` in a compose file; then set
    #: ``ADROLL_PIXEL_URL`` to the address by which browsers reach it.
    #: ``ADROLL_API_URL`` and ``ADROLL_PIXEL_URL`` stay as they are set. Refused in production.
    sandbox: bool | str = False
    #: Programmer errors raise instead of becoming dead letters.
    #: Default: while the app is in debug or testing mode, looked up at each call.
    strict: bool | None = None
    #: AdRoll validates events and forgets them.
    dry_run: bool = False
    #: Print each event on standard error when it is reported, and then what became of it. No
    #: visitor's values are printed.
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
    #: ``csp_nonce`` for example). The middlewares' callable takes the environ, or the scope.
    csp_nonce: Callable[..., str | None] | None = None
    #: Patterns (``fnmatch``) of paths that a CDN caches whatever the headers say. No response
    #: there gets a cookie.
    cached_paths: tuple[str, ...] = ()
    #: Front ends on other origins (``"https://www.shop.example"``) that may load the kit and post
    #: identity. Exactly these: no wildcard.
    origins: tuple[str, ...] = ()
    #: The hosts that are real, without ports; ``".shop.example"`` is that domain and all below it.
    #: On other hosts (staging, a copied database) events are sent as dry runs, and pages load no
    #: pixel. Empty: all are real.
    hosts: tuple[str, ...] = ()
    #: The name of the cookie that holds the visitor's record; two shops on one host need two names.
    #: It may not be the name of a cookie of AdRoll's. Over HTTPS it gets the prefix ``__Host-``, so
    #: that no other host and no plain HTTP can write the cookie, unless ``cookie_domain`` is set.
    cookie_name: str = "adroll_visitor"
    #: The ``Domain`` of ``adroll_visitor``, where several hosts are to recognise one visitor: a
    #: domain name, or ``"auto"`` for the registrable domain by the public suffix list (the extra
    #: ``domains``). All its hosts can then write the record. Default: the page's host alone.
    cookie_domain: str | None = None
    #: ``Secure`` on our cookies. Default: as the request came in.
    cookie_secure: bool | None = None
    #: Where events wait: an SQLAlchemy URL. The driver is always the one that the extra installs,
    #: whichever the URL names. Default: a SQLite file in the instance folder.
    outbox_url: str | None = field(default=None, repr=False)
    #: Bytes that may wait in the journal and in the outbox. Beyond them a report fails, with a
    #: critical message in the log. Beyond half of them an invalid report fails, so that good ones
    #: have room. 0: no bound.
    outbox_max_bytes: int = 1 << 30
    #: ``"normal"``: a power cut may lose the last moment's reports, the kill of a process loses
    #: none. ``"full"``: neither loses any, and each report waits for a flush of the disk.
    outbox_sync: str = "normal"
    #: ``"journal"``: a report returns once the host's journal has it. ``"database"``: once the
    #: outbox's database has it, for hosts whose disk is lost with them; after 250 ms without the
    #: database the journal takes the event.
    outbox_commit: str = "journal"
    #: The folder of this host's journal; a relative path is relative to the instance folder.
    #: Default: ``adroll-journal`` in the instance folder.
    journal_folder: str | None = None
    #: ``"thread"``: delivered in this process; ``"worker"``: by ``flask adroll worker`` or
    #: Celery; ``"sync"``: before the report returns, for scripts.
    delivery: str = "thread"
    #: Seconds that a report may wait for others before its batch is sent.
    linger: float = 1.0
    #: Seconds after which an event is dead. They count from AdRoll's first answer that did not take
    #: the event.
    max_age: int = 7 * DAY
    #: Days during which the same deduplication key is reported once. A dead letter is kept for
    #: 90 days, whatever this is, and its key for 90 more.
    dedupe_days: int = 90
    #: Seconds after which a held conversion that nobody released is dropped.
    hold_max: int = 7 * DAY
    #: What happens to an event whose request was lost on its way: ``"retry"`` or ``"drop"``.
    on_unsure: str = "retry"
    #: Keep a keyed hash of a suppressed order's id for 13 months, with the reason and nothing about
    #: the visitor: ``flask adroll reconcile`` then tells "no consent" from "never reported".
    remember_suppressed: bool = True
    #: Who asks for consent. ``None``: nobody; it is granted unless Global Privacy Control says no.
    #: ``"tcf"``: the TC string in the consent cookie says. ``"gpp"``: the page's consent platform
    #: says by the Global Privacy Platform. Consent is then granted unless the platform tells of an
    #: opt-out in the US. Where the platform's European section applies, that section decides, as
    #: with ``"tcf"``. A callable takes the request and returns True, False or None (not yet asked);
    #: in ``AdRollASGIMiddleware`` it may be an ``async def``.
    consent: str | Callable[[Any], bool | None] | None = None
    #: The cookie in which the consent platform keeps the TC string.
    tcf_cookie: str = "euconsent-v2"
    #: The vendor in the IAB's Global Vendor List whose consent is asked: NextRoll is 130.
    tcf_vendor: int = 130
    #: The TCF purposes needed: 1 (store and access), 7 (measure advertising performance).
    tcf_purposes: tuple[int, ...] = (1, 7)
    #: The header ``Sec-GPC: 1`` counts as a no.
    honor_gpc: bool = True
    #: Which forms of an e-mail address leave the server: any of sha256, md5, plain.
    email: tuple[str, ...] = ("sha256", "md5")
    #: Patterns (``fnmatch``, in any case) of the names of parameters that tell who a person is.
    #: They are left out of the page's URL before it is kept or sent. ``adct`` always stays.
    private_parameters: tuple[str, ...] = _PRIVATE
    #: Milliseconds that the kit waits for the pixel. After half of them it sends the click id
    #: alone.
    kit_wait: int = 3000
    #: Seconds for which a visitor token is valid, unless it has a ``max_age`` of its own.
    token_max_age: int = 90 * DAY
    #: The zone of days, weeks, months and times on the dashboard and in commands: an IANA name such
    #: as ``"Europe/Berlin"``. Default: ``'UTC'``.
    time_zone: tzinfo = UTC

    @property
    def missing(self) -> tuple[str, ...]:
        """The keys that sending needs and that are not set.

        Empty where only :attr:`accounts` is set: then each host has an account of its own.
        """
        needed = Account.__annotations__
        missing = tuple(f"ADROLL_{name.upper()}" for name in needed if not getattr(self, name))
        return () if self.accounts and len(missing) == len(needed) else missing

    @property
    def withdrawals_kept(self) -> int:
        """Seconds for which a visitor's no is kept: as long as a token may be used."""
        return max(self.token_max_age, LONGEST_TOKEN_LIFE)

    def is_real(self, host: str) -> bool:
        """False where ``ADROLL_HOSTS`` does not list *host*.

        :param host: a name without its port; empty: it is not known, and counts as real.
        """
        return not host or not self.hosts or host_names.is_listed(host, self.hosts)

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> Settings:
        """Read and check every ``ADROLL_*`` key of *config*.

        :param config: a mapping such as ``app.config``; other keys are ignored.
        :raises ConfigurationError: a value is wrong, or an ``ADROLL_*`` key is unknown; it names
            all faults.

        >>> Settings.from_mapping({"ADROLL_PIXEL": "none"}).pixel
        'none'
        """
        ours = {key: config[key] for key in config if str(key).startswith("ADROLL_")}
        return cls.checked(ours, "setting", lambda name: f"ADROLL_{name.upper()}")

    @classmethod
    def checked(
        cls,
        config: Mapping[str, Any],
        what: str,
        key_of: Callable[[str], str],
        others: Iterable[str] = (),
    ) -> Settings:
        """The settings of *config*, in which every key has to be a setting's.

        :param what: the word for a key in errors, such as ``"setting"``.
        :param key_of: gives the key of a setting by its name in lower case without ``ADROLL_``.
        :param others: arguments that the call takes beside settings; errors suggest them, too.
        :raises ConfigurationError: as of :meth:`from_mapping`.
        """
        names = {key_of(name): name for name in _takes_by_name()}
        values: dict[str, Any] = {}
        faults: list[ConfigurationError] = []
        for key, value in config.items():
            try:
                if key not in names:
                    raise _unknown_key(key, what, (*names, *others))
                checked = as_kept(names[key], key, value)
                if checked is not None:
                    values[names[key]] = checked
            except ConfigurationError as fault:
                faults.append(fault)
        # The environment can switch it off, also where the site does not read it into its config.
        if "enabled" not in values and environment_says("ENABLED") is False:
            values["enabled"] = False
        if values.get("sandbox"):
            values = _in_sandbox(values)
        settings = cls(**values)
        # Two hosts may have one advertisable, but only with the same pixel and token.
        served = settings.served_accounts
        every = (settings.account, *settings.accounts.values())
        if any(served.get(account.advertisable_eid or "", account) != account for account in every):
            text = "takes one pixel and one token for an advertisable"
            faults.append(ConfigurationError(key_of("accounts"), text))
        if faults:
            first, *more = faults
            raise ConfigurationError(first.key, first.problem, others=more, slug=first.slug)
        return settings


def _in_sandbox(values: Mapping[str, Any]) -> dict[str, Any]:
    """*values* with the sandbox's accounts, and with its addresses where none are set."""
    address = "http://127.0.0.1:5001" if values["sandbox"] is True else values["sandbox"]
    addresses = {
        "api_url": f"{address}/api",
        "pixel_url": f"{address}/j/{{advertisable_eid}}/roundtrip.js",
    }
    own = Account(values.get("advertisable_eid")).in_sandbox()
    accounts = values.get("accounts", {})
    by_host = {host: account.in_sandbox() for host, account in accounts.items()}
    return {**addresses, **values, **asdict(own), "accounts": by_host}


def environment_says(name: str) -> bool | None:
    """What ``FLASK_ADROLL_<name>`` or ``ADROLL_<name>`` of the environment says, if anything."""
    for prefix in ("FLASK_ADROLL_", "ADROLL_"):
        value = os.environ.get(prefix + name, "").lower()
        if value in ("true", "1", "false", "0"):
            return value in ("true", "1")
    return None
