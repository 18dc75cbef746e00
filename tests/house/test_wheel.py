"""What users install is the wheel: a folder that setup.cfg does not list vanishes from it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

from tests.support import ROOT

#: What makes the kit stays in the repository.
TOOLS_OF_THE_KIT = {"build.mjs", "built.json", "package.json", "package-lock.json"}
UNLISTED = "adroll_flask/unlisted/__init__.py"


def files_of(root: Path) -> set[str]:
    """The paths in the wheel of all that an installed package needs."""
    package = {path.relative_to(root) for path in (root / "adroll_flask").rglob("*.*")}
    copied = {Path("adroll_flask", "static", path.name) for path in (root / "static").glob("*.*")}
    copied.add(Path("adroll_flask/cli/errors.md"))
    return {
        path.as_posix()
        for path in package | copied
        if "__pycache__" not in path.parts and path.name not in TOOLS_OF_THE_KIT
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The files that a wheel should have and those that it has, with one folder not listed.

    It is built of what ``examples/compose/Dockerfile`` copies for it, and nothing else.
    """
    tree = tmp_path_factory.mktemp("tree")
    dockerfile = (ROOT / "examples/compose/Dockerfile").read_text()
    for names, place in re.findall(r"^COPY (.+) /src/(.*)$", dockerfile, re.MULTILINE):
        for name in names.split():
            copy = tree / place / (name if place.endswith("/") or not place else "")
            if (ROOT / name).is_dir():
                left_out = shutil.ignore_patterns("node_modules", "__pycache__")
                shutil.copytree(ROOT / name, copy, ignore=left_out)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy)
    (tree / UNLISTED).parent.mkdir()
    (tree / UNLISTED).write_text('"""A folder that somebody forgot to list."""\n')
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tree / "dist"), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (tree / "dist").glob("*.whl")
    with ZipFile(wheel) as archive:
        return files_of(tree), set(archive.namelist())


def test_the_wheel_has_every_file_of_every_listed_folder_and_no_other(
    built: tuple[set[str], set[str]],
) -> None:
    wanted, found = built
    assert wanted - found == {UNLISTED}, "setup.cfg lists packages and package_data"
    extra = found - wanted
    assert {PurePosixPath(name).parts[0] for name in extra} == {
        next(iter(extra)).partition("/")[0]
    }, "beside the package there is the metadata alone"


def test_every_folder_with_a_module_is_a_package() -> None:
    """Without ``__init__.py`` it would be a namespace that no rule of imports sees."""
    folders = {path.parent for path in (ROOT / "adroll_flask").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    "name",
    [
        "adroll_flask/py.typed",
        "adroll_flask/static/adroll-kit.min.js",
        "adroll_flask/static/adroll-kit-consent.min.js",
        "adroll_flask/sandbox/templates/",
        "adroll_flask/sandbox/assets/",
        "adroll_flask/dashboard/templates/layout.html",
        "adroll_flask/dashboard/assets/dashboard.css",
        "adroll_flask/outbox/__init__.py",
    ],
)
def test_the_wheel_has_what_no_import_would_miss(
    built: tuple[set[str], set[str]], name: str
) -> None:
    assert [path for path in built[1] if path.startswith(name)]
