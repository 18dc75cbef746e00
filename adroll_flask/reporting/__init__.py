"""What a shop's calls become: reports, holds, and how a shop looks at them later.

Start reading at :mod:`.reporter`, the only maker of events in the outbox. :mod:`.context` says
whose event it is, :mod:`.parts` what all of this is made of. :mod:`.dead_letters`,
:mod:`.reconciliation` and :mod:`.erasure` work on what was reported before.
"""
