"""A page's rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from decimal import Decimal

from adroll_flask.redaction import csv_safe


def csv_text(rows: Iterable[Mapping[str, object]]) -> str:
    """Rows with the same keys as CSV; a text that a spreadsheet would run gets a quote before it.

    >>> csv_text([{"day": "2026-11-24", "order": "=1+1"}])
    "day,order\\n2026-11-24,'=1+1\\n"
    """
    out = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(out, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return "" if value is None else csv_safe(value)
