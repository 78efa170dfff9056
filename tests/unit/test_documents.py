"""Tests that documents refer only to files, anchors, make targets and alerts that exist."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from .program import ROOT

EXAMPLES = [ROOT / "examples/README.md", *sorted((ROOT / "examples").glob("*/README.md"))]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *EXAMPLES,
]
MAKEFILE = (ROOT / "Makefile").read_text()
IGNORED_FOLDERS = {
    ".git",
    ".venv",
    ".hypothesis",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "apps",
    "node_modules",
    "reports",
}
DOCS_PATH = re.compile(r"(?<![\w/.-])(?:\.\./)*docs/([\w./-]*\w)(?:#([\w-]+))?")
"""Regex that matches a path in docs/ with an optional anchor, but no part of a longer path or of a URL."""


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return all anchors of a page, from headings (by GitHub's rules) and from `<a id="…">` tags."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    visible_headings = (
        re.sub(r"(`[^`]*`)|<[^>]+>", r"\1", heading) for heading in headings
    )  # GitHub removes HTML tags from a heading, except in code.
    slugs = (re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in visible_headings)
    return frozenset([*slugs, *re.findall(r'<a id="([\w-]+)">', text)])


def sources(folder: Path = ROOT) -> Iterator[Path]:
    """Yield the text files in a folder and its subfolders, except in IGNORED_FOLDERS."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in IGNORED_FOLDERS:
            yield from sources(path)
        elif path.is_file() and path.suffix not in {".png", ".gz", ".whl", ".ico"}:
            yield path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_in_a_document_leads_to_an_existing_file_and_anchor(page: Path) -> None:
    for path, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        assert path or anchor, "the link has neither a path nor an anchor"
        if "://" not in path:
            target = page.parent / path if path else page
            assert target.exists(), path
            assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_every_docs_path_in_any_file_exists() -> None:
    missing: list[str] = []
    count = 0
    for file in sources():
        for path, anchor in DOCS_PATH.findall(file.read_text(errors="replace")):
            target = ROOT / "docs" / path
            count += 1
            exists = target.exists() or any(ROOT.glob(f"docs/{path}.md")) or any(ROOT.glob(f"docs/{path}-*.md"))
            if not exists or (anchor and anchor not in anchors(target)):
                missing.append(f"{file.relative_to(ROOT)}: docs/{path}{anchor and '#'}{anchor}")
    assert not missing
    assert count > 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_in_a_document_exists(page: Path) -> None:
    for target in re.findall(r"`make ([a-z][a-z0-9-]*)", page.read_text()):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(page: Path) -> None:
    for name in re.findall(r"`((?:components|tests|lab|examples|docs|benchmarks)/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("*.md")), ids=lambda page: page.name)
def test_every_decision_record_has_10_to_36_lines(record: Path) -> None:
    assert 10 <= len(record.read_text().splitlines()) <= 36
    assert re.match(r"\d{3}-[a-z0-9-]+\.md$", record.name)


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    entries = {heading.lower().replace(" ", "-") for heading in headings}
    alert_anchors = set(re.findall(r'\bheading="([a-z-]+)"', (ROOT / "components/observability/alerts.py").read_text()))
    assert len(alert_anchors) > 5
    assert alert_anchors <= entries
