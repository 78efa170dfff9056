"""Tests that all files, code names, anchors, make targets and alerts named in documents exist."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from .program import ROOT

DOCS = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = [ROOT / "examples/README.md", *sorted((ROOT / "examples").glob("*/README.md"))]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")),
    *DOCS,
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
CODE_FOLDERS = ("benchmarks", "ci", "components", "docs", "examples", "images", "lab", "policy", "tests")
CODE_NAME = re.compile(r"`([A-Za-z_]\w*)\.(\w+)(?:\(\))?`")
"""Regex that matches a name of code with its owner: `Class.name` or `module.name`."""
DOCS_PATH = re.compile(r"(?<![\w/.-])(?:\.\./)*docs/([\w./-]*\w)(?:#([\w-]+))?")
"""Regex that matches a path in docs/, with an optional anchor. It does not match inside a longer path or a URL."""


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


@cache
def python_files() -> dict[Path, str]:
    """Return the text of each Python file of the program."""
    return {
        path: path.read_text() for folder in CODE_FOLDERS for path in sources(ROOT / folder) if path.suffix == ".py"
    }


def is_defined(owner: str, name: str) -> bool:
    """Return whether the code defines `owner.name`.

    - If `owner` is a class, a file that defines the class must contain `name`.
    - If `owner` is a module, any Python file may contain `name`. The reason: `owner` may also be a configuration key,
      such as `backup` in `backup.target`.
    - Everything else counts as defined: file names (`Pulumi.yaml`) and names outside this repository (`apps.v1`).
    """
    files = python_files()
    if (ROOT / f"{owner}.{name}").exists():
        return True
    if owner[0].isupper() and not owner.isupper():
        texts = [text for text in files.values() if re.search(rf"^class {owner}\b", text, re.MULTILINE)]
    elif owner in {path.parent.name if path.name == "__init__.py" else path.stem for path in files}:
        texts = list(files.values())
    else:
        return True
    return any(re.search(rf"\b{name}\b", text) for text in texts)


def sources(folder: Path = ROOT) -> Iterator[Path]:
    """Yield the text files in a folder and its subfolders, except in IGNORED_FOLDERS."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in IGNORED_FOLDERS:
            yield from sources(path)
        elif path.is_file() and path.suffix not in {".png", ".gz", ".whl", ".ico"}:
            yield path


def test_readme_has_at_most_1500_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1500


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
def test_every_file_name_in_a_document_belongs_to_an_existing_file(page: Path) -> None:
    for name in re.findall(rf"`((?:{'|'.join(CODE_FOLDERS)})/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), name
    names = {path.name for path in python_files()}
    for name in re.findall(r"`(\w+\.py)`", page.read_text()):
        assert name in names, name


@pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_identifier_in_a_document_is_defined_in_the_code(page: Path) -> None:
    missing = [f"{owner}.{name}" for owner, name in CODE_NAME.findall(page.read_text()) if not is_defined(owner, name)]
    assert not missing


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        ("Registrar", "object", True),
        ("Registrar", "of_" + "data", False),
        ("NoSuchPlatform", "object", False),
        ("options", "data_options", True),
        ("options", "of_" + "data", False),
        ("prober", "go", True),
    ],
)
def test_code_identifier_is_looked_up_in_its_class_or_module(owner: str, name: str, expected: bool) -> None:
    assert is_defined(owner, name) == expected


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("*.md")), ids=lambda page: page.name)
def test_every_decision_record_has_10_to_36_lines(record: Path) -> None:
    assert 10 <= len(record.read_text().splitlines()) <= 36
    assert re.match(r"\d{3}-[a-z0-9-]+\.md$", record.name)


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("*.md")), ids=lambda page: page.name)
def test_title_of_every_decision_record_begins_with_its_number(record: Path) -> None:
    assert re.match(rf"# {record.name[:3]} \w", record.read_text())


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    entries = {heading.lower().replace(" ", "-") for heading in headings}
    alert_anchors = set(re.findall(r'\bheading="([a-z-]+)"', (ROOT / "components/observability/alerts.py").read_text()))
    assert len(alert_anchors) > 5
    assert alert_anchors <= entries
