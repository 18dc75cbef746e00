"""Mermaid's script comes from our own site: `make docs` gets it by npm, and this copies it."""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

DIST = Path(__file__).parents[1] / "node_modules" / "mermaid" / "dist"
MODULE = "mermaid.esm.min.mjs"
CHUNKS = "chunks/mermaid.esm.min"
logger = logging.getLogger(__name__)


def copy_mermaid(app: Sphinx, failure: Exception | None) -> None:
    if failure is not None or app.builder.format != "html":
        return
    if not (DIST / MODULE).is_file():
        logger.info("Mermaid is not installed (npm ci in docs/): diagrams stand as text")
        return
    target = Path(app.outdir) / "_static" / "mermaid"
    (target / CHUNKS).mkdir(parents=True, exist_ok=True)
    shutil.copy(DIST / MODULE, target / MODULE)
    for chunk in (DIST / CHUNKS).glob("*.mjs"):
        shutil.copy(chunk, target / CHUNKS / chunk.name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.config.mermaid_use_local = f"mermaid/{MODULE}"
    app.connect("build-finished", copy_mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
