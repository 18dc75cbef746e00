"""From the outbox to AdRoll: claim, send, settle.

Start reading at :mod:`.deliverer`; :mod:`.client` says what AdRoll's answers mean, :mod:`.batch`
which event answers for a refusal, :mod:`.pauses_and_stops` whether a request of an account may go
out at all.
:mod:`.thread` is what runs beside a process's requests.
"""
