"""Sandboxes for tests: one without a network, one that runs."""

from collections.abc import Iterator

import pytest

from adroll_flask.sandbox import RunningSandbox, create_app, running
from tests.support.sandbox_helpers import NOW, Api


def made(*, strict: bool) -> Iterator[Api]:
    api = Api.of(create_app(clock=lambda: NOW, strict=strict))
    yield api
    api.sandbox.state.close()


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
