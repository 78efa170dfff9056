"""The gateway users connect to, and the switch: the one object that moves traffic for all tiers at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import ComponentResource, Output, Resource

from . import journal, recorded
from .checkpoint import SWITCH, SWITCHES, Checkpoint, Entry
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

    Its output `journal` has an entry for each of the last switches, its output `settings` the plain settings of this update.
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
        plain: Mapping[str, Any],
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
            entries = [
                each
                for each in known.below("switch", SWITCH)
                if each.role == "switch" and each.labels["tiers.switch"] == str(plan.switches)
            ]
            self.moved = self._stay(entries, platform, observed, plan, [*standing, *gates.values()])
            self.journal = Output.from_input(list(past))
        self.live = observed.held[plan.live].release if plan.waits else plan.release
        self.said = self.moved.apply(lambda _: {"release": str(self.live), "slot": str(plan.live)})
        """Which release is live, and where; not before it is."""
        outputs: dict[str, Any] = {"live": str(plan.live), SWITCHES: plan.switches}
        outputs[recorded.RECORDED] = recorded.record(plain)
        self.register_outputs(
            {"journal": self.journal, **{name: self._after(value) for name, value in outputs.items()}}
        )

    def _after(self, value: Any) -> Output[Any]:
        """Return a value that is known once traffic is where it should be."""
        return self.moved.apply(lambda _: value)

    def _stay(
        self, entries: Sequence[Entry], platform: Platform, observed: Observed, plan: Plan, after: Sequence[Any]
    ) -> Output[Resource]:
        """Leave traffic where it is. A switch that is gone is done once more, to the same slot."""
        if entries:
            resource = replay(entries[0], platform, self, after)
            return resource.urn.apply(lambda _: resource)
        release = observed.held[plan.live].release
        place = Place(slot=plan.live, release=release)
        return platform.switch(self, place, release.routes, plan.switches, after)
