"""Runs the program on the configurations of tests/cases/config (see tests/cases/README.md)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from .program import ROOT, Deployment, deploy

FOLDER = ROOT / "tests" / "cases" / "config"


def stacks() -> Iterator[tuple[str, str]]:
    """Yield the folder and the stack of each stack file."""
    for file in sorted(FOLDER.glob("*/Pulumi.*.yaml")):
        yield file.parent.name, file.name.removeprefix("Pulumi.").removesuffix(".yaml")


def expected(folder: str, stack: str) -> list[str]:
    """Return the lines of the expected result of a stack."""
    specific = FOLDER / folder / f"EXPECTED.{stack}.txt"
    file = specific if specific.exists() else FOLDER / folder / "EXPECTED.txt"
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def run(folder: str, stack: str) -> Deployment:
    """Run the whole program on a stack of a case.

    Raises:
        ConfigError: the program refuses the configuration.
    """
    root = FOLDER / folder
    described, settings = _read(root / "Pulumi.yaml"), _read(root / f"Pulumi.{stack}.yaml").get("config") or {}
    name = str(described["name"])
    return deploy(
        described.get("config", {}).get("app", {}).get("value"),
        settings.get(f"{name}:environment"),
        stack=stack,
        secrets=settings.get(f"{name}:secrets") or {},
        name=name,
        root=root,
    )


def _read(file: Path) -> Mapping[str, Any]:
    return yaml.safe_load(file.read_text())
