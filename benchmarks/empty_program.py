"""Compare a stack's preview with the shortest possible preview: that of an empty Pulumi program."""

import shutil
import subprocess
from pathlib import Path

from tests.e2e.stack import Stack

from .pairs import Run, pair

HERE = Path(__file__).parent


def empty(stack: Stack) -> Run:
    """Return a function that previews the empty program, with the state backend and the virtual environment of `stack`."""
    folder = stack.folder / "empty"
    shutil.copytree(HERE / "empty", folder)
    (folder / "Pulumi.yaml").write_text((folder / "Pulumi.yaml").read_text().replace("../../.venv", "../.venv"))

    def pulumi(*words: str) -> None:
        subprocess.run(["pulumi", *words], cwd=folder, env=stack.variables, check=True, capture_output=True)

    pulumi("stack", "init", "empty")
    return lambda: pulumi("preview", "--stack", "empty", "--non-interactive")


def preview(stack: Stack, environment: str, target: float) -> str:
    """Compare the preview of an unchanged stack with the preview of the empty program. Return a table row."""
    return pair(
        f"`pulumi preview` of {environment}, nothing to do, against an empty program",
        target,
        lambda: stack.pulumi("preview", "--stack", stack.name, check=True),
        empty(stack),
    )
