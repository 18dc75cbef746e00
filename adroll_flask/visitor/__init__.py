"""Who the visitor is: from cookies, the URL and consent to one signed record, and back.

Start at :mod:`.tracked_request` (one request and its visitor) and :mod:`.visitors` (what reads and
writes them for an app). A visitor is kept as a :mod:`.record`, written in few bytes by
:mod:`.packing` and signed by :mod:`.signing`: in one of the browser's cookies
(:mod:`.request_cookies`), or as one of the :mod:`.tokens`. :mod:`.identifiers` has the form of each
identifier. :mod:`.kit_message` is what the kit tells, :mod:`.consent` says whether anything may be
kept at all (:mod:`.tcf` reads the IAB's consent strings), and :mod:`.click_in_url` when a click id
counts.
"""
