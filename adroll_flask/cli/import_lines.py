"""The lines of a file to import: CSV or JSON lines, plain or gzip, one at a time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeAlias

import click

from adroll_flask.errors import EventError

from .refusal import Refusal

FileFormat: TypeAlias = Literal["csv", "jsonl"]

#: The columns that a file of rejected lines has beside those of the file that they are from; they
#: are passed over when it is imported.
REJECTED_COLUMNS: Final = ("rejected_line", "rejected_column", "rejected_reason")
#: The column in which such a file keeps a line of JSON.
JSON_COLUMN: Final = "json"

_GZIP: Final = b"\x1f\x8b"
_DELIMITERS: Final = ",;\t|"
#: Characters of a line of JSON: an event has at most 32 KiB.
_LONGEST: Final = 1 << 20


@dataclass(slots=True)
class Line:
    """One line that may be an event.

    :param number: the file's line at which it ends, from 1.
    :param raw: the cells of a CSV line, or the text of a line of JSON in a list.
    :param fields: the values of a line of JSON; empty where *problem* is set.
    """

    number: int
    raw: list[str] = field(repr=False)
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    problem: EventError | None = None
    #: It is a CSV line: its values are its cells, all of them texts.
    is_text: bool = False


class Source:
    """A file that is being read; iterating it gives its lines.

    :param file: a path, or ``-`` for standard input.
    :param file_format: ``None``: by the name's ending, else by the first character.
    :param delimiter: between cells; ``None``: the one that the header has most of.
    :raises click.ClickException: it cannot be read, or has no header.
    """

    def __init__(
        self,
        file: str,
        *,
        file_format: FileFormat | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
    ) -> None:
        self._raw: BinaryIO
        try:
            self._raw = io.BufferedReader(_StandardInput()) if file == "-" else open(file, "rb")  # noqa: SIM115
        except OSError as problem:
            raise Refusal(f"{file}: {problem.strerror}", slug="import-file") from None
        click.get_current_context().call_on_close(self._raw.close)
        self._name = file
        #: Bytes of the file; ``None`` where it is a stream.
        self.size: int | None = None if file == "-" else Path(file).stat().st_size or None
        buffered: Any = self._raw
        zipped = buffered.peek(2)[:2] == _GZIP
        plain: Any = gzip.GzipFile(fileobj=buffered) if zipped else buffered
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
            encoding = "utf-8-sig"
        # Bytes that are no text of this encoding stay as they are, in the file of rejected lines.
        try:
            self._text = io.TextIOWrapper(
                plain, encoding=encoding, errors="surrogateescape", newline=""
            )
        except LookupError:
            raise click.UsageError(f"--encoding: there is no {encoding!r}") from None
        with self._readable():
            first = self._text.readline(_LONGEST)
            while first and not first.strip():
                first = self._text.readline(_LONGEST)
        if file_format is None:
            file_format = _format_of(Path(file), first)
        self.file_format: FileFormat = file_format
        self.columns: list[str] = []
        self.delimiter: str = delimiter or max(_DELIMITERS, key=first.count)
        if file_format == "csv":
            self._rows = csv.reader(self._physical(first), delimiter=self.delimiter)
            try:
                self.columns = [cell.strip() for cell in next(self._rows, [])]
            except csv.Error as problem:
                raise self._no_csv(problem) from None
            if not any(self.columns) and first:
                raise Refusal("the first line has to name the columns", slug="import-file")
            twice = {name for name in self.columns if name and self.columns.count(name) > 1}
            if twice:
                raise Refusal(f"the header names a column twice: {min(twice)}", slug="import-file")
        else:
            self._first = first

    def position(self) -> int:
        """Bytes read so far."""
        return self._raw.tell() if self.size is not None else 0

    def close(self) -> None:
        """End reading; standard input stays open."""
        self._text.close()
        self._raw.close()

    def __iter__(self) -> Iterator[Line]:
        return self._csv_lines() if self.file_format == "csv" else self._json_lines()

    def _physical(self, first: str) -> Iterator[str]:
        yield first
        yield from self._text

    def _csv_lines(self) -> Iterator[Line]:
        rows, columns = self._rows, self.columns
        json_at = columns.index(JSON_COLUMN) if self.is_rejected_json else None
        readable = self._readable()
        while True:
            with readable:
                try:
                    row = next(rows, None)
                except csv.Error as damage:
                    raise self._no_csv(damage) from None
            if row is None:
                return
            if not any(row):
                continue
            number = rows.line_num
            problem: EventError | None = None
            if len(row) != len(columns):
                problem = EventError(
                    "line", f"has {len(row)} cells, and the header has {len(columns)}"
                )
            elif not _is_text("".join(row)):
                problem = _no_text()
            if problem is not None:
                yield Line(number, row, problem=problem)
            elif json_at is not None:
                line = _json_line(number, row[json_at])
                line.raw = [row[json_at]]
                yield line
            else:
                yield Line(number, row, is_text=True)

    @property
    def is_rejected_json(self) -> bool:
        """True for the rejected lines of a file of JSON lines."""
        return self.columns == [*REJECTED_COLUMNS, JSON_COLUMN]

    def _json_lines(self) -> Iterator[Line]:
        number, text = 1, self._first
        readable = self._readable()
        while text:
            if text.strip():
                yield _json_line(number, text.strip())
            with readable:
                text = self._text.readline(_LONGEST)
            number += 1

    def _no_csv(self, problem: csv.Error) -> click.ClickException:
        return Refusal(
            f"from line {self._rows.line_num} on this is no CSV ({problem}): is a quote not "
            "closed? Nothing was kept",
            slug="import-file",
        )

    def _readable(self) -> _Readable:
        return _Readable(self._name)


class _Readable:
    """Turns what reading a damaged file raises into one line for whoever typed the command."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, problem: BaseException | None, _trace: object) -> None:
        if isinstance(problem, EOFError | zlib.error | OSError):
            raise Refusal(
                f"{self._name} cannot be read to its end ({problem}); nothing was kept",
                slug="import-file",
            ) from None
        if isinstance(problem, UnicodeError):
            raise Refusal(
                f"{self._name} is not of this encoding; nothing was kept: pass --encoding",
                slug="import-file",
            ) from None


class _StandardInput(io.RawIOBase):
    """Standard input, which stays open when this is closed."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = sys.stdin.buffer.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _is_text(text: str) -> bool:
    # Most are plain, and a plain one is told fast.
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _no_text() -> EventError:
    return EventError("line", "is not of the file's encoding: pass --encoding, such as cp1252")


def _json_line(number: int, text: str) -> Line:
    if not _is_text(text):
        return Line(number, [text], problem=_no_text())
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, Mapping):
        return Line(number, [text], problem=EventError("line", "takes one JSON object"))
    return Line(number, [text], data)


def _format_of(path: Path, first: str) -> FileFormat:
    endings: Sequence[str] = [ending.lower() for ending in path.suffixes]
    ending = next((one for one in reversed(endings) if one not in (".gz", ".gzip")), "")
    if ending in (".csv", ".tsv", ".txt"):
        return "csv"
    if ending in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    return "jsonl" if first.lstrip()[:1] in ("{", "[") or not first else "csv"
