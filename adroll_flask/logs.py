"""The package's loggers: each record has a lasting name, ``adroll_event``.

Programs that read logs go by the name, and need not read texts. It is that of the part of
``docs/errors.md`` that explains the record. The code writes it at the end of the text, ``"… pauses
for %g s: %s [delivery-paused]"``. In the record the address of the explanation is there in its
place. No handler is set, and no level.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from logging import Logger as Logger
from typing import Any

from .errors import help_for, let_through

_NAME = re.compile(r" \[([a-z-]+)\]\Z")


class _Named(logging.Filter):
    """Gives a record its name, and its text the address of its explanation; lets all pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "adroll_event"):
            named = _NAME.search(str(record.msg))
            record.adroll_event = named[1] if named else ""
            if named:
                arguments = record.args if isinstance(record.args, tuple) else ()
                record.msg = f"{record.msg[: named.start()]} (%s)"
                record.args = (*arguments, help_for(named[1]))
        return True


class _Ours(logging.Logger):
    """A logger that ``dictConfig`` and ``fileConfig`` do not disable, and that raises nothing.

    By default they disable every logger that exists and that they do not name. Django calls
    ``dictConfig`` after it has imported us, and a refused token would leave no line. A level
    silences the logger.

    A site's record factory or filter may ask for a request where there is none, as in a thread of
    ours, and a handler may raise. That ends neither a report nor a delivery.
    """

    disabled = property(lambda _self: False, lambda _self, _value: None)

    def makeRecord(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        try:
            return super().makeRecord(*args, **kwargs)
        except Exception as problem:
            let_through(problem)
            name, level, path, line, text, arguments, exc_info, function, *_ = args
            return logging.LogRecord(name, level, path, line, text, arguments, exc_info, function)

    def handle(self, record: logging.LogRecord) -> None:
        try:
            super().handle(record)
        except Exception as problem:
            let_through(problem)
            with suppress(Exception):  # standard error may be closed
                logging.Handler().handleError(record)


_NAMED = _Named()


def get_logger(name: str) -> Logger:
    """The logger *name*, whose records have ``adroll_event``."""
    logger = logging.getLogger(name)
    site_class = type(logger)  # of logging.setLoggerClass
    if not issubclass(site_class, _Ours):
        logger.__class__ = type(site_class.__name__, (_Ours, site_class), {})
    logger.addFilter(_NAMED)  # which is added once, however often this is called
    return logger


#: For records that are about no single part of the package.
logger: Logger = get_logger("adroll_flask")
