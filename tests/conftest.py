"""What all tests share."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings

from adroll_flask import AdRoll
from adroll_flask.sandbox import RunningSandbox, running
from tests.support.sites import PAGE as PAGE
from tests.support.sites import add_views

pytest_plugins = ["adroll_flask.testing"]

# Where Python is told to keep no bytecode, each of the workers and each of hundreds of programs
# under test would compile all of it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Tests assert no times, and an example on a busy machine takes what it takes.
# CI takes the same examples each time, as Hypothesis's own profile for it does.
settings.register_profile(
    "tests",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("tests")

ADVERTISABLE = "ADVERTISABLE0000000001"
PIXEL = "PIXEL00000000000000001"

AppMaker = Callable[..., Flask]
Caplog = pytest.LogCaptureFixture
Capsys = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

# A shell's background (and nohup) ignores Ctrl-C for all that it starts, and what ignores a signal
# hands that down: programs under test, which are told to end by it, would go on for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: What waits the longest by the file: it begins first, so that at the end of a run nobody waits for
#: one worker that has it alone.
LONGEST = ("tests/servers/", "tests/browser/", "tests/house/", "tests/security/", "tests/sandbox/")

#: Browsers take most of the machine: a part of each of their subjects every day, all with proofs.
BROWSERS = "tests/browser/"
_DAILY = {
    "asgi": ("",),
    "consent_in_browser": ("a_late_yes", "who_was_not_asked"),
    "consent_platforms": ("the_page_tells_each_answer[after",),
    "cookie_caps": ("who_buys_days_later_is_who_clicked[2",),
    "csp": ("",),
    "fetched_pages": ("what_a_library", "a_page_that_a_service"),
    "dashboard_actions": ("a_problem_is_fixed",),
    "front_end_elsewhere": ("a_front_end", "the_pages_script"),
    "journeys": ("1_", "2", "6"),
    "journeys_elsewhere": tuple(
        f"1_from_the_ad_to_the_purchase[{one}-http]" for one in ("firefox", "webkit")
    ),
    "kit": ("a_", "half_the_wait", "click", "the_next_page", "what", "who_leaves_early"),
    "kit_consent": (
        *("any_no", "a_platforms", "the_server", "withdrawn"),
        *("a_no_that_did_not", "a_cmp_that_comes_late", "without_a_platforms"),
    ),
    "kit_gpp": ("a_later_no", "where_no_platform", "who_opted_out"),
    "kit_lifecycle": ("",),
    "sandbox": ("an_event_appears", "the_pixel_waits", "what_an_event_holds"),
}
DAILY = tuple(
    f"{BROWSERS}test_{subject}.py::test_{name}" for subject in _DAILY for name in _DAILY[subject]
)


#: What `make quick` runs, but for tests that wait (`patient`) or need a browser or a server.
QUICK = tuple(f"tests/{name}/" for name in ("visitor", "page", "events", "outbox", "delivery"))
QUICK += ("tests/app/test_settings.py", "tests/house/test_imports.py")
NOT_QUICK = ("slow", "browser", "patient")
SERVERS = ("postgresql", "mariadb")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Of `-m quick`, each worker reads no more than where such tests are."""
    if config.option.markexpr != "quick":
        return None
    name = collection_path.relative_to(config.rootpath).as_posix() + "/" * collection_path.is_dir()
    return not any(name.startswith(one) or one.startswith(name) for one in ("./", *QUICK)) or None


@pytest.hookimpl(tryfirst=True)  # before -m is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    for item in items:
        test = item.nodeid
        if test.startswith(BROWSERS):
            item.add_marker(pytest.mark.browser)
        if (
            (test.startswith(BROWSERS) and not test.startswith(DAILY))
            # MariaDB has its part of the contract with the proofs: PostgreSQL is a server, too.
            or (test.startswith(("tests/outbox/", "tests/dashboard/")) and "mariadb" in test)
            # The dashboard asks by the outbox's own look-ups, which that contract is about.
            or (test.startswith("tests/dashboard/") and "postgresql" in test)
        ):
            item.add_marker(pytest.mark.slow)
        kept_out = any(item.get_closest_marker(name) for name in NOT_QUICK)
        if test.startswith(QUICK) and not kept_out and not any(name in test for name in SERVERS):
            item.add_marker(pytest.mark.quick)


@pytest.fixture(autouse=True)
def no_module_of_another_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test wrote as `shop.py` and imported is not the next test's `shop`."""
    before, path = set(sys.modules), sys.path[:]
    yield
    written = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        files = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
        if any(file and file.startswith(written) for file in files):
            del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def adroll() -> AdRoll:
    """The extension that a test's app has; in some folders, AdRoll itself on this machine."""
    return AdRoll()


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """AdRoll on this machine, which refuses what AdRoll's documents do not name."""
    with running(strict=True) as one:
        yield one


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered on it is left with the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[AppMaker]:
    """Makes Flask apps with AdRoll on them, each with an outbox of its own and no delivery."""
    made: list[Flask] = []

    def make(adroll: AdRoll | None = None, /, **config: Any) -> Flask:
        app = Flask(f"shop{len(made)}", instance_path=str(tmp_path / f"instance{len(made)}"))
        app.config.update(
            SECRET_KEY="a key for tests",
            TESTING=True,
            ADROLL_ADVERTISABLE_EID=ADVERTISABLE,
            ADROLL_PIXEL_EID=PIXEL,
            ADROLL_ACCESS_TOKEN="a-token",
            ADROLL_API_URL="http://127.0.0.1:9/api",
            ADROLL_DELIVERY="worker",
        )
        app.config.update(config)
        (adroll or AdRoll()).init_app(app)

        add_views(app)
        made.append(app)
        return app

    yield make
    for app in made:
        outbox = vars(app.extensions["adroll"]).get("outbox")
        if outbox is not None:
            outbox.close()
