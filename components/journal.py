"""What each switch leaves behind: who moved traffic, when, from what to what, and how long each gate took."""

import getpass
import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from pulumi import Output, Resource

from .checkpoint import SWITCH, Checkpoint
from .release import Observed, Plan

BEGAN = time.monotonic()
KEPT = 20
"""How many switches are remembered."""


def entries(known: Checkpoint) -> Sequence[Mapping[str, Any]]:
    """The switches so far, the last one last."""
    switch = known.of(SWITCH, "switch")
    return cast(Sequence[Mapping[str, Any]], switch.outputs.get("journal") or ()) if switch else ()


def entry(
    observed: Observed, plan: Plan, gates: Mapping[str, Output[Resource]], moved: Output[Resource]
) -> Output[Any]:
    """This switch: `gates` in seconds from the beginning of the update until each had let it pass."""
    held = observed.held.get(observed.live) if observed.live else None
    told = {
        "number": plan.switches,
        "who": os.environ.get("TIERS_WHO") or f"{getpass.getuser()}@{socket.gethostname()}",
        "from": str(held.release) if held else None,
        "to": str(plan.release),
        "slot": str(plan.live),
    }

    def passed(_: object) -> float:
        return round(time.monotonic() - BEGAN, 1)

    def noted(seconds: Mapping[str, float]) -> Mapping[str, Any]:
        return told | {"at": datetime.now(UTC).isoformat(timespec="seconds"), "gates": dict(seconds)}

    times = {name: gate.apply(passed) for name, gate in (*gates.items(), ("switch", moved))}
    return Output.all(**times).apply(noted)
