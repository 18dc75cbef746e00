"""AdRoll as all workers of one account see it: pauses, stops, the one probe."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from . import model, schema
from .schema import Tx

#: Seconds that a pause of the destination may last; more comes from a clock that was wrong.
LONGEST_PAUSE: Final = 3600.0
#: Seconds between two signs of life of a worker.
SEEN_EVERY: Final = 20.0
_MINE: Final = "advertisable_eid = :account"
#: That no pause is on. A pause is over, too, where the clock went back since it began: it ends
#: further off than any that we set, or the failure that it follows is in the future.
_IS_OVER: Final = (
    f"(paused_until <= :now OR paused_until > :now + {LONGEST_PAUSE + model.SKEW}"
    f" OR coalesce(last_error_at, 0) > :now + {model.SKEW})"
)


def know(tx: Tx, accounts: Iterable[str]) -> None:
    """Give each of *accounts* its row; every account of an event has one."""
    for account in sorted(set(accounts) - set(accounts_of(tx))):
        schema.insert(tx, "adroll_account", advertisable_eid=account)


def accounts_of(tx: Tx) -> list[str]:
    """All accounts that the outbox knows."""
    rows = tx.rows("SELECT advertisable_eid FROM adroll_account ORDER BY advertisable_eid")
    return [row[0] for row in rows]


def states_of(tx: Tx) -> dict[str, model.Destination]:
    """AdRoll as the workers of each account see it."""
    rows = tx.rows(
        f"SELECT advertisable_eid, CASE WHEN {_IS_OVER} THEN 0.0 ELSE paused_until - :now END,"
        " stopped, fingerprint, stopped_since, failures, last_error, last_error_at,"
        " CASE WHEN seen_at > :now THEN 0.0 ELSE :now - seen_at END,"
        " CASE WHEN paused_until > :now THEN 0.0 ELSE :now - paused_until END"
        " FROM adroll_account ORDER BY advertisable_eid"
    )
    return {account: model.Destination(*state) for account, *state in rows}


@dataclass(slots=True)
class DestinationState:
    """One account's row, which its workers share.

    Its methods raise :class:`.model.OutboxFailed` where the database cannot be worked with.

    :param account: the advertisable EID.
    """

    database: schema.Database
    account: str
    _seen_at: float = float("-inf")

    def _update(self, tx: Tx, becomes: str, where: str = "", **values: Any) -> int:
        know(tx, [self.account])
        statement = f"UPDATE adroll_account SET {becomes} WHERE {_MINE}{where}"
        return tx.execute(statement, account=self.account, **values)

    def _write(self, becomes: str, where: str = "") -> int:
        """The same in a transaction of its own."""
        return self.database.write(lambda tx: self._update(tx, becomes, where))

    def state(self) -> model.Destination:
        """The destination's present state."""
        return self.database.read(states_of).get(self.account, model.Destination())

    def seen(self) -> None:
        """Tell that a worker stays with the account; cheap, often a comparison."""
        if time.monotonic() - self._seen_at < SEEN_EVERY:
            return
        self._write("seen_at = :now")
        self._seen_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Let no worker send for *seconds*; a longer pause stays. Ends a probe."""
        until = f":now + {min(max(seconds, 0.0), LONGEST_PAUSE)}"
        longer = f"paused_until > {until} AND NOT {_IS_OVER}"
        self._write(
            f"paused_until = CASE WHEN {longer} THEN paused_until ELSE {until} END, probe_until = 0"
        )

    def stop(self, reason: str, fingerprint: str) -> bool:
        """Stop sending until :meth:`resume`. Ends a probe. Call :meth:`failed` after it.

        :returns: whether that is new: sending was not stopped, or for another reason or under
            another configuration.
        """

        def begin(tx: Tx) -> bool:
            self._update(tx, "probe_until = 0, stopped_since = coalesce(stopped_since, :now)")
            becomes = "stopped = :reason, fingerprint = :fingerprint"
            is_so = "coalesce(stopped, '') = :reason AND coalesce(fingerprint, '') = :fingerprint"
            values = {"reason": reason, "fingerprint": fingerprint}
            return self._update(tx, becomes, f" AND NOT ({is_so})", **values) > 0

        return self.database.write(begin)

    def resume(self, fingerprint: str | None = None) -> bool:
        """Send again; ``True`` where this ended a stop. Ends a probe.

        :param fingerprint: of the configuration that AdRoll takes, which need not wait any more.
        """

        def end(tx: Tx) -> bool:
            stopped_since = "SELECT stopped_since FROM adroll_account WHERE {} {{lock}}"
            rows = tx.rows(stopped_since.format(_MINE), account=self.account)
            since = schema.first_value(rows)
            if since is None:
                return False
            # The pause goes with the stop: a worker whose configuration works ends both.
            self._update(
                tx,
                "stopped = NULL, fingerprint = :fingerprint, stopped_since = NULL, failures = 0,"
                " probe_until = 0, paused_until = 0",
                fingerprint=fingerprint,
            )
            # Nothing grows old in a stop.
            tx.execute(
                "UPDATE adroll_event SET refused_at = CASE WHEN refused_at > :since THEN :now"
                f" ELSE refused_at + :now - :since END WHERE {schema.in_states(*model.UNSENT)}"
                f" AND {_MINE} AND refused_at IS NOT NULL",
                since=since,
                account=self.account,
            )
            return True

        return self.database.write(end)

    def failed(self, error: str) -> int:
        """Count a failed request; returns how many in a row. Call :meth:`pause` after it.

        :param error: AdRoll's words; empty: the last ones stay.
        """

        def count(tx: Tx) -> int:
            becomes = "failures = failures + 1"
            if error:
                # First the pause: MariaDB and MySQL set one column after the other.
                becomes += f", paused_until = CASE WHEN {_IS_OVER} THEN 0 ELSE paused_until END"
                becomes += ", last_error = :error, last_error_at = :now"
            self._update(tx, becomes, error=error[: model.ERROR_LENGTH])
            failures = f"SELECT failures FROM adroll_account WHERE {_MINE}"
            return int(schema.first_value(tx.rows(failures, account=self.account)))

        return self.database.write(count)

    def succeeded(self) -> bool:
        """The destination answers: forget failures, end a probe; ``True`` where AdRoll was away."""
        return self._write("failures = 0, probe_until = 0", " AND failures <> 0") > 0

    def try_probe(self, lease: float = 60.0) -> bool:
        """Claim the one probe that may be under way while the destination is down or stopped.

        False while paused. It ends with :meth:`succeeded`, :meth:`pause`, :meth:`stop`,
        :meth:`resume` or after *lease* seconds.
        """
        # Nobody asks for longer than that: else it comes from a clock that went back.
        until = f":now + {lease}"
        ended = f"probe_until <= :now OR probe_until > {until} + {model.SKEW}"
        return bool(self._write(f"probe_until = {until}", f" AND ({ended}) AND {_IS_OVER}"))
