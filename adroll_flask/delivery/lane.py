"""Whether a request of an account may go to AdRoll, and what its answer means for the next.

The state lives in the outbox, since all workers of an account share one destination; here are the
rules. What a destination's trouble means for events is :mod:`.batch`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, Literal

from adroll_flask.counters import Counters
from adroll_flask.errors import DeliveryError
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.destination import DestinationState
from adroll_flask.outbox.model import Destination

from .client import Answer, Client

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds from one question to the next, at most, while AdRoll is away; so long it takes at most
#: until its return is noticed. A pause that AdRoll itself asks for may be longer.
MAX_PAUSE: Final = 30.0
#: The same while the destination is stopped; with the request itself less than five minutes.
MAX_STOP_PAUSE: Final = 270.0
#: Seconds to the next question at least, however long the last one took.
LEAST_PAUSE = 1.0
#: Seconds after which another worker may ask in the place of one that died while asking: longer
#: than any request takes.
_PROBE_LEASE: Final = 40.0
_WARN_EVERY: Final = 600.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send.

    :param token: the access token of now, and *fingerprint* its configuration's.
    :param probing: ``down``: this is the one request that may be under way; ``stopped``: so it is,
        and the destination is stopped; ``other``: it is stopped for another configuration.
    """

    token: str = field(repr=False)
    fingerprint: str
    probing: Literal["no", "down", "stopped", "other"] = "no"


@dataclass(eq=False, repr=False, slots=True)
class Lane:
    """One account's way to AdRoll, as one worker sees it.

    :param destination: AdRoll as all workers of the account see it.
    :param client: sends for the account.
    :param whose: names the account in the log, where there are several.
    :param monotonic: seconds, for what only this process waits for.
    :param rng: spreads pauses, so that workers do not come back at the same moment.
    :param seen: gives a sign of life of the worker; never raises.
    """

    destination: DestinationState
    client: Client
    counters: Counters
    whose: str
    monotonic: Callable[[], float]
    rng: Random
    seen: Callable[[], None]
    _asked_at: float = 0.0
    #: Whether the last probe of a stopped destination was a trial event. Every other one is a
    #: waiting event instead: should AdRoll refuse the trial for a reason of its own, the stop still
    #: ends.
    _was_trial: bool = False
    _token_failures: int = 0
    _token_from: float = 0.0
    #: A fingerprint, how often it was refused in a row, and until when it is not asked again.
    _refused: tuple[str, int, float] = ("", 0, 0.0)
    _warn_from: float = 0.0

    # What may be sent

    def _token(self) -> str | None:
        """The token of now, or ``None`` where its callable fails, which is asked less and less."""
        if self.monotonic() < self._token_from:
            return None
        try:
            token = self.client.token()
        except DeliveryError as error:
            self._token_failures += 1
            self._token_from = self.monotonic() + _doubled(5.0, self._token_failures, 300.0)
            self.counters.add("delivery_stopped", error.reason)
            if self._token_failures == 1:
                logger.error(
                    "AdRoll events%s wait in the outbox: ADROLL_ACCESS_TOKEN: %s [token-callable]",
                    *(self.whose, error),
                )
            return None
        self._token_failures = 0
        return token

    def permit(self, destination: Destination) -> Permit | None:
        """Permission to send now, if no other worker is trying the destination out.

        To be asked before events are claimed, since a callable that gives the token may take its
        time.
        """
        token, is_stopped = self._token(), destination.stopped is not None
        if token is None:
            return None
        ours = self.client.fingerprint(token)
        if not is_stopped or destination.fingerprint != ours:
            # A process with another configuration may end the stop that ours began. Without a
            # memory of its own, ours would take the end for its own doing, and so on, at full
            # speed.
            fingerprint, _, until = self._refused
            if fingerprint == ours and self.monotonic() < until:
                return None
            if is_stopped:  # by another token or address; ours may be the corrected one
                return Permit(token, ours, "other")
            if not destination.failures:
                return Permit(token, ours)
        if not self.destination.try_probe(_PROBE_LEASE):
            return None
        return Permit(token, ours, "stopped" if is_stopped else "down")

    def give_up(self, permit: Permit) -> None:
        """Let others ask: under *permit* nobody did, or AdRoll only refused what an event says."""
        if permit.probing in ("down", "stopped"):
            self.destination.pause(0.0)

    # Requests, and what came of them

    def post(self, permit: Permit, payloads: Sequence[bytes], *, dry_run: bool) -> Answer:
        """One request."""
        self._asked_at = self.monotonic()
        return self.client.send(payloads, dry_run, permit.token)

    def probe(self, permit: Permit, size: int = 0) -> Answer:
        """Send one event that is known to be good, of *size* bytes at least, in a dry run."""
        from adroll_flask.events.build import trial_event

        event = trial_event(self.client.account, self.client.clock(), size=size)
        return self.post(permit, [event], dry_run=True)

    def accepted(self, permit: Permit) -> None:
        """A batch of waiting events was taken."""
        self._refused = ("", 0, 0.0)
        if permit.probing in ("stopped", "other"):
            self._end_stop("events")
        if permit.probing != "no":
            self.destination.succeeded()

    def _end_stop(self, what: str) -> None:
        if self.destination.resume():
            logger.warning(
                "AdRoll takes %s%s again: the stop has ended [delivery-stopped]", what, self.whose
            )

    def troubled(self, permit: Permit, answer: Answer) -> None:
        """Note that the destination does not take requests, and let nobody ask for a while."""
        if answer.kind in ("denied", "content", "too_large"):
            self._stop(permit, answer)
            return
        failures = self.destination.failed(answer.words)
        if failures == 1 and self.monotonic() >= self._warn_from:
            self._warn_from = self.monotonic() + _WARN_EVERY
            logger.warning(
                "A request to AdRoll%s failed (%s); sending pauses [request-failed]",
                self.whose,
                answer.reason,
            )
        pause = answer.retry_after
        if pause is None:
            # From the beginning of one request to that of the next: one that hung until its
            # time-out has waited already.
            pause = self.spread(_doubled(2.0, failures, MAX_PAUSE))
            pause = max(LEAST_PAUSE, pause - (self.monotonic() - self._asked_at))
        if permit.probing == "other":  # which no pause of the destination's keeps
            self._refused = (permit.fingerprint, 0, self.monotonic() + pause)
        self.destination.pause(pause)

    def _stop(self, permit: Permit, answer: Answer) -> None:
        fingerprint = permit.fingerprint
        reason = answer.reason if answer.kind == "denied" else f"{answer.reason}_to_everything"
        began = self.destination.stop(reason, fingerprint)
        times = self._refused[1] + 1 if self._refused[0] == fingerprint else 1
        failures = self.destination.failed(answer.words)
        if not began:  # a probe failed; other workers' probes count as well
            times = max(times, failures)
        pause = self.spread(_doubled(30.0, times, MAX_STOP_PAUSE))
        self._refused = (fingerprint, times, self.monotonic() + pause)
        self.destination.pause(pause)
        if began:
            self.counters.add("delivery_stopped", reason)
            logger.error(
                "AdRoll refuses everything%s (%s): no event is lost or blamed, all wait in the "
                "outbox. Check the access token, both EIDs and ADROLL_API_URL with "
                "`flask adroll check`. [delivery-stopped]",
                self.whose,
                answer.words,
            )

    def spread(self, most: float) -> float:
        """Half to all of *most* seconds, so that no two workers ask at once."""
        return most * self.rng.uniform(0.5, 1.0)

    # Probing

    def try_out(self, permit: Permit, *, is_due: bool) -> Permit | None:
        """Ask an AdRoll that is away or stopped with a trial event: no order is risked on it.

        A lost answer would make an order unsure, and in many an outage each is lost, although
        AdRoll takes what is sent. Where the trial is refused for its content, AdRoll is there: it
        may have a reason of its own against the trial, so that an event is to find out.

        :param is_due: whether there is one.
        :returns: under what one event may follow now.
        """
        is_stopped = permit.probing == "stopped"
        self._was_trial = is_stopped and not (is_due and self._was_trial)
        if is_stopped and not self._was_trial:
            return permit
        answer = self.probe(permit)
        if not is_stopped and answer.kind in ("content", "too_large"):
            return permit
        if answer.kind != "accepted":
            self.troubled(permit, answer)
            return None
        if is_stopped:
            self._end_stop("a trial event")
            # Still down: only an event that is taken in earnest proves that all is well, and the
            # next request is to be a small one.
            self.destination.failed("")
            self._refused = (*self._refused[:2], 0.0)
            if not self.destination.try_probe(_PROBE_LEASE):
                return None
        return replace(permit, probing="down")


def _doubled(first: float, times: int, most: float) -> float:
    """Seconds of a pause that doubles each time."""
    return min(most, first * 2.0 ** min(times - 1, 10))
