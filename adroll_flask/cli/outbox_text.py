"""What the outbox's commands print for people: counts, times, reasons, one line an event."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from adroll_flask.plurals import counted

from .as_typed import as_typed

if TYPE_CHECKING:
    from adroll_flask.outbox import Overview, Row
    from adroll_flask.runtime import Runtime


def next_due(runtime: Runtime) -> str:
    """``in 14 minutes`` where the first of the waiting events is not due yet, else nothing."""
    return "".join(until(row, runtime.clock()) for row in runtime.outbox.admin.list("waiting", 1))


def why_waiting(runtime: Runtime) -> str:
    """What keeps events from AdRoll at present, as far as the outbox knows; empty: nothing."""
    if runtime.settings.missing:
        return f"{' and '.join(runtime.settings.missing)} not set"
    destination = runtime.outbox.destination.state()
    if destination.held:
        ask = as_typed("flask adroll send-test")
        return f"held: {destination.held}; {ask} shows what AdRoll answers"
    reasons = []
    if destination.failures:
        count = counted(destination.failures, "failure")
        reasons.append(
            f"AdRoll is down or out of reach, {count} in a row: {destination.last_error}"
        )
    if destination.paused_for > 0:
        text = f"paused for {counted(math.ceil(destination.paused_for), 'second')}"
        known = destination.failures or not destination.last_error
        reasons.append(text if known else f"{text}: {destination.last_error}")
    if not reasons and (due := next_due(runtime)):
        reasons.append(f"the next is due {due}")
    return "; ".join(reasons)


def overview_text(overview: Overview, next_due: str) -> str:
    """The outbox's overview, a line for each thing that is to be told.

    :param next_due: what :func:`next_due` says.
    """
    made = f"schema {overview.schema_version}"
    if not overview.schema_version:
        made = "not there yet; it is made with the first report"
    lines = [f"engine      {overview.engine}, {made}"]
    lines += [f"{state:<11} {count}" for state, count in overview.counts.items()]
    if overview.verdicts:
        lines.append(f"no hold yet {counted(overview.verdicts, 'verdict')} (released or cancelled)")
    if overview.oldest_due is not None:
        lines.append(f"oldest due  {_ago(overview.oldest_due)}")
    if next_due:
        lines.append(f"next due    {next_due}")
    for span, rates in overview.rates.items():
        some = ", ".join(f"{count} {name}" for name, count in rates.items() if count)
        lines.append(f"last {span:<6} {some or 'nothing'}")
    destination = overview.destination
    if destination.held:
        since = time.time() - (destination.held_since or time.time())
        lines.append(f"HELD        {destination.held}, for {_ago(since)}; no event is blamed")
    if destination.paused_for > 0:
        lines.append(f"paused      for {destination.paused_for:.0f} s more")
    if destination.failures:
        lines.append(f"down        {counted(destination.failures, 'failure')} in a row")
    if destination.last_error:
        lines.append(f"last error  {destination.last_error}")
    for begin, end, reason in overview.holds:
        ended = f"until {when(end)}" if end is not None else "still"
        lines.append(f"hold        {when(begin)}, {ended}: {reason}")
    if overview.journal_bytes:
        size = counted(overview.journal_bytes, "byte")
        lines.append(f"journal     {size}, for whoever delivers on this host to take in")
    return "\n".join(lines)


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return counted(round(seconds), "second")


def when(at: float) -> str:
    """A time as people read it, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) + "Z"


def until(row: Row, now: float) -> str:
    """``in 14 minutes`` for an event that is not due yet, or whose hold ends then; else nothing."""
    left = row.due_at - now
    return f"in {_ago(left)}" if row.state in ("waiting", "held") and left >= 1 else ""
