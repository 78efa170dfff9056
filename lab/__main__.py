"""`python3 -m lab up | doctor | down`: give this machine what it lacks, say what that is, or stop what was started."""

import sys

from . import engine, toolchain
from .steps import LabError, bring, doctor


def main(verb: str) -> int:
    if verb == "down":
        engine.stop()
        return 0
    steps = [*toolchain.steps(), *engine.steps()]
    if verb == "doctor":
        print("What the dev environment needs on this machine:")
        ready = doctor(steps)
        print("Everything is there." if ready else "`make lab` (or `make up`) makes what is missing.")
        return 0
    try:
        bring(steps)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; run it again, it goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if sys.argv[1:] else "up"))
