"""The outbox: where events wait until AdRoll has them.

:class:`.Outbox` is its way in. Start reading at :mod:`.outbox` (what a report does), :mod:`.ingest`
(from the journal and :mod:`.inbox` into the database), :mod:`.rows` (what an entry becomes there,
and where a second report of an order is dropped), :mod:`.queue` (from there to AdRoll) and
:mod:`.transitions` (what may become of an event). :mod:`.model` has the form of an entry. Single
rules: :mod:`.holds` (also a release before its hold), :mod:`.erasure` (what a visitor's no erases,
and how it is remembered), :mod:`.retention` (how long each thing is kept), :mod:`.wake_up` (what
wakes delivery), :mod:`.whose_file` (which file may be moved aside).
"""
