"""Command line of the benchmarks (`make bench`): run two commands in turn on this machine, and compare their durations.

`python -m benchmarks peers` releases with Tiers and with other tools, and compares the results. Run
`python3 -m lab up peers` first.
`python -m benchmarks switching` measures how long it takes to go back to a standby that still runs.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.e2e.stack import ClusterStack, DockerStack

from . import on_docker, on_kubernetes, peers, switching


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if names == ["peers"]:
            print(peers.table(Path(folder)))
            return

        if names == ["switching"]:
            print(switching.HEAD)
            print(switching.table(DockerStack(Path(folder) / "engine", "e2e-switching")))
            stack = ClusterStack(Path(folder) / "cluster", "e2e-switching")
            stack.build_images()
            print(switching.table(stack))
            return

        @cache
        def engine() -> DockerStack:
            return DockerStack(Path(folder) / "engine", "e2e-bench")

        def cluster(template: str, run: Callable[[ClusterStack], str]) -> str:
            stack = ClusterStack(Path(folder) / run.__name__, f"e2e-bench-{template}", template)
            namespace = stack.environment["kubernetes"]["namespace"]
            namespace |= {"name": stack.namespace, "create": True}
            return run(stack)

        benchmarks: dict[str, Callable[[], str]] = {
            "planning": on_docker.planning,
            "cold": lambda: on_docker.cold_up(engine()),
            "preview": lambda: on_docker.preview(engine()),
            "reload": lambda: on_docker.reload(Path(folder) / "reload"),
        }
        for name, (template, run) in on_kubernetes.ALL.items():
            benchmarks[name] = lambda template=template, run=run: cluster(template, run)
        rows = [benchmarks[name]() for name in names or benchmarks]
    print(
        "| measurement | Tiers | other | ratio, median (lowest to highest) | target: at most |\n|---|---|---|---|---|"
    )
    print("\n".join(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
