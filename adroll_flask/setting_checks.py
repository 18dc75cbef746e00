"""What each ``ADROLL_*`` key takes: a check returns the value as it is kept, or names the fault.

No error text holds the value: it may be a secret under the wrong key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import urlsplit

from .errors import ConfigurationError
from .hosts import is_ip, is_loopback

_EID = re.compile(r"[A-Z0-9]{8,40}\Z")
_HOST = re.compile(r"\.?(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\Z", re.IGNORECASE)
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?\Z",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"(/[A-Za-z0-9_.~-]+)+\Z")
#: Names under which deployments say what they are, and hosts that run nothing but deployments.
STAGES = ("FLASK_ENV", "APP_ENV", "ENV", "ENVIRONMENT", "PYTHON_ENV", "DEPLOY_ENV", "STAGE")
PLATFORMS = ("DYNO", "K_SERVICE", "AWS_LAMBDA_FUNCTION_NAME", "WEBSITE_INSTANCE_ID")
_PRODUCTION = ("production", "prod")
_EMAIL_FORMS = ("sha256", "md5", "plain")

#: Takes the key and its value.
_Check = Callable[[str, Any], Any]


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return f"a value of type {type(value).__name__}"


def _wrong(key: str, value: object, takes: str) -> ConfigurationError:
    return ConfigurationError(key, f"takes {takes}; it got {_kind(value)}")


def _boolean(key: str, value: Any) -> Any:
    # Flask's loader takes the environment for JSON, which has "true" and no "True".
    if isinstance(value, str) and value in ("True", "False"):
        return value == "True"
    if not isinstance(value, bool):
        raise _wrong(key, value, "True or False")
    return value


def _sandbox(key: str, value: Any) -> Any:
    is_port = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65_536
    try:
        wanted = value if is_port else _boolean(key, value)
    except ConfigurationError:
        raise _wrong(key, value, "True, False, or the port of the sandbox") from None
    if wanted and os.environ.get("ADROLL_SANDBOX_ALLOW_PRODUCTION") != "1":
        stages = (name for name in STAGES if os.environ.get(name, "").lower() in _PRODUCTION)
        sign = next(stages, None) or next(
            (name for name in PLATFORMS if os.environ.get(name)), None
        )
        if sign:
            raise ConfigurationError(
                key,
                f"{sign} says that this is production, where events would vanish in the sandbox",
                slug="sandbox-in-production",
            )
    return wanted


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


def _origins(key: str, value: Any) -> Any:
    takes = "a list of origins such as 'https://www.shop.example', without a path or a wildcard"
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence | set | frozenset):
        raise _wrong(key, value, takes)
    origins = []
    for item in items:
        if not isinstance(item, str):
            raise _wrong(key, item, takes)
        match = _ORIGIN.match(item)
        host = match["host"].strip("[]") if match else ""
        port = match["port"] if match else None
        named = _HOST.match(host) or is_ip(host)
        if match is None or not named or (port and not 0 < int(port) < 65_536):
            raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
        scheme = match["scheme"].lower()
        # As browsers write it (RFC 6454, section 6.1): lower case, and no port that goes without.
        if port and int(port) == {"http": 80, "https": 443}[scheme]:
            port = None
        origins.append(f"{scheme}://{match['host'].lower()}" + (f":{int(port)}" if port else ""))
    return tuple(dict.fromkeys(origins))


def _hosts(key: str, value: Any) -> Any:
    takes = "a list of host names such as 'www.shop.example' or '.shop.example', without ports"
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence | set | frozenset):
        raise _wrong(key, value, takes)
    for item in items:
        if not isinstance(item, str):
            raise _wrong(key, item, takes)
        if not (_HOST.match(item) or is_ip(item)):
            raise ConfigurationError(key, f"takes {takes}; it got a text of another form")
    return tuple(item.lower() for item in items)


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
    backend = re.split(r"[+:]", text, maxsplit=1)[0]
    if backend == "postgres":  # as some hosts write it, and SQLAlchemy once took
        raise ConfigurationError(key, "takes 'postgresql://…' where it got 'postgres://…'")
    if backend not in ("sqlite", "postgresql", "mysql", "mariadb"):
        raise ConfigurationError(
            key, "takes a database of SQLite, PostgreSQL, MariaDB or MySQL; it got another one"
        )
    return text


def _folder(key: str, value: Any) -> Any:
    return _text(key, str(value) if isinstance(value, PurePath) else value, "the path of a folder")


def _consent(key: str, value: Any) -> Any:
    takes = "None, 'tcf', or a callable that takes the request"
    if callable(value) or value == "tcf":
        return value
    if isinstance(value, str):
        raise ConfigurationError(key, f"takes {takes}; it got another text")
    raise _wrong(key, value, takes)


#: The check of each attribute of :class:`~adroll_flask.settings.Settings`.
CHECKS: Mapping[str, _Check] = {
    "advertisable_eid": _optional(_eid),
    "pixel_eid": _optional(_eid),
    "access_token": _optional(_token),
    "secret_key": _optional(_secrets),
    "enabled": _boolean,
    "sandbox": _sandbox,
    "strict": _optional(_boolean),
    "dry_run": _boolean,
    "api_url": _url(secret=True),
    "pixel": _choice("load", "present", "none"),
    "pixel_url": _url(secret=False),
    "inject": _boolean,
    "url_prefix": _prefix,
    "csp_nonce": _optional(_function("a callable that returns the response's nonce")),
    "cached_paths": _texts("a list of path patterns such as '/products/*'"),
    "origins": _origins,
    "hosts": _hosts,
    "cookie_domain": _optional(_domain),
    "cookie_secure": _optional(_boolean),
    "session": _choice("always", "join"),
    "outbox_url": _optional(_outbox_url),
    "outbox_max_bytes": _number(int, 0, "bytes", most=1 << 62),
    "outbox_sync": _choice("normal", "full"),
    "outbox_commit": _choice("journal", "database"),
    "journal_folder": _optional(_folder),
    "delivery": _choice("thread", "worker", "sync"),
    "linger": _number(float, 0, "seconds", most=60),
    "max_age": _number(int, 0, "seconds", positive=True),
    "dedupe_days": _number(int, 1, "days", most=3650),
    "hold_max": _number(int, 0, "seconds", positive=True),
    "on_unsure": _choice("retry", "drop"),
    "max_requests_per_second": _optional(_number(float, 0, "requests a second", positive=True)),
    "consent": _optional(_consent),
    "tcf_cookie": _cookie_name,
    "tcf_vendor": _number(int, 1, "the vendor list", most=65_535),
    "tcf_purposes": _purposes,
    "honor_gpc": _boolean,
    "remember_suppressed": _boolean,
    "email": _texts("any of 'sha256', 'md5', 'plain'", _EMAIL_FORMS),
    "kit_wait": _number(int, 0, "milliseconds", most=60_000),
    "token_max_age": _number(int, 0, "seconds", positive=True),
}
