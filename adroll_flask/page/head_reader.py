"""Reads the head of an HTML page, in whatever pieces it comes, up to the place for the snippet.

Most pages are read by one match (`html_patterns.HEAD_RUN`). What that does not know, or what is not
there to its end is read step by step, each step as far as the buffer goes: nothing is read twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from . import html_patterns
from .charset import PRESCAN, behind_declaration, declared_charset, is_shifting

Buffer: TypeAlias = bytes | bytearray

#: The page has a script with ``data-adroll`` already.
PRESENT: Final = "present"
#: No doctype, ``<html>``, ``<head>`` or ``<body>`` before the first content: not a document.
FRAGMENT: Final = "fragment"
#: UTF-16 and its like, in which these bytes are not these characters.
CHARSET: Final = "charset"
#: The charset is declared behind the head, and no place behind the declaration is certain.
CHARSET_LATE: Final = "charset_late"
#: The page ends in a comment, script or tag that began more bytes before than may be held back.
UNFINISHED: Final = "unfinished"
#: Something stands in the head of which the bytes do not tell what a parser makes.
UNCERTAIN: Final = "uncertain"

#: Longest beginning of a token that cannot be told yet: ``&#x000000020``, and a little.
LOOKAHEAD: Final = 16

UTF8_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_HEAD_ENDS: Final = frozenset((b"head", b"body", b"html", b"br"))
# Within a template, these change what is a tag, or which tags switch to text.
_FOREIGN: Final = frozenset((b"svg", b"math", b"select", b"col", b"colgroup", b"plaintext"))
_SKIPPED: Final = frozenset((b"meta", b"link", b"base", b"basefont", b"bgsound", b"html", b"head"))
_DOCUMENT: Final = frozenset((b"html", b"head", b"body", b"frameset"))
_RAW_IN_HEAD: Final = frozenset((b"title", b"style", b"noscript", b"noframes"))
_GREATER: Final = re.compile(rb">")
SNIPPET_MARK: Final = b"data-adroll"


class HeadReader:
    """Reads on where it stopped. Positions count from the buffer's first byte.

    :param limit: bytes that may be held back; at least 2048 are.
    :param known: whether the charset is settled by the response's header.
    """

    __slots__ = (
        "_after",
        "_base",
        "_depth",
        "_document",
        "_final",
        "_known",
        "_limit",
        "_lost",
        "_name",
        "_open",
        "_position",
        "_safe",
        "_script_state",
        "_step",
        "_tag_start",
        "_tag_state",
        "outcome",
        "place",
    )

    def __init__(self, limit: int, known: bool) -> None:
        self.place: int | None = None
        self.outcome: str | None = None
        self._limit = max(limit, 2 * PRESCAN) - LOOKAHEAD
        self._known = known
        self._document = False  # there was a sign of a whole document
        self._final = False
        self._open = False  # the parser is within the head
        self._base = 0  # bytes of the page before the buffer
        self._position = 0  # read up to here
        self._safe = 0  # the last place between two items of the head
        self._lost = False  # bytes behind that place have left already
        self._depth = 0  # of templates
        self._step: _Step = HeadReader._begin
        self._after: _Step = HeadReader._between
        self._name = b""
        self._tag_start = 0
        self._tag_state = html_patterns.IN_NAME
        self._script_state = 0  # plain, escaped, double escaped

    def read(self, buffer: Buffer, *, final: bool) -> None:
        """Read on in *buffer*, which begins where `release` said.

        Sets `place` (where in the buffer the snippet goes) or `outcome` (why nowhere), or neither.
        """
        self._final = final
        while self._step(self, buffer):
            pass
        if final and self.place is None and self.outcome is None:
            # The end of the page ends the head too; what is not finished there does not count (a
            # tag) or is taken as it is, behind the snippet (a script, a comment). Only a comment
            # before the head would end up within it.
            if self._document and not self._open and self._in_comment(buffer):
                self.outcome = UNFINISHED
            else:
                self._settle(buffer, len(buffer))
            if self.place is None and self.outcome is None:
                self._await_declaration(buffer)

    def release(self) -> int:
        """How many bytes at the buffer's start may leave; they must be gone at the next `read`."""
        if self._position - self._safe > self._limit:
            self._lost = True
        count = self._position if self._lost else self._safe
        self._base += count
        self._position -= count
        self._tag_start -= count
        self._safe = 0
        return count

    # The steps: each reads on in the buffer and says whether there may be more to do.

    def _begin(self, buffer: Buffer) -> bool:
        start = bytes(buffer[:4])
        if not self._final and any(
            len(start) < len(bom) and bom.startswith(start) for bom in (*_OTHER_BOMS, UTF8_BOM)
        ):
            return False
        if start.startswith(_OTHER_BOMS):
            self.outcome = CHARSET
            return False
        if start.startswith(UTF8_BOM):
            self._position = 3
            self._known = True
        self._step = HeadReader._between
        return True

    def _between(self, buffer: Buffer) -> bool:
        position = self._position
        if self._depth:
            position = buffer.find(b"<", position)
            self._position = len(buffer) if position < 0 else position
            if position < 0:
                return False
        else:
            run = html_patterns.run_of_head(buffer, position)
            self._lost = False
            self._safe = self._position = run.end()
            if run.end() > position and not self._check_run(buffer, run):
                return False
            position = run.end()
        if position == len(buffer):
            return False
        if not self._final and html_patterns.UNDECIDED.match(buffer, position):
            return False
        found = html_patterns.NEXT.match(buffer, position)
        kind = found.lastgroup if found else None
        if found is None:
            return self._content(buffer)
        if kind == "zeros":
            self.outcome = UNCERTAIN
            return False
        if kind == "name":
            self._name = found["name"].lower()
            self._tag_start = position
            self._position = found.end()
            self._after = HeadReader._between
            if found["slash"]:
                return self._end_tag(buffer)
            return self._start_tag(buffer)
        self._position = found.end()
        if kind == "comment":
            self._step = HeadReader._begin_comment
        elif kind == "doctype" or kind == "bogus":
            self._document = self._document or (kind == "doctype" and not self._depth)
            self._step = HeadReader._bogus
        return True

    def _content(self, buffer: Buffer) -> bool:
        """What stands here is text, or a tag that no head can hold."""
        if self._depth:
            self._position += 1
            return True
        return self._settle(buffer, self._position)

    def _start_tag(self, buffer: Buffer) -> bool:
        name = self._name
        self._step = HeadReader._first_of_tag
        if not self._depth:
            self._open = self._open or name != b"html"
            self._document = self._document or name in _DOCUMENT
        if name == b"script":
            self._script_state = 0
            self._after = HeadReader._script
        elif name == b"template":
            self._depth += 1
        elif self._depth:
            if name in _FOREIGN:
                # Which tag closes what is no longer plain; before the template it is.
                return self._settle(buffer, self._tag_start, UNCERTAIN)
            if name in html_patterns.RAW_NAMES:
                self._after = HeadReader._raw
        elif name in _RAW_IN_HEAD:
            self._after = HeadReader._raw
        elif name not in _SKIPPED:
            return self._settle(buffer, self._tag_start)
        return True

    def _end_tag(self, buffer: Buffer) -> bool:
        place = self._tag_start
        self._begin_end_tag()
        if self._depth:
            if self._name == b"template":
                self._depth -= 1
        elif self._name in _HEAD_ENDS:
            if self._name == b"head":
                self._document = True
            return self._settle(buffer, place)
        return True

    def _begin_end_tag(self) -> None:
        self._tag_start = -1  # nothing in it is of interest
        self._after = HeadReader._between
        self._step = HeadReader._first_of_tag

    def _first_of_tag(self, buffer: Buffer) -> bool:
        whole = html_patterns.TAG.match(buffer, self._position)
        if whole:
            self._position = whole.end()
            return self._close_tag(buffer)
        self._tag_state = html_patterns.IN_NAME
        self._step = HeadReader._tag
        return True

    def _tag(self, buffer: Buffer) -> bool:
        state, position = self._tag_state, self._position
        while state != html_patterns.CLOSED:
            stay, moves, otherwise = html_patterns.TAG_STATES[state]
            position = html_patterns.end_of(stay.match(buffer, position))
            if position == len(buffer):
                self._tag_state, self._position = state, position
                return False
            state, used = moves.get(buffer[position], otherwise)
            position += used
        self._position = position
        return self._close_tag(buffer)

    def _close_tag(self, buffer: Buffer) -> bool:
        self._step = self._after
        if not self._depth and self._tag_start >= 0:
            return self._check_tag(bytes(buffer[self._tag_start : self._position]))
        return True

    def _begin_comment(self, buffer: Buffer) -> bool:
        # <!--> and <!---> are comments already.
        opening = bytes(buffer[self._position : self._position + 2])
        if not self._final and opening in (b"", b"-"):
            return False
        if opening == b"->" or opening[:1] == b">":
            self._position += 2 if opening == b"->" else 1
            self._step = HeadReader._between
        else:
            self._step = HeadReader._comment
        return True

    def _comment(self, buffer: Buffer) -> bool:
        return self._seek(buffer, html_patterns.COMMENT_END, 3)

    def _bogus(self, buffer: Buffer) -> bool:
        return self._seek(buffer, _GREATER, 0)

    def _raw(self, buffer: Buffer) -> bool:
        end = html_patterns.RAW_ENDS[self._name]
        if self._seek(buffer, end, len(self._name) + 2):
            self._begin_end_tag()
            return True
        return False

    def _script(self, buffer: Buffer) -> bool:
        found = html_patterns.SCRIPT_STEPS[self._script_state].search(buffer, self._position)
        if found is None:
            self._position = max(self._position, len(buffer) - 9)
            return False
        self._position = found.end()
        text = found[0]
        if text == b"<!--":
            self._script_state = 1
            self._position -= 2  # its dashes may be those of "-->"
        elif text == b"-->":
            self._script_state = 0
        elif self._script_state == 2:
            self._script_state = 1
        elif text[1:2] != b"/":
            self._script_state = 2
        else:
            self._begin_end_tag()
        return True

    def _seek(self, buffer: Buffer, what: re.Pattern[bytes], overlap: int) -> bool:
        """Go behind *what*, of which *overlap* bytes may be there already, without the rest."""
        found = what.search(buffer, self._position)
        if found is None:
            self._position = max(self._position, len(buffer) - overlap)
            return False
        self._position = found.end()
        self._step = HeadReader._between
        return True

    def _in_comment(self, buffer: Buffer) -> bool:
        return self._step in (
            HeadReader._begin_comment,
            HeadReader._comment,
            HeadReader._bogus,
        ) or buffer.startswith(b"<!", self._position)

    # What the items say of the page.

    def _check_run(self, buffer: Buffer, run: re.Match[bytes]) -> bool:
        """Look into a run of items, where there is a reason to; False once the outcome is known."""
        start, end = run.span()
        if run.start("document") >= 0:
            self._document = True
        if run.start("opened") >= 0 or run.start("head") >= 0:
            self._open = True
        if (not self._known and self._base + start < PRESCAN) or buffer.find(
            SNIPPET_MARK, start, end
        ) >= 0:
            item = html_patterns.HEAD_ITEM.match(buffer, start, end)
            while item:
                tag = html_patterns.START_TAG.match(buffer, item.start("item"), end)
                if tag and not self._check_tag(tag[0]):
                    return False
                item = html_patterns.HEAD_ITEM.match(buffer, item.end(), end)
        return True

    def _check_tag(self, tag: bytes) -> bool:
        """Look into a start tag of the head itself; False once the outcome is known."""
        if len(tag) > self._limit:  # in a stream, its beginning may have left by now
            return True
        name = tag[1:7].lower()
        if name == b"script":
            if SNIPPET_MARK in tag and SNIPPET_MARK in html_patterns.attributes(tag):
                self.outcome = PRESENT
        elif name.startswith(b"meta") and not self._known:
            label = declared_charset(tag)
            self._known = bool(label)
            if label and is_shifting(label):
                self.outcome = CHARSET
        return self.outcome is None

    def _settle(self, buffer: Buffer, reached: int, otherwise: str = UNFINISHED) -> bool:
        """The place is the last one between two items, if that is still there."""
        self._position = self._safe
        if not self._document:
            self.outcome = FRAGMENT
        elif self._lost or reached - self._safe > self._limit:
            self.outcome = otherwise
        elif self._known or self._base + self._safe >= PRESCAN:
            self.place = self._safe
        else:
            self._step = HeadReader._await_declaration
            return True
        return False

    def _await_declaration(self, buffer: Buffer) -> bool:
        """No charset is known yet: the snippet must not push a declaration out of sight."""
        end = PRESCAN - self._base
        if len(buffer) >= end or self._final:
            offset = behind_declaration(bytes(buffer[self._safe : end]))
            if offset is None:
                self.outcome = CHARSET_LATE
            else:
                self.place = self._safe + offset
        return False


_Step: TypeAlias = Callable[[HeadReader, Buffer], bool]
