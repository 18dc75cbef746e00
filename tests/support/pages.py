"""The documentation's own code, run as it stands: a page's blocks in their order.

Python blocks are run in one namespace, and a traceback names the page and its line.
Console blocks are typed into one bash, and what it prints is compared with what the page shows.

    with Page("docs/how-to/holds.md", shell) as page:
        names = page.run(app=app, order=order)
    assert ...

The end of ``with`` fails where a block of the page was not run; ``tests/docs/test_every_block.py``
fails where a page has no such test.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.conftest import ADVERTISABLE, PIXEL
from tests.support import PATIENCE, ROOT, eventually

#: A heading, or a fenced block, in which nothing is a heading.
_PART = re.compile(
    r"^#+ +(?P<heading>[^\n]+?) *$"
    r"|^(?P<indent> *)(?P<ticks>`{3,})(?P<language>\{[\w-]+\}|[\w-]*)[^\n]*\n"
    r"(?P<code>.*?)^ *(?P=ticks)`*$",
    re.MULTILINE | re.DOTALL,
)
#: A block that is a file of the reader's, or the end of one that is there.
_FILE = re.compile(r"# ([\w/]+\.py)(, at its end)?\n")
#: A command, the lines that it goes on in, and what the page shows below it.
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)
#: What runs until it is told to end.
_ENDLESS = re.compile(
    r"adroll(_flask)?( --app \S+)? (sandbox|dashboard|worker(?! --once))"
    r"|flask (--\S+ \S+ )*run\b|runserver|make demo"
    r"|python (-m (demo_app|adroll_flask\.sandbox)|shop\.py)"
    r"|gunicorn|uvicorn|hypercorn|uwsgi|celery"
)
#: What a page's reader does once to the machine, or what needs another one.
UNTYPED = {
    "-m benchmarks": "runs for minutes; its short form is in tests/house",
    "pre-commit": "changes the checkout's hooks",
    "pip install": "the tests' own environment has it; tests/smoke.py installs the wheel",
    "apt-get": "changes the machine that runs the tests",
    "git clone": "the checkout is there",
    "docker": "no Docker in the tests; tests/servers/test_compose.py runs the same processes",
}


#: The module that `flask` finds beside a page, and its settings.
SHOP = """
from flask import Flask
from adroll_flask import AdRoll

app = Flask(__name__)
app.config.from_prefixed_env()
AdRoll(app)
"""
ENV = {
    "FLASK_SECRET_KEY": "a long random text",
    "FLASK_ADROLL_ADVERTISABLE_EID": ADVERTISABLE,
    "FLASK_ADROLL_PIXEL_EID": PIXEL,
    "FLASK_ADROLL_ACCESS_TOKEN": "a-token",
    "FLASK_ADROLL_DELIVERY": "worker",
}


def started(
    folder: Path, *arguments: str, program: str = SHOP, **env: str
) -> subprocess.Popen[str]:
    """``flask adroll …`` of a shop in *folder*, in a process of its own."""
    (folder / "app.py").write_text(program)
    return subprocess.Popen(
        # A suite in a shell's background ignores Ctrl-C, and its children with it.
        ["env", "--default-signal=INT", sys.executable, "-m", "flask", "adroll", *arguments],
        cwd=folder,
        env=os.environ | ENV | {"PYTHONPATH": str(ROOT)} | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@dataclass
class Block:
    """One fenced block of a page."""

    page: str
    section: str
    language: str
    code: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, section: str | None = None) -> list[Block]:
    """The fenced blocks of *page*, a path from the checkout's root, or of its *section* alone."""
    text = (ROOT / page).read_text()
    found, heading = [], ""
    for part in _PART.finditer(text):
        heading = part["heading"] or heading
        if not part["heading"]:
            code = re.sub(f"^{part['indent']}", "", part["code"], flags=re.MULTILINE)
            line = text.count("\n", 0, part.start()) + 1
            found.append(Block(page, heading, part["language"], code, line))
    return [block for block in found if section in (None, block.section)]


class Page:
    """A page whose blocks are run; as a context manager it demands that all of them are."""

    def __init__(self, name: str, shell: Shell | None = None) -> None:
        self.name = name
        self._shell = shell
        self._left = [block for block in blocks(name) if block.language in ("python", "console")]

    def run(self, section: str | None = None, /, **names: Any) -> dict[str, Any]:
        """Run the blocks of *section*, or all that are left; return what they named.

        Each call has a namespace of its own, with *names* in it.
        """
        wanted = [block for block in self._left if section in (None, block.section)]
        assert wanted, f"{self.name} has no block in {section!r} that was not run"
        for block in wanted:
            self._left.remove(block)
            if block.language == "console":
                assert self._shell is not None, f"{block} needs a shell"
                self._shell.run(block)
            else:
                self._python(block, names)
        return names

    def _python(self, block: Block, namespace: dict[str, Any]) -> None:
        file = _FILE.match(block.code)
        if file and self._shell is not None:
            self._shell.write(file[1], block.code, append=bool(file[2]))
            return
        # Where the page has it, so that a traceback names the page and its line.
        code = "\n" * block.line + block.code
        exec(compile(code, str(ROOT / self.name), "exec", dont_inherit=True), namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_about: object) -> None:
        if kind is None:
            assert not self._left, f"not run: {', '.join(map(str, self._left))}"


def _end(group: int) -> None:
    """End a job and all that it started; nothing of it is left, nor are its ports taken."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        with suppress(AssertionError):
            eventually(lambda: os.killpg(group, 0))  # raises when nobody is left
        os.killpg(group, signal.SIGKILL)


@dataclass
class Shell:
    """One bash, in *folder*, with *env* beside what a shell needs; commands of pages go into it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    #: What this run has in place of what the page shows: ids, addresses.
    replace: dict[str, str] = field(default_factory=dict)
    #: What was typed, and what was left out and why.
    typed: list[str] = field(default_factory=list)
    untyped: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        # Pages name the ports 5000 and 5001, so one shell at a time.
        self._lock = Path("/tmp/adroll-pages.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        #: The process groups of what runs until it is told to end.
        self._jobs: list[int] = []
        self._printed = tempfile.TemporaryDirectory()
        self._person, self._slave = os.openpty()
        bin_folder = str(Path(sys.executable).parent)
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env={
                "PATH": f"{bin_folder}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "LANG": "C.UTF-8",
                "PYTHONPATH": str(ROOT),
                "COLUMNS": "200",
                "PYTHONUNBUFFERED": "1",  # as in a terminal
                **self.env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.type("set -m")  # each job a group of its own, which Ctrl-C reaches
        return self

    def __exit__(self, *_about: object) -> None:
        try:
            # Not by bash, which may be in the middle of a command that does not end.
            for group in self._jobs:
                _end(group)
        finally:
            self._bash.kill()
            self._bash.communicate()
            self._printed.cleanup()
            os.close(self._person)
            os.close(self._slave)
            self._lock.close()

    def run(self, block: Block) -> None:
        """Type a console block's commands, and compare what each prints."""
        assert block.code.startswith("$ "), f"{block} has to begin with a command"
        for command, shown in _COMMAND.findall(self._here(block.code)):
            if command.startswith("make ") and not command.startswith("make demo"):
                # Minutes, and CI's own legs: that there is such a target is enough.
                command = (
                    f"make --dry-run --directory {ROOT} {command.removeprefix('make ')} >target"
                )
                shown = ""
            reason = next((UNTYPED[part] for part in UNTYPED if part in command), None)
            if reason is not None:
                self.untyped[command] = reason
                continue
            self.typed.append(command)
            if _ENDLESS.search(command):
                self._start(block, command, shown)
                continue
            printed, status = self.type(command)
            told = f"{block}: $ {command}\nprinted (exit status {status}):\n{printed}"
            if shown:
                assert matches(shown, printed), f"{told}\nthe page shows:\n{shown}"
            else:
                assert status == 0, told

    def write(self, name: str, code: str, *, append: bool = False) -> None:
        """Write a file of the reader's."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if append else "w") as file:
            file.write(self._here(code))

    def _here(self, text: str) -> str:
        for said, here in self.replace.items():
            text = text.replace(said, here)
        return text

    def type(self, command: str) -> tuple[str, int]:
        """Run *command* to its end; what it printed, and its exit status."""
        output = self._output()
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        impatient = threading.Timer(PATIENCE, self._bash.kill)
        impatient.start()
        # A program that reads its input finds none: ours is what is typed next.
        self._bash.stdin.write(f"{{\n{command}\n}} </dev/null >{output} 2>&1\necho $?\n")
        self._bash.stdin.flush()
        status = self._bash.stdout.readline()
        impatient.cancel()
        printed = output.read_text()
        assert status, f"{command!r} did not end: {printed}"
        return printed.rstrip("\n"), int(status)

    def _output(self) -> Path:
        """A file for what the next command prints."""
        folder = Path(self._printed.name)
        return folder / str(len(list(folder.iterdir())))

    def _start(self, block: Block, command: str, shown: str) -> None:
        """Start *command*, wait for what the page shows, and end it where the page has ``^C``."""
        # An error is something printed, too.
        assert shown, f"{block}: $ {command}\nruns on: the page has to show what it prints"
        output = self._output()
        output.touch()
        # Some say where they are to a person at a terminal only.
        terminal = os.ttyname(self._slave)
        group, _ = self.type(f"(\n{command}\n) <{terminal} >{output} 2>&1 &\necho $!")
        self._jobs.append(int(group))
        before, interrupt, after = shown.partition("^C")
        shows = before.rstrip("\n")
        self._wait_for(f"{block}: $ {command}", output, shows)
        if interrupt:
            self.type(f"kill -INT -- -{group}; wait {group}")
            self._wait_for(f"{block}: $ {command}", output, f"{shows}…\n{after.strip()}")

    def _wait_for(self, job: str, output: Path, shown: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            printed = output.read_text()
            if printed and matches(f"{shown}\n…", printed):
                return
            running = self.type(f"kill -0 -- -{self._jobs[-1]} 2>/dev/null")[1] == 0
            if time.monotonic() > deadline or (not running and printed == output.read_text()):
                raise AssertionError(f"{job}\nprinted:\n{printed}\nthe page shows:\n{shown}")
            time.sleep(0.05)


def matches(shown: str, printed: str) -> bool:
    """Whether *printed* is what the page shows; ``…`` stands for anything.

    A line of nothing but ``…`` stands for any number of lines. Spaces at the ends of lines do not
    count, nor do runs of them within, which columns have.

    >>> matches("a …\\n…\\nz", "a  b\\nc\\nd\\nz")
    True
    """
    pattern = ""
    for line in shown.strip("\n").splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*"
        else:
            parts = [r"\s+".join(map(re.escape, re.split(" +", part))) for part in line.split("…")]
            pattern += r".*".join(parts) + r"[ ]*\n"
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None
