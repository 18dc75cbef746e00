"""``flask adroll worker``: deliver until stopped, and say what was done."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from adroll_flask.logs import logger
from adroll_flask.outbox.local_files import is_there
from adroll_flask.outbox.model import OutboxFailed
from adroll_flask.plurals import counted
from adroll_flask.redaction import safe_url
from adroll_flask.runtime import Runtime

from .console import Refusal, commands, current_runtime, keeps

#: Seconds without a step after which a worker's loop counts as hanging: a batch that is halved
#: down to its events may take several requests of up to 30 seconds each.
HANGS_AFTER: Final = 300.0
#: Seconds between two touches of the health file.
HEALTH_EVERY = 5.0
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@commands.command("worker")
@click.option("--once", is_flag=True, help="Deliver what is due, then exit: for cron.")
@click.option("--health-file", type=_FILE, help="Touch this file while the worker is well.")
def worker(once: bool, health_file: Path | None) -> None:
    """Deliver events until it is stopped.

    Several workers may run at once, on any number of hosts. A worker says that it started. At its
    end it says what it did. After SIGTERM or SIGINT it finishes the present request first.
    """
    runtime = current_runtime()
    if not runtime.settings.enabled:  # what waits may be another site's: a copy of its outbox
        raise Refusal("ADROLL_ENABLED is False: nothing is delivered", slug="disabled")
    stop = threading.Event()
    # Made before the handlers: a signal may come while the modules that make it are imported.
    wake_up = runtime.outbox.wake_up

    def end(*_: object) -> None:
        stop.set()
        wake_up.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if health_file is not None:
        touch_while_running(health_file, stop, runtime)
    if once:
        settled = runtime.deliverer.drain(stop)
        # Where cron alone delivers, nobody else keeps house or compares the shop's list.
        while runtime.outbox.admin.keep_house() and not stop.is_set():
            pass
        runtime.paid_orders.look(patience=300.0)
        click.echo(f"{settled} settled, {_left(runtime)}")
    else:
        missing = runtime.settings.missing
        to = safe_url(runtime.settings.api_url)
        why = f" ({' and '.join(missing)} not set)" if missing else ""
        # Not on stdout, which the program that starts workers may read.
        click.echo(f"Delivers to {to} until Ctrl-C or SIGTERM{why}.", err=True)
        click.echo(_reads(runtime), err=True)
        runtime.deliverer.run(stop)
        click.echo(f"Ended: {_done(runtime)}.", err=True)
    runtime.outbox.close()


def _reads(runtime: Runtime) -> str:
    """Where the worker reads events: if the shop writes elsewhere, it waits for ever."""
    place = runtime.outbox.place
    journal = _as_it_is(runtime.outbox.folder)
    outbox = _as_it_is(place) if isinstance(place, Path) else safe_url(str(place))
    return f"Reads the outbox {outbox} and the journal {journal}."


def _as_it_is(place: Path) -> str:
    with suppress(OSError):  # it may not be looked at; `check` tells of that
        if not is_there(place):
            return f"{place} (not there yet)"
    return str(place)


def _left(runtime: Runtime) -> str:
    """What still waits, and why."""
    by_account = runtime.outbox.queue.waiting_by_account()
    served = runtime.deliverer.accounts
    waiting = sum(count for eid, count in by_account.items() if eid in served)
    why = keeps(runtime) if waiting else ""
    parts = [f"{waiting} waiting{f' ({why})' if why else ''}"]
    for eid, others in by_account.items():
        if eid not in served:
            parts.append(f"{others} of account {eid or 'none'}, for which there is no token here")
    return ", ".join(parts)


def _done(runtime: Runtime) -> str:
    """What this process did, and what it leaves."""
    counts: Counter[str] = Counter()
    for name, count in runtime.counters.snapshot().items():
        counts[name.partition(":")[0]] += count
    text = f"{counted(counts['event_delivered'], 'event')} delivered"
    text += f", {counted(counts['event_dead'], 'dead letter')}" if counts["event_dead"] else ""
    try:
        return f"{text}, {runtime.outbox.queue.waiting(runtime.deliverer.accounts)} waiting"
    except OutboxFailed:
        return f"{text}; the outbox cannot be asked what waits"


def touch_while_running(path: Path, stop: threading.Event, runtime: Runtime) -> None:
    """Touch *path* now and, in a thread, again and again, until *stop* is set.

    :raises Refusal: it cannot be written now.
    """

    def fault() -> str:
        try:
            path.touch()
        except OSError as problem:
            return f"the health file {path} cannot be written: {problem.strerror}"
        return ""

    def run() -> None:
        while not stop.wait(HEALTH_EVERY) and threading.main_thread().is_alive():
            # While the loop hangs, the file has to grow old.
            is_well = time.monotonic() - runtime.deliverer.stepped_at < HANGS_AFTER
            if is_well and (why := fault()):
                # The file's age tells the supervisor. The worker itself is well, and tries again.
                logger.error("%s [health-file]", why)

    if why := fault():
        raise Refusal(why, slug="health-file")
    threading.Thread(target=run, name="adroll-health", daemon=True).start()
