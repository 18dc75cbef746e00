"""From the outbox to AdRoll: claim, send, settle.

Start reading at :mod:`.deliverer`. :mod:`.pauses_and_stops` says whether a request of an account
may go to AdRoll, :mod:`.client` what AdRoll's answer means, and :mod:`.batch` what becomes of the
events after it. :mod:`.transport` sends one request. :mod:`.turns` lets several accounts send
at the same time. :mod:`.thread` is what runs beside a process's requests.
"""
