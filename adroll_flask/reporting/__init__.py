"""What a shop's calls become: reports, holds, and how a shop looks at them later.

Start reading at :mod:`.reporter`, the only maker of events in the outbox. It says whose event it
is, and what becomes of a hold; :mod:`.site_functions` what the site itself says of an event.
:mod:`.dead_letters`, :mod:`.reconciliation` and :mod:`.erasure` work on what was reported before.
"""
