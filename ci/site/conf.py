"""Configuration of Sphinx. Each name in lower case is an option: https://www.sphinx-doc.org/en/master/usage/configuration.html"""

import importlib
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

# Sphinx runs in the source folder of the site, which contains the package as `tiers`.
sys.path.insert(0, str(Path.cwd()))
tiers = importlib.import_module("tiers")

project = "Tiers"
html_title = "Tiers"
html_theme = "furo"
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

root_doc = "index"
exclude_patterns = ["tiers"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]

# Read pages as GitHub does: headings get GitHub's anchors, and MyST's own syntax in a text has no effect.
myst_heading_anchors = 6
myst_disable_syntax = ["myst_role", "myst_target", "myst_block_break", "myst_line_comment"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100

# Report an internal type in a public signature as an error. Ignore types of other packages, because the site has no page
# for these types.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!tiers\.).*")]

_CODE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$|(?<!`)`([^`]+)`(?!`)", re.MULTILINE | re.DOTALL)
"""A block of code between fences, or code in backticks."""
_EXAMPLE = re.compile(r"^( *)Example:\n((?:\1 {4}.*\n?|\n)+)", re.MULTILINE)
"""The section Example of a docstring, which contains only Python code."""


def setup(app: Sphinx) -> None:
    for name in tiers.__all__:
        if isinstance(public := getattr(tiers, name), type):
            # Give the class its exported name. Otherwise Sphinx would call it an alias, and find no references to it.
            public.__name__ = public.__qualname__ = name
    app.connect("autodoc-process-docstring", _read_docstring)
    app.connect("autodoc-process-signature", _hide_fields)


def _read_docstring(_app: Sphinx, _what: str, _name: str, _obj: object, _options: Any, lines: list[str]) -> None:
    """Convert the code and the sections Example, Args, Returns and Raises of a docstring to reStructuredText.

    Sphinx's extension for such sections (napoleon) is not enabled, because it would read `True if archived: …` as the type
    and description of an attribute.
    """
    text = _EXAMPLE.sub(_rewrite_example, _CODE.sub(_rewrite_code, "\n".join(lines)))
    lines[:] = GoogleDocstring(text, what="function").lines()


def _rewrite_example(match: re.Match[str]) -> str:
    indent, code = match.groups()
    return f"{indent}Example:\n{indent}    .. code-block:: python\n\n{textwrap.indent(code, '    ')}"


def _rewrite_code(match: re.Match[str]) -> str:
    indent, language, block, code = match.groups()
    if code:
        return f"``{code}``"
    return f"{indent}.. code-block:: {language or 'text'}\n\n{textwrap.indent(block, '   ')}"


def _hide_fields(_app: Sphinx, _what: str, _name: str, obj: object, *_: object) -> tuple[str, None] | None:
    """Return an empty signature for a model, because the configuration reference describes the model's fields."""
    return ("", None) if isinstance(obj, type) and issubclass(obj, BaseModel) else None
