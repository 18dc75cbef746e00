"""The reference says what the code does: counters, signals, the endpoint."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from adroll_flask import signals
from adroll_flask.endpoints import LONGEST_BODY
from tests.support import ROOT

PACKAGE = ROOT / "adroll_flask"
REFERENCE = ROOT / "docs" / "reference"


def calls(*names: str) -> Iterator[tuple[str, list[ast.expr]]]:
    """Calls of these names in the package: what is called, and its arguments."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if "sandbox" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(names):
                    yield ast.unparse(node.func), node.args


def shape(node: ast.expr) -> str:
    """A text in the source, with ``*`` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(shape(part) for part in node.values)
    return "*"


def documented_counters() -> dict[str, str]:
    """Each counter that the page names, and the row in which it stands."""
    found = {}
    for row in re.findall(r"^\| `.*$", (REFERENCE / "counters.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", row.split(" | ")[0]):
            found[name.partition(":")[0]] = row
    return found


def test_every_counter_and_each_of_its_fixed_reasons_is_on_the_page() -> None:
    rows = documented_counters()
    counted = set()
    for call, arguments in calls("counters.add", "runtime.forgive"):
        if call.endswith("forgive"):
            arguments = arguments[1:]  # after the fault
        name = shape(arguments[0])
        if name == "*":
            continue  # a tally of such names, which stand where they are tallied
        fits = [known for known in rows if fnmatchcase(known, name)]
        assert fits, f"docs/reference/counters.md lacks {name}"
        counted |= {*fits}
        reason = shape(arguments[1]) if len(arguments) > 1 else "*"
        if "*" not in reason and reason:
            assert any(
                f"`{reason}`" in rows[known] or f":{reason}`" in rows[known] for known in fits
            ), reason
    # Tallied in delivery/batch.py before they are added.
    tallied = {"event_delivered", "event_retried", "event_unsure", "event_dead"}
    assert {*rows} == counted | tallied


def test_every_signal_has_its_example() -> None:
    text = (REFERENCE / "signals.md").read_text()
    for name in vars(signals):
        if re.fullmatch(r"(event|visitor|reports)_\w+", name):
            assert f".. autodata:: adroll_flask.signals.{name}\n" in text
            assert f"@{name}.connect_via(app)" in text


def test_the_arguments_of_a_signal_are_those_of_its_example() -> None:
    text = (REFERENCE / "signals.md").read_text()
    sent: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".announce")):
                continue
            # reports_silent is sent with what describes the silence, a tuple with names.
            if node.args and isinstance(node.args[0], ast.Name) and node.keywords[0].arg:
                keys = {keyword.arg or "" for keyword in node.keywords}
                sent.setdefault(node.args[0].id, set()).update(keys)
    assert {"event_queued", "event_rejected", "visitor_identified"} <= sent.keys()
    for name, keys in sent.items():
        [taken] = re.findall(rf"@{name}\.connect_via\(app\)\ndef \w+\(app, \*, (.*), \*\*_\)", text)
        assert {*taken.split(", ")} == keys, name


def test_every_refusal_of_the_identity_endpoint_is_on_its_page() -> None:
    text = (REFERENCE / "kit.md").read_text()
    row = documented_counters()["identity_refused"]
    statuses = set()
    for _call, arguments in calls("Refused"):
        status, why = shape(arguments[0]), shape(arguments[1])
        statuses.add(status)
        assert why == "*" or why in ("token", "consent") or f"`{why}`" in row, why
    assert statuses == {*re.findall(r"^\| (4\d\d) \|", text, re.MULTILINE)}
    assert f"{LONGEST_BODY:,} bytes" in text
