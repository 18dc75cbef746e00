"""What a shop's calls become: reports, holds, and how a shop looks at them later.

Start reading at :mod:`.reporter`, the only maker of events in the outbox: whose event it is, and
what becomes of a hold. It asks the site's own functions (:mod:`.site_functions`), and what it gives
back is a :mod:`.receipt`. :mod:`.kept_events` looks after what was reported before.
:mod:`.reconciliation` compares a list of paid orders with it, and :mod:`.paid_orders` says when the
shop's own list is asked for.
"""
