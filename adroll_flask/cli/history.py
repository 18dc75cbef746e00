"""``flask adroll history``: what was delivered, lost and kept back, by the hour, day or cause."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, cast

import click
from flask.cli import with_appcontext

from adroll_flask.events.coverage import BITS
from adroll_flask.outbox.protocol import HistoryBy, HistoryRow
from adroll_flask.outbox.schema import DELAYS
from adroll_flask.outbox.silence import Silence, told

from .app_runtime import current_runtime, kept_outbox

if TYPE_CHECKING:
    from collections.abc import Mapping

OUTCOMES = (
    *("delivered", "dead", "expired", "suppressed"),
    *("duplicate", "cancelled", "invalid", "failed"),
    *("unused", "too_late", "dry_run"),
)
_SPAN = re.compile(r"(\d{1,5})\s*([hdwm])\Z")
_UNITS = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "m": 30 * 86_400}


def since_when(text: str, now: float) -> float:
    """The beginning of a span: ``24h``, ``7d``, ``4w``, ``13m``, or a date.

    :raises click.BadParameter: it is none.
    """
    match = _SPAN.match(text)
    if match:
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("takes 24h, 7d, 4w, 13m or a date such as 2026-11-01") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@click.command("history")
@click.option("--since", default="7d", show_default=True, help="24h, 7d, 4w, 13m or a date.")
@click.option(
    "--by",
    type=click.Choice(["hour", "day", "event", "reason", "identifier"]),
    default="day",
    show_default=True,
)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option(
    "--alarm",
    is_flag=True,
    help="Print only what is silent now, and exit with 1 where something is: for cron.",
)
@with_appcontext
def history(since: str, by: str, form: str | None, alarm: bool) -> None:
    """What became of events: delivered, dead, suppressed … with their values, from the history.

    Times are UTC. A dead letter that is sent again is no loss any more. Dry runs are counted
    apart, and so are releases and cancellations of no hold (unused) or of what was delivered
    (too_late).
    """
    by = cast("HistoryBy", by)
    begin = since_when(since, current_runtime().clock())
    store = kept_outbox()
    if alarm:
        _alarm(() if store is None else store.figures.silences(), form)
    rows = () if store is None else store.figures.history(begin, by)
    if form == "json":
        click.echo(json.dumps([_plain(row, by) for row in rows]))
    elif form == "csv":
        click.echo(_csv(rows, by), nl=False)
    elif not rows:
        click.echo("nothing happened")
    elif by == "identifier":
        click.echo(_identifiers(rows))
    elif by == "reason":
        click.echo(_reasons(rows))
    else:
        click.echo(_table(rows, by))


def _alarm(silences: Sequence[Silence], form: str | None) -> NoReturn:
    if form == "csv":
        raise click.UsageError("--alarm prints text or, with --json, JSON")
    if form == "json":
        click.echo(json.dumps([silence._asdict() for silence in silences]))
    else:
        for silence in silences:
            click.echo(told(silence))
    raise SystemExit(1 if silences else 0)


def _group(row: HistoryRow, by: str) -> str:
    if by in ("hour", "day"):
        form = "%Y-%m-%d" if by == "day" else "%Y-%m-%d %H:00"
        return time.strftime(form, time.gmtime(int(row.group)))
    if by == "identifier":
        return "+".join(name for name, bit in BITS.items() if int(row.group) & bit) or "none"
    return str(row.group)


def _plain(row: HistoryRow, by: str) -> dict[str, Any]:
    return {
        by: _group(row, by),
        "outcome": row.outcome,
        "events": row.events,
        "value": f"{row.value:f}",
        "currency": row.currency,
        "median_seconds": quantile(row.delays, 0.5),
        "p95_seconds": quantile(row.delays, 0.95),
        "delays": list(row.delays),
    }


def _csv(rows: Sequence[HistoryRow], by: str) -> str:
    out = io.StringIO()
    names = (by, "outcome", "events", "value", "currency", "median_seconds", "p95_seconds")
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_plain(row, by) for row in rows)
    return out.getvalue()


def quantile(delays: Sequence[int], share: float) -> float | None:
    """The upper end, in seconds, of the bucket that *share* of the events stay within.

    ``None``: there are none; infinite: it is the last bucket, which has no end.

    >>> quantile([2, 1, 1] + [0] * 7, 0.5)
    1
    """
    total = sum(delays)
    if not total:
        return None
    passed = 0
    for end, number in zip(DELAYS, delays, strict=False):
        passed += number
        if passed >= share * total:
            return end
    return float("inf")


def _within(delays: Sequence[int], share: float) -> str:
    seconds = quantile(delays, share)
    if seconds is None:
        return ""
    if seconds == float("inf"):
        return f">{DELAYS[-1] // 3600} h"
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"<{seconds / size:.0f} {unit}"
    return f"<{seconds:.0f} s"


def _table(rows: Sequence[HistoryRow], by: str) -> str:
    groups: dict[str, list[HistoryRow]] = defaultdict(list)
    for row in rows:
        groups[_group(row, by)].append(row)
    shown = [name for name in OUTCOMES if any(row.outcome == name for row in rows)]
    timed = by in ("day", "hour")
    lines = [[by, *shown, *(["median", "95 %"] if timed else []), "value delivered"]]
    for group, its in groups.items():
        delays = [sum(column) for column in zip(*(row.delays for row in its), strict=True)]
        lines.append(
            [
                group,
                *(f"{sum(row.events for row in its if row.outcome == name):,}" for name in shown),
                *([_within(delays, 0.5), _within(delays, 0.95)] if timed else []),
                _values(its),
            ]
        )
    return aligned(lines)


def _values(rows: Sequence[HistoryRow]) -> str:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        if row.outcome == "delivered" and row.value:
            sums[row.currency] += row.value
    return ", ".join(f"{value:,.2f} {currency}".strip() for currency, value in sorted(sums.items()))


def _reasons(rows: Sequence[HistoryRow]) -> str:
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        sums[row.outcome, str(row.group)] += row.events
    known = sorted(sums.items(), key=lambda item: (OUTCOMES.index(item[0][0]), -item[1]))
    return aligned(
        [["outcome", "events", "reason"]]
        + [[outcome, f"{number:,}", reason] for (outcome, reason), number in known]
    )


def _identifiers(rows: Sequence[HistoryRow]) -> str:
    """Of what was delivered, how much carried each identifier."""
    masks: Mapping[int, int] = defaultdict(int)
    counts = cast("dict[int, int]", masks)
    for row in rows:
        if row.outcome == "delivered":
            counts[int(row.group)] += row.events
    total = sum(counts.values())
    lines = [["identifier", "delivered with it", "share"]]
    for name, bit in BITS.items():
        with_it = sum(number for mask, number in counts.items() if mask & bit)
        share = f"{with_it / total:.0%}" if total else ""
        lines.append([name, f"{with_it:,} of {total:,}", share])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns beside each other; what looks like a number stands to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [
        all(cell[:1].isdigit() or not cell for cell in column[1:]) and place > 0
        for place, column in enumerate(zip(*lines, strict=True))
    ]
    told = []
    for line in lines:
        cells = zip(line, widths, right, strict=True)
        told.append("  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in cells).rstrip())
    return "\n".join(told)
