"""Metrics for OpenTelemetry: the table that Prometheus shows, under the same names.

Needs the extra ``opentelemetry``. Call it where the app is made::

    from adroll_flask.opentelemetry import instrument

    adroll.init_app(app)
    instrument(app)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache, partial

from flask import Flask

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
except ImportError as _missing:
    raise ImportError(
        "adroll_flask.opentelemetry needs opentelemetry-api, which is not installed: "
        "pip install 'adroll-flask[opentelemetry]'"
    ) from _missing

from ._version import __version__
from .errors import ConfigurationError
from .metrics import TABLE, Row, totals_of
from .middleware import AdRollMiddleware
from .outbox.values import Totals
from .request_state import runtime_of


def instrument(
    app: Flask | AdRollMiddleware, *, meter_provider: MeterProvider | None = None
) -> None:
    """Let what became of *app*'s events, and its outbox, be measured.

    :param app: a Flask app with AdRoll on it, or an :class:`~adroll_flask.AdRollMiddleware`.
    :param meter_provider: default: the global one.
    :raises ConfigurationError: *app* has no AdRoll, or is instrumented already.
    """
    runtime = runtime_of(app, "instrument")
    if runtime.is_measured:
        raise ConfigurationError("instrument", "this app is instrumented already")
    runtime.is_measured = True
    meter = metrics.get_meter("adroll_flask", __version__, meter_provider)
    # Read once for all instruments of a collection: what was read serves for a second.
    present = lru_cache(1)(lambda _second: totals_of(runtime)[1])
    for row in TABLE:
        make = meter.create_observable_counter if row.grows else meter.create_observable_gauge
        make(row.name, [partial(_observed, row, present)], description=row.text)


def _observed(
    row: Row, present: Callable[[int], Totals | None], _options: CallbackOptions
) -> Iterable[Observation]:
    totals = present(int(time.monotonic()))
    for labels, value in row.look(totals) if totals is not None else ():
        yield Observation(value, dict(zip(row.labels, labels, strict=True)))
