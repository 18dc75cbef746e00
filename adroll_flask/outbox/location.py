"""Where the outbox is, from ``ADROLL_OUTBOX_URL``; light for SQLite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from adroll_flask.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL

_KEY: Final = "ADROLL_OUTBOX_URL"
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
