"""How long the outbox keeps what it has, in seconds, where no setting says it.

Settings say how long a key is kept after its event was delivered or cancelled
(``ADROLL_DEDUPE_DAYS``), an order that is held and a release that came before its order
(``ADROLL_HOLD_MAX``), and a visitor's no (``Settings.withdrawals_kept``). What is over goes bit by
bit, with :meth:`.Admin.keep_house`.
"""

from __future__ import annotations

from typing import Final

from adroll_flask.times import DAY

from . import model

#: A dead letter keeps its content for so long, so that it can still be sent. After that its key
#: stays for as long again.
DEAD_LETTER_KEPT: Final = 90 * DAY
#: A delivered event without a key, for those who look at what was sent.
KEYLESS_KEPT: Final = 600.0
#: History, why an order was suppressed, and how far the journal's file of a host that is gone was
#: read: 13 months.
HISTORY_KEPT: Final = 400 * DAY


def waits_for_people(row: model.Row) -> bool:
    """Whether somebody has to decide on a dead letter: it could be sent, and is no dry run."""
    return row.whole and not row.dry_run and row.reason not in ("moved", "damaged")
