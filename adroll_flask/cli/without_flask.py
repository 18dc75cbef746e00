"""``python -m adroll_flask --app MODULE:OBJECT COMMAND``: the commands for any WSGI app.

The commands ask Flask for the app that they work with. What they get here is a Flask app that holds
the middleware's parts and nothing else, so that there is one way to find them.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

import click
from flask import Config, Flask
from flask.cli import ScriptInfo

from adroll_flask.extension import AdRoll
from adroll_flask.middleware import AdRollMiddleware
from adroll_flask.request_state import EXTENSION

from .commands import Commands, commands
from .console import WITHOUT_FLASK, SettingsAlone

#: Where middleware keeps the app that it wraps: werkzeug's, WhiteNoise's, Paste's and ours.
_WRAPPED: Final = ("app", "application", "wsgi_app", "_app")
_NAMES: Final = ("application", "app")
#: Of the environment alone: read by the sandbox, and by `outbox move-from`.
_NO_SETTINGS = frozenset({"ADROLL_SANDBOX_ALLOW_PRODUCTION", "ADROLL_OLD_OUTBOX_URL"})
_DEEPEST: Final = 20


def main() -> None:
    """Run a command; exits."""
    sys.path.insert(0, os.getcwd())
    group = Commands(
        "adroll_flask",
        params=[
            click.Option(
                ["--app"],
                metavar="MODULE:OBJECT",
                help="The site's WSGI app with AdRollMiddleware around it: shop.wsgi:application. "
                "Without it the settings are the environment's ADROLL_*.",
            )
        ],
        callback=_choose,
        commands=dict(commands.commands),
        help=commands.help,
    )
    group.main(prog_name=WITHOUT_FLASK)


@click.pass_context
def _choose(context: click.Context, app: str | None) -> None:
    # Made when a command asks for it: --help works where the site does not start.
    context.obj = ScriptInfo(
        create_app=lambda: app_of_environment() if app is None else app_named(app)
    )


def app_named(name: str) -> Flask:
    """A Flask app that has the AdRoll of the WSGI app *name*.

    :raises click.UsageError: there is no such app, or no AdRollMiddleware around it.
    """
    module, _, attribute = name.partition(":")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as problem:
        # One that the site itself imports is missing: its own traceback tells where.
        if problem.name is None or not f"{module}.".startswith(f"{problem.name}."):
            raise
        raise click.UsageError(
            f"--app: there is no module {problem.name!r} in {os.getcwd()} or on PYTHONPATH"
        ) from None
    names = [attribute] if attribute else _NAMES
    found = next((one for one in (_look_up(loaded, name) for name in names) if one), None)
    if found is None:
        raise click.UsageError(f"--app: {module} has no {' and no '.join(names)}")
    for layer in _layers(found):
        if isinstance(layer, AdRollMiddleware):
            app = Flask("adroll_flask", static_folder=None)
            app.extensions[EXTENSION] = layer.runtime
            app.wsgi_app = layer  # type: ignore[method-assign]
            return app
        if isinstance(layer, Flask) and EXTENSION in layer.extensions:
            return layer
    raise click.UsageError(f"--app: there is no AdRollMiddleware around {name}")


def app_of_environment() -> Flask:
    """A Flask app whose AdRoll has the environment's ``ADROLL_*`` as settings, read as Flask does.

    :raises ConfigurationError: one of them is wrong.
    """
    given = Config(os.getcwd())
    given.from_prefixed_env("ADROLL")
    settings = {f"ADROLL_{key}": value for key, value in given.items()}
    folder = os.path.join(os.getcwd(), "instance")
    app = SettingsAlone("adroll_flask", static_folder=None, instance_path=folder)
    app.config.update({key: settings[key] for key in settings.keys() - _NO_SETTINGS})
    AdRoll(app)
    return app


def _look_up(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _layers(app: Any) -> Iterator[Any]:
    """*app*, what it wraps, what that wraps, and so on."""
    for _ in range(_DEEPEST):
        yield app
        wrapped = (getattr(app, name, None) for name in _WRAPPED)
        app = next((one for one in wrapped if callable(one)), None)
        if app is None:
            return
