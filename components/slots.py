"""Slots of an update: the slot that gets the release, and the slots that stay unchanged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulumi import Output, Resource, ResourceOptions

from .kept import KeptSlot, KeptSlotArgs
from .platforms import Deployer, LiveObject
from .release import planner
from .rollout import Rollout
from .slot import Slot, SlotArgs


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Result of `deploy_slots`.

    Example:
        slots = deploy_slots(rollout, data, gateway.running)
        switch = Switch("switch", SwitchArgs(rollout=rollout, gates=slots.gates))
    """

    gates: Mapping[str, Output[Resource]]
    """All gates of the release by name, for `SwitchArgs.gates`."""
    live_objects: Mapping[str, LiveObject]
    """Objects that only the release has that is live after this update, for `deploy_live_services`."""


def deploy_slots(
    rollout: Rollout,
    data: Mapping[str, Sequence[Resource]],
    gateway: Resource,
    opts: ResourceOptions | None = None,
) -> Slots:
    """Deploy the slot that gets a release, and register the slots that stay unchanged.

    Pulumi deletes every resource that the program does not register, so unchanged slots are registered too.

    Args:
        rollout: the planned update (`plan_rollout`).
        data: resources of each data service by its name (`DataService.ready`). Migrations start after these
            resources.
        gateway: the running gateway (`Gateway.running`). Smoke tests send their requests through the gateway.
        opts: options of the slots' components, such as `parent`; None for components without a parent. Aliases apply to both
            slots, so use aliases without a name, such as `Alias(parent=ROOT_STACK_RESOURCE)`.

    Example:
        slots = deploy_slots(rollout, {"database": database.ready}, gateway.running)
        Switch("switch", SwitchArgs(rollout=rollout, gates=slots.gates))
    """
    plan = rollout.plan
    slots: dict[planner.Slot, Slot | KeptSlot] = {}
    if plan.render:
        slots[plan.render] = Slot(plan.render, SlotArgs(rollout=rollout, data=data, gateway=gateway), opts)
    after = foundation(rollout.platform, data, gateway)
    for slot in plan.keep:
        slots[slot] = KeptSlot(slot, KeptSlotArgs(rollout=rollout, slot=slot, after=after), opts)
    gates = {name: gate for slot in slots.values() for name, gate in slot.gates.items()}
    return Slots(gates=gates, live_objects=slots[plan.live].live_objects)


def foundation(platform: Deployer, data: Mapping[str, Sequence[Resource]], gateway: Resource) -> list[Resource]:
    """Return the shared resources: the networks and volumes of the platform, the data services and the gateway.

    The switch and the unchanged slots depend on these resources. Therefore `pulumi destroy` deletes the containers of a slot
    before the networks and volumes that the containers use.

    Args:
        platform: the platform (`Rollout.platform`).
        data: resources of each data service by its name (`DataService.ready`).
        gateway: the running gateway (`Gateway.running`).

    Returns:
        The resources, for `SwitchArgs.after` and `KeptSlotArgs.after`.

    Example:
        after = foundation(rollout.platform, {"database": database.ready}, gateway.running)
        Switch("switch", SwitchArgs(rollout=rollout, gates=slots.gates, after=after))
    """
    return [
        *platform.foundation_resources,
        *(resource for resources in data.values() for resource in resources),
        gateway,
    ]
