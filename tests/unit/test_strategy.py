"""The environment strategy: entries of its table exist, and environments differ in their stack files only."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .program import ROOT

ROWS = [line for line in (ROOT / "docs/strategy.md").read_text().splitlines() if line.startswith("| ")][1:]
APPLICATIONS = [ROOT, *sorted(file.parent for file in (ROOT / "examples").glob("*/Pulumi.yaml"))]


def test_strategy_has_at_least_25_rows() -> None:
    assert len(ROWS) >= 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row.split("|")[1]).strip("-")[:40])
class TestRow:
    def test_files_of_the_row_exist(self, row: str) -> None:
        for name in re.findall(r"`([\w.-]+(?:/[\w.-]+)+|\w[\w.]*\.yaml|Makefile)`", row):
            assert (ROOT / name).exists(), name

    def test_tests_of_the_row_exist(self, row: str) -> None:
        evidence = row.split("|")[3]
        for file, tests in re.findall(r"`(tests/[\w/.]+)` \(([^)]+)\)", evidence):
            text = (ROOT / file).read_text()
            for name in re.findall(r"`(\w+)`", tests):
                assert re.search(rf"def {name}\(", text), f"{file}: {name}"
        assert evidence.strip() or "**not there**" in row

    def test_commands_of_the_row_exist(self, row: str) -> None:
        makefile = (ROOT / "Makefile").read_text()
        for target in re.findall(r"`make ([a-z-]+)", row):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("folder", APPLICATIONS, ids=lambda folder: folder.name)
def test_environments_differ_in_environment_only(folder: Path) -> None:
    project: dict[str, Any] = yaml.safe_load((folder / "Pulumi.yaml").read_text())
    assert set(project["config"]) == {"app"}
    for stack in ("dev", "staging", "prod"):
        settings: dict[str, Any] = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())
        assert set(settings) <= {"config", "encryptionsalt", "secretsprovider"}, stack
        allowed = {f"{project['name']}:{key}" for key in ("environment", "secrets")}
        assert f"{project['name']}:environment" in settings["config"]
        assert set(settings["config"]) <= allowed, stack
