"""Command line of the lab: `python3 -m lab up | doctor | down` installs what this machine lacks, lists it, or stops it.

`up` and `doctor` take parts: dev (the default), provider, cluster, data, archive, monitoring, operator, lint, load,
scan, tools, compose, peers. `down` stops everything, or only `cluster` or `peers`.
"""

import sys
from collections.abc import Callable

from ci import edge

from . import aws, barman, cluster, compose, data, engine, peers, s3, toolchain, watch
from .steps import LabError, Step, bring, doctor

WHAT: dict[str, Callable[[], list[Step]]] = {
    "dev": lambda: [*toolchain.steps("docker"), *engine.steps()],
    "provider": lambda: [*toolchain.steps("kubernetes"), *engine.steps()],
    "cluster": lambda: [*toolchain.steps("kubernetes"), *engine.steps(), *cluster.steps()],
    "data": lambda: [*WHAT["cluster"](), *data.steps()],
    "archive": lambda: [*WHAT["data"](), *s3.steps(), *barman.steps()],
    "monitoring": lambda: [*WHAT["dev"](), *engine.images(engine.WATCHERS)],
    "operator": lambda: [*WHAT["cluster"](), *WHAT["monitoring"](), *watch.operated()],
    "lint": lambda: [*toolchain.lint(), watch.tools()],
    "load": toolchain.load,
    "scan": toolchain.scan,
    "tools": lambda: [*toolchain.tools(), aws.step()],
    "compose": lambda: [compose.step()],
    "peers": lambda: [*WHAT["cluster"](), *toolchain.tools(), *peers.steps()],
}
"""Part of the lab → its steps. Parts are for environments on Docker, on a foreign cluster, on the lab's, and for tests."""


def main(verb: str, *what: str) -> int:
    if verb not in ("up", "doctor", "down"):
        print(f"lab: {verb} is none of up, doctor, down", file=sys.stderr)
        return 2
    if unknown := set(what) - set(WHAT):
        print(f"lab: {', '.join(unknown)} is none of {', '.join(WHAT)}", file=sys.stderr)
        return 2
    # A step that several parts need runs once.
    steps = {step.name: step for name in what or ("dev",) for step in WHAT[name]()} if verb != "down" else {}
    if verb == "doctor":
        print(f"What {', '.join(what or ('dev',))} needs on this machine:")
        ready = doctor(list(steps.values()))
        print("Everything is there." if ready else "`make lab` (or `make up`) makes what is missing.")
        return 0
    try:
        if verb == "down":
            peers.stop()
            watch.stop()
            if what != ("peers",):
                s3.stop()
                cluster.stop()
            if not what:
                engine.stop()
        else:
            bring(list(steps.values()))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; run it again, it goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    edge.end("lab", lambda: main(*(sys.argv[1:] or ["up"])))
