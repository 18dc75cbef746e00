"""Where the snippet goes: the end of the head, as an HTML parser sees it, in one match over bytes.

A parser that has not left the head accepts a ``<script>`` between any two tokens. The rest of what
it builds stays the same: the next token would imply ``<html>`` and ``<head>`` too, and the doctype
has been read (HTML standard, 13.2.6.4.1 to 13.2.6.4.4). So the place is right before the token that
ends the head: ``</head>``, the first token that no head can hold, or the end of the page. The
patterns read a page as a browser does that runs scripts: the content of ``<noscript>`` is text.

The patterns follow the tokenizer (13.2.5). All are possessive: none steps back, so each is linear
on any input.

Which responses take the snippet at all is decided by status and headers, in :mod:`.response`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final

INJECTED: Final = "injected"
#: The page has a script with ``data-adroll`` already.
PRESENT: Final = "present"
#: No doctype, ``<html>``, ``<head>`` or ``<body>`` before the first content: not a document.
FRAGMENT: Final = "fragment"
#: UTF-16 and its like, in which these bytes are not these characters.
CHARSET: Final = "charset"
#: The snippet would push the declaration of the charset out of the bytes where browsers look.
CHARSET_LATE: Final = "charset_late"
#: The page, or what may be held back of it, ends in a comment or tag that comes before the head.
UNFINISHED: Final = "unfinished"

#: Bytes of a streamed page that are held back at most.
HOLD_LIMIT: Final = 65536
#: How often each byte of what is held back is read at most, in the mean.
_LOOKS: Final = 4
#: Browsers look for a declared charset in that many bytes (13.2.3.2).
_PRESCAN: Final = 1024

_WHITE = rb"[\t\n\f\r ]"
#: What must follow a tag's name: without it ``<header>`` would be a ``<head>``.
_NAME_END = rb"(?=[\t\n\f\r />])"
# One attribute. A quote opens a value only directly behind "=", and "=" may begin a name
# (13.2.5.32). A value that is not closed yet must fail, not be read as a name: the last branch.
_ATTRIBUTE = (
    rb"[^\t\n\f\r />][^\t\n\f\r />=]*+(?:[\t\n\f\r ]*+=[\t\n\f\r ]*+"
    rb"(?:\"[^\"]*+\"|'[^']*+'|[^\t\n\f\r >\"'][^\t\n\f\r >]*+|(?=>))|(?![\t\n\f\r ]*+=))"
)
# From behind a tag's name through its ">". The first loop takes attributes of the usual form
# alone; it is there for speed.
_TAG_REST = (
    rb"(?:>|[\t\n\f\r /]++(?:[a-zA-Z:-]++=\"[^\"]*+\"[\t\n\f\r ]*+)*+"
    rb"(?:>|(?:[\t\n\f\r /]++|" + _ATTRIBUTE + rb")*+>))"
)


def _word(word: str) -> bytes:
    """A pattern for *word* in any case; faster than a flag, since alternatives can be told apart
    by their first byte."""
    return "".join(f"[{c}{c.upper()}]" for c in word).encode()


def _names(*words: str) -> bytes:
    """A pattern for any of *words* as the whole name of a tag."""
    return b"(?:%b)%b" % (b"|".join(map(_word, words)), _NAME_END)


def _tag(name: str) -> bytes:
    return _word(name) + _TAG_REST


def _text_element(name: str) -> bytes:
    """An element whose content is text up to its end tag, from behind ``<``."""
    end = b"/" + _tag(name)
    other = rb"(?!/%b)[^<]*+" % _names(name)
    # The end is nearly always at the first "<".
    return _tag(name) + rb"[^<]*+<(?:%b|%b(?:<%b)*+<%b)" % (end, other, other, end)


_SCRIPT_NAME = _names("script")
# After "<!--" within a script, a nested "<script>" may follow. The end tag of the nested one does
# not end the outer script (13.2.5.20 to 13.2.5.31). The dashes of "<!--" may also be the dashes of
# the "-->" that leaves the state after "<!--".
_NESTED = rb"<%b(?:[^-<]++|-(?!->)|<(?!/%b))*+(?:</%b|(?=-->))" % ((_SCRIPT_NAME,) * 3)
_ESCAPED = rb"<!(?=--)(?:[^-<]++|-(?!->)|<(?!/?%b)|%b)*+(?:-->|(?=</%b))" % (
    _SCRIPT_NAME,
    _NESTED,
    _SCRIPT_NAME,
)
_SCRIPT_CONTENT = rb"(?:[^<]++|<(?!/%b|!--)|%b)*+" % (_SCRIPT_NAME, _ESCAPED)
_SCRIPT_END = b"</" + _tag("script")
_SCRIPT = _tag("script") + rb"[^<]*+(?:%b|%b%b)" % (_SCRIPT_END, _SCRIPT_CONTENT, _SCRIPT_END)
# "<!-->" and "<!--->" end at once, and "--!>" is an end too.
_COMMENT = rb"!--(?:-?>|[^-]*+(?:-(?!-!?>)[^-]*+)*+--!?>)"
_VOIDS = ("meta", "link", "base", "basefont", "bgsound")
_TEXTS = ("title", "style", "noscript", "noframes")
# Within a template, these change what is a tag, or which tags switch to text.
_ODD = _names("template", "svg", "math", "select", "col", "colgroup", "plaintext")
_RAW = (*_TEXTS, "textarea", "xmp", "iframe", "noembed")
# Any other tag within a template, whose attributes may hold "</template>".
_WITHIN = rb"(?!/?%b|%b|%b)/?[a-zA-Z][^\t\n\f\r />]*+%b" % (
    _names("template"),
    _ODD,
    _names("script", *_RAW),
    _TAG_REST,
)
# Bogus comments end at the first ">", in quotes too (13.2.5.41), and so does a doctype.
_BOGUS = rb"!(?!--)[^>]*+>|\?[^>]*+>|/[^a-zA-Z>][^>]*+>|/>"
_TEMPLATE = _tag("template") + rb"(?:[^<]++|<(?:%b|(?![a-zA-Z!?/])))*+" % (
    b"|".join((_COMMENT, _BOGUS, _SCRIPT, *map(_text_element, _RAW), _WITHIN)),
)
# One item of a head, from behind "<". No end tag but four does anything in a head.
_ITEM = b"|".join(
    (
        *map(_tag, _VOIDS),
        _SCRIPT,
        *map(_text_element, _TEXTS),
        *map(_tag, ("head", "html")),
        _COMMENT,
        _BOGUS,
        _TEMPLATE + b"</" + _tag("template"),
        rb"/(?!%b)[a-zA-Z][^\t\n\f\r />]*+%b" % (_names("head", "body", "html", "br"), _TAG_REST),
    )
)
# White space in disguise, which does not end a head.
_SPACE = (
    rb"&(?:Tab;|NewLine;|#(?:0*+(?:9|1[023]|32)(?![0-9])"
    rb"|[xX]0*+(?:9|[aAcCdD]|20)(?![0-9a-fA-F]));?)"
)
#: As many complete items of a head as there are.
_HEAD: Final = re.compile(rb"(?:%b*+(?:<(?:%b)|%b))*+%b*+" % (_WHITE, _ITEM, _SPACE, _WHITE))
#: One item of a head or one piece of white space in :data:`_SPACE`, with the item's name. The
#: pattern is compiled only where a page needs it.
_ONE: Final = (
    rb"%b*+(?P<item>(?=<(?P<name>/?[a-zA-Z][^\t\n\f\r />]*+|![a-zA-Z]*+)|)(?:<(?:%b)|%b))"
    % (_WHITE, _ITEM, _SPACE)
)
#: What follows the complete items of a head: a comment, or a tag with its name. Its end may be
#: missing.
_NEXT: Final = re.compile(rb"<(?P<comment>[!?]|/[^a-zA-Z])|<(?P<name>/?[a-zA-Z][^\t\n\f\r />]*+)")
#: Tags that a head holds. Where one stands behind the complete items, the page ends within it.
_HELD: Final = frozenset(name.encode() for name in (*_TEXTS, *_VOIDS, "script", "template"))
_BEFORE_HEAD: Final = frozenset((b"html", b"head"))
#: Items that only a whole document has, and those that open its head.
_DOCUMENT: Final = frozenset((b"!doctype", b"html", b"head"))
_OPENING: Final = _HELD | {b"head"}
#: Tags that only a whole document has, at the end of a head.
_DOCUMENT_ENDS: Final = frozenset((b"body", b"frameset", b"/head"))
#: Those that end a head whatever follows in the page.
_CERTAIN_ENDS: Final = frozenset((b"body", b"/head"))
#: Limits of the places that are remembered: how many first bytes of a page are the key, how many
#: bytes a head may have, and how many places there are at most.
_START: Final = 512
_LONGEST_HEAD: Final = 16384
_MOST_PLACES: Final = 64
_HEAD_END_TAGS: Final = frozenset((b"/head", b"/body", b"/html", b"/br"))
#: A template with a tag of :data:`_ODD` in it, which the other patterns do not follow. It is
#: compiled only where a page needs it: that takes longer than all else here. ``re`` then keeps it.
_UNSIMPLE_TEMPLATE: Final = rb"<" + _TEMPLATE + rb"<" + _ODD
_MARK: Final = b"data-adroll"
_OUR_SCRIPT: Final = re.compile(
    rb"<%b(?:[\t\n\f\r /]++|(?!%b%b)%b)*+(?<=[\t\n\f\r /\"'])%b"
    % (_SCRIPT_NAME, _MARK, rb"[\t\n\f\r />=]", _ATTRIBUTE, _MARK)
)

#: What is said of a page while more of it has to come: no place, and no outcome.
_NOT_YET: Final = None, None

_UTF8_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
# Anything that may declare a charset to a browser, also in a comment or a script.
_DECLARATION: Final = re.compile(rb"(?i)<meta[\t\n\f\r /][^>]*?charset[^>]*+>?")
# ASCII bytes mean something else between escape sequences; browsers show nothing of the last ones.
_SHIFTING: Final = ("iso-2022", "iso2022", "csiso2022", "hz", "replacement")
_SHIFTING_LABEL: Final = re.compile(
    rb"(?i)charset[\t\n\f\r ]*+=[\t\n\f\r \"']*+(?:%b)" % "|".join(_SHIFTING).encode()
)
# Labels of UTF-16 that Python's codecs do not know (Encoding standard, 4.2).
_WIDE: Final = {"unicode", "csunicode", "unicodefeff", "unicodefffe", "ucs-2", "iso-10646-ucs-2"}
_SAMPLE: Final = "<!-- \"'&=+/>az09"


def ascii_compatible(charset: str | None) -> bool:
    """Whether ASCII bytes are ASCII characters in *charset*, wherever they stand.

    :param charset: the ``charset`` of a ``Content-Type``, in any case; ``None`` where it has none.
        A label that nobody knows counts as compatible: a browser ignores it.

    >>> ascii_compatible("Shift_JIS"), ascii_compatible("UTF-16LE"), ascii_compatible("ISO-2022-JP")
    (True, False, False)
    """
    if not charset:
        return True
    label = charset.strip(" \t\"'").lower()
    if label in _WIDE or label.startswith(_SHIFTING):
        return False
    try:
        return _SAMPLE.encode(codecs.lookup(label).name) == _SAMPLE.encode("ascii")
    except (LookupError, ValueError):
        return True


class Places:
    """Remembers where the snippet goes, for pages that have the same head as an earlier page.

    It remembers few heads, and no long ones. The page after a ``</head`` or ``<body`` that ends a
    head cannot change the place before that tag.
    """

    def __init__(self) -> None:
        #: By a page's first bytes: the page up to the name of the tag that ends its head (with one
        #: byte more), and the place.
        self._by_start: dict[bytes, tuple[bytes, int]] = {}

    def put(self, snippet: bytes, page: bytes) -> bytes | None:
        """*page*, of which the charset is known, with *snippet*; ``None``: its place is not known
        yet."""
        known = self._by_start.get(page[:_START])
        if known is None or not page.startswith(known[0]):
            return None
        place = known[1]
        return b"".join((page[:place], snippet, memoryview(page)[place:]))

    def keep(self, page: bytes | bytearray, place: int) -> None:
        """Remember the *place* that was found in a page."""
        token = _NEXT.match(page, place)
        if token is None or token.end() >= min(len(page), _LONGEST_HEAD):
            return
        if (token["name"] or b"").lower() in _CERTAIN_ENDS:
            if len(self._by_start) >= _MOST_PLACES:
                self._by_start.clear()
            self._by_start[bytes(page[:_START])] = bytes(page[: token.end() + 1]), place


class Placer:
    """Puts *snippet* into a page that comes in chunks, wherever they are cut.

    The head is held back until it ends, and all behind it passes. In a head beyond `HOLD_LIMIT`
    the snippet comes before what is not complete there.

    :param snippet: a ``<script async …></script>``.
    :param charset: what the response's ``Content-Type`` says. Without it, a page is held back
        behind its head until its first 1024 bytes are there, which may declare one.
    :param places: what is remembered of other pages.

    >>> placer = Placer(b"<script></script>", charset="utf-8")
    >>> [placer.feed(chunk) for chunk in (b"<html><title>A<", b"/title><p", b">B", b"C")]
    [b'', b'', b'<html><title>A</title><script></script><p>B', b'C']
    >>> placer.feed(b"", final=True), placer.outcome
    (b'', 'injected')
    """

    __slots__ = ("_at", "_document", "_held", "_known", "_looked", "_places", "_snippet", "outcome")

    def __init__(
        self, snippet: bytes, *, charset: str | None = None, places: Places | None = None
    ) -> None:
        self._snippet = snippet
        self._places = places if charset else None
        self._held = bytearray()
        self._looked = 0  # bytes that were read, those of an item that is not complete each time
        self._at = 0  # read up to here: a place between two items of the head
        self._document = False  # there was a sign of a whole document
        self._known = bool(charset)  # something before the page's own declaration tells the charset
        #: ``"injected"``, why the page is left alone, or ``None`` while that is open.
        self.outcome: str | None = None if ascii_compatible(charset) else CHARSET

    def feed(self, chunk: bytes, *, final: bool = False) -> bytes:
        """Take the next *chunk* and give what may leave now, which may be nothing.

        :param final: none follows; all that was held back leaves.
        """
        if self.outcome is not None:
            return chunk
        page: bytes | bytearray = chunk
        if self._held:
            self._held += chunk
            page = self._held
        full = len(page) >= HOLD_LIMIT
        place = None
        if final or full or self._is_due(chunk, len(page)):
            end = len(page) if final else min(len(page), HOLD_LIMIT)
            self._looked += end - self._at
            place, self.outcome = self._find(page, end, final=final or full)
        if self.outcome is None:
            if not self._held:
                self._held = bytearray(chunk)
            return b""
        self._held = bytearray()
        if place is None:
            return bytes(page)
        if self._places is not None:
            self._places.keep(page, place)
        view = memoryview(page)
        return b"".join((view[:place], self._snippet, view[place:]))

    def _is_due(self, chunk: bytes, size: int) -> bool:
        """Whether to look now if the head has ended.

        The end of a head is known only with a later ``>``. So a chunk without ``>`` needs no look.
        Each look reads an item that is not complete from its beginning again. So there is no look
        while more than :data:`_LOOKS` times the bytes of the page have been read already.
        """
        return b">" in chunk and self._looked <= _LOOKS * size

    def abandon(self, chunk: bytes) -> bytes:
        """Give what was held back, with the *chunk* whose :meth:`feed` failed; all further pass."""
        page = bytes(self._held)
        self._held = bytearray()
        self.outcome = "fault"
        return page or chunk

    def _find(
        self, html: bytes | bytearray, end: int, *, final: bool
    ) -> tuple[int | None, str | None]:
        """The place, and what becomes of the page, by its bytes up to *end*.

        A place comes only with :data:`INJECTED`; :data:`_NOT_YET`: more of the page has to come.
        """
        begin = self._at
        if not begin:
            if html.startswith(_OTHER_BOMS):
                return None, CHARSET
            if html.startswith(_UTF8_BOM):
                begin = 3
                self._known = True
            self._document = html[begin : begin + 9].lower() == b"<!doctype"
        run = _HEAD.match(html, begin, end)
        assert run is not None  # noqa: S101 - it matches everywhere
        at = run.end()
        if not final and at == end and html[end - 1 : end].isalnum():
            return _NOT_YET  # "&#32", of which the ";" may come
        self._at = at
        if not self._document:
            self._document = _holds(html, begin, at, _DOCUMENT)
        if html.find(_MARK, begin, at) >= 0 and _has_our_script(html, begin, at):
            return None, PRESENT
        if not final and html.find(b">", at, end) < 0:
            return _NOT_YET
        token = _NEXT.match(html, at, end)
        name = (token["name"] or b"").lower() if token else b""
        before_head = name in _BEFORE_HEAD or bool(token and token["comment"])
        held = name in _HELD or (name[:1] == b"/" and name not in _HEAD_END_TAGS)
        if (
            (before_head or held)
            and not final
            and not re.compile(_UNSIMPLE_TEMPLATE).match(html, at, end)
        ):
            return _NOT_YET
        if not self._document and name not in _DOCUMENT_ENDS:
            return None, FRAGMENT
        # The end of the page ends the head too. An item may be unfinished there. A browser drops
        # an unfinished tag. Other unfinished content follows the snippet and stays as it is. One
        # case is different: the snippet opens the head. So a comment, <html> or <head> that
        # belongs before the head would then be within it.
        if before_head and not _holds(html, 0, at, _OPENING):
            return None, UNFINISHED
        return (at, INJECTED) if self._known else self._beside_declaration(html, end, final=final)

    def _beside_declaration(
        self, html: bytes | bytearray, end: int, *, final: bool
    ) -> tuple[int | None, str | None]:
        """The place where nobody but the page itself tells its charset."""
        at = self._at
        if at < _PRESCAN and end < _PRESCAN and not final:
            return _NOT_YET
        if _SHIFTING_LABEL.search(html, 0, min(end, max(at, _PRESCAN))):
            return None, CHARSET
        for declared in _DECLARATION.finditer(html, at, min(end, _PRESCAN)):
            if declared.end() + len(self._snippet) > _PRESCAN:
                return None, CHARSET_LATE
        return at, INJECTED


def _items(html: bytes | bytearray, start: int, end: int) -> Iterator[re.Match[bytes]]:
    """The items of a head between two places, of which each begins where the one before it ended.

    A search would look for the next one behind each blank: in time that grows with their square.
    """
    match = re.compile(_ONE).match
    while (item := match(html, start, end)) is not None:
        yield item
        start = item.end()


def _holds(html: bytes | bytearray, start: int, end: int, names: frozenset[bytes]) -> bool:
    """Whether one of the items of a head has one of *names*."""
    return any((item["name"] or b"").lower() in names for item in _items(html, start, end))


def _has_our_script(html: bytes | bytearray, start: int, end: int) -> bool:
    """Whether one of the items of a head is a script with ``data-adroll``."""
    return any(_OUR_SCRIPT.match(html, item.start("item")) for item in _items(html, start, end))
