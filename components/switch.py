"""The gateway that users connect to, and the switch: one resource that moves the traffic of all tiers together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from .kept import replay
from .platforms import Deployer, SlotTarget
from .release import journal, recorded
from .release.checkpoint import SWITCH, SWITCHES, Checkpoint, last_switch
from .release.planner import Plan, Release, StackState
from .rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class GatewayArgs:
    """Arguments of `Gateway`."""

    platform: Deployer
    """The platform to deploy to (`Rollout.platform`)."""


class Gateway(ComponentResource):
    """Deploy the gateway that users connect to. The gateway answers 503 until a slot is live.

    The gateway depends on no slot, so a release does not restart the gateway. If the environment uses an existing Gateway on
    Kubernetes, this component deploys only the network policies for that Gateway.

    Args:
        name: resource name, which is part of the state.
        args: see `GatewayArgs`.
        opts: options of the component.

    Example:
        gateway = Gateway("gateway", GatewayArgs(platform=platform))
        pulumi.export("url", gateway.url)
    """

    running: Resource
    """Resource that exists once the gateway answers requests."""
    url: Output[str]
    """Address that users open, such as `https://shop.example.com`."""

    def __init__(self, name: str, args: GatewayArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:switch:Gateway", name, None, opts)
        url = args.platform.url
        self.running = args.platform.deploy_gateway(self)
        self.url = self.running.urn.apply(lambda _: url)
        self.register_outputs({})


@dataclass(frozen=True, kw_only=True)
class SwitchArgs:
    """Arguments of `Switch`."""

    rollout: Rollout
    """The planned update (`plan_rollout`). The plan says whether traffic moves, and to which slot."""
    gates: Mapping[str, Output[Resource]]
    """All gates of the release (`Slot.gates`, `KeptSlot.gates`). Traffic moves only after all gates have passed."""
    after: Sequence[Resource] = ()
    """Shared resources that must exist before traffic moves: the gateway and the data services (`foundation`)."""


class Switch(ComponentResource):
    """Move all traffic to the slot that the plan makes live. One change on the platform moves the traffic of all tiers.

    The switch depends on every gate, so a failed gate leaves the live slot unchanged. An update that moves no traffic also
    leaves the switch unchanged.

    The component's outputs record the live slot, the number of switches, the last switches (`journal`) and the settings of the
    update. If an update changes the inputs and then fails, Pulumi removes these outputs. Therefore the input `before` records
    the state before the update.

    Args:
        name: resource name, which is part of the state. A stack has one switch.
        args: see `SwitchArgs`.
        opts: options of the component.

    Example:
        switch = Switch("switch", SwitchArgs(rollout=rollout, gates=slot.gates, after=[gateway.running]))
        pulumi.export("live", switch.live.apply(lambda live: live["slot"]))
    """

    moved: Output[Resource]
    """Resource that makes the slot live. The update fails if traffic can't be moved."""
    live: Output[Mapping[str, str]]
    """Live `release` (`VERSION-DIGEST`) and its `slot` (`blue` or `green`). Known once traffic has moved."""
    journal: Output[Sequence[Mapping[str, Any]]]
    """The last 20 switches, oldest first, with the keys `number`, `who`, `from`, `to`, `slot`, `at` and `gates` (seconds by gate)."""
    release: Release
    """Release that is live after this update."""

    def __init__(self, name: str, args: SwitchArgs, opts: ResourceOptions | None = None) -> None:
        rollout, gates = args.rollout, args.gates
        platform, observed, plan, context = rollout.platform, rollout.observed, rollout.plan, rollout.context
        checkpoint = context.checkpoint
        past = list(journal.entries(checkpoint))
        super().__init__(SWITCH, name, _inputs(observed, plan, checkpoint, past), opts)
        self.journal = Output.from_input(past)
        restored = self._restore(rollout, args.after) if plan.restores else None
        if plan.moves:
            target = SlotTarget(slot=plan.live, release=plan.release)
            after = [*args.after, *gates.values(), *([restored] if restored else ())]
            routes = rollout.application.routes if plan.render else None
            # If the switch fails, the output `moved` fails. The journal depends on `moved`, so the update fails too.
            self.moved = platform.move_traffic(self, target, routes, plan.switches, after)
            who = journal.author(context.variables)
            self.journal = journal.entry(observed, plan, gates, self.moved, who, context.started_at).apply(
                lambda last: [*past[1 - journal.LENGTH :], last]
            )
        elif restored:
            self.moved = restored
        else:
            entry = last_switch(checkpoint, plan.live, plan.switches)
            assert entry, "a plan restores what the checkpoint lacks"
            after = [*args.after, *gates.values()]
            resource = replay(entry, platform, self, after)
            self.moved = resource.urn.apply(lambda _: resource)
        self.release = observed.slots[plan.live].release if plan.waits else plan.release
        live = {"release": str(self.release), "slot": str(plan.live)}
        self.live = self._after(live)
        outputs: dict[str, Any] = {"live": str(plan.live), SWITCHES: plan.switches}
        outputs[recorded.RECORDED] = recorded.record(context.plain, context.stack_file, context.project)
        self.register_outputs(
            {"journal": self.journal, **{name: self._after(value) for name, value in outputs.items()}}
        )

    def _after(self, value: Any) -> Output[Any]:
        """Return `value` as an output that is known once traffic has moved."""
        return self.moved.apply(lambda _: value)

    def _restore(self, rollout: Rollout, after: Sequence[Resource]) -> Output[Resource]:
        """Recreate the missing resource that routes traffic to the live slot. A failed gate does not prevent this repair."""
        observed, plan = rollout.observed, rollout.plan
        assert plan.previous
        target = SlotTarget(slot=plan.previous, release=observed.slots[plan.previous].release)
        return rollout.platform.restore_switch(self, target, observed.switches, after, before_switch=plan.moves)


def _inputs(
    observed: StackState, plan: Plan, checkpoint: Checkpoint, past: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return the inputs of the component `Switch`: the live slot and the number of switches after this update.

    The input `before` contains the same values before this update, and the journal. If an update deploys no release and moves no
    traffic, return the inputs in the checkpoint.
    """
    stored = checkpoint.find(SWITCH, "switch")
    if stored and not plan.render and not plan.moves:
        return stored.inputs
    before = {"live": str(observed.live or ""), "switches": observed.switches, "journal": past}
    return {"live": str(plan.live), "switches": plan.switches, "before": before}
