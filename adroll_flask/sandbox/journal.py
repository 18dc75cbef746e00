"""The sandbox's memory in a file: one JSON line for each thing that came in."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

#: What the file begins with: one that begins otherwise is somebody else's.
_HEAD = '["adroll sandbox"]\n'


class SandboxJournal:
    """An append-only file of the newest entries, readable by its owner alone.

    :param path: the file; made when missing.
    :param keep: how many entries survive; the file holds at most twice as many lines.
    :raises FileExistsError: the file is not one that a sandbox made.
    """

    def __init__(self, path: str | Path, *, keep: int) -> None:
        self._keep = keep
        self._lines = 0
        # Raw events hold visitors' data.
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8")
        head = bytes(self._file.buffer.read(len(_HEAD))).decode(errors="replace")
        if not _HEAD.startswith(head):  # a kill may have cut it off
            self._file.close()
            raise FileExistsError(f"{path} is not a file of the sandbox")

    def read(self) -> list[list[Any]]:
        """Return the newest entries, oldest first; a line cut short by a kill is skipped."""
        entries: deque[list[Any]] = deque(maxlen=self._keep)
        self._file.seek(0)
        for line in self._file:
            self._lines += 1
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, list) and entry and line != _HEAD:
                entries.append(entry)
        self._rewrite(entries)
        return list(entries)

    def write(self, entry: list[Any]) -> None:
        self._file.write(_line(entry))
        self._file.flush()
        self._lines += 1
        if self._lines > 2 * self._keep:
            self.read()

    def clear(self) -> None:
        self._rewrite(())

    def close(self) -> None:
        self._file.close()

    def _rewrite(self, entries: Collection[list[Any]]) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.writelines([_HEAD, *map(_line, entries)])
        self._file.flush()
        self._lines = len(entries)


def _line(entry: list[Any]) -> str:
    return json.dumps(entry, separators=(",", ":")) + "\n"
