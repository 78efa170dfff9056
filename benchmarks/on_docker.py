"""Benchmarks of the program on a Docker engine."""

import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from components.config import load_app, load_environment
from components.platforms import haproxy
from components.release import Slot
from components.tier import routes
from tests.e2e.stack import ROOT, SECRETS, DockerStack, free_port

from . import empty_program
from .pairs import pair

HERE = Path(__file__).parent


def cold_up(stack: DockerStack) -> str:
    """Measure a first deployment of five tiers, images present: `pulumi up` against `docker-compose up -d`."""
    if not shutil.which("docker-compose"):
        sys.exit("bench: docker-compose is not here; install Debian's package docker-compose")
    stack.environment |= {"reload": False}
    stack.up()
    by_name = {
        container.name.removeprefix(f"board-{stack.name}-"): container.image.tags[0] for container in stack.containers()
    }
    stack.destroy()
    secrets = stack.folder / "compose-secrets"
    secrets.mkdir()
    for name, value in SECRETS.items():
        (secrets / name).write_text(value)
    variables = os.environ | {
        "API_IMAGE": by_name["blue-api-1"], "WEB_IMAGE": by_name["blue-web-1"], "SECRETS": str(secrets),
        "TOOLBOX": str(HERE.parent / "components/platforms/toolbox.py"), "PORT": str(free_port()),
        "CONFIG": _gateway(stack), "COMPOSE_PROJECT_NAME": "tiersbench",
    }  # fmt: skip

    def compose(*words: str) -> None:
        command = ["docker-compose", "-f", str(HERE / "compose.yml"), *words]
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def clear() -> None:
        compose("down", "--volumes", "--timeout", "1")
        stack.destroy()

    return pair(
        "`pulumi up --skip-preview`, cold, against `docker-compose up -d`",
        1.8,
        stack.up,
        lambda: compose("up", "-d"),
        clear,
    )


def _gateway(stack: DockerStack) -> str:
    app = load_app(stack.app)
    app_routes = routes(app, load_environment(stack.environment, app))
    return haproxy.configuration(dict.fromkeys(Slot, app_routes), metrics=False)


def preview(stack: DockerStack) -> str:
    """Measure a preview without changes against that of a program without resources."""
    stack.up()
    row = empty_program.preview(stack, "dev", 1.5)
    stack.destroy()
    return row


PLANNING = """
import time, sys
import pulumi
started = time.process_time()
sys.argv = ["plan"]
from pathlib import Path
import yaml
loaded = time.process_time()
project = yaml.safe_load(Path("Pulumi.yaml").read_text())["config"]["app"]["value"]
skipped = time.process_time() - loaded
from components import checkpoint, config, release, tier, platforms
from components.platforms import docker
app = config.load_app(project)
environment = config.load_environment({"platform": "docker"}, app)
values = {name: "value" for name in app.secrets}
settings = config.Settings(app=app, environment=environment, secrets=values, sealed=pulumi.Output.secret(values))
secrets = tier.secrets_of(settings, "board/dev")
description = tier.Description(app=app, environment=environment, secrets=secrets, root=Path.cwd())
workloads = [tier.service(name, described, description) for name, described in app.services.items()]
release.plan(checkpoint.observe(checkpoint.parse({})), release.identify(app.version, workloads))
print(time.process_time() - started - skipped)
"""


def planning() -> str:
    """Measure the processor time of importing the program and planning, beyond `import pulumi`."""
    command = [sys.executable, "-c", PLANNING]
    times = [
        float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) for _ in range(9)
    ]
    spread = f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
    return f"| import and planning, CPU beyond `import pulumi` | {spread} | | | 0.5 s |"
