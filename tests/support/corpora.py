"""The documents that placement is judged by, from packages, pinned by version and hash.

- html5lib's own tree-construction tests (MIT), in its source distribution on PyPI.
- 258 pages as the web served them in 2014, in npm's `htmlparser-benchmark`.
- 30 pages of news sites as served since, in `newspaper4k`'s source distribution on PyPI.

They are fetched by the registries' clients at the first use and kept in the user's cache.
"""

import functools
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import lacking


@dataclass(frozen=True)
class Package:
    registry: str
    name: str
    version: str
    file: str
    sha256: str

    def fetch(self, into: Path) -> None:
        if self.registry == "npm":
            command = ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
            command += ["--pack-destination", str(into)]
        else:
            wanted = into / "requirements.txt"
            wanted.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n")
            # html5lib's setup.py imports pkg_resources, which later versions have no more.
            builder = into / "builder.txt"
            builder.write_text("setuptools<81\n")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-binary", self.name, "-r", str(wanted), "-d", str(into)]
            command += ["--build-constraint", str(builder)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)


HTML5LIB = Package(
    "PyPI",
    "html5lib",
    "1.1",
    "html5lib-1.1.tar.gz",
    "b2e5b40261e20f354d198eae92afc10d750afb487ed5e50f9c4eaf07c184146f",
)
BENCHMARK_PAGES = Package(
    "npm",
    "htmlparser-benchmark",
    "1.1.3",
    "htmlparser-benchmark-1.1.3.tgz",
    "677aa1b5ea0aa8d7b84501151abd51ef1c5e63d7853395ef24756e2f2b3ea2ce",
)
NEWS_PAGES = Package(
    "PyPI",
    "newspaper4k",
    "0.9.6",
    "newspaper4k-0.9.6.tar.gz",
    "a3f2f0e017dddb6f1019ee77aaa8980e13e6ecea0b949abc7167aae4770d2d0e",
)


@functools.cache
def archive(package: Package) -> Path:
    """Where *package* lies on this machine; skips the test where it cannot be had, fails in CI."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "adroll-flask-tests"
    kept = cache / package.file
    if not kept.exists():
        with tempfile.TemporaryDirectory() as folder:
            try:
                package.fetch(Path(folder))
            except (OSError, subprocess.SubprocessError) as error:
                problem = (
                    f"{package.name} {package.version} is not to be had from {package.registry}"
                )
                lacking(f"{problem}: {error}")
            cache.mkdir(parents=True, exist_ok=True)
            made = cache / f"{package.file}.{os.getpid()}"
            made.write_bytes((Path(folder) / package.file).read_bytes())
            made.replace(kept)
    found = hashlib.sha256(kept.read_bytes()).hexdigest()
    assert found == package.sha256, f"{kept} is not the {package.name} that the tests know"
    return kept


def _files(package: Package, pattern: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(archive(package)) as packed:
        for member in packed:
            if member.isfile() and re.search(pattern, member.name):
                file = packed.extractfile(member)
                assert file is not None
                yield member.name.rsplit("/", 1)[-1], file.read()


def tree_construction() -> list[tuple[str, bytes]]:
    """html5lib's documents: name and bytes; those for fragment parsing as documents too."""
    found = []
    for name, text in _files(HTML5LIB, r"testdata/tree-construction/.*\.dat$"):
        for number, test in enumerate(re.split(rb"(?:\A|\n\n)(?=#data\n)", text)):
            match = re.match(rb"#data\n(.*?)\n?#errors", test, re.DOTALL)
            if match:
                found.append((f"{name}:{number}", match[1]))
    return found


def real_pages() -> list[tuple[str, bytes]]:
    """Pages of the web: name and bytes."""
    pages = [
        *_files(BENCHMARK_PAGES, r"/files/.*\.html$"),
        *_files(NEWS_PAGES, r"tests/data/html/.*\.html$"),
    ]
    return [(name, page) for name, page in pages if page]
