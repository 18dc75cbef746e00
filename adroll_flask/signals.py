"""Signals (blinker) that say what became of a visitor or an event.

Each is sent with the app as sender, after the commit, and never with a visitor's values beyond
those named here. A receiver that raises is logged and counted; it stops nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blinker import Namespace

from .errors import help_url
from .interruptions import let_through
from .logs import Logger, get_logger
from .redaction import describe

if TYPE_CHECKING:
    from blinker import NamedSignal

    from .counters import Counters

logger: Logger = get_logger("adroll_flask")

_signals = Namespace()

#: A visitor's record was written: ``visitor`` (:class:`~adroll_flask.Visitor`).
visitor_identified: NamedSignal = _signals.signal("adroll-visitor-identified")

#: An event is in the outbox: ``receipt`` and ``event`` (the checked event).
event_queued: NamedSignal = _signals.signal("adroll-event-queued")

#: AdRoll took an event: ``id``, ``name``, ``unsure`` (it may have been sent twice).
event_delivered: NamedSignal = _signals.signal("adroll-event-delivered")

#: An event became a dead letter, at the call or after AdRoll refused it: ``id``, ``name``,
#: ``reason``.
event_rejected: NamedSignal = _signals.signal("adroll-event-rejected")

#: An event was not reported, by consent, ``before_report`` or as a duplicate: ``name``, ``reason``.
event_suppressed: NamedSignal = _signals.signal("adroll-event-suppressed")

#: Too few of an event reach AdRoll for the time of day: ``name``, ``since`` and ``until`` (seconds
#: since the epoch), ``delivered`` (how many were in between) and ``usual`` (how many are, in the
#: same hours of the last four weeks). Sent once as it begins, by one process of those that deliver.
reports_silent: NamedSignal = _signals.signal("adroll-reports-silent")


def announce(counters: Counters, sender: object, signal: NamedSignal, **values: object) -> None:
    """Send *signal*; a receiver that raises is logged and counted, and stops nobody."""
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **values)
        except Exception as problem:
            let_through(problem)
            counters.add("receiver_failed", signal.name.removeprefix("adroll-"))
            logger.error(
                "a receiver of %s failed: %s (%s)",
                signal.name,
                describe(problem),
                help_url("receiver-failed"),
            )
