"""The AdRoll of the app that a command works with, and what a command says that refuses."""

from __future__ import annotations

from typing import Final

import click
from flask import Flask

from adroll_flask import request_state
from adroll_flask.outbox import Outbox
from adroll_flask.runtime import Runtime

_FLASK: Final = "flask adroll"
WITHOUT_FLASK: Final = "python -m adroll_flask"


class Refusal(click.ClickException):
    """A command did nothing, or not all of it.

    :param slug: the part of ``docs/errors.md`` that explains it.
    """

    def __init__(self, message: str, *, slug: str) -> None:
        super().__init__(message)
        self.slug = slug


class SettingsAlone(Flask):
    """Stands for a site of which a command knows the settings and no app."""


def current_runtime() -> Runtime:
    """The current app's AdRoll.

    :raises ConfigurationError: it has none. The commands are there for any app.
    """
    return request_state.runtime("flask adroll")


def kept_outbox() -> Outbox | None:
    """The app's outbox; ``None`` where nothing was reported yet: looking must not make a file."""
    runtime = current_runtime()
    return runtime.outbox if runtime.outbox.exists() else None


def as_typed(text: str) -> str:
    """*text* with the commands in it as they were reached.

    On a site without Flask, ``flask adroll check`` finds no app: there it is
    ``python -m adroll_flask --app shop.wsgi:application check``.
    """
    context = click.get_current_context(silent=True)
    root = context.find_root() if context is not None else None
    if root is None or root.info_name != WITHOUT_FLASK:
        return text
    app = root.params.get("app")
    return text.replace(_FLASK, WITHOUT_FLASK + (f" --app {app}" if app else ""))
