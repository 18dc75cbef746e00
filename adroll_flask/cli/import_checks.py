"""Lines and what becomes of them, in the file's order; of a long file by several processes.

To check an event is most of an import's work. Processes are forked, which needs Linux and a process
without other threads; elsewhere, and for the first lines, this process does it itself.
"""

from __future__ import annotations

import gc
import marshal
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias

from adroll_flask.errors import EventError

from .import_lines import Line
from .import_spool import JournalPart, Piece, Spool
from .refusal import Refusal

#: A record for the journal; what is wrong with a line; ``None``: its visitor did not consent.
Outcome: TypeAlias = bytes | EventError | None
Check: TypeAlias = Callable[[Sequence[Line]], list[Outcome]]

#: Lines that are checked in one go.
CHUNK: Final = 500
#: Lines that this process checks itself before it asks for help.
ALONE: Final = 5000
_MOST_PROCESSES: Final = 8


@dataclass(slots=True)
class Checked:
    """What became of some lines that follow one another.

    :param rejected: which lines are wrong, and how.
    """

    lines: int
    suppressed: int
    rejected: list[tuple[Line, EventError]]

    @property
    def good(self) -> int:
        return self.lines - self.suppressed - len(self.rejected)


#: What a process says of its lines: how many had no consent; number in the chunk, field and text of
#: those that are wrong; the piece of the spool that has the good ones.
_Said: TypeAlias = tuple[int, list[tuple[int, str, str]], tuple[int, int, int] | None]


def outcomes(lines: Iterable[Line], check: Check, spool: Spool | None) -> Iterator[Checked]:
    """Check *lines*, a chunk at a time.

    :param spool: keeps what is good; ``None``: nobody does.
    :raises click.ClickException: the lines cannot be checked to the last.
    """
    lines = iter(lines)
    chunks = iter(lambda: list(islice(lines, CHUNK)), [])
    number = _processes()
    file = spool.open() if spool is not None else 0
    for chunk in chunks if number < 2 else islice(chunks, ALONE // CHUNK):
        part = spool.next_part() if spool is not None else None
        try:
            said = _examined(chunk, check, spool, file, part.token if part is not None else "")
        except OSError as problem:
            raise _no_room(problem.strerror) from None
        yield _result(chunk, part, said)
    first = next(chunks, None)
    if first is not None:
        with _Team(number, check, spool) as team:
            yield from team.outcomes(first, chunks)


def _processes() -> int:
    if sys.platform != "linux" or threading.active_count() > 1:
        return 1
    return min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)


def _examined(
    lines: Sequence[Line], check: Check, spool: Spool | None, file: int, token: str
) -> _Said:
    """Check *lines*, and write what is good."""
    suppressed = 0
    good: list[bytes] = []
    wrong: list[tuple[int, str, str]] = []
    for number, found in enumerate(check(lines)):
        if isinstance(found, bytes):
            good.append(found)
        elif found is None:
            suppressed += 1
        else:
            wrong.append((number, found.field, found.expected))
    piece = spool.write(file, token, good) if spool is not None else None
    return suppressed, wrong, piece and (piece.file, piece.length, piece.records)


def _result(chunk: Sequence[Line], part: JournalPart | None, said: _Said) -> Checked:
    suppressed, wrong, piece = said
    if part is not None and piece is not None:
        part.pieces.append(Piece(*piece))
    rejected = [(chunk[number], EventError(field, text)) for number, field, text in wrong]
    return Checked(len(chunk), suppressed, rejected)


def _no_room(why: object) -> Refusal:
    return Refusal(f"what is good cannot be written ({why}); nothing was kept", slug="import-file")


class _Team:
    """Processes that check lines; this one reads them."""

    def __init__(self, number: int, check: Check, spool: Spool | None) -> None:
        self._spool = spool
        self._free: deque[Connection] = deque()
        self._busy: deque[tuple[Connection, list[Line], JournalPart | None]] = deque()
        self._members: list[Any] = []
        try:
            self._start(number, check)
        except BaseException:
            self._end()
            raise

    def _start(self, number: int, check: Check) -> None:
        context = get_context("fork")
        # Ctrl-C is for this process alone, which then ends the others.
        with _without_interrupts():
            for _ in range(number):
                file = self._spool.open() if self._spool is not None else 0
                ours, theirs = context.Pipe()
                self._free.append(ours)
                member = context.Process(
                    target=_work,
                    args=(theirs, [*self._free], check, self._spool, file),
                    daemon=True,
                )
                member.start()
                theirs.close()
                self._members.append(member)

    def __enter__(self) -> _Team:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for member in self._members:
            member.kill()
            member.join()

    def outcomes(self, first: list[Line], chunks: Iterator[list[Line]]) -> Iterator[Checked]:
        for chunk in chain([first], chunks):
            # Its process is given more to do before anybody looks at what it has done.
            done = [self._next()] if not self._free else []
            self._give(chunk)
            yield from done
        while self._busy:
            yield self._next()

    def _give(self, chunk: list[Line]) -> None:
        part = self._spool.next_part() if self._spool is not None else None
        told = [_told(line) for line in chunk]
        connection = self._free.popleft()
        with _connected():
            connection.send_bytes(marshal.dumps((part.token if part is not None else "", told)))
        self._busy.append((connection, chunk, part))

    def _next(self) -> Checked:
        connection, chunk, part = self._busy.popleft()
        with _connected():
            said = marshal.loads(connection.recv_bytes())  # noqa: S302 - our own process's
        if isinstance(said, str):
            raise _no_room(said)
        self._free.append(connection)
        return _result(chunk, part, said)


def _told(line: Line) -> Any:
    """What a process has to know of *line*: the cells of a CSV line, a JSON line's object."""
    if line.problem is not None:
        return line.problem.field, line.problem.expected
    return line.raw if line.is_text else line.fields


def _line(told: Any) -> Line:
    if isinstance(told, tuple):
        return Line(0, [], problem=EventError(*told))
    if isinstance(told, list):
        return Line(0, told, is_text=True)
    return Line(0, [], told)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Put off Ctrl-C; what is forked meanwhile does not hear it at all."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def _connected() -> Iterator[None]:
    """Says that a process has gone, as where the machine ran out of memory."""
    try:
        yield
    except (EOFError, OSError):
        line = "a process that checked lines was ended; nothing was kept"
        raise Refusal(line, slug="import-process") from None


def _work(
    connection: Connection,
    others: Sequence[Connection],
    check: Check,
    spool: Spool | None,
    file: int,
) -> None:
    """Check what is sent, until the import ends, or is ended."""
    for other in others:
        other.close()
    # What the import's process had made is here for good: not to be looked through again and again.
    gc.freeze()
    with suppress(EOFError, OSError):
        while True:
            token, told = marshal.loads(connection.recv_bytes())  # noqa: S302 - likewise
            said: _Said | str
            try:
                said = _examined([_line(one) for one in told], check, spool, file, token)
            except OSError as problem:
                said = problem.strerror or type(problem).__name__
            connection.send_bytes(marshal.dumps(said))
