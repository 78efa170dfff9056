"""Command line of the lab: `python3 -m lab up | doctor | down`.

`up` installs missing programs and starts services. `doctor` lists the programs and services, and shows which are missing.
`down` stops the processes that the lab started.

A part is a group of programs and services. `up` and `doctor` take names of parts: dev (the default), provider, cluster,
data, archive, monitoring, operator, lint, load, scan, tools, compose, peers. `down` stops everything, or only the part
`cluster` or `peers`.
"""

import sys
from collections.abc import Callable

from ci import command_line

from . import aws, barman, cluster, compose, data, engine, peers, s3, toolchain, watch
from .steps import LabError, Step, doctor, run_steps

PARTS: dict[str, Callable[[], list[Step]]] = {
    "dev": lambda: [*toolchain.steps("docker"), *engine.steps()],
    "provider": lambda: [*toolchain.steps("kubernetes"), *engine.steps()],
    "cluster": lambda: [*toolchain.steps("kubernetes"), *engine.steps(), *cluster.steps()],
    "data": lambda: [*PARTS["cluster"](), *data.steps()],
    "archive": lambda: [*PARTS["data"](), *s3.steps(), *barman.steps()],
    "monitoring": lambda: [*PARTS["dev"](), *engine.images(engine.MONITORING_IMAGES)],
    "operator": lambda: [*PARTS["cluster"](), *PARTS["monitoring"](), *watch.operator_steps()],
    "lint": lambda: [*toolchain.lint(), watch.tools()],
    "load": toolchain.load,
    "scan": toolchain.scan,
    "tools": lambda: [*toolchain.tools(), aws.step()],
    "compose": lambda: [compose.step()],
    "peers": lambda: [*PARTS["cluster"](), *toolchain.tools(), *peers.steps()],
}
"""Name of each part → function that returns the steps that install the part.

The part `dev` is for Docker, and `provider` for a cluster that the lab did not start. The parts `cluster` and `data` are
for the lab's cluster. The other parts are for monitoring, tests and benchmarks.
"""


def main(verb: str, *parts: str) -> int:
    if verb not in ("up", "doctor", "down"):
        print(f"lab: unknown command {verb}; use up, doctor or down", file=sys.stderr)
        return 2
    if unknown := set(parts) - set(PARTS):
        print(f"lab: unknown part {', '.join(unknown)}; use {', '.join(PARTS)}", file=sys.stderr)
        return 2
    # A step that several parts need runs once.
    steps = {step.name: step for name in parts or ("dev",) for step in PARTS[name]()} if verb != "down" else {}
    if verb == "doctor":
        print(f"Programs and services of {', '.join(parts or ('dev',))} on this machine:")
        ready = doctor(list(steps.values()))
        print("Nothing is missing." if ready else "`make lab` (or `make up`) installs the missing ones.")
        return 0
    try:
        if verb == "down":
            peers.stop()
            watch.stop()
            if parts != ("peers",):
                s3.stop()
                cluster.stop()
            if not parts:
                engine.stop()
        else:
            run_steps(list(steps.values()))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; run it again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    command_line.run_and_exit("lab", lambda: main(*(sys.argv[1:] or ["up"])))
