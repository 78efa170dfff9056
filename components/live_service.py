"""Objects that only the live release has: processes that must never run twice, and schedules of jobs. The switch hands them over."""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from .kept import replay
from .model.names import ROLE_SINGLE
from .platforms import LiveObject, SlotTarget
from .release.checkpoint import LABEL_RELEASE, LIVE_SERVICE, Checkpoint, Entry
from .rollout import Rollout
from .slots import Slots
from .switch import Switch

HANDOVER = "handover"
"""Name of the output with the seconds that the last handover took."""


@dataclass(frozen=True, kw_only=True)
class LiveServiceArgs:
    """Arguments of `LiveService`."""

    rollout: Rollout
    """The planned update (`plan_rollout`)."""
    live_object: LiveObject
    """The object to deploy (`Slots.live_objects`)."""
    moved: Output[Resource]
    """Resource that makes the slot live (`Switch.moved`). The object of the new release replaces that of the old one after it."""


class LiveService(ComponentResource):
    """Deploy an object that only the live release has: a process that must never run twice, or a schedule.

    The process of the old release runs until traffic has moved. Then it ends, and the process of the new release starts. If the new process
    does not become healthy, the update fails, but the new release stays live.

    Args:
        name: resource name, which is part of the state. The program of this repository uses the name of the service.
        args: see `LiveServiceArgs`.
        opts: options of the component.

    Example:
        for name, live_object in slots.live_objects.items():
            LiveService(name, LiveServiceArgs(rollout=rollout, live_object=live_object, moved=switch.moved))
    """

    ready: Resource
    """Resource that exists once the process is healthy."""
    handover: Output[float | None]
    """Seconds from the switch until the new process was healthy, in the last update that replaced the process; None before the first
    replacement. The process was missing for at most this time."""

    def __init__(self, name: str, args: LiveServiceArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(LIVE_SERVICE, name, None, opts)
        rollout, item = args.rollout, args.live_object
        checkpoint = rollout.context.checkpoint
        self.ready = rollout.platform.deploy_live_object(self, item, [args.moved])
        release, former = item.release, checkpoint.find(item.type, item.name)
        if former and former.role == ROLE_SINGLE and former.labels.get(LABEL_RELEASE) != release:
            self.handover = self._measure(name, args.moved)
        else:
            component = checkpoint.find(LIVE_SERVICE, name)
            self.handover = Output.from_input(component.outputs.get(HANDOVER) if component else None)
        self.register_outputs({"release": release, HANDOVER: self.handover})

    def _measure(self, service: str, moved: Output[Resource]) -> Output[float | None]:
        """Return the seconds from the switch until the new process is healthy, and log them."""
        started = moved.apply(lambda _: time.monotonic())

        def log(times: Any) -> float:
            seconds = round(time.monotonic() - times[0], 1)
            pulumi.log.info(f"{service}: the old process ended and the new one is healthy, within {seconds:g} s")
            return seconds

        return Output.all(started, self.ready.urn).apply(log)


def deploy_live_services(
    rollout: Rollout, slots: Slots, switch: Switch, opts: ResourceOptions | None = None
) -> Mapping[str, LiveService]:
    """Deploy the objects that only the live release has.

    Args:
        rollout: the planned update (`plan_rollout`).
        slots: the slots (`deploy_slots`).
        switch: the switch.
        opts: options of the components, such as `parent`.

    Returns:
        The components by name.

    Example:
        deploy_live_services(rollout, slots, switch)
    """
    target = SlotTarget(slot=rollout.plan.live, release=switch.release)
    live_objects = {**slots.live_objects, **rollout.platform.live_objects(target)}
    for entry in _forgotten(rollout.context.checkpoint, live_objects, switch):
        _keep(entry, rollout, switch, opts)
    return {
        name: LiveService(name, LiveServiceArgs(rollout=rollout, live_object=item, moved=switch.moved), opts)
        for name, item in live_objects.items()
    }


def _forgotten(checkpoint: Checkpoint, live_objects: Collection[str], switch: Switch) -> Iterator[Entry]:
    """Yield the deployed components of the live release whose object is not stored in the state.

    This happens if an update that changed the slot's component failed: Pulumi then removes the outputs of the component.
    """
    for entry in checkpoint.entries:
        if entry.type == LIVE_SERVICE and entry.name not in live_objects:
            children = checkpoint.descendants(entry.name, LIVE_SERVICE)
            if any(child.labels.get(LABEL_RELEASE) == str(switch.release) for child in children):
                yield entry


def _keep(entry: Entry, rollout: Rollout, switch: Switch, opts: ResourceOptions | None) -> None:
    """Register a deployed component again, with its resources unchanged."""
    component = ComponentResource(entry.type, entry.name, None, opts)
    for child in rollout.context.checkpoint.descendants(entry.name, LIVE_SERVICE):
        replay(child, rollout.platform, component, [switch.moved])
