"""The checkout route that side_by_side.py puts under gunicorn."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from secrets import randbits

from flask import Flask, redirect, request
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from benchmarks.reporters import make


def make_app() -> Flask:
    """For gunicorn."""
    logging.disable(logging.CRITICAL)
    folder = Path(os.environ["FOLDER"]) / "instance"
    app, reporter = make(os.environ["KIND"], os.environ["SINK"], folder)

    @app.post("/checkout")
    def checkout() -> Response:
        assert request.form["product"] == "mug"
        reporter.in_view(f"order-{randbits(60)}")
        return redirect("/thanks", 303)

    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)  # type: ignore[method-assign]
    return app
