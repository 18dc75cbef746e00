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
        site = place / "site"
        # Every warning an error, without a network.
        options = ("-W", "-n", "--keep-going", "-q", "-b", "html", "-d", str(site / "doctrees"))
        env = os.environ | {"PYTHONWARNINGS": "", "DOCS_BASE_URL": ""}
        if not (site / "html" / "objects.inv").is_file():
            ran(sys.executable, "-c", OFFLINE, *options, ROOT / "docs", site / "html", env=env)
        return site / "html"
