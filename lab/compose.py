"""What reads a Compose file for `make import`: Docker's own plugin where it is there, else Debian's older program."""

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
    """Nothing to do where `docker compose` answers."""
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
