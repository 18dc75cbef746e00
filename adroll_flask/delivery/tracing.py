"""What is told of deliveries to who traces them: ``adroll_flask.opentelemetry``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from adroll_flask.errors import help_url
from adroll_flask.interruptions import let_through
from adroll_flask.logs import Logger, get_logger
from adroll_flask.redaction import describe

if TYPE_CHECKING:
    from adroll_flask.outbox.protocol import Claimed

    from .answers import Answer

logger: Logger = get_logger("adroll_flask.delivery")


class Tracing(Protocol):
    """Who traces."""

    def parent(self) -> str | None:
        """The trace context of the request that reports at present: a W3C ``traceparent``."""

    def delivery(
        self, events: Sequence[Claimed]
    ) -> AbstractContextManager[Callable[[Answer], None]]:
        """Around one request to AdRoll; what it gives is told of the answer."""


@contextmanager
def traced(
    tracing: Tracing | None, events: Sequence[Claimed]
) -> Iterator[Callable[[Answer], None]]:
    """Around one request, whoever traces; a fault of theirs does not touch the delivery.

    The request is made, and its answer settled, whatever fails here: else it would be made twice.
    """
    if tracing is None:
        yield lambda _answer: None
        return
    spans = None
    tell: Callable[[Answer], None] | None = None
    try:
        spans = tracing.delivery(events)
        tell = spans.__enter__()
    except Exception as problem:
        _failed(problem)
        spans = None

    def told(answer: Answer) -> None:
        try:
            if tell is not None:
                tell(answer)
        except Exception as problem:
            _failed(problem)

    try:
        yield told
    finally:
        if spans is not None:
            try:
                spans.__exit__(None, None, None)
            except Exception as problem:
                _failed(problem)


def parent_of(tracing: Tracing | None) -> str | None:
    """The trace context of the request that reports; ``None`` where nobody traces."""
    if tracing is None:
        return None
    try:
        return tracing.parent()
    except Exception as problem:
        _failed(problem)
        return None


def _failed(problem: Exception) -> None:
    let_through(problem)
    logger.error("AdRoll's tracing failed: %s (%s)", describe(problem), help_url("tracing-failed"))
