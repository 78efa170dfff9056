"""The gateway users connect to, and the switch: the one object that moves traffic for all tiers at once."""

from collections.abc import Sequence

from pulumi import ComponentResource, Resource

from .platforms import Dependencies, Platform
from .release import Plan
from .workload import Route


class Gateway(ComponentResource):
    """What users connect to. It waits for nothing: until a slot is live it says so."""

    def __init__(self, platform: Platform, routes: Sequence[Route]) -> None:
        super().__init__("tiers:switch:Gateway", "gateway", None, None)
        self.running: Resource = platform.gateway(self, routes)
        self.register_outputs({})


class Switch(ComponentResource):
    """The switch. It waits for every gate, and nothing waits for it."""

    def __init__(self, platform: Platform, plan: Plan, gates: Dependencies) -> None:
        super().__init__("tiers:switch:Switch", "switch", {"live": str(plan.live)}, None)
        # The output fails when the switch does: it is read here so that the update fails with it.
        self.moved = platform.switch(self, plan.live, plan.switches, gates)
        self.register_outputs({"live": self.moved.apply(lambda _: str(plan.live))})
