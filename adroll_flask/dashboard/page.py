"""What a page of the dashboard is: a function that makes its data, and a template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from flask import Request
    from werkzeug.wrappers import Response

    from adroll_flask.outbox import Outbox
    from adroll_flask.runtime import Runtime

    from .numbers import Numbers
    from .past_sums import PastSums

#: What a page shows: what JSON takes, with decimals and named tuples beside it.
Data: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who may look.

    :param runtime: the app's AdRoll.
    :param request: Flask's.
    :param now: seconds since the epoch.
    :param operator: whether this person may also act.
    :param numbers: writes numbers as this person's language does.
    :param sums: reads the history's sums.
    """

    runtime: Runtime
    request: Request
    now: float
    operator: bool
    numbers: Numbers
    sums: PastSums

    @property
    def store(self) -> Outbox | None:
        """The app's outbox; ``None`` where nothing was reported yet: looking makes no file."""
        return self.runtime.outbox if self.runtime.may_have_events() else None

    def argument(self, name: str, default: str = "") -> str:
        """A part of the address's query, at most 200 characters."""
        return self.request.args.get(name, default)[:200]


@dataclass(frozen=True, slots=True)
class Done:
    """What an action did: the browser goes back to the page, which then says it.

    :param text: one sentence, as a person reads it; empty: the page says enough.
    :param good: whether it went well.
    :param arguments: the query of the page that is shown next.
    """

    text: str
    good: bool = True
    arguments: Mapping[str, str] = field(default_factory=dict)


#: What a POST does: returns :class:`Done`, data that the page shows at once, or a response.
Action: TypeAlias = "Callable[[Visit], Done | Data | Response]"


def _nothing_else(_visit: Visit, _data: Data) -> Data:
    return {}


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    :param name: its address below the dashboard's, in small letters and hyphens.
    :param title: as the navigation has it.
    :param data: makes what it shows, as JSON has it too; redacted.
    :param rows: the lines of its CSV, each with the same keys.
    :param actions: what an operator may do here, by the last part of the address: a POST to
        ``…/NAME/ACTION``. The guard has looked at person, token and origin before.
    :param questions: what whoever may look may ask, likewise: it changes nothing.
    :param largest: bytes of a POST's body; an uploaded file may need more.
    :param view: makes what the template has beside the data, such as plots: names of its own.
    :param arguments: names of the query that links to its CSV and JSON carry on.
    """

    name: str
    title: str
    data: Callable[[Visit], Data]
    rows: Callable[[Data], Iterable[Mapping[str, object]]]
    actions: Mapping[str, Action] = field(default_factory=dict)
    questions: Mapping[str, Action] = field(default_factory=dict)
    largest: int = 64 * 1024
    view: Callable[[Visit, Data], Data] = _nothing_else
    arguments: tuple[str, ...] = ()

    @property
    def template(self) -> str:
        """The file in ``templates/``."""
        return f"{self.name.replace('-', '_')}.html"
