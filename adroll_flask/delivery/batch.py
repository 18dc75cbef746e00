"""One claim's way to AdRoll: its requests, and which event answers for a refusal.

A refusal for its content (400, 422) or its size (413) is tracked down by halving. An event is
blamed only while AdRoll demonstrably takes others: one of the same claim was accepted, or a trial
event passes; for its size only the trial counts, filled to the same size. Else it is the
destination that refuses everything, which is stopped, and nobody is blamed.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, TypeVar

from adroll_flask.forks import each
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.model import Claim, OutboxFailed, Outcome, OutcomeKind, Row
from adroll_flask.outbox.queue import Queue
from adroll_flask.signals import event_delivered, event_rejected

from .client import MAX_BATCH, Answer
from .lane import MAX_STOP_PAUSE, Lane, Permit

logger: Logger = get_logger("adroll_flask.delivery")

_T = TypeVar("_T")

#: Seconds until an event is sent again, by how often it was unsure. Each may double a sale, so
#: after the last one nobody sends it but people.
UNSURE_PAUSES: Final = (8.0, 32.0, 128.0, 512.0, 900.0)
#: Bytes up to which a trial event is filled to the size of the event that was too large; an order
#: with two products has 1,200. A destination that refuses so little refuses nearly everything.
_TRIAL_BYTES: Final = 2048
#: Seconds by which an event may lie ahead that waits for its time: more than a time zone is.
_LONGEST_EARLY: Final = 86_400


class _Halt(Exception):
    """Nothing more is sent under this claim."""


@dataclass(eq=False, repr=False)
class BatchSender:
    """Sends what was claimed and settles it.

    :param announce: sends a signal of each event's end once that is committed; never raises.
    :param stop: no further request begins once it is set.
    :param lease: seconds for which the events were claimed.
    :param leased_at: when, by ``time.monotonic()``.
    """

    lane: Lane
    queue: Queue
    claim: Claim
    permit: Permit
    announce: Callable[..., None]
    stop: threading.Event
    lease: float
    leased_at: float
    #: Events that reached their end: delivered or dead.
    ended: int = 0

    def __post_init__(self) -> None:
        self._left = {event.id: event for event in self.claim.events}
        #: Those that became ``sending`` with the claim itself.
        self._begun = {id for id, event in self._left.items() if event.state == "sending"}
        # Dry runs and others share no request, and do not vouch for each other.
        #: Whether any were accepted that are dry runs (``True``), and such as are not; and the
        #: bytes to which a trial for them was filled that passed.
        self._taken: dict[bool, int] = {}
        #: Events that AdRoll refused alone, and nothing has spoken for or against.
        self._suspects: list[tuple[Row, Answer]] = []

    def run(self) -> None:
        """Send all of the claim, or as much as AdRoll takes.

        :raises OutboxFailed: the outbox could not be worked with; leases lapse by themselves.
        """
        try:
            for events in self._requests():
                self._send(events)
            self._judge(0)
        except _Halt:
            pass
        self._settle_alike(self._left.values(), "return")
        # Else the next question waits until this one's lease is over.
        self.lane.give_up(self.permit)

    # Sending

    def _requests(self) -> list[list[Row]]:
        """The claim in requests: the often unsure ones in small batches, after the fresh ones.

        An event that makes AdRoll fail (500) would take its whole batch with it time and again;
        the smaller its batch, the fewer become unsure with it, and before it has been sent as
        often as it may be it is alone.
        """
        good: list[Row] = []
        rejected: list[Outcome] = []
        for event in each(self.claim.events):
            whole = self._with_eids(event)
            if whole is None:
                rejected.append(Outcome(ids=[event.id], kind="dead", reason="damaged"))
            elif event.unsure and event.attempts > len(UNSURE_PAUSES):
                # The last request with it was cut off, and nobody was there to settle it.
                error = _sent_too_often("lapsed", event.attempts)
                end: dict[str, Any] = {"reason": "unsure", "error": error, "blameless": True}
                rejected.append(Outcome(ids=[event.id], kind="dead", **end))
            else:
                good.append(whole)
        self._settle(rejected)
        requests: list[list[Row]] = []
        alike = attrgetter("attempts", "dry_run")
        for (attempts, _), events in groupby(sorted(good, key=alike), alike):
            group = list(events)
            size = max(1, MAX_BATCH >> 2 * attempts)
            requests += [group[start : start + size] for start in range(0, len(group), size)]
        return requests

    def _with_eids(self, event: Row) -> Row | None:
        """*event* with the EIDs that it was reported without; ``None``: it is damaged."""
        account = self.lane.client.account
        eids = {"advertisable_eid": account.advertisable_eid, "pixel_eid": account.pixel_eid}
        # The common case without parsing; a quotation mark within a value would be escaped.
        payload = event.payload
        said = (f'"{name}":"{eid}"'.encode() for name, eid in eids.items())
        if payload.startswith(b"{") and all(text in payload for text in said):
            return event
        try:
            wire = json.loads(payload)
        except (ValueError, RecursionError):
            return None
        if not isinstance(wire, dict):
            return None
        wire |= {name: wire.get(name) or eid for name, eid in eids.items()}
        return replace(event, payload=json.dumps(wire, separators=(",", ":")).encode())

    def _send(self, events: Sequence[Row]) -> None:
        """One request, and those that its answer asks for."""
        events = self._begin(events)
        if not events:
            return
        payloads = [event.payload for event in events]
        answer = self.lane.post(self.permit, payloads, dry_run=events[0].dry_run)
        if answer.kind == "accepted":
            self._accepted(events, answer)
            return
        if answer.kind not in ("content", "too_large"):
            self._troubled(events, answer)
        # AdRoll took none of them: they must not count as unsure if we die now.
        self._settle_alike(events, "claimed")
        if len(events) == 1:
            self._suspects.append((events[0], answer))
            self._judge()
            return
        middle = (len(events) + 1) // 2
        self._send(events[:middle])
        self._send(events[middle:])

    def _begin(self, events: Sequence[Row]) -> list[Row]:
        """Commit that these may leave now; those that are still ours."""
        self._make_ready()
        left = [event for event in events if event.id in self._left]
        ids = {event.id for event in left}
        # Of a later request a visitor may have said no meanwhile: it is asked for again.
        begun, self._begun = self._begun, set()
        if begun >= ids:
            return left
        ours = self.queue.begin_sending(self.claim, [event.id for event in left])
        for id in ids.difference(ours):
            del self._left[id]  # its lease lapsed; another worker has it
        return [event for event in left if event.id in ours]

    def _make_ready(self) -> None:
        """Before a request: go on only if it may begin, with the lease well before its end."""
        if self.stop.is_set():
            raise _Halt
        # Before the lease is looked at: between that and the request nothing may take long.
        self.lane.seen()
        if time.monotonic() - self.leased_at > self.lease / 4:
            if not self._insist(lambda: self.queue.extend(self.claim, self.lease)):
                self._left.clear()
                raise _Halt
            self.leased_at = time.monotonic()

    def _accepted(self, events: Sequence[Row], answer: Answer) -> None:
        self._settle_alike(events, "delivered")
        if answer.errors:
            # A success takes the whole batch: to send it again would double it.
            self.lane.counters.add("delivery_warning", "errors_with_success")
            logger.warning(
                "AdRoll took %d events%s but says: %s [accepted-with-errors]",
                *(len(events), self.lane.whose, answer.words),
            )
        self.lane.accepted(self.permit)
        self._taken.setdefault(events[0].dry_run, 0)
        self._judge()

    def _troubled(self, events: Sequence[Row], answer: Answer) -> None:
        """The destination takes nothing: these events wait, all others of the claim too."""
        if answer.kind == "denied":
            self._settle_alike(events, "return", asked=answer.asked)
        else:
            self._settle(self._again(events, answer))
        self.lane.troubled(self.permit, answer)
        raise _Halt

    def _again(self, events: Sequence[Row], answer: Answer) -> list[Outcome]:
        """What becomes of events that AdRoll did not take, as far as anybody knows.

        :param events: where the answer is unsure, all were sent equally often.
        """
        unsure, attempts = answer.kind == "unsure", events[0].attempts
        if unsure and self.lane.client.settings.on_unsure == "drop":
            return [_dead(events, answer, "unsure", unsure=True)]
        if unsure and attempts >= len(UNSURE_PAUSES):
            error = _sent_too_often(answer.words, attempts + 1)
            return [replace(_dead(events, answer, "unsure", unsure=True), error=error)]
        # Nobody was asked: that neither counts nor kills, however long it lasts.
        refused = answer.kind != "failed_sure"
        old = [event for event in events if refused and self._is_too_old(event)]
        again = Outcome(
            ids=[event.id for event in events if event not in old],
            kind="retry",
            error=answer.words,
            reason=answer.reason,
            unsure=unsure,
            delay=self.lane.spread(UNSURE_PAUSES[attempts]) if unsure else 0.0,
            blameless=not unsure,
            refused=refused,
            asked=answer.asked,
        )
        return [again, _dead(old, answer, "too_old", unsure=unsure)]

    def _is_too_old(self, event: Row) -> bool:
        """Whether AdRoll has been asked to take *event* for so long, and has not."""
        most = self.lane.client.settings.max_age
        if event.refused_at is None or self.claim.claimed_at - event.refused_at <= most:
            return False
        return self._insist(lambda: self.lane.destination.unstopped_age(event)) > most

    # Blame

    def _judge(self, most: int = 1) -> None:
        """Blame the suspects for whom it is known that AdRoll takes others like them.

        :param most: of more than so many that are left, ask AdRoll by a trial event.
        """
        guilty = [
            (event, said)
            for event, said in self._suspects
            if self._taken.get(event.dry_run, -1) >= _trial_size(event, said)
        ]
        self._suspects = [pair for pair in self._suspects if pair not in guilty]
        self._settle([self._rejected(event, said) for event, said in guilty])
        if len(self._suspects) > most:
            self._probe(*self._suspects[-1])
            self._judge(most)

    def _probe(self, event: Row, refusal: Answer) -> None:
        """Ask by a trial event whether AdRoll takes any that are like *event*."""
        self._make_ready()
        size = _trial_size(event, refusal)
        answer = self.lane.probe(self.permit, size)
        if answer.kind == "accepted":
            self._taken[event.dry_run] = size
            return
        suspects = [one for one, _ in self._suspects]
        if answer.kind in ("content", "denied", "too_large"):
            # Not returned to the head of the queue: another one is tried next time, so that an
            # event that is bad after all does not stand in the way.
            self._settle_alike(suspects, "retry", delay=MAX_STOP_PAUSE, blameless=True)
        else:
            # These events were not in the trial's request.
            theirs = replace(answer, kind="failed_sure")
            self._settle(self._again(suspects, theirs))
        self.lane.troubled(self.permit, answer)
        raise _Halt

    def _rejected(self, event: Row, said: Answer) -> Outcome:
        """The end of *event*; one of a clock that was ahead is asked for until its time has come,
        every 15 minutes at most."""
        ended = _dead([event], said, "too_large" if said.kind == "too_large" else "refused")
        early = event.occurred_at - self.claim.claimed_at
        if not 0 < early <= _LONGEST_EARLY or said.kind == "too_large":
            return ended
        return replace(ended, kind="retry", delay=early + 1, blameless=True)

    # Settling

    def _settle_alike(self, events: Iterable[Row], kind: OutcomeKind, **more: Any) -> None:
        self._settle([Outcome(ids=[event.id for event in events], kind=kind, **more)])

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        outcomes = [outcome for outcome in outcomes if outcome.ids]
        if not outcomes:
            return
        if not self._insist(lambda: self.queue.settle(self.claim, outcomes)):
            # The lease had ended: another worker has these events, and tells of their end.
            for id in (id for outcome in outcomes for id in outcome.ids):
                self._left.pop(id, None)
            self.lane.counters.add("delivery_error", "lease_lost")
            return
        for outcome in outcomes:
            if outcome.kind != "claimed":
                self._tell(outcome, [self._left.pop(id) for id in outcome.ids])
        if dead := [outcome for outcome in outcomes if outcome.kind == "dead"]:
            logger.error(
                "AdRoll events%s that became dead letters: %d, the first is %s, %s (%s) "
                "[dead-letters]",
                *(self.lane.whose, sum(len(one.ids) for one in dead)),
                *(dead[0].ids[0], dead[0].reason, dead[0].error),
            )

    def _tell(self, outcome: Outcome, events: Sequence[Row]) -> None:
        """Count and announce what is settled."""
        count, amount = self.lane.counters.add, len(events)
        if outcome.unsure:
            count("event_unsure", outcome.error.partition(":")[0], amount)
        if outcome.kind == "retry" and outcome.reason:
            count("event_retried", outcome.reason, amount)
        if outcome.kind not in ("delivered", "dead"):
            return
        count(f"event_{outcome.kind}", outcome.reason, amount)
        self.ended += amount
        for event in events:
            told = {"id": event.id, "name": event.name}
            if outcome.kind == "delivered":
                self.announce(event_delivered, **told, unsure=event.unsure)
            else:
                self.announce(event_rejected, **told, reason=outcome.reason)

    def _insist(self, action: Callable[[], _T]) -> _T:
        """Do what must not be given up lightly: an unsettled event that AdRoll took goes twice."""
        began, pause = time.monotonic(), 0.05
        while True:
            try:
                return action()
            except OutboxFailed:
                most = 1.0 if self.stop.is_set() else self.lease / 3
                if time.monotonic() - began > most:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 0.5)


def _trial_size(event: Row, refusal: Answer) -> int:
    """Bytes of the trial event that has to pass before *event* is blamed for its size."""
    return min(len(event.payload), _TRIAL_BYTES) if refusal.kind == "too_large" else 0


def _dead(events: Sequence[Row], answer: Answer, reason: str, *, unsure: bool = False) -> Outcome:
    """The end of *events* as dead letters."""
    said: dict[str, Any] = {"error": answer.words, "asked": answer.asked, "unsure": unsure}
    return Outcome(ids=[event.id for event in events], kind="dead", reason=reason, **said)


def _sent_too_often(words: str, times: int) -> str:
    """What is told of an event that was sent *times* times, the last time with AdRoll's *words*."""
    reason, _, said = words.partition(": ")
    text = f"{reason}: sent {times} times without a certain answer, AdRoll may have taken it"
    return f"{text}: {said}" if said else text
