"""``flask adroll dashboard``: the dashboard on this machine, for whoever may start commands."""

from __future__ import annotations

import logging
from typing import Any, Final

import click
from flask import Flask, abort, redirect, request
from flask.cli import with_appcontext

from adroll_flask.runtime import Runtime

from .app_runtime import Refusal, current_runtime

_HOST: Final = "127.0.0.1"
_NAMES: Final = ("127.0.0.1", "localhost")


@click.command("dashboard")
@click.option("--port", default=5002, show_default=True, type=click.IntRange(0, 65_535))
@click.option("--look-only", is_flag=True, help="Without buttons that send, retry or drop.")
@with_appcontext
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
        raise Refusal(
            f"port {port} is taken; choose another with --port", slug="port-taken"
        ) from None
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    click.echo(f"Dashboard  http://{_HOST}:{server.server_port}/  (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


def local_app(runtime: Runtime, *, look_only: bool = False) -> Flask:
    """An app with the dashboard alone, which answers under this machine's own names only."""
    from adroll_flask.dashboard import mount

    app = Flask("adroll_dashboard", static_folder=None)

    @app.before_request
    def only_local() -> None:
        # A page elsewhere whose name was made to mean this machine (DNS rebinding) has its name.
        if request.host.partition(":")[0] not in _NAMES:
            abort(403, "the dashboard is not known under this name")

    @app.get("/")
    def begin() -> Any:
        return redirect("/adroll-dashboard/")

    mount(app, runtime, access=lambda: True, operator=lambda: not look_only)
    return app
