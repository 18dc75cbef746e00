"""The browsers of this folder's tests."""

import ssl
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from adroll_flask.sandbox import RunningSandbox
from tests.support import engines
from tests.support.browsing import *  # noqa: F403 - pytest finds fixtures by their names here
from tests.support.browsing import HOSTS
from tests.support.certificates import make_certificate
from tests.support.engines import START, Engine, EngineContext, is_alive
from tests.support.journey import Site, open_shop
from tests.support.kit_site import KitSite

DIED = pytest.StashKey[bool]()


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
        known: dict[str, Engine] = {}

        def start(name: str) -> Engine:
            if name not in known or not is_alive(known[name]):
                folder = tmp_path_factory.mktemp(name) / "profile"
                tunnel: int = request.getfixturevalue("tunnel")
                known[name] = stack.enter_context(START[name](folder, tunnel))
            return known[name]

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    context = getattr(item, "funcargs", {}).get("context")
    if call.excinfo and isinstance(context, EngineContext) and not is_alive(context.engine):
        item.stash[DIED] = True
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A test whose browser died, and only such a one, has a second chance with another browser."""
    if "started" not in getattr(item, "fixturenames", ()):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if item.stash.get(DIED, False):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
