"""One claim's way to AdRoll: its requests, and which event answers for a refusal.

A refusal for its content (400, 422) is tracked down by halving. An event is blamed only while
AdRoll demonstrably takes others: one was accepted since the claim, or a trial event passes. Else
it is the destination that refuses everything, which is held, and nobody is blamed.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .client import MAX_BATCH, Answer
from .counters import Counters
from .gate import MAX_PAUSE, Gate, Leave
from .outbox.protocol import Claim, Claimed, Outbox, OutboxFailed, Outcome
from .settings import Settings

_log = logging.getLogger("adroll_flask.delivery")

_T = TypeVar("_T")

#: Told of each event's end, ``delivered`` or ``dead``, once that is committed.
OnOutcome = Callable[[str, Claimed, str], None]

#: Seconds of a lease. One request takes at most 35: connecting, sending, the answer.
LEASE = 60.0


class _Halt(Exception):
    """Nothing more is sent under this claim."""


@dataclass(frozen=True, slots=True)
class _Letter:
    """One claimed event as it is sent."""

    event: Claimed
    payload: bytes = field(repr=False)
    eid: str
    pixel_eid: str

    @property
    def kin(self) -> tuple[str, bool]:
        """Events that may share a request, and vouch for each other."""
        return self.eid, self.event.dry_run

    @property
    def id(self) -> str:
        return self.event.id


class Round:
    """Sends what was claimed and settles it.

    :param stop: no further request begins once it is set.
    :param lease: seconds for which the events were claimed.
    """

    def __init__(
        self,
        claim: Claim,
        leave: Leave,
        *,
        outbox: Outbox,
        gate: Gate,
        settings: Settings,
        counters: Counters,
        on_outcome: OnOutcome | None,
        stop: threading.Event,
        lease: float = LEASE,
    ) -> None:
        self._claim = claim
        self._leave = leave
        self._outbox = outbox
        self._gate = gate
        self._settings = settings
        self._counters = counters
        self._on_outcome = on_outcome
        self._stop = stop
        self._lease = lease
        self._left = {event.id: event for event in claim.events}
        self._vouched: set[tuple[str, bool]] = set()
        self._suspects: list[tuple[_Letter, Answer]] = []
        self._leased_at = time.monotonic()
        #: Events that reached their end: delivered or dead.
        self.ended = 0

    def run(self) -> None:
        """Send all of the claim, or as much as AdRoll takes.

        :raises OutboxFailed: the outbox could not be worked with; leases lapse by themselves.
        """
        try:
            for letters in self._parts():
                self._send(letters)
            self._judge()
        except _Halt:
            pass
        self._settle([Outcome(id=id, kind="release") for id in self._left])

    # Sending

    def _parts(self) -> list[list[_Letter]]:
        """The claim in requests: by account, and the often tried ones in small company.

        An event that makes AdRoll fail (500) would take its whole batch with it time and again;
        the smaller its company, the fewer go unsure with it, and in the end it is alone. The
        fresh ones go first, the others in any order, so that it does not stand in their way.
        """
        groups: dict[tuple[str, bool, int], list[_Letter]] = {}
        damaged: list[Outcome] = []
        for event in self._claim.events:
            letter = _letter(event, self._settings)
            if letter is None:
                damaged.append(Outcome(id=event.id, kind="dead", reason="damaged"))
                continue
            company = max(1, MAX_BATCH >> max(0, event.attempts - 1))
            groups.setdefault((*letter.kin, company), []).append(letter)
        self._settle(damaged)
        parts: list[tuple[int, float, int, list[_Letter]]] = []
        for (_, _, company), group in groups.items():
            size = min(self._leave.limit, company)
            for start in range(0, len(group), size):
                place = self._gate.spread(1.0) if company < MAX_BATCH else 0.0
                parts.append((-company, place, len(parts), group[start : start + size]))
        return [part[-1] for part in sorted(parts)]

    def _send(self, letters: Sequence[_Letter]) -> bool:
        """One request, and those that its answer asks for; True where AdRoll took it at once."""
        letters = self._begin(letters)
        if not letters:
            return False
        answer = self._gate.post(
            self._leave,
            [letter.payload for letter in letters],
            dry_run=letters[0].event.dry_run,
            eid=letters[0].eid,
        )
        if answer.kind == "accepted":
            self._accepted(letters, answer)
            return True
        if answer.kind == "content":
            self._not_sent(letters)
            if len(letters) > 1:
                self._narrow(letters, answer)
            else:
                self._suspect(letters[0], answer)
        elif answer.kind == "too_large":
            self._gate.too_large(len(letters))
            if len(letters) > 1:
                self._not_sent(letters)
                for part in _halves(letters):
                    self._send(part)
            else:
                self._settle([_dead(letters[0], answer, "too_large")])
        else:
            self._troubled(letters, answer)
        return False

    def _narrow(self, letters: Sequence[_Letter], answer: Answer) -> None:
        """Look for whom a refused batch is refused for: AdRoll's suspects first, or by halves."""
        rest = list(letters)
        for at in answer.suspects(len(letters)):
            rest.remove(letters[at])
            if self._send([letters[at]]):
                break  # AdRoll pointed at a good one: its other hints are worth no more
        if len(rest) == len(letters):
            for part in _halves(rest):
                self._send(part)
        elif rest:
            self._send(rest)

    def _begin(self, letters: Sequence[_Letter]) -> list[_Letter]:
        if self._stop.is_set() or not self._gate.slot(self._stop):
            raise _Halt
        if time.monotonic() - self._leased_at > self._lease / 4:
            if not self._insist(lambda: self._outbox.extend(self._claim, self._lease)):
                self._left.clear()
                raise _Halt
            self._leased_at = time.monotonic()
        ids = [letter.id for letter in letters if letter.id in self._left]
        ours = set(self._outbox.begin_sending(self._claim, ids)) if ids else set()
        for letter in letters:
            if letter.id not in ours:
                self._left.pop(letter.id, None)  # its lease lapsed; another worker has it
        return [letter for letter in letters if letter.id in ours]

    def _accepted(self, letters: Sequence[_Letter], answer: Answer) -> None:
        self._settle([Outcome(id=letter.id, kind="delivered") for letter in letters])
        if answer.errors:
            # "2xx takes the whole batch" (s2s-api.md): to send it again would double it.
            self._counters.add("delivery_warning", "errors_with_success")
            _log.warning("AdRoll took %d events but says: %s", len(letters), answer.words)
        self._gate.accepted(self._leave, len(letters))
        self._vouched.add(letters[0].kin)
        self._condemn()

    def _not_sent(self, letters: Iterable[_Letter]) -> None:
        # AdRoll took none of them (s2s-api.md): they must not count as unsure if we die now.
        self._settle([Outcome(id=letter.id, kind="claimed") for letter in letters])

    def _troubled(self, letters: Sequence[_Letter], answer: Answer) -> None:
        """The destination takes nothing: these events wait, all others of the claim too."""
        if answer.kind == "held":
            self._settle([Outcome(id=letter.id, kind="release") for letter in letters])
            self._gate.troubled(self._leave, answer)
            raise _Halt
        unsure = answer.kind == "unsure"
        attempts = max(letter.event.attempts for letter in letters) + 1
        self._settle(self._again(letters, answer, self._gate.backoff(attempts) if unsure else 0.0))
        self._gate.troubled(self._leave, answer)
        raise _Halt

    def _again(self, letters: Iterable[_Letter], answer: Answer, delay: float) -> list[Outcome]:
        unsure = answer.kind == "unsure"
        outcomes = []
        for letter in letters:
            if unsure and self._settings.on_unsure == "drop":
                outcomes.append(_dead(letter, answer, "unsure", unsure=True))
            elif self._is_too_old(letter.event):
                outcomes.append(_dead(letter, answer, "too_old", unsure=unsure))
            else:
                outcomes.append(
                    Outcome(
                        id=letter.id,
                        kind="retry",
                        error=answer.words,
                        reason=answer.reason,
                        unsure=unsure,
                        delay=delay,
                        blameless=not unsure,
                    )
                )
        return outcomes

    def _is_too_old(self, event: Claimed) -> bool:
        most = self._settings.max_age
        if self._claim.claimed_at - event.created_at <= most:
            return False
        return self._insist(lambda: self._outbox.unheld_age(event)) > most

    # Blame

    def _suspect(self, letter: _Letter, answer: Answer) -> None:
        """AdRoll refused this event alone."""
        alone = not any(other.kin == letter.kin for other, _ in self._suspects)
        self._suspects.append((letter, answer))
        if letter.kin in self._vouched:
            self._condemn()
        elif not alone:
            # The second in a row, and none was taken: time to ask whether any would be.
            self._try_out(letter)

    def _judge(self) -> None:
        """Nothing is left to send: whoever nobody vouched against is tried now."""
        while self._suspects:
            self._try_out(self._suspects[0][0])

    def _try_out(self, letter: _Letter) -> None:
        if self._stop.is_set() or not self._gate.slot(self._stop):
            raise _Halt
        answer = self._gate.probe(self._leave, letter.eid, letter.pixel_eid)
        if answer.kind == "accepted":
            self._vouched.add(letter.kin)
            self._condemn()
            return
        suspects, self._suspects = self._suspects, []
        if answer.kind in ("content", "held", "too_large"):
            # Not released to the head of the queue: another one is tried next time, so that an
            # event that is bad after all does not stand in the way.
            self._settle(
                [
                    Outcome(id=one.id, kind="retry", delay=MAX_PAUSE, blameless=True)
                    for one, _ in suspects
                ]
            )
        else:
            self._settle(self._again((one for one, _ in suspects), _surely(answer), 0.0))
        self._gate.troubled(self._leave, answer)
        raise _Halt

    def _condemn(self) -> None:
        """Blame the suspects for whom it is now known that AdRoll takes others like them."""
        guilty = [pair for pair in self._suspects if pair[0].kin in self._vouched]
        self._suspects = [pair for pair in self._suspects if pair[0].kin not in self._vouched]
        self._settle([_dead(letter, answer, "refused") for letter, answer in guilty])

    # Settling

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        changed = self._insist(lambda: self._outbox.settle(self._claim, outcomes))
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
        dead = Counter(outcome.reason for outcome in outcomes if outcome.kind == "dead")
        for reason, amount in dead.items():
            one = next(o for o in outcomes if o.kind == "dead" and o.reason == reason)
            _log.error(
                "AdRoll events that became dead letters: %d, %s (%s), the first is %s",
                amount,
                reason,
                one.error,
                one.id,
            )

    def _tell(self, kind: str, event: Claimed, reason: str) -> None:
        if self._on_outcome is None:
            return
        try:
            self._on_outcome(kind, event, reason)
        except Exception as error:  # a site's signal receiver
            self._counters.add("receiver_failed", kind)
            _log.error("A receiver of event_%s raised %s", kind, type(error).__name__)

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


def _dead(letter: _Letter, answer: Answer, reason: str, *, unsure: bool = False) -> Outcome:
    return Outcome(id=letter.id, kind="dead", error=answer.words, reason=reason, unsure=unsure)


def _surely(answer: Answer) -> Answer:
    """A trial's answer as it concerns events that were not in its request."""
    return Answer("throttled", answer.reason, answer.status, errors=answer.errors)


def _letter(event: Claimed, settings: Settings) -> _Letter | None:
    """*event* with the EIDs filled in that it was reported without; ``None``: damaged."""
    eid, pixel_eid = settings.advertisable_eid or "", settings.pixel_eid or ""
    # The common case without parsing; a quotation mark within a value would be escaped.
    if (
        f'"advertisable_eid":"{eid}"'.encode() in event.payload
        and f'"pixel_eid":"{pixel_eid}"'.encode() in event.payload
    ):
        return _Letter(event, event.payload, eid, pixel_eid)
    try:
        wire = json.loads(event.payload)
    except ValueError:
        return None
    if not isinstance(wire, dict):
        return None
    own_eid = wire.get("advertisable_eid") or eid
    own_pixel_eid = wire.get("pixel_eid") or pixel_eid
    if not isinstance(own_eid, str) or not isinstance(own_pixel_eid, str):
        return None
    payload = event.payload
    if not wire.get("advertisable_eid") or not wire.get("pixel_eid"):
        wire["advertisable_eid"], wire["pixel_eid"] = own_eid, own_pixel_eid
        payload = json.dumps(wire, separators=(",", ":")).encode()
    return _Letter(event, payload, own_eid, own_pixel_eid)


def _halves(letters: Sequence[_Letter]) -> list[Sequence[_Letter]]:
    middle = (len(letters) + 1) // 2
    return [letters[:middle], letters[middle:]]
