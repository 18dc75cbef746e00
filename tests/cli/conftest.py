"""The commands as they are typed, on the app of a test."""

from collections.abc import Callable

import pytest
from click.testing import Result
from flask import Flask

from tests.conftest import AppMaker
from tests.support.visits import invoke

Run = Callable[..., Result]


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(ADROLL_STRICT=False, ADROLL_DELIVERY="worker")


@pytest.fixture
def run(app: Flask) -> Run:
    return lambda *arguments, **kwargs: invoke(app, *arguments, **kwargs)
