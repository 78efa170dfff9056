"""Memory of a slot: a copy of the slot's resources, stored as JSON in an output of the component `Slot`.

If a resource of a kept slot is missing, the next update recreates the resource from the memory. The checkpoint is not enough:
`pulumi refresh` removes a resource with its inputs if the object was deleted on the platform. A refresh keeps the outputs of a
component, because a component has no provider (docs/adr/022-repair.md). The memory contains no secrets: an entry only records
that a resource has secret inputs.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pulumi
from pulumi import Output, RunError

from ..model.names import LABEL_RELEASE
from ..state import reader
from ..state.types import is_image, is_job
from .checkpoint import (
    LABEL_ATTEMPT,
    SLOT,
    Checkpoint,
    CheckpointExport,
    Entry,
    entry_from_state,
    image_names,
    live_object_states,
    suspended_entries,
)
from .planner import Slot

MEMORY = "made"
"""Output of the component `Slot` that stores the memory. Don't change this name, because states of stacks contain it."""
_ENDED = ("smoke", "task")
"""Values of the role label that mark the container of a gate. Such a container runs one command and ends."""
_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key that marks special objects in the state, such as encrypted secrets (Pulumi's `sig.Key`)."""
State = dict[str, Any]


def is_memorable(entry: Entry) -> bool:
    """Return whether the memory stores the resource. A gate is not stored, because a passed gate does not run again."""
    return entry.role not in _ENDED and not is_job(entry.type)


def is_recreatable(entry: Entry) -> bool:
    """Return whether a missing resource can be recreated. An image can't be recreated, because a new build has another id."""
    return not is_image(entry.type)


def to_state(entry: Entry) -> State:
    """Return a resource as a JSON object, to store it in the memory."""
    state: State = {"urn": entry.urn, "type": entry.type, "parent": entry.parent}
    if not entry.custom:
        return state | {"custom": False}
    inputs, sealed = _without_secrets(dict(entry.inputs))
    inputs = reader(inputs).without_label(inputs, LABEL_ATTEMPT)
    state |= {"inputs": inputs, "dependencies": list(entry.dependencies)}
    if outputs := reader(inputs).identifying_outputs(entry.type, entry.outputs):
        state["outputs"] = outputs
    return state | ({"sealed": True} if sealed or entry.sealed else {})


def recall(checkpoint: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """Return the resources in the memory of a slot, parents and dependencies first.

    Leave out resources of services that the slot's release does not have, because the next update would create them again. The
    memory may contain such resources: an update records the memory before it deletes old resources.
    """
    component = checkpoint.find(SLOT, slot)
    if not component:
        return ()
    items = cast(list[State], json.loads(str(component.outputs.get(MEMORY) or "[]")))
    parts: Mapping[str, str] = component.inputs.get("parts") or {}
    return tuple(
        _without_other_services(
            [entry_from_state(item) for item in items], slot, {part for part in parts if "." not in part}
        )
    )


def _without_other_services(entries: Sequence[Entry], slot: Slot, services: Collection[str]) -> Iterator[Entry]:
    """Yield the entries that belong to one of `services` or to no service. If `services` is empty, yield all entries."""
    components = {
        entry.urn: entry.name.removeprefix(f"{slot}-") for entry in entries if not entry.custom and entry.type != SLOT
    }
    others = set(components.values()) - set(services) if services else set[str]()
    for entry in entries:
        belongs_to_another = {
            components.get(entry.urn),
            components.get(entry.parent),
            entry.tier if entry.custom else None,
        } & others
        if not belongs_to_another and not entry.name.startswith(tuple(f"{slot}-{name}-secrets" for name in others)):
            yield entry


def remember(entries: Iterable[Entry]) -> str:
    """Return a slot's memory with these resources as JSON text. Pulumi registers one text faster than nested values."""
    return json.dumps([to_state(entry) for entry in entries if is_memorable(entry)], sort_keys=True)


def record(stack: str, root: Path, slot: Slot, passed: Output[Any]) -> Output[str]:
    """Return the memory of the slot that this update deploys.

    Export the checkpoint again after the last gate. This checkpoint contains all new resources, with the inputs that the
    providers stored. Secrets are encrypted. If the export fails, log a warning and return an empty memory.

    Args:
        stack: name of the stack.
        root: folder of Pulumi.yaml.
        slot: the slot that this update deploys.
        passed: output that is known once the last gate has passed.
    """

    def read(_: object) -> str:
        try:
            exported = CheckpointExport(stack, str(root)).answer()
        except RunError as error:
            pulumi.log.warn(
                f"the resources of slot {slot} can't be recorded now, so the next update records them: {error}"
            )
            return remember([])
        return remember(exported.descendants(slot, SLOT))

    return passed.apply(read)


def missing_entries(checkpoint: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """Return the suspended and lost containers of a slot, which must be recreated before the slot can go live."""
    present = {entry.urn for entry in checkpoint.descendants(slot, SLOT)}
    absent = {entry.urn: entry for entry in (*suspended_entries(checkpoint, slot), *recall(checkpoint, slot))}
    return tuple(entry for urn, entry in absent.items() if urn not in present and entry.runs)


def missing_live_objects(checkpoint: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """Return the objects that only the live release has, and that an update must deploy if the slot is live after it."""
    stored = [
        Entry(urn=state["name"], type=state["type"], parent="", custom=True, inputs=state["inputs"])
        for state in live_object_states(checkpoint, slot).values()
    ]
    deployed = {(entry.name, entry.labels.get(LABEL_RELEASE)) for entry in checkpoint.entries}
    return tuple(entry for entry in stored if (entry.name, entry.labels.get(LABEL_RELEASE)) not in deployed)


def needed_images(entries: Iterable[Entry], checkpoint: Checkpoint, slot: Slot) -> dict[str, str]:
    """Return the images that containers need: image id → description for messages, such as `the image shop-api of blue's api`."""
    names = image_names((*checkpoint.entries, *recall(checkpoint, slot)))
    needed = {image: entry.tier for entry in entries if (image := entry.image_id)}
    return {image: f"the image {names.get(image, image)} of {slot}'s {tier}" for image, tier in needed.items()}


def sort_by_dependencies(entries: Sequence[Entry]) -> list[Entry]:
    """Sort the entries: each entry comes after its parent and its dependencies. Otherwise the order stays unchanged."""
    by_urn = {entry.urn: entry for entry in entries}
    done: dict[str, Entry] = {}

    def visit(entry: Entry, above: frozenset[str]) -> None:
        for urn in (entry.parent, *entry.dependencies):
            if urn in by_urn and urn not in done and urn not in above:
                visit(by_urn[urn], above | {urn})
        done[entry.urn] = entry

    for entry in entries:
        if entry.urn not in done:
            visit(entry, frozenset({entry.urn}))
    return list(done.values())


def _without_secrets(value: Any) -> tuple[Any, bool]:
    """Return a value of the state without its secrets, and whether the value had secrets."""
    if isinstance(value, dict):
        fields = cast(State, value)
        if _SIGNATURE in fields:
            return None, True
        parts = {name: _without_secrets(part) for name, part in fields.items()}
        return {name: part for name, (part, sealed) in parts.items() if part is not None or not sealed}, any(
            sealed for _, sealed in parts.values()
        )
    if isinstance(value, list):
        items = [_without_secrets(part) for part in cast(list[Any], value)]
        return [part for part, sealed in items if part is not None or not sealed], any(sealed for _, sealed in items)
    return value, False
