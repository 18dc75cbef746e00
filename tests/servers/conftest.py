"""AdRoll, as shops under real servers know it."""

from collections.abc import Iterator

import pytest

from adroll_flask.sandbox import RunningSandbox, running


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """AdRoll's sandbox, which refuses what AdRoll's documents do not name."""
    with running(strict=True) as one:
        yield one
