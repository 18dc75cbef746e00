"""Each error, log line and finding has its explanation in docs/errors.md, and nothing else has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from adroll_flask import ConfigurationError, DeliveryError, EventError, errors
from adroll_flask._version import DOCS_URL
from adroll_flask.errors import TokenExpiredError, help_url
from adroll_flask.findings.finding import TABLE, Finding, ok

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/errors.md").read_text("utf-8")
ANCHORS = re.findall(r"^\(([a-z-]+)\)=$", PAGE, re.M)
#: The sandbox plays AdRoll's part: what it says is AdRoll's words.
MODULES = [
    path
    for path in sorted((REPOSITORY / "adroll_flask").rglob("*.py"))
    if "sandbox" not in path.relative_to(REPOSITORY).parts
]


def _calls() -> Iterator[tuple[Path, ast.Call]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node


def _name(call: ast.Call) -> str:
    return getattr(call.func, "attr", "") or getattr(call.func, "id", "")


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def _named(call: ast.Call) -> str | None:
    """The name at the end of what *call* logs."""
    if not isinstance(call.func, ast.Attribute) or getattr(call.func.value, "id", "") != "logger":
        return None
    name = re.search(r" \[([a-z-]+)\]\Z", (_text(call.args[0]) if call.args else None) or "")
    return name[1] if name else None


def _used() -> set[str]:
    found = set(errors._ABOUT.values()) | {name.partition("/")[0] for name in TABLE} - {"ok"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "slug":
                found.add(_text(node.value) or "")
            elif isinstance(node, ast.Call):
                if _name(node) == "help_url" and node.args:
                    found.add(_text(node.args[0]) or "")
                found |= {_text(_keyword(node, "slug")) or "", _named(node) or ""}
    # Chosen by what commands raise: the text of a usage error is click's.
    return (found | {"command-usage"}) - {""}


def test_what_the_code_names_is_explained_and_nothing_else_is() -> None:
    assert set(ANCHORS) == _used()


def test_each_explanation_has_its_anchor_once() -> None:
    assert sorted(ANCHORS) == sorted(set(ANCHORS))


@pytest.mark.parametrize("slug", sorted(set(ANCHORS)))
def test_each_explanation_has_cause_meaning_and_fix(slug: str) -> None:
    section = PAGE.partition(f"\n({slug})=\n### ")[2].partition("\n(")[0]
    title, *parts = section.partition("\n## ")[0].strip().splitlines()
    assert title
    for part, line in zip(("Cause", "Meaning", "Fix"), filter(None, parts), strict=True):
        assert re.match(rf"- \*\*{part}\.\*\* [A-Z`\[].+\.$", line), line


def test_the_code_finds_what_is_in_the_table_and_all_of_it() -> None:
    names = {_text(call.args[0]) for _, call in _calls() if _name(call) == "found" and call.args}
    text = "".join(path.read_text() for path in MODULES if {"findings", "cli"} & {*path.parts})
    assert names - {None} <= TABLE.keys()
    unused = [name for name in TABLE if f'"{name.partition("/")[0]}' not in text]
    assert unused == []


def commands() -> set[str]:
    from adroll_flask.cli.commands import commands as group

    found = set()
    for name, command in group.commands.items():
        found.add(name)
        found |= {f"{name} {inner}" for inner in getattr(command, "commands", {})}
    return found


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_is_advised_is_a_command_that_exists(name: str) -> None:
    from click.testing import CliRunner

    from adroll_flask.cli.commands import commands as group

    told = " ".join(str(part) for part in TABLE[name].values())
    for advised in re.findall(r"flask adroll ([a-z-]+(?: [a-z-]+)?)", told):
        words = advised if advised in commands() else advised.split()[0]
        assert words in commands(), advised
    for line in re.findall(r"flask adroll ([a-z][^`.;,:]*)", TABLE[name].get("command", "")):
        named, *options = re.split(r" (?=--)", line)
        help = CliRunner().invoke(group, [*named.split(), "--help"]).output
        assert "Usage:" in help, line
        for option in options:
            assert option.split()[0] in help, line


def test_no_command_refuses_without_an_address() -> None:
    plain = [path.name for path, call in _calls() if _name(call) == "ClickException"]
    assert plain == []


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (ConfigurationError("ADROLL_PIXEL", "takes another"), "setting"),
        (ConfigurationError("ADROLL_X", "none such", slug="setting-unknown"), "setting-unknown"),
        (ConfigurationError("ADROLL_EMAIL", "a form"), "setting"),
        (ConfigurationError("email", "a form"), "setting"),
        (ConfigurationError("secret_key", "too short"), "secret-key-missing"),
        (EventError("currency", "is needed with value"), "money"),
        (EventError("products[1].price", "takes an amount"), "products"),
        (EventError("conversion_type", "takes a text"), "event-field"),
        (TokenExpiredError(), "visitor-token"),
        (DeliveryError("refused", status=403), "request-failed"),
    ],
)
def test_a_traceback_ends_in_the_address_and_the_text_stays_short(
    error: errors.AdRollError, slug: str
) -> None:
    assert error.help_url == f"{DOCS_URL}errors.html#{slug}"
    assert error.__notes__ == [error.help_url]
    assert "http" not in str(error)


def test_an_error_about_several_settings_names_each_address_once() -> None:
    wrong = ConfigurationError("ADROLL_LINGER", "takes a number")
    unknown = ConfigurationError("ADROLL_X", "no such setting", slug="setting-unknown")
    both = ConfigurationError("ADROLL_PIXEL", "takes another", others=[wrong, unknown, wrong])
    assert both.__notes__ == [help_url("setting"), help_url("setting-unknown")]


def test_a_finding_says_its_address_in_json() -> None:
    assert Finding("warning", "csp", "CSP", "text").as_dict()["help_url"] == help_url("csp")
    assert ok("CSP", "text").as_dict()["help_url"] == ""
