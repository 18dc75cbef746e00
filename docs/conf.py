"""How the site is built: `make docs`. No network is asked; pages load nothing from other hosts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from adroll_flask._version import __version__  # noqa: E402

project = "adroll_flask"
author = "The adroll_flask maintainers"
copyright = "the adroll_flask maintainers"
version = release = __version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinxcontrib.mermaid",
    "sphinxext.opengraph",
    "notfound.extension",
    # ours, in docs/_ext
    "accessible",
    "click_command",
    "known_names",
    "linked_literals",
    "llms_txt",
    "local_mermaid",
    "log_lines",
    "settings_list",
]
root_doc = "index"
exclude_patterns = ["_build", "node_modules", "_ext"]
nitpicky = True
nitpick_ignore = [
    # What tests of the package give to it, and what its parts are given: not for the site's code.
    *[("py:class", name) for name in ("Outbox", "Transport", "Runtime", "SettingValues")],
    ("py:class", "adroll_flask.reporting.reporter.Reporter"),
    ("py:class", "adroll_flask.visitor.record.Visitors"),
    # Callable[[Event], Event | None]: the signature says it where it matters.
    ("py:class", "BeforeReport"),
    ("py:class", "PaidOrdersFunction"),
    # Of a compared order: its docstring names them.
    ("py:class", "Status"),
    # An id may be one; Sphinx reads the name without its module.
    ("py:class", "UUID"),
]
templates_path: list[str] = []

# -- Markdown ------------------------------------------------------------------------------

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.header"]  # SECURITY.md and others stand on GitHub, too

# -- reference -----------------------------------------------------------------------------

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# -- pages ---------------------------------------------------------------------------------

html_theme = "furo"
html_title = "adroll_flask"
#: Where the site stands, with a slash at its end. Empty: links between pages are relative, and the
#: pictures for other sites' previews are left out.
html_baseurl = os.environ.get("DOCS_BASE_URL", "")
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

ogp_site_url = html_baseurl
ogp_social_cards = {"enable": False}
ogp_enable_meta_description = True
notfound_urls_prefix = "/"

copybutton_exclude = ".linenos, .gp, .go"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

# -- diagrams ------------------------------------------------------------------------------

mermaid_height = "auto"
mermaid_fullscreen_button = "+"
mermaid_init_config = {
    "startOnLoad": False,
    "sequence": {
        "wrap": True,
        "width": 120,
        "actorMargin": 16,
        "actorFontSize": 18,
        "messageFontSize": 18,
        "noteFontSize": 16,
    },
}

# -- links ---------------------------------------------------------------------------------

linkcheck_timeout = 15
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost|\[?::1|[\w.-]*\.example)"]
