"""Whether a request may go to AdRoll now, and what its answer means for the requests after it.

The state lives in the outbox, since all workers share one destination; here are the rules. What a
destination's trouble means for events is :mod:`.blame`'s.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from .client import MAX_BATCH, Answer, Client, Credentials, TokenUnavailable
from .counters import Counters
from .outbox.protocol import Destination, Outbox
from .settings import Settings

_log = logging.getLogger("adroll_flask.delivery")

#: Seconds; no pause of ours is longer, save one that AdRoll asks for.
MAX_PAUSE = 900.0
#: Seconds after which a worker that may not send looks again.
RECHECK = 5.0
#: The same while the destination is held or the settings are short: only people end that.
RECHECK_HELD = 60.0
_FIRST_HOLD = 30.0
_WARN_EVERY = 600.0


@dataclass(frozen=True, slots=True)
class Leave:
    """Permission to send.

    :param limit: events that may be claimed under it.
    :param probing: ``down``: this is the one request that may be under way; ``held``: so it is,
        and the destination is held; ``other``: it is held for another configuration than ours.
    """

    credentials: Credentials
    limit: int = MAX_BATCH
    probing: Literal["no", "down", "held", "other"] = "no"


class Gate:
    """One worker's view of the destination.

    :param rng: spreads pauses, so that workers do not come back at the same moment.
    :param monotonic: seconds, for what only this process waits for.
    :param lease: seconds after which another worker may try a destination that is down.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: Client,
        settings: Settings,
        counters: Counters,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
        lease: float = 60.0,
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._settings = settings
        self._counters = counters
        self._clock = clock
        self._monotonic = monotonic
        self._rng = secrets.SystemRandom() if rng is None else rng
        self._lease = lease
        self._limit = MAX_BATCH
        self._probes = 0
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
            _log.error("AdRoll events wait in the outbox: %s not set", " and ".join(missing))
        return not missing

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
            pause = min(5.0 * 2 ** min(self._token_failures - 1, 10), 300.0)
            self._token_from = self._monotonic() + pause
            self._counters.add("delivery_held", error.reason)
            if error.reason not in self._said:
                self._said.add(error.reason)
                # The class only: an exception's text could hold the token.
                _log.error(
                    "AdRoll events wait in the outbox: ADROLL_ACCESS_TOKEN's callable %s %s",
                    "raised" if error.reason == "token_failed" else "gave no usable token but",
                    error.kind,
                )
            return None
        self._token_failures = 0
        self._said -= {"token_failed", "token_invalid"}
        return credentials

    def leave(self, destination: Destination, credentials: Credentials) -> Leave | None:
        """Permission to send now, if no other worker is trying the destination out."""
        fingerprint = credentials.fingerprint
        if destination.held is not None:
            if destination.fingerprint != fingerprint:
                # Held for another token or address. Ours may be the mended one.
                return None if self._is_refused(fingerprint) else Leave(credentials, 1, "other")
            if not self._outbox.try_probe(fingerprint, self._lease):
                return None
            self._probes += 1
            return Leave(credentials, 1, "held")
        if self._is_refused(fingerprint):
            return None
        if destination.failures:
            if not self._outbox.try_probe(fingerprint, self._lease):
                return None
            return Leave(credentials, 1, "down")
        return Leave(credentials, self._limit)

    def _is_refused(self, fingerprint: str) -> bool:
        # A process with another configuration may end the hold that ours began. Without a memory
        # of its own, ours would take the end for its own mending, and so on, at full speed.
        return self._refused[0] == fingerprint and self._monotonic() < self._refused[2]

    @property
    def dry_run_is_next(self) -> bool:
        """Whether this probe of a held destination is a made-up event in a dry run.

        Every other one is a waiting event instead: should AdRoll refuse the made-up one for a
        reason of its own, the hold still ends.
        """
        return self._probes % 2 == 1

    def slot(self, stop: threading.Event) -> bool:
        """Wait for the next request's place under ``max_requests_per_second``; False: stopping."""
        rate = self._settings.max_requests_per_second
        while rate is not None:
            wait = self._outbox.take_slot(rate)
            if wait <= 0:
                break
            if stop.wait(min(wait, RECHECK)):
                return False
        return True

    # What came of it

    def accepted(self, leave: Leave, size: int) -> None:
        """A batch of *size* waiting events was taken."""
        if size >= self._limit < MAX_BATCH:
            self._limit += 1
        self._refused = ("", 0, 0.0)
        if leave.probing in ("held", "other") and self._outbox.end_hold():
            _log.warning("AdRoll takes events again: the hold has ended")
        if leave.probing != "no":
            self._outbox.succeeded()

    def too_large(self, size: int) -> None:
        """A batch of *size* was too large: the next ones are smaller, and grow back slowly."""
        self._limit = max(1, min(self._limit, size // 2))

    def troubled(self, leave: Leave, answer: Answer) -> float:
        """Note that the destination does not take requests; returns the pause in seconds."""
        if answer.kind in ("held", "content", "too_large"):
            return self._hold(leave, answer)
        failures = self._outbox.failed(answer.words)
        asked = answer.retry_after
        pause = self.backoff(failures) if asked is None else asked
        if failures == 1 and self._monotonic() >= self._warn_from:
            self._warn_from = self._monotonic() + _WARN_EVERY
            _log.warning("A request to AdRoll failed (%s); sending pauses", answer.reason)
        self._outbox.pause(pause, answer.words)
        return pause

    def backoff(self, attempts: int) -> float:
        """Seconds of an exponential pause with full jitter, at most 15 minutes."""
        return self.spread(min(MAX_PAUSE, 2.0 ** min(attempts, 20)))

    def spread(self, most: float) -> float:
        """Anything between 0 and *most*."""
        return self._rng.uniform(0.0, most)

    def _hold(self, leave: Leave, answer: Answer) -> float:
        fingerprint = leave.credentials.fingerprint
        reason = answer.reason if answer.kind == "held" else f"{answer.reason}_to_everything"
        began = self._outbox.hold(reason, fingerprint, answer.words)
        times = self._refused[1] + 1 if self._refused[0] == fingerprint else 1
        failures = self._outbox.failed(answer.words)
        if not began:  # a probe failed; other workers' probes count as well
            times = max(times, failures)
        pause = min(MAX_PAUSE, _FIRST_HOLD * 2.0 ** min(times - 1, 10))
        pause *= self._rng.uniform(0.75, 1.0)
        self._refused = (fingerprint, times, self._monotonic() + pause)
        self._outbox.pause(pause, answer.words)
        if began:
            self._counters.add("delivery_held", reason)
            _log.error(
                "AdRoll refuses everything (%s): no event is lost or blamed, all wait in the "
                "outbox. Check the access token, both EIDs and ADROLL_API_URL with "
                "`flask adroll check`.",
                answer.words,
            )
        return pause

    # Probing

    def probe(self, leave: Leave, eid: str, pixel_eid: str) -> Answer:
        """Send one event that is known to be good in a dry run."""
        return self._client.send(
            [known_good(eid, pixel_eid, self._clock())],
            True,
            credentials=leave.credentials,
            advertisable_eid=eid,
        )

    def probe_hold(self, leave: Leave) -> bool:
        """Try a held destination out with a made-up event; True where the hold has ended."""
        eid, pixel_eid = self._settings.advertisable_eid or "", self._settings.pixel_eid or ""
        answer = self.probe(leave, eid, pixel_eid)
        if answer.kind == "accepted":
            if self._outbox.end_hold():
                _log.warning("AdRoll takes a trial event again: the hold has ended")
            # Still down: only an event that is taken in earnest proves that all is well, and the
            # next request is to be a small one.
            self._outbox.failed("")
            self._refused = (self._refused[0], self._refused[1], 0.0)
            return True
        self.troubled(leave, answer)
        return False

    def post(self, leave: Leave, payloads: Sequence[bytes], *, dry_run: bool, eid: str) -> Answer:
        """One request."""
        return self._client.send(
            payloads, dry_run, credentials=leave.credentials, advertisable_eid=eid
        )


def known_good(eid: str, pixel_eid: str, now: float) -> bytes:
    """A made-up event with every required field in its documented form, nobody's data in it."""
    return json.dumps(
        {
            "advertisable_eid": eid,
            "pixel_eid": pixel_eid,
            "event_name": "pageView",
            "page_location": "https://example.com/",
            "ip": "192.0.2.1",
            "user_agent": "Mozilla/5.0",
            "timestamp": round(now, 3),
            "identifiers": {
                "first_party_cookie": f"{secrets.token_hex(16)}-{int(now * 1000)}",
            },
        },
        separators=(",", ":"),
    ).encode()
