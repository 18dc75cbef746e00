"""Where the outbox is, from ``ADROLL_OUTBOX_URL``; light for SQLite."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from adroll_flask.errors import ConfigurationError
from adroll_flask.logs import Logger, get_logger
from adroll_flask.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL

logger: Logger = get_logger("adroll_flask.outbox")

_KEY: Final = "ADROLL_OUTBOX_URL"
#: The name of the SQLite file where the setting names none.
FILE: Final = "adroll-outbox.sqlite"
#: The error of an address at which no outbox can be.
wrong_url: Final[Callable[[str], ConfigurationError]] = partial(ConfigurationError, _KEY)
_NOT_OURS: Final = "may not be written by this user"
_READ_ONLY: Final = "is on a file system that is mounted read-only"
_A_GROUP_S: Final = "is root's: its group, which may write there, cannot use what root makes in it"
#: Where Linux tells what is mounted (proc_pid_mountinfo(5)).
MOUNTS: Final = "/proc/self/mountinfo"
#: Types of file systems whose files are on another machine: SQLite's WAL does not work over a
#: network (https://sqlite.org/wal.html), and a lock of one machine may mean nothing on another.
_NETWORK: Final = (
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs"
    r"|fuse\.(sshfs|s3fs|gcsfuse|rclone|ceph|glusterfs|blobfuse2?|juicefs|davfs)"
)
#: By the kind of a server, the driver that is used.
_DRIVERS: Final = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}


def locate(url: str | None, folder: Path) -> Path | URL:
    """The SQLite file's path, or the URL of a server's database.

    :param url: an SQLAlchemy URL; ``None``: a file in *folder*.
    :param folder: to which a relative SQLite path is relative, as Flask-SQLAlchemy has it.
    :raises ConfigurationError: there is no outbox over such a database.
    """
    if url is None:
        return folder / FILE
    # With any driver: the URL may be the site's own.
    if url.partition(":")[0].partition("+")[0] == "sqlite":
        return _sqlite(url, folder)
    return _server(url)


def journal_folder(settings: Settings, folder: Path) -> Path:
    """Where the journal is.

    :param folder: the instance folder.
    """
    return folder / (settings.journal_folder or "adroll-journal")


def wrong_places(settings: Settings, folder: Path) -> Iterator[tuple[str, str, Path, str]]:
    """Places where events cannot be kept, or perhaps not for long.

    Each is the variant of the finding (``""``, ``"read-only"``, ``"group"``), the setting of the
    place, the path that is there, and what is wrong with it.

    :param folder: the instance folder.
    """
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    for key, path in places(settings, folder):
        # A link to what is missing is there, too: nothing can be made in its place.
        there = next(place for place in (path, *path.parents) if os.path.lexists(place))
        nearest = there if there.is_dir() else there.parent
        about = nearest.stat()
        # What root makes is given to the folder's owner, and that is root.
        is_a_group_s = about.st_gid != 0 and about.st_mode & stat.S_IWGRP
        is_shared = about.st_uid == 0 and is_a_group_s
        if problem := _unwritable(path, there):
            yield "read-only" if is_read_only(there) else "", key, there, problem
        elif is_root and is_shared:
            yield "group", key, nearest, f"{nearest} {_A_GROUP_S}"


def _unwritable(path: Path, there: Path) -> str:
    """Why this user cannot keep events at *path*, a file or a folder; empty where it can.

    What a command that ran as root has left there is the usual reason.
    """
    if not os.path.exists(there):
        return f"{there} is a link to {os.readlink(there)}, which has to be there first"
    if there != path:
        if not there.is_dir():
            return f"{path} cannot be made: {there} is not a folder"
        return "" if _may_write(there) else f"{path} cannot be made: {_refusal(there)}"
    if path.is_dir():
        beside = list(path.iterdir()) if _may_write(path) else []
    else:
        # SQLite makes files beside its own (https://sqlite.org/tempfiles.html).
        beside = [path.parent, *path.parent.glob(f"{path.name}-*")]
    wrong = next((place for place in (path, *beside) if not _may_write(place)), None)
    return _refusal(wrong) if wrong else ""


def _refusal(place: Path) -> str:
    return f"{place} {_READ_ONLY if is_read_only(place) else _NOT_OURS}"


def is_read_only(place: Path) -> bool:
    """Whether nobody may write there, whoever *place* belongs to."""
    if not hasattr(os, "statvfs"):  # Windows
        return False
    with suppress(OSError):  # a link to what is missing
        return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    return False


def places(settings: Settings, folder: Path) -> Iterator[tuple[str, Path]]:
    """Each setting of a place on this host where events are kept, and the place.

    :param folder: the instance folder.
    """
    yield "ADROLL_JOURNAL_FOLDER", journal_folder(settings, folder)
    if (settings.outbox_url or "sqlite:").startswith("sqlite"):
        with suppress(ConfigurationError):  # raised where it is used
            place = locate(settings.outbox_url, folder)
            if isinstance(place, Path):
                yield _KEY, place


def mount_of(path: Path) -> tuple[Path, str]:
    """Where the file system of *path* is mounted, and its type; empty ones where nobody tells."""
    mount = Path(), ""
    with suppress(OSError):
        for line in Path(MOUNTS).read_text("utf-8", "surrogateescape").splitlines():
            about, _, kind = line.partition(" - ")
            escaped = about.split(" ")[4]
            place = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
            # The last one that is mounted at a place hides those before.
            if path.is_relative_to(place) and len(place.parts) >= len(mount[0].parts):
                mount = place, kind.partition(" ")[0]
    return mount


def is_network(kind: str) -> bool:
    """Whether the files of a file system of this type are on another machine."""
    return re.fullmatch(_NETWORK, kind) is not None


def tell_of_unwritable_places(settings: Settings, folder: Path) -> None:
    """Log at the start where events cannot be kept, or may not be for long."""
    for variant, key, _, problem in wrong_places(settings, folder):
        log = logger.warning if variant == "group" else logger.error
        log("AdRoll cannot keep all events: %s: %s [folder-not-writable]", key, problem)


def _may_write(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0))


def _sqlite(url: str, folder: Path) -> Path:
    name = url.partition("://")[2]
    if "?" in name:
        raise wrong_url("takes no options after a SQLite file's name")
    if not name.startswith("/") or name in ("/", "/:memory:") or name.startswith("/file:"):
        raise wrong_url(
            "needs a file, such as 'sqlite:////var/lib/shop/adroll.sqlite': an outbox outlives its"
            " process"
        )
    # As SQLAlchemy reads it (from 2.1 on), which writes a name with an "é" in this form.
    return folder / unquote(name[1:])


def _server(url: str) -> URL:
    backend = url.partition(":")[0].partition("+")[0]
    if backend not in _DRIVERS:
        raise wrong_url("takes a database of SQLite, PostgreSQL, MariaDB or MySQL")
    # Our driver, even where the URL names the site's. Nobody knows how long other drivers wait for
    # a database that has gone, and pg8000 has no types for some of our statements.
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        place = make_url(url)
        place.get_dialect()  # a driver that nobody knows is a slip
        place = place.set(drivername=f"{backend}+{_DRIVERS[backend]}")
        place.get_dialect().import_dbapi()  # later its lack would look like a fault of ours
    except ImportError:
        install = f"pip install 'adroll-flask[{backend.replace('mariadb', 'mysql')}]'"
        raise wrong_url(f"names a database whose driver is not installed: {install}") from None
    except (ArgumentError, ValueError):  # a port that is no number
        raise wrong_url("takes an SQLAlchemy database URL") from None
    return place
