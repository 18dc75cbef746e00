"""The outbox in ``flask adroll check``: its place, its state, what keeps events from AdRoll."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from adroll_flask.errors import ConfigurationError
from adroll_flask.outbox.silence import told
from adroll_flask.plurals import counted

from .finding import Finding
from .outbox_state import nothing_kept, outbox_state, outbox_trouble
from .proxies import proxy_findings

if TYPE_CHECKING:
    from adroll_flask.outbox import State
    from adroll_flask.runtime import Runtime

#: Events of a state that are counted: a backlog is not counted in full.
_MOST: Final = 10_000
_WAITING: Final[tuple[State, ...]] = ("waiting", "claimed", "sending")


def outbox_findings(runtime: Runtime) -> Iterator[Finding]:
    """What is wrong with the outbox, its delivery, and what waits in it."""
    from adroll_flask.outbox import OutboxFailed
    from adroll_flask.outbox.journal_files import waiting_bytes

    try:
        yield from _places(runtime)
        state = outbox_state(runtime)
        if state != "ready":
            yield from _unmade_outbox(runtime)
            return
        outbox = runtime.outbox
        outbox.queue.take_in()
        counts = outbox.dead_letters.open_counts(_MOST)
        destination, late = outbox.destination.state(), outbox.queue.oldest_due()
    except OutboxFailed as problem:
        yield Finding(
            "error",
            "ADROLL_OUTBOX_URL",
            *outbox_trouble(runtime, problem),
            slug="outbox-unavailable",
        )
        return
    except ConfigurationError as problem:
        yield Finding(
            "error",
            problem.key,
            problem.problem,
            "docs/explanation/outbox.md has the forms",
            slug=problem.slug,
        )
        return
    waiting = sum(counts[state] for state in _WAITING)
    more = " or more" if waiting >= _MOST else ""
    yield Finding("ok", "outbox", f"{_engine(runtime)}, {waiting}{more} waiting")
    if dead := counts["dead"]:
        yield Finding(
            "warning",
            "outbox",
            counted(dead, "dead letter") + (" or more" if dead >= _MOST else ""),
            "flask adroll outbox list --dead",
            slug="dead-letters",
        )
    if destination.held:
        yield Finding(
            "error",
            "delivery",
            f"is held: {destination.held}",
            "flask adroll send-test shows what AdRoll answers",
            slug="delivery-held",
        )
    elif destination.failures:
        failures = counted(destination.failures, "failure")
        yield Finding(
            "error",
            "delivery",
            f"AdRoll is down or out of reach, {failures} in a row: "
            f"{destination.last_error}; events wait",
            "flask adroll send-test shows what AdRoll answers; delivery asks again by itself",
            slug="request-failed",
        )
    elif destination.paused_for > 0:
        seconds = counted(math.ceil(destination.paused_for), "second")
        why = destination.last_error
        yield Finding(
            "warning",
            "delivery",
            f"is paused for {seconds}" + (f": {why}" if why else ""),
            "nothing: it goes on by itself",
            slug="delivery-paused",
        )
    if late is not None and late > 900:
        how = {
            "worker": "run `flask adroll worker`",
            "sync": "use ADROLL_DELIVERY 'thread' or 'worker'",
        }.get(
            runtime.settings.delivery,
            "look for errors of adroll_flask.delivery in the log",
        )
        yield Finding(
            "error",
            "delivery",
            f"the oldest event is {late / 60:.0f} minutes late",
            how,
            slug="events-late",
        )
    for silence in runtime.outbox.figures.silences():
        yield Finding(
            "error",
            "silence",
            told(silence),
            "look for a change in the shop since then; flask adroll history --by hour, "
            "--by reason and docs/how-to/monitoring.md help",
            slug="reports-silent",
        )
    yield from _in_journal(waiting_bytes(runtime.journal_folder))
    yield from proxy_findings(runtime)


def _engine(runtime: Runtime) -> str:
    place = runtime.outbox_place
    if place is None:
        return "an outbox of the app's own"
    return "sqlite" if isinstance(place, Path) else place.get_backend_name()


def _places(runtime: Runtime) -> Iterator[Finding]:
    from adroll_flask.outbox.location import unwritable_places

    if runtime.outbox_place is None:
        return
    for key, problem in unwritable_places(runtime.settings, Path(runtime.folder).absolute()):
        yield Finding(
            "error",
            key,
            problem,
            "chown it to the app's user (a command run with sudo leaves such files), or choose "
            "another place",
            slug="folder-not-writable",
        )


def _in_journal(size: int) -> Iterator[Finding]:
    if size:
        yield Finding(
            "warning",
            "outbox",
            f"the journal holds {counted(size, 'byte')} that are not in the outbox yet",
            "whoever delivers on this host takes them in; see the findings above if nobody does",
            slug="journal-not-read",
        )


def _unmade_outbox(runtime: Runtime) -> Iterator[Finding]:
    """File, folder or tables come with the first report: a typo must show before."""
    from adroll_flask.outbox.location import unwritable

    place = runtime.outbox_place
    if not isinstance(place, Path) or place.exists():
        engine = "sqlite" if isinstance(place, Path) else place.get_backend_name() if place else ""
        yield Finding(
            "info",
            "outbox",
            f"{engine}, its tables are not there yet; they are made at the first use",
            "flask adroll outbox create-table makes them now",
            slug="outbox-not-made",
        )
    elif not unwritable(place):  # else it is said
        yield _unmade_file(place, Path(runtime.folder).absolute())
    yield from _in_journal(nothing_kept(runtime).journal_bytes)


def _unmade_file(path: Path, instance: Path) -> Finding:
    folder = path.parent
    there = next(parent for parent in path.parents if parent.exists())
    if there != folder and folder != instance and instance not in folder.parents:
        return Finding(
            "warning",
            "ADROLL_OUTBOX_URL",
            f"{path} is not there, nor is its folder; both are made with the first report",
            "correct the path, or make its folder for the app's user",
            slug="outbox-not-made",
        )
    return Finding(
        "info",
        "outbox",
        f"{path} is not there yet; it is made with the first report",
        slug="outbox-not-made",
    )
