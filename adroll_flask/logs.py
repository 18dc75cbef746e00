"""The package's loggers: each record has a name that stays, ``adroll_event``.

It is the part of ``docs/errors.md`` that explains it (``delivery-held``), whose address also ends
the line: who writes JSON, or alarms, need not read texts. No handler is set, and no level.
"""

from __future__ import annotations

import logging
from logging import Logger

from .errors import HelpUrl

__all__ = ["Logger", "get_logger"]


class _Named(logging.Filter):
    """Gives a record its name; lets all pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "adroll_event"):
            arguments = record.args if isinstance(record.args, tuple) else ()
            named = [argument.slug for argument in arguments if isinstance(argument, HelpUrl)]
            record.adroll_event = named[-1] if named else ""
        return True


_NAMED = _Named()


def get_logger(name: str) -> Logger:
    """The logger *name*, whose records have ``adroll_event``."""
    logger = logging.getLogger(name)
    logger.addFilter(_NAMED)  # once, however often
    return logger
