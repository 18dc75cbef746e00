"""What each ``ADROLL_*`` key takes: one table, for the type checker and for the check at the start.

No error text holds the value: it may be a secret under the wrong key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import cache
from pathlib import PurePath
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypedDict, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

from .errors import ConfigurationError
from .host_names import is_ip, is_loopback

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"\.?{_LABEL}(\.{_LABEL})*\Z", re.IGNORECASE)
#: Names under which deployments say what they are, and hosts that run nothing but deployments.
STAGES: Final = (
    *("FLASK_ENV", "APP_ENV", "ENV", "ENVIRONMENT", "PYTHON_ENV", "DEPLOY_ENV", "STAGE"),
)
PLATFORMS: Final = ("DYNO", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME", "WEBSITE_INSTANCE_ID")
_FORM: Final = "a text of another form"
_RANGE: Final = "one out of range"


class _Got(Exception):
    """A value that a setting does not take: what kind of thing it is."""

    def __init__(self, got: str, *, slug: str | None = None) -> None:
        super().__init__(got)
        self.slug = slug


@dataclass(frozen=True, slots=True)
class _Takes:
    """What a setting takes, in words and as a check that gives the value as it is kept."""

    what: str
    check: Callable[[Any], Any]

    def __call__(self, key: str, value: Any) -> Any:
        """The value as it is kept.

        :raises ConfigurationError: it is none that *key* takes.
        """
        try:
            return self.check(value)
        except _Got as got:
            said = f"takes {self.what}; it got {got}"
            raise ConfigurationError(key, said, slug=got.slug) from None


def _takes(what: str) -> Callable[[Callable[[Any], Any]], _Takes]:
    return lambda check: _Takes(what, check)


def _other(value: object) -> _Got:
    return _Got("nothing" if value is None else f"a value of type {type(value).__name__}")


# -- of any setting ------------------------------------------------------------------------


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


@_takes("True or False")
def _boolean(value: Any) -> bool:
    # Flask's loader takes the environment for JSON, which has "true" and no "True".
    if isinstance(value, str) and value in ("True", "False"):
        return value == "True"
    if not isinstance(value, bool):
        raise _other(value)
    return value


def _choice(*choices: str) -> _Takes:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise _other(value)
        if value not in choices:
            raise _Got("another text")
        return value

    return _Takes("one of " + ", ".join(map(repr, choices)), check)


def _number(
    kind: type, least: float, unit: str, *, most: float = 1e12, positive: bool = False
) -> _Takes:
    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
            raise _other(value)
        if not least <= value <= most or (positive and value == least):
            raise _Got(_RANGE)
        return kind(value)

    word = "a whole number" if kind is int else "a number"
    return _Takes(f"{word} of {unit}, {'more than' if positive else 'at least'} {least:g}", check)


def _callable(what: str, *texts: str) -> _Takes:
    def check(value: Any) -> Any:
        if not (callable(value) or (isinstance(value, str) and value in texts)):
            raise _Got("another text") if texts and isinstance(value, str) else _other(value)
        return value

    return _Takes(what, check)


# -- of one --------------------------------------------------------------------------------


@_takes("an AdRoll id: 8 to 40 upper-case letters and digits")
def _eid(value: Any) -> str | None:
    if value != "" and not re.fullmatch("[A-Z0-9]{8,40}", _text(value)):
        raise _Got(_FORM)
    return value or None


@_takes("the Server Access Token as a text, or a callable that returns it")
def _token(value: Any) -> Any:
    if callable(value):
        return value
    text = _text(value)
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise _Got("a text with spaces or characters that no header carries")
    return text or None


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
    if parts.scheme not in ("https", "http") or not host or not text.isascii():
        raise _Got(_FORM)
    return parts


def _url(*, secret: bool) -> _Takes:
    @_takes("an https URL (plain http only to this machine)")
    def check(value: Any) -> str:
        parts = _http(value)
        if parts.username or parts.password:
            raise _Got("one with user name and password")
        if secret and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
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
    if not whole or port == 0 or not (_HOST.match(host) or is_ip(host)):
        raise _Got(_FORM)
    standard = {"http": 80, "https": 443}[parts.scheme]
    return origin if port in (None, standard) else f"{origin}:{port}"


@_takes("True, False, the sandbox's port, or its address such as 'http://sandbox:5001'")
def _sandbox(value: Any) -> bool | str:
    """Whether there is a sandbox, or its address: a port is one of this machine."""
    wanted: bool | str
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value < 65_536:
            raise _Got(_RANGE)
        wanted = f"http://127.0.0.1:{value}"
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
    if not (_HOST.match(text) or is_ip(text)):
        raise _Got(_FORM)
    return text.lower()


@_takes("a domain name such as 'shop.example', or 'auto'")
def _domain(value: Any) -> str:
    text = _text(value)
    if not _HOST.match(text) or (text != "auto" and "." not in text.strip(".")):
        raise _Got(_FORM)
    return text.lstrip(".").lower()


@_takes("the path of a folder")
def _folder(value: Any) -> str:
    return _text(str(value) if isinstance(value, PurePath) else value)


@_takes("the IANA name of a time zone such as 'Europe/Berlin'")
def _time_zone(value: Any) -> tzinfo:
    from zoneinfo import ZoneInfo

    text = _text(value)
    try:
        return UTC if text == "UTC" else ZoneInfo(text)
    except (ValueError, OSError, LookupError):
        raise _Got("one that this machine does not know (pip install tzdata brings all)") from None


@_takes(
    "an SQLAlchemy database URL such as 'sqlite:////var/lib/shop/adroll.sqlite', of SQLite, "
    "PostgreSQL, MariaDB or MySQL"
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


_ACCOUNT: Final = {"advertisable_eid": _eid, "pixel_eid": _eid, "access_token": _token}


@_takes(
    "accounts by host: {'shop.example': {'advertisable_eid': …, 'pixel_eid': …, 'access_token': …}}"
)
def _accounts(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise _other(value)
    accounts: dict[str, dict[str, Any]] = {}
    for host, account in value.items():
        name = _host(host)
        if not isinstance(account, Mapping) or not account.keys() <= _ACCOUNT.keys():
            raise _Got(f"another thing for {name!r}")
        given = {key: value for key, value in account.items() if value is not None}
        try:
            kept = {key: _ACCOUNT[key](key, value) for key, value in given.items()}
        except ConfigurationError as fault:
            raise _Got(f"for {name!r} another: {fault}") from None
        if not (kept.get("advertisable_eid") and kept.get("pixel_eid")):
            raise _Got(f"one without both ids for {name!r}")
        accounts[name] = kept
    return accounts


_SECRETS: Final = _list("a text, bytes, or a list of these, newest first", _secret)
_PREFIX: Final = _pattern(
    "a path such as '/_adroll': a leading slash, no trailing one", r"(/[A-Za-z0-9_.~-]+)+"
)
_ORIGINS: Final = _list(
    "a list of origins such as 'https://www.shop.example', without a path or a wildcard", _origin
)
_HOSTS: Final = _list(
    "a list of host names such as 'www.shop.example' or '.shop.example', without ports", _host
)
_COOKIE: Final = _pattern("a cookie's name", r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECONDS: Final = _number(int, 0, "seconds", positive=True)
_CONSENT: Final = _callable("None, 'tcf', or a callable that takes the request", "tcf")
_PURPOSES: Final = _list(
    "a list of TCF purpose numbers from 1 to 24", _number(int, 1, "", most=24).check
)
_FORMS: Final = _list("any of 'sha256', 'md5', 'plain'", _choice("sha256", "md5", "plain").check)
Texts = str | Sequence[str] | set[str] | frozenset[str]
Secrets = str | bytes | Sequence[str | bytes]


class SettingValues(TypedDict, total=False):
    """The settings as they are given, in lower case without ``ADROLL_``."""

    advertisable_eid: Annotated[str | None, _eid]
    pixel_eid: Annotated[str | None, _eid]
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
    csp_nonce: Annotated[
        Callable[..., str | None] | None, _callable("a callable that returns the response's nonce")
    ]
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
    tcf_cookie: Annotated[str, _COOKIE]
    tcf_vendor: Annotated[int, _number(int, 1, "the vendor list", most=65_535)]
    tcf_purposes: Annotated[Sequence[int], _PURPOSES]
    honor_gpc: bool
    email: Annotated[Texts, _FORMS]
    private_parameters: Annotated[Texts, _list("a list of names of parameters such as '*email*'")]
    kit_wait: Annotated[int, _number(int, 0, "milliseconds", most=60_000)]
    token_max_age: Annotated[int, _SECONDS]
    time_zone: Annotated[str, _time_zone]


@cache
def checks() -> Mapping[str, Callable[[str, Any], Any]]:
    """The check of each setting."""
    hints = get_type_hints(SettingValues, include_extras=True)
    return {name: _check_of(hint) for name, hint in hints.items()}


def _check_of(hint: Any) -> Callable[[str, Any], Any]:
    takes: Callable[[str, Any], Any] = _boolean
    if get_origin(hint) is Annotated:
        hint, takes = get_args(hint)
    elif get_origin(hint) is Literal:
        takes = _choice(*get_args(hint))
    if NoneType in get_args(hint):
        return lambda key, value: None if value is None else takes(key, value)
    return takes
