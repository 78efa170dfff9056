"""Repair of a stack's state: remove resources that are missing on the platform, so that the next update creates them.

All functions are pure. They compare a state (`pulumi stack export`) with an inventory, which lists the objects on the
platform (docs/adr/022-repair.md).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.platforms.inventory import (
    CONTAINER,
    IMAGE,
    Inventory,
    inputs_of,
    key_of,
    resources_of,
    with_provider_cpus,
)
from components.release import memory
from components.release.checkpoint import LABEL_SLOT, SLOT, SWITCH, SWITCHES, Checkpoint, Entry, observe, parse
from components.release.planner import Slot
from components.safety.data import holds_data

State = dict[str, Any]
Resource = dict[str, Any]
_REFERENCES = ("dependencies", "replaceWith")


@dataclass(frozen=True, kw_only=True)
class Repair:
    """Changes that reconcile a stack's state with its platform."""

    state: State
    """State without the missing resources."""
    dropped: tuple[str, ...] = ()
    """Kind and name of each removed resource."""
    start: tuple[str, ...] = ()
    """Keys of stopped containers to start, in the order of the state: dependencies first."""
    data: tuple[str, ...] = ()
    """Kind and name of each missing resource whose data is protected."""
    not_ready: tuple[str, ...] = ()
    """Kind and name of each resource in the live slot or the standby that did not become ready when it was created.

    The repair removes the creation errors of these resources. Otherwise every update would wait for the resources.
    """
    cpus_rewritten: tuple[str, ...] = ()
    """Kind and name of each container whose number of processors is rewritten in the provider's notation."""
    nothing_found: bool = False
    """True if no resource of the state exists on the platform. Perhaps the platform is the wrong one."""

    @property
    def changes_state(self) -> bool:
        return bool(self.dropped or self.not_ready or self.cpus_rewritten)


def plan_repair(state: State, inventory: Inventory) -> Repair:
    """Compare a state with an inventory, and return the necessary changes.

    A resource is removed from the state if the inventory includes its kind but not the resource itself. The inputs of a
    removed resource are saved in the outputs of its slot. If the slot keeps its release, the next update creates the
    resource again from these inputs (`components/kept.py`).
    """
    deployment: State = state.get("deployment") or {}
    resources = resources_of(state)
    checkpoint = parse(state)
    keys = [key_of(resource) for resource in resources]
    missing_indices = [index for index, key in enumerate(keys) if key and _is_missing(resources[index], key, inventory)]
    present = [key for key in keys if key in inventory.keys]
    lost = [resources[index] for index in missing_indices]
    not_ready = [resource for resource in resources if _delays_updates(checkpoint, resource) and resource not in lost]
    remaining = _save_to_outputs(_without(resources, frozenset(missing_indices)), checkpoint, lost)
    remaining = [_without_init_errors(resource) if resource in not_ready else resource for resource in remaining]
    resources_with_cpus = [with_provider_cpus(resource) for resource in remaining]
    cpus_rewritten = [new for new, old in zip(resources_with_cpus, remaining, strict=True) if new is not old]
    changed = missing_indices or not_ready or cpus_rewritten
    return Repair(
        state=state | {"deployment": deployment | {"resources": resources_with_cpus}} if changed else state,
        cpus_rewritten=tuple(_title(resource) for resource in cpus_rewritten),
        not_ready=tuple(_title(resource) for resource in not_ready),
        dropped=tuple(_title(resource) for resource in lost),
        start=tuple(_keys_to_start(checkpoint, resources, inventory)),
        data=tuple(_title(resource) for resource in lost if resource.get("protect") and _holds_data(resource)),
        nothing_found=bool(any(keys)) and not present,
    )


def _holds_data(resource: Resource) -> bool:
    return holds_data(resource["urn"], _entry(resource).labels)


def _entry(resource: Resource) -> Entry:
    return Entry(urn=resource["urn"], type=resource["type"], parent="", custom=True, inputs=inputs_of(resource))


def _delays_updates(checkpoint: Checkpoint, resource: Resource) -> bool:
    """Return True if a resource of the live slot or the standby did not become ready when it was created.

    Pulumi updates each resource with creation errors (`initErrors`), even if `ignore_changes` covers all inputs. So without a
    repair, every update would wait for this resource.
    """
    if not resource.get("initErrors") or not _must_run(checkpoint, resource):
        return False
    return LABEL_SLOT in _entry(resource).labels


def _without_init_errors(resource: Resource) -> Resource:
    return {key: value for key, value in resource.items() if key != "initErrors"}


def _is_missing(resource: Resource, key: str, inventory: Inventory) -> bool:
    # An external resource never counts as missing, because the stack only reads it and did not create it.
    return inventory.lacks(key) and not resource.get("external")


def _keys_to_start(checkpoint: Checkpoint, resources: Sequence[Resource], inventory: Inventory) -> Iterator[str]:
    """Yield the keys of the stopped containers that the repair starts.

    Containers of a release that failed a gate stay stopped, because the workers of such a release must take no jobs.
    """
    for resource in resources:
        key = key_of(resource)
        if key in inventory.stopped and not resource.get("delete") and _must_run(checkpoint, resource):
            yield str(key)


def keeps_running(resource: Mapping[str, Any]) -> bool:
    """Return True if a resource keeps a process running. Return False for a container that runs once and ends."""
    if resource["type"] != CONTAINER:
        return True
    inputs = inputs_of(resource)
    return inputs.get("mustRun", True) is not False and inputs.get("start", True) is not False


def problems(state: State, inventory: Inventory, stack: str) -> tuple[str, ...]:
    """Return a line for each resource that should be running but is not, with the command that fixes it."""
    checkpoint = parse(state)
    fix = f"`make up ENV={stack}`"
    names, lines = names_by_key(state), list[str]()
    for resource in resources_of(state):
        key = key_of(resource)
        if not key or resource.get("delete") or not _must_run(checkpoint, resource):
            continue
        if _is_missing(resource, key, inventory):
            lines.append(f"{names[key]} is gone; {fix} creates it again")
        elif key in inventory.stopped:
            lines.append(f"{names[key]} is stopped ({inventory.stopped[key]}); {fix} starts it")
        elif key in inventory.unhealthy:
            lines.append(f"{names[key]} is not healthy ({inventory.unhealthy[key]}); see `docker logs {names[key]}`")
    return tuple(lines)


def missing_images(checkpoint: Checkpoint, slot: Slot, inventory: Inventory) -> tuple[str, ...]:
    """Return the images that the Docker engine lacks, and that a slot's missing or suspended containers need.

    An image is a text for messages, such as `the image shop-api of blue's api`. On a cluster the result is empty.
    """
    needed = memory.needed_images(memory.missing_entries(checkpoint, slot), checkpoint, slot)
    listed = inventory.kinds is None
    return tuple(name for image, name in needed.items() if listed and f"image {image}" not in inventory.keys)


def _must_run(checkpoint: Checkpoint, resource: Resource) -> bool:
    """Return True if a resource is shared by both slots, or belongs to a release that is live or passed its gates.

    Return False for images, jobs, gates, and containers that run once and end.
    """
    entry = _entry(resource)
    is_permanent = (
        memory.is_memorable(entry) and entry.type != IMAGE and (entry.type != CONTAINER or keeps_running(resource))
    )
    return is_permanent and entry.labels.get(LABEL_SLOT) in (None, *_serving_slots(checkpoint))


def _serving_slots(checkpoint: Checkpoint) -> frozenset[str]:
    observed = observe(checkpoint)
    return frozenset(
        str(slot) for slot, slot_state in observed.slots.items() if slot is observed.live or slot_state.proven
    )


def names_by_key(state: Mapping[str, Any]) -> dict[str, str]:
    """Return inventory key → name. The name is the resource's input `name`, or else its kind and its Pulumi name."""
    names: dict[str, str] = {}
    for resource in resources_of(state):
        if key := key_of(resource):
            names[key] = str(inputs_of(resource).get("name") or _title(resource))
    return names


def health_timeout(state: Mapping[str, Any], keys: Collection[str]) -> float:
    """Return the maximum seconds to wait for healthy containers: their longest timeout, plus 15 s."""
    waits = [
        float(inputs_of(resource).get("waitTimeout") or 0)
        for resource in resources_of(state)
        if key_of(resource) in keys
    ]
    return max(waits, default=0) + 15


def _without(resources: Sequence[Resource], removed_indices: Collection[int]) -> list[Resource]:
    """Remove the resources at `removed_indices`, and all references to these resources.

    `pulumi stack import` accepts only references to resources that are earlier in the list.
    """
    remaining: list[Resource] = []
    present: set[str] = set()
    removed_urns = {str(resources[index]["urn"]) for index in removed_indices}
    for index, resource in enumerate(resources):
        if index in removed_indices:
            continue
        broken = removed_urns - present
        remaining.append(_without_references(resource, broken) if broken else resource)
        present.add(str(resource["urn"]))
    return remaining


def _without_references(resource: Resource, broken: Collection[str]) -> Resource:
    """Return a resource without references to the URNs in `broken`. A resource without such references is unchanged."""
    changed: Resource = {}
    for key in _REFERENCES:
        urns: list[str] = resource.get(key) or []
        if any(urn in broken for urn in urns):
            changed[key] = [urn for urn in urns if urn not in broken]
    by_property: dict[str, list[str] | None] = resource.get("propertyDependencies") or {}
    if any(urn in broken for urns in by_property.values() for urn in urns or ()):
        changed["propertyDependencies"] = {
            name: [urn for urn in urns or () if urn not in broken] for name, urns in by_property.items()
        }
    if resource.get("deletedWith") in broken:
        changed["deletedWith"] = ""
    return resource | changed if changed else resource


# ---------------------------------------------------------------------- information that only missing resources have


def _save_to_outputs(resources: list[Resource], checkpoint: Checkpoint, lost: Sequence[Resource]) -> list[Resource]:
    """Save information about missing resources in the outputs of their slot or the switch. Return all `resources`.

    A slot's outputs get the inputs of the slot's missing resources. If the slot's release passed its gates, they also get
    the release. The switch's outputs get the live slot and the number of switches.
    """
    urns = {str(resource["urn"]) for resource in lost if not resource.get("delete")}
    observed, facts = observe(checkpoint), dict[str, State]()
    for slot in Slot:
        component = checkpoint.find(SLOT, slot)
        missing = [entry for entry in checkpoint.descendants(slot, SLOT) if entry.urn in urns]
        if not component or not missing:
            continue
        entries = {entry.urn: entry for entry in (*memory.recall(checkpoint, slot), *missing)}
        facts[component.urn] = {memory.MEMORY: memory.remember(entries.values())}
        slot_state = observed.slots.get(slot)
        if slot_state and slot_state.proven:
            facts[component.urn]["proven"] = str(slot_state.release)
    switch = checkpoint.find(SWITCH, "switch")
    if switch and observed.live and any(entry.urn in urns for entry in checkpoint.descendants("switch", SWITCH)):
        facts[switch.urn] = {"live": str(observed.live), SWITCHES: observed.switches}
    return [
        resource | {"outputs": {**(resource.get("outputs") or {}), **facts[resource["urn"]]}}
        if resource["urn"] in facts
        else resource
        for resource in resources
    ]


def _title(resource: Mapping[str, Any]) -> str:
    kind = str(resource["type"]).rpartition(":")[2]
    return f"{kind} {str(resource['urn']).rpartition('::')[2]}"
