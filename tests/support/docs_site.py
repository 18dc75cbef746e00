"""The documentation's site, built as `make docs` does it."""

import fcntl
import os
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, ran

#: Sphinx in a process that reaches no other host: whoever tries is named.
OFFLINE = """
import socket, sys

def refuse(self, address):
    raise AssertionError(f"the build asks the network: {address}")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = lambda *about, **more: refuse(None, about)
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


def built_site(factory: pytest.TempPathFactory) -> Path:
    """The site, built once for all processes of one run."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    with open(place / "site.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = place / "site" / "html"
        return done if (done / "objects.inv").is_file() else _build(place / "site")


def _build(folder: Path) -> Path:
    """Build the site below *folder*, every warning an error, without a network."""
    options = ("-W", "-n", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees"))
    env = os.environ | {"PYTHONWARNINGS": "", "DOCS_BASE_URL": ""}
    ran(sys.executable, "-c", OFFLINE, *options, ROOT / "docs", folder / "html", env=env)
    return folder / "html"
