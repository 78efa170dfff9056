"""Functions that run Tiers on the configurations in tests/cases/config (see tests/cases/README.md)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .program import ROOT, Deployment, deploy

FOLDER = ROOT / "tests" / "cases" / "config"


def stacks() -> Iterator[tuple[str, str]]:
    """Yield the folder name and the stack name of each stack file in tests/cases/config."""
    for file in sorted(FOLDER.glob("*/Pulumi.*.yaml")):
        yield file.parent.name, file.name.removeprefix("Pulumi.").removesuffix(".yaml")


def expected_lines(folder: str, stack: str) -> list[str]:
    """Return the non-comment lines of EXPECTED.<stack>.txt, or of EXPECTED.txt if the first file is missing."""
    specific = FOLDER / folder / f"EXPECTED.{stack}.txt"
    file = specific if specific.exists() else FOLDER / folder / "EXPECTED.txt"
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def run(folder: str, stack: str) -> Deployment:
    """Deploy one stack of a case folder with a mock of Pulumi's engine.

    Raises:
        ConfigError: Tiers refuses the configuration.
    """
    root = FOLDER / folder
    project_file, settings = _read(root / "Pulumi.yaml"), _read(root / f"Pulumi.{stack}.yaml").get("config") or {}
    name = str(project_file["name"])
    return deploy(
        project_file.get("config", {}).get("app", {}).get("value"),
        settings.get(f"{name}:environment"),
        stack=stack,
        secrets=settings.get(f"{name}:secrets") or {},
        name=name,
        root=root,
    )


def _read(file: Path) -> Mapping[str, Any]:
    return yaml.safe_load(file.read_text())
