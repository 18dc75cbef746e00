"""What one app's reports are made of, handed down as one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adroll_flask.errors import help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe

if TYPE_CHECKING:
    from adroll_flask.counters import Counters
    from adroll_flask.outbox import Outbox
    from adroll_flask.settings import Settings
    from adroll_flask.visitor.records import Records
    from adroll_flask.visitor.tracked_request import TrackedRequest

    from .site_functions import BeforeReport

logger: Logger = get_logger("adroll_flask.reporting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one app's reports need of the app.

    What an app may have only later (its keys, its outbox), or another one in a test, is asked for
    at each use.

    :param clock: seconds since the epoch.
    :param strict: whether programmers' errors raise now.
    :param before_report: the site's own functions, in the order in which they are asked.
    :param identity: asks the site who is logged in at a request.
    :param queued: called after a commit, to deliver.
    :param announce: sends a signal.
    :param trace: the trace context of the request that reports.
    """

    settings: Settings
    counters: Counters
    clock: Callable[[], float]
    records: Callable[[], Records]
    outbox: Callable[[], Outbox]
    strict: Callable[[], bool]
    before_report: Callable[[], Sequence[BeforeReport]]
    identity: Callable[[TrackedRequest], object]
    queued: Callable[[], None]
    announce: Callable[..., None]
    trace: Callable[[], str | None]

    def tell(self, of: str) -> None:
        """Tell delivery *of* something that is kept; a failure is logged and counted."""
        try:
            self.queued()
        except Exception as problem:
            let_through(problem)
            # It is committed: whoever delivers comes by without being told.
            self.counters.add("delivery_error", "not_told")
            logger.error(
                "AdRoll's delivery was not told of %s: %s (%s)",
                of,
                describe(problem),
                help_url("delivery-not-told"),
            )
