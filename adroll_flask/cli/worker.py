"""``flask adroll worker``: deliver until stopped, and say what was done."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from flask.cli import with_appcontext

from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import OutboxFailed
from adroll_flask.plurals import counted
from adroll_flask.redaction import describe, safe_url
from adroll_flask.runtime import Runtime

from .console import Refusal, as_typed, current_runtime, until

logger: Logger = get_logger("adroll_flask")
worker_logger: Logger = get_logger("adroll_flask.worker")

#: Seconds without a step after which a worker's loop counts as hanging: a batch that is halved
#: down to its events may take several requests of up to 30 seconds each.
HANGS_AFTER: Final = 300.0
#: Seconds between two touches of the health file.
HEALTH_EVERY = 5.0
#: Seconds between two lines that say what was done.
SAY_EVERY: Final = 60.0
MINUTE: Final = "worker-minute"
#: What a line tells, by the name of the counter.
_TOLD: Final = {
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
    """Deliver events until it is stopped.

    Several may run at once, on any number of hosts. Says that it started, and a line a minute of
    what it did. SIGTERM and SIGINT let the request under way finish first.
    """
    runtime = current_runtime()
    stop = threading.Event()
    # Made before: a signal may come while the modules that make it are imported.
    bell = runtime.outbox.bell

    def end(*_: object) -> None:
        stop.set()
        bell.ring()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if health_file is not None:
        touch_while_running(health_file, stop, runtime)
    if once:
        settled = runtime.deliverer.drain(stop)
        while runtime.outbox.keep_house() and not stop.is_set():
            pass  # where cron is all that delivers, nobody else does
        runtime.paid_orders.look(patience=300.0)  # nor this
        click.echo(f"{settled} settled, {_left(runtime)}")
    else:
        report = Report(runtime, _say)
        report.started()
        _every(SAY_EVERY, stop, report.minute, "adroll-report")
        runtime.deliverer.run(stop)
        report.stopped()
    runtime.outbox.close()


def _left(runtime: Runtime) -> str:
    """What still waits, and why."""
    queue, served = runtime.outbox.queue, runtime.deliverer.accounts
    waiting = queue.waiting(served)
    told = [f"{waiting} waiting{_why(runtime) if waiting else ''}"]
    for eid in runtime.outbox.account_states():
        if eid not in served and (others := queue.waiting([eid])):
            told.append(f"{others} of account {eid or 'none'}, for which there is no token here")
    return ", ".join(told)


def _why(runtime: Runtime) -> str:
    """What keeps events from AdRoll at present, in brackets; empty: nothing that is known."""
    from adroll_flask.findings.rules import Moment, delays

    if runtime.settings.missing:
        return f" ({' and '.join(runtime.settings.missing)} not set)"
    moment = Moment(runtime)
    if (finding := delays(moment)) is not None:
        said = finding.sentence.removesuffix(moment.waits).removesuffix(".")
        return f" ({said}: {as_typed(finding.command)})" if finding.command else f" ({said})"
    for row in runtime.outbox.lookups.list("waiting", 1):
        due = until(row, runtime.clock())
        return f" (the next is due {due})" if due else ""
    return ""


def _every(seconds: float, stop: threading.Event, step: Callable[[], None], name: str) -> None:
    """Do *step* again and again, in a thread, until *stop* is set or the process ends."""
    main = threading.main_thread()

    def run() -> None:
        while not stop.wait(seconds) and main.is_alive():
            step()

    threading.Thread(target=run, name=name, daemon=True).start()


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
        why = f" ({' and '.join(settings.missing)} not set)" if settings.missing else ""
        to = safe_url(settings.api_url)
        self._say("worker-started", f"Delivers to {to} until Ctrl-C or SIGTERM{why}.")

    def stopped(self) -> None:
        """Say what this process did: for whoever ends it."""
        now, runtime = self._counts(), self._runtime
        done = f"{counted(now['event_delivered'], 'event')} delivered"
        done += f", {counted(now['event_dead'], 'dead letter')}" if now["event_dead"] else ""
        try:
            left = f", {runtime.outbox.queue.waiting(runtime.deliverer.accounts)} waiting"
        except OutboxFailed:
            left = "; the outbox cannot be asked what waits"
        self._say("worker-stopped", f"Ended: {done}{left}.")

    def minute(self) -> None:
        """Say what was done since the last line, and what is due."""
        now, runtime = self._counts(), self._runtime
        done = ", ".join(
            f"{now[name] - self._before[name]:,} {text}"
            for name, text in _TOLD.items()
            if now[name] > self._before[name] or name == "event_delivered"
        )
        self._before = now
        try:
            waiting = runtime.outbox.queue.due(10_000, runtime.deliverer.accounts)
            due = f"{waiting:,} due{_why(runtime)}" if waiting else "nothing due"
        except Exception as problem:
            due = f"what is due is not known: {describe(problem)}"
        self._say(MINUTE, f"{done}; {due}")

    def _counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name, count in self._runtime.counters.snapshot().items():
            counts[name.partition(":")[0]] += count
        return counts


def touch_while_running(path: Path, stop: threading.Event, runtime: Runtime) -> None:
    """Touch *path* now and again and again.

    :raises Refusal: it cannot be written now.
    """

    def touch() -> None:
        # A file that stays young over a worker whose loop hangs would lie.
        if time.monotonic() - runtime.deliverer.stepped_at < HANGS_AFTER:
            try:
                path.touch()
            except OSError as problem:
                # Its age tells the supervisor; the worker itself is well, and tries again.
                logger.error(
                    "the health file %s cannot be written: %s [health-file]", path, problem.strerror
                )

    try:
        path.touch()
    except OSError as problem:
        said = f"the health file {path} cannot be written: {problem.strerror}"
        raise Refusal(said, slug="health-file") from None
    _every(HEALTH_EVERY, stop, touch, "adroll-health")
