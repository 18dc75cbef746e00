"""Erasing what the outbox holds of one visitor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from adroll_flask.events.event import IDENTIFIERS
from adroll_flask.logs import Logger, get_logger
from adroll_flask.plurals import counted
from adroll_flask.visitor.identifiers import email_forms

if TYPE_CHECKING:
    from adroll_flask.counters import Counters
    from adroll_flask.outbox.admin import Admin

logger: Logger = get_logger("adroll_flask.audit")

Match = Callable[[dict[str, Any]], bool]


def matcher(
    *,
    email: str | None = None,
    user_id: str | None = None,
    cookie: str | None = None,
    adct: str | None = None,
) -> Match:
    """A test for events (the API's JSON objects) that carry any of these identifiers.

    :param email: an address; events carry it in clear or as a hash, and all forms are looked for.
    :param user_id: the site's own id of a user.
    :param cookie: a first-party cookie in any of its forms.
    :param adct: a click id.
    :raises EventError: *email* is no address, or *cookie* no cookie.

    >>> match = matcher(user_id="42")
    >>> match({"identifiers": {"user_id": "42"}})
    True
    """
    wanted: set[tuple[str, str | None]] = {("user_id", user_id), ("adct", adct)}
    if email:
        wanted |= email_forms(email, ("sha256", "md5", "plain")).items()
    if cookie:
        forms = cookie, IDENTIFIERS["first_party_cookie"].accept(cookie)
        wanted |= {("first_party_cookie", form) for form in forms}

    def match(wire: Mapping[str, Any]) -> bool:
        identifiers = wire.get("identifiers")
        return isinstance(identifiers, Mapping) and any(
            (name, str(one)) in wanted
            for name, said in identifiers.items()
            for one in (said if isinstance(said, list) else [said])
        )

    return match


def erase(admin: Admin, counters: Counters, **identifiers: str | None) -> int:
    """Erase the events of a visitor and write an audit line: how many, by what, never of whom.

    :param identifiers: as for :func:`matcher`.
    :raises EventError: likewise.
    """
    count = admin.forget(matcher(**identifiers))
    counters.add("event_forgotten", amount=count)
    by = " and ".join(name.replace("_", " ") for name, value in identifiers.items() if value)
    logger.warning(
        "AdRoll: %s erased on request, by %s [visitor-erased]", counted(count, "event"), by
    )
    return count
