"""The one made-up event, for trials: does AdRoll take what is in order?"""

from __future__ import annotations

from secrets import token_urlsafe

from adroll_flask.visitor.identifiers import new_first_party_cookie

from .context import EventDefaults


def trial_event(
    advertisable_eid: str | None,
    pixel_eid: str | None,
    now: float,
    name: str = "pageView",
    *,
    size: int = 0,
) -> bytes:
    """The JSON of an event with all that AdRoll asks for and nobody's data in it.

    It is made as every event is, so that what refuses it is no fault of the event's.

    :param now: the clock, epoch seconds.
    :param name: one of the thirteen.
    :param size: bytes that it has at least; what fills it hardly compresses.
    :raises EventError: *name* is none of them.
    """
    from .build import build

    purchase = {"order_id": "adroll-flask-trial", "value": "1.00", "currency": "USD"}
    defaults = EventDefaults(
        advertisable_eid=advertisable_eid,
        pixel_eid=pixel_eid,
        now=now,
        page_location="https://example.com/adroll-flask-trial",
        # TEST-NET-3 (RFC 5737): an address that no visitor has.
        ip="203.0.113.1",
        user_agent="Mozilla/5.0 (compatible; adroll_flask trial)",
        first_party_cookie=new_first_party_cookie(now),
    )
    fields: dict[str, str] = purchase if name == "purchase" else {}
    payload = build(name, fields, defaults, strict=True).payload
    if len(payload) < size:
        filling = token_urlsafe(size)[: size - len(payload)]
        payload = build(name, fields | {"external_data": filling}, defaults, strict=True).payload
    return payload
