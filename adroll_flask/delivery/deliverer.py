"""From the outbox to AdRoll: claim, send, settle.

One :class:`Deliverer` does one step after another, in a thread of the shop's process
(:mod:`.thread`), in ``flask adroll worker``, or in the call that asks for it. Any number
share an outbox. Each account has a :mod:`.lane` of its own, which knows whether a request may go;
:mod:`.batch` knows what becomes of its events.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from adroll_flask.counters import Counters
from adroll_flask.errors import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import history, model
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.plurals import span
from adroll_flask.redaction import describe
from adroll_flask.settings import Settings
from adroll_flask.signals import reports_silent

if TYPE_CHECKING:
    from adroll_flask.outbox.outbox import Bell

    from .lane import Lane
    from .transport import Transport

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds after which an idle loop looks into the outbox without being told.
POLL: Final = 1.0
#: Seconds for which events are claimed. One request takes at most 30: connecting, sending, the
#: answer.
LEASE: Final = 60.0
#: Seconds after which a worker that may not send looks again.
RECHECK: Final = 5.0
#: Seconds for which what follows a report is waited for where it is only taken in.
_GATHER: Final = 0.02
#: Seconds for which a rest sleeps at a time.
_TICK: Final = 0.5
_HOUSEKEEPING: Final = 60.0
_MORE_HOUSEKEEPING: Final = 1.0
_LONGEST_TROUBLE: Final = 30.0
#: Seconds by which the oldest due event may be late.
LATE: Final = 900.0
_SILENT_EVERY: Final = 600.0


class Step(NamedTuple):
    """What one step came to.

    :param ended: events that reached their end, delivered or dead.
    :param more: the next step should follow at once.
    :param pause: seconds that nothing can be sent; ``None``: there was nothing to send.
    """

    ended: int = 0
    more: bool = False
    pause: float | None = None


class Rest(NamedTuple):
    """How a loop rests between two steps.

    :param seconds: how long.
    :param bell: ends that sooner, since there is work; it lingers then.
    :param linger: seconds.
    """

    seconds: float = 0.0
    bell: Bell | None = None
    linger: float = 0.0

    def take(
        self, stop: threading.Event, hurry: threading.Event, meanwhile: Callable[[], object]
    ) -> None:
        """Rest, until *stop* or *hurry* is set at most; the latter is cleared.

        :param meanwhile: called now and then.
        """
        if not self.seconds:
            return
        bell, until = self.bell, time.monotonic() + self.seconds
        while not stop.is_set() and not hurry.is_set():
            tick = min(until - time.monotonic(), _TICK)
            if tick <= 0:
                break
            if bell is None:
                hurry.wait(tick)
            elif bell.wait(tick):
                bell, until = None, time.monotonic() + self.linger
            meanwhile()
        hurry.clear()


@dataclass(eq=False, repr=False)
class Deliverer:
    """Delivers an outbox's events.

    :param outbox: where the events wait.
    :param settings: the app's configuration.
    :param counters: where outcomes and reasons are counted.
    :param transport: what sends a POST; by default ``requests``.
    :param clock: epoch seconds.
    :param announce: sends a signal of each event's end, after its commit, and once of each that has
        stopped coming; never raises.
    :param also: called with each housekeeping; returns at once.
    :param rng: spreads pauses.
    :param monotonic: seconds, for what only this process waits for.
    :param lease: seconds for which events are claimed; longer than any request may take.
    :param poll: seconds after which an idle loop looks for what other processes reported.
    """

    outbox: Outbox
    settings: Settings
    counters: Counters
    transport: Transport | None = None
    clock: Callable[[], float] = time.time
    announce: Callable[..., None] = lambda *_, **__: None
    also: Callable[[], None] = lambda: None
    rng: Random = field(default_factory=secrets.SystemRandom)
    monotonic: Callable[[], float] = time.monotonic
    lease: float = LEASE
    poll: float = POLL

    def __post_init__(self) -> None:
        #: The accounts whose events it delivers; before any is set, what is reported has none.
        self.accounts: tuple[str, ...] = tuple(self.settings.served_accounts) or ("",)
        #: When the last step began, by ``time.monotonic()``: a loop that hangs does none.
        self.stepped_at: float = time.monotonic()
        self._silent_from = 0.0
        self._is_late = False
        self._stays = False
        self._adopt_at = float("-inf")
        self._troubles = 0
        self._clean_at = time.monotonic() + _HOUSEKEEPING

    @cached_property
    def lanes(self) -> tuple[Lane, ...]:
        """One for each account that has all that sending needs; what others lack is logged."""
        # Imported here, since who only takes in needs no client.
        from .client import Client
        from .lane import Lane
        from .transport import RequestsTransport

        served = self.settings.served_accounts
        missing, lanes = list(self.settings.missing), []
        transport = self.transport or RequestsTransport()
        for eid, account in served.items():
            if account.pixel_eid and account.access_token:
                client = Client(self.settings, account, transport, self.clock)
                whose = f" for account {eid}" if len(served) > 1 else ""
                destination = self.outbox.destination(eid)
                rules = self.counters, whose, self.monotonic, self.rng, self.seen
                lanes.append(Lane(destination, client, *rules))
            elif eid != self.settings.advertisable_eid:
                missing.append(f"the access_token of {eid} in ADROLL_ACCOUNTS")
        if missing:
            self.counters.add("delivery_stopped", "not_configured")
            logger.error(
                "AdRoll events wait in the outbox: %s not set [account-missing]",
                " and ".join(missing),
            )
        return tuple(lanes)

    def load(self, *, sends: bool = True) -> None:
        """Import all that is needed later; opens nothing.

        :param sends: see :meth:`step`.
        """
        _ = self.outbox.queue, self.outbox.lookups, self.outbox.admin
        if sends and self.lanes:
            from . import batch  # noqa: F401

    def seen(self) -> None:
        """Give a sign of life for all accounts, where it stays with them."""
        if self._stays and self.outbox.exists():
            with suppress(model.OutboxFailed):  # which must not undo what is under way
                for lane in self.lanes:
                    lane.destination.seen()

    # One step

    def _advance(self, stop: threading.Event) -> Step:
        """One step of each lane, so that no account waits for the backlog of another."""
        if self.settings.advertisable_eid and self.monotonic() >= self._adopt_at:
            # Again and again: a process that began before there was an account may report still.
            self.outbox.queue.adopt(self.settings.advertisable_eid)
            self._adopt_at = self.monotonic() + _HOUSEKEEPING
        if not self.lanes:
            self.outbox.ingest.take_in()
        steps: list[Step] = []
        faults: list[Exception] = []
        for lane in self.lanes:
            try:
                steps.append(Step() if stop.is_set() else self._advance_lane(lane, stop))
            except Exception as error:
                let_through(error)
                faults.append(error)  # the others go on all the same
        if faults:
            raise faults[0]
        pauses = [step.pause for step in steps if step.pause is not None]
        return Step(
            sum(step.ended for step in steps),
            more=any(step.more for step in steps),
            pause=min(pauses) if len(pauses) == len(steps) and pauses else None,
        )

    def _advance_lane(self, lane: Lane, stop: threading.Event) -> Step:
        from .batch import BatchSender
        from .client import MAX_BATCH

        queue, account = self.outbox.queue, lane.destination.account
        self.seen()
        destination = lane.destination.state()
        is_missed = (destination.unseen_for or 0.0) > model.MISSED_AFTER
        if is_missed and not self._stays and self.settings.delivery == "worker":
            with suppress(model.OutboxFailed):
                lane.destination.miss_nobody()
        is_stopped = destination.stopped is not None
        # Where nothing stands between claim and request, as a callable that gives the token does,
        # one commit does for both.
        is_callable = callable(lane.client.account.access_token)
        at_once = not (is_stopped or destination.failures or is_callable)
        if destination.paused_for > 0 and not is_stopped:
            return self._pause(destination.paused_for)
        is_due = at_once or queue.is_due([account])
        if not is_due and not is_stopped:
            return Step()
        permit = lane.permit(destination)
        if permit is None:
            return self._pause(destination.paused_for or RECHECK)
        if stop.is_set():  # while the token's callable answered
            lane.give_up(permit)
            return Step()
        if permit.probing in ("down", "stopped"):
            permit = lane.try_out(permit, is_due=is_due)
            if permit is None:
                return Step()
        leased_at = time.monotonic()
        limit = MAX_BATCH if permit.probing == "no" else 1
        claim = queue.claim(account, limit, self.lease, begin=at_once)
        sender = BatchSender(lane, queue, claim, permit, self.announce, stop, self.lease, leased_at)
        sender.run()
        # A probe that went well opens the way; full batches follow each other at once.
        more = claim.more and bool(sender.ended or not claim.events)
        return Step(sender.ended, more=more)

    def _pause(self, seconds: float) -> Step:
        self.outbox.ingest.take_in()  # else a claim does it
        return Step(pause=min(seconds, RECHECK))

    def step(self, stop: threading.Event, *, sends: bool = True) -> Step:
        """One step that survives everything, with housekeeping now and then.

        :param sends: ``False``: only take in what this host reports.
        """
        self.stepped_at = time.monotonic()
        step, fault = Step(), None
        if not self.outbox.exists():  # to look would make a database
            return step
        try:
            if sends:
                step = self._advance(stop)
            else:
                while self.outbox.ingest.take_in() and not stop.is_set():
                    pass
        except Exception as error:
            let_through(error)
            fault = error
        try:
            if time.monotonic() >= self._clean_at:
                self._keep_house(sends)  # also after a fault: it may be what makes room
        except Exception as error:
            let_through(error)
            fault = fault or error
        if fault is None:
            self._troubles = 0
            return step
        return Step(step.ended, pause=self._pause_after(fault, sends))

    def _keep_house(self, sends: bool) -> None:
        more = sends and self.outbox.admin.keep_house()
        self._clean_at = time.monotonic() + (_MORE_HOUSEKEEPING if more else _HOUSEKEEPING)
        self.look()
        if sends:
            self.also()

    def look(self) -> None:
        """Say once what ails the outbox, until it is over.

        Events that are late are looked for each time, such as stay away once in ten minutes.
        """
        try:
            # Also those of no account, where nobody takes them over.
            late = self.outbox.queue.oldest_due((*self.accounts, "")) or 0.0
            was_late, self._is_late = self._is_late, late > LATE
            if self._is_late and not was_late:
                states = self.outbox.lookups.destinations()
                worst = model.worst(one for eid, one in states.items() if eid in self.accounts)
                self.counters.add("delivery_late")
                logger.error(
                    "AdRoll events have been waiting for %s%s. Is a worker running? See "
                    "`flask adroll outbox`. [events-late]",
                    *(span(late), f" (stopped: {worst.stopped})" if worst.stopped else ""),
                )
            if time.monotonic() < self._silent_from:
                return
            self._silent_from = time.monotonic() + _SILENT_EVERY
            for silence in self.outbox.lookups.note_silences():  # each once, over all processes
                self.counters.add("reports_silent", silence.name)
                logger.error(
                    "AdRoll: %s. See `flask adroll history --by hour`. [reports-silent]",
                    history.told(silence),
                )
                self.announce(reports_silent, **silence._asdict())
        except model.OutboxFailed as error:
            self.counters.add("delivery_error", error.reason)

    def _pause_after(self, fault: Exception, sends: bool) -> float:
        """Count and log what went wrong; seconds until the next step."""
        self._troubles += 1
        pause = min(0.5 * 2.0 ** min(self._troubles - 1, 10), _LONGEST_TROUBLE)
        reason = fault.reason if isinstance(fault, model.OutboxFailed) else "error"
        self.counters.add("delivery_error", reason)
        if self._troubles == 1 or (sends and pause < _LONGEST_TROUBLE):
            logger.error(
                "Delivery to AdRoll pauses for %g s: %s [delivery-paused]", pause, describe(fault)
            )
        return pause

    # Many steps

    def drain(self, stop: threading.Event | None = None, until: float = float("inf")) -> int:
        """Do steps until nothing is due or AdRoll takes nothing: ``flask adroll worker --once``.

        :param until: by ``time.monotonic()``: no step begins after that, but for the first.
        :returns: how many events reached their end.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        stop = stop or threading.Event()
        ended = 0
        while True:
            step = self._advance(stop)
            ended += step.ended
            if not step.more or stop.is_set() or time.monotonic() >= until:
                return ended

    def flush(self, timeout: float) -> int:
        """Send what is due, here; returns how many events are still waiting.

        A request that has begun is waited for.

        :param timeout: seconds after which no further request begins.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        until = time.monotonic() + timeout
        self.drain(until=until)
        return self.outbox.queue.waiting(self.accounts, until)

    def run(self, stop: threading.Event) -> None:
        """Deliver until *stop* is set; a request under way is finished first.

        Nothing that goes wrong ends it: it is logged and counted, and the loop goes on after a
        pause. From now on it is missed where it gives no sign of life.
        """
        self._stays, never = True, threading.Event()
        while not stop.is_set():
            self.turn(stop).take(stop, never, self.seen)

    def turn(
        self,
        stop: threading.Event,
        *,
        sends: bool = True,
        in_burst: bool = False,
        flushing: bool = False,
    ) -> Rest:
        """One step of a loop, and the rest that follows it.

        :param sends: see :meth:`step`.
        :param in_burst: this process reports as fast as it can: then full batches linger, too.
        :param flushing: somebody waits for what is due.
        """
        step = self.step(stop, sends=sends)
        if step.pause is not None:
            return Rest(step.pause)
        if step.more and (flushing or not in_burst):
            return Rest()
        if step.ended:
            # After a send: what was reported meanwhile woke nobody, since nobody waited.
            return Rest(self.settings.linger)
        return Rest(self.poll, self.outbox.bell, self.settings.linger if sends else _GATHER)
