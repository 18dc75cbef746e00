"""Byte patterns for the start of an HTML page, after the tokenizer of the HTML standard (13.2.5).

All patterns are possessive: none steps back, so each is linear on any input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

_WHITE = b"\t\n\f\r "
WHITE = rb"\t\n\f\r "
#: What must follow a tag's name: without it ``<header>`` would be a ``<head>``.
NAME_END = rb"(?=[" + WHITE + rb"/>])"

# One attribute. A quote opens a value only directly behind "=", and "=" may begin a name
# (13.2.5.32). A value that is not closed yet must fail, not be read as a name: the last branch.
_ATTRIBUTE = (
    rb"[^\s/>][^\s/>=]*+"
    rb"(?:[\s]*+=[\s]*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+|(?=>))|(?![\s]*+=))"
).replace(rb"\s", WHITE)
#: From behind a tag's name through its ``>``.
# The first loop takes attributes of the usual form alone; it is there for speed.
TAG_REST = (
    rb"(?:[" + WHITE + rb']++[a-zA-Z:-]++="[^"]*+")*+'
    rb"(?:[" + WHITE + rb"/]++|" + _ATTRIBUTE + rb")*+>"
)
#: From behind ``<!--`` to the comment's end: ``<!-->`` and ``<!--->`` end at once, and ``--!>``
#: is an end too.
COMMENT_REST = rb"(?:-?>|[^-]*+(?:-(?!-!?>)[^-]*+)*+--!?>)"


def any_case(word: str) -> bytes:
    """A pattern for *word* in any case; faster than a flag, since alternatives can be told apart
    by their first byte.

    >>> any_case("br")
    b'[bB][rR]'
    """
    return b"".join(
        b"[%c%c]" % (ord(c), ord(c.upper())) if c.isalpha() else c.encode() for c in word
    )


def _element(name: str) -> bytes:
    """An element whose content is text up to its end tag, from behind ``<``."""
    word = any_case(name)
    return (
        word + NAME_END + TAG_REST
        + rb"[^<]*+(?:<(?!/" + word + NAME_END + rb")[^<]*+)*+</" + word + TAG_REST
    )  # fmt: skip


# A script without "<script" behind "<!--" ends at its first end tag, whatever else it holds; the
# others (the "double escaped" states, 13.2.5.27 on) are left to the step by step reading.
_SCRIPT = (
    any_case("script") + NAME_END + TAG_REST
    + rb"[^<]*+(?:<(?!/" + any_case("script") + NAME_END + rb"|!--)[^<]*+)*+"
    + rb"(?:<!--[^<]*+(?:<(?!/?" + any_case("script") + NAME_END + rb")[^<]*+)*+)?+"
    + rb"</" + any_case("script") + TAG_REST
)  # fmt: skip

_SPACES = rb"[" + WHITE + rb"]"
# The groups are empty marks behind what they tell of; in `HEAD_RUN` those of the last such item.
# (CPython's re mixes up the ends of a group that fails half-way within a possessive repeat.)
# opened: something that opens the head, if it was not open
# label: the charset that a meta declares in the usual form; counts only within the match
# document: something that only a whole document has
_HEAD_ITEM = (
    rb"(?:(?:"
    + any_case("meta")
    + rb"(?:" + _SPACES + rb"++" + any_case("charset")
    + rb"=(?:\"[^\"<>=]++\"|'[^'<>=]++'|[A-Za-z0-9_:.-]++)(?P<label>))?+" + NAME_END + TAG_REST
    + rb"|(?:" + any_case("link") + rb"|" + any_case("base") + rb")" + NAME_END + TAG_REST
    + rb"|" + _SCRIPT
    + b"".join(rb"|" + _element(name) for name in ("title", "style", "noscript"))
    + rb")(?P<opened>)|!--" + COMMENT_REST
    + rb"|(?:" + any_case("html") + NAME_END + TAG_REST
    + rb"|" + any_case("head") + NAME_END + TAG_REST + rb"(?P<head>)"
    + rb"|!" + any_case("doctype") + rb"[^>]*+>)(?P<document>)"
    + rb"|!(?!--)[^>]*+>"
    + rb")"
)  # fmt: skip


def end_of(match: re.Match[bytes] | None) -> int:
    """Where a match ends, of a pattern that matches everywhere."""
    assert match is not None  # noqa: S101
    return match.end()


def run_of_head(text: bytes | bytearray, position: int) -> re.Match[bytes]:
    """As many complete items of a head as stand at *position*, which may be none."""
    run = HEAD_RUN.match(text, position)
    assert run is not None  # noqa: S101 - it matches everywhere
    return run


def charset_label(text: bytes | bytearray, run: re.Match[bytes]) -> bytes:
    """The charset label that was seen in a `HEAD_RUN`, in lower case, or ``b""``."""
    end = run.start("label")
    if not 0 <= end <= run.end():
        return b""
    return bytes(text[text.rindex(b"=", 0, end) + 1 : end]).strip(b"\"'" + _WHITE).lower()


#: As many complete items of a head as there are, in one go.
HEAD_RUN = re.compile(rb"(?:[" + WHITE + rb"]*+<" + _HEAD_ITEM + rb")*+[" + WHITE + rb"]*+")
#: One of them.
HEAD_ITEM = re.compile(rb"[" + WHITE + rb"]*+(?P<item><" + _HEAD_ITEM + rb")")
#: A complete start tag.
START_TAG = re.compile(rb"<[a-zA-Z][^" + WHITE + rb"/>]*+" + TAG_REST)

#: What stands at a place between two items, as far as it is there already.
NEXT = re.compile(
    rb"(?P<comment><!--)"
    # ends at the first ">" as well, in quotes too (13.2.5.59: abrupt identifier)
    rb"|(?P<doctype><!" + any_case("doctype") + rb")"
    rb"|(?P<bogus><(?:[!?]|/[^a-zA-Z>]))"
    rb"|(?P<nothing></>)"
    # no name that matters has ten letters, so that of a long one the first ten will do
    rb"|<(?P<slash>/?)(?P<name>[a-zA-Z][^" + WHITE + rb"/>]{0,9}+)(?!\Z)"
    # white space in disguise, which does not end a head
    rb"|(?P<white>&(?:Tab;|NewLine;|#(?:0{0,9}(?:9|1[023]|32)(?![0-9])"
    rb"|[xX]0{0,9}(?:9|[aAcCdD]|20)(?![0-9a-fA-F]));?))"
    # too long a number to wait for, which may be white space or not
    rb"|(?P<zeros>&#[xX]?0{10})"
)
#: A beginning that may become one of the above.
UNDECIDED = re.compile(
    rb"<(?:/?[a-zA-Z][^" + WHITE + rb"/>]{0,9}|/|!-?|![a-zA-Z]{1,6})?\Z"
    rb"|&(?:#(?:[xX][0-9a-fA-F]{0,11}|[0-9]{0,11})|[a-zA-Z]{0,7})?;?\Z"
)

COMMENT_END = re.compile(rb"--!?>")
#: The bytes that matter in each state within a script: plain, escaped, double escaped.
SCRIPT_STEPS = tuple(
    re.compile(pattern)
    for pattern in (
        rb"<!--|</" + any_case("script") + NAME_END,
        rb"-->|</?" + any_case("script") + NAME_END,
        rb"-->|</" + any_case("script") + NAME_END,
    )
)
RAW_NAMES = frozenset(
    (b"title", b"style", b"noscript", b"noframes", b"textarea", b"xmp", b"iframe", b"noembed")
)
RAW_ENDS = {
    name: re.compile(rb"</" + any_case(name.decode()) + NAME_END)
    for name in (*sorted(RAW_NAMES), b"script")
}

#: A tag from within its name through its ``>``, if all of it is there.
TAG = re.compile(rb"[^" + WHITE + rb"/>]*+" + TAG_REST)
TOKEN = re.compile(
    rb"[^<]++"
    rb"|<!--" + COMMENT_REST
    + rb"|<(?P<slash>/?)(?P<name>[a-zA-Z][^" + WHITE + rb"/>]*+)" + TAG_REST
    + rb"|<(?:!(?!--)|\?|/[^a-zA-Z>])[^>]*+>"
    + rb"|</>|<(?![!?/a-zA-Z])"
)  # fmt: skip
_ATTRIBUTES = re.compile(
    rb"([^\s/>][^\s/>=]*+)(?:[\s]*+=[\s]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s>\"'][^\s>]*+)|(?=>)))?+".replace(
        rb"\s", WHITE
    )
)


def attributes(tag: bytes) -> dict[bytes, bytes]:
    """The attributes of a complete start tag, names in lower case, the first of a name wins.

    >>> attributes(b"<a B='x>' c>")
    {b'b': b'x>', b'c': b''}
    """
    found: dict[bytes, bytes] = {}
    start = re.match(rb"<[a-zA-Z][^\t\n\f\r />]*", tag)
    for name, double, single, bare in _ATTRIBUTES.findall(tag, start.end() if start else 0):
        found.setdefault(name.lower(), double or single or bare)
    return found


# States within a tag (13.2.5.8 and 13.2.5.32 to 13.2.5.40): the bytes that stay in the state, then
# for the byte behind them the next state and whether the byte is used up.
IN_NAME, _GAP, _WORD, _BEHIND, _VALUE, _DOUBLE, _SINGLE, _BARE, CLOSED = range(9)
_Run: TypeAlias = tuple[re.Pattern[bytes], Mapping[int, tuple[int, int]], tuple[int, int]]
TAG_STATES: Final[tuple[_Run, ...]] = (
    (re.compile(rb"[^\t\n\f\r />]*"), {}, (_GAP, 0)),
    (re.compile(rb"[\t\n\f\r /]*"), {ord(">"): (CLOSED, 1)}, (_WORD, 1)),
    (re.compile(rb"[^\t\n\f\r />=]*"), {}, (_BEHIND, 0)),
    (re.compile(rb"[\t\n\f\r ]*"), {ord("="): (_VALUE, 1)}, (_GAP, 0)),
    (
        re.compile(rb"[\t\n\f\r ]*"),
        {ord('"'): (_DOUBLE, 1), ord("'"): (_SINGLE, 1), ord(">"): (_GAP, 0)},
        (_BARE, 0),
    ),
    (re.compile(rb'[^"]*'), {}, (_GAP, 1)),
    (re.compile(rb"[^']*"), {}, (_GAP, 1)),
    (re.compile(rb"[^\t\n\f\r >]*"), {}, (_GAP, 0)),
)
