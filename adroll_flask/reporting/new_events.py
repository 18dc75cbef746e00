"""The one maker of what the outbox takes of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adroll_flask.errors import EventError
from adroll_flask.events.dedupe_key import kept_key, suppressed_key
from adroll_flask.outbox import NewEvent, new_id

if TYPE_CHECKING:
    from adroll_flask.events.build import Built

    from .parts import Parts


def event_of(parts: Parts, built: Built, *, dry_run: bool, known_since: float | None) -> NewEvent:
    """A good event, as the outbox takes it.

    :param known_since: when the visitor's token was made, in epoch seconds.
    """
    event, key = built.event, built.key
    if key is not None:
        key = kept_key(key, parts.records().dedupe_secret)
    new = new_event(
        parts,
        event.event_name,
        built.payload,
        event.timestamp,
        key=key,
        digest=built.value_digest,
        dry_run=dry_run,
    )
    new.identifiers, new.known_since = built.coverage.mask, known_since
    return new


def new_event(
    parts: Parts,
    name: str,
    payload: bytes,
    at: float,
    *,
    key: str | None = None,
    digest: str | None = None,
    dry_run: bool,
) -> NewEvent:
    """An event for the outbox, with an id of its own.

    :param payload: the API's JSON; of an invalid one what was said of it.
    :param at: when it occurred, in epoch seconds.
    """
    return NewEvent(
        id=new_id(parts.clock()),
        name=name,
        advertisable_eid=parts.settings.advertisable_eid or "",
        dry_run=dry_run,
        key=key,
        payload=payload,
        occurred_at=at,
        digest=digest,
        trace=parts.trace(),
    )


def suppressed_order(parts: Parts, name: str, given: Mapping[str, Any]) -> str | None:
    """The hash by which the order of a suppressed event is found later, where it may be kept."""
    key = given.get("deduplication_key") or given.get("order_id")
    secret = parts.records().dedupe_secret
    # Without a secret, order numbers could be found by trying them.
    if not parts.settings.remember_suppressed or key is None or secret is None:
        return None
    return suppressed_key(name, str(key), secret)


def no_address(problem: EventError, given: Mapping[str, Any]) -> EventError:
    """*problem*, or what is at fault where the server itself names no client."""
    if "ip" in given:
        return problem
    return EventError(
        "ip",
        "the server gave no address of the visitor, as behind a Unix socket: wrap the app in "
        "werkzeug's ProxyFix",
    )
