"""Where the snippet goes: the end of the head, as an HTML parser sees it, in one pass over bytes.

A parser that has not left the head takes a ``<script>`` between any two tokens without building
anything else than before: ``<html>`` and ``<head>`` would be implied by the next token all the
same, and the doctype has had its say (HTML standard, 13.2.6.4.1 to 13.2.6.4.4). So the place is
right before the token that ends the head: ``</head>``, or the first that no head can hold, or the
end of the page. Reading follows a browser, which runs scripts: ``<noscript>`` is text.

Nothing behind that token is looked at, with one exception: a page of which neither the response
nor the head tells the charset is searched for a declaration within its first 1024 bytes.
"""

from __future__ import annotations

import re
from typing import Final

from . import html_patterns
from .charset import PRESCAN, ascii_compatible, is_shifting
from .head_reader import CHARSET, SNIPPET_MARK, UTF8_BOM, HeadReader

__all__ = ["HOLD_LIMIT", "INJECTED", "Placer", "ascii_compatible", "place"]

INJECTED: Final = "injected"
#: Bytes of a streamed page that are held back at most.
HOLD_LIMIT: Final = 65536
_HEAD_END, _BODY = html_patterns.any_case("head"), html_patterns.any_case("body")
_PLAIN_END: Final = re.compile(rb"(?:</%b|<%b)%b" % (_HEAD_END, _BODY, html_patterns.NAME_END))


def place(
    html: bytes, snippet: bytes, limit: int = HOLD_LIMIT, *, charset: str | None = None
) -> tuple[bytes, str]:
    """Put *snippet* into a whole page.

    :param html: the page as it is sent.
    :param snippet: a ``<script async …></script>``.
    :param limit: as for `Placer`; the outcome is the same as there.
    :param charset: as for `Placer`.
    :returns: the page and ``"injected"``, or *html* itself and why it was left alone: a reason in
        `headreader`.

    >>> place(b"<html><head></head><body>", b"<script></script>")
    (b'<html><head><script></script></head><body>', 'injected')
    >>> place(b"<p>Hello", b"<script></script>")
    (b'<p>Hello', 'fragment')
    """
    if not ascii_compatible(charset):
        return html, CHARSET
    position = _plain_place(html, bool(charset))
    if position < 0:
        reader = HeadReader(limit, bool(charset))
        reader.read(html, final=True)
        if reader.place is None:
            return html, reader.outcome or ""
        position = reader.place
    return _insert(html, position, snippet), INJECTED


class Placer:
    """Puts *snippet* into a page that comes in chunks, wherever they are cut; as `place` would.

    What is certain to stay before the snippet leaves at once. Held back are an unfinished tag,
    comment, script or the like: nothing that a browser could show.

    :param snippet: a ``<script async …></script>``.
    :param limit: how many bytes may be held back, 2048 or more. A longer script or comment goes on
        its way, and only a page that ends within one is left alone.
    :param charset: what the response's ``Content-Type`` says. Without it, a page that does not
        declare one in its head is held back behind the head until its first 1024 bytes are there.

    >>> placer = Placer(b"<script></script>", charset="utf-8")
    >>> [placer.feed(chunk) for chunk in (b"<html><title>A<", b"/title><p", b">B")]
    [b'<html>', b'<title>A</title>', b'<script></script><p>B']
    >>> placer.finish(), placer.outcome
    (b'', 'injected')
    """

    __slots__ = ("_held", "_known", "_limit", "_reader", "_snippet", "outcome")

    def __init__(
        self, snippet: bytes, limit: int = HOLD_LIMIT, *, charset: str | None = None
    ) -> None:
        self._snippet = snippet
        self._limit = limit
        self._known = bool(charset)
        self._reader: HeadReader | None = None
        self._held = bytearray()
        #: ``"injected"``, why the page is left alone, or ``None`` while that is open.
        self.outcome: str | None = None if ascii_compatible(charset) else CHARSET

    @property
    def done(self) -> bool:
        """Whether all further chunks pass as they are."""
        return self.outcome is not None

    def feed(self, chunk: bytes) -> bytes:
        """Take the next *chunk* and give what may leave now, which may be nothing."""
        if self.outcome is not None:
            return chunk
        if self._reader is None:
            position = _plain_place(chunk, self._known)
            if position >= 0:
                self.outcome = INJECTED
                return _insert(chunk, position, self._snippet)
        return self._advance(chunk, final=False)

    def finish(self) -> bytes:
        """Say that no chunk follows, and give what was held back."""
        return b"" if self.outcome is not None else self._advance(b"", final=True)

    def abandon(self, chunk: bytes) -> bytes:
        """Give what was held back, with the *chunk* whose :meth:`feed` failed; all further pass."""
        held, self._held = bytes(self._held), bytearray()
        self.outcome = "fault"
        return held if held.endswith(chunk) and held else held + chunk

    def _advance(self, chunk: bytes, *, final: bool) -> bytes:
        reader = self._reader
        if reader is None:
            reader = self._reader = HeadReader(self._limit, self._known)
        held = self._held
        held += chunk
        reader.read(held, final=final)
        if reader.place is not None:
            self.outcome = INJECTED
            out = _insert(held, reader.place, self._snippet)
        elif reader.outcome is not None:
            self.outcome = reader.outcome
            out = bytes(held)
        else:
            count = reader.release()
            out = bytes(held[:count])
            del held[:count]
            return out
        self._held = bytearray()
        return out


def _insert(html: bytes | bytearray, position: int, snippet: bytes) -> bytes:
    if len(html) > 16384:  # from about here on the views cost less than copying twice
        view = memoryview(html)
        return b"".join((view[:position], snippet, view[position:]))
    return b"".join((html[:position], snippet, html[position:]))


def _plain_place(html: bytes, known: bool) -> int:
    """The place in a page whose head is all there and holds nothing unusual, else -1.

    Gives what `HeadReader` gives, at the price of one match.
    """
    run = html_patterns.run_of_head(html, 3 if html.startswith(UTF8_BOM) else 0)
    position = run.end()
    if not _PLAIN_END.match(html, position) or html.find(SNIPPET_MARK, 0, position) >= 0:
        return -1
    if not known:
        label = html_patterns.charset_label(html, run)
        if not label and position < PRESCAN:
            return -1
        # ISO-2022-JP and HZ-GB-2312, whatever else declares them
        end = min(position, PRESCAN)
        if is_shifting(label) or html.find(b"2022", 0, end) > 0 or html.find(b"2312", 0, end) > 0:
            return -1
    return position
