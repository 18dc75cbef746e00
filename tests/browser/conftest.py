"""The browsers of this folder's tests."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from adroll_flask.sandbox import RunningSandbox
from tests.support import engines
from tests.support.browsing import *  # noqa: F403 - pytest finds fixtures by their names here
from tests.support.browsing import HOSTS
from tests.support.certificates import make_certificate
from tests.support.engines import START, Engine, is_alive
from tests.support.journey import Site, open_shop
from tests.support.kit_site import KitSite

#: Firefox and WebKit, as far as a test has asked for them.
RUNNING: dict[str, Engine] = {}


@pytest.fixture
def adroll(sandbox: RunningSandbox) -> RunningSandbox:
    return sandbox


@pytest.fixture
def shop(adroll: RunningSandbox, tmp_path: Path) -> Iterator[Site]:
    """A whole shop; other tests have one of their own kind."""
    with open_shop(adroll, tmp_path) as site:
        yield site


@pytest.fixture
def site() -> Iterator[KitSite]:
    """A page with the kit alone."""
    with KitSite().running() as site:
        yield site


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return make_certificate(tmp_path_factory.mktemp("tls"), *HOSTS)


@pytest.fixture(scope="module")
def tunnel() -> Iterator[int]:
    """By which Firefox and WebKit reach the tests' hosts."""
    with engines.tunnel() as port:
        yield port


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Engine]]:
    """Starts Firefox or WebKit where the first test asks for it; they end with the module.

    One that has died since is started again: only the test in which it died has that to bear.
    """
    with ExitStack() as stack:
        stack.callback(RUNNING.clear)

        def start(name: str) -> Engine:
            if name not in RUNNING or not is_alive(RUNNING[name]):
                folder = tmp_path_factory.mktemp(name) / "profile"
                tunnel: int = request.getfixturevalue("tunnel")
                RUNNING[name] = stack.enter_context(START[name](folder, tunnel))
            return RUNNING[name]

        yield start


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A test whose browser died, and only such a one, has a second chance with another browser."""
    if "started" not in getattr(item, "fixturenames", ()):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    failed = any(report.failed for report in reports)
    if failed and not all(map(is_alive, RUNNING.values())):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
