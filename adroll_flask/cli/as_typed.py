"""How commands name one another, as whoever runs them has to type it."""

from __future__ import annotations

from typing import Final

import click

_FLASK: Final = "flask adroll"
WITHOUT_FLASK: Final = "python -m adroll_flask"


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
