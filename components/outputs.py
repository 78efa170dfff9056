"""Outputs of the stack: address, live release, and the command for a rollback. `pulumi up` prints the outputs at its end."""

import pulumi
from pulumi import Output, Resource

from .availability import missing_images
from .platforms import SLOT_HEADER
from .rollout import Rollout
from .switch import Switch


def export(rollout: Rollout, switch: Switch, verified: Output[Resource] | None) -> None:
    """Export the outputs of the stack, such as the address, the live release and the command for a rollback.

    The outputs about the live release change once traffic has moved. If an update fails earlier, these outputs keep their old
    values.

    Args:
        rollout: the planned update (`plan_rollout`).
        switch: component that moves the traffic.
        verified: last gate of the deployed release (`gates.get("smoke")`); None if the update deploys no release.

    Example:
        slots = deploy_slots(rollout, data, gateway.running)
        switch = Switch("switch", SwitchArgs(rollout=rollout, gates=slots.gates))
        export(rollout, switch, gates.get("smoke"))
    """
    platform, observed, plan = rollout.platform, rollout.observed, rollout.plan
    stack, moved = rollout.context.stack, switch.moved
    idle = plan.live.other
    idle_state = observed.slots.get(idle) if idle in plan.keep else None
    waiting = plan.release if plan.waits and plan.render else idle_state.release if plan.waits and idle_state else None
    standby = idle_state.release if idle_state and not waiting else None
    pulumi.export("url", platform.url)
    if urls := rollout.context.environment.urls(rollout.context.app):
        pulumi.export("urls", urls)
    pulumi.export("live", moved.apply(lambda _: str(plan.live)))
    pulumi.export("release", moved.apply(lambda _: str(switch.release)))
    pulumi.export("standby", str(standby) if standby else "none")
    pulumi.export("logs", dict(platform.logs(plan.live)))
    pulumi.export("last_switch", switch.journal.apply(lambda entries: entries[-1] if entries else {}))
    absent = missing_images(platform.inspector, rollout.context.checkpoint, idle) if standby else ()
    pulumi.export(
        "go_back",
        f"nothing to go back to: {standby} can't run again, because the engine lacks {' and '.join(absent)}"
        if absent
        else f"make back, or TIERS_RELEASE=previous pulumi up --stack {stack}: {standby} is live again, by one switch"
        if standby
        else "nothing to go back to: the standby slot has no earlier release",
    )
    if waiting:
        instructions = (
            f"{waiting} waits on {idle}. Look at it: curl --header '{SLOT_HEADER}: {idle}' {platform.url}; then make promote, "
            f"or TIERS_RELEASE=promote pulumi up --stack {stack}"
        )
        pulumi.export("waiting", verified.apply(lambda _: instructions) if verified else instructions)
