"""Whose the outbox's files are.

A command that root runs (an import, say) in the app user's folder would leave files there that the
app cannot open. What root makes is given to the owner of the folder that it is in.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Root, where there is one.
_ROOT: Final = 0


def _give(made: int | Path, folder: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != _ROOT:
        return
    owner = folder.stat()
    if owner.st_uid == _ROOT:
        return
    with suppress(PermissionError):  # a file system that knows root as nobody
        if isinstance(made, int):
            os.chown(made, owner.st_uid, owner.st_gid)
        else:
            os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)


def make_folder(folder: Path, mode: int = 0o700) -> None:
    """Make *folder*, for its owner alone, and those above it; nothing where it is there."""
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make_folder(folder.parent, 0o777)
    try:
        folder.mkdir(mode=mode)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    _give(folder, folder.parent)


def make_file(path: Path, flags: int) -> int:
    """Make a file that only its owner may read, and open it.

    :param flags: of ``os.open``, without ``O_CREAT``.
    :raises FileExistsError: it is there already.
    """
    handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    # Only what was made just now: the folder's owner may have put a link to root's file there.
    _give(handle, path.parent)
    return handle


def open_file(path: Path, flags: int) -> int:
    """Open a file, which is made where it is missing."""
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        try:
            return make_file(path, flags)
        except FileExistsError:  # another process was faster
            return os.open(path, flags)
