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
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
    "sphinxext.opengraph",
    "notfound.extension",
    # ours, in docs/_ext
    "accessible",
    "clone_and_site",
    "linked_literals",
    "llms_txt",
    "local_mermaid",
]
root_doc = "index"
exclude_patterns = ["_build", "node_modules", "_ext"]
nitpicky = True
templates_path: list[str] = []

# -- Markdown ------------------------------------------------------------------------------

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["myst.header"]  # SECURITY.md and others stand on GitHub, too

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
