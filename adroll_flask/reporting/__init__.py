"""What a shop's calls become: reports, holds, and what a shop looks up or changes later.

Start reading at :mod:`.reporter`. It finds out whose event it is, puts the event into the outbox,
and takes releases and cancellations. It asks the site's own functions (:mod:`.site_functions`), and
returns a :mod:`.receipt`. :mod:`.kept_events` finds, sends and erases events of the outbox.
:mod:`.lists` reads a shop's list, and :mod:`.reconciliation` compares a list of paid orders with
the outbox. :mod:`.paid_orders` does so now and then with the list that the shop itself gives.
"""
