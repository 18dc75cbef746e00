"""The AdRoll of the app that a command works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from flask import Flask

from adroll_flask import request_state

if TYPE_CHECKING:
    from adroll_flask.outbox import Outbox
    from adroll_flask.runtime import Runtime

#: Where a command's context keeps it.
_USED = "adroll_flask.runtime"


class SettingsAlone(Flask):
    """Stands for a site of which a command knows the settings and no app."""


def current_runtime() -> Runtime:
    """The current app's AdRoll.

    :raises ConfigurationError: it has none. The commands are there for any app.
    """
    runtime = request_state.runtime("flask adroll")
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[_USED] = runtime
    return runtime


def used_runtime(context: click.Context) -> Runtime | None:
    """The AdRoll that a command has worked with, also after its app context has ended."""
    return context.meta.get(_USED)


def kept_outbox() -> Outbox | None:
    """The app's outbox; ``None`` where nothing was reported yet: looking must not make a file."""
    runtime = current_runtime()
    return runtime.outbox if runtime.may_have_events() else None
