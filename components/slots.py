"""Slots of an update: the slot that gets the release, and the slots that stay unchanged."""

from collections.abc import Mapping, Sequence

from pulumi import Output, Resource, ResourceOptions

from .kept import KeptSlot, KeptSlotArgs
from .platforms import Deployer
from .rollout import Rollout
from .slot import Slot, SlotArgs


def deploy_slots(
    rollout: Rollout,
    data: Mapping[str, Sequence[Resource]],
    gateway: Resource,
    opts: ResourceOptions | None = None,
) -> dict[str, Output[Resource]]:
    """Deploy the slot that gets a release, and register the slots that stay unchanged.

    Pulumi deletes every resource that the program does not register, so unchanged slots are registered too.

    Args:
        rollout: the planned update (`plan_rollout`).
        data: resources of each data service by its name (`DataService.ready`). Migrations start after these
            resources.
        gateway: the running gateway (`Gateway.running`). Smoke tests send their requests through the gateway.
        opts: options of the slots' components, such as `parent`; None for components without a parent. Aliases apply to both
            slots, so use aliases without a name, such as `Alias(parent=ROOT_STACK_RESOURCE)`.

    Returns:
        All gates of the release by name, for `SwitchArgs.gates`.

    Example:
        gates = deploy_slots(rollout, {"database": database.ready}, gateway.running)
        Switch("switch", SwitchArgs(rollout=rollout, gates=gates))
    """
    plan, gates = rollout.plan, dict[str, Output[Resource]]()
    if plan.render:
        args = SlotArgs(rollout=rollout, data=data, gateway=gateway)
        gates |= Slot(plan.render, args, opts).gates
    after = foundation(rollout.platform, data, gateway)
    for slot in plan.keep:
        gates |= KeptSlot(slot, KeptSlotArgs(rollout=rollout, slot=slot, after=after), opts).gates
    return gates


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
        Switch("switch", SwitchArgs(rollout=rollout, gates=gates, after=after))
    """
    return [
        *platform.foundation_resources,
        *(resource for resources in data.values() for resource in resources),
        gateway,
    ]
