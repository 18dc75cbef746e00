"""Whether bytes can be read as HTML in a page's charset, and where that is declared in the page."""

from __future__ import annotations

import codecs
import re
from typing import Final

from . import html_patterns

#: Browsers look for a declaration in that many bytes (HTML standard, 13.2.3.2).
PRESCAN: Final = 1024

# ASCII bytes mean something else between escape sequences; browsers show nothing of the last ones.
_SHIFTING: Final = ("iso-2022", "iso2022", "csiso2022", "hz", "replacement")
_SHIFTING_BYTES: Final = tuple(label.encode() for label in _SHIFTING)
# Labels of UTF-16 that Python's codecs do not know (Encoding standard, 4.2).
_WIDE: Final = (
    "unicode",
    "csunicode",
    "unicodefeff",
    "unicodefffe",
    "ucs-2",
    "iso-10646-ucs-2",
)
_SAMPLE: Final = "<!-- \"'&=+/>az09"
_LABEL: Final = re.compile(
    rb"charset[\t\n\f\r ]*=[\t\n\f\r ]*[\"']?([^\"';\t\n\f\r ]+)", re.IGNORECASE
)
_ANY_DECLARATION: Final = re.compile(rb"(?i)<meta[\t\n\f\r /][^>]*charset")
# Where these are open, a script may be dead or elsewhere than the meta that stands before it.
_DEADLY: Final = frozenset(
    b"svg math select template table caption colgroup col tbody thead tfoot tr td th "
    b"frameset plaintext".split()
)
# These do not open the body; these, as text does, settle that no frameset may take its place.
_BEFORE_BODY: Final = frozenset(
    b"html head meta link base basefont bgsound title style script noscript noframes".split()
)
_SETTLES_BODY: Final = frozenset(b"body br hr img li".split())
_TEXT: Final = re.compile(rb"[\t\n\f\r \0]*+[^\t\n\f\r \0&]")


def ascii_compatible(charset: str | None) -> bool:
    """Whether ASCII bytes are ASCII characters in *charset*, wherever they stand.

    :param charset: the ``charset`` of a ``Content-Type``, in any case; ``None`` where it has none.
        A label that nobody knows counts as compatible: a browser ignores it.

    >>> ascii_compatible("Shift_JIS"), ascii_compatible("UTF-16LE"), ascii_compatible("ISO-2022-JP")
    (True, False, False)
    """
    if not charset or charset == "utf-8":
        return True
    label = charset.strip(" \t\"'").lower()
    if label in _WIDE or label.startswith(_SHIFTING):
        return False
    try:
        return _SAMPLE.encode(codecs.lookup(label).name) == _SAMPLE.encode("ascii")
    except (LookupError, ValueError):
        return True


def is_shifting(label: bytes) -> bool:
    """Whether a label in a page makes its ASCII bytes mean something else at places.

    (UTF-16 in a ``<meta>`` means UTF-8 to a browser; 13.2.3.2, step "if charset is UTF-16BE/LE".)

    >>> is_shifting(b"iso-2022-jp"), is_shifting(b"utf-16")
    (True, False)
    """
    return label.startswith(_SHIFTING_BYTES)


def declared_charset(tag: bytes) -> bytes | None:
    """The charset label that a ``<meta>`` start tag declares, in lower case, or ``None``.

    >>> declared_charset(b'<meta http-equiv=Content-Type content="text/html; charset=UTF-8">')
    b'utf-8'
    """
    if b"harset" not in tag and b"HARSET" not in tag and b"harset" not in tag.lower():
        return None
    given = html_patterns.attributes(tag)
    label = given.get(b"charset")
    if label is None and given.get(b"http-equiv", b"").lower() == b"content-type":
        match = _LABEL.search(given.get(b"content", b""))
        label = match[1] if match else None
    return label.strip(b"\t\n\f\r ").lower() or None if label is not None else None


def behind_declaration(window: bytes) -> int | None:
    """The first offset at which the snippet is behind every charset declaration of *window*.

    :param window: the page from the head's end to the end of its first 1024 bytes.
    :returns: 0 where there is no declaration; ``None`` where there is one, but no place behind it
        is certain to be as good: it is in a template, a table or an unusual script.

    >>> behind_declaration(b"<body><meta charset=utf-8><p>")
    26
    """
    if not _ANY_DECLARATION.search(window):
        return 0
    position = 0
    doubtful = settled = False  # a frameset may yet take the body away, or can do so no more
    while token := html_patterns.TOKEN.match(window, position):
        position = token.end()
        name = (token["name"] or b"").lower()
        if not name:
            settled = settled or (_TEXT.match(token[0]) is not None and token[0][:1] != b"<")
            continue
        if token["slash"]:
            doubtful = doubtful or name in (b"body", b"html", b"br", b"p")
            continue
        if name in _DEADLY:
            return None
        settled = settled or name in _SETTLES_BODY
        doubtful = doubtful or name not in _BEFORE_BODY
        if name == b"meta":
            label = declared_charset(token[0])
            if label:
                return None if is_shifting(label) or (doubtful and not settled) else position
        elif name == b"script" or name in html_patterns.RAW_NAMES:
            end = html_patterns.RAW_ENDS[name].search(window, position)
            # The search for a declaration heeds comments, but not that this is no markup.
            text = window[position : end.start()] if end else window[position:]
            if b"<!--" in text or _ANY_DECLARATION.search(text):
                return None
            if end is None:
                return 0
            position = end.start()
    return None if _ANY_DECLARATION.search(window, position) else 0
