"""One claim's way to AdRoll: its requests, and what becomes of its events after each answer.

A request that AdRoll refuses for its content (400, 422) or its size (413) is sent again in two
halves, down to single events. An event is blamed only while AdRoll is known to take others: it
accepted one of the same claim, or a trial event. Otherwise AdRoll refuses everything: the
destination is stopped, and no event is blamed. What was not taken (429, 503), or is unsure, waits
again (:meth:`BatchSender._again`). What the body of a request looks like is told in :mod:`.client`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from adroll_flask.forks import each
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.model import (
    ERRORS_NAMED,
    BriefRow,
    Claim,
    OutboxFailed,
    Outcome,
    OutcomeKind,
)
from adroll_flask.outbox.queue import Queue
from adroll_flask.signals import event_delivered, event_rejected
from adroll_flask.times import DAY

from .client import MAX_BATCH, Answer
from .pauses_and_stops import STOP_PAUSE, Gate, Permit

logger: Logger = get_logger("adroll_flask.delivery")

_T = TypeVar("_T")

#: Seconds until an event is sent again, by how often it was unsure. Each time the sale may be
#: counted twice, so after the last one only a person can have it sent again.
UNSURE_PAUSES: Final = (8.0, 32.0, 128.0, 512.0, 900.0)
#: Seconds until something is tried again that the outbox did not take.
_AGAIN: Final = 0.1


class _Halt(Exception):
    """Nothing more is sent under this claim."""


class _Suspect(NamedTuple):
    """An event that AdRoll refused when it was sent alone. Whether AdRoll refuses all is not known
    yet."""

    event: BriefRow
    refusal: Answer


@dataclass(eq=False, repr=False)
class BatchSender:
    """Sends what was claimed and settles it.

    :param announce: sends a signal of each event's end once that is committed; never raises.
    :param stop: no further request begins once it is set.
    :param lease: seconds for which the events were claimed.
    :param leased_at: when, by ``time.monotonic()``.
    """

    gate: Gate
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
        #: The claim's events that are not settled yet, by their ids.
        self._open = {event.id: event for event in self.claim.events}
        #: Those that became ``sending`` with the claim itself.
        self._begun = set(self._open) if self.claim.is_sending else set()
        account = self.gate.client.account
        self._eids = {name: getattr(account, name) for name in ("advertisable_eid", "pixel_eid")}
        self._eids_in_json = [f'"{name}":"{eid}"'.encode() for name, eid in self._eids.items()]
        #: Values of ``dry_run`` with which AdRoll is known to take events: it accepted events of
        #: the claim, or a trial event in the place of a suspect. Dry runs tell nothing of others.
        self._taken: set[bool] = set()
        self._suspects: list[_Suspect] = []

    def run(self) -> None:
        """Send all of the claim, or as much as AdRoll takes.

        :raises OutboxFailed: the outbox could not be worked with; leases lapse by themselves.
        """
        try:
            for events in self._requests():
                self._send(events)
            self._judge(leave=0)
        except _Halt:
            pass
        self._settle_alike(self._open.values(), "return")
        # Else no worker would ask AdRoll again until this permit's lease is over.
        self.gate.give_up(self.permit)

    # Sending

    def _requests(self) -> list[list[BriefRow]]:
        """The claim as requests: fresh events first; those that were often unsure in small ones.

        An event that makes AdRoll fail (500) makes all events of its request unsure, each time. In
        a smaller request these are fewer. In its last attempts the event is alone.
        """
        good: list[BriefRow] = []
        rejected: list[Outcome] = []
        for event in each(self.claim.events):
            if event.unsure and event.attempts > len(UNSURE_PAUSES):
                # The last request with it was cut off, and nobody was there to settle it.
                error = _sent_too_often("lapsed", event.attempts)
                rejected.append(Outcome([event.id], "dead", reason="unsure", error=error))
            elif self._complete(event):
                good.append(event)
            else:
                rejected.append(Outcome([event.id], "dead", reason="damaged"))
        self._settle(rejected)
        requests: list[list[BriefRow]] = []
        alike = attrgetter("attempts", "dry_run")
        for (attempts, _), events in groupby(sorted(good, key=alike), alike):
            group = list(events)
            size = max(1, MAX_BATCH // 4**attempts)
            requests += [group[start : start + size] for start in range(0, len(group), size)]
        return requests

    def _complete(self, event: BriefRow) -> bool:
        """Give *event* the EIDs that it was reported without; ``False``: it is damaged."""
        payload = event.payload
        # The common case without parsing; a quotation mark within a value would be escaped.
        first, second = self._eids_in_json
        if payload[:1] == b"{" and first in payload and second in payload:
            return True
        try:
            wire = json.loads(payload)
        except (ValueError, RecursionError):
            return False
        if not isinstance(wire, dict):
            return False
        wire |= {name: wire.get(name) or eid for name, eid in self._eids.items()}
        event.payload = json.dumps(wire, separators=(",", ":")).encode()
        return True

    def _send(self, events: Sequence[BriefRow]) -> None:
        """One request, and those that its answer asks for."""
        events = self._begin(events)
        if not events:
            return
        payloads = [event.payload for event in events]
        answer = self.gate.post(self.permit, payloads, dry_run=events[0].dry_run)
        if answer.kind == "accepted":
            self._accepted(events, answer)
            return
        if answer.kind not in ("content", "too_large"):
            self._not_taken(events, answer)
        # AdRoll took none of them: they must not count as unsure if we die now.
        self._settle_alike(events, "claimed")
        if len(events) == 1:
            self._suspects.append(_Suspect(events[0], answer))
            self._judge(leave=1)
            return
        middle = (len(events) + 1) // 2
        self._send(events[:middle])
        self._send(events[middle:])

    def _begin(self, events: Sequence[BriefRow]) -> list[BriefRow]:
        """Commit that *events* may leave now; returns those that are still ours."""
        self._make_ready()
        still_open = [event for event in events if event.id in self._open]
        ids = [event.id for event in still_open]
        begun = self._begun
        # For the first request alone. While it is under way a visitor may withdraw consent, so the
        # outbox is asked before each later one.
        self._begun = set()
        if begun.issuperset(ids):
            return still_open
        ours = self.queue.begin_sending(self.claim, ids)
        for id in set(ids).difference(ours):
            del self._open[id]  # its lease lapsed; another worker has it
        return [event for event in still_open if event.id in ours]

    def _make_ready(self) -> None:
        """Make sure that a request may begin now. Extend the lease where a part of it is over.

        :raises _Halt: no request may begin, or the lease has ended.
        """
        if self.stop.is_set():
            raise _Halt
        # Before the lease is looked at: between that and the request nothing may take long.
        self.gate.sign_of_life()
        if time.monotonic() - self.leased_at > self.lease / 4:
            if not self._insist(lambda: self.queue.extend(self.claim, self.lease)):
                self._open.clear()
                raise _Halt
            self.leased_at = time.monotonic()

    def _accepted(self, events: Sequence[BriefRow], answer: Answer) -> None:
        reason = ERRORS_NAMED if answer.errors else ""
        self._settle_alike(events, "delivered", reason=reason)
        if answer.errors:
            # A success takes the whole batch: to send it again would double it.
            self.gate.counters.add("delivery_warning", "errors_with_success")
            logger.warning(
                "AdRoll took %d events%s but says: %s [accepted-with-errors]",
                len(events),
                self.gate.whose,
                answer.words,
            )
        self.gate.accepted(self.permit)
        self._taken.add(events[0].dry_run)
        self._judge(leave=1)

    def _not_taken(self, events: Sequence[BriefRow], answer: Answer) -> NoReturn:
        """AdRoll takes nothing at the moment: these events and the rest of the claim wait.

        :raises _Halt: always.
        """
        if answer.kind == "denied":
            self._settle_alike(events, "return", asked=answer.asked)
        else:
            self._settle(self._again(events, answer))
        self.gate.troubled(self.permit, answer)
        raise _Halt

    def _again(self, events: Sequence[BriefRow], answer: Answer) -> list[Outcome]:
        """What becomes of events that AdRoll did not take, as far as anybody knows.

        :param events: where the answer is unsure, all were sent equally often.
        """
        unsure = answer.kind == "unsure"
        attempts = events[0].attempts
        if unsure and self.gate.client.settings.on_unsure == "drop":
            return [_dead_letters(events, answer, "unsure")]
        if unsure and attempts >= len(UNSURE_PAUSES):
            error = _sent_too_often(answer.words, attempts + 1)
            return [replace(_dead_letters(events, answer, "unsure"), error=error)]
        # Where AdRoll was not reached, no event becomes too old.
        refused = answer.kind != "failed_sure"
        old = [event for event in events if refused and self._is_too_old(event)]
        again = Outcome(
            ids=[event.id for event in events if event not in old],
            kind="retry",
            error=answer.words,
            reason=answer.reason,
            unsure=unsure,
            delay=self.gate.spread(UNSURE_PAUSES[attempts]) if unsure else 0.0,
            refused=refused,
            asked=answer.asked,
        )
        return [again, _dead_letters(old, answer, "too_old")]

    def _is_too_old(self, event: BriefRow) -> bool:
        """Whether AdRoll has refused *event* for longer than ``ADROLL_MAX_AGE``."""
        # In a stop nothing grows old; its time is left out once it has ended.
        if event.refused_at is None or self.permit.probing in ("stopped", "other"):
            return False
        most = self.gate.client.settings.max_age
        return self.claim.claimed_at - event.refused_at > most

    # Blame

    def _judge(self, *, leave: int) -> None:
        """Blame suspects, as far as AdRoll is known to take other events.

        :param leave: so many suspects may wait, since a later request may tell of them. For more
            AdRoll is asked with a trial event.
        """
        self._blame_known()
        while len(self._suspects) > leave:
            self._ask_with_trial(self._suspects[-1])
            self._blame_known()

    def _blame_known(self) -> None:
        """Blame the suspects for whom it is known that AdRoll takes others like them."""
        guilty = [suspect for suspect in self._suspects if suspect.event.dry_run in self._taken]
        self._suspects = [suspect for suspect in self._suspects if suspect not in guilty]
        self._settle([self._rejected(suspect) for suspect in guilty])

    def _ask_with_trial(self, suspect: _Suspect) -> None:
        """Ask by a trial event whether AdRoll takes any.

        :raises _Halt: it does not: no event is to blame.
        """
        self._make_ready()
        answer = self.gate.probe(self.permit)
        if answer.kind == "accepted":
            self._taken.add(suspect.event.dry_run)
            return
        self._put_off_suspects(answer)
        self.gate.troubled(self.permit, answer)
        raise _Halt

    def _put_off_suspects(self, answer: Answer) -> None:
        """Let the suspects wait, since AdRoll does not take the trial either."""
        suspects = [suspect.event for suspect in self._suspects]
        if answer.kind in ("content", "denied", "too_large"):
            # Put off, and not returned to the head of the queue: the next question to AdRoll is
            # asked with another event. If one of the suspects is at fault after all, it does not
            # block that question.
            self._settle_alike(suspects, "retry", delay=STOP_PAUSE)
        else:
            # These events were not in the trial's request.
            theirs = replace(answer, kind="failed_sure")
            self._settle(self._again(suspects, theirs))

    def _rejected(self, suspect: _Suspect) -> Outcome:
        """What becomes of a suspect's event: a dead letter, or a later attempt.

        If the event's time is still to come, the clock that gave it was ahead. The event is sent
        again until its time has come. It waits at most
        :data:`adroll_flask.outbox.queue.LONGEST_DELAY` seconds each time. An event that is too
        large, or more than a day ahead, becomes a dead letter at once.
        """
        event, refusal = suspect
        if refusal.kind == "too_large":
            return _dead_letters([event], refusal, "too_large")
        ended = _dead_letters([event], refusal, "refused")
        early = event.occurred_at - self.claim.claimed_at
        if 0 < early <= DAY:  # a wrong time zone is less than a day
            return replace(ended, kind="retry", delay=early + 1)
        return ended

    # Settling

    def _settle_alike(self, events: Iterable[BriefRow], kind: OutcomeKind, **more: Any) -> None:
        self._settle([Outcome(ids=[event.id for event in events], kind=kind, **more)])

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        outcomes = [outcome for outcome in outcomes if outcome.ids]
        if not outcomes:
            return
        if not self._insist(lambda: self.queue.settle(self.claim, outcomes)):
            # The lease had ended: another worker has these events, and tells of their end.
            for outcome in outcomes:
                for id in outcome.ids:
                    self._open.pop(id, None)
            self.gate.counters.add("delivery_error", "lease_lost")
            return
        for outcome in outcomes:
            if outcome.kind != "claimed":
                self._tell(outcome, [self._open.pop(id) for id in outcome.ids])
        dead = [outcome for outcome in outcomes if outcome.kind == "dead"]
        if dead:
            logger.error(
                "AdRoll events%s that became dead letters: %d, the first is %s, %s (%s) "
                "[dead-letters]",
                self.gate.whose,
                sum(len(outcome.ids) for outcome in dead),
                dead[0].ids[0],
                dead[0].reason,
                dead[0].error,
            )

    def _tell(self, outcome: Outcome, events: Sequence[BriefRow]) -> None:
        """Count and announce what is settled."""
        count = self.gate.counters.add
        if outcome.unsure:
            count("event_unsure", outcome.error.partition(":")[0], len(events))
        if outcome.kind == "retry" and outcome.reason:
            count("event_retried", outcome.reason, len(events))
        if outcome.kind not in ("delivered", "dead"):
            return
        count(f"event_{outcome.kind}", outcome.reason, len(events))
        self.ended += len(events)
        for event in events:
            if outcome.kind == "delivered":
                self.announce(event_delivered, id=event.id, name=event.name, unsure=event.unsure)
            else:
                self.announce(event_rejected, id=event.id, name=event.name, reason=outcome.reason)

    def _insist(self, action: Callable[[], _T]) -> _T:
        """Do *action*. Where it fails, do it again for a while.

        An event that AdRoll took and that is not settled would be sent twice.
        """
        began = time.monotonic()
        while True:
            try:
                return action()
            except OutboxFailed:
                most = 1.0 if self.stop.is_set() else self.lease / 3
                if time.monotonic() - began > most:
                    raise
            time.sleep(_AGAIN)


def _dead_letters(events: Sequence[BriefRow], answer: Answer, reason: str) -> Outcome:
    """The end of *events* as dead letters."""
    return Outcome(
        ids=[event.id for event in events],
        kind="dead",
        reason=reason,
        error=answer.words,
        asked=answer.asked,
        unsure=answer.kind == "unsure",
    )


def _sent_too_often(words: str, times: int) -> str:
    """The error of an event that was sent *times* times, the last time with AdRoll's *words*."""
    reason, _, of_adroll = words.partition(": ")
    text = f"{reason}: sent {times} times without a certain answer, AdRoll may have taken it"
    return f"{text}: {of_adroll}" if of_adroll else text
