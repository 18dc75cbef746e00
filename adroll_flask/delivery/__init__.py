"""From the outbox to AdRoll: claim, send, settle.

Start reading at :mod:`.deliverer`; :mod:`.answers` says what AdRoll's answers mean, :mod:`.batch`
which event answers for a refusal, :mod:`.send_policy` whether a request may go out at all.
"""
