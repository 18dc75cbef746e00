"""Whether a request of an account may go to AdRoll, and what its answer means for the next.

The state lives in the outbox, since all workers of an account share one destination; here are the
rules. What a destination's trouble means for events is told in :mod:`.batch`.

After a 429 or a 503 an account pauses for as long as ``Retry-After`` says, else for 2 seconds, 4,
8 and so on (:meth:`Gate.troubled`). What each status means, and how long ``Retry-After`` may be,
is told in :mod:`.client`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

from adroll_flask.counters import Counters
from adroll_flask.errors import DeliveryError
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.clocks import AGREES, Clocks
from adroll_flask.outbox.destination import DestinationState
from adroll_flask.outbox.model import Destination, OutboxFailed

from .client import Answer, Client

logger: Logger = get_logger("adroll_flask.delivery")

#: Seconds from one question to the next, at most, while AdRoll is away: its return is noticed
#: within this time. A pause that AdRoll itself asks for may be longer.
MAX_PAUSE: Final = 30.0
#: The same while the destination is stopped.
STOP_PAUSE: Final = 60.0
#: Seconds to the next question at least, however long the last one took.
LEAST_PAUSE = 1.0
#: Seconds after which another worker may ask in the place of one that died while asking: longer
#: than any request takes.
_PROBE_LEASE: Final = 40.0
_WARN_EVERY: Final = 600.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send.

    :param token: the access token to send with.
    :param fingerprint: of the configuration with that token.
    :param probing: ``no``: AdRoll takes events. ``down``: AdRoll is away, and only this request may
        be under way. ``stopped``: the same where the destination is stopped. ``other``: the
        destination is stopped for another configuration than this one.
    """

    token: str = field(repr=False)
    fingerprint: str
    probing: Literal["no", "down", "stopped", "other"] = "no"

    @property
    def is_question(self) -> bool:
        """Whether nobody else may ask AdRoll meanwhile."""
        return self.probing in ("down", "stopped")


@dataclass(eq=False, repr=False, slots=True)
class Gate:
    """One account's way to AdRoll, as one worker sees it.

    :param destination: AdRoll as all workers of the account see it.
    :param client: sends for the account.
    :param whose: names the account in the log, where there are several.
    :param monotonic: seconds, for what only this process waits for.
    :param rng: spreads pauses, so that workers do not come back at the same moment.
    :param sign_of_life: says that the worker is there; never raises.
    :param clocks: where a clock that is wrong is noted.
    """

    destination: DestinationState
    client: Client
    counters: Counters
    whose: str
    monotonic: Callable[[], float]
    rng: Random
    sign_of_life: Callable[[], None]
    clocks: Clocks
    _asked_at: float = 0.0
    #: Whether the last probe of a stopped destination was a trial event. Every other one is a
    #: waiting event instead: should AdRoll refuse the trial for a reason of its own, the stop still
    #: ends.
    _was_trial: bool = False
    _has_no_token: bool = False
    #: A fingerprint that was refused, and until when AdRoll is not asked with it again.
    _refused: tuple[str, float] = ("", 0.0)
    _warn_from: float = 0.0
    #: Whether the present failure was not logged, since another one was within ten minutes.
    _is_quiet: bool = False
    #: Of the last answer that has a time.
    _clock_ahead: float | None = None

    # What may be sent

    def _token(self) -> str | None:
        """The access token; ``None``: its callable failed."""
        try:
            token = self.client.token()
        except DeliveryError as error:
            self.counters.add("delivery_stopped", error.reason)
            if not self._has_no_token:
                self._has_no_token = True
                logger.error(
                    "AdRoll events%s wait in the outbox: ADROLL_ACCESS_TOKEN: %s [token-callable]",
                    self.whose,
                    error,
                )
            return None
        self._has_no_token = False
        return token

    def is_open(self, destination: Destination) -> bool:
        """Whether a request can follow its claim at once, so that one commit does for both.

        A callable that gives the token may take its time.
        """
        is_well = destination.stopped is None and not destination.failures
        return is_well and not callable(self.client.account.access_token)

    def permit(self, destination: Destination) -> Permit | None:
        """Permission to send now.

        It is asked for before events are claimed, since a callable that gives the token may take
        its time.

        :returns: ``None``: there is no token, another worker is trying the destination out, or
            AdRoll has just refused this configuration.
        """
        token = self._token()
        if token is None:
            return None
        is_stopped = destination.stopped is not None
        ours = self.client.fingerprint(token)
        if not is_stopped or destination.fingerprint != ours:
            # A process with another configuration, which AdRoll takes, may end the stop that ours
            # began. Ours would then send, be refused and stop all again, and so on without a pause:
            # so a process remembers until when AdRoll refuses its own configuration.
            fingerprint, until = self._refused
            is_taken = not is_stopped and destination.fingerprint == ours
            if fingerprint == ours and self.monotonic() < until and not is_taken:
                return None
            if is_stopped:  # by another token or address; ours may be the corrected one
                return Permit(token, ours, "other")
            if not destination.failures:
                return Permit(token, ours)
        if not self.destination.try_probe(_PROBE_LEASE):
            return None
        return Permit(token, ours, "stopped" if is_stopped else "down")

    def give_up(self, permit: Permit) -> None:
        """Let others ask: nobody did under *permit*, or AdRoll only refused what an event says."""
        if permit.is_question:
            self.destination.pause(0.0)

    # Requests, and what came of them

    def post(self, permit: Permit, payloads: Sequence[bytes], *, dry_run: bool) -> Answer:
        """One request."""
        self._asked_at = self.monotonic()
        answer = self.client.send(payloads, dry_run, permit.token)
        self._watch_clock(answer)
        return answer

    def _watch_clock(self, answer: Answer) -> None:
        """Tell how this host's clock stands to AdRoll's, where two answers in a row agree."""
        before = self._clock_ahead
        if answer.clock_ahead is None:
            return
        self._clock_ahead = answer.clock_ahead
        if before is None or abs(answer.clock_ahead - before) > AGREES:
            return
        with suppress(OutboxFailed):  # which must not undo what AdRoll took
            self.clocks.tell("adroll", answer.clock_ahead)

    def probe(self, permit: Permit) -> Answer:
        """Send a trial event, in a dry run."""
        from adroll_flask.events.build import trial_event

        event = trial_event(self.client.account, self.client.clock())
        return self.post(permit, [event], dry_run=True)

    def accepted(self, permit: Permit) -> None:
        """A batch of waiting events was taken."""
        self._refused = ("", 0.0)
        if permit.probing in ("stopped", "other"):
            self._end_stop("events", permit)
        if permit.probing == "no":
            return
        was_away = self.destination.succeeded()
        if was_away and permit.probing == "down" and not self._is_quiet:
            logger.warning(
                "AdRoll%s takes requests again: the pause has ended [request-failed]", self.whose
            )

    def _end_stop(self, what: str, permit: Permit) -> None:
        if self.destination.resume(permit.fingerprint):
            logger.warning(
                "AdRoll takes %s%s again: the stop has ended [delivery-stopped]", what, self.whose
            )

    def troubled(self, permit: Permit, answer: Answer) -> None:
        """Note that the destination does not take requests, and let nobody ask for a while."""
        if answer.kind in ("denied", "content", "too_large"):
            self._stop(permit, answer)
            return
        failures = self.destination.failed(answer.words)
        if failures == 1:
            self._is_quiet = self.monotonic() < self._warn_from
            if not self._is_quiet:
                self._warn_from = self.monotonic() + _WARN_EVERY
                logger.warning(
                    "A request to AdRoll%s failed (%s); sending pauses [request-failed]",
                    self.whose,
                    answer.reason,
                )
        pause = answer.retry_after
        if pause is None:
            # 2 seconds, 4, 8 …, from the beginning of one request to that of the next: one that
            # hung until its time-out has waited already.
            pause = self.spread(min(MAX_PAUSE, 2.0 ** min(failures, 10)))
            pause = max(LEAST_PAUSE, pause - (self.monotonic() - self._asked_at))
        if permit.probing == "other":  # which no pause of the destination's keeps
            self._refused = (permit.fingerprint, self.monotonic() + pause)
        self.destination.pause(pause)

    def _stop(self, permit: Permit, answer: Answer) -> None:
        reason = answer.reason if answer.kind == "denied" else f"{answer.reason}_to_everything"
        began = self.destination.stop(reason, permit.fingerprint)
        self.destination.failed(answer.words)
        pause = self.spread(STOP_PAUSE)
        self._refused = (permit.fingerprint, self.monotonic() + pause)
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
        """Find out with a trial event whether AdRoll takes events again.

        No order is risked: a lost answer would make it unsure, and in many outages each answer is
        lost, although AdRoll takes what is sent. A waiting event asks instead in two cases: at
        every other question in a stop; and where AdRoll is back, but refuses the trial for its
        content. It may have a reason of its own against the trial.

        :param is_due: whether an event waits.
        :returns: the permit for one waiting event; ``None``: nothing more is sent now.
        """
        is_stopped = permit.probing == "stopped"
        is_for_event = is_stopped and is_due and self._was_trial
        self._was_trial = is_stopped and not is_for_event
        if is_for_event:
            return permit
        answer = self.probe(permit)
        if not is_stopped and answer.kind in ("content", "too_large"):
            return permit
        if answer.kind != "accepted":
            self.troubled(permit, answer)
            return None
        if is_stopped:
            self._end_stop("a trial event", permit)
            # Still down: only an event that is taken in earnest proves that all is well, and the
            # next request is to be a small one.
            self.destination.failed("")
            self._refused = ("", 0.0)
            if not self.destination.try_probe(_PROBE_LEASE):
                return None
        return permit
