"""Copies of an outbox and their return, as those who run a shop make them with other tools."""

import shutil
from pathlib import Path

import sqlalchemy as sa

from tests.support import lacking, ran


def _run(*command: str, **given: object) -> None:
    if shutil.which(command[0]) is None:
        lacking(f"{command[0]} is not installed")
    ran(*command, **given)


def copy_folder(folder: Path, to: Path) -> None:
    """``cp -a``, in the place of what is there."""
    shutil.rmtree(to, ignore_errors=True)
    _run("cp", "-a", str(folder), str(to))


def dump(url: str, file: Path) -> None:
    """``pg_dump`` or ``mariadb-dump`` of a database that :func:`.outbox_engines.database` made."""
    where = sa.make_url(url)
    if where.get_backend_name() == "postgresql":
        _run(
            *_pg("pg_dump", where),
            "--clean",
            "--if-exists",
            f"--schema={_schema(where)}",
            f"--file={file}",
        )
    else:
        _run(
            *_mysql("mariadb-dump", where),
            "--single-transaction",
            f"--result-file={file}",
            str(where.database),
        )


def restore(url: str, file: Path) -> None:
    where = sa.make_url(url)
    if where.get_backend_name() == "postgresql":
        _run(*_pg("psql", where), "--quiet", "--set=ON_ERROR_STOP=1", f"--file={file}")
    else:
        with file.open() as script:
            _run(*_mysql("mariadb", where), str(where.database), stdin=script)


def _pg(tool: str, url: sa.URL) -> list[str]:
    plain = url.set(drivername="postgresql", query={})
    return [tool, f"--dbname={plain.render_as_string(hide_password=False)}"]


def _schema(url: sa.URL) -> str:
    return str(url.query["options"]).partition("search_path=")[2]


def _mysql(tool: str, url: sa.URL) -> list[str]:
    told = [tool, f"--host={url.host}", f"--port={url.port or 3306}", f"--user={url.username}"]
    return told + ([f"--password={url.password}"] if url.password else [])
