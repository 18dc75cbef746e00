"""How long nothing is asked of AdRoll: after a refused connection, in a hold, in doubt."""

from __future__ import annotations

import secrets
from random import Random

#: Seconds from one question to the next, at most, while AdRoll is away; so long it takes at most
#: until its return is noticed. A pause that AdRoll itself asks for may be longer.
MAX_PAUSE = 30.0
#: The same while the destination is held; with the request itself less than five minutes.
MAX_HOLD_PAUSE = 270.0
#: Seconds until an event is sent again, by how often it was unsure. Each may double a sale, so
#: after the last one nobody sends it but people.
UNSURE_PAUSES = (8.0, 32.0, 128.0, 512.0, 900.0)
#: Seconds after which a worker that may not send looks again.
RECHECK = 5.0
#: The same while settings are missing: only people end that.
RECHECK_SETTINGS = 60.0
#: Seconds after which another worker may ask in the place of one that died while asking: longer
#: than any request takes.
PROBE_LEASE = 40.0
#: Seconds to the next question at least, however long the last one took.
LEAST_PAUSE = 1.0
_FIRST_HOLD = 30.0
_FIRST_TOKEN_PAUSE = 5.0
_MAX_TOKEN_PAUSE = 300.0


class Pauses:
    """Pauses that double, each half to all of its length, so that no two workers ask at once.

    :param rng: spreads them.
    """

    def __init__(self, rng: Random | None = None) -> None:
        self._rng: Random = secrets.SystemRandom() if rng is None else rng

    def after_failure(self, failures: int, lasted: float) -> float:
        """Seconds after a connection that was refused, a time-out, or another sign of trouble.

        :param failures: how many there were in a row.
        :param lasted: seconds that the last request took: a pause goes from the beginning of one
            request to that of the next, and one that hangs until its time-out has waited already.
        """
        pause = self._spread(_doubled(2.0, failures, MAX_PAUSE))
        return max(LEAST_PAUSE, pause - lasted)

    def in_hold(self, times: int) -> float:
        """Seconds after the destination has refused everything *times* times in a row."""
        return self._spread(_doubled(_FIRST_HOLD, times, MAX_HOLD_PAUSE))

    def after_unsure(self, times: int) -> float:
        """Seconds until an event that was unsure *times* times may be sent again."""
        return self._spread(UNSURE_PAUSES[min(times, len(UNSURE_PAUSES)) - 1])

    def shuffled(self) -> float:
        """A number to sort by where the order shall be any."""
        return self._rng.uniform(0.0, 1.0)

    def _spread(self, most: float) -> float:
        return most * self._rng.uniform(0.5, 1.0)


def without_token(failures: int) -> float:
    """Seconds after the token's callable has failed *failures* times in a row."""
    return _doubled(_FIRST_TOKEN_PAUSE, failures, _MAX_TOKEN_PAUSE)


def _doubled(first: float, times: int, most: float) -> float:
    return min(most, first * 2.0 ** min(times - 1, 10))
