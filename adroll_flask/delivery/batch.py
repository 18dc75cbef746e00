"""One claim's way to AdRoll: its requests, and which event answers for a refusal.

A refusal for its content (400, 422) or its size (413) is tracked down by halving. An event is
blamed only while AdRoll demonstrably takes others: one was accepted since the claim, or a trial
event passes; for its size only the trial counts, filled to the same size. Else it is the
destination that refuses everything, which is held, and nobody is blamed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from adroll_flask.errors import help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.giving_way import each
from adroll_flask.outbox.protocol import Claim, Claimed, OutboxFailed, Outcome

from .client import MAX_BATCH, Answer
from .parts import Parts
from .pauses import MAX_HOLD_PAUSE, UNSURE_PAUSES
from .pending import Pending, asked, dead, halves, pending_of, trial_size, unsure_too_often
from .send_policy import Permit, SendPolicy
from .tracing import traced

logger: Logger = get_logger("adroll_flask.delivery")

_T = TypeVar("_T")

#: Seconds of a lease. One request takes at most 35: connecting, sending, the answer.
LEASE = 60.0


class _Halt(Exception):
    """Nothing more is sent under this claim."""


class BatchSender:
    """Sends what was claimed and settles it.

    :param stop: no further request begins once it is set.
    :param lease: seconds for which the events were claimed.
    :param leased_at: when, by ``time.monotonic()``; default: now.
    """

    def __init__(
        self,
        claim: Claim,
        permit: Permit,
        parts: Parts,
        policy: SendPolicy,
        *,
        stop: threading.Event,
        lease: float = LEASE,
        leased_at: float | None = None,
    ) -> None:
        self._claim = claim
        self._permit = permit
        self._outbox = parts.outbox
        self._policy = policy
        self._settings = parts.settings
        self._counters = parts.counters
        self._on_outcome = parts.on_outcome
        self._stop = stop
        self._lease = lease
        self._tracing = parts.tracing
        self._left = {event.id: event for event in claim.events}
        #: Those that became ``sending`` with the claim itself.
        self._begun = set(self._left) if claim.begun else set()
        self._accepted_groups: set[tuple[str, bool]] = set()
        if permit.trial_passed:
            eid = parts.settings.advertisable_eid or ""
            self._accepted_groups |= {(eid, False), (eid, True)}
        #: By group, the size of the largest trial event that was taken.
        self._trial_sizes: dict[tuple[str, bool], int] = {}
        self._suspects: list[tuple[Pending, Answer]] = []
        self._leased_at = time.monotonic() if leased_at is None else leased_at
        #: Events that reached their end: delivered or dead.
        self.ended: int = 0
        #: Whether any request was made.
        self.asked: bool = False

    def run(self) -> None:
        """Send all of the claim, or as much as AdRoll takes.

        :raises OutboxFailed: the outbox could not be worked with; leases lapse by themselves.
        """
        try:
            for events in self._parts():
                self._send(events)
            self._judge()
        except _Halt:
            pass
        self._settle([Outcome(id=id, kind="release") for id in self._left])

    # Sending

    def _parts(self) -> list[list[Pending]]:
        """The claim in requests: by account, and the often unsure ones in small batches.

        An event that makes AdRoll fail (500) would take its whole batch with it time and again;
        the smaller its batch, the fewer become unsure with it, and before it has been sent as
        often as it may be it is alone. The fresh ones go first, the others in any order, so that
        it does not stand in their way.
        """
        groups: dict[tuple[str, bool, int], list[Pending]] = {}
        rejected: list[Outcome] = []
        for event in each(self._claim.events):
            pending = pending_of(event, self._settings)
            if pending is None:
                rejected.append(Outcome(id=event.id, kind="dead", reason="damaged"))
            elif event.unsure and event.attempts > len(UNSURE_PAUSES):
                # The last request with it was cut off, and nobody was there to settle it.
                rejected.append(unsure_too_often(event, "lapsed", event.attempts))
            else:
                most = max(1, MAX_BATCH >> 2 * event.attempts)
                groups.setdefault((*pending.group, most), []).append(pending)
        self._settle(rejected)
        parts: list[tuple[int, float, int, list[Pending]]] = []
        for (_, _, most), group in groups.items():
            size = min(self._permit.limit, most)
            for start in range(0, len(group), size):
                place = self._policy.pauses.shuffled() if most < MAX_BATCH else 0.0
                parts.append((-most, place, len(parts), group[start : start + size]))
        return [part[-1] for part in sorted(parts)]

    def _send(self, events: Sequence[Pending]) -> bool:
        """One request, and those that its answer asks for; True where AdRoll took it at once."""
        events = self._begin(events)
        if not events:
            return False
        self.asked = True
        with traced(self._tracing(), [pending.event for pending in events]) as told:
            answer = self._policy.post(
                self._permit,
                [pending.payload for pending in events],
                dry_run=events[0].event.dry_run,
                eid=events[0].eid,
            )
            told(answer)
        if answer.kind == "accepted":
            self._accepted(events, answer)
            return True
        if answer.kind == "content":
            self._not_sent(events)
            if len(events) > 1:
                self._narrow(events, answer)
            else:
                self._suspect(events[0], answer)
        elif answer.kind == "too_large":
            self._not_sent(events)
            if len(events) > 1:
                self._policy.too_large(len(events))
                for part in halves(events):
                    self._send(part)
            else:
                self._suspect(events[0], answer)
        else:
            self._troubled(events, answer)
        return False

    def _narrow(self, events: Sequence[Pending], answer: Answer) -> None:
        """Look for whom a refused batch is refused for: AdRoll's suspects first, or by halves."""
        rest = list(events)
        for at in answer.suspects(len(events)):
            rest.remove(events[at])
            if self._send([events[at]]):
                break  # AdRoll pointed at a good one: its other hints are worth no more
        if len(rest) == len(events):
            for part in halves(rest):
                self._send(part)
        elif rest:
            self._send(rest)

    def _begin(self, events: Sequence[Pending]) -> list[Pending]:
        self._wait_for_slot()
        ids = [pending.id for pending in events if pending.id in self._left]
        if self._begun.issuperset(ids):
            self._begun.difference_update(ids)
            return [pending for pending in events if pending.id in self._left]
        ours = set(self._outbox.queue.begin_sending(self._claim, ids)) if ids else set()
        for pending in events:
            if pending.id not in ours:
                self._left.pop(pending.id, None)  # its lease lapsed; another worker has it
        return [pending for pending in events if pending.id in ours]

    def _wait_for_slot(self) -> None:
        """Wait until a request may begin, with the lease well before its end."""
        while True:
            if self._stop.is_set():
                raise _Halt
            if time.monotonic() - self._leased_at > self._lease / 4:
                if not self._insist(lambda: self._outbox.queue.extend(self._claim, self._lease)):
                    self._left.clear()
                    raise _Halt
                self._leased_at = time.monotonic()
            wait = self._policy.slot()
            if not wait:
                return
            self._stop.wait(wait)

    def _accepted(self, events: Sequence[Pending], answer: Answer) -> None:
        self._settle([Outcome(id=pending.id, kind="delivered") for pending in events])
        if answer.errors:
            # "2xx takes the whole batch" (s2s-api.md): to send it again would double it.
            self._counters.add("delivery_warning", "errors_with_success")
            logger.warning(
                "AdRoll took %d events but says: %s (%s)",
                len(events),
                answer.words,
                help_url("accepted-with-errors"),
            )
        self._policy.accepted(self._permit, len(events))
        self._accepted_groups.add(events[0].group)
        self._reject_suspects()

    def _not_sent(self, events: Iterable[Pending]) -> None:
        # AdRoll took none of them (s2s-api.md): they must not count as unsure if we die now.
        self._settle([Outcome(id=pending.id, kind="claimed") for pending in events])

    def _troubled(self, events: Sequence[Pending], answer: Answer) -> None:
        """The destination takes nothing: these events wait, all others of the claim too."""
        if answer.kind == "held":
            said = asked(answer)
            self._settle([Outcome(id=pending.id, kind="release", asked=said) for pending in events])
        else:
            self._settle([self._again(pending, answer) for pending in events])
        self._policy.troubled(self._permit, answer)
        raise _Halt

    def _again(self, pending: Pending, answer: Answer) -> Outcome:
        """What becomes of an event that AdRoll did not take, as far as anybody knows."""
        event = pending.event
        unsure = answer.kind == "unsure"
        # Nobody was asked: that neither counts nor kills, however long it lasts.
        refused = answer.kind != "failed_sure"
        if unsure and self._settings.on_unsure == "drop":
            return dead(pending, answer, "unsure", unsure=True)
        if unsure and event.attempts >= len(UNSURE_PAUSES):
            return unsure_too_often(event, answer.words, event.attempts + 1, answer)
        if refused and self._is_too_old(event):
            return dead(pending, answer, "too_old", unsure=unsure)
        return Outcome(
            id=event.id,
            kind="retry",
            error=answer.words,
            reason=answer.reason,
            unsure=unsure,
            delay=self._policy.pauses.after_unsure(event.attempts + 1) if unsure else 0.0,
            blameless=not unsure,
            refused=refused,
            asked=asked(answer),
        )

    def _is_too_old(self, event: Claimed) -> bool:
        """Whether AdRoll has been asked to take *event* for so long, and has not."""
        if event.refused_at is None:
            return False
        most = self._settings.max_age
        if self._claim.claimed_at - event.refused_at <= most:
            return False
        return self._insist(lambda: self._outbox.destination.unheld_age(event)) > most

    # Blame

    def _suspect(self, pending: Pending, answer: Answer) -> None:
        """AdRoll refused this event alone."""
        alone = not any(other.group == pending.group for other, _ in self._suspects)
        self._suspects.append((pending, answer))
        if self._is_guilty(pending, answer):
            self._reject_suspects()
        elif not alone:
            # The second in a row, and none was taken: time to ask whether any would be.
            self._probe(pending, answer)

    def _judge(self) -> None:
        """Nothing is left to send: whom nothing has spoken for or against is tried now."""
        while self._suspects:
            self._probe(*self._suspects[0])

    def _probe(self, pending: Pending, refusal: Answer) -> None:
        self._wait_for_slot()
        size = trial_size(pending) if refusal.kind == "too_large" else 0
        self.asked = True
        answer = self._policy.probe(self._permit, pending.eid, pending.pixel_eid, size)
        if answer.kind == "accepted":
            self._accepted_groups.add(pending.group)
            self._trial_sizes[pending.group] = max(size, self._trial_sizes.get(pending.group, 0))
            self._reject_suspects()
            return
        suspects, self._suspects = self._suspects, []
        if answer.kind in ("content", "held", "too_large"):
            # Not released to the head of the queue: another one is tried next time, so that an
            # event that is bad after all does not stand in the way.
            self._settle(
                [
                    Outcome(id=one.id, kind="retry", delay=MAX_HOLD_PAUSE, blameless=True)
                    for one, _ in suspects
                ]
            )
        else:
            # These events were not in the trial's request.
            answer_for_them = Answer(
                "failed_sure", answer.reason, answer.status, errors=answer.errors
            )
            self._settle([self._again(one, answer_for_them) for one, _ in suspects])
        self._policy.troubled(self._permit, answer)
        raise _Halt

    def _is_guilty(self, pending: Pending, refusal: Answer) -> bool:
        """Whether AdRoll is known to take others like it."""
        if refusal.kind == "too_large":
            return self._trial_sizes.get(pending.group, 0) >= trial_size(pending)
        return pending.group in self._accepted_groups

    def _reject_suspects(self) -> None:
        """Blame the suspects for whom it is now known that AdRoll takes others like them."""
        guilty = [pair for pair in self._suspects if self._is_guilty(*pair)]
        self._suspects = [pair for pair in self._suspects if pair not in guilty]
        self._settle(
            [
                dead(pending, answer, "too_large" if answer.kind == "too_large" else "refused")
                for pending, answer in guilty
            ]
        )

    # Settling

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        changed = self._insist(lambda: self._outbox.queue.settle(self._claim, outcomes))
        if not changed:
            # The lease had ended: another worker has these events, and tells of their end.
            for outcome in outcomes:
                self._left.pop(outcome.id, None)
            self._counters.add("delivery_error", "lease_lost")
            return
        tally: Counter[tuple[str, str]] = Counter()
        for outcome in outcomes:
            if outcome.kind == "claimed":
                continue
            event = self._left.pop(outcome.id)
            if outcome.unsure:
                tally["event_unsure", outcome.error.partition(":")[0]] += 1
            if outcome.kind == "delivered":
                tally["event_delivered", ""] += 1
            elif outcome.kind == "dead":
                tally["event_dead", outcome.reason] += 1
            elif outcome.kind == "retry" and outcome.reason:
                tally["event_retried", outcome.reason] += 1
            if outcome.kind in ("delivered", "dead"):
                self.ended += 1
                self._tell(outcome.kind, event, outcome.reason)
        for (name, reason), amount in tally.items():
            self._counters.add(name, reason, amount)
        ends = Counter(outcome.reason for outcome in outcomes if outcome.kind == "dead")
        for reason, amount in ends.items():
            one = next(o for o in outcomes if o.kind == "dead" and o.reason == reason)
            ended = (amount, reason, one.error, one.id)
            logger.error(
                "AdRoll events that became dead letters: %d, %s (%s), the first is %s (%s)",
                *ended,
                help_url("dead-letters"),
            )

    def _tell(self, kind: str, event: Claimed, reason: str) -> None:
        if self._on_outcome is None:
            return
        try:
            self._on_outcome(kind, event, reason)
        except Exception as error:  # a site's signal receiver
            let_through(error)
            self._counters.add("receiver_failed", kind)
            fault = type(error).__name__
            logger.error(
                "A receiver of event_%s raised %s (%s)", kind, fault, help_url("receiver-failed")
            )

    def _insist(self, action: Callable[[], _T]) -> _T:
        """Do what must not be given up lightly: an unsettled event that AdRoll took goes twice."""
        pause = 0.05
        until = time.monotonic() + self._lease / 3
        while True:
            try:
                return action()
            except OutboxFailed:
                if time.monotonic() + pause > until:
                    raise
            if self._stop.is_set():
                until = min(until, time.monotonic() + 1.0)
                time.sleep(pause)
            else:
                self._stop.wait(pause)
            pause = min(2 * pause, 2.0)
