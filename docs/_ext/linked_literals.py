"""Settings, commands and functions are links wherever a page names them as code.

``ADROLL_MAX_AGE``, ``flask adroll outbox retry`` and ``identify()`` lead to their places in the
reference; pages write them as plain code and need no addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

REFERENCE = Path(__file__).parents[1] / "reference"
HEADING = re.compile(r"^#{2,4} (flask adroll [\w -]+|ADROLL_\w+|\w+)$", re.MULTILINE)


def places() -> dict[str, str]:
    """What has a place in the reference, and where: page and anchor."""
    return {
        name: f"reference/{page}#{nodes.make_id(name)}"
        for page in ("commands", "functions", "settings")
        for name in HEADING.findall((REFERENCE / f"{page}.md").read_text("utf-8"))
    }


def named(text: str) -> Iterator[str]:
    """What *text* may name: the longest first."""
    if text.startswith("flask adroll "):
        words = text.split()
        yield from (" ".join(words[:count]) for count in (4, 3))
    elif key := re.match(r"ADROLL_[A-Z_]+\b", text):
        yield key[0]
    elif call := re.fullmatch(r"(\w+)\(.*\)", text, re.DOTALL):
        yield call[1]


def link(app: Sphinx, doctree: nodes.document, page: str) -> None:
    there = places()
    for literal in list(doctree.findall(nodes.literal)):
        above: nodes.Node | None = literal.parent
        while above is not None and not isinstance(
            above, nodes.reference | nodes.title | addnodes.pending_xref
        ):
            above = above.parent
        place = next((there[name] for name in named(literal.astext()) if name in there), None)
        if above is None and place is not None:
            name, _, anchor = place.partition("#")
            uri = f"{app.builder.get_relative_uri(page, name)}#{anchor}"
            literal.replace_self(
                nodes.reference("", "", literal.deepcopy(), refuri=uri, internal=True)
            )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
