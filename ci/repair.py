"""Repair of a stack's state: resources that are missing on the platform are removed, and the next update creates them.

All functions are pure, over a state (`pulumi stack export`) and an inventory of the platform
(docs/adr/022-repair.md).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components import memory
from components.checkpoint import LABEL_SLOT, SLOT, SWITCH, SWITCHES, Checkpoint, Entry, observe, parse
from components.platforms.cpus import text_of_cpus
from components.platforms.inventory import CONTAINER, IMAGE, STATEFUL, Inventory, inputs_of, key_of, resources_of
from components.release import Slot

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
    """Kind and name of each missing store whose data is protected."""
    settled: tuple[str, ...] = ()
    """Kind and name of each kept slot's resource that did not become ready, for which the engine would wait in every update."""
    respelled: tuple[str, ...] = ()
    """Kind and name of each container whose amount of processors the provider reads back as another text."""
    nothing_found: bool = False
    """True if no resource exists: the platform may be another one than the stack was deployed to."""

    @property
    def changes_state(self) -> bool:
        return bool(self.dropped or self.settled or self.respelled)


def plan_repair(state: State, inventory: Inventory) -> Repair:
    """Compare a state with an inventory.

    A resource is removed from the state if its platform was asked and does not have it. Its inputs are stored in the
    memory of its slot, from which a kept slot is restored (`components/kept.py`).
    """
    deployment: State = state.get("deployment") or {}
    resources = resources_of(state)
    checkpoint = parse(state)
    keys = [key_of(resource) for resource in resources]
    missing_indices = [index for index, key in enumerate(keys) if key and _is_gone(resources[index], key, inventory)]
    present = [key for key in keys if key in inventory.keys]
    lost = [resources[index] for index in missing_indices]
    waited_for = [resource for resource in resources if _holds_up(checkpoint, resource) and resource not in lost]
    remaining = _remember(_without(resources, frozenset(missing_indices)), checkpoint, lost)
    remaining = [_without_errors(resource) if resource in waited_for else resource for resource in remaining]
    spelled = [_with_cpus(resource) for resource in remaining]
    respelled = [new for new, old in zip(spelled, remaining, strict=True) if new is not old]
    changed = missing_indices or waited_for or respelled
    return Repair(
        state=state | {"deployment": deployment | {"resources": spelled}} if changed else state,
        respelled=tuple(_title(resource) for resource in respelled),
        settled=tuple(_title(resource) for resource in waited_for),
        dropped=tuple(_title(resource) for resource in lost),
        start=tuple(_to_start(checkpoint, resources, inventory)),
        data=tuple(_title(resource) for resource in lost if resource["type"] in STATEFUL and resource.get("protect")),
        nothing_found=bool(any(keys)) and not present,
    )


def _holds_up(known: Checkpoint, resource: Resource) -> bool:
    """Tell whether a resource of a kept slot delays every update, because it did not become ready when it was restored.

    The engine updates a resource with creation errors each time, whatever its options ignore, and waits for it.
    """
    if not resource.get("initErrors") or not _serves(known, resource):
        return False
    entry = Entry(urn=resource["urn"], type=resource["type"], parent="", custom=True, inputs=inputs_of(resource))
    return LABEL_SLOT in entry.labels


def _without_errors(resource: Resource) -> Resource:
    return {key: value for key, value in resource.items() if key != "initErrors"}


def _with_cpus(resource: Resource) -> Resource:
    """Return a container with its amount of processors as the provider reads it back, or the same resource if it has it.

    Earlier programs wrote 1, which pulumi-docker 5.2 reads back as 1.0. It then replaced the container in every update, or
    failed on a kept one.
    """
    text = str(inputs_of(resource).get("cpus") or "") if resource["type"] == CONTAINER else ""
    if not text or text_of_cpus(float(text)) == text:
        return resource
    cpus = {"cpus": text_of_cpus(float(text))}
    return resource | {"inputs": inputs_of(resource) | cpus, "outputs": (resource.get("outputs") or {}) | cpus}


def _is_gone(resource: Resource, key: str, inventory: Inventory) -> bool:
    listed = inventory.kinds is None or key.partition(" ")[0] in inventory.kinds
    # An external resource is only read by its stack; the stack never created it.
    return listed and key not in inventory.keys and not resource.get("external")


def _to_start(known: Checkpoint, resources: Sequence[Resource], inventory: Inventory) -> Iterator[str]:
    """Yield the keys of stopped containers that serve users or that going back needs.

    Containers of a release that failed a gate stay stopped: its workers must take no jobs.
    """
    for resource in resources:
        key = key_of(resource)
        if key in inventory.stopped and not resource.get("delete") and _serves(known, resource):
            yield str(key)


def is_to_run(resource: Mapping[str, Any]) -> bool:
    """Tell whether a resource keeps processes running, as opposed to running to its end."""
    if resource["type"] != CONTAINER:
        return True
    inputs = inputs_of(resource)
    return inputs.get("mustRun", True) is not False and inputs.get("start", True) is not False


def problems(state: State, inventory: Inventory, stack: str) -> tuple[str, ...]:
    """Return a line for each resource that should serve but does not, with the command that helps."""
    checkpoint = parse(state)
    fix = f"`make up ENV={stack}`"
    names, lines = names_by_key(state), list[str]()
    for resource in resources_of(state):
        key = key_of(resource)
        if not key or resource.get("delete") or not _serves(checkpoint, resource):
            continue
        if _is_gone(resource, key, inventory):
            lines.append(f"{names[key]} is gone: {fix} puts it back")
        elif key in inventory.stopped:
            lines.append(f"{names[key]} is stopped ({inventory.stopped[key]}): {fix} starts it")
        elif key in inventory.unhealthy:
            lines.append(
                f"{names[key]} does not serve ({inventory.unhealthy[key]}): `docker logs {names[key]}` says why"
            )
    return tuple(lines)


def unavailable(known: Checkpoint, slot: Slot, inventory: Inventory) -> tuple[str, ...]:
    """Return the images that a slot needs to serve again and that the engine lacks. A cluster's images can't be listed."""
    needed = memory.images(memory.suspended(known, slot), known, slot)
    listed = inventory.kinds is None
    return tuple(name for image, name in needed.items() if listed and f"image {image}" not in inventory.keys)


def _serves(known: Checkpoint, resource: Resource) -> bool:
    """Tell whether a lasting resource serves users or is needed to go back; those of a release that failed a gate are not."""
    entry = Entry(urn=resource["urn"], type=resource["type"], parent="", custom=True, inputs=inputs_of(resource))
    lasts = memory.is_memorable(entry) and entry.type != IMAGE and (entry.type != CONTAINER or is_to_run(resource))
    return lasts and entry.labels.get(LABEL_SLOT) in (None, *_serving_slots(known))


def _serving_slots(known: Checkpoint) -> frozenset[str]:
    observed = observe(known)
    return frozenset(
        str(slot) for slot, slot_state in observed.held.items() if slot is observed.live or slot_state.proven
    )


def names_by_key(state: Mapping[str, Any]) -> dict[str, str]:
    """Return key → name of each resource's object: a container's name, else the resource's."""
    names: dict[str, str] = {}
    for resource in resources_of(state):
        if key := key_of(resource):
            names[key] = str(inputs_of(resource).get("name") or _title(resource))
    return names


def patience(state: Mapping[str, Any], keys: Collection[str]) -> float:
    """Return the seconds that the slowest of these containers may take to become healthy."""
    waits = [
        float(inputs_of(resource).get("waitTimeout") or 0)
        for resource in resources_of(state)
        if key_of(resource) in keys
    ]
    return max(waits, default=0) + 15


def _without(resources: Sequence[Resource], gone: Collection[int]) -> list[Resource]:
    """Return the resources except those at the indices `gone`, without references to the removed ones.

    `pulumi stack import` refuses a state in which a resource refers to one that does not precede it.
    """
    remaining: list[Resource] = []
    present: set[str] = set()
    dropped = {str(resources[index]["urn"]) for index in gone}
    for index, resource in enumerate(resources):
        if index in gone:
            continue
        broken = dropped - present
        remaining.append(_unlinked(resource, broken) if broken else resource)
        present.add(str(resource["urn"]))
    return remaining


def _unlinked(resource: Resource, broken: Collection[str]) -> Resource:
    """Return a resource without references to the URNs in `broken`, or the same one if it has none."""
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


# ---------------------------------------------------------------------- facts of what is lost


def _remember(resources: list[Resource], known: Checkpoint, lost: Sequence[Resource]) -> list[Resource]:
    """Return the resources, with facts that only missing resources contained added to the outputs of their components.

    These facts are the content of a slot, that its release passed its gates, and the live slot.
    """
    urns = {str(resource["urn"]) for resource in lost if not resource.get("delete")}
    observed, facts = observe(known), dict[str, State]()
    for slot in Slot:
        component = known.of(SLOT, slot)
        missing = [entry for entry in known.below(slot, SLOT) if entry.urn in urns]
        if not component or not missing:
            continue
        entries = {entry.urn: entry for entry in (*memory.recall(known, slot), *missing)}
        facts[component.urn] = {memory.MADE: memory.remember(entries.values())}
        slot_state = observed.held.get(slot)
        if slot_state and slot_state.proven:
            facts[component.urn]["proven"] = str(slot_state.release)
    switch = known.of(SWITCH, "switch")
    if switch and observed.live and any(entry.urn in urns for entry in known.below("switch", SWITCH)):
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
