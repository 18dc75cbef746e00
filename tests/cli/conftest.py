"""The commands as they are typed, on the app of a test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from adroll_flask.cli.commands import commands
from adroll_flask.sandbox import RunningSandbox, running

Run = Callable[..., Result]


def invoke(app: Flask, *arguments: str, **kwargs: Any) -> Result:
    """What a command prints, and how it exits."""
    return app.test_cli_runner().invoke(commands, [*arguments], **kwargs)


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
