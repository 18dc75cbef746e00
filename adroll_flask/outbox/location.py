"""Where the outbox is, from ``ADROLL_OUTBOX_URL``; light for SQLite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from adroll_flask.errors import ConfigurationError, help_url
from adroll_flask.logs import Logger, get_logger
from adroll_flask.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL

logger: Logger = get_logger("adroll_flask.outbox")

_KEY: Final = "ADROLL_OUTBOX_URL"
_NOT_OURS: Final = "may not be written by this user"
#: The journal's folder within the instance folder.
JOURNAL_NAME: Final = "adroll-journal"
FILE_NAME: Final = "adroll-outbox.sqlite"


def locate(url: str | None, folder: Path) -> Path | URL:
    """The SQLite file's path, or the URL of a server's database.

    :param url: an SQLAlchemy URL; ``None``: a file in *folder*.
    :param folder: to which a relative SQLite path is relative, as Flask-SQLAlchemy has it.
    :raises ConfigurationError: there is no outbox over such a database.
    """
    if url is None:
        return folder / FILE_NAME
    scheme = url.partition(":")[0]
    if scheme in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(url, folder)
    return _server(url)


def unwritable(path: Path) -> str:
    """Why this user cannot keep events at *path*, a file or a folder; empty where it can.

    What a command that ran as root has left there is the usual reason.
    """
    there = next(place for place in (path, *path.parents) if os.path.exists(place))
    if there != path:
        if not there.is_dir():
            return f"{path} cannot be made: {there} is not a folder"
        return "" if _may_write(there) else f"{path} cannot be made: {there} {_NOT_OURS}"
    if path.is_dir():
        beside = list(path.iterdir()) if _may_write(path) else []
    else:
        # SQLite makes files beside its own (https://sqlite.org/tempfiles.html).
        beside = [path.parent, *path.parent.glob(f"{path.name}-*")]
    wrong = next((place for place in (path, *beside) if not _may_write(place)), None)
    return f"{wrong} {_NOT_OURS}" if wrong else ""


def unwritable_places(settings: Settings, folder: Path) -> Iterator[tuple[str, str]]:
    """The settings of places where this user cannot keep events, and why.

    :param folder: the instance folder.
    """
    places = {"ADROLL_JOURNAL_FOLDER": folder / (settings.journal_folder or JOURNAL_NAME)}
    if (settings.outbox_url or "sqlite:").startswith("sqlite"):
        with suppress(ConfigurationError):  # raised where it is used
            place = locate(settings.outbox_url, folder)
            if isinstance(place, Path):
                places[_KEY] = place
    for key, path in places.items():
        problem = unwritable(path)
        if problem:
            yield key, problem


def tell_of_unwritable_places(settings: Settings, folder: Path) -> None:
    """Log at the start what each report would fail at."""
    for key, problem in unwritable_places(settings, folder):
        logger.error(
            "AdRoll cannot keep events: %s: %s (%s)", key, problem, help_url("folder-not-writable")
        )


def _may_write(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0))


def _sqlite(url: str, folder: Path) -> Path:
    name = url.partition("://")[2]
    if "?" in name:
        raise ConfigurationError(_KEY, "takes no options after a SQLite file's name")
    if not name.startswith("/") or name in ("/", "/:memory:") or name.startswith("/file:"):
        raise ConfigurationError(
            _KEY,
            "needs a file, such as 'sqlite:////var/lib/shop/adroll.sqlite': an outbox outlives its"
            " process",
        )
    return folder / name[1:]


def _server(url: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        made = make_url(url)
        backend = made.get_backend_name()
    except ArgumentError:
        raise ConfigurationError(_KEY, "takes an SQLAlchemy database URL") from None
    if backend not in ("postgresql", "mysql", "mariadb"):
        raise ConfigurationError(_KEY, "takes a database of SQLite, PostgreSQL, MariaDB or MySQL")
    driver = urlsplit(url).scheme.partition("+")[2]
    if not driver:
        # SQLAlchemy's own choice may be one that the extras of this package do not install.
        driver = "psycopg" if backend == "postgresql" else "pymysql"
        made = made.set(drivername=f"{backend}+{driver}")
    _require_driver(made)
    return made


def _require_driver(url: URL) -> None:
    """Say what to install now: later the missing module would look like a fault of ours."""
    try:
        url.get_dialect().import_dbapi()
    except ImportError as problem:
        extra = {"psycopg": "postgresql", "pymysql": "mysql"}.get(url.get_driver_name())
        if extra is None:
            install = f"install {problem.name or url.get_driver_name()}"
        else:
            install = f"pip install 'adroll-flask[{extra}]'"
        raise ConfigurationError(
            _KEY, f"names a database whose driver is not installed: {install}"
        ) from None
