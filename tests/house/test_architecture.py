"""The page for newcomers names what is there: folders, modules and tests."""

import ast
import doctest
import pkgutil
import re
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import adroll_flask
from adroll_flask import ConfigurationError, DeliveryError, EventError, TokenExpiredError, errors
from adroll_flask._version import DOCS_URL
from adroll_flask.cli.commands import commands
from adroll_flask.errors import help_for
from adroll_flask.findings.finding import TABLE, Finding, ok
from adroll_flask.outbox.model import STATES
from tests.conftest import BROWSERS, DAILY
from tests.support import PAGES, PUBLIC_NAMES, ROOT
from tests.support.sources import PACKAGE, calls, modules

NAMING = ["docs/explanation/architecture.md", "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", NAMING)
def test_every_path_and_target_of_make_that_is_named_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)\b", text)) <= targets
    named = set(re.findall(r"`((?:adroll_flask|tests|docs|static|\.ci)/[^`]*)`", text))
    assert len(named) > 5
    for name in named:
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not test or f"def {test}(" in (ROOT / path).read_text(), name


def test_the_picture_of_states_has_each_of_them_and_no_other() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    picture = text.partition("stateDiagram-v2\n")[2].partition("```")[0]
    ends = {end for pair in re.findall(r"^ +(\S+) --> ([^:\s]+)", picture, re.M) for end in pair}
    assert ends - {"[*]", "journal"} == set(STATES)


def test_no_comment_names_a_document_that_is_not_here() -> None:
    for folder in ("adroll_flask", "tests", "benchmarks", "demo_app", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"[\w/-]+\.md\b", path.read_text()):
                there = [ROOT / name, ROOT / "docs" / name, *ROOT.glob(f"*/{Path(name).name}")]
                there += ROOT.glob(f"docs/*/{Path(name).name}")
                assert any(one.exists() for one in there), f"{path}: {name}"


def test_every_folder_of_the_package_has_its_row() -> None:
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| `adroll_flask/(\w+)/` .* \| ([^|]*) \|$", text, re.MULTILINE))
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == rows.keys()
    for folder, start in rows.items():
        for module in re.findall(r"`(\w+\.py)`", start):
            assert (PACKAGE / folder / module).is_file(), f"{folder}/{module}"


# -- each promise of the documents, and the tests that show it ------------------------------------


PROMISES: dict[str, dict[str, list[str]]] = tomllib.loads(
    Path(__file__).with_name("promises.toml").read_text()
)


@pytest.mark.parametrize("page", PROMISES)
def test_each_promise_names_tests_that_are_there(page: str) -> None:
    assert (ROOT / page).is_file()
    for promise, names in PROMISES[page].items():
        assert names, promise
        for path, _, test in (name.partition("::") for name in names):
            assert f"def {test}(" in (ROOT / "tests" / path).read_text(), f"{page}: {path}::{test}"


# -- each error, log line and finding has its explanation in docs/errors.md, and nothing else has -


PAGE = (ROOT / "docs/errors.md").read_text("utf-8")


ANCHORS = re.findall(r'^<a id="([a-z-]+)"></a>$', PAGE, re.M)


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", "") or getattr(call.func, "id", "")


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


#: Where a name stands in the source: at the end of what is logged, or given to an error or a link.
NAMED = re.compile(r'[ "]\[([a-z]+-[a-z-]+)\]"|(?:slug ?[:=] ?(?:str = )?|help_for\()"([a-z-]+)"')


def _used() -> set[str]:
    found = set(errors._ABOUT.values()) | {name.partition("/")[0] for name in TABLE} - {"ok"}
    for path in modules().values():
        found |= {logged or given for logged, given in NAMED.findall(path.read_text())}
    # Chosen by what commands raise: the text of a usage error is click's.
    return found | {"command-usage"}


def test_what_the_code_names_is_explained_once_and_nothing_else_is() -> None:
    assert sorted(ANCHORS) == sorted(_used())


@pytest.mark.parametrize("slug", sorted(set(ANCHORS)))
def test_each_explanation_has_cause_meaning_and_fix(slug: str) -> None:
    section = PAGE.partition(f'\n<a id="{slug}"></a>\n### ')[2].partition('\n<a id="')[0]
    title, *parts = section.partition("\n## ")[0].strip().splitlines()
    assert title
    for part, line in zip(("Cause", "Meaning", "Fix"), filter(None, parts), strict=True):
        assert re.match(rf"- \*\*{part}\.\*\* [A-Z`\[].+\.$", line), line


def test_the_code_finds_what_is_in_the_table_and_all_of_it() -> None:
    names = {
        _text(call.args[0]) for _, call in calls() if _name(call) == "finding_of" and call.args
    }
    text = "".join(
        path.read_text() for path in modules().values() if {"findings", "cli"} & {*path.parts}
    )
    assert names - {None} <= TABLE.keys()
    unused = [name for name in TABLE if f'"{name.partition("/")[0]}' not in text]
    assert unused == []


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_is_advised_is_a_command_that_exists(name: str) -> None:
    told = "; ".join(str(part) for part in TABLE[name].values())
    for command, inner in re.findall(r"flask adroll ([a-z-]+)(?: ([a-z-]+))?", told):
        below = getattr(commands.commands[command], "commands", {inner})
        assert not inner or inner in below, f"{command} {inner}"
    for line in re.findall(r"flask adroll ([a-z][^`.;,:]*)", TABLE[name].get("command", "")):
        named, *options = re.split(r" (?=--)", line)
        help = CliRunner().invoke(commands, [*named.split(), "--help"]).output
        assert "Usage:" in help, line
        for option in options:
            assert option.split()[0] in help, line


def test_no_command_refuses_without_an_address() -> None:
    plain = [path.name for path, call in calls() if _name(call) == "ClickException"]
    assert plain == []


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (ConfigurationError("ADROLL_PIXEL", "takes another"), "setting"),
        (ConfigurationError("ADROLL_X", "none such", slug="setting-unknown"), "setting-unknown"),
        (EventError("currency", "is needed with value"), "money"),
        (EventError("products[1].price", "takes an amount"), "products"),
        (TokenExpiredError(), "visitor-token"),
        (DeliveryError("refused"), "request-failed"),
    ],
)
def test_a_traceback_ends_in_its_explanation(error: errors.AdRollError, slug: str) -> None:
    assert error.help == f"flask adroll explain {slug}"
    assert error.__notes__ == [error.help]
    assert "http" not in str(error)


def test_once_the_documentation_is_published_messages_end_in_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errors, "DOCS_ARE_PUBLISHED", True)
    assert EventError("currency", "is needed").help == f"{DOCS_URL}errors.html#money"
    assert Finding("warning", "csp", "CSP", "text").help == f"{DOCS_URL}errors.html#csp"
    assert errors.documented("marketing.html#figures") == f"{DOCS_URL}marketing.html#figures"


def test_an_error_about_several_settings_names_each_explanation_once() -> None:
    wrong = ConfigurationError("ADROLL_LINGER", "takes a number")
    unknown = ConfigurationError("ADROLL_X", "no such setting", slug="setting-unknown")
    both = ConfigurationError("ADROLL_PIXEL", "takes another", others=[wrong, unknown, wrong])
    assert both.__notes__ == [help_for("setting"), help_for("setting-unknown")]


def test_a_finding_says_in_json_where_it_is_explained() -> None:
    assert Finding("warning", "csp", "CSP", "text").as_dict()["help"] == help_for("csp")
    assert ok("CSP", "text").as_dict()["help"] == ""


def test_each_line_has_the_address_of_its_explanation() -> None:
    logged = re.compile(r"(logger|audit)\.(info|warning|error|critical|exception)$")
    lines = [(path, call) for path, call in calls() if logged.search(ast.unparse(call.func))]
    assert len(lines) > 40
    for path, call in lines:
        named = re.search(r" \[[a-z-]+\]['\"]|adroll_event", ast.unparse(call))
        assert named, f"{path}:{call.lineno}"


# -- every example in a docstring runs, and gives what it shows -----------------------------------


NAMES = [
    module.name
    for module in pkgutil.walk_packages(adroll_flask.__path__, "adroll_flask.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_module_run(name: str) -> None:
    failed, _ = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert not failed


# -- what of the browsers' tests is run every day is there ----------------------------------------


@pytest.mark.parametrize("name", DAILY)
def test_a_name_of_the_daily_part_is_a_test_s(name: str) -> None:
    path, _, test = name.partition("::")
    assert name.startswith(BROWSERS)
    there = vars(import_module(path.removesuffix(".py").replace("/", ".")))
    assert any(one.startswith(test.partition("[")[0]) for one in there)


# -- what users may rely on: names, types, documentation ------------------------------------------


def test_the_public_names_are_there_and_no_others() -> None:
    there = {
        name for name, value in vars(adroll_flask).items() if not isinstance(value, ModuleType)
    }
    assert {name for name in there if not name.startswith("_")} <= {*PUBLIC_NAMES}
    for name in PUBLIC_NAMES:
        public = getattr(adroll_flask, name)
        assert public.__doc__, name
        for method, value in vars(public).items() if isinstance(public, type) else ():
            assert method.startswith("_") or not callable(value) or value.__doc__, method


@pytest.mark.parametrize("name", ["counters", "flush"])
def test_what_needs_an_app_context_says_so(name: str) -> None:
    method = getattr(adroll_flask.AdRoll, name)
    with pytest.raises(RuntimeError, match="application context"):
        method(adroll_flask.AdRoll())
    # The docstring is what the site's reference shows.
    assert "app context" in (method.__doc__ or "")
    assert f"with app.app_context():\n                adroll.{name}()" in (method.__doc__ or "")


def anchors(page: str) -> set[str]:
    """The places of a page that links can name, as GitHub makes them of its headings."""
    text = re.sub(r"^ *```.*?^ *```", "", page, flags=re.DOTALL | re.MULTILINE)
    found = {*re.findall(r'<a id="([\w-]+)">', text)}
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[(.+?)\]\(.*?\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found


def test_links_lead_to_places_that_are_there_in_a_clone() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *PAGES]:
        text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target, anchor in re.findall(r"\]\(([^)#:\s*]*)(?:#([^)\s]*))?\)", text):
            there = path.parent / target if target else path
            assert there.exists(), f"{path.name}: {target}"
            if anchor:
                assert anchor in anchors(there.read_text()), f"{path}: {target}#{anchor}"
