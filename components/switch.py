"""The gateway users connect to, and the switch: the one object that moves traffic for all tiers at once."""

from collections.abc import Sequence

from pulumi import ComponentResource, Resource

from .checkpoint import Checkpoint
from .platforms import Dependencies, Place, Platform
from .release import Plan
from .workload import Route


class Gateway(ComponentResource):
    """What users connect to. It waits for nothing: until a slot is live it says so."""

    def __init__(self, platform: Platform, routes: Sequence[Route]) -> None:
        super().__init__("tiers:switch:Gateway", "gateway", None, None)
        self.running: Resource = platform.gateway(self, routes)
        self.register_outputs({})


class Switch(ComponentResource):
    """The switch. It waits for every gate, and nothing waits for it.

    A slot that was only kept has passed its smoke test when it was new: before traffic goes back it is asked again.
    """

    def __init__(
        self, platform: Platform, plan: Plan, routes: Sequence[Route], gates: Dependencies, known: Checkpoint
    ) -> None:
        super().__init__("tiers:switch:Switch", "switch", {"live": str(plan.live)}, None)
        again = f"smoke-{plan.switches}"
        if (plan.moves and plan.render is None) or known.has(again):
            place = Place(slot=plan.live, release=plan.release)
            gates = [*gates, platform.smoke(self, again, routes, place, gates)]
        # The output fails when the switch does: it is read here so that the update fails with it.
        self.moved = platform.switch(self, plan.live, plan.switches, gates)
        self.register_outputs({"live": self.moved.apply(lambda _: str(plan.live))})
