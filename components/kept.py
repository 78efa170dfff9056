"""Register slots that keep their release.

The resources of such a slot come from the checkpoint, because a newer program would render different resources. Each resource
is registered with its type, name and parent, but without inputs. `ignore_changes` covers all inputs. Pulumi therefore keeps the
stored inputs and reports the resource as unchanged (tested with pulumi 3.256 and both providers).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pulumi
from pulumi import ComponentResource, CustomResource, Output, Resource, ResourceOptions

from .model.workload import Scale
from .options import child_options
from .platforms import Dependencies, Deployer, DesiredState, LiveObject, SlotTarget
from .release.checkpoint import (
    LIVE_OBJECTS,
    SLOT,
    SWITCHES,
    Checkpoint,
    Entry,
    live_object_states,
    observe,
    suspended_entries,
    suspended_state,
)
from .release.memory import MEMORY, is_recreatable, needed_images, recall, remember, sort_by_dependencies
from .release.planner import Slot
from .release.recorded import RECORDED, settings_json
from .rollout import Rollout
from .slot import component_outputs, identity


@dataclass(frozen=True, kw_only=True)
class KeptSlotArgs:
    """Arguments of `KeptSlot`."""

    rollout: Rollout
    """The planned update (`plan_rollout`). `rollout.plan.keep` lists the slots to keep."""
    slot: Slot
    """The slot to keep, one of `rollout.plan.keep`."""
    after: Sequence[Resource] = ()
    """Resources outside of the slots (`foundation`). `pulumi destroy` deletes these resources after the resources of the slot."""


class KeptSlot(ComponentResource):
    """Register a slot that keeps its release. Its services may be scaled, suspended or resumed.

    The live slot gets the configured number of replicas. `environment.release` selects the services that a standby slot
    suspends: their containers are deleted, and recreated when traffic returns. The inputs of this component store the deleted
    resources. If all services are suspended, requests that a cookie pins to this slot go to the live slot.

    Args:
        name: resource name of the component. It must equal the name of the `Slot` component that deployed the release.
        args: see `KeptSlotArgs`.
        opts: options of the component.

    Raises:
        ValueError: `rollout.plan.keep` does not list the slot.

    Example:
        blue = KeptSlot("blue", KeptSlotArgs(rollout=rollout, slot=SlotName.BLUE))
    """

    gates: Mapping[str, Output[Resource]]
    """Changed resources by name, such as recreated containers. Pass them to `Switch`: traffic moves after these changes."""
    live_objects: Mapping[str, LiveObject]
    """Objects to deploy while the slot is live, by the name of their component, as in `Slot`."""

    def __init__(self, name: str, args: KeptSlotArgs, opts: ResourceOptions | None = None) -> None:
        rollout, slot = args.rollout, args.slot
        if slot not in rollout.plan.keep:
            raise ValueError(
                f"args.slot: the plan does not keep {slot}; pass one of {list(map(str, rollout.plan.keep))}"
            )
        platform, checkpoint = rollout.platform, rollout.context.checkpoint
        state = rollout.observed.slots[slot]
        slot_resources = _SlotResources.read(checkpoint, slot, platform)
        suspended = rollout.suspended(slot)
        is_live = slot is rollout.plan.live
        scales = rollout.application.scales if is_live else dict[str, Scale]()
        changes, memory = (
            _suspend(slot_resources, suspended, platform) if suspended else _resume(slot_resources, scales, platform)
        )
        inputs = identity(slot, state.release, state.order)
        inputs |= {"rested": [suspended_state(entry) for entry in memory.values()]} if memory else {}
        super().__init__(SLOT, name, inputs, opts)
        resources: dict[str, Resource] = {}
        gates: dict[str, Output[Resource]] = {}
        for entry, change in changes:
            desired = change
            if entry.urn in slot_resources.missing and entry.custom:
                desired = slot_resources.recreated_state(entry, change, scales, rollout)
                if not desired:
                    continue
            # Open a route after all containers are healthy.
            is_opened_route = desired and not entry.runs and not suspended and entry.urn not in slot_resources.missing
            needed = list(resources) if is_opened_route else entry.dependencies
            # Depend on every shared resource, because the checkpoint has only URNs of dependencies outside of the slot. Without
            # these dependencies `pulumi destroy` would delete networks and volumes before the containers that use them.
            after = [*args.after, *(resources[urn] for urn in needed if urn in resources)]
            resources[entry.urn] = resource = replay(entry, platform, resources.get(entry.parent, self), after, desired)
            if desired:
                gates[entry.name] = passed(resource) if (passed := desired.passed) else _registered_output(resource)
        self.gates = gates
        stored = live_object_states(checkpoint, slot)
        self.live_objects = {name: LiveObject.from_state(state) for name, state in stored.items()}
        copies = {LIVE_OBJECTS: stored or None, **_copies(rollout, slot, slot_resources)}
        proven = str(state.release) if state.proven else None
        self.register_outputs(component_outputs(inputs, proven=proven, **copies))


def _copies(rollout: Rollout, slot: Slot, slot_resources: "_SlotResources") -> dict[str, Any]:
    """Return additional outputs of the slot's component: copies of outputs of `Switch`, and the slot's memory
    (`release.memory`).

    The copies are needed because Pulumi may remove the outputs of `Switch` when an update fails.
    """
    observed = observe(rollout.context.checkpoint)
    switches = observed.switches if slot is observed.live else None
    return {
        SWITCHES: switches,
        RECORDED: settings_json(rollout.context.checkpoint),
        MEMORY: remember(slot_resources.entries.values()),
    }


_Changes = Sequence[tuple[Entry, DesiredState | None]]
_Entries = Mapping[str, Entry]


@dataclass(frozen=True, kw_only=True)
class _SlotResources:
    """Resources of a slot that keeps its release, by URN.

    The resources come from the checkpoint and from the slot's memory (`release.memory`): a copy of the resources in an
    output of the slot's component.
    """

    slot: Slot
    present: _Entries
    """Resources in the checkpoint."""
    missing: _Entries
    """Resources in the slot's memory (`release.memory`) that are neither in the checkpoint nor suspended."""
    entries: _Entries
    """Present and missing resources together, sorted: parents and dependencies first."""
    memory: _Entries
    """Suspended resources. They come from the inputs of the slot's component (`suspended_entries`), and not from the slot's
    memory (`release.memory`)."""
    absent_images: Mapping[str, str]
    """Images that missing containers need, but that the platform no longer has: image id → text for messages. The text names
    the image and a service that uses the image."""

    @classmethod
    def read(cls, checkpoint: Checkpoint, slot: Slot, platform: Deployer) -> "_SlotResources":
        present = {entry.urn: entry for entry in checkpoint.descendants(slot, SLOT)}
        memory = {entry.urn: entry for entry in suspended_entries(checkpoint, slot)}
        recalled = {entry.urn: entry for entry in recall(checkpoint, slot)}
        missing = {urn: entry for urn, entry in recalled.items() if urn not in present and urn not in memory}
        linked = [_with_dependencies(entry, recalled) for entry in (*present.values(), *missing.values())]
        image_names = needed_images(missing.values(), checkpoint, slot)
        absent_images = platform.inspector.absent_images(image_names) if image_names else ()
        return cls(
            slot=slot,
            present=present,
            missing=missing,
            entries={entry.urn: entry for entry in sort_by_dependencies(linked)},
            memory=memory,
            absent_images={image: image_names[image] for image in absent_images},
        )

    def recreated_state(
        self, entry: Entry, change: DesiredState | None, scales: Mapping[str, Scale], rollout: Rollout
    ) -> DesiredState | None:
        """Return the desired state of a missing resource, or None if the resource can't be recreated.

        Log a warning for a container whose image is gone from the platform.
        """
        image = self.absent_images.get(str(entry.inputs.get("image")))
        if image is None:
            return change or _recreated_state(entry, scales, rollout, self.slot)
        if entry.runs:
            pulumi.log.warn(
                f"{entry.name} is missing and can't be recreated, because its image {image} is missing too; deploy the release of this container again"
            )
        return None

    def changed_state(self, desired: DesiredState | None, entry: Entry) -> DesiredState | None:
        """Return `desired`, or None if the resource in the checkpoint has the same inputs and did not fail."""
        stored = self.present.get(entry.urn)
        return None if desired and stored and not stored.failed and stored.inputs == desired.inputs else desired


def _suspend(slot: _SlotResources, suspended: Collection[str], platform: Deployer) -> tuple[_Changes, _Entries]:
    """Suspend services of a slot. Return the resources to register, and the resources to store in the slot's component.

    A later update recreates the stored resources to resume the services. If all services are suspended, also reroute this
    slot's cookie-pinned requests to the live slot.
    """
    running = {urn: entry for urn, entry in slot.entries.items() if entry.runs}
    stopped = {urn: entry for urn, entry in running.items() if entry.tier in suspended}
    is_all_suspended = stopped.keys() == running.keys()
    # `memory` contains a route only if an earlier update was interrupted while it changed that route.
    routes = {urn: entry for urn, entry in slot.memory.items() if not entry.runs}
    entries = routes | dict(slot.entries) if is_all_suspended else slot.entries
    changes = [
        (entry, slot.changed_state(platform.suspended_route(entry) if is_all_suspended else None, entry))
        for entry in entries.values()
    ]
    closed = {entry.urn: entry for entry, desired in changes if desired}
    return [item for item in changes if item[0].urn not in stopped], {**closed, **slot.memory, **stopped}


def _resume(slot: _SlotResources, scales: Mapping[str, Scale], platform: Deployer) -> tuple[_Changes, _Entries]:
    """Resume all services of a slot. Return the resources to register, and the resources to store in the slot's component.

    Recreate suspended containers first, and restore the slot's routes last. Otherwise requests that a cookie pins to this slot
    would reach containers that are not healthy yet.
    """
    recreated = {urn: entry for urn, entry in slot.memory.items() if entry.runs and urn not in slot.present}
    routes = {urn: entry for urn, entry in slot.memory.items() if not entry.runs}
    # A missing resource is scaled by `recreated_state`. Scaling it here too would register the same hook twice, which Pulumi refuses.
    changes = [
        (entry, platform.rescaled(entry, scales) if urn in slot.present else None)
        for urn, entry in slot.entries.items()
        if urn not in routes
    ]
    changes += [(entry, platform.resumed(entry, scales)) for entry in recreated.values()]
    changes += [(entry, slot.changed_state(platform.active_route(entry), entry)) for entry in routes.values()]
    return changes, slot.memory


def _recreated_state(entry: Entry, scales: Mapping[str, Scale], rollout: Rollout, slot: Slot) -> DesiredState | None:
    """Return the desired state of a missing resource, or None if the resource can't be recreated.

    The slot's memory contains no values of secrets, so a resource with secrets gets the current values. If a secret has
    changed since the resource was deployed, the resource can't be recreated.
    """
    platform = rollout.platform
    if entry.sealed:
        target = SlotTarget(slot=slot, release=rollout.observed.slots[slot].release)
        workloads = rollout.application.workloads.values()
        holders = (platform.with_current_secrets(entry, workload, target) for workload in workloads)
        return next((desired for desired in holders if desired), None)
    if not is_recreatable(entry):
        return None
    if entry.runs:
        return platform.resumed(entry, scales)
    is_route = platform.suspended_route(entry) is not None
    return platform.active_route(entry) if is_route else DesiredState(inputs=entry.inputs)


def _with_dependencies(entry: Entry, memory: _Entries) -> Entry:
    """Return a resource with its dependencies from the checkpoint and from the slot's memory.

    Only the memory contains dependencies on missing resources.
    """
    before = memory[entry.urn].dependencies if entry.urn in memory else ()
    return replace(entry, dependencies=tuple(dict.fromkeys((*entry.dependencies, *before))))


def _registered_output(resource: Resource) -> Output[Resource]:
    return resource.urn.apply(lambda _: resource)


def replay(
    entry: Entry, platform: Deployer, parent: Resource, after: Dependencies, desired: DesiredState | None = None
) -> Resource:
    """Register a resource of the checkpoint again, unchanged or with a new desired state.

    Args:
        entry: the resource in the checkpoint.
        platform: platform of the resource.
        parent: parent of the resource.
        after: resources that the resource depends on.
        desired: the new state; None to keep the resource unchanged.
    """
    if not entry.custom:
        return ComponentResource(entry.type, entry.name, None, child_options(parent))
    arguments: dict[str, Any] = {"ignore_changes": ["*"]}
    if desired:
        arguments = {
            "hooks": desired.hooks,
            "custom_timeouts": desired.timeouts,
            "ignore_changes": desired.ignore_changes,
        }
        arguments |= {"delete_before_replace": True}  # Names are fixed: old and new object can't exist together.
        arguments |= {"additional_secret_outputs": desired.secret_outputs} if desired.secret_outputs else {}
    opts = child_options(parent, depends_on=after, provider=platform.provider_for(parent), **arguments)
    inputs = dict.fromkeys(desired.reads) | dict(desired.inputs) if desired else {}
    return CustomResource(entry.type, entry.name, inputs, opts)
