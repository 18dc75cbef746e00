"""A file to import: CSV or JSON lines, plain or gzip, a line at a time; and its rejected lines."""

from __future__ import annotations

import csv
import filecmp
import gzip
import io
import json
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import click

from adroll_flask.errors import EventError

from .app_runtime import Refusal

#: The columns that a file of rejected lines has beside those of the file that they are from; they
#: are passed over when it is imported.
REJECTED_COLUMNS: Final = ["rejected_line", "rejected_column", "rejected_reason"]
#: The column in which such a file keeps a line of JSON.
_JSON_COLUMN: Final = "json"
#: Rejected lines that a terminal shows.
_TOLD: Final = 10
#: Characters of a line of JSON: an event has at most 32 KiB.
_LONGEST: Final = 1 << 20


@dataclass(slots=True)
class Line:
    """One line that may be an event.

    :param number: the file's line at which it ends, from 1.
    :param raw: the cells of a CSV line, or the text of a line of JSON in a list.
    :param values: by column, or by the object's keys; empty where there is a *problem*.
    """

    number: int
    raw: list[str] = field(repr=False)
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    problem: EventError | None = None


class ImportFile:
    """A file that is being read; iterating it gives its lines.

    It is JSON where its first line begins as such; else CSV, with the delimiter that the header has
    most of.

    :param name: a path, or ``-`` for standard input. The command's context closes it.
    :raises click.ClickException: it cannot be read, or has no header.
    """

    def __init__(self, name: str, encoding: str = "utf-8") -> None:
        self._name = name
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
            encoding = "utf-8-sig"
        #: A CSV file's; one for all of it where lines are JSON.
        self.columns: list[str] = [_JSON_COLUMN]
        self.delimiter: str = ","
        self._rows: Any = None
        with self._readable():
            raw: Any = sys.stdin.buffer if name == "-" else io.FileIO(name)
            self._bytes = io.BufferedReader(raw)
            click.get_current_context().call_on_close(self._bytes.close)
            #: Bytes of the file; ``None`` where it is a stream.
            self.size: int | None = None if name == "-" else os.stat(name).st_size
            zipped = self._bytes.peek(2)[:2] == b"\x1f\x8b"
            plain: Any = gzip.GzipFile(fileobj=self._bytes) if zipped else self._bytes
            try:
                # What is no text of this encoding stays as it is, in the file of rejected lines.
                self._text = io.TextIOWrapper(plain, encoding, errors="surrogateescape", newline="")
            except LookupError:
                raise click.UsageError(f"--encoding: there is no {encoding!r}") from None
            texts = iter(lambda: self._text.readline(_LONGEST), "")
            first = next((one for one in texts if one.strip()), "")
            texts = chain([first], texts)
            self._lines: Iterator[Line]
            if first.lstrip()[:1] in ("{", "["):
                self._lines = _json_lines(texts)
            else:
                # Of the header's names some have commas.
                self.delimiter = max(",;\t|", key=re.sub(r'"[^"]*"', "", first).count)
                # Strict, or a quote that is not closed takes all the lines behind it for one cell.
                self._rows = csv.reader(texts, delimiter=self.delimiter, strict=True)
                self.columns = [cell.strip() for cell in next(self._rows, [])]
                self._lines = self._csv_lines()
        twice = [name for name in self.columns if name and self.columns.count(name) > 1]
        if first and not any(self.columns):
            raise Refusal("the first line has to name the columns", slug="import-file")
        if twice:
            raise Refusal(f"the header names a column twice: {twice[0]}", slug="import-file")
        #: True where lines are JSON, those of a file of rejected ones too.
        self.has_json: bool = self.columns in ([_JSON_COLUMN], [*REJECTED_COLUMNS, _JSON_COLUMN])

    def __iter__(self) -> Iterator[Line]:
        with self._readable():
            yield from self._lines

    def position(self) -> int:
        """Bytes read so far."""
        return self._bytes.tell() if self.size is not None else 0

    def _csv_lines(self) -> Iterator[Line]:
        for row in self._rows:
            number = self._rows.line_num
            if not any(row):
                continue
            if len(row) != len(self.columns):
                cells = f"has {len(row)} cells, and the header has {len(self.columns)}"
                yield Line(number, row, problem=EventError("line", cells))
            elif self.has_json:
                yield _json_line(number, row[-1])
            elif not _is_text("".join(row)):
                yield Line(number, row, problem=_no_text())
            else:
                yield Line(number, row, dict(zip(self.columns, row, strict=True)))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turns what reading raises into one line for whoever typed the command."""
        try:
            yield
        except (EOFError, zlib.error, OSError) as problem:
            why = getattr(problem, "strerror", None) or problem
            said = f"{self._name} cannot be read to its end ({why}); nothing was kept"
            raise Refusal(said, slug="import-file") from None
        except UnicodeError:
            said = f"{self._name} is not of this encoding; nothing was kept: pass --encoding"
            raise Refusal(said, slug="import-file") from None
        except csv.Error as problem:
            said = f"line {self._rows.line_num} is no CSV ({problem}): is a quote in it, or before"
            raise Refusal(f"{said} it, not closed? Nothing was kept", slug="import-file") from None


def _is_text(text: str) -> bool:
    # Most are plain, and a plain one is told fast.
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _no_text() -> EventError:
    return EventError("line", "is not of the file's encoding: pass --encoding, such as cp1252")


def _json_lines(texts: Iterable[str]) -> Iterator[Line]:
    for number, text in enumerate(texts, 1):
        if text.strip():
            yield _json_line(number, text.strip())


def _json_line(number: int, text: str) -> Line:
    if not _is_text(text):
        return Line(number, [text], problem=_no_text())
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        return Line(number, [text], problem=EventError("line", "takes one JSON object"))
    return Line(number, [text], values)


class Rejects:
    """Writes rejected lines into a file that can be fixed and imported.

    The file is there as soon as there is a line. It holds what the lines hold, so that only its
    owner may read it.

    :param path: where it is to be. A file there that says something else stays: somebody may be
        fixing it. The new one then has a number in its name.
    :param source: the file that the lines are from.
    """

    def __init__(self, path: Path, source: ImportFile) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._source = source
        self._file: IO[str] | None = None
        self._writer: Any = None
        #: Where it is, once it is closed.
        self.kept_as: str | None = None
        #: The first ones, as a terminal shows them.
        self.told: list[str] = []

    def add(self, line: Line, column: str, problem: EventError) -> None:
        """Write *line*.

        :param column: the one at fault, as the file calls it; empty: the line is.
        :raises click.ClickException: the file cannot be written.
        """
        # A line that is from such a file already has its three first cells.
        columns, raw = self._source.columns, line.raw
        again = columns[: len(REJECTED_COLUMNS)] == REJECTED_COLUMNS
        begin = len(REJECTED_COLUMNS) if again else 0
        if again and len(raw) > 1:
            raw = raw[begin:]
        try:
            if self._file is None:
                handle = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                form = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
                self._file = open(handle, "w", **form)  # type: ignore[call-overload]  # noqa: SIM115
                delimiter = self._source.delimiter
                self._writer = csv.writer(self._file, delimiter=delimiter, lineterminator="\n")
                self._writer.writerow([*REJECTED_COLUMNS, *columns[begin:]])
            self._writer.writerow([line.number, column, problem.expected, *raw])
        except OSError as failure:
            said = f"{self._path} cannot be written ({failure.strerror}): pass --rejected"
            raise Refusal(said, slug="import-file") from None
        if len(self.told) < _TOLD:
            self.told.append(
                f"line {line.number}: {column + ': ' if column else ''}{problem.expected}"
            )

    def close(self) -> None:
        """Give the file its name."""
        if self._file is None:
            return
        self._file.close()
        target, number = self._path, 1
        while target.exists() and not filecmp.cmp(target, self._part, shallow=False):
            number += 1
            target = self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")
        self._part.replace(target)
        self.kept_as = str(target)
