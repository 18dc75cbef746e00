"""The outbox: where events wait until AdRoll has them. Nothing is lost, nothing sent twice.

:class:`.Outbox` is its way in. Start reading at :mod:`.outbox` (what a report does), :mod:`.ingest`
(from the journal into the database), :mod:`.queue` (from there to AdRoll) and :mod:`.transitions`
(what may become of an event).
"""
