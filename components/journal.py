"""The journal of switches: who moved traffic, when, from which release to which, and how long each gate took."""

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
"""Number of switches in the journal."""


def entries(known: Checkpoint) -> Sequence[Mapping[str, Any]]:
    """Return the switches so far, the latest last.

    The outputs of the switch's component list them; after a failed update its inputs do. The stack's outputs repeat the
    latest.
    """
    switch = known.of(SWITCH, "switch")
    sources: list[object] = (
        [switch.outputs.get("journal"), switch.inputs.get("before", {}).get("journal")] if switch else []
    )
    sources += [[entry.outputs.get("last_switch")] for entry in known.entries if entry.type == STACK]
    by_number = {item["number"]: item for source in sources for item in _entries(source)}
    return [by_number[number] for number in sorted(by_number)][-KEPT:]


def _entries(source: object) -> list[Mapping[str, Any]]:
    """Return the journal entries in a value of the checkpoint, or an empty list."""
    listed = cast(list[Mapping[str, Any]], source) if isinstance(source, list) else []
    return [item for item in listed if item and "number" in item]


def entry(
    observed: Observed, plan: Plan, gates: Mapping[str, Output[Resource]], moved: Output[Resource]
) -> Output[Any]:
    """Return the entry of this switch.

    Args:
        observed: the state before the update.
        plan: the plan of the update.
        gates: the outputs of the gates. The entry has the seconds from the beginning of the update to each.
        moved: the output of the switch.
    """
    state = observed.held.get(observed.live) if observed.live else None
    facts = {
        "number": plan.switches,
        "who": os.environ.get("TIERS_WHO") or f"{getpass.getuser()}@{socket.gethostname()}",
        "from": str(state.release) if state else None,
        "to": str(plan.release),
        "slot": str(plan.live),
    }

    def passed(_: object) -> float:
        return round(time.monotonic() - BEGAN, 1)

    def noted(seconds: Mapping[str, float]) -> Mapping[str, Any]:
        return facts | {"at": datetime.now(UTC).isoformat(timespec="seconds"), "gates": dict(seconds)}

    times = {name: gate.apply(passed) for name, gate in (*gates.items(), ("switch", moved))}
    return Output.all(**times).apply(noted)
