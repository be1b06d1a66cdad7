"""The documentation as a site: `make docs` builds it with Sphinx, into .cache/site.

The sources are the Markdown pages that are read on GitHub as well, here and in the root of the repository. Nothing is
loaded while building; a warning, a link that leads nowhere or an anchor that is not there fails the build.
"""

from __future__ import annotations

import harp

project = "HaRP"
author = "the authors of HaRP"
release = version = harp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "exapp/README.md"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!harp\.).*")]  # types of other libraries have no page here

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
myst_url_schemes = ["http", "https"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"HaRP {release}"
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}
