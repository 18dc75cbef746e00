"""``llms.txt``: what is on the site, for programs that read it, and each page as plain text.

The form is that of https://llmstxt.org: a title, a summary, and lists of links. ``llms-full.txt``
holds all pages one after the other.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.text import TextBuilder

#: The parts of the site, by the folder of their pages.
PARTS = ("tutorial", "how-to", "reference", "explanation")


def first_paragraph(doctree: nodes.document) -> str:
    for paragraph in doctree.findall(nodes.paragraph):
        if not isinstance(paragraph.parent, nodes.section | nodes.document):
            continue
        return " ".join(paragraph.astext().split())
    return ""


def ordered(app: Sphinx) -> list[str]:
    """The pages in the order of the table of contents."""
    found: list[str] = []

    def walk(page: str) -> None:
        if page in found:
            return
        found.append(page)
        for toctree in app.env.get_doctree(page).findall(addnodes.toctree):
            for _title, child in toctree["entries"]:
                if child in app.env.all_docs:
                    walk(child)

    walk(app.config.root_doc)
    return found


def write(app: Sphinx, failure: Exception | None) -> None:
    if failure is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    base = app.config.html_baseurl
    builder = TextBuilder(app, app.env)
    builder.init()
    builder.secnumbers = {}
    index: dict[str, list[str]] = {part: [] for part in PARTS}
    more: list[str] = []
    full: list[str] = []
    for page in ordered(app):
        doctree = app.env.get_and_resolve_doctree(page, builder, tags=app.tags)
        for node in list(doctree.findall(addnodes.toctree)):
            node.parent.remove(node)
        translator = builder.create_translator(doctree, builder)
        doctree.walkabout(translator)
        path = out / f"{page}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(translator.body, "utf-8")
        full.append(translator.body)
        title = app.env.titles[page].astext()
        said = first_paragraph(doctree)
        line = f"- [{title}]({base}{page}.txt)" + (f": {said}" if said else "")
        if page != app.config.root_doc:
            index.get(page.partition("/")[0], more).append(line)
    lines = [
        f"# {app.config.project}",
        "",
        f"> {first_paragraph(app.env.get_doctree(app.config.root_doc))}",
        "",
    ]
    for part in PARTS:
        heading = app.env.titles[f"{part}/index"].astext()
        lines += [f"## {heading}", "", *index[part], ""]
    lines += ["## Optional", "", *more, ""]
    (out / "llms.txt").write_text("\n".join(lines), "utf-8")
    (out / "llms-full.txt").write_text("\n\n".join(full), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
