"""Tests of docs/strategy.md: its table must name existing files, tests and make targets.

Another test checks that stack files set only `environment` and `secrets`, because all environments run the same app.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .program import ROOT

ROWS = [line for line in (ROOT / "docs/strategy.md").read_text().splitlines() if line.startswith("| ")][1:]
APPLICATIONS = [ROOT, *sorted(file.parent for file in (ROOT / "examples").glob("*/Pulumi.dev.yaml"))]


def test_strategy_table_has_at_least_25_rows() -> None:
    assert len(ROWS) >= 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row.split("|")[1]).strip("-")[:40])
class TestTableRow:
    def test_every_file_in_the_strategy_table_exists(self, row: str) -> None:
        for name in re.findall(r"`([\w.-]+(?:/[\w.-]+)+|\w[\w.]*\.yaml|Makefile)`", row):
            assert (ROOT / name).exists(), name

    def test_every_test_in_the_strategy_table_exists(self, row: str) -> None:
        evidence = row.split("|")[3]
        for file, tests in re.findall(r"`(tests/[\w/.]+)` \(([^)]+)\)", evidence):
            text = (ROOT / file).read_text()
            for name in re.findall(r"`(\w+)`", tests):
                assert re.search(rf"def {name}\(", text), f"{file}: {name}"
        assert evidence.strip() or "**not there**" in row

    def test_every_make_target_in_the_strategy_table_exists(self, row: str) -> None:
        makefile = (ROOT / "Makefile").read_text()
        for target in re.findall(r"`make ([a-z-]+)", row):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("folder", APPLICATIONS, ids=lambda folder: folder.name)
def test_stack_files_set_only_environment_and_secrets(folder: Path) -> None:
    project: dict[str, Any] = yaml.safe_load((folder / "Pulumi.yaml").read_text())
    assert set(project["config"]) == {"app"}
    for stack in ("dev", "staging", "prod"):
        settings: dict[str, Any] = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())
        assert set(settings) <= {"config", "encryptionsalt", "secretsprovider"}, stack
        allowed = {f"{project['name']}:{key}" for key in ("environment", "secrets")}
        assert f"{project['name']}:environment" in settings["config"]
        assert set(settings["config"]) <= allowed, stack
