"""Which events have stopped coming: a page that no longer reports makes no error anywhere.

Silence is total. An event that came at least 20 times in four weeks is watched; it is silent once
it has stayed away for longer than one and a half times its longest pause in them, three hours at
least. It ends only with an event. A shop that sells by day is not silent at night, since each of
its nights is a pause; one that rests for a week has no alarm in the next such week.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from typing import Final, NamedTuple

from adroll_flask.plurals import span

#: Hours of four weeks, and of the week of which something has to be known.
_WEEKS: Final = 28 * 24
_KNOWN: Final = 7 * 24
#: Events in four weeks below which an event is too rare to be missed.
_FEWEST: Final = 20
_TIMES: Final = 1.5
_SHORTEST: Final = 3 * 3600.0
#: Seconds of history that are looked at. What was taken out of a shop is forgotten after that.
LOOKS_BACK: Final = 91 * 86_400


class Silence(NamedTuple):
    """An event that is watched, and how long it has stayed away.

    :param name: the event's name.
    :param last: when it came last (the end of that hour), seconds since the epoch.
    :param events: how often it came in the four weeks up to then.
    :param away: seconds since then.
    :param longest_pause: the longest of these four weeks, in seconds.
    :param alarm_after: seconds that it may stay away.
    """

    name: str
    last: float
    events: int
    away: float
    longest_pause: float
    alarm_after: float

    @property
    def is_silent(self) -> bool:
        """Whether it has stayed away for too long."""
        return self.away > self.alarm_after


def watch(name: str, by_hour: Mapping[int, int], now: float) -> Silence | None:
    """The event *name*, where it comes often enough to be missed; else ``None``.

    :param by_hour: how often it came, by hours since the epoch.

    >>> daily = {day * 24 + 12: 1 for day in range(28)}
    >>> watch("purchase", daily, now=(27 * 24 + 37) * 3600).is_silent
    False
    >>> watch("purchase", daily, now=(27 * 24 + 50) * 3600).is_silent
    True
    """
    last = max(by_hour, default=0)
    hours = sorted(hour for hour in by_hour if hour > last - _WEEKS)
    events = sum(by_hour[hour] for hour in hours)
    if events < _FEWEST or last - hours[0] < _KNOWN - 24:
        return None
    longest = max(after - before for before, after in pairwise(hours)) * 3600.0
    ended = min((last + 1) * 3600.0, now)
    away = max(0.0, now - ended)
    return Silence(name, ended, events, away, longest, max(_SHORTEST, _TIMES * longest))


def told(silence: Silence, zone: tzinfo = UTC) -> str:
    """*silence* as a sentence.

    >>> told(Silence("purchase", 1_800_000_000, 310, 5 * 3600, 2 * 3600, 3 * 3600))
    'no purchase event since 2027-01-15 08:00 UTC; the longest pause in four weeks was 2 hours'
    """
    since = f"{datetime.fromtimestamp(silence.last, zone):%Y-%m-%d %H:%M %Z}"
    pause = span(silence.longest_pause)
    return f"no {silence.name} event since {since}; the longest pause in four weeks was {pause}"
