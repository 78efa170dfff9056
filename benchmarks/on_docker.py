"""Benchmarks on a Docker engine."""

import os
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from components.config import load_app, load_environment
from components.platforms.docker import haproxy
from components.release.planner import Slot
from components.rendering import render_routes
from tests.e2e.examples import EXAMPLES
from tests.e2e.stack import ROOT, SECRETS, DockerStack, deployment, eventually, free_port

from . import empty_program
from .pairs import pair

HERE = Path(__file__).parent


def cold_up(stack: DockerStack) -> str:
    """Compare the first `pulumi up` of five tiers with the first `docker-compose up -d`. The images are already built."""
    if not shutil.which("docker-compose"):
        sys.exit("bench: docker-compose is not installed; install Debian's package docker-compose")
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
    app_routes = render_routes(app, load_environment(stack.environment, app))
    return haproxy.configuration(dict.fromkeys(Slot, app_routes), url=stack.url)


def preview(stack: DockerStack) -> str:
    """Compare the preview of an unchanged dev with the preview of an empty program."""
    stack.up()
    row = empty_program.preview(stack, "dev", 1.5)
    stack.destroy()
    return row


def reload(folder: Path) -> str:
    """Compare a reload with a restart, for the api of examples/pmanager.

    The reload ends when the edit is visible. The restart ends when the api answers again.
    """
    example = next(example for example in EXAMPLES if example.name == "pmanager")
    edit = example.edit("api")
    stack = DockerStack(folder, "e2e-reload", app_path=f"examples/{example.name}")

    undo = ExitStack()

    def show_edit() -> None:
        undo.enter_context(edit.apply(stack))
        eventually(lambda: edit.is_visible(stack), 60)

    def restart() -> None:
        [api] = [container for container in stack.containers() if container.name.endswith("-blue-api-1")]
        api.restart(timeout=2)
        eventually(lambda: stack.get("/api/openapi.json").ok, 60)

    def restore() -> None:
        undo.close()
        eventually(lambda: stack.get("/api/openapi.json").ok and not edit.is_visible(stack), 60)

    name = "an edit of the api until it is visible, against a restart of its container"
    with deployment(stack):
        return pair(name, 1, show_edit, restart, restore)


PLANNING = """
import time, sys
import pulumi
class NoEngine(pulumi.runtime.Mocks):
    def call(self, args): return {}
    def new_resource(self, args): return args.name, args.inputs
pulumi.runtime.set_mocks(NoEngine())
started = time.process_time()
sys.argv = ["plan"]
from pathlib import Path
import yaml
loaded = time.process_time()
project = yaml.safe_load(Path("Pulumi.yaml").read_text())["config"]["app"]["value"]
skipped = time.process_time() - loaded
from components import Application, Checkpoint, Context, plan
from components.platforms import docker
from components.release.checkpoint import observe
values = {"database-password": "value", "cache-password": "value"}
context = Context.from_values(app=project, environment={"platform": "docker"}, secrets=values, checkpoint=Checkpoint())
plan(observe(context.checkpoint), Application.from_context(context).release)
print(time.process_time() - started - skipped)
"""


def planning() -> str:
    """Measure the processor time to import the program and to plan a release. The time of `import pulumi` is not included."""
    command = [sys.executable, "-c", PLANNING]
    times = [
        float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) for _ in range(9)
    ]
    spread = f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
    return f"| import and planning, CPU beyond `import pulumi` | {spread} | | | 0.5 s |"
