"""What a page of the dashboard is: a function that makes its data, and a template."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cached_property
from typing import Any, Final, TypeAlias

from flask import Request, abort, current_app
from markupsafe import Markup, escape
from werkzeug.wrappers import Response

from adroll_flask.findings.finding import Finding
from adroll_flask.findings.rules import Moment, open_findings
from adroll_flask.plurals import counted
from adroll_flask.runtime import Runtime

from . import periods
from .formats import values

#: The name in the query of the shop that is looked at; links carry it from page to page.
SHOP: Final = "shop"

#: What a page shows: what JSON takes, with decimals and named tuples beside it.
Data: TypeAlias = dict[str, Any]


class Visit(Moment):
    """One request of somebody who may look, with what the rules look at.

    :param is_operator: whether this person may also act.
    """

    def __init__(self, runtime: Runtime, request: Request, *, is_operator: bool) -> None:
        #: A host of the shop that is looked at; empty: all shops.
        self.shop: str = request.args.get(SHOP, "")[:200]
        super().__init__(runtime, account=runtime.settings.shop_of(self.shop))
        if self.account is None:
            if self.shop and self.settings.shop_names:
                # Otherwise, after a slip in a bookmark, the figures of all shops would pass for
                # those of one.
                abort(404, f"no shop is called {self.shop!r} here")
            self.shop = ""
        self.request: Request = request
        self.is_operator: bool = is_operator
        #: Of days, weeks and months.
        self.zone: tzinfo = self.settings.time_zone
        #: Why what was asked for cannot be shown, in sentences; empty: it can.
        self.refused: str = ""

    @cached_property
    def findings(self) -> list[Finding]:
        """What is wrong now, the worst first."""
        return open_findings(self)

    @property
    def urgent(self) -> list[Finding]:
        """What somebody has to look at."""
        return [
            finding
            for finding in self.findings
            if finding.severity != "hint" or finding.code == "dead-letters"
        ]

    def argument(self, name: str, default: str = "") -> str:
        """A part of the address's query, at most 200 characters."""
        return self.request.args.get(name, default)[:200]

    def period(self, default: str) -> periods.Period:
        """The span that the address asks for: ``period=``, or ``since=`` and ``until=``.

        If it asks for none, the *default*; :attr:`refused` says so if its days are wrong.
        """
        since = self.argument("since")
        until = self.argument("until")
        name = self.argument("period", default)
        try:
            if since or until:
                return periods.between(since, until, self.now, self.zone)
        except ValueError:
            name = default
            self.refused = (
                "From and to take days of the last 13 months, up to today and in order, such as"
                f" since=2026-11-01. The page shows {periods.PERIODS[default]} instead."
            )
        return periods.named(name if name in periods.PERIODS else default, self.now, self.zone)


def for_lookers(text: str) -> str:
    """The sentences of *text* before the first with a setting, a command or code: for people who
    may only look.

    >>> for_lookers("Nothing may be sent: the law says so. ADROLL_HONOR_GPC decides.")
    'Nothing may be sent: the law says so.'
    """
    kept = re.match(
        r"(?:(?:(?!ADROLL_|flask adroll|`|\(\)|@| = )(?:[^.?]|[.?](?! )))+[.?] )*", f"{text} "
    )
    return (kept[0].strip() if kept else "") or "A developer of the shop can change it."


def coded(text: str) -> Markup:
    """*text* as HTML, with what stands between backticks as code.

    >>> str(coded("See `df -h <folder>`."))
    'See <code>df -h &lt;folder&gt;</code>.'
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def for_developer(finding: Mapping[str, Any], url: str, orders: Iterable[str] = ()) -> str:
    """What a finding says, as a message to send on to a developer.

    :param url: the page's address.
    :param orders: ids of its orders, perhaps not all.
    """
    listed = ""
    orders = list(orders)
    if orders:
        more = finding["events"] - len(orders)
        rest = f" and {counted(more, 'more event')}" if more > 0 else ""
        listed = f"Orders: {', '.join(orders)}{rest}"
    answer = f"AdRoll's words: {finding['answer']}" if finding.get("answer") else ""
    parts = [finding["sentence"], values(finding["values"]), listed, answer]
    parts += [finding["todo"], finding["command"], finding["help"], url]
    return "\n".join(filter(None, parts))


def csv_file(name: str, text: str) -> Response:
    """An answer that a browser keeps as a file of that name."""
    response = current_app.response_class(text, content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="adroll-{name}.csv"'
    return response


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


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    :param name: its address below the dashboard's, in small letters and hyphens, and its file in
        ``templates/``.
    :param data: makes what it shows, as JSON has it too; redacted.
    :param rows: the lines of its CSV, each with the same keys.
    :param names: what the template has beside the data and the visit.
    :param actions: what an operator may do here, by the last part of the address: a POST to
        ``…/NAME/ACTION``. The guard has looked at person, token and origin before.
    :param questions: what whoever may look may ask, likewise: it changes nothing.
    :param largest: bytes of a POST's body; an uploaded file may need more.
    :param arguments: names of the query that links to its CSV and JSON carry on.
    :param kept: those of them that links from one page to another carry on, too.
    """

    name: str
    data: Callable[[Visit], Data]
    rows: Callable[[Data], Iterable[Mapping[str, object]]]
    names: Mapping[str, Any]
    actions: Mapping[str, Action] = field(default_factory=dict)
    questions: Mapping[str, Action] = field(default_factory=dict)
    largest: int = 64 * 1024
    arguments: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """As the navigation has it."""
        return self.name.replace("-", " ").capitalize()
