"""What goes to an index: it is complete, the same each time, and fits a typed program."""

import compileall
import email
import hashlib
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from adroll_flask._version import DOCS_URL
from tests.support import ROOT, ran

#: 2026-01-01T00:00:00Z; any date will do, as long as it is one.
EPOCH = "1767225600"


ELSEWHERE = "https://docs.shop.example/adroll/"


def build(folder: Path, **env: str) -> dict[str, Path]:
    """Build sdist and wheel of a copy of the checkout; by the ends of their names."""
    tree = folder / "tree"
    shutil.copytree(
        ROOT,
        tree,
        ignore=shutil.ignore_patterns(
            *(".git", ".venv*", "node_modules", "__pycache__", "build", "_build", "*.egg-info"),
            *(".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "instance", ".cache"),
        ),
    )
    env = os.environ | {"SOURCE_DATE_EPOCH": EPOCH} | env
    ran(sys.executable, "-m", "build", "--outdir", folder / "dist", tree, env=env)
    return {"".join(path.suffixes[-1:]): path for path in (folder / "dist").iterdir()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("first"))


@pytest.mark.slow
def test_two_builds_are_equal_byte_for_byte(first: dict[str, Path], tmp_path: Path) -> None:
    second = build(tmp_path)
    assert set(first) == {".gz", ".whl"}
    for kind, path in first.items():
        digests = {hashlib.sha256(one.read_bytes()).hexdigest() for one in (path, second[kind])}
        assert len(digests) == 1, kind


@pytest.mark.slow
def test_an_index_takes_both_and_shows_the_readme(first: dict[str, Path]) -> None:
    said = ran(sys.executable, "-m", "twine", "check", "--strict", *first.values())
    assert said.count("PASSED") == 2
    with ZipFile(first[".whl"]) as wheel:
        name = next(one for one in wheel.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(name))
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert urls["Documentation"] == DOCS_URL
    assert urls["Error messages"] == f"{DOCS_URL}errors.html"
    shown = str(metadata.get_payload())
    targets = re.findall(r"\]\((.+?)\)", shown)
    assert targets
    assert [target for target in targets if not target.startswith("https://")] == []
    for page in re.findall(rf"\({re.escape(DOCS_URL)}([\w/-]+)\.html", shown):
        assert (ROOT / "docs" / f"{page}.md").is_file(), page


@pytest.mark.slow
def test_the_sdist_has_what_a_packager_needs(first: dict[str, Path]) -> None:
    with tarfile.open(first[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for name in (
        *("setup.py", "setup.cfg", "pyproject.toml", "Makefile", "LICENSE", "CHANGELOG.md"),
        *("tests/smoke.py", "demo_app/__main__.py", "examples/typed_shop/typed_shop.py"),
        *("docs/errors.md", "static/build.mjs"),
    ):
        assert name in names


@pytest.mark.slow
def test_a_typed_program_fits_the_wheel_whose_documentation_moved(tmp_path: Path) -> None:
    wheel = build(tmp_path / "build", DOCS_BASE_URL=ELSEWHERE)[".whl"]
    installed, program = tmp_path / "installed", tmp_path / "program"
    with ZipFile(wheel) as archive:
        archive.extractall(installed)
    shutil.copytree(ROOT / "examples" / "typed_shop", program)
    env = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    env |= {"PYTHONPATH": f"{installed}:{program}", "MYPYPATH": str(installed)}
    said = (
        "import adroll_flask as a; from adroll_flask.errors import help_for as h;"
        "print(a.__file__, h('csp'))"
    )
    assert ran(sys.executable, "-c", said, cwd=program, env=env).split() == [
        f"{installed}/adroll_flask/__init__.py",
        f"{ELSEWHERE}errors.html#csp",
    ]
    for command in (["-m", "mypy"], ["-m", "pytest", "-q", "-p", "no:cacheprovider"]):
        ran(sys.executable, *command, cwd=program, env=env)


# -- what users install is the wheel: a folder that setup.cfg does not list vanishes from it ------


#: What makes the kit stays in the repository.
TOOLS_OF_THE_KIT = {"build.mjs", "built.json", "package.json", "package-lock.json"}


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


#: A shop with the sandbox beside it, and the commands that read files of the package.
SHOP_IN_A_PACK = """
import sys, adroll_flask
from adroll_flask import AdRoll
from adroll_flask.cli.commands import commands
from adroll_flask.sandbox.app import create_app
from flask import Flask

assert adroll_flask.__file__.startswith(sys.argv[1]), adroll_flask.__file__
app = Flask("shop", instance_path=sys.argv[2])
app.config.update(SECRET_KEY="s", ADROLL_SANDBOX=True)
AdRoll(app)
app.add_url_rule("/", view_func=lambda: "<html><head></head></html>")
page = app.test_client().get("/").text
start = page.index('src="') + 5
assert app.test_client().get(page[start : page.index('"', start)]).status_code == 200
sandbox = create_app().test_client()
for path in ("/", "/ad"):
    assert sandbox.get(path).status_code == 200, path
runner = app.test_cli_runner()
for word in ("event-lost", "too_old", "ADROLL_HOSTS"):
    result = runner.invoke(commands, ["explain", word])
    assert result.exit_code == 0, (word, result.output, result.exception)
    print(result.output)
"""


@pytest.mark.slow
@pytest.mark.parametrize("pack", ["zip", "byte code"])
def test_the_wheel_works_in_a_zip_and_without_its_sources(
    first: dict[str, Path], tmp_path: Path, pack: str
) -> None:
    """As zipapp and PyInstaller run it."""
    place = first[".whl"]
    if pack == "byte code":
        place = tmp_path / "packages"
        with ZipFile(first[".whl"]) as wheel:
            wheel.extractall(place)
        assert compileall.compile_dir(place, quiet=1, legacy=True)
        for source in place.rglob("*.py"):
            source.unlink()
    env = {k: v for k, v in os.environ.items() if not k.startswith("FLASK_")}
    env["PYTHONPATH"] = str(place)
    command = (sys.executable, "-c", SHOP_IN_A_PACK, place, tmp_path / "instance")
    explained = ran(*command, cwd=tmp_path, env=env)
    assert "Default: `()`." in explained
    assert "It waited too long" in explained


@pytest.mark.slow
def test_the_wheel_has_every_file_of_every_listed_folder_and_no_other(tmp_path: Path) -> None:
    """Built of what ``examples/compose/Dockerfile`` copies for it."""
    tree = tmp_path / "tree"
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
    ran(sys.executable, "-m", "build", "--wheel", "--outdir", tree / "dist", tree)
    [wheel] = (tree / "dist").glob("*.whl")
    with ZipFile(wheel) as archive:
        wanted, found = files_of(ROOT), set(archive.namelist())
    assert wanted - found == set(), "setup.cfg lists packages and package_data"
    assert [name for name in found - wanted if ".dist-info/" not in name] == []
