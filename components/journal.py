"""What each switch leaves behind: who moved traffic, when, from what to what, and how long each gate took."""

import getpass
import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from pulumi import Output, Resource

from .checkpoint import STACK, SWITCH, Checkpoint
from .release import Observed, Plan

BEGAN = time.monotonic()
KEPT = 20
"""How many switches are remembered."""


def entries(known: Checkpoint) -> Sequence[Mapping[str, Any]]:
    """Return the switches so far, the last one last.

    They are in the outputs of the switch's component, after an update that failed in its inputs, and the last one is
    among the stack's outputs, too.
    """
    switch = known.of(SWITCH, "switch")
    sources: list[object] = (
        [switch.outputs.get("journal"), switch.inputs.get("before", {}).get("journal")] if switch else []
    )
    sources += [[entry.outputs.get("last_switch")] for entry in known.entries if entry.type == STACK]
    found = {each["number"]: each for source in sources for each in _entries(source)}
    return [found[number] for number in sorted(found)][-KEPT:]


def _entries(source: object) -> list[Mapping[str, Any]]:
    """Return what of a list are entries of the journal."""
    listed = cast(list[Mapping[str, Any]], source) if isinstance(source, list) else []
    return [each for each in listed if each and "number" in each]


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
