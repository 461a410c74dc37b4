"""The documentation site: Sphinx with MyST (Markdown) and Furo. Built by ``make docs``, offline."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent / "src")]

from pygments.lexers.shell import BashLexer  # noqa: E402

import blemish.serve.api.app  # noqa: E402, F401  # see below
from blemish import __version__  # noqa: E402

# autodoc writes into the annotations of pydantic's base class when it documents a model. After that no model that allows further
# fields can be defined, so those of the server, and of FastAPI, are defined before.

project = "Blemish"
author = "The Blemish developers"
copyright = "The Blemish developers, Apache-2.0"
version = release = __version__
html_title = "Blemish"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "reference",
    "offline",
]
exclude_patterns = ["_ext"]
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
pygments_style = "friendly"
pygments_dark_style = "monokai"

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["blemish.css"]
html_show_sourcelink = False
html_copy_source = False

autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = False  # torch's own docstrings are not ours to render
autodoc_default_options = {"exclude-members": "model_config, model_post_init", "ignore-module-all": True}
napoleon_google_docstring = False
napoleon_use_ivar = True
# Types in signatures are resolved by their bare names, which several modules may define. References that a docstring
# makes by a full name are checked by the extension `reference`.
suppress_warnings = ["ref.python"]


def setup(app) -> None:  # type: ignore[no-untyped-def]
    """Highlight console blocks as commands: they hold no output and no prompt."""
    app.add_lexer("console", BashLexer)
