"""Journal of switches. An entry records who moved traffic and when, the releases before and after, and when each gate passed."""

import getpass
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from pulumi import Output, Resource

from .checkpoint import STACK, SWITCH, Checkpoint
from .planner import Plan, StackState

LENGTH = 20
"""Maximum number of switches in the journal. Older entries are dropped."""


def entries(checkpoint: Checkpoint) -> Sequence[Mapping[str, Any]]:
    """Return the journal entries of the last `LENGTH` switches, oldest first.

    The outputs of the component `Switch` contain the entries. A failed update may remove these outputs, so the inputs of
    `Switch` have a copy. The stack's outputs have a copy of the latest entry.
    """
    switch = checkpoint.find(SWITCH, "switch")
    sources: list[object] = (
        [switch.outputs.get("journal"), switch.inputs.get("before", {}).get("journal")] if switch else []
    )
    sources += [[entry.outputs.get("last_switch")] for entry in checkpoint.entries if entry.type == STACK]
    by_number = {item["number"]: item for source in sources for item in _entries(source)}
    return [by_number[number] for number in sorted(by_number)][-LENGTH:]


def _entries(source: object) -> list[Mapping[str, Any]]:
    """Return the journal entries in a value from the checkpoint. The result is empty if the value is no list."""
    items = cast(list[Mapping[str, Any]], source) if isinstance(source, list) else []
    return [item for item in items if item and "number" in item]


def author(variables: Mapping[str, str]) -> str:
    """Return the name of the person or job that runs this update: TIERS_WHO in `variables`, or else `USER@HOST`."""
    return variables.get("TIERS_WHO") or f"{getpass.getuser()}@{socket.gethostname()}"


def entry(
    observed: StackState,
    plan: Plan,
    gates: Mapping[str, Output[Resource]],
    moved: Output[Resource],
    who: str,
    started_at: float,
) -> Output[Any]:
    """Return the journal entry of this update's switch. The returned output is known once traffic has moved.

    Args:
        observed: state of the stack before the update.
        plan: plan of the update.
        gates: gates of the release. The entry records the seconds from `started_at` until each gate passed.
        moved: the resource that moves traffic.
        who: the person or the job that runs the update (`author`).
        started_at: start of the program in seconds (`time.monotonic`).
    """
    state = observed.slots.get(observed.live) if observed.live else None
    switch = {
        "number": plan.switches,
        "who": who,
        "from": str(state.release) if state else None,
        "to": str(plan.release),
        "slot": str(plan.live),
    }

    def elapsed(_: object) -> float:
        return round(time.monotonic() - started_at, 1)

    def completed(seconds: Mapping[str, float]) -> Mapping[str, Any]:
        return switch | {"at": datetime.now(UTC).isoformat(timespec="seconds"), "gates": dict(seconds)}

    times = {name: gate.apply(elapsed) for name, gate in (*gates.items(), ("switch", moved))}
    return Output.all(**times).apply(completed)
