"""The middleware, as these tests wrap it around an app."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client

import adroll_flask
from adroll_flask import AdRoll, AdRollASGIMiddleware, AdRollMiddleware
from tests.conftest import ADVERTISABLE, PAGE, PIXEL, AppMaker
from tests.support.asgi import Bridged, as_asgi, as_wsgi, strict

#: Gives a middleware.
Wrap = Callable[..., Any]
Either = Callable[..., tuple[Flask, Client, Any]]


def forget() -> str:
    """A view."""
    adroll_flask.forget_visitor()
    return PAGE


class Later(AdRoll):
    """Set up on an app after what *first* does to it."""

    def __init__(self, first: Callable[[Flask], object]) -> None:
        super().__init__()
        self._first = first

    def init_app(self, app: Flask) -> None:
        self._first(app)
        super().init_app(app)


@pytest.fixture
def app(make_app: AppMaker, adroll: AdRoll) -> Flask:
    return make_app(adroll)


def wrapping(middleware_class: Any, tmp_path: Path) -> Iterator[Wrap]:
    made: list[Any] = []

    def wrap(app: Callable[..., Iterable[bytes]], **settings: Any) -> Any:
        values: dict[str, Any] = {
            "advertisable_eid": ADVERTISABLE,
            "pixel_eid": PIXEL,
            "access_token": "a-token",
            "secret_key": "a key for tests",
            "delivery": "worker",
            "strict": True,
            "folder": str(tmp_path / f"folder{len(made)}"),
        }
        middleware = middleware_class(app, **(values | settings))
        made.append(middleware)
        return middleware

    yield wrap
    for middleware in made:
        middleware.runtime.outbox.close()


@pytest.fixture(params=[AdRollMiddleware, Bridged], ids=["wsgi", "asgi"])
def wrap(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wrap]:
    """Puts either middleware around a WSGI app; a WSGI client asks it."""
    yield from wrapping(request.param, tmp_path)


@pytest.fixture
def wsgi_wrap(tmp_path: Path) -> Iterator[Wrap]:
    yield from wrapping(AdRollMiddleware, tmp_path)


@pytest.fixture
def asgi_wrap(tmp_path: Path) -> Iterator[Wrap]:
    """Puts the ASGI middleware around an ASGI app."""
    yield from wrapping(AdRollASGIMiddleware, tmp_path)


@pytest.fixture(params=["flask", "wsgi_wrap", "asgi_wrap"])
def either(request: pytest.FixtureRequest, make_app: AppMaker) -> Either:
    """Makes an app with the extension, or one below the middleware; with its browser and parts."""

    def make(**settings: Any) -> tuple[Flask, Client, Any]:
        settings = {"strict": False} | settings
        if request.param == "flask":
            config = {f"ADROLL_{name.upper()}": value for name, value in settings.items()}
            app = make_app(**config)
            return app, app.test_client(), app.extensions["adroll"]
        app = Flask("shop")
        app.add_url_rule("/", "index", lambda: PAGE)
        wrap = request.getfixturevalue(request.param)
        if request.param == "wsgi_wrap":
            middleware = wrap(app.wsgi_app, **settings)
            return app, Client(middleware), middleware.runtime
        middleware = wrap(as_asgi(app.wsgi_app), **settings)
        return app, Client(as_wsgi(strict(middleware))), middleware.runtime

    return make
