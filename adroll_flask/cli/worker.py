"""``flask adroll worker``: deliver until stopped, and say what was done."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
from flask.cli import with_appcontext

from adroll_flask.errors import help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import OutboxFailed
from adroll_flask.plurals import counted
from adroll_flask.redaction import safe_url

from .app_runtime import current_runtime
from .outbox_text import why_waiting
from .refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from adroll_flask.runtime import Runtime

logger: Logger = get_logger("adroll_flask")
worker_logger: Logger = get_logger("adroll_flask.worker")

#: Seconds without a step after which a worker's loop counts as hanging: a batch that is halved
#: down to its events may take several requests of up to 35 seconds each.
HANGS_AFTER = 300.0
#: Seconds between two touches of the health file.
HEALTH_EVERY = 5.0
#: Seconds between two lines that say what was done.
SAY_EVERY = 60.0
MINUTE = "worker-minute"

#: What a line tells, by the name of the counter.
_TOLD = {
    "event_delivered": "delivered",
    "event_dead": "dead",
    "event_retried": "to be sent again",
    "event_unsure": "unsure",
}


@click.command("worker")
@click.option("--once", is_flag=True, help="Deliver what is due, then exit: for cron.")
@click.option(
    "--health-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Touch this file while the worker lives; its age tells a supervisor.",
)
@with_appcontext
def worker(once: bool, health_file: Path | None) -> None:
    """Deliver events until stopped; several may run at once, on any number of hosts.

    Says that it started, and a line a minute of what it did. SIGTERM and SIGINT let the request
    under way finish first.
    """
    runtime = current_runtime()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(stop, runtime))
    if health_file is not None:
        _touch_while_running(health_file, stop, runtime)
    if once:
        delivered = runtime.deliverer.drain(stop)
        waiting = runtime.outbox.queue.waiting()
        why = why_waiting(runtime) if waiting else ""
        told = f"{delivered} settled, {waiting} waiting"
        click.echo(f"{told} ({why})" if why else told)
    else:
        report = Report(runtime, _say)
        report.started()
        _start(report.run, stop, "adroll-report")
        runtime.deliverer.run(stop)
        report.stopped()
    runtime.outbox.close()


def _stop(stop: threading.Event, runtime: Runtime) -> None:
    stop.set()
    runtime.outbox.bell.ring()


def _start(run: Callable[[threading.Event], None], stop: threading.Event, name: str) -> None:
    threading.Thread(target=run, args=(stop,), name=name, daemon=True).start()


def _say(event: str, text: str) -> None:
    """As a record of ``adroll_flask.worker`` where those are kept, else as a line."""
    if worker_logger.isEnabledFor(logging.INFO) and worker_logger.hasHandlers():
        worker_logger.info("%s", text, extra={"adroll_event": event})
    else:
        # Not on stdout, which may be read by whoever starts workers.
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()) if event == MINUTE else ""
        click.echo(f"{at}{text}", err=True)


class Report:
    """What a worker did, in a line a minute.

    :param say: takes the name of what is said, and the text.
    """

    def __init__(self, runtime: Runtime, say: Callable[[str, str], None]) -> None:
        self._runtime = runtime
        self._say = say
        self._before = self._counts()

    def started(self) -> None:
        """Say that it started, and whereto it delivers."""
        settings = self._runtime.settings
        missing = " and ".join(settings.missing)
        why = f" ({missing} not set)" if missing else ""
        to = safe_url(settings.api_url)
        self._say("worker-started", f"Delivers to {to} until Ctrl-C or SIGTERM{why}.")

    def stopped(self) -> None:
        """Say what this process did: for whoever ends it."""
        now = self._counts()
        done = f"{counted(now['event_delivered'], 'event')} delivered"
        done += f", {counted(now['event_dead'], 'dead letter')}" if now["event_dead"] else ""
        try:
            left = f", {self._runtime.outbox.queue.waiting()} waiting"
        except OutboxFailed:
            left = "; the outbox cannot be asked what waits"
        self._say("worker-stopped", f"Ended: {done}{left}.")

    def run(self, stop: threading.Event) -> None:
        """Say what was done, every minute, until *stop* is set."""
        main = threading.main_thread()
        while not stop.wait(SAY_EVERY) and main.is_alive():
            self.minute()

    def minute(self) -> None:
        """One line."""
        try:
            waiting = self._runtime.outbox.queue.due(10_000)
            why = why_waiting(self._runtime) if waiting else ""
            due = f"{waiting:,} due" if waiting else "nothing due"
        except OutboxFailed as problem:
            due, why = "the outbox cannot be read", problem.reason
        except Exception as problem:
            let_through(problem)
            due, why = "what is due is not known", type(problem).__name__
        self._say(MINUTE, f"{self._done()}; {due}" + (f" ({why})" if why else ""))

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, count in self._runtime.counters.snapshot().items():
            counts[name.partition(":")[0]] += count
        return counts

    def _done(self) -> str:
        """What was done since the last line."""
        now = self._counts()
        done = [
            f"{now[name] - self._before[name]:,} {text}"
            for name, text in _TOLD.items()
            if now[name] > self._before[name] or name == "event_delivered"
        ]
        self._before = now
        return ", ".join(done)


def _touch_while_running(path: Path, stop: threading.Event, runtime: Runtime) -> None:
    try:
        path.touch()
    except OSError as problem:
        why = problem.strerror or type(problem).__name__
        if not path.parent.is_dir():
            why = f"there is no folder {path.parent}"
        raise Refusal(
            f"the health file {path} cannot be written: {why}", slug="health-file"
        ) from None
    main = threading.main_thread()

    def touch(stop: threading.Event) -> None:
        # A file that stays young over a dead worker, or one whose loop hangs, would lie.
        while not stop.wait(HEALTH_EVERY) and main.is_alive():
            if time.monotonic() - runtime.deliverer.stepped_at < HANGS_AFTER:
                try:
                    path.touch()
                except OSError as problem:
                    # Its age tells the supervisor; the worker itself is well, and tries again.
                    logger.error(
                        "the health file %s cannot be written: %s (%s)",
                        path,
                        problem.strerror,
                        help_url("health-file"),
                    )

    _start(touch, stop, "adroll-health")
