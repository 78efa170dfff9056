"""The gateway users connect to, and the switch: the one object that moves traffic for all tiers at once."""

from collections.abc import Mapping, Sequence

from pulumi import ComponentResource, Output, Resource

from . import journal
from .checkpoint import SWITCH, Checkpoint
from .kept import replay
from .platforms import Place, Platform
from .release import Observed, Plan
from .workload import Route


class Gateway(ComponentResource):
    """What users connect to. It waits for nothing: until a slot is live it says so."""

    def __init__(self, platform: Platform) -> None:
        super().__init__("tiers:switch:Gateway", "gateway", None, None)
        self.running: Resource = platform.gateway(self)
        self.register_outputs({})


class Switch(ComponentResource):
    """The switch. It waits for every gate, and nothing of a release waits for it. While traffic does not move it stays as it is.

    Its output `journal` has an entry for each of the last switches.
    """

    def __init__(
        self,
        platform: Platform,
        observed: Observed,
        plan: Plan,
        routes: Sequence[Route],
        gates: Mapping[str, Output[Resource]],
        standing: Sequence[Resource],
        known: Checkpoint,
    ) -> None:
        super().__init__(SWITCH, "switch", {"live": str(plan.live)}, None)
        past = journal.entries(known)
        if plan.moves:
            place = Place(slot=plan.live, release=plan.release)
            after = [*standing, *gates.values()]
            # The output fails when the switch does: it is read here so that the update fails with it.
            self.moved = platform.switch(self, place, routes if plan.render else None, plan.switches, after)
            self.journal = journal.entry(observed, plan, gates, self.moved).apply(
                lambda last: [*past[1 - journal.KEPT :], last]
            )
        else:
            [entry] = [
                each
                for each in known.below("switch", SWITCH)
                if each.role == "switch" and each.labels["tiers.switch"] == str(plan.switches)
            ]
            resource = replay(entry, platform, self, standing)
            self.moved = resource.urn.apply(lambda _: resource)
            self.journal = Output.from_input(list(past))
        self.live = observed.held[plan.live].release if plan.waits else plan.release
        self.said = self.moved.apply(lambda _: {"release": str(self.live), "slot": str(plan.live)})
        """Which release is live, and where; not before it is."""
        self.register_outputs({"live": self.moved.apply(lambda _: str(plan.live)), "journal": self.journal})
