"""Who came how: clicks and cookies, joined to the steps of one visitor."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Any, TypeVar

Record = dict[str, Any]
_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
_STEPS = 12


class _Visitor:
    __slots__ = ("clicked", "steps")

    def __init__(self) -> None:
        #: The newest steps; :attr:`clicked` stays when the click is none of them any more.
        self.steps: deque[Record] = deque(maxlen=_STEPS)
        self.clicked: bool = False


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
        """A click on the ad led to ``to``."""
        remember(self.clicks, adct, {"adct": adct, "at": now, "to": to}, self._keep)
        visitor = self._visitor(adct, None)
        visitor.clicked = True
        visitor.steps.append({"what": "click", "at": now, "detail": _host(to)})

    def page(self, cookie: str, adct: str | None, url: str | None, now: float, by: str) -> None:
        """The pixel ran in a page; ``by`` says who made the cookie that it found or made."""
        entry = self._cookies.get(cookie) or {"value": cookie, "at": now, "by": by, "pages": 0}
        entry["pages"] += 1
        remember(self._cookies, cookie, entry, self._keep)
        step = {"what": "page", "at": now, "detail": _path(url)}
        self._visitor(adct, cookie).steps.append(step)

    def step(self, what: str, cookie: str, detail: str | None, now: float) -> None:
        self._visitor(None, cookie).steps.append({"what": what, "at": now, "detail": detail})

    def trace(self, event: Any, what: str, name: str | None, at: float) -> Record:
        """Return how the visitor of an event came here, then make the event a step of theirs.

        :param at: when it happened, epoch seconds; events may arrive long after that.
        """
        held = event.get("identifiers") if isinstance(event, dict) else None
        held = held if isinstance(held, dict) else {}
        adct = _text(held.get("adct"))
        cookie = _text(held.get("first_party_cookie"))
        steps: list[Record] = []
        clicked = False
        if adct or cookie:
            visitor = self._visitor(adct, cookie)
            clicked = visitor.clicked
            steps = sorted(visitor.steps, key=_at)
            visitor.steps.append({"what": what, "at": at, "detail": name})
        click = self.clicks.get(adct) if adct else None
        matched_by = None
        if click:
            matched_by = "click id"
        elif clicked:
            matched_by = "first-party cookie"
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
        keys = [kind + value for kind, value in (("a:", adct), ("c:", cookie)) if value]
        known_visitors = {
            id(self._visitors[key]): self._visitors[key] for key in keys if key in self._visitors
        }
        visitor = next(iter(known_visitors.values()), None) or _Visitor()
        if len(known_visitors) == 2:
            # A click and a cookie that were strangers until now: one visitor, one line of steps.
            steps = sorted(
                (step for stranger in known_visitors.values() for step in stranger.steps), key=_at
            )
            visitor.steps = deque(steps, maxlen=_STEPS)
            visitor.clicked = any(stranger.clicked for stranger in known_visitors.values())
        for key in keys:
            remember(self._visitors, key, visitor, 2 * self._keep)
        return visitor


def remember(where: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    """Keep ``value`` as the newest of at most ``most``."""
    where[key] = value
    where.move_to_end(key)
    while len(where) > most:
        where.popitem(last=False)


def _at(step: Record) -> float:
    return float(step["at"])


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].partition("?")[0]


def _path(url: str | None) -> str:
    rest = (url or "").partition("://")[2]
    return "/" + rest.partition("/")[2].partition("?")[0].partition("#")[0]
