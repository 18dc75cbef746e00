"""Whether a request may go to AdRoll now, and what its answer means for the requests after it.

The state lives in the outbox, since all workers share one destination; here are the rules. What a
destination's trouble means for events is :mod:`.batch`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from adroll_flask.errors import help_url
from adroll_flask.logs import Logger, get_logger
from adroll_flask.outbox.protocol import Destination

from .client import MAX_BATCH, Answer, Credentials, TokenUnavailable
from .parts import Parts
from .pauses import PROBE_LEASE, RECHECK, Pauses, without_token

logger: Logger = get_logger("adroll_flask.delivery")

_WARN_EVERY = 600.0


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission to send.

    :param limit: events that may be claimed under it.
    :param probing: ``down``: this is the one request that may be under way; ``held``: so it is,
        and the destination is held; ``other``: it is held for another configuration than ours.
    :param trial_passed: AdRoll has just taken a trial event.
    """

    credentials: Credentials
    limit: int = MAX_BATCH
    probing: Literal["no", "down", "held", "other"] = "no"
    trial_passed: bool = False


class SendPolicy:
    """One worker's view of the destination.

    :param rng: spreads pauses, so that workers do not come back at the same moment.
    """

    def __init__(self, parts: Parts, rng: Random | None = None) -> None:
        self._outbox = parts.outbox
        self._client = parts.client
        self._settings = parts.settings
        self._counters = parts.counters
        self._clock = parts.clock
        self._monotonic = parts.monotonic
        self.pauses: Pauses = Pauses(rng)
        self._limit = MAX_BATCH
        self._asked_at = 0.0
        self._probes = 0
        self._hold_trial_passed = False
        self._token_failures = 0
        self._token_from = 0.0
        self._refused = ("", 0, 0.0)  # fingerprint, how often in a row, not before
        self._said: set[str] = set()
        self._warn_from = 0.0

    # What may be sent

    def ready(self) -> bool:
        """False where a setting that every request needs is missing; said once."""
        missing = self._settings.missing
        if missing and "settings" not in self._said:
            self._said.add("settings")
            self._counters.add("delivery_held", "not_configured")
            logger.error(
                "AdRoll events wait in the outbox: %s not set (%s)",
                " and ".join(missing),
                help_url("account-missing"),
            )
        return not missing

    @property
    def sends_at_once(self) -> bool:
        """True where nothing is waited for between a claim and its request: no callable that gives
        the token, and no bound on requests a second."""
        settings = self._settings
        return not callable(settings.access_token) and settings.max_requests_per_second is None

    def limit(self, destination: Destination) -> int:
        """How many events to claim: one while AdRoll is down, so that a probe is small."""
        return 1 if destination.failures or destination.held else self._limit

    def credentials(self) -> Credentials | None:
        """The token of now, or ``None`` where its callable fails, which is asked less and less."""
        if self._monotonic() < self._token_from:
            return None
        try:
            credentials = self._client.credentials()
        except TokenUnavailable as error:
            self._token_failures += 1
            self._token_from = self._monotonic() + without_token(self._token_failures)
            self._counters.add("delivery_held", error.reason)
            if error.reason not in self._said:
                self._said.add(error.reason)
                # The class only: an exception's text could hold the token.
                logger.error(
                    "AdRoll events wait in the outbox: ADROLL_ACCESS_TOKEN's callable %s %s (%s)",
                    "raised" if error.reason == "token_failed" else "gave no usable token but",
                    error.kind,
                    help_url("token-callable"),
                )
            return None
        self._token_failures = 0
        self._said -= {"token_failed", "token_invalid"}
        return credentials

    def permit(self, destination: Destination, credentials: Credentials) -> Permit | None:
        """Permission to send now, if no other worker is trying the destination out."""
        fingerprint = credentials.fingerprint
        if destination.held is not None:
            if destination.fingerprint != fingerprint:
                # Held for another token or address. Ours may be the corrected one.
                return None if self._is_refused(fingerprint) else Permit(credentials, 1, "other")
            if not self._outbox.destination.try_probe(fingerprint, PROBE_LEASE):
                return None
            self._probes += 1
            return Permit(credentials, 1, "held")
        if self._is_refused(fingerprint):
            return None
        if destination.failures:
            if not self._outbox.destination.try_probe(fingerprint, PROBE_LEASE):
                return None
            return Permit(credentials, 1, "down")
        return Permit(credentials, self._limit)

    def give_up(self, permit: Permit) -> None:
        """Let others ask: under *permit* nobody did."""
        if permit.probing in ("down", "held"):
            self._outbox.destination.pause(0.0)

    def _is_refused(self, fingerprint: str) -> bool:
        # A process with another configuration may end the hold that ours began. Without a memory
        # of its own, ours would take the end for its own doing, and so on, at full speed.
        return self._refused[0] == fingerprint and self._monotonic() < self._refused[2]

    @property
    def dry_run_is_next(self) -> bool:
        """Whether this probe of a held destination is a made-up event in a dry run.

        Every other one is a waiting event instead: should AdRoll refuse the made-up one for a
        reason of its own, the hold still ends.
        """
        return self._probes % 2 == 1

    def slot(self) -> float:
        """Take the next request's place under ``max_requests_per_second``.

        :returns: 0: it may begin; else seconds after which to ask again.
        """
        rate = self._settings.max_requests_per_second
        return 0.0 if rate is None else min(self._outbox.destination.take_slot(rate), RECHECK)

    def wait_for_slot(self, stop: threading.Event) -> bool:
        """Wait for :meth:`slot`; False: stopping."""
        while wait := self.slot():
            if stop.wait(wait):
                return False
        return not stop.is_set()

    # What came of it

    def accepted(self, permit: Permit, size: int) -> None:
        """A batch of *size* waiting events was taken."""
        if size >= self._limit < MAX_BATCH:
            self._limit += 1
        self._refused = ("", 0, 0.0)
        if permit.probing in ("held", "other") and self._outbox.destination.end_hold():
            logger.warning(
                "AdRoll takes events again: the hold has ended (%s)", help_url("delivery-held")
            )
        if permit.probing != "no":
            self._outbox.destination.succeeded()

    def too_large(self, size: int) -> None:
        """A batch of *size* was too large: the next ones are smaller, and grow back slowly."""
        self._limit = max(1, min(self._limit, size // 2))

    def troubled(self, permit: Permit, answer: Answer) -> None:
        """Note that the destination does not take requests, and let nobody ask for a while."""
        if answer.kind in ("held", "content", "too_large"):
            self._hold(permit, answer)
            return
        failures = self._outbox.destination.failed(answer.words)
        if failures == 1 and self._monotonic() >= self._warn_from:
            self._warn_from = self._monotonic() + _WARN_EVERY
            logger.warning(
                "A request to AdRoll failed (%s); sending pauses (%s)",
                answer.reason,
                help_url("request-failed"),
            )
        pause = answer.retry_after
        if pause is None:
            pause = self.pauses.after_failure(failures, self._monotonic() - self._asked_at)
        self._outbox.destination.pause(pause, answer.words)

    def _hold(self, permit: Permit, answer: Answer) -> None:
        fingerprint = permit.credentials.fingerprint
        reason = answer.reason if answer.kind == "held" else f"{answer.reason}_to_everything"
        began = self._outbox.destination.hold(reason, fingerprint, answer.words)
        times = self._refused[1] + 1 if self._refused[0] == fingerprint else 1
        failures = self._outbox.destination.failed(answer.words)
        if not began:  # a probe failed; other workers' probes count as well
            times = max(times, failures)
        pause = self.pauses.in_hold(times)
        if answer.kind == "too_large":
            self._limit = MAX_BATCH  # it was not the number of events
        self._refused = (fingerprint, times, self._monotonic() + pause)
        self._outbox.destination.pause(pause, answer.words)
        if began:
            self._counters.add("delivery_held", reason)
            logger.error(
                "AdRoll refuses everything (%s): no event is lost or blamed, all wait in the "
                "outbox. Check the access token, both EIDs and ADROLL_API_URL with "
                "`flask adroll check`. (%s)",
                answer.words,
                help_url("delivery-held"),
            )

    # Probing

    def probe(self, permit: Permit, eid: str, pixel_eid: str, size: int = 0) -> Answer:
        """Send one event that is known to be good in a dry run.

        :param size: bytes of its JSON, at least.
        """
        from adroll_flask.events.trial import trial_event

        event = trial_event(eid, pixel_eid, self._clock(), size=size)
        return self.post(permit, [event], dry_run=True, eid=eid)

    def _probe_ours(self, permit: Permit) -> Answer:
        settings = self._settings
        return self.probe(permit, settings.advertisable_eid or "", settings.pixel_eid or "")

    def try_out(self, permit: Permit, stop: threading.Event) -> Permit | None:
        """Ask an AdRoll that is away with a trial event: no order is risked on it.

        A lost answer would make an order unsure, and in many an outage each is lost, although
        AdRoll takes what is sent. Where the trial is refused for its content, AdRoll is there: it
        may have a reason of its own against the trial, so that an event is to find out.

        :returns: *permit* where an event may follow now.
        """
        if self._hold_trial_passed:
            self._hold_trial_passed = False
            return replace(permit, trial_passed=True)
        if not self.wait_for_slot(stop):
            self.give_up(permit)
            return None
        answer = self._probe_ours(permit)
        if answer.kind in ("accepted", "content", "too_large"):
            return replace(permit, trial_passed=answer.kind == "accepted")
        self.troubled(permit, answer)
        return None

    def probe_hold(self, permit: Permit) -> bool:
        """Try a held destination out with a made-up event; True where the hold has ended."""
        answer = self._probe_ours(permit)
        if answer.kind == "accepted":
            if self._outbox.destination.end_hold():
                logger.warning(
                    "AdRoll takes a trial event again: the hold has ended (%s)",
                    help_url("delivery-held"),
                )
            # Still down: only an event that is taken in earnest proves that all is well, and the
            # next request is to be a small one.
            self._outbox.destination.failed("")
            self._refused = (self._refused[0], self._refused[1], 0.0)
            self._hold_trial_passed = True
            return True
        self.troubled(permit, answer)
        return False

    def post(self, permit: Permit, payloads: Sequence[bytes], *, dry_run: bool, eid: str) -> Answer:
        """One request."""
        self._asked_at = self._monotonic()
        return self._client.send(
            payloads, dry_run, credentials=permit.credentials, advertisable_eid=eid
        )
