"""Signals (blinker) that say what became of a visitor or an event.

Each is sent with the app as sender, after the append to the journal or the commit. None has values
of a visitor but those named here. A receiver that raises is logged and counted, and stops nobody.
"""

from __future__ import annotations

from blinker import NamedSignal, Namespace

_signals = Namespace()

#: A visitor's record was written: ``visitor`` (:class:`~adroll_flask.Visitor`).
visitor_identified: NamedSignal = _signals.signal("adroll-visitor-identified")

#: An event is in the journal: ``receipt`` and ``event`` (the checked event).
event_queued: NamedSignal = _signals.signal("adroll-event-queued")

#: AdRoll took an event: ``id``, ``name``, ``unsure`` (it may have been sent twice).
event_delivered: NamedSignal = _signals.signal("adroll-event-delivered")

#: An event became a dead letter, at the call or as it was sent: ``id``, ``name``, ``reason``.
event_rejected: NamedSignal = _signals.signal("adroll-event-rejected")

#: An event was not reported, by consent, ``before_report`` or as a duplicate: ``name``, ``reason``.
#: Where it is not to be reported, this is sent before the journal has a note of it.
event_suppressed: NamedSignal = _signals.signal("adroll-event-suppressed")

#: An event has stopped coming: ``name``, ``account`` (its advertisable EID), ``last`` (when it came
#: last, seconds since the epoch), ``usual`` (how many there are in such a time), and in seconds
#: ``away`` and ``longest_pause`` of thirteen weeks; the others are those of ``overview.json``. Sent
#: once as it begins, by one of the processes of the shop and its workers that run: connect the
#: receiver in each.
reports_silent: NamedSignal = _signals.signal("adroll-reports-silent")
