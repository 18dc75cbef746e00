"""``{click-command} outbox list``: usage and options of one command, by sphinx-click.

A command that no page names fails the build.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx_click.ext import _format_command

from adroll_flask.cli.commands import commands

logger = logging.getLogger(__name__)
PROG = "flask adroll"
#: Takes its arguments as they are; the sandbox's own page has them.
APART = {"sandbox"}


def every() -> Iterator[str]:
    """The commands that a user sees: ``check``, ``outbox``, ``outbox list`` and so on."""
    for name, command in commands.commands.items():
        if command.hidden or name in APART:
            continue
        yield name
        if isinstance(command, click.Group):
            yield from (f"{name} {sub}" for sub, it in command.commands.items() if not it.hidden)


class ClickCommand(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    option_spec = {"class": directives.class_option}  # noqa: RUF012 - docutils' own form

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in every():
            raise self.error(f"there is no command {name}")
        _named(self.env).setdefault(self.env.docname, []).append(name)
        command: click.Command = commands
        context = click.Context(command, info_name=PROG)
        for part in name.split():
            command = command.commands[part]  # type: ignore[attr-defined]
            context = click.Context(command, info_name=part, parent=context)
        # Of a group its own usage alone: its commands follow.
        lines = _format_command(context, nested="none")
        heading = [f"## {PROG} {name}", ""]
        rst = ["````{eval-rst}", *lines, "````", ""]
        return self.parse_text_to_nodes("\n".join([*heading, *rst]), allow_section_headings=True)


def _named(env: BuildEnvironment) -> dict[str, list[str]]:
    if not hasattr(env, "adroll_commands"):
        env.adroll_commands = {}  # type: ignore[attr-defined]
    return env.adroll_commands  # type: ignore[attr-defined,no-any-return]


def forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _named(env).pop(page, None)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    named = [name for names in _named(env).values() for name in names]
    for name in every():
        if name not in named:
            logger.warning("flask adroll %s is on no page", name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("click-command", ClickCommand)
    app.connect("env-purge-doc", forget)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
