"""Sandboxes for tests: one without a network, one that runs."""

from collections.abc import Iterator

import pytest

from adroll_flask.sandbox import RunningSandbox, create_app, running
from tests.support.sandbox_helpers import NOW, Api


def made(*, strict: bool) -> Iterator[Api]:
    app = create_app(clock=lambda: NOW, strict=strict)
    sandbox = app.extensions["adroll_sandbox"]
    yield Api(sandbox, app.test_client().open)
    sandbox.state.close()


@pytest.fixture
def api() -> Iterator[Api]:
    yield from made(strict=False)


@pytest.fixture
def strict_api() -> Iterator[Api]:
    """As strict as AdRoll's documentation."""
    yield from made(strict=True)


@pytest.fixture
def adroll() -> Iterator[RunningSandbox]:
    with running() as sandbox:
        yield sandbox
