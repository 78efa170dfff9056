"""Generate the table of public names in the API page: `python -m ci.site.api`.

On the site the page also has the docstrings of these names.
"""

import inspect
import re
from collections.abc import Iterator
from enum import Enum

from pulumi import ComponentResource
from pydantic import BaseModel

import components

from ..make_call import REPOSITORY

PAGE = "docs/reference/api.md"
PACKAGE = "tiers"
"""Name of the package in its wheel."""
HEADING = "## Public names"
"""Heading of the generated table."""
KINDS = {
    "Components": "component",
    "Types": "type",
    "Configuration": "model",
    "Functions": "function",
    "Values": "value",
}
"""Heading → kind of the public names below this heading, in the order of the page."""

_TABLE = re.compile(rf"(?<=^{HEADING}\n).*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def names(kind: str) -> list[str]:
    """Return the public names of a kind, in alphabetical order."""
    return sorted(name for name in components.__all__ if _kind(getattr(components, name)) == kind)


def with_table(page: str) -> str:
    """Return the API page with an updated table of public names."""
    return _TABLE.sub(lambda _: f"\n{_table()}\n\n", page).rstrip("\n") + "\n"


def directives() -> str:
    """Return the Sphinx directives for the docstrings of all public names, in Markdown."""
    return "".join(_section(kind) for kind in KINDS if names(kind))


def _section(kind: str) -> str:
    blocks = "\n".join(line for name in names(kind) for line in _directive(kind, name))
    about = "The keys are in the [configuration reference](../configuration.md).\n\n" if kind == "Configuration" else ""
    return f"\n## {kind}\n\n{about}```{{eval-rst}}\n.. currentmodule:: {PACKAGE}\n\n{blocks}\n```\n"


def _directive(kind: str, name: str) -> Iterator[str]:
    obj = getattr(components, name)
    if not isinstance(obj, type):
        yield f".. {'autofunction' if kind == 'Functions' else 'autodata'}:: {name}"
    else:
        yield f".. autoclass:: {name}"
        yield from _options(kind, obj)
    yield ""


def _options(kind: str, cls: type) -> Iterator[str]:
    if kind != "Configuration":  # The keys of a model are in the configuration reference.
        yield "   :members:"
    if kind == "Components":
        yield "   :show-inheritance:"
    if issubclass(cls, Enum):
        yield "   :undoc-members:"


def _table() -> str:
    rows = (f"| `{PACKAGE}.{name}` | {KINDS[kind]} | {_summary(name)} |" for kind in KINDS for name in names(kind))
    return "\n".join(["| name | kind | what it is |", "|---|---|---|", *rows])


def _kind(obj: object) -> str:
    if not isinstance(obj, type):
        return "Functions" if inspect.isroutine(obj) else "Values"
    if issubclass(obj, ComponentResource):
        return "Components"
    return "Configuration" if issubclass(obj, BaseModel) else "Types"


def _summary(name: str) -> str:
    """Return the first paragraph of a name's docstring, as one line of a table."""
    text = (inspect.getdoc(getattr(components, name)) or "").partition("\n\n")[0]
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


if __name__ == "__main__":
    file = REPOSITORY / PAGE
    file.write_text(with_table(file.read_text()))
