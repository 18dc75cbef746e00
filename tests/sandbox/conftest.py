"""Sandboxes for tests: one without a network, one that runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sandbox_helpers import NOW, Api

from adroll_flask.sandbox import RunningSandbox, create_app, running


@pytest.fixture
def api() -> Iterator[Api]:
    app = create_app(clock=lambda: NOW)
    sandbox = app.extensions["adroll_sandbox"]
    yield Api(sandbox, app.test_client().open)
    sandbox.state.close()


@pytest.fixture
def adroll() -> Iterator[RunningSandbox]:
    with running() as sandbox:
        yield sandbox
