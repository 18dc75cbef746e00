"""The site's own functions that a report asks: who is logged in, and what is to be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from adroll_flask.errors import EventError

if TYPE_CHECKING:
    from adroll_flask.events.build import Built, Event

#: Event in, event or ``None`` out.
BeforeReport: TypeAlias = "Callable[[Event], Event | None]"

_IDENTITY = ("email", "user_id", "device_id")


def run_before_report(functions: Iterable[BeforeReport], built: Built) -> Built | None:
    """Ask each function in turn; the next one sees what the one before it returned, checked.

    :returns: ``None`` where one of them keeps the event back; the rest is not asked then.
    :raises EventError: one returned something that cannot be sent.
    """
    from adroll_flask.events.build import Event

    for function in functions:
        changed = function(built.event)
        if changed is None:
            return None
        if not isinstance(changed, Event):
            raise EventError("before_report", "has to return the event, another one, or None")
        built = built.changed(changed)
    return built


def identity_fields(said: object) -> dict[str, Any]:
    """What the site's identity function said, as fields of an event.

    :raises EventError: it said something else than who somebody is.
    """
    if said is None:
        return {}
    if not isinstance(said, Mapping):
        raise EventError("identity", "has to return a dict of email, user_id, device_id, or None")
    for key in said:
        if key not in _IDENTITY:
            from adroll_flask.events.suggestions import shown

            raise EventError(
                "identity", f"has to return email, user_id, device_id; {shown(str(key))} is none"
            )
    return {key: value for key, value in said.items() if value not in (None, "")}
