"""Pages that read the same in a clone and on the site.

In a clone there are files and links to them. The site makes of these, when it reads a page:

- between ``<!-- on the site: ../CONTRIBUTING.md -->`` and ``<!-- end -->`` that file's text in the
  place of the link that a clone has there; a file that is no Markdown becomes a block of code;
- of a link to a file whose text is a page, a link to that page;
- of the links of an ``index.md`` to the pages of its folder, the table of contents;
- of ``<a id="…"></a>`` above a heading, a place that other pages can link to;
- of a picture that has a ``-dark`` one beside it, both: each where the reader's colours fit.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parents[1]
PLACE = re.compile(r"<!-- on the site: (\S+) -->\n.*?<!-- end -->\n?", re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
CHILD = re.compile(r"\]\(([\w-]+\.md|[\w-]+/index\.md)\)")
ANCHOR = re.compile(r'^<a id="([\w-]+)"></a>$', re.MULTILINE)
#: In code a link is none.
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)
LANGUAGES = {".service": "ini", ".nginx": "nginx", ".yaml": "yaml", "": "docker"}


def homes() -> dict[Path, Path]:
    """Files whose text is a page of the site, and the page."""
    found = {}
    for folder in (HERE, *(HERE / part for part in ("explanation", "reference", "how-to/deploy"))):
        for page in folder.glob("*.md"):
            for name in PLACE.findall(page.read_text("utf-8")):
                if name.endswith(".md"):
                    found[(page.parent / name).resolve()] = page
    return found


def linked(text: str, file: Path, page: Path, pages: dict[Path, Path]) -> str:
    """*text* of *file* with its links as they lead from *page*."""

    def lead(link: re.Match[str]) -> str:
        target = (file.parent / link[2]).resolve()
        if not target.exists():
            return link[0]
        return f"{link[1]}{os.path.relpath(pages.get(target, target), page.parent)}{link[3]}"

    parts = FENCE.split(text)
    return "".join(
        part if part.lstrip(" ").startswith("```") else LINK.sub(lead, part) for part in parts
    )


def read(app: Sphinx, name: str, content: list[str]) -> None:
    page, pages = HERE / f"{name}.md", homes()
    own = content[0]

    def put(place: re.Match[str]) -> str:
        file = (page.parent / place[1]).resolve()
        app.env.note_dependency(str(file))
        text = file.read_text("utf-8")
        if file.suffix != ".md":
            return f"```{LANGUAGES[file.suffix]}\n{text}```\n"
        if place.start():  # below the page's own title
            text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
        return linked(text, file, page, pages)

    text = linked(own, page, page, pages)
    text = PLACE.sub(put, text)
    text = ANCHOR.sub(r"(\1)=", text)
    if page.name == "index.md":
        children = dict.fromkeys(CHILD.findall(own))
        text += "\n".join(["\n\n```{toctree}", ":hidden:", ":maxdepth: 1\n", *children, "```\n"])
    content[0] = text


def pair(app: Sphinx, doctree: nodes.document) -> None:
    """Beside each picture its dark one, if there is any."""
    folder = (HERE / app.env.docname).parent
    for image in list(doctree.findall(nodes.image)):
        light = Path(image["uri"])
        dark = light.with_name(f"{light.stem}-dark{light.suffix}")
        if (folder / dark).is_file():
            other = image.deepcopy()
            other["uri"] = str(dark)
            other["classes"].append("only-dark")
            image["classes"].append("only-light")
            image.parent.insert(image.parent.index(image) + 1, other)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", read)
    # Before pictures are collected.
    app.connect("doctree-read", pair, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
