"""``{settings-list}``: the keys that it names, each with its type, default and ``#:`` comment.

The comments in ``adroll_flask/settings.py`` are the only place where a key is described. A key that
no page names fails the build, and so does one that two name.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from adroll_flask import settings
from adroll_flask.settings import DAY, Settings

logger = logging.getLogger(__name__)
NAMES = tuple(field.name for field in fields(Settings))


def comments() -> dict[str, str]:
    """What the ``#:`` lines before each field say."""
    lines = inspect.getsource(settings).splitlines()
    tree = ast.parse("\n".join(lines))
    [made] = [
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ]
    found = {}
    for node in made.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            said: list[str] = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#:"):
                    break
                said.insert(0, line.strip().removeprefix("#:").strip())
            found[node.target.id] = " ".join(said)
    return found


def shown(value: object) -> str:
    """A default as the reader types it; long spans of time and sizes also in words."""
    if type(value) is int and value >= DAY and value % DAY == 0:
        return f"``{value}`` ({value // DAY} days)"
    if type(value) is int and value == 1 << 30:
        return "``1073741824`` (1 GiB)"
    return f"``{value!r}``"


class SettingsList(SphinxDirective):
    has_content = True

    def run(self) -> list[nodes.Node]:
        said = comments()
        by_name = {field.name: field for field in fields(Settings)}
        lines: list[str] = []
        for key in " ".join(self.content).split():
            name = key.removeprefix("ADROLL_").lower()
            if name not in by_name:
                raise self.error(f"there is no setting {key}")
            text, default = said[name], shown(by_name[name].default)
            found = re.search(r"\s*Default: (.*?)\.(?=\s|$)", text)
            if found:
                default = found.group(1)
                text = text[: found.start()] + text[found.end() :]
            # A time zone is given as a text and kept as what it names.
            kind = str(by_name[name].type).removesuffix(" | None").replace("tzinfo", "str")
            lines += [f".. confval:: {key}", f"   :type: ``{kind}``", f"   :default: {default}"]
            lines += ["", f"   {text.strip()}", ""]
            _listed(self.env).setdefault(self.env.docname, []).append(name)
        rst = "\n".join(lines)
        return self.parse_text_to_nodes(_as_rst(rst))


def _as_rst(rst: str) -> str:
    """The page is Markdown; what the comments hold is not."""
    return f"````{{eval-rst}}\n{rst}\n````"


def _listed(env: BuildEnvironment) -> dict[str, list[str]]:
    if not hasattr(env, "adroll_settings"):
        env.adroll_settings = {}  # type: ignore[attr-defined]
    return env.adroll_settings  # type: ignore[attr-defined,no-any-return]


def forget(app: Sphinx, env: BuildEnvironment, page: str) -> None:
    _listed(env).pop(page, None)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    named = [name for names in _listed(env).values() for name in names]
    for name in NAMES:
        if named.count(name) != 1:
            logger.warning("ADROLL_%s stands %d times on the site", name.upper(), named.count(name))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("settings-list", SettingsList)
    app.connect("env-purge-doc", forget)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
