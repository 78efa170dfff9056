"""Installation of Docker Compose for `make import`: Docker's plugin if it is installed, or else Debian's `docker-compose`."""

import shutil
import subprocess

from .services import packages
from .steps import Step

PACKAGE = packages(
    "compose",
    {"docker-compose": "docker-compose"},
    "`make import` needs Docker Compose, which the lab can install only as root on Debian (this is {system}); "
    "install Docker's Compose plugin",
)


def step() -> Step:
    """Return the step that installs Compose. The step does nothing if `docker compose` works."""
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
