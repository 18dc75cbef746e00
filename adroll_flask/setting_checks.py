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
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .hosts import is_ip, is_loopback

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"\.?{_LABEL}(\.{_LABEL})*\Z", re.IGNORECASE)
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?\Z",
    re.IGNORECASE,
)
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
            raise ConfigurationError(
                key, f"takes {self.what}; it got {got}", slug=got.slug
            ) from None


def _other(value: object) -> _Got:
    return _Got("nothing" if value is None else f"a value of type {type(value).__name__}")


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        # Flask's loader parses the environment as JSON: digits alone arrive as a number.
        raise _Got("a number: quote it (in the environment: '\"123\"')")
    if not isinstance(value, str):
        raise _other(value)
    return value


def _pattern(pattern: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not re.fullmatch(pattern, text := _text(value)):
            raise _Got(_FORM)
        return text

    return check


def _list(what: str, check: Callable[[Any], Any] = _text) -> _Takes:
    """What takes a list, or one of its items alone."""

    def items(value: Any) -> tuple[Any, ...]:
        one = isinstance(value, str | bytes) or not isinstance(value, Sequence | set | frozenset)
        return tuple(dict.fromkeys(map(check, [value] if one else value)))

    return _Takes(what, items)


def _boolean(value: Any) -> bool:
    # Flask's loader takes the environment for JSON, which has "true" and no "True".
    if isinstance(value, str) and value in ("True", "False"):
        return value == "True"
    if not isinstance(value, bool):
        raise _other(value)
    return value


def _choice(choices: Sequence[str]) -> _Takes:
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


def _callable(value: Any) -> Any:
    if not callable(value):
        raise _other(value)
    return value


def _eid(value: Any) -> str | None:
    return _pattern("[A-Z0-9]{8,40}")(value) if value != "" else None


def _token(value: Any) -> Any:
    if callable(value):
        return value
    text = _text(value)
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise _Got("a text with spaces or characters that no header carries")
    return text or None


def _secret(value: Any) -> Any:
    if not isinstance(value, bytes):
        value = _text(value)
    if not value:
        raise _Got("an empty one")
    return value


def _sandbox(value: Any) -> bool | str:
    """Whether there is a sandbox, or its address: a port is one of this machine."""
    wanted: bool | str
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 < value < 65_536:
            raise _Got(_RANGE)
        wanted = f"http://127.0.0.1:{value}"
    elif isinstance(value, str) and value not in ("True", "False"):
        if not _ORIGIN.match(wanted := value.rstrip("/")):
            raise _Got(_FORM)
    else:
        wanted = _boolean(value)
    if wanted and os.environ.get("ADROLL_SANDBOX_ALLOW_PRODUCTION") != "1":
        signs = [name for name in STAGES if os.environ.get(name, "").lower() in _PRODUCTION]
        signs += [name for name in PLATFORMS if os.environ.get(name)]
        if signs:
            raise _Got(
                f"True where {signs[0]} says that this is production, where events would vanish "
                "in the sandbox",
                slug="sandbox-in-production",
            )
    return wanted


_PRODUCTION: Final = ("production", "prod")


def _url(*, secret: bool) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        text = _text(value)
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise _Got(_FORM) from None
        if parts.scheme not in ("https", "http") or not host or not text.isascii():
            raise _Got(_FORM)
        if parts.username or parts.password:
            raise _Got("one with user name and password")
        if secret and parts.scheme == "http" and not is_loopback(host):
            raise _Got("plain http: the access token would cross the network in the clear")
        return text

    return check


def _origin(value: Any) -> str:
    match = _ORIGIN.match(_text(value))
    host = match["host"].lower() if match else ""
    port = int(match["port"]) if match and match["port"] else None
    named = _HOST.match(host) or is_ip(host.strip("[]"))
    if match is None or not named or (port is not None and not 0 < port < 65_536):
        raise _Got(_FORM)
    scheme = match["scheme"].lower()
    # As browsers write it (RFC 6454, section 6.1): lower case, and no port that goes without.
    if port in (None, {"http": 80, "https": 443}[scheme]):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


def _host(value: Any) -> str:
    text = _text(value)
    if not text.isascii():
        raise _Got("one that is not ASCII: write it as browsers send it ('xn--…')")
    if not (_HOST.match(text) or is_ip(text)):
        raise _Got(_FORM)
    return text.lower()


def _domain(value: Any) -> str:
    text = _text(value)
    if not _HOST.match(text) or (text != "auto" and "." not in text.strip(".")):
        raise _Got(_FORM)
    return text.lstrip(".").lower()


def _time_zone(value: Any) -> tzinfo:
    from zoneinfo import ZoneInfo

    text = _text(value)
    try:
        return UTC if text == "UTC" else ZoneInfo(text)
    except (ValueError, OSError, LookupError):
        raise _Got("one that this machine does not know (pip install tzdata brings all)") from None


def _outbox_url(value: Any) -> str:
    text = _text(value)
    backend = re.match(r"[a-z][a-z0-9_]*(?=[+:])", text)
    if backend is None or ":" not in text:
        raise _Got(_FORM)
    if backend[0] == "postgres":  # as some hosts write it, and SQLAlchemy once took
        raise _Got("'postgres://…': write 'postgresql://…'")
    if backend[0] not in ("sqlite", "postgresql", "mysql", "mariadb"):
        raise _Got("another database")
    return text


def _consent(value: Any) -> Any:
    if callable(value) or value == "tcf":
        return value
    raise _Got("another text") if isinstance(value, str) else _other(value)


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


_EID: Final = _Takes("an AdRoll id: 8 to 40 upper-case letters and digits", _eid)
_TOKEN: Final = _Takes("the Server Access Token as a text, or a callable that returns it", _token)
_ACCOUNT: Final[Mapping[str, _Takes]] = {
    "advertisable_eid": _EID,
    "pixel_eid": _EID,
    "access_token": _TOKEN,
}
_ACCOUNTS: Final = _Takes(
    "accounts by host: {'shop.example': {'advertisable_eid': …, 'pixel_eid': …, "
    "'access_token': …}}",
    _accounts,
)
_SANDBOX: Final = _Takes(
    "True, False, the sandbox's port, or its address such as 'http://sandbox:5001'", _sandbox
)
_URL: Final = "an https URL (plain http only to this machine)"
_ORIGINS: Final = _list(
    "a list of origins such as 'https://www.shop.example', without a path or a wildcard", _origin
)
_HOSTS: Final = _list(
    "a list of host names such as 'www.shop.example' or '.shop.example', without ports", _host
)
_COOKIE: Final = _Takes("a cookie's name", _pattern(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"))
_OUTBOX_URL: Final = _Takes(
    "an SQLAlchemy database URL such as 'sqlite:////var/lib/shop/adroll.sqlite', of SQLite, "
    "PostgreSQL, MariaDB or MySQL",
    _outbox_url,
)
_FOLDER: Final = _Takes(
    "the path of a folder",
    lambda value: _text(str(value) if isinstance(value, PurePath) else value),
)
_SECONDS: Final = _number(int, 0, "seconds", positive=True)
_FORMS: Final = ("sha256", "md5", "plain")
Texts = str | Sequence[str] | set[str] | frozenset[str]


class SettingValues(TypedDict, total=False):
    """The settings as they are given, in lower case without ``ADROLL_``."""

    advertisable_eid: Annotated[str | None, _EID]
    pixel_eid: Annotated[str | None, _EID]
    access_token: Annotated[str | Callable[[], str] | None, _TOKEN]
    accounts: Annotated[Mapping[str, Mapping[str, Any]], _ACCOUNTS]
    secret_key: Annotated[
        str | bytes | Sequence[str | bytes] | None,
        _list("a text, bytes, or a list of these, newest first", _secret),
    ]
    enabled: bool
    sandbox: Annotated[bool | int | str, _SANDBOX]
    strict: bool | None
    dry_run: bool
    debug: bool
    api_url: Annotated[str, _Takes(_URL, _url(secret=True))]
    pixel: Literal["load", "present", "none"]
    pixel_url: Annotated[str, _Takes(_URL, _url(secret=False))]
    inject: bool
    url_prefix: Annotated[
        str,
        _Takes(
            "a path such as '/_adroll': a leading slash, no trailing one",
            _pattern(r"(/[A-Za-z0-9_.~-]+)+"),
        ),
    ]
    csp_nonce: Annotated[
        Callable[..., str | None] | None,
        _Takes("a callable that returns the response's nonce", _callable),
    ]
    cached_paths: Annotated[Texts, _list("a list of path patterns such as '/products/*'")]
    origins: Annotated[Texts, _ORIGINS]
    hosts: Annotated[Texts, _HOSTS]
    cookie_name: Annotated[str, _COOKIE]
    cookie_domain: Annotated[
        str | None, _Takes("a domain name such as 'shop.example', or 'auto'", _domain)
    ]
    cookie_secure: bool | None
    session: Literal["always", "join"]
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
    max_requests_per_second: Annotated[
        float | None, _number(float, 0, "requests a second", positive=True)
    ]
    consent: Annotated[
        str | Callable[[Any], bool | None] | None,
        _Takes("None, 'tcf', or a callable that takes the request", _consent),
    ]
    tcf_cookie: Annotated[str, _COOKIE]
    tcf_vendor: Annotated[int, _number(int, 1, "the vendor list", most=65_535)]
    tcf_purposes: Annotated[
        Sequence[int],
        _list("a list of TCF purpose numbers from 1 to 24", _number(int, 1, "", most=24).check),
    ]
    honor_gpc: bool
    email: Annotated[Texts, _list("any of 'sha256', 'md5', 'plain'", _choice(_FORMS).check)]
    private_parameters: Annotated[Texts, _list("a list of names of parameters such as '*email*'")]
    kit_wait: Annotated[int, _number(int, 0, "milliseconds", most=60_000)]
    token_max_age: Annotated[int, _SECONDS]
    time_zone: Annotated[
        str, _Takes("the IANA name of a time zone such as 'Europe/Berlin'", _time_zone)
    ]


@cache
def checks() -> Mapping[str, Callable[[str, Any], Any]]:
    """The check of each setting."""
    hints = get_type_hints(SettingValues, include_extras=True)
    return {name: _check_of(hint) for name, hint in hints.items()}


def _check_of(hint: Any) -> Callable[[str, Any], Any]:
    takes: Callable[[str, Any], Any]
    if get_origin(hint) is Annotated:
        hint, takes = get_args(hint)
    elif get_origin(hint) is Literal:
        takes = _choice(get_args(hint))
    else:
        takes = _Takes("True or False", _boolean)
    if NoneType in get_args(hint):
        return lambda key, value: None if value is None else takes(key, value)
    return takes
