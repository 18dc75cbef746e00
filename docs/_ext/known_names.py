"""The names of other projects that our pages link to, so that building asks no network.

Sphinx's intersphinx reads inventories. Those of whole projects come over the network and differ
from day to day; this one has what we name. A name that is missing here fails the build (`-n -W`).
"""

from __future__ import annotations

import zlib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

PYTHON = "https://docs.python.org/3/"
FLASK = "https://flask.palletsprojects.com/en/stable/"
BLINKER = "https://blinker.readthedocs.io/en/stable/"

COLLECTIONS = "library/collections.abc.html#collections.abc."

#: Project: its site, and of each name the kind and the page with the place in it. Names that a
#: module imports for its types alone stand in signatures as they stand in the source: without the
#: module that they come from.
NAMES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "python": (
        PYTHON,
        {
            **{
                f"collections.abc.{name}": ("class", f"{COLLECTIONS}{name}")
                for name in ("Callable", "Iterable", "Iterator", "Mapping", "Sequence")
            },
            "collections.Counter": (
                "class",
                "library/collections.html#collections.Counter",
            ),
            "Decimal": ("class", "library/decimal.html#decimal.Decimal"),
            "decimal.Decimal": ("class", "library/decimal.html#decimal.Decimal"),
            "datetime": ("class", "library/datetime.html#datetime.datetime"),
            "timedelta": ("class", "library/datetime.html#datetime.timedelta"),
            "datetime.timedelta": ("class", "library/datetime.html#datetime.timedelta"),
            "WSGIApplication": ("class", "library/wsgiref.html#wsgiref.types.WSGIApplication"),
            "WSGIEnvironment": ("class", "library/wsgiref.html#wsgiref.types.WSGIEnvironment"),
        },
    ),
    "flask": (
        FLASK,
        dict.fromkeys(("Flask", "flask.app.Flask"), ("class", "api/#flask.Flask")),
    ),
    "blinker": (BLINKER, {"blinker.base.NamedSignal": ("class", "#blinker.NamedSignal")}),
}


def inventory(project: str, names: dict[str, tuple[str, str]]) -> bytes:
    """In the form of Sphinx's own inventories, version 2."""
    head = (
        "# Sphinx inventory version 2\n"
        f"# Project: {project}\n# Version: \n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = "".join(
        f"{name} py:{kind} 1 {page} -\n" for name, (kind, page) in sorted(names.items())
    )
    return head.encode() + zlib.compress(lines.encode())


def write_inventories(app: Sphinx, config: Config) -> None:
    folder = Path(app.doctreedir) / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    for project, (site, names) in NAMES.items():
        path = folder / f"{project}.inv"
        path.write_bytes(inventory(project, names))
        config.intersphinx_mapping[project] = (site, str(path))


def setup(app: Sphinx) -> dict[str, bool]:
    # Before intersphinx, which checks the mapping at 800.
    app.connect("config-inited", write_inventories, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
