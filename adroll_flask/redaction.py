"""The one place that decides what of a text, an event, a URL or an exception may be seen.

Logs, stored error texts, exceptions and the command line pass through here. Every pattern has a
bounded reach from each position, so the time is linear in the text.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from .errors import causes
from .host_names import is_ip

LIMIT = 500
_REACH = 65_536
#: Characters of a deduplication key in a list.
_KEY_SHOWN = 36

#: Characters that no line shows; also half of a surrogate pair, which no database and no log keeps.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s\"'<>\\]+")
_QUERY = re.compile(r"\?[^\s\"'<>=?]{1,100}=[^\s\"'<>]*")
# An "@" as people write it, as a URL carries it, and as JSON in JSON may.
_EMAIL = re.compile(
    r"[^\s@\"'<>,;:(){}\[\]=&?/\\|]{1,64}(?:@|%40|\\u0040)[^\s@\"'<>,;:(){}\[\]=&?/\\|]{1,255}"
)
_NAMES = (
    r"adct|first_party_cookie|__adroll_fpc|__adroll|adroll_visitor|set-cookie|cookie|session"
    r"|e-?mail(?:_sha256|_md5)?|device_id|user_id|user_agent|ip|visitor|authorization"
    r"|(?:access_|server_)?token|secret(?:_key)?|password|passwd|pwd|api_?key|external_data"
)
# name=value, "name": "value", name 'value': a bare value only after "=" or ":".
_NAMED = re.compile(
    rf"(?<![A-Za-z0-9_-])({_NAMES})(?![A-Za-z0-9_-])(?P<sep>\\?[\"']?\s{{0,4}}[:=]\s{{0,4}}|\s{{1,4}}(?=[\"'`]))"
    r"(?P<value>\\?\"(?:[^\"\\]|\\[^\"]){0,500}\\?\"?|'[^']{0,500}'?|`[^`]{0,500}`?"
    r"|\[[^\]]{0,500}\]?|(?:(?:Token|Bearer|Basic)\s{1,4})?[^\s\"',;&}\])]{1,500})",
    re.IGNORECASE,
)
# "ip: required" is a hint, not a value.
_HINTS = re.compile(
    r"(?:bad|cannot|empty|expected|field|invalid|is|malformed|missing|must|no|none|not|null|of|or"
    r"|required|should|too|unknown|value|wrong)\.?",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(Token|Bearer|Basic)\s{1,4}(?=[^\s\"']{0,60}[0-9])[^\s\"',;]{6,}")
_ADDRESS = re.compile(r"(?<![\w:.])[0-9A-Fa-f:.]{2,45}")
# Cookies, hashes, device ids, tokens, numbers of cards and telephones.
_OPAQUE = re.compile(r"[A-Za-z0-9_+~=-]{12,}(?:\.[A-Za-z0-9_+~=-]+)*")
_NAME = re.compile(r"[a-z]+(?:_[a-z]+)+(?:_?[a-z]?[0-9]{1,3})?")
_HEX = re.compile(r"[0-9A-Fa-f]+")


def forget_values(problem: BaseException, fields: object) -> None:
    """Take a caller's values out of our frames: error trackers send the variables of each frame.

    :param problem: is raised to the caller.
    :param fields: theirs; frames that still run have them as well.
    """
    for cause in causes(problem, hidden=True):
        for frame, _line in traceback.walk_tb(cause.__traceback__):
            if str(frame.f_globals.get("__name__")).startswith("adroll_flask."):
                with suppress(RuntimeError):  # it still runs
                    frame.clear()
    if isinstance(fields, dict):
        fields.clear()


def redact_text(text: str, *, secrets: Iterable[str] = (), limit: int = LIMIT) -> str:
    """*text* on one line, without what could name a visitor or give access, cut to *limit*.

    E-mail addresses, IP addresses, hex runs (cookie values, hashes), tokens, the values of named
    fields, user names and queries of URLs give way to a marker that says what was there.

    :param text: a foreign text, such as AdRoll's answer.
    :param secrets: values known to the caller (the access token, a batch's identifiers) that go
        whatever they look like.
    :param limit: characters of the result, 500 by default.

    >>> redact_text("adct=click123 of ann@example.com is unknown")
    'adct=[redacted] of [email] is unknown'
    """
    text = text[:_REACH]
    for secret in sorted({s for s in secrets if len(s) >= 4}, key=len, reverse=True):
        text = text.replace(secret, "[redacted]")
    if len(text) > 4 * limit:
        # The word at the cut would escape the patterns: half an address is still somebody's.
        text = text[: 4 * limit].rpartition(" ")[0] + " …"
    text = _CONTROL.sub(" ", text)
    text = _URL.sub(lambda m: safe_url(m[0]), text)
    text = _QUERY.sub("?[query]", text)
    text = _NAMED.sub(_hide_value, text)
    text = _SCHEME.sub(r"\1 [token]", text)
    text = _EMAIL.sub("[email]", text)
    text = _ADDRESS.sub(_hide_address, text)
    text = _OPAQUE.sub(lambda m: "[token]" if any(map(_is_opaque, m[0].split("."))) else m[0], text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _hide_value(match: re.Match[str]) -> str:
    if _HINTS.fullmatch(match["value"]):
        return match[0]
    return f"{match[1]}{match['sep']}[redacted]"


def _hide_address(match: re.Match[str]) -> str:
    text = match[0]
    bare = text.rstrip(".:")
    for candidate in (text, bare, bare.rpartition(":")[0]):
        if is_ip(candidate):
            return "[ip]" + text[len(candidate) :]
    return text


def _is_opaque(part: str) -> bool:
    digits = any(c.isdigit() for c in part)
    mixed = any(c.islower() for c in part) and any(c.isupper() for c in part)
    # A long word of one case is a name (`sqlalchemy_something_2`). EIDs, 22 capitals, are public,
    # but those with a digit are hidden all the same: a token could look like one.
    if re.search("[0-9]{12}", part) or (mixed and len(part) >= 32):
        return True
    if len(part) < 16:
        return False
    return bool(_HEX.fullmatch(part)) or (digits and not _NAME.fullmatch(part))


def safe_url(url: str) -> str:
    """Scheme, host and path of *url*: no user, password, query or fragment.

    :param url: an http URL or a database URL.

    >>> safe_url("postgresql://shop:s3cret@db.example/orders?sslmode=require")
    'postgresql://db.example/orders'
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme.isascii() or len(scheme) > 40:
        return "[url]"
    if scheme.lower() not in ("http", "https"):
        # SQLAlchemy lets a password hold "/", "?" and "#": all before the last "@" is not path.
        rest = rest.rpartition("@")[2]
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        _ = parts.port  # raises, if what is left of a password with a slash stands there
    except ValueError:
        return f"{scheme}://[url]"
    path = _EMAIL.sub("[email]", _CONTROL.sub("", parts.path))
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{path}"


#: The parts of an event that say nothing of its visitor.
PLAIN = (
    "advertisable_eid",
    "pixel_eid",
    "event_name",
    "timestamp",
    "conversion_value",
    "currency",
    "device_os",
    "device_type",
    "package_app_name",
    "package_app_version",
    "order_id",
    "total",
)


def redact_event(wire: Mapping[str, Any]) -> dict[str, object]:
    """An event as the command line shows it: what happened and for how much, not to whom.

    Name, ids of the account, order id, amounts and times stay; products become a count;
    identifiers, address, agent and anything unknown say only that they are there.

    :param wire: the event as AdRoll's API takes it; may be damaged.

    >>> redact_event({"event_name": "purchase", "identifiers": {"adct": "click123"}})
    {'event_name': 'purchase', 'identifiers': {'adct': 'present'}}
    """
    shown: dict[str, object] = {}
    for key, value in wire.items():
        name = redact_text(str(key), limit=60)
        # A damaged event may have anything anywhere.
        is_plain_text = isinstance(value, str) and len(value) <= 64 and "@" not in value
        some = f"present ({len(value)})" if isinstance(value, list | tuple) else "present"
        shown[name] = "absent" if value in (None, "") else some
        if isinstance(value, Mapping) and name in ("identifiers", "event_attributes"):
            shown[name] = redact_event(value)
        elif name == "products" and isinstance(value, list | tuple):
            shown[name] = len(value)
        elif name == "page_location" and isinstance(value, str):
            shown[name] = redact_text(safe_url(value))
        elif name in PLAIN and (is_plain_text or isinstance(value, bool | int | float)):
            shown[name] = value
    return shown


def short_key(key: str) -> str:
    """An order's id or another key of an event, as lists show it: no e-mail address, and cut short.

    >>> short_key("1001"), short_key("trial:ann@example.com")
    ('1001', '[email]')
    """
    key = _CONTROL.sub(" ", key)
    if "@" in key:
        return "[email]"
    return key if len(key) <= _KEY_SHOWN else f"{key[: _KEY_SHOWN - 1]}…"


def csv_safe(value: object) -> object:
    """*value* for a cell of CSV: a text that a spreadsheet would run gets a quote before it.

    Orders' ids and AdRoll's words may be a visitor's doing
    (https://owasp.org/www-community/attacks/CSV_Injection).

    >>> csv_safe("=1+1"), csv_safe(-5)
    ("'=1+1", -5)
    """
    runs = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if runs else value


_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,40}\Z|[0-9A-Z]{5}\Z")


def describe(exc: BaseException) -> str:
    """The class names of *exc* and of what caused it, outermost first.

    Foreign messages are left out, since drivers put statements, parameters and URLs into theirs;
    ours are kept, since they hold no values. Error codes (``ENOSPC``, SQLite's, SQLSTATE) stay.

    >>> describe(OSError(28, "/home/ann/outbox.sqlite"))
    'OSError(ENOSPC)'
    """
    return " <- ".join(map(_class_of, islice(causes(exc), 8)))


def database_words(problem: BaseException, *secrets: str | None) -> str:
    """What a database said of a connection or a right, on one line and redacted.

    Not for errors of a statement: their words may hold its values.

    :param secrets: user and password of the database's URL.

    >>> database_words(OSError("unable to open database file"))
    'OSError: unable to open database file'
    """
    words = str(problem.args[-1] if problem.args else "").strip().partition("\n")[0]
    words = redact_text(words, secrets=[secret for secret in secrets if secret], limit=200)
    return f"{_class_of(problem)}: {words}" if words else _class_of(problem)


def describe_lines(exc: BaseException) -> str:
    """:func:`describe`, and where it came from, a line each: files, lines and functions.

    No source text and no values: what went wrong in a site's own function can be found, and
    nothing of a visitor is told.
    """
    lines = [describe(exc)]
    for frame in traceback.extract_tb(exc.__traceback__)[-10:]:  # the innermost
        lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
    return "\n".join(lines)


def _class_of(exc: BaseException) -> str:
    kind = type(exc)
    module = kind.__module__.partition(".")[0]
    name = kind.__name__ if module == "builtins" else f"{module}.{kind.__name__}"
    if module == __name__.partition(".")[0]:
        # Not redact_text: a hint such as "pass ip=" names a field.
        return f"{kind.__name__}: {_CONTROL.sub(' ', str(exc))}"[:LIMIT]
    code: object = None
    if isinstance(exc, OSError) and exc.errno is not None:
        code = errno.errorcode.get(exc.errno)
    code = code or getattr(exc, "sqlite_errorname", None) or getattr(exc, "sqlstate", None)
    return f"{name}({code})" if isinstance(code, str) and _CODE.match(code) else name
