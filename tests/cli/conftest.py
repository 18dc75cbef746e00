"""The commands as they are typed, on the app of a test."""

from collections.abc import Callable, Iterator

import pytest
from click.testing import Result
from flask import Flask

from adroll_flask.sandbox import RunningSandbox, running
from tests.conftest import AppMaker
from tests.support.visits import invoke

Run = Callable[..., Result]


@pytest.fixture
def app(make_app: AppMaker) -> Flask:
    return make_app(ADROLL_STRICT=False, ADROLL_DELIVERY="worker")


@pytest.fixture
def run(app: Flask) -> Run:
    return lambda *arguments, **kwargs: invoke(app, *arguments, **kwargs)


@pytest.fixture(scope="session")
def one_sandbox() -> Iterator[RunningSandbox]:
    with running(port=0) as found:
        yield found


@pytest.fixture
def sandbox(one_sandbox: RunningSandbox) -> RunningSandbox:
    """AdRoll on this machine, which has forgotten all that it saw."""
    one_sandbox.reset()
    return one_sandbox
