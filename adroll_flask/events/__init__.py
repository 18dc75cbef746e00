"""One event: from a call's fields and what is known of the visitor to AdRoll's JSON.

Start reading at :mod:`.event`, the description of an event, and :mod:`.build`, which makes one.
"""
