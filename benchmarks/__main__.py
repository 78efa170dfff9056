"""`make bench`: what the program costs, as ratios of two commands run in turn on the same machine. Prints a table.

Each pair is run A B A B …, what they leave is removed in between, untimed; the row gives the medians and the median,
lowest and highest of the ratios pair by pair.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from components.config import load_app
from components.platforms import haproxy
from components.tier import routes
from tests.e2e.stack import SECRETS, Stack, free_port

HERE = Path(__file__).parent
PAIRS = 5
Run = Callable[[], object]


def pair(name: str, target: float, ours: Run, theirs: Run, clear: Run = lambda: None) -> str:
    """One row of the table: wall-clock seconds of both, and their ratio."""
    times: list[tuple[float, float]] = []
    for _ in range(PAIRS):
        times.append((_timed(ours, clear), _timed(theirs, clear)))
        print(f"  {name}: {times[-1][0]:.1f} s against {times[-1][1]:.1f} s", file=sys.stderr)
    ratios = [one / other for one, other in times]
    mine, other = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"| {name} | {mine:.1f} s | {other:.1f} s | {spread} | {target} |"


def _timed(run: Run, clear: Run) -> float:
    clear()
    started = time.monotonic()
    run()
    took = time.monotonic() - started
    clear()
    return took


def cold_up(stack: Stack) -> str:
    """The five tiers from nothing to the switch, images present: `pulumi up` against `docker-compose up -d`."""
    if not shutil.which("docker-compose"):
        sys.exit("bench: docker-compose is not here; install Debian's package docker-compose")
    stack.environment |= {"reload": False}
    stack.up()
    by_name = {each.name.removeprefix(f"board-{stack.name}-"): each.image.tags[0] for each in stack.containers()}
    stack.destroy()
    secrets = stack.folder / "compose-secrets"
    secrets.mkdir()
    for name, value in SECRETS.items():
        (secrets / name).write_text(value)
    variables = os.environ | {
        "API_IMAGE": by_name["blue-api-1"], "WEB_IMAGE": by_name["blue-web-1"], "SECRETS": str(secrets),
        "TOOLBOX": str(HERE.parent / "components/platforms/toolbox.py"), "PORT": str(free_port()),
        "CONFIG": haproxy.configuration(routes(load_app(stack.app)), metrics=False), "COMPOSE_PROJECT_NAME": "tiersbench",
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


def preview(stack: Stack) -> str:
    """A preview that finds nothing to do, against the one of a program without resources."""
    stack.up()
    folder = stack.folder / "empty"
    shutil.copytree(HERE / "empty", folder)
    (folder / "Pulumi.yaml").write_text((folder / "Pulumi.yaml").read_text().replace("../../.venv", "../.venv"))

    def pulumi(*words: str) -> None:
        subprocess.run(["pulumi", *words], cwd=folder, env=stack.variables, check=True, capture_output=True)

    pulumi("stack", "init", "empty")
    row = pair(
        "`pulumi preview`, nothing to do, against an empty program", 1.5,
        lambda: stack.pulumi("preview", "--stack", stack.name, check=True),
        lambda: pulumi("preview", "--stack", "empty", "--non-interactive"),
    )  # fmt: skip
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
secrets = tier.secrets_of({name: "value" for name in app.secrets}, "board/dev")
description = tier.Description(app=app, environment=environment, secrets=secrets, root=Path.cwd())
workloads = [tier.service(name, described, description) for name, described in app.services.items()]
release.plan(checkpoint.observe(checkpoint.parse({})), release.identify(app.version, workloads))
print(time.process_time() - started - skipped)
"""


def planning() -> str:
    """Processor time of importing the program and planning, beyond `import pulumi`."""
    command = [sys.executable, "-c", PLANNING]
    times = [
        float(subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True).stdout)
        for _ in range(9)
    ]
    spread = f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})"
    return f"| import and planning, CPU beyond `import pulumi` | {spread} | | | 0.5 s |"


def main(names: list[str]) -> None:
    benchmarks = {"planning": planning}
    with tempfile.TemporaryDirectory() as folder:
        stack: list[Stack] = []

        def deployed() -> Stack:
            if not stack:
                stack.append(Stack(Path(folder) / "board", "bench"))
            return stack[0]

        benchmarks |= {"cold": lambda: cold_up(deployed()), "preview": lambda: preview(deployed())}
        rows = [benchmarks[name]() for name in names or benchmarks]
    print("| what | ours | theirs | ratio, median (lowest to highest) | at most |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
