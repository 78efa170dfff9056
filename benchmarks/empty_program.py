"""Comparison of a stack's preview with the preview of an empty Pulumi program, which is the shortest possible preview."""

import shutil
import subprocess
from pathlib import Path

from tests.e2e.stack import Stack

from .pairs import Run, pair

HERE = Path(__file__).parent


def empty(stack: Stack) -> Run:
    """Return a function that previews the empty program. The preview uses the state backend and the Python of `stack`."""
    folder = stack.folder / "empty"
    shutil.copytree(HERE / "empty", folder)
    (folder / "Pulumi.yaml").write_text((folder / "Pulumi.yaml").read_text().replace("../../.venv", "../.venv"))

    def pulumi(*words: str) -> None:
        subprocess.run(["pulumi", *words], cwd=folder, env=stack.variables, check=True, capture_output=True)

    pulumi("stack", "init", "empty")
    return lambda: pulumi("preview", "--stack", "empty", "--non-interactive")


def preview(stack: Stack, environment: str, target: float) -> str:
    """Compare the preview of a deployed stack without changes with the preview of the empty program, and return a table row."""
    return pair(
        f"`pulumi preview` of {environment}, nothing to do, against an empty program",
        target,
        lambda: stack.pulumi("preview", "--stack", stack.name, check=True),
        empty(stack),
    )
