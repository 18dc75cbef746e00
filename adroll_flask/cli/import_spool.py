"""Where an import's good lines wait until all lines were checked: in files that have no name.

They are framed already as the journal keeps them, so that nobody looks at a record again. Each
process writes into a file of its own; memory holds where the pieces are. Nothing stays behind a
process that is killed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final, NamedTuple

from adroll_flask.outbox.journal_format import frame_all
from adroll_flask.outbox.ownership import make_folder

#: Chunks of lines that make one file of the journal.
CHUNKS: Final = 10


class Piece(NamedTuple):
    """What became of one chunk's good lines.

    :param file: the number of the spool's file.
    :param length: bytes, behind the piece before in the same file.
    """

    file: int
    length: int
    records: int


@dataclass(slots=True)
class JournalPart:
    """What will be one file of the journal.

    :param token: the journal file's.
    """

    token: str
    pieces: list[Piece] = field(default_factory=list)

    @property
    def records(self) -> int:
        return sum(piece.records for piece in self.pieces)

    @property
    def length(self) -> int:
        """Bytes."""
        return sum(piece.length for piece in self.pieces)


class Spool:
    """Good lines, in the order of the file that they are from.

    :param folder: beside the journal: what fits there fits the disk, and /tmp may be memory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[IO[bytes]] = []
        self._parts: list[JournalPart] = []
        self._chunks = 0

    def open(self) -> int:
        """Make one more file, for one process; its number."""
        folder: Path | None = self._folder
        try:
            make_folder(self._folder)
        except OSError:
            folder = None
        made: Any = TemporaryFile(dir=folder, prefix="adroll-import-", buffering=0)  # noqa: SIM115
        self._files.append(made)
        return len(self._files) - 1

    def next_part(self) -> JournalPart:
        """Where the next chunk of lines belongs."""
        if self._chunks % CHUNKS == 0:
            self._parts.append(JournalPart(os.urandom(8).hex()))
        self._chunks += 1
        return self._parts[-1]

    def write(self, file: int, token: str, records: Sequence[bytes]) -> Piece:
        """Add *records* to a file; the caller adds the piece to its part.

        :raises OSError: there is no room.
        """
        frames = frame_all(records, token)
        rest = memoryview(frames)
        while rest:
            rest = rest[os.write(self._files[file].fileno(), rest) :]
        return Piece(file, len(frames), len(records))

    def parts(self) -> Iterator[JournalPart]:
        """What is good, in order; each is read, by :meth:`frames`, before the next is asked for."""
        for file in self._files:
            file.seek(0)
        yield from (part for part in self._parts if part.records)

    def frames(self, part: JournalPart) -> Iterator[bytes]:
        """What the journal's file holds, a piece at a time."""
        for piece in part.pieces:
            yield self._files[piece.file].read(piece.length)

    def close(self) -> None:
        """Let go of what waits."""
        for file in self._files:
            file.close()
