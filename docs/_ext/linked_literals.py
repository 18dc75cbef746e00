"""Settings, commands and functions are links wherever a page names them as code.

``ADROLL_MAX_AGE``, ``flask adroll outbox retry`` and ``identify()`` lead to their places in the
reference; pages write them as plain code and need no addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from click_command import every
from docutils import nodes
from settings_list import NAMES
from sphinx import addnodes
from sphinx.application import Sphinx

SETTINGS = {f"ADROLL_{name.upper()}" for name in NAMES}
COMMANDS_PAGE = "reference/commands"
COMMANDS = sorted(every(), key=len, reverse=True)
FUNCTIONS = (
    *("report_conversion", "report_event", "release_conversion", "cancel_conversion"),
    *("identify", "reset_identity", "current_visitor", "forget_visitor"),
)
CALL = re.compile(rf"({'|'.join(FUNCTIONS)})\(.*\)", re.DOTALL)
KEY = re.compile(r"(ADROLL_[A-Z_]+)\b.*", re.DOTALL)


def target(text: str) -> dict[str, str] | None:
    """Where *text* leads, as the attributes of a cross-reference."""
    if found := KEY.fullmatch(text):
        if found[1] in SETTINGS:
            return {"refdomain": "std", "reftype": "confval", "reftarget": found[1]}
    elif found := CALL.fullmatch(text):
        name = f"adroll_flask.{found[1]}"
        return {"refdomain": "py", "reftype": "func", "reftarget": name}
    return None


def command(text: str) -> str | None:
    """The place of the command that *text* calls, on its page."""
    rest = text.removeprefix("flask adroll ")
    if rest != text:
        for name in COMMANDS:
            if rest == name or rest.startswith(f"{name} "):
                return f"flask-adroll-{name}".replace(" ", "-")
    return None


def unlinked(doctree: nodes.document) -> Iterator[nodes.literal]:
    for literal in list(doctree.findall(nodes.literal)):
        above: nodes.Node | None = literal.parent
        while above is not None and not isinstance(
            above, nodes.reference | nodes.title | addnodes.pending_xref | addnodes.desc_signature
        ):
            above = above.parent
        if above is None:
            yield literal


def link(app: Sphinx, doctree: nodes.document) -> None:
    for literal in unlinked(doctree):
        where = target(literal.astext())
        if where is not None:
            reference = addnodes.pending_xref(
                "", literal.deepcopy(), refdoc=app.env.docname, refexplicit=True, refwarn=True
            )
            reference.attributes.update(where)
            literal.replace_self(reference)


def link_commands(app: Sphinx, doctree: nodes.document, page: str) -> None:
    # Late, and not as a cross-reference to a heading, which would take the heading's look.
    for literal in unlinked(doctree):
        place = command(literal.astext())
        if place is not None:
            uri = f"{app.builder.get_relative_uri(page, COMMANDS_PAGE)}#{place}"
            literal.replace_self(
                nodes.reference("", "", literal.deepcopy(), refuri=uri, internal=True)
            )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", link)
    app.connect("doctree-resolved", link_commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
