"""The gateway that users connect to, and the switch: the one object that moves traffic for all tiers at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import ComponentResource, Output, Resource

from . import journal, recorded
from .checkpoint import SWITCH, SWITCHES, Checkpoint, last_switch
from .kept import replay
from .platforms import Place, Platform
from .release import Observed, Plan
from .workload import Route


class Gateway(ComponentResource):
    """The gateway that users connect to. It depends on no slot, and answers 503 until one is live."""

    def __init__(self, platform: Platform) -> None:
        super().__init__("tiers:switch:Gateway", "gateway", None, None)
        self.running: Resource = platform.gateway(self)
        self.register_outputs({})


class Switch(ComponentResource):
    """The switch. It depends on every gate, and nothing in a release depends on it. While traffic does not move, it stays unchanged.

    Its outputs are the live slot, the number of switches, the last switches (`journal`) and the plain settings of this
    update. Pulumi drops outputs when the inputs change, and a failing update writes no new ones. The inputs therefore hold
    the facts before an update that changes a slot (`before`).
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
        past = list(journal.entries(known))
        super().__init__(SWITCH, "switch", _inputs(observed, plan, known, past), None)
        self.journal: Output[Any] = Output.from_input(past)
        lost = self._put_back(platform, observed, plan, standing) if plan.restores else None
        if plan.moves:
            target = Place(slot=plan.live, release=plan.release)
            after = [*standing, *gates.values(), *([lost] if lost else ())]
            # A failing switch makes this output fail. The journal reads it, so the update fails too.
            self.moved = platform.switch(self, target, routes if plan.render else None, plan.switches, after)
            self.journal = journal.entry(observed, plan, gates, self.moved).apply(
                lambda last: [*past[1 - journal.KEPT :], last]
            )
        elif lost:
            self.moved = lost
        else:
            entry = last_switch(known, plan.live, plan.switches)
            assert entry, "a plan restores what the checkpoint lacks"
            after: list[Any] = [*standing, *gates.values()]
            resource = replay(entry, platform, self, after)
            self.moved = resource.urn.apply(lambda _: resource)
        self.live = observed.held[plan.live].release if plan.waits else plan.release
        self.said = self.moved.apply(lambda _: {"release": str(self.live), "slot": str(plan.live)})
        """The live release and its slot, resolved once traffic has moved."""
        outputs: dict[str, Any] = {"live": str(plan.live), SWITCHES: plan.switches}
        outputs[recorded.RECORDED] = recorded.record(plain)
        self.register_outputs(
            {"journal": self.journal, **{name: self._after(value) for name, value in outputs.items()}}
        )

    def _after(self, value: Any) -> Output[Any]:
        """Return an output with this value that resolves once traffic has moved."""
        return self.moved.apply(lambda _: value)

    def _put_back(
        self, platform: Platform, observed: Observed, plan: Plan, standing: Sequence[Resource]
    ) -> Output[Resource]:
        """Recreate the lost switch to the live slot. It depends on no gate, so a failing release can't prevent it."""
        assert plan.previous
        target = Place(slot=plan.previous, release=observed.held[plan.previous].release)
        return platform.put_back(self, target, observed.switches, standing, beside=plan.moves)


def _inputs(observed: Observed, plan: Plan, known: Checkpoint, past: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the component's inputs: the planned live slot and number of switches, and both with the journal before this update.

    An update that changes no slot keeps the stored inputs.
    """
    stored = known.of(SWITCH, "switch")
    if stored and not plan.render and not plan.moves:
        return stored.inputs
    before = {"live": str(observed.live or ""), "switches": observed.switches, "journal": past}
    return {"live": str(plan.live), "switches": plan.switches, "before": before}
