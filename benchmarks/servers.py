"""Database servers of one's own, in a folder that goes: they may be killed and started again."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

ENGINES = ("postgresql", "mariadb")


def missing(engine: str) -> str | None:
    """Why no server of *engine* can be started here, or ``None``."""
    if engine == "postgresql":
        found = _postgresql_folder() is not None
    else:
        found = all(_program(name) for name in ("mariadbd", "mariadb-install-db"))
    return None if found else f"{engine}'s programs are not installed"


def _postgresql_folder() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    return folders[-1] if folders else None


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One database server with one empty database.

    :param folder: for its data.
    """

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine = engine
        self.port = free_port()
        # Both refuse to run as root, each for its own reasons.
        self._user = None
        if os.geteuid() == 0:
            self._user = "postgres" if engine == "postgresql" else "mysql"
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._init()
        self.start()
        if engine == "mariadb":
            with sa.create_engine(self._url("mysql")).begin() as connection:
                connection.execute(sa.text("CREATE DATABASE shop"))

    def _init(self) -> None:
        if self.engine == "postgresql":
            self._do([self._pg("initdb"), "-D", str(self._data), "-A", "trust", "-U", "shop"])
        else:
            program = _program("mariadb-install-db") or ""
            user = [f"--user={self._user}"] if self._user else []
            self._do(
                [
                    program,
                    "--no-defaults",
                    f"--datadir={self._data}",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    *user,
                ],
                as_root=True,
            )

    def _pg(self, name: str) -> str:
        folder = _postgresql_folder()
        assert folder
        return str(folder / name)

    def _do(self, command: Sequence[str], *, as_root: bool = False) -> None:
        user = None if as_root else self._user
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, user=user,
            cwd=self._folder,
        )  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.engine == "postgresql":
            command = [
                self._pg("postgres"), "-D", str(self._data), "-p", str(self.port),
                "-k", str(self._folder), "-h", "127.0.0.1",
            ]  # fmt: skip
        else:
            command = [
                _program("mariadbd") or "", "--no-defaults", f"--datadir={self._data}",
                f"--port={self.port}", f"--socket={self._folder}/s", "--bind-address=127.0.0.1",
                f"--pid-file={self._folder}/pid", "--skip-name-resolve",
            ]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._user, cwd=self._folder,
            )  # fmt: skip
        until = time.monotonic() + 60
        engine = sa.create_engine(
            self._url("postgres" if self.engine == "postgresql" else "mysql"),
            poolclass=sa.pool.NullPool,
        )
        while True:
            try:
                engine.connect().close()
                return
            except sa.exc.SQLAlchemyError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise
                time.sleep(0.1)

    def kill(self) -> None:
        """End it as a power cut would, as far as its own memory goes."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        if self.engine == "postgresql":
            process.send_signal(signal.SIGQUIT)  # "immediate": no checkpoint, recovery at start
        else:
            process.kill()
        process.wait(30)

    @property
    def url(self) -> str:
        """For ``ADROLL_OUTBOX_URL``."""
        return self._url("postgres" if self.engine == "postgresql" else "shop")

    def _url(self, database: str) -> str:
        if self.engine == "postgresql":
            return f"postgresql+psycopg://shop@127.0.0.1:{self.port}/{database}"
        return f"mysql+pymysql://root@127.0.0.1:{self.port}/{database}"

    @property
    def pids(self) -> list[int]:
        """Its processes, for their CPU time."""
        assert self._process
        main = self._process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return [main, *map(int, children)]


@contextlib.contextmanager
def server(engine: str) -> Iterator[Server]:
    """A running server of *engine* that is killed and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="adroll-") as folder:
        Path(folder).chmod(0o755)
        one = Server(engine, Path(folder))
        try:
            yield one
        finally:
            one.kill()
