"""From the outbox to AdRoll: claim, send, settle.

One :class:`Deliverer` does one step after another, in a thread of the shop's process
(:mod:`.thread`), in ``flask adroll worker``, or in the call that asks for it. Any number
share an outbox. :mod:`.send_policy` knows whether a request may go, :mod:`.batch` what becomes of
its events.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from random import Random

from adroll_flask.counters import Counters
from adroll_flask.errors import help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.giving_way import giving_way
from adroll_flask.outbox.protocol import Claim, Destination, Outbox, OutboxFailed, Outcome
from adroll_flask.outbox.silence import Silence
from adroll_flask.redaction import describe
from adroll_flask.settings import Settings

from .batch import LEASE, BatchSender
from .client import Client
from .late_events import LateWatch
from .parts import OnOutcome, Parts
from .pauses import RECHECK, RECHECK_SETTINGS
from .send_policy import Permit, SendPolicy
from .silence_watch import SilenceWatch
from .tracing import Tracing

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds after which an idle worker looks into the outbox without being told.
POLL = 2.0
_TICK = 0.5
_HOUSEKEEPING = 60.0
_MORE_HOUSEKEEPING = 1.0
_LONGEST_TROUBLE = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """What one step came to.

    :param ended: events that reached their end.
    :param more: the next step should follow at once.
    :param pause: seconds that nothing can be sent; ``None``: there was nothing to send.
    :param full: events that fill a batch at present.
    """

    ended: int = 0
    more: bool = False
    pause: float | None = None
    full: int = 1


class Deliverer:
    """Delivers an outbox's events.

    :param outbox: where the events wait.
    :param client: what sends them.
    :param settings: the app's configuration.
    :param counters: where outcomes and reasons are counted.
    :param clock: epoch seconds.
    :param on_outcome: told of each event's end, ``delivered`` or ``dead``, after its commit.
    :param on_silence: told of each event of which too few come, as that begins.
    :param tracing: says who traces requests, at present.
    :param rng: spreads pauses.
    :param monotonic: seconds, for what only this process waits for.
    :param lease: seconds for which events are claimed; longer than any request may take.
    :param poll: seconds after which an idle loop looks for what other processes reported.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: Client,
        settings: Settings,
        counters: Counters,
        *,
        clock: Callable[[], float] = time.time,
        on_outcome: OnOutcome | None = None,
        on_silence: Callable[[Silence], None] | None = None,
        tracing: Callable[[], Tracing | None] | None = None,
        rng: Random | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        lease: float = LEASE,
        poll: float = POLL,
    ) -> None:
        self.outbox = outbox
        self.settings = settings
        self.counters = counters
        self._parts = Parts(outbox, client, settings, counters, clock, monotonic, on_outcome)
        if tracing is not None:
            self._parts = replace(self._parts, tracing=tracing)
        self._policy = SendPolicy(self._parts, rng)
        self._monotonic = monotonic
        self._lease = lease
        self._poll = poll
        self._late = LateWatch(outbox, counters)
        self._silence = SilenceWatch(outbox, counters, on_silence)
        self._adopted = False
        self._troubles = 0
        #: When the last step began, by ``time.monotonic()``: a loop that hangs does none.
        self.stepped_at: float = time.monotonic()
        self._clean_at = time.monotonic() + _HOUSEKEEPING
        #: Calls of :meth:`flush` that wait for :meth:`run`.
        self._flushing = 0
        #: The process whose :meth:`run` is under way, and what hurries it.
        self._running: tuple[int, threading.Event] | None = None

    def __repr__(self) -> str:
        return "<Deliverer>"

    def run_once(self, stop: threading.Event | None = None) -> int:
        """Do one step: claim at most 100 due events, send them, settle them.

        :param stop: no further request begins once it is set.
        :returns: how many events reached their end, delivered or dead.
        :raises OutboxFailed: the outbox cannot be worked with.

        >>> deliverer.run_once()
        100
        """
        return self._advance(stop or threading.Event()).ended

    def _advance(self, stop: threading.Event) -> Step:
        if not self._policy.ready():
            return Step(pause=RECHECK_SETTINGS)
        if not self._adopted:
            self.outbox.queue.adopt(self.settings.advertisable_eid or "")
            self._adopted = True
        destination = self.outbox.destination.state()
        if destination.held is not None:
            self.outbox.queue.take_in()
            return self._advance_held(destination, stop)
        if destination.paused_for > 0:
            self.outbox.queue.take_in()
            return Step(pause=min(destination.paused_for, RECHECK))
        limit = self._policy.limit(destination)
        asked, leased_at = self._monotonic(), time.monotonic()
        # Where nothing stands between claim and request, one commit does for both.
        begin = destination.failures == 0 and self._policy.sends_at_once
        claim = self.outbox.queue.claim(limit, self._lease, begin=begin)
        if claim is None:
            return Step()
        credentials = self._policy.credentials()
        if self._monotonic() - asked > self._lease / 4:
            # The token's callable took its time: what is sent has its lease before it.
            self._release(claim)
            leased_at = time.monotonic()
            claim = self.outbox.queue.claim(limit, self._lease)
            if claim is None:
                return Step()
        permit = self._policy.permit(destination, credentials) if credentials else None
        if permit is None:
            self._release(claim)
            return Step(pause=RECHECK)
        if permit.probing == "down":
            permit = self._policy.try_out(permit, stop)
            if permit is None:
                self._release(claim)
                return Step()
        ended = self._send(claim, permit, stop, leased_at)
        # A probe that went well opens the way; full batches follow each other at once.
        return Step(ended, more=bool(ended) and len(claim.events) >= limit, full=limit)

    def _release(self, claim: Claim) -> None:
        self.outbox.queue.settle(claim, [Outcome(id=e.id, kind="release") for e in claim.events])

    def _advance_held(self, destination: Destination, stop: threading.Event) -> Step:
        credentials = self._policy.credentials()
        if credentials is None:
            return Step(pause=RECHECK)
        if destination.fingerprint == credentials.fingerprint and destination.paused_for > 0:
            return Step(pause=min(destination.paused_for, RECHECK))
        permit = self._policy.permit(destination, credentials)
        if permit is None:
            return Step(pause=RECHECK)
        claim = None
        if permit.probing == "other" or not self._policy.dry_run_is_next:
            claim = self.outbox.queue.claim(1, self._lease)
        if claim is not None:
            ended = self._send(claim, permit, stop, time.monotonic())
            return Step(ended, more=bool(ended))
        if permit.probing == "held":
            if self._policy.wait_for_slot(stop):
                return Step(more=self._policy.probe_hold(permit))
            self._policy.give_up(permit)
        return Step()

    def _send(self, claim: Claim, permit: Permit, stop: threading.Event, leased_at: float) -> int:
        sender = BatchSender(
            claim,
            permit,
            self._parts,
            self._policy,
            stop=stop,
            lease=self._lease,
            leased_at=leased_at,
        )
        sender.run()
        if not sender.asked:
            self._policy.give_up(permit)
        return sender.ended

    def drain(self, stop: threading.Event | None = None) -> int:
        """Do steps until nothing is due or AdRoll takes nothing: ``flask adroll worker --once``.

        :returns: how many events reached their end.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        stop = stop or threading.Event()
        ended = 0
        while True:
            step = self._advance(stop)
            ended += step.ended
            if not step.more or stop.is_set():
                return ended

    def flush(self, timeout: float) -> int:
        """Send what is due without lingering; returns how many events are still waiting.

        Where this process's background thread is running, it sends and this only waits; else the
        events are sent here, and a request that has begun is waited for.

        :param timeout: seconds after which no further request begins.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        until = time.monotonic() + timeout
        hurry = self._runner()
        if hurry is None:
            while self._advance(threading.Event()).more and time.monotonic() < until:
                pass
            return self.outbox.queue.waiting()
        pause = 0.005
        self._flushing += 1
        try:
            hurry.set()
            self.outbox.bell.ring()
            while True:
                left = until - time.monotonic()
                is_over = left <= 0 or not self._policy.ready()
                # To count is to take in; what is due the thread takes in as it sends it, which is
                # less work.
                if is_over or not self.outbox.queue.due(1):
                    waiting = self.outbox.queue.waiting()
                    if is_over or not waiting:
                        return waiting
                time.sleep(min(pause, left))
                pause = min(2 * pause, 0.1)
        finally:
            self._flushing -= 1

    @property
    def running(self) -> bool:
        """Whether :meth:`run` is under way in this process."""
        return self._runner() is not None

    def _runner(self) -> threading.Event | None:
        running = self._running
        return running[1] if running is not None and running[0] == os.getpid() else None

    def run(
        self,
        stop: threading.Event,
        hurry: threading.Event | None = None,
        *,
        in_burst: Callable[[], bool] | None = None,
    ) -> None:
        """Deliver until *stop* is set; a request under way is finished first.

        Nothing that goes wrong ends it: it is logged and counted, and the loop goes on after a
        pause.

        :param hurry: set to send at once what lingers, to fill batches or to flush.
        :param in_burst: for a thread beside requests, which leaves the interpreter to others often,
            except while somebody flushes: whether this process reports as fast as it can. Then full
            batches linger, too.
        """
        hurry = hurry or threading.Event()
        self._running = (os.getpid(), hurry)
        bursting = in_burst or (lambda: False)
        try:
            while not stop.is_set():
                if bursting() and not self._flushing:
                    self._sleep(self.settings.linger, stop, hurry)
                with giving_way() if in_burst and not self._flushing else nullcontext():
                    step = self.step(stop)
                if not step.more or not (
                    self._flushing or (not bursting() and self._is_due(step.full))
                ):
                    self._rest(step, stop, hurry)
        finally:
            self._running = None

    def _is_due(self, full: int) -> bool:
        """Whether a full batch is waiting. What is left of one lingers, as everything does."""
        try:
            return self.outbox.queue.due(full) >= full
        except OutboxFailed:
            return True  # the next step finds out

    def step(self, stop: threading.Event) -> Step:
        """One step that survives everything, with housekeeping now and then."""
        self.stepped_at = time.monotonic()
        try:
            step = self._advance(stop)
            self._tidy()
        except Exception as error:
            let_through(error)
            self._troubles += 1
            pause = min(0.5 * 2.0 ** min(self._troubles - 1, 10), _LONGEST_TROUBLE)
            reason = error.reason if isinstance(error, OutboxFailed) else "error"
            self.counters.add("delivery_error", reason)
            if self._troubles == 1 or pause < _LONGEST_TROUBLE:
                logger.error(
                    "Delivery to AdRoll pauses for %g s: %s (%s)",
                    pause,
                    describe(error),
                    help_url("delivery-paused"),
                )
            return Step(pause=pause)
        self._troubles = 0
        return step

    def _tidy(self) -> None:
        if time.monotonic() < self._clean_at:
            return
        more = self.outbox.housekeeping.step()
        self._clean_at = time.monotonic() + (_MORE_HOUSEKEEPING if more else _HOUSEKEEPING)
        self._late.look()
        self._silence.look()

    def _rest(self, step: Step, stop: threading.Event, hurry: threading.Event) -> None:
        """Wait out a pause; without one wait for work, and then for more of it."""
        if step.pause is not None or step.ended:
            # After a send: what was reported meanwhile woke nobody, since nobody waited.
            self._sleep(self.settings.linger if step.pause is None else step.pause, stop, hurry)
            return
        until = time.monotonic() + self._poll
        while not stop.is_set() and not hurry.is_set():
            tick = min(until - time.monotonic(), _TICK)
            if tick <= 0:
                return
            asked = time.monotonic()
            self.outbox.bell.wait(tick)
            if time.monotonic() - asked < tick * 0.9:  # sooner: there is work
                self._sleep(self.settings.linger, stop, hurry)
                return
        hurry.clear()

    def _sleep(self, seconds: float, stop: threading.Event, hurry: threading.Event) -> None:
        until = time.monotonic() + seconds
        while not stop.is_set():
            left = until - time.monotonic()
            if left <= 0 or hurry.wait(min(left, _TICK)):
                break
        hurry.clear()
