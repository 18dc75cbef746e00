"""From the outbox to AdRoll: claim, send, settle.

One :class:`Deliverer` does one step after another, in a thread of the shop's process
(:mod:`.thread`), in ``flask adroll worker``, or in the call that asks for it. Any number can
share an outbox. Each account has its own gate (:mod:`.pauses_and_stops`), which knows whether a
request may go, and its own turn (:mod:`.turns`); :mod:`.batch` knows what becomes of its events.
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
from adroll_flask.forks import PerProcess, may_start_threads
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox import model, too_few
from adroll_flask.outbox.outbox import Outbox
from adroll_flask.outbox.wake_up import WakeUp
from adroll_flask.redaction import describe
from adroll_flask.settings import Settings
from adroll_flask.signals import reports_silent
from adroll_flask.times import span

from .turns import TROUBLE_LASTS, Progress, Turn

if TYPE_CHECKING:
    from .pauses_and_stops import Gate, Permit
    from .transport import Transport

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds after which an idle loop looks into the outbox without being told.
POLL: Final = 1.0
#: Seconds for which events are claimed. One request takes at most 30: connecting, sending, the
#: answer.
LEASE: Final = 60.0
#: Seconds after which a worker that may not send looks again.
RECHECK: Final = 5.0
#: Seconds after a report for which a process that does not send waits for more reports. It then
#: takes them into the outbox together.
_GATHER: Final = 0.02
#: Seconds for which a rest sleeps at a time.
_TICK: Final = 0.5
#: Seconds from one housekeeping to the next; and where the last one left something to do.
_HOUSEKEEPING: Final = 60.0
_MORE_HOUSEKEEPING: Final = 1.0
#: Seconds by which the oldest due event may be late before that is logged.
LATE: Final = 900.0
#: Seconds from one look for reports that no longer come to the next.
_SILENT_EVERY: Final = 600.0


class Rest(NamedTuple):
    """How a loop rests between two steps.

    :param seconds: how long.
    :param woken_by: ends these seconds sooner, when there is work. The rest then goes on for
        *linger* seconds, so that more work can come.
    :param linger: seconds; see *woken_by*.
    """

    seconds: float = 0.0
    woken_by: WakeUp | None = None
    linger: float = 0.0

    def take(self, stop: threading.Event, hurry: WakeUp, meanwhile: Callable[[], object]) -> None:
        """Rest, but no longer than until *stop* is set or *hurry* is woken.

        :param meanwhile: called now and then.
        """
        if not self.seconds:
            return
        woken_by = self.woken_by
        until = time.monotonic() + self.seconds
        while not stop.is_set() and not hurry.wait(0):
            tick = min(until - time.monotonic(), _TICK)
            if tick <= 0:
                return
            if woken_by is None:
                if hurry.wait(tick):
                    return
            elif woken_by.wait(tick):
                woken_by = None
                until = time.monotonic() + self.linger
            meanwhile()


@dataclass(eq=False, repr=False)
class Deliverer:
    """Delivers an outbox's events.

    :param outbox: where the events wait.
    :param settings: the app's configuration.
    :param counters: where outcomes and reasons are counted.
    :param transport: what sends a POST; by default ``requests``.
    :param clock: epoch seconds.
    :param announce: sends signals: one for each event that reached its end, after the commit; and
        one for each kind of event that has stopped coming. It never raises.
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
        #: When the last step began, by ``time.monotonic()``. It is long ago where the loop hangs.
        self.stepped_at: float = time.monotonic()
        self._silent_from = 0.0
        self._is_late = False
        #: Whether it delivers until it is stopped (:meth:`run`). It then gives signs of life.
        self._stays = False
        self._adopt_at = float("-inf")
        #: The name of the fault that the last step ended with; empty: it had none.
        self._trouble = ""
        self._clean_at = time.monotonic() + _HOUSEKEEPING
        # A forked child does not have its parent's threads. So each process makes turns of its own.
        self._turns = PerProcess(lambda: [Turn(gate, self._work_off) for gate in self.gates])

    @cached_property
    def gates(self) -> tuple[Gate, ...]:
        """One for each account that has all that sending needs; what others lack is logged."""
        # Imported here: a process that only takes events in needs no client.
        from .client import Client
        from .pauses_and_stops import Gate
        from .transport import RequestsTransport

        served = self.settings.served_accounts
        missing = list(self.settings.missing)
        gates = list[Gate]()
        transport = self.transport or RequestsTransport()
        for eid, account in served.items():
            if account.pixel_eid and account.access_token:
                gate = Gate(
                    self.outbox.destination(eid),
                    Client(self.settings, account, transport, self.clock),
                    self.counters,
                    whose=f" for account {eid}" if len(served) > 1 else "",
                    monotonic=self.monotonic,
                    rng=self.rng,
                    sign_of_life=self.sign_of_life,
                    clocks=self.outbox.clocks,
                )
                gates.append(gate)
            elif eid != self.settings.advertisable_eid:
                missing.append(f"the access_token of {eid} in ADROLL_ACCOUNTS")
        if missing:
            self.counters.add("delivery_stopped", "not_configured")
            logger.error(
                "AdRoll events wait in the outbox: %s not set [account-missing]",
                " and ".join(missing),
            )
        return tuple(gates)

    def load(self, *, sends: bool = True) -> None:
        """Import all that is needed later; opens nothing.

        :param sends: see :meth:`step`.
        """
        _ = self.outbox.queue, self.outbox.lookups, self.outbox.admin
        if sends and self.gates:
            from . import batch  # noqa: F401

    def sign_of_life(self) -> None:
        """Give a sign of life for all accounts, if it delivers until it is stopped."""
        if self._stays and self.outbox.exists():
            with suppress(model.OutboxFailed):  # a failure here must not end what is under way
                for gate in self.gates:
                    gate.destination.seen()

    # One step

    def _advance(
        self, stop: threading.Event, until: float = 0.0, *, waits: bool = True
    ) -> Progress:
        """Let each account do its steps until nothing is left to do.

        :param until: by ``time.monotonic()``: after that no account begins another step.
        :param waits: ``False``: where there are several accounts, begin their turns and wait for
            none of them.
        :raises OutboxFailed: the outbox cannot be worked with. All accounts were tried.
        """
        self._adopt()
        turns = self._turns.own()
        if len(turns) == 1:
            return self._work_off(turns[0].gate, stop, until)
        self.outbox.ingest.take_in()  # so that it is known whose events are due
        if waits:
            return self._take_turns(turns, stop, until)
        self._begin_turns(turns, stop)
        return Progress()

    def _take_turns(self, turns: list[Turn], stop: threading.Event, until: float) -> Progress:
        """Let the *turns* that have something to do work side by side, and wait for all of them.

        :raises Exception: the first fault of theirs.
        """
        working = [turn for turn in turns if turn.is_under_way]
        wanted = [turn for turn in turns if turn not in working and self._has_work(turn.gate)]
        is_alone = len(working) + len(wanted) == 1
        for turn in wanted:
            if is_alone or not may_start_threads():
                turn.do(stop, until)
            else:
                turn.begin(stop, until)
        return self._results_of(working + wanted)

    def _begin_turns(self, turns: list[Turn], stop: threading.Event) -> None:
        """Let the *turns* that have something to do begin, and wait for none of them.

        If no thread can be started, each of them does one step here. If a turn's last work ended
        with a fault, the fault is counted and logged.
        """
        for turn in turns:
            if turn.is_under_way:
                continue
            if turn.fault is not None:
                turn.trouble = self._tell_of(turn.fault, turn.trouble)
                turn.fault = None
            if time.monotonic() < turn.rests_until or not self._has_work(turn.gate):
                continue
            if may_start_threads():
                turn.begin(stop, until=float("inf"))
            else:
                turn.do(stop, until=0.0)

    @staticmethod
    def _results_of(turns: list[Turn]) -> Progress:
        """Wait for *turns* to end; returns the sum of their progress.

        :raises Exception: the first fault of theirs.
        """
        for turn in turns:
            turn.wait()
        for turn in turns:
            if turn.fault is not None:
                raise turn.fault
        ended = sum(turn.progress.ended for turn in turns)
        return Progress(ended, more=any(turn.progress.more for turn in turns))

    def _adopt(self) -> None:
        """Give the events that were reported without an account to the app's account.

        This is done once a minute: a process that began before the account was set may still
        report such events.
        """
        if self.settings.advertisable_eid and self.monotonic() >= self._adopt_at:
            self.outbox.queue.adopt(self.settings.advertisable_eid)
            self._adopt_at = self.monotonic() + _HOUSEKEEPING

    def _has_work(self, gate: Gate) -> bool:
        """Whether the account has something due, or AdRoll has to be asked again after a stop."""
        is_stopped = gate.destination.state().stopped is not None
        return is_stopped or self.outbox.queue.is_due([gate.destination.account])

    def _work_off(self, gate: Gate, stop: threading.Event, until: float) -> Progress:
        """Steps of an account until there is nothing more to do; at least one."""
        ended = 0
        while True:
            step = Progress() if stop.is_set() else self._step_of(gate, stop)
            ended += step.ended
            if not step.more or stop.is_set() or time.monotonic() >= until:
                return step._replace(ended=ended)

    def _step_of(self, gate: Gate, stop: threading.Event) -> Progress:
        """One step of an account: one claim at most, with its requests."""
        destination = gate.destination.state()
        is_stopped = destination.stopped is not None
        self.sign_of_life()
        if destination.paused_for > 0 and not is_stopped:
            return self._pause(destination.paused_for)
        # An open account claims without asking: the claim tells whether something is due.
        is_open = gate.is_open(destination)
        is_due = is_open or self.outbox.queue.is_due([gate.destination.account])
        if not is_due and not is_stopped:
            return Progress()
        permit = gate.permit(destination)
        if permit is None:
            return self._pause(destination.paused_for or RECHECK)
        if stop.is_set():  # it may have been set while the token's callable answered
            gate.give_up(permit)
            return Progress()
        if permit.is_question:
            permit = gate.try_out(permit, is_due=is_due)
            if permit is None:
                return Progress()
        return self._send(gate, permit, stop, begin=is_open)

    def _send(self, gate: Gate, permit: Permit, stop: threading.Event, *, begin: bool) -> Progress:
        """Claim events and send them.

        :param begin: the claim and the beginning of its request are one commit.
        """
        from .batch import BatchSender
        from .client import MAX_BATCH

        leased_at = time.monotonic()
        limit = MAX_BATCH if permit.probing == "no" else 1
        queue = self.outbox.queue
        claim = queue.claim(gate.destination.account, limit, self.lease, begin=begin)
        sender = BatchSender(gate, queue, claim, permit, self.announce, stop, self.lease, leased_at)
        sender.run()
        # No next step at once where no event came to its end. A claim without events has taken in
        # a part of the journal.
        more = claim.more and bool(sender.ended or not claim.events)
        return Progress(sender.ended, more=more)

    def _pause(self, seconds: float) -> Progress:
        self.outbox.ingest.take_in()  # a claim would do so, and there is none
        return Progress(pause=min(seconds, RECHECK))

    def step(self, stop: threading.Event, *, sends: bool = True, waits: bool = True) -> Progress:
        """One step, with housekeeping now and then. A fault is counted and logged, and not raised.

        :param sends: ``False``: only take in what this host reports.
        :param waits: see :meth:`_advance`.
        """
        self.stepped_at = time.monotonic()
        step = Progress()
        fault: Exception | None = None
        is_there = self.outbox.exists()  # if there is none, to open it would make it
        try:
            if is_there and not sends:
                while self.outbox.ingest.take_in() and not stop.is_set():
                    pass
            elif is_there:
                step = self._advance(stop, waits=waits)
        except Exception as error:
            let_through(error)
            fault = error
        try:
            if is_there:
                self.outbox.database.empty_log()
            if time.monotonic() >= self._clean_at:
                # After a fault, too: housekeeping may make room on the disk.
                self._keep_house(sends=sends, is_there=is_there)
        except Exception as error:
            let_through(error)
            fault = fault or error
        self._trouble = self._tell_of(fault, self._trouble)
        return Progress(step.ended, pause=TROUBLE_LASTS) if self._trouble else step

    def _keep_house(self, *, sends: bool, is_there: bool) -> None:
        more = False
        if is_there:
            more = sends and bool(self.outbox.admin.keep_house())
            self.outbox.clocks.compare(self.clock)
            self.look()
        self._clean_at = time.monotonic() + (_MORE_HOUSEKEEPING if more else _HOUSEKEEPING)
        if sends:
            # Also where there is no outbox: the shop's list may tell that all reports are missing.
            self.also()

    def look(self) -> None:
        """Log once that events wait too long, and once that events no longer come.

        Each is logged again if it ends and then begins again. Late events are looked for at each
        call. Events that no longer come are looked for once in ten minutes.
        """
        try:
            self._look_for_late()
            if time.monotonic() >= self._silent_from:
                self._silent_from = time.monotonic() + _SILENT_EVERY
                self._look_for_silences()
        except model.OutboxFailed as error:
            self.counters.add("delivery_error", error.reason)

    def _look_for_late(self) -> None:
        # Events without an account count, too: perhaps no account takes them over.
        late = self.outbox.queue.oldest_due((*self.accounts, "")) or 0.0
        was_late = self._is_late
        self._is_late = late > LATE
        if self._is_late and not was_late:
            states = self.outbox.lookups.destinations()
            worst = model.worst(states[eid] for eid in self.accounts if eid in states)
            self.counters.add("delivery_late")
            logger.error(
                "AdRoll events have been waiting for %s%s. Is a worker running? See "
                "`flask adroll outbox`. [nobody-delivers]",
                span(late),
                f" (stopped: {worst.stopped})" if worst.stopped else "",
            )

    def _look_for_silences(self) -> None:
        for silence in self.outbox.lookups.note_silences():  # each once, over all processes
            self.counters.add("reports_silent", silence.name)
            logger.error(
                "AdRoll: %s. See `flask adroll history --by hour`. [reports-silent]",
                too_few.sentence_of(silence, self.clock(), self.settings.time_zone),
            )
            self.announce(reports_silent, **silence._asdict())

    def _tell_of(self, fault: Exception | None, before: str) -> str:
        """Count *fault*, and log it unless its name is *before*; returns its name, or ``""``."""
        if fault is None:
            return ""
        reason = fault.reason if isinstance(fault, model.OutboxFailed) else "error"
        self.counters.add("delivery_error", reason)
        if reason != before:
            logger.error("Delivery to AdRoll pauses: %s [delivery-paused]", describe(fault))
        return reason

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
            step = self._advance(stop, until)
            ended += step.ended
            if not step.more or stop.is_set() or time.monotonic() >= until:
                self.outbox.database.empty_log(at_once=True)  # there may be no later call
                return ended

    def flush(self, timeout: float) -> int:
        """Send what is due, in the calling thread; returns how many events are still waiting.

        A request that has begun is waited for.

        :param timeout: seconds after which no further request begins.
        :raises OutboxFailed: the outbox cannot be worked with.
        """
        until = time.monotonic() + timeout
        self.drain(until=until)
        return self.outbox.queue.waiting(self.accounts, until)

    def run(self, stop: threading.Event) -> None:
        """Deliver until *stop* is set; a request under way is finished first.

        A fault does not end the loop: the fault is logged and counted, and the loop goes on after
        a pause. While the loop runs, it gives signs of life for its accounts. So other apps that
        share the outbox know that a worker is there.
        """
        self._stays = True
        never = WakeUp()
        while not stop.is_set():
            self.one_round(stop).take(stop, never, self.sign_of_life)
        for turn in self._turns.own():
            turn.wait()

    def one_round(
        self,
        stop: threading.Event,
        *,
        sends: bool = True,
        in_burst: bool = False,
        flushing: bool = False,
        waits: bool = False,
    ) -> Rest:
        """One step of a loop, and the rest that follows it.

        :param sends: see :meth:`step`.
        :param in_burst: this process reports as fast as it can. Then the loop rests also where
            more is due.
        :param flushing: somebody waits for what is due.
        :param waits: see :meth:`step`.
        """
        step = self.step(stop, sends=sends, waits=waits)
        if step.pause is not None:
            return Rest(step.pause)
        if step.more and (flushing or not in_burst):
            return Rest()
        if step.ended:
            # What was reported while this step sent has woken nobody. So the loop looks again soon.
            return Rest(self.settings.linger)
        return Rest(self.poll, self.outbox.wake_up, self.settings.linger if sends else _GATHER)
