"""The lines of an import that cannot be reported, in a file that can be fixed and imported."""

from __future__ import annotations

import csv
import filecmp
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .import_lines import JSON_COLUMN, REJECTED_COLUMNS, Line, Source
from .refusal import Refusal

if TYPE_CHECKING:
    from adroll_flask.errors import EventError

#: Lines that are told on the terminal as well.
_TOLD = 10


class Rejected:
    """Writes rejected lines; the file is there as soon as there is one.

    It holds what the lines hold, so that only its owner may read it.

    :param path: where it is to be. A file there that says something else stays: somebody may be
        fixing it. The new one then has a number in its name.
    :param source: the file that the lines are from.
    """

    def __init__(self, path: Path, source: Source) -> None:
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
        try:
            if self._writer is None:
                self._open()
            # A line that is from such a file already has its three first cells.
            raw = line.raw
            columns = self._source.columns
            if columns[: len(REJECTED_COLUMNS)] == list(REJECTED_COLUMNS) and len(raw) > 1:
                raw = raw[len(REJECTED_COLUMNS) :]
            self._writer.writerow([line.number, column, str(problem.expected), *raw])
        except OSError as failure:
            raise Refusal(
                f"{self._path} cannot be written ({failure.strerror}): pass --rejected",
                slug="import-file",
            ) from None
        if len(self.told) < _TOLD:
            place = f"line {line.number}"
            self.told.append(f"{place}: {column + ': ' if column else ''}{problem.expected}")

    def _open(self) -> None:
        handle = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        source = self._source
        self._file = open(handle, "w", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
        is_csv = source.file_format == "csv"
        delimiter = source.delimiter if is_csv else ","
        self._writer = csv.writer(self._file, delimiter=delimiter, lineterminator="\n")
        columns = [one for one in source.columns if one not in REJECTED_COLUMNS]
        self._writer.writerow([*REJECTED_COLUMNS, *(columns if is_csv else [JSON_COLUMN])])

    def close(self) -> None:
        """Give the file its name."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        target, number = self._path, 1
        while target.exists() and not filecmp.cmp(target, self._part, shallow=False):
            number += 1
            target = self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")
        self._part.replace(target)
        self.kept_as = str(target)
