"""Preview of a Pulumi program without resources: the least that any preview takes."""

import shutil
import subprocess
from pathlib import Path

from tests.e2e.stack import Stack

from .pairs import Run, pair

HERE = Path(__file__).parent


def empty(stack: Stack) -> Run:
    """Return a function that previews the empty program, with the state and the Python of `stack`."""
    folder = stack.folder / "empty"
    shutil.copytree(HERE / "empty", folder)
    (folder / "Pulumi.yaml").write_text((folder / "Pulumi.yaml").read_text().replace("../../.venv", "../.venv"))

    def pulumi(*words: str) -> None:
        subprocess.run(["pulumi", *words], cwd=folder, env=stack.variables, check=True, capture_output=True)

    pulumi("stack", "init", "empty")
    return lambda: pulumi("preview", "--stack", "empty", "--non-interactive")


def preview(stack: Stack, environment: str, target: float) -> str:
    """Measure a preview of a deployed, unchanged stack against that of the empty program."""
    return pair(
        f"`pulumi preview` of {environment}, nothing to do, against an empty program",
        target,
        lambda: stack.pulumi("preview", "--stack", stack.name, check=True),
        empty(stack),
    )
