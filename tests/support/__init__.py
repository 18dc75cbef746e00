"""What several tests need: small sites, shops, engines and servers. No tests in here."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

#: The checkout: programs that tests start run in it, so that they find ``tests.support``.
ROOT = Path(__file__).resolve().parents[2]
#: The pages of the documentation.
PAGES = sorted(
    path for path in (ROOT / "docs").rglob("*.md") if not {"node_modules", "_build"} & {*path.parts}
)

#: What ``adroll_flask`` says is public.
PUBLIC_NAMES = re.findall(
    r" as ([A-Za-z]\w*)$", (ROOT / "adroll_flask/__init__.py").read_text("utf-8"), re.MULTILINE
)

#: Seconds after which a test gives up waiting for what has to come: long enough for a machine at
#: full load, which a wait for a state never spends where the state comes.
PATIENCE = 60.0


def eventually(
    condition: Callable[[], object],
    seconds: float = PATIENCE,
    *,
    wait: Callable[[], object] = lambda: time.sleep(0.005),
    said: Callable[[], str] = lambda: "it did not happen in time",
) -> None:
    """Wait until *condition* is true; fail with what is *said* where it takes *seconds*."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, said()
        wait()


def forked(work: Callable[[], object]) -> int:
    """A forked child that does *work* and ends there, with 0 unless it failed or said False."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 2 if work() is False else 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def in_a_child(work: Callable[[], object]) -> bool:
    """Whether *work* came to its end in a forked child in time, and did not say False."""
    child, until = forked(work), time.monotonic() + 2 * PATIENCE
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return ended[1] == 0


def peak_memory(work: Callable[[], object]) -> int:
    """The most bytes that *work* has at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def least_memory(work: Callable[[], object]) -> int:
    """The least of three times, in one of which no other thread of the process asks for memory."""
    return min(peak_memory(work) for _ in range(3))


def ran(*command: str | Path, **given: Any) -> str:
    """What *command* printed; it has to end well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return str(done.stdout)


def open_files() -> dict[int, str]:
    """Which files this process has open, by the numbers of their handles."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # a thread closed it at this moment
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
    return found


def lacking(what: str) -> NoReturn:
    """Skip the test, since this machine lacks something, and say how to get it; on CI, fail."""
    import pytest  # shops and benchmarks take this package without it

    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


def program(name: str, package: str) -> str:
    """Where a program is; where it is not: which package of Debian's has it."""
    path = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    return path or lacking(f"no {name}: apt-get install {package}")


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def answers(port: int) -> bool:
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def started(
    *command: str | Path, log: Path | None = None, gently: bool = False, **given: Any
) -> Iterator[subprocess.Popen[str]]:
    """Meanwhile *command* runs; what it says is in *log*; in the end it is killed, with its group.

    :param gently: it has ten seconds to end by itself.
    """
    with open(log or os.devnull, "w") as out:
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out}
        options |= {"cwd": ROOT, "text": True, "start_new_session": True}
        process = subprocess.Popen(command, **(options | given))
    try:
        yield process
    finally:
        for number in (signal.SIGTERM,) * gently + (signal.SIGKILL,):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(10)
        with suppress(BrokenPipeError, ValueError):  # the test may have closed its pipes
            process.communicate()


def said(process: subprocess.Popen[str], log: Path, pattern: str, within: float = PATIENCE) -> str:
    """What *pattern* finds in the *log* of a program that starts."""

    def found() -> re.Match[str] | None:
        return re.search(pattern, log.read_text(errors="replace"))

    eventually(lambda: found() or process.poll() is not None, within)
    match = found()
    assert match is not None, f"{process.args!r} did not start: {log.read_text()[-3000:]}"
    return match[1]


@contextmanager
def listening_at(port: int, log: Path, *command: str, **given: Any) -> Iterator[None]:
    """Meanwhile *command* runs and listens at *port*; what it says is in *log*, and in a fault."""
    with started(*command, log=log, gently=True, **given) as run:
        eventually(lambda: answers(port) or run.poll() is not None, said=log.read_text)
        assert run.poll() is None, log.read_text()[-3000:]
        yield


def others_may_enter() -> bool:
    """False where this clone lies in a folder that only its owner may enter, as in root's home."""
    return all(folder.stat().st_mode & 0o001 for folder in (ROOT, *ROOT.parents))
