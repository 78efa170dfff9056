"""The stack's outputs: what a person needs to know when `pulumi up` has ended."""

import pulumi
from pulumi import Output, Resource

from .checkpoint import Checkpoint
from .kept import unavailable
from .platforms import SLOT_HEADER, Platform
from .release import Observed, Plan
from .switch import Switch


def export(
    platform: Platform,
    observed: Observed,
    plan: Plan,
    switch: Switch,
    proven: Output[Resource] | None,
    known: Checkpoint,
) -> None:
    """Export the stack's outputs. The live release is exported once traffic has moved, a waiting release once it passed its gates."""
    stack, moved = pulumi.get_stack(), switch.moved
    idle = plan.live.other
    idle_state = observed.held.get(idle) if idle in plan.keep else None
    waiting = plan.release if plan.waits and plan.render else idle_state.release if plan.waits and idle_state else None
    standby = idle_state.release if idle_state and not waiting else None
    pulumi.export("url", platform.url)
    pulumi.export("live", moved.apply(lambda _: str(plan.live)))
    pulumi.export("release", moved.apply(lambda _: str(switch.live)))
    pulumi.export("standby", str(standby) if standby else "none")
    pulumi.export("logs", dict(platform.logs(plan.live)))
    pulumi.export("last_switch", switch.journal.apply(lambda entries: entries[-1] if entries else {}))
    absent = unavailable(platform, known, idle) if standby else ()
    pulumi.export(
        "go_back",
        f"nothing to go back to: {standby} can't run again, for {' and '.join(absent)} is gone from the engine"
        if absent
        else f"make back, or TIERS_RELEASE=previous pulumi up --stack {stack}: {standby} is live again, by one switch"
        if standby
        else "nothing to go back to: the standby slot holds no release that was live",
    )
    if waiting:
        instructions = (
            f"{waiting} waits on {idle}. Look at it: curl --header '{SLOT_HEADER}: {idle}' {platform.url}; then make promote, "
            f"or TIERS_RELEASE=promote pulumi up --stack {stack}"
        )
        pulumi.export("waiting", proven.apply(lambda _: instructions) if proven else instructions)
