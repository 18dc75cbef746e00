"""Who the visitor is: from cookies, the URL and consent to one signed record, and back.

Start at :mod:`.tracked_request` (one request and its visitor), then :mod:`.record` (what the
browser keeps for us, how it is signed, and tokens) and :mod:`.kit_message` (what the kit tells).
"""
