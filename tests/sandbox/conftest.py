"""Sandboxes for tests: one without a network, one that runs."""

from collections.abc import Iterator

import pytest

from adroll_flask.sandbox import RunningSandbox, create_app, running
from tests.support.sandbox_helpers import NOW, Api


@pytest.fixture
def api() -> Iterator[Api]:
    app = create_app(clock=lambda: NOW)
    sandbox = app.extensions["adroll_sandbox"]
    yield Api(sandbox, app.test_client().open)
    sandbox.state.close()


@pytest.fixture
def strict_api() -> Iterator[Api]:
    """As strict as AdRoll's documentation."""
    app = create_app(clock=lambda: NOW, strict=True)
    sandbox = app.extensions["adroll_sandbox"]
    yield Api(sandbox, app.test_client().open)
    sandbox.state.close()


@pytest.fixture
def adroll() -> Iterator[RunningSandbox]:
    with running() as sandbox:
        yield sandbox
