"""Which events the ids that somebody typed mean: whole ones, or their first digits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from adroll_flask.plurals import counted

from .refusal import Refusal

if TYPE_CHECKING:
    from adroll_flask.outbox import Outbox, Row, State

STATES: tuple[State, ...] = (
    "waiting",
    "claimed",
    "sending",
    "delivered",
    "dead",
    "held",
    "cancelled",
)
#: Events of one state that one command looks at.
MOST_EVENTS = 100_000
#: Digits of an id, and the fewest of them that are taken for its beginning.
_ID_DIGITS = 32
_BEGINNING = re.compile(r"[0-9a-f]{4,32}\Z")
#: Ids that are listed where a beginning is that of several.
_MOST_LISTED = 5


class RefusedId(Refusal):
    """An id, or the beginning of one, that names no event that a command could work on."""

    def __init__(self, message: str, id: str = "") -> None:
        super().__init__(message, slug="no-such-event")
        #: The whole id, where it is known.
        self.id = id


def whole_id(store: Outbox, given: str, states: Sequence[State] = STATES) -> str:
    """The id that begins with *given*, of the events in *states*; a whole one as it is.

    :raises RefusedId: there is none, or more than one.
    """
    beginning = given.lower().removesuffix("…").removesuffix("...")
    if not _BEGINNING.match(beginning):
        raise RefusedId(
            "takes an event's id, or at least its first four digits; outbox list shows it"
        )
    if len(beginning) == _ID_DIGITS:
        return beginning
    found: list[str] = []
    for state in states:
        rows = store.admin.list(state, MOST_EVENTS)
        if len(rows) == MOST_EVENTS:
            raise RefusedId(
                f"there are too many {state} events to look for a beginning: give the whole id"
            )
        found += [row.id for row in rows if row.id.startswith(beginning)]
    kind = "dead letter" if list(states) == ["dead"] else "event"
    if not found:
        raise RefusedId(f"no {kind}'s id begins with {beginning}")
    if len(found) > 1:
        some = ", ".join(found[:_MOST_LISTED]) + (", …" if len(found) > _MOST_LISTED else "")
        raise RefusedId(
            f"{beginning} begins the ids of {counted(len(found), kind)}, give more of it: {some}"
        )
    return found[0]


def dead_letter(store: Outbox, given: str) -> Row:
    """The dead letter whose id begins with *given*.

    :raises RefusedId: there is none, or more than one, or the event is alive.
    """
    id = whole_id(store, given, ["dead"])
    row = store.admin.show(id)
    if row is None:
        raise RefusedId("there is no such event", id)
    if row.state != "dead":
        raise RefusedId(f"this event is {row.state}, it is no dead letter", id)
    return row


def existing_id(store: Outbox, given: str) -> str:
    """The id of an event that is there.

    :raises RefusedId: there is none, or more than one.
    """
    id = whole_id(store, given)
    if store.admin.show(id) is None:
        raise RefusedId("there is no such event", id)
    return id


def accept_ids(
    given: Iterable[str], accept: Callable[[str], str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """The ids that *accept* gives for those that were typed; which it refuses, and why."""
    accepted: list[str] = []
    refused: list[tuple[str, str]] = []
    for text in given:
        try:
            accepted.append(accept(text))
        except RefusedId as problem:
            refused.append((problem.id or text, problem.message))
    return accepted, refused
