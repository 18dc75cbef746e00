"""How visitors came: the clicks and pages of each, joined by click id and cookie."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, TypeVar

from . import event_checks

Record = dict[str, Any]
_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
_STEPS = 12


@dataclass(slots=True)
class _Visitor:
    #: Whether the visitor came by the ad, which may be longer ago than the steps that are kept.
    clicked: bool = False
    #: The newest steps, oldest first.
    steps: deque[Record] = field(default_factory=lambda: deque(maxlen=_STEPS))


class Journeys:
    """The steps of each visitor, found by click id or by first-party cookie.

    :param keep: how many clicks and how many cookies are remembered, the newest.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.clicks: OrderedDict[str, Record] = OrderedDict()
        self._cookies: OrderedDict[str, Record] = OrderedDict()
        self._visitors: OrderedDict[str, _Visitor] = OrderedDict()

    def click(self, adct: str, to: str, now: float) -> None:
        """Keep a click on the ad, which led to ``to``."""
        remember(self.clicks, adct, {"adct": adct, "at": now, "to": to}, self._keep)
        visitor = self._visitor(adct, None)
        visitor.clicked = True
        visitor.steps.append({"what": "click", "at": now, "detail": _host(to)})

    def page(self, cookie: str, adct: str | None, url: str | None, now: float, by: str) -> None:
        """Keep that the pixel ran in a page; ``by`` says who made the cookie: site or pixel."""
        entry = self._cookies.get(cookie) or {"value": cookie, "at": now, "by": by, "pages": 0}
        entry["pages"] += 1
        remember(self._cookies, cookie, entry, self._keep)
        step = {"what": "page", "at": now, "detail": _path(url)}
        self._visitor(adct, cookie).steps.append(step)

    def step(self, what: str, cookie: str, detail: str | None, now: float) -> None:
        self._visitor(None, cookie).steps.append({"what": what, "at": now, "detail": detail})

    def trace(self, event: Any, what: str, name: str | None, at: float) -> Record:
        """Return how the visitor of an event came here, and keep the event as a further step.

        :param at: when it happened, epoch seconds; events may arrive long after that.
        """
        identifiers = event_checks.identifiers_of(event)
        adct = _text(identifiers.get("adct"))
        cookie = _text(identifiers.get("first_party_cookie"))
        steps: list[Record] = []
        matched_by = None
        if adct or cookie:
            visitor = self._visitor(adct, cookie)
            if adct in self.clicks:
                matched_by = "click id"
            elif visitor.clicked:
                matched_by = "first-party cookie"
            steps = sorted(visitor.steps, key=itemgetter("at"))
            visitor.steps.append({"what": what, "at": at, "detail": name})
        return {
            "matched_by": matched_by,
            "click": self._click(adct) if adct else None,
            "cookie": self._cookie(cookie) if cookie else None,
            "steps": [step for step in steps if step["at"] <= at],
        }

    def _click(self, adct: str) -> Record:
        click = self.clicks.get(adct, {})
        return {"adct": adct, "known": bool(click), "at": click.get("at"), "to": click.get("to")}

    def _cookie(self, value: str) -> Record:
        cookie = self._cookies.get(value, {})
        return {
            "value": value,
            "seen_by_pixel": bool(cookie),
            "at": cookie.get("at"),
            "made_by": cookie.get("by"),
            "pages": cookie.get("pages", 0),
        }

    def _visitor(self, adct: str | None, cookie: str | None) -> _Visitor:
        """Return the visitor who has this click id, this cookie, or both; a new one if none has."""
        keys = []
        if adct:
            keys.append("a:" + adct)
        if cookie:
            keys.append("c:" + cookie)
        visitors = [self._visitors[key] for key in keys if key in self._visitors]
        visitor = visitors[0] if visitors else _Visitor()
        for other in visitors[1:]:
            if other is not visitor:
                # The click and the cookie were two visitors until now. From here on they are one.
                visitor.clicked = visitor.clicked or other.clicked
                steps = sorted([*visitor.steps, *other.steps], key=itemgetter("at"))
                visitor.steps = deque(steps, maxlen=_STEPS)
        for key in keys:
            remember(self._visitors, key, visitor, 2 * self._keep)
        return visitor


def remember(where: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Keep ``value`` as the newest of at most ``most``."""
    where[key] = value
    where.move_to_end(key)
    while len(where) > most:
        where.popitem(last=False)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].partition("?")[0]


def _path(url: str | None) -> str:
    rest = (url or "").partition("://")[2]
    return "/" + rest.partition("/")[2].partition("?")[0].partition("#")[0]
