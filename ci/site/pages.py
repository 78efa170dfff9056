"""Pages of the site, made from the repository's Markdown files.

The files themselves do not change. `sphinx_text` changes the text of a page for Sphinx:

- The first page gets the navigation.
- The API page gets the directives for docstrings.
- A link that works only on GitHub becomes plain text.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ..make_call import REPOSITORY
from . import api

FIRST = "README.md"
"""First page of the site, which Sphinx reads as `index.md`."""
MAP = "docs/README.md"
"""Page whose tables define the navigation. Each table links to the pages of one part of the site."""
PARTS = {
    "Learn": "Tutorial",
    "Do one task": "How-to guides",
    "Look up": "Reference",
    "Understand": "Explanation",
    "Decision records": "Decision records",
}
"""Heading in `MAP` → title in the navigation: the four kinds of pages of https://diataxis.fr, and the decision records."""
PROJECT = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md", "examples/*/README.md")
"""Patterns of the pages outside of docs/."""

_HEADING = re.compile(r"^## (.+)\n", re.MULTILINE)
_TITLE = re.compile(r"^# ", re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^()#\s]*)(#[^()\s]+)?\)")


@cache
def navigation() -> dict[str, list[str]]:
    """Return the pages of each part of the site, by title. A page that `MAP` links to twice is only in the first part."""
    parts = {"": [MAP]}
    listed = {MAP}
    _, *sections = _HEADING.split((REPOSITORY / MAP).read_text())
    for heading, text in zip(sections[::2], sections[1::2], strict=True):
        linked = dict.fromkeys(target for target in _targets(MAP, text) if target.endswith(".md"))
        parts[PARTS.get(heading, heading)] = [page for page in linked if page not in listed]
        listed |= linked.keys()
    project = [sorted(path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob(name)) for name in PROJECT]
    return parts | {"Project": [page for names in project for page in names]}


@cache
def pages() -> tuple[str, ...]:
    """Return the paths of all pages, from the repository's root."""
    return (FIRST, *(page for part in navigation().values() for page in part))


def sphinx_text(page: str) -> str:
    """Return the Markdown of a page as Sphinx reads it."""
    text = _LINK.sub(lambda link: _relinked(page, *link.groups(default="")), (REPOSITORY / page).read_text())
    text = text.replace("```mermaid\n", "```text\n")
    if not _TITLE.search(text):
        text = f"# {Path(page).stem.replace('-', ' ').capitalize()}\n\n{text}"
    if page == FIRST:
        return f"{text}\n{_toctrees()}"
    return text + api.directives() if page == api.PAGE else text


def stage(source: Path) -> None:
    """Write the source of the site: the pages, a copy of each file that they link to, and a link to the package."""
    for page in pages():
        _write(source / _staged_name(page), sphinx_text(page).encode())
        for target in _targets(page, (REPOSITORY / page).read_text()):
            if target not in pages() and (REPOSITORY / target).is_file():
                _write(source / target, (REPOSITORY / target).read_bytes())
    (source / api.PACKAGE).symlink_to(REPOSITORY / "components")


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _relinked(page: str, text: str, path: str, anchor: str) -> str:
    """Return a Markdown link for the site. A link to a folder leads to its README, or becomes plain text if the site lacks it."""
    if not path or "://" in path:
        return f"[{text}]({path}{anchor})"
    target = _target(page, path)
    if (REPOSITORY / target).is_dir():
        target = f"{target}/README.md"
        if target not in pages():
            return text
    return f"[{text}]({os.path.relpath(_staged_name(target), Path(page).parent)}{anchor})"


def _targets(page: str, text: str) -> Iterator[str]:
    """Yield the target of each link in a page's text: a file or a folder, as a path from the repository's root."""
    return (_target(page, path) for _, path, _ in _LINK.findall(text) if path and "://" not in path)


def _target(page: str, path: str) -> str:
    return os.path.normpath(Path(page).parent / path)


def _staged_name(path: str) -> str:
    return "index.md" if path == FIRST else path


def _toctrees() -> str:
    """Return the directives that make the navigation beside each page."""
    return "\n".join(
        "\n".join(["```{toctree}", ":hidden:", *([f":caption: {title}"] if title else []), "", *part, "```\n"])
        for title, part in navigation().items()
    )
