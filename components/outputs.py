"""What a person wants to know of a stack when `pulumi up` has ended."""

import pulumi
from pulumi import Output, Resource

from .config import Settings
from .release import Observed, Plan


def export(settings: Settings, observed: Observed, plan: Plan, moved: Output[Resource]) -> None:
    """The stack's outputs. What is live is said once the switch has moved, not before."""
    environment, app = settings.environment, settings.app
    stack = pulumi.get_stack()
    standby = observed.held.get(plan.live.other) if plan.live.other in plan.keep else None
    prefix = f"docker logs --follow {app.name}-{stack}"
    slot_logs = {str(tier): f"{prefix}-{plan.live}-{tier}-1" for tier in app.services}
    shared_logs = {str(tier): f"{prefix}-{tier}-1" for tier in sorted(app.names - set(app.services))}
    pulumi.export(
        "url", f"http://{environment.gateway.address.replace('0.0.0.0', '127.0.0.1')}:{environment.gateway.port}"
    )
    pulumi.export("live", moved.apply(lambda _: str(plan.live)))
    pulumi.export("release", moved.apply(lambda _: str(plan.release)))
    pulumi.export("standby", str(standby.release) if standby else "none")
    pulumi.export("logs", slot_logs | shared_logs | {"gateway": f"{prefix}-gateway"})
    pulumi.export(
        "go_back",
        f"make back, or TIERS_RELEASE=previous pulumi up --stack {stack}: {standby.release} is live again, by one switch"
        if standby
        else "nothing to go back to yet: the standby slot holds no release",
    )
