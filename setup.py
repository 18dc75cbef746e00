"""What setup.cfg cannot say: where the project lives, archives that are the same twice.

`flask adroll explain` reads docs/errors.md: the wheel has a copy.
"""

import gzip
import io
import os
import re
import tarfile
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

PLACE = Path("adroll_flask", "_version.py")
KNOWN = re.compile(r'^DOCS_URL = "(.+)"$', re.MULTILINE)

text = Path(__file__).with_name("adroll_flask").joinpath(PLACE.name).read_text("utf-8")
found = KNOWN.search(text)
if found is None:
    raise SystemExit(f"{PLACE} names no URL")
url = os.environ.get("DOCS_BASE_URL", "") or found[1]


class BuildWithDocs(build_py):
    """Writes the chosen address into the copy that is built, and the errors' page beside it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(
                "docs/errors.md", str(Path(self.build_lib, "adroll_flask/cli/errors.md"))
            )
        built = Path(self.build_lib, PLACE)
        if built.is_file() and url != found[1]:
            built.unlink()  # it may be a hard link to the source
            moved = KNOWN.sub(lambda _: f'DOCS_URL = "{url}"', text)
            built.write_text(moved.replace("PUBLISHED: bool = False", "PUBLISHED: bool = True"))


class SameSdist(sdist):
    """Packs the same files into the same bytes, where SOURCE_DATE_EPOCH says of when they are."""

    def make_archive(self, base_name: str, format: str, *args: Any, **options: Any) -> str:
        made: str = super().make_archive(base_name, format, *args, **options)
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch and format == "gztar":
            pack_again(Path(made), int(epoch))
        return made


def pack_again(path: Path, when: int) -> None:
    """Write the archive anew: sorted, of one time, of nobody."""
    packed = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=packed, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda one: one.name):
            member.mtime, member.uid, member.gid = when, 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=when))


def readme() -> str:
    """The README as an index shows it, where nothing stands beside it."""
    shown = Path(__file__).with_name("README.md").read_text("utf-8")
    shown = re.sub(r"\(docs/pictures/([\w.-]+)\)", rf"({url}_images/\1)", shown)
    shown = re.sub(r"\(docs/([\w/-]+)\.md(#[\w-]+)?\)", rf"({url}\1.html\2)", shown)
    return shown.replace("(CONTRIBUTING.md)", f"({url}contributing.html)")


def places() -> dict[str, str]:
    """The links that an index shows: those of pyproject.toml, once they are filled in."""
    project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text("utf-8"))
    shown = {
        "Documentation": url,
        "Error messages": f"{url}errors.html",
        "Changelog": f"{url}changelog.html",
    }
    repository = project["tool"]["publication"]["repository"]
    if ".invalid" not in repository:
        shown |= {"Source": repository, "Issues": f"{repository}/issues"}
    return shown


setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWithDocs, "sdist": SameSdist},
    url=url,
    project_urls=places(),
)
