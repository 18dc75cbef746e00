"""Small disks of a test's own; they need root and Linux, and skip elsewhere."""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import eventually

#: From ext4's ioctls: stop as by a power cut, the journal not flushed either.
_EXT4_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2


def _run(*command: str | Path) -> str:
    """What *command* writes; the test is skipped where it cannot run."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which(str(command[0])) is None:
        pytest.skip("needs root, Linux and mount")
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


@contextlib.contextmanager
def _mounted(path: Path, *arguments: str | Path) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    _run("mount", *arguments, path)
    try:
        yield path
    finally:
        if subprocess.run(["umount", str(path)], capture_output=True, check=False).returncode:
            # A test that failed has files open there.
            subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system in memory that is soon full."""
    with _mounted(path, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield path


def make_read_only(disk: Path) -> None:
    _run("mount", "-o", "remount,ro", disk)


class PowerCut:
    """An ext4 disk whose power can be cut: what was not synced is gone."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self._mount = folder / "disk"
        with self._image.open("wb") as file:
            file.truncate(32 << 20)
        _run("mkfs.ext4", "-q", "-F", self._image)

    @contextlib.contextmanager
    def on(self) -> Iterator[Path]:
        with _mounted(self._mount, "-o", "loop", self._image):
            yield self._mount
        # Else the disk may be mounted anew before the kernel has let it go: still without power.
        eventually(lambda: not _run("losetup", "--associated", self._image))

    def cut(self) -> None:
        disk = os.open(self._mount, os.O_RDONLY)
        try:
            fcntl.ioctl(disk, _EXT4_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(disk)
