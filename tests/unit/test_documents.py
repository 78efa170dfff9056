"""What the documents say is there, is there."""

import re
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_commands_exist(page: Path) -> None:
    for target in re.findall(r"`make ([a-z][a-z0-9-]*)", page.read_text()):
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    for name in re.findall(r"`((?:components|tests|lab|examples|docs|benchmarks)/[\w./-]*)`", page.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("record", sorted((ROOT / "docs/adr").glob("*.md")), ids=lambda page: page.name)
def test_decisions_are_short(record: Path) -> None:
    assert 10 <= len(record.read_text().splitlines()) <= 36
    assert re.match(r"\d{3}-[a-z0-9-]+\.md$", record.name)


def test_every_alert_leads_to_an_entry_of_the_runbook() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    entries = {heading.lower().replace(" ", "-") for heading in headings}
    wanted = set(re.findall(r'\bat="([a-z-]+)"', (ROOT / "components/alerts.py").read_text()))
    assert len(wanted) > 5
    assert wanted <= entries
