"""``flask adroll …``: each command translates options into a call. ``python -m adroll_flask`` has
the same commands for sites without Flask."""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import sys
from dataclasses import asdict
from operator import attrgetter
from typing import Final

import click
from flask import Config, Flask, abort, redirect, request
from flask.cli import ScriptInfo

from adroll_flask.asgi import AdRollASGIMiddleware
from adroll_flask.errors import EventError
from adroll_flask.extension import AdRoll
from adroll_flask.findings.app_check import send_test_event
from adroll_flask.plurals import counted
from adroll_flask.reporting.kept_events import erase
from adroll_flask.request_state import EXTENSION, layer_with_adroll
from adroll_flask.runtime import Runtime

from . import check, console, explain, history, import_command, outbox, worker  # noqa: F401 - more commands
from .console import Commands, Refusal, current_runtime
from .console import commands as commands

_HOST: Final = "127.0.0.1"
#: Variables of the environment that begin as settings do, and are none.
_NO_SETTINGS: Final = ("SANDBOX_ALLOW_PRODUCTION", "OLD_OUTBOX_URL")


# -- first contact -------------------------------------------------------------------------


@commands.command("send-test")
@click.option("--event", "name", default="pageView", show_default=True, help="The event's name.")
@console.shop_and_json
def send_test(name: str, account: str | None) -> None:
    """Send AdRoll one event as a dry run, and show what it answers.

    The event goes through the real client, with the site's account and token. If each host has its
    own, --shop says which are used. Without it they are the first ones.
    """
    result = send_test_event(current_runtime(), name, account)
    console.show(asdict(result), result.as_text(), failed=not result.ok)


@commands.command(with_appcontext=False)
def schema() -> None:
    """Print the JSON Schema of an event as it is sent."""
    from adroll_flask.events.event import json_schema

    click.echo(json.dumps(json_schema(), indent=2, sort_keys=True))


# -- visitors' data ------------------------------------------------------------------------


@commands.command("forget")
@click.option("--email", help="Erase events with this address, or its hash.")
@click.option("--user-id", help="Erase events with this user id.")
@click.option("--device-id", help="Erase events with this advertising id (IDFA, GAID).")
@click.option("--cookie", help="Erase events with this first-party cookie.")
@click.option("--click-id", help="Erase events with this click id.")
def forget_events(**identifiers: str | None) -> None:
    """Erase the events of one visitor that wait.

    An audit line without personal data goes into the log.
    """
    if not any(identifiers.values()):
        raise click.UsageError("give --email, --user-id, --device-id, --cookie or --click-id")
    try:
        erased = erase(current_runtime().reporter, **identifiers)
    except EventError as problem:
        text = f"{problem.expected}; nothing was erased"
        raise click.BadParameter(text, param_hint="--email or --cookie") from None
    console.say_delivered(erased.delivered, "AdRoll has what they said of the visitor")
    click.echo(f"{counted(erased.events, 'event')} erased")


# -- pages elsewhere ------------------------------------------------------------------------


@commands.command()
@click.option("--base", required=True, help="This app's address: https://api.shop.example")
def tag(base: str) -> None:
    """Print the tag for pages that another server delivers.

    ADROLL_ORIGINS has to name the origins of these pages.
    """
    runtime = current_runtime()
    if not re.fullmatch(r"(?i:https?)://[^\s/?#@]+(/[^\s?#]*)?", base):
        raise click.UsageError("--base takes a URL such as https://api.shop.example")
    if not runtime.settings.origins:
        raise click.UsageError("set ADROLL_ORIGINS to the origins of the pages that get the tag")
    click.echo(runtime.snippet.lasting_tag(base))


# -- the dashboard on this machine, for whoever may start commands ---------------------------------


@commands.command("dashboard")
@click.option("--port", default=5002, show_default=True, type=click.IntRange(0, 65_535))
@click.option("--look-only", is_flag=True, help="Without buttons that send, retry or drop.")
def dashboard(port: int, look_only: bool) -> None:
    """Serve the dashboard on this machine: http://127.0.0.1:5002.

    It answers this machine alone. To open it to colleagues, mount it in the app, behind the app's
    login: adroll.dashboard(app, access=...).
    """
    from werkzeug.serving import make_server

    app = local_app(current_runtime(), look_only=look_only)
    try:
        server = make_server(_HOST, port, app, threaded=True)
    except (OSError, SystemExit):  # werkzeug exits where the port is taken
        raise Refusal(f"port {port} is taken: choose another, --port", slug="port-taken") from None
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    click.echo(f"Dashboard  http://{_HOST}:{server.server_port}/  (Ctrl-C ends it)")
    server.serve_forever()


def local_app(runtime: Runtime, *, look_only: bool = False) -> Flask:
    """An app with the dashboard alone, which answers under this machine's own names only."""
    from adroll_flask.dashboard import mount

    app = Flask("adroll_dashboard", static_folder=None)

    @app.before_request
    def only_local() -> None:
        # Somebody else's page may have a host name that leads to this machine (DNS rebinding).
        # Browsers then send that name.
        if request.host.partition(":")[0] not in (_HOST, "localhost"):
            abort(403, "the dashboard is not known under this name")

    app.add_url_rule("/", "begin", lambda: redirect("/adroll-dashboard/"))
    mount(app, runtime, access=lambda: True, operator=lambda: not look_only)
    return app


# -- the sandbox ---------------------------------------------------------------------------


#: The options are those of its own parser.
_ALL_ARGUMENTS: Final = {"ignore_unknown_options": True, "help_option_names": []}


@commands.command("sandbox", with_appcontext=False, context_settings=_ALL_ARGUMENTS)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def sandbox(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Run AdRoll on this machine."""
    from adroll_flask.sandbox.__main__ import main

    status = main(
        list(arguments),
        prog=console.as_typed("flask adroll sandbox"),
        site_says=lambda: _address_in_site(context.ensure_object(ScriptInfo)),
    )
    raise SystemExit(status)


def _address_in_site(info: ScriptInfo) -> str:
    """Return the site's ``ADROLL_SANDBOX`` as a text, or an empty text."""
    # The sandbox needs no site: there may be none yet, or one that does not start. Nor does anybody
    # who starts the sandbox ask what the site has to say.
    logging.disable()
    try:
        runtime: Runtime = info.load_app().extensions[EXTENSION]
    except Exception:
        return ""
    finally:
        logging.disable(logging.NOTSET)
    return str(runtime.settings.sandbox)


# -- python -m adroll_flask --app MODULE:OBJECT COMMAND: the commands for any app -------------
#
# The commands ask Flask for the current app. Here they get a Flask app that holds the middleware's
# parts and nothing else, so that there is one way to find these.


def main() -> None:
    """Run a command; exits."""
    sys.path.insert(0, os.getcwd())
    _without_flask(prog_name=console.WITHOUT_FLASK)


@click.group("adroll_flask", cls=Commands, commands=commands.commands, help=commands.help)
@click.option(
    "--app",
    metavar="MODULE:OBJECT",
    help="The site's app with AdRollMiddleware or AdRollASGIMiddleware: shop.wsgi:application. "
    "Without it the settings are the environment's ADROLL_*.",
)
@click.pass_context
def _without_flask(context: click.Context, app: str | None) -> None:
    # The app is made when a command asks for it: --help works where the site does not start.
    context.obj = ScriptInfo(
        create_app=lambda: app_of_environment() if app is None else app_named(app)
    )


def app_named(name: str) -> Flask:
    """A Flask app that has the AdRoll of the WSGI or ASGI app *name*.

    :raises click.UsageError: there is no such app, or no middleware of ours around it.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith("."):
        raise click.UsageError("--app takes MODULE:OBJECT, such as shop.wsgi:application")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as problem:
        # If a module is missing that the site itself imports, the traceback tells where.
        if problem.name is None or not f"{module}.".startswith(f"{problem.name}."):
            raise
        reason = f"there is no module {problem.name!r} in {os.getcwd()} or on PYTHONPATH"
        raise click.UsageError(f"--app: {reason}") from None
    path, is_factory, _ = attribute.partition("()")
    try:
        site = attrgetter(path)(loaded)
    except AttributeError:
        raise click.UsageError(f"--app: {module} has no {path}") from None
    if is_factory:
        site = site()
    layer = layer_with_adroll(site)
    if layer is None:
        raise click.UsageError(
            f"--app: there is no AdRollMiddleware or AdRollASGIMiddleware around {name}. Of an "
            "app that mounts others name the one that has it. A factory is written with brackets, "
            "such as shop:create_app(). Where a framework makes its middleware later, as Litestar "
            "does with middleware=, put ours around the app"
        )
    if isinstance(layer, Flask):
        return layer
    is_asgi = isinstance(layer, AdRollASGIMiddleware)
    app = Flask("adroll_flask.asgi" if is_asgi else "adroll_flask", static_folder=None)
    app.extensions[EXTENSION] = layer.runtime
    app.wsgi_app = layer.endpoints  # type: ignore[method-assign]
    return app


def app_of_environment() -> Flask:
    """A Flask app whose AdRoll has the environment's ``ADROLL_*`` as settings, read as Flask does.

    :raises ConfigurationError: one of them is wrong.
    """
    folder = os.path.join(os.getcwd(), "instance")
    app = Flask("adroll_flask", static_folder=None, instance_path=folder)
    environment = Config(os.getcwd())
    environment.from_prefixed_env("ADROLL")
    for name, value in environment.items():
        if name not in _NO_SETTINGS:
            app.config[f"ADROLL_{name}"] = value
    AdRoll(app)
    app.extensions[EXTENSION].functions.are_here = False
    return app
