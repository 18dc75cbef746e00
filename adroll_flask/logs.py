"""The package's loggers: each record has a name that stays, ``adroll_event``.

It is the part of ``docs/errors.md`` that explains it. The code writes it at the end of the text,
``"… pauses for %g s: %s [delivery-paused]"``, and the line ends in where that is read: who writes
JSON, or alarms, need not read texts. No handler is set, and no level.
"""

from __future__ import annotations

import logging
import re
from logging import Logger as Logger

from .errors import help_for

_NAME = re.compile(r" \[([a-z-]+)\]\Z")


class _Named(logging.Filter):
    """Gives a record its name, and its text the place of its explanation; lets all pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "adroll_event"):
            named = _NAME.search(str(record.msg))
            record.adroll_event = named[1] if named else ""
            if named:
                arguments = record.args if isinstance(record.args, tuple) else ()
                record.msg = f"{record.msg[: named.start()]} (%s)"
                record.args = (*arguments, help_for(named[1]))
        return True


_NAMED = _Named()


class _NeverDisabled(logging.Logger):
    """A logger that ``dictConfig`` and ``fileConfig`` do not disable.

    By default they disable every logger that exists and is not named, and Django calls the former
    after it has imported us: a refused token would leave no line. A level silences it.
    """

    disabled = property(lambda _self: False, lambda _self, _value: None)


def get_logger(name: str) -> Logger:
    """The logger *name*, whose records have ``adroll_event``."""
    logger = logging.getLogger(name)
    if type(logger) is Logger:
        logger.__class__ = _NeverDisabled
    logger.addFilter(_NAMED)  # once, however often
    return logger


#: For what no part of the package alone is about.
logger: Logger = get_logger("adroll_flask")
