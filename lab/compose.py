"""Compose for `make import`: Docker's plugin if it is installed, else Debian's older program."""

import shutil
import subprocess

from .services import packages
from .steps import Step

PACKAGE = packages(
    "compose",
    {"docker-compose": "docker-compose"},
    "a Compose file is read by Compose, and it is not here ({system}); install Docker's Compose plugin",
)


def step() -> Step:
    """Return the step that installs Compose; it does nothing if `docker compose` works."""
    return Step(
        name=PACKAGE.name,
        takes=PACKAGE.takes,
        present=lambda: "docker compose" if _plugin() else PACKAGE.present(),
        run=PACKAGE.run,
    )


def _plugin() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
