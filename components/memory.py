"""Memory of a slot: the inputs of its lasting resources, as JSON in the output `made` of the slot's component.

The checkpoint alone is not enough: `pulumi refresh` drops a resource that somebody deleted, with its inputs. A component
has no provider, so its outputs outlive a refresh (docs/adr/022-repair.md). Secrets are left out: the memory only records
that a resource had some.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import pulumi
from pulumi import Output, RunError

from . import checkpoint
from .checkpoint import LABEL_ATTEMPT, SLOT, Checkpoint, Entry
from .release import Slot

MADE = "made"
"""Name of the output that stores a slot's memory."""
_ENDED = ("smoke", "task")
"""Roles of resources that run to their end. A passed gate does not run again."""
_IMAGE, _JOB = "docker:index/remoteImage:RemoteImage", "kubernetes:batch/v1:Job"
_SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key that marks a value of a state as special, such as a secret (sig.Key of Pulumi)."""
State = dict[str, Any]


def is_memorable(entry: Entry) -> bool:
    """Tell whether a slot remembers a resource: every resource except those that run to their end."""
    return entry.role not in _ENDED and entry.type != _JOB


def can_be_put_back(entry: Entry) -> bool:
    """Tell whether a lost resource can be recreated. An image can't: another build has other content."""
    return entry.type != _IMAGE


def to_state(entry: Entry) -> State:
    """Return a resource as the JSON object that a slot's memory stores."""
    state: State = {"urn": entry.urn, "type": entry.type, "parent": entry.parent}
    if not entry.custom:
        return state | {"custom": False}
    inputs, sealed = _opened(dict(entry.inputs))
    labels = inputs.get("labels")
    if isinstance(labels, list):
        inputs["labels"] = [label for label in cast(list[State], labels) if label["label"] != LABEL_ATTEMPT]
    state |= {"inputs": inputs, "dependencies": list(entry.dependencies)}
    if entry.type == _IMAGE:
        state["outputs"] = {"imageId": entry.outputs.get("imageId")}
    return state | ({"sealed": True} if sealed or entry.sealed else {})


def from_state(found: Mapping[str, Any]) -> Entry:
    """Return a remembered resource as an entry of a checkpoint."""
    return Entry(
        urn=found["urn"],
        type=found["type"],
        parent=found["parent"],
        custom=bool(found.get("custom", True)),
        inputs=found.get("inputs") or {},
        outputs=found.get("outputs") or {},
        dependencies=tuple(found.get("dependencies") or ()),
        sealed=bool(found.get("sealed")),
    )


def recall(known: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """Return the resources that a slot remembers, parents and dependencies first."""
    component = known.of(SLOT, slot)
    text = str(component.outputs.get(MADE) or "[]") if component else "[]"
    return tuple(from_state(item) for item in cast(list[State], json.loads(text)))


def remember(entries: Iterable[Entry]) -> str:
    """Return these resources of a slot as one JSON text, which is exact and cheap to register."""
    return json.dumps([to_state(entry) for entry in entries if is_memorable(entry)], sort_keys=True)


def record(slot: Slot, passed: Output[Any]) -> Output[str]:
    """Return the memory of the slot that is being deployed, read from the checkpoint after its last gate.

    The checkpoint has the inputs as the providers accepted them, with secrets encrypted.

    Args:
        slot: the slot.
        passed: the output of the last gate.
    """
    question = pulumi.get_stack(), pulumi.get_root_directory()

    def read(_: object) -> str:
        try:
            exported = checkpoint.Asked(*question).answer()
        except RunError as error:
            pulumi.log.warn(f"{slot}: its resources can't be recorded now; the next update records them: {error}")
            return remember([])
        return remember(exported.below(slot, SLOT))

    return passed.apply(read)


def suspended(known: Checkpoint, slot: Slot) -> tuple[Entry, ...]:
    """Return the resources that a slot lacks to serve: those suspended in it, and those gone from it."""
    present = {entry.urn for entry in known.below(slot, SLOT)}
    absent = {entry.urn: entry for entry in (*checkpoint.rested(known, slot), *recall(known, slot))}
    return tuple(entry for urn, entry in absent.items() if urn not in present and entry.runs)


def images(entries: Iterable[Entry], known: Checkpoint, slot: Slot) -> dict[str, str]:
    """Return the id of each image that containers among these entries need, with the image's name and tier for messages."""
    listed = (*known.entries, *recall(known, slot))
    names = {
        str(entry.outputs.get("imageId")): str(entry.inputs.get("name")) for entry in listed if entry.type == _IMAGE
    }
    needed = {str(image): entry.tier for entry in entries if (image := entry.inputs.get("image"))}
    return {image: f"the image {names.get(image, image)} of {slot}'s {tier}" for image, tier in needed.items()}


def ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with parents and dependencies first, otherwise in their order."""
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


def _opened(value: Any) -> tuple[Any, bool]:
    """Return a value of a state without its secrets, and whether it had any."""
    if isinstance(value, dict):
        fields = cast(State, value)
        if _SIGNATURE in fields:
            return None, True
        parts = {name: _opened(part) for name, part in fields.items()}
        return {name: part for name, (part, sealed) in parts.items() if part is not None or not sealed}, any(
            sealed for _, sealed in parts.values()
        )
    if isinstance(value, list):
        items = [_opened(part) for part in cast(list[Any], value)]
        return [part for part, sealed in items if part is not None or not sealed], any(sealed for _, sealed in items)
    return value, False
