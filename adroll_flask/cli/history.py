"""``flask adroll history``: what was delivered, lost and kept back, by the hour, day or cause."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import Any, Final, cast

import click
from flask.cli import with_appcontext

from adroll_flask.events.coverage import BITS
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.outbox.values import HistoryBy, HistoryRow
from adroll_flask.plurals import span

from .app_runtime import current_runtime, kept_outbox
from .printing import AS_JSON, show, since_when, table

OUTCOMES: Final = (
    *("delivered", "dead", "expired", "suppressed"),
    *("duplicate", "cancelled", "invalid", "failed"),
    *("unused", "too_late", "dry_run"),
)
_COLUMNS: Final = ("outcome", "events", "value", "currency", "median_seconds", "p95_seconds")


@click.command("history")
@click.option("--since", default="7d", show_default=True, help="24h, 7d, 4w, 13m or a date.")
@click.option(
    "--by",
    type=click.Choice(["hour", "day", "event", "reason", "identifier"]),
    default="day",
    show_default=True,
)
@AS_JSON
@with_appcontext
def history(since: str, by: str, as_json: bool) -> None:
    """Show what became of events, and of their values.

    Days and hours are those of ADROLL_TIME_ZONE. A dead letter that is sent again is no loss any
    more. Dry runs are counted apart, and so are releases and cancellations of no hold (unused) or
    of what was delivered (too_late).
    """
    runtime = current_runtime()
    begin = since_when(since, runtime.clock(), runtime.settings.zone)
    store = kept_outbox()
    timed = by in ("hour", "day")
    asked = cast("HistoryBy", "hour" if timed else by)
    rows: Sequence[HistoryRow] = ()
    if store is not None:
        rows = store.lookups.history(begin, asked)
    if timed:
        named = "%Y-%m-%d %H:00" if by == "hour" else "%Y-%m-%d"
        rows = _in_zone(rows, named, runtime.settings.zone)
    tables = {"identifier": _identifiers, "reason": _reasons}
    data = [{**_plain(row, by), "delays": list(row.delays)} for row in rows]
    text = tables[by](rows) if by in tables else _sums(rows, by)
    show(as_json, data, text if rows else "nothing happened")


def _in_zone(rows: Sequence[HistoryRow], form: str, zone: tzinfo) -> Sequence[HistoryRow]:
    """Sums of hours as those of a zone's hours or days, by their name in *form*."""
    sums: dict[tuple[str, str, str], HistoryRow] = {}
    for row in rows:
        group = datetime.fromtimestamp(int(row.group), zone).strftime(form)
        key = (group, row.outcome, row.currency)
        if had := sums.get(key):
            delays = tuple(map(sum, zip(row.delays, had.delays, strict=True)))
            events, value = row.events + had.events, row.value + had.value
            row = replace(row, events=events, value=value, delays=delays)
        sums[key] = replace(row, group=group)
    return [*sums.values()]


def _group(row: HistoryRow, by: str) -> str:
    if by == "identifier":
        return "+".join(name for name, bit in BITS.items() if int(row.group) & bit) or "none"
    return str(row.group)


def _plain(row: HistoryRow, by: str) -> dict[str, Any]:
    from adroll_flask.dashboard.numbers import within

    times = (within(row.delays, share) for share in (0.5, 0.95))
    values = (row.outcome, row.events, f"{row.value:f}", row.currency, *times)
    return {by: _group(row, by), **dict(zip(_COLUMNS, values, strict=True))}


def _within(delays: Sequence[int], share: float) -> str:
    from adroll_flask.dashboard.numbers import within

    seconds = within(delays, share)
    if seconds is None:
        return f"> {span(DELAYS[-1])}" if any(delays) else ""
    return f"< {span(seconds)}"


def _sums(rows: Sequence[HistoryRow], by: str) -> str:
    groups: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in rows:
        groups[_group(row, by)].append(row)
    shown = [name for name in OUTCOMES if any(row.outcome == name for row in rows)]
    shares = (0.5, 0.95) if by in ("day", "hour") else ()
    lines = []
    for group, its in groups.items():
        delays = [sum(column) for column in zip(*(row.delays for row in its), strict=True)]
        events = (sum(row.events for row in its if row.outcome == name) for name in shown)
        within = (_within(delays, share) for share in shares)
        lines.append([group, *(f"{number:,}" for number in events), *within, _values(its)])
    return table([by, *shown, *("median", "95 %")[: len(shares)], "value delivered"], lines)


def _values(rows: Sequence[HistoryRow]) -> str:
    from adroll_flask.findings.sums import money

    sums = money(row for row in rows if row.outcome == "delivered")
    return ", ".join(f"{value:,.2f} {currency}".strip() for currency, value in sorted(sums))


def _reasons(rows: Sequence[HistoryRow]) -> str:
    sums: Counter[tuple[str, str]] = Counter()
    for row in rows:
        sums[row.outcome, str(row.group)] += row.events
    known = sorted(sums.items(), key=lambda item: (OUTCOMES.index(item[0][0]), -item[1]))
    lines = [(outcome, f"{number:,}", reason) for (outcome, reason), number in known]
    return table(("outcome", "events", "reason"), lines)


def _identifiers(rows: Sequence[HistoryRow]) -> str:
    """Of what was delivered, how much carried each identifier."""
    counts: Counter[int] = Counter()
    for row in rows:
        if row.outcome == "delivered":
            counts[int(row.group)] += row.events
    total = counts.total()
    lines = []
    for name, bit in BITS.items():
        with_it = sum(number for mask, number in counts.items() if mask & bit)
        share = f"{with_it / total:.0%}" if total else ""
        lines.append((name, f"{with_it:,} of {total:,}", share))
    return table(("identifier", "delivered with it", "share"), lines)
