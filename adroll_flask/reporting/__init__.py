"""What a shop's calls become: reports, holds, and how a shop looks at them later.

Start reading at :mod:`.reporter`, the only maker of events in the outbox. It asks the site's own
functions, says whose event it is, and what becomes of a hold. :mod:`.kept_events` and
:mod:`.reconciliation` work on what was reported before.
"""
