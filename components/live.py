"""The decision which slot is live. Any source can be lost, so several are compared (docs/adr/021-sources-of-live.md). Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .release import ReleaseError, Slot


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The statement of one source: after `switches` switches this slot was live, or none was (None).

    `final` is true if any later switch would have rewritten or removed the source.
    """

    source: str
    live: Slot | None
    switches: int
    final: bool = False

    def __str__(self) -> str:
        return f"{self.source}: {self.live or 'nothing'} is live after switch {self.switches}"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a checkpoint says about the live slot."""

    switches: tuple[Claim, ...] = ()
    """Claims of the switches in the checkpoint that succeeded."""
    records: tuple[Claim, ...] = ()
    """Claims of the outputs and inputs of the switch's component, and of the stack's outputs."""
    intent: Claim | None = None
    """The switch that the last update planned, unless one of its gates is known to have failed. It may have happened."""
    complete: bool = False
    """True if the checkpoint has the switch's component, which records a switch that was begun."""
    failed: int = 0
    """The highest number of a failed switch. It may have moved traffic nevertheless."""
    orders: Mapping[Slot, int] = field(default_factory=dict[Slot, int])
    """Slots in the checkpoint, with the number of the switch each was made for."""
    proven: frozenset[Slot] = frozenset()

    @property
    def claims(self) -> tuple[Claim, ...]:
        return (*self.switches, *self.records)

    def floor(self, live: Slot) -> int:
        """Return the lowest possible number of switches if `live` is live."""
        return max(1, self.orders.get(live, 0), self.orders.get(live.other, 0) - 1)


@dataclass(frozen=True, kw_only=True)
class Routing:
    """The slot that a platform routes users to, and the slots that run there."""

    source: str
    live: Slot | None = None
    switches: int | None = None
    """Number of the switch, if the platform records it."""
    running: frozenset[Slot] = frozenset()
    absent: bool = False
    """True if the platform has no routing object. It may have been deleted."""
    problem: str = ""
    """Reason why the platform could not be read; empty if it answered."""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.source}: it can't be read ({self.problem})"
        if self.absent:
            return f"{self.source}: it is not there"
        number = f" after switch {self.switches}" if self.switches is not None else ""
        return f"{self.source}: {self.live or 'nothing'} is live{number}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The live slot and the number of switches so far."""

    live: Slot | None
    switches: int


def settled(evidence: Evidence) -> Decision | None:
    """Return the decision if the checkpoint alone is complete and consistent, else None."""
    top = max((claim.switches for claim in evidence.claims), default=0)
    slots = {claim.live for claim in evidence.claims if claim.switches == top}
    [live] = slots if len(slots) == 1 else [None]
    recorded = any(claim.switches == top for claim in evidence.switches)
    if not (recorded and evidence.complete) or live is None or live not in evidence.orders or evidence.failed > top:
        return None
    if evidence.intent and evidence.intent.switches > top and evidence.intent.live is not live:
        return None
    return Decision(live=live, switches=top)


def likely(evidence: Evidence) -> Decision:
    """Return the decision that the latest claims suggest. It is for display; no change may depend on it."""
    top = max((claim.switches for claim in evidence.claims), default=0)
    slots = {claim.live for claim in evidence.claims if claim.switches == top}
    return Decision(live=slots.pop() if len(slots) == 1 else None, switches=top)


def decide(
    evidence: Evidence, ask: Callable[[], Routing], named: Slot | bool | None = False, stack: str = ""
) -> Decision:
    """Return the live slot. The platform is read only if the checkpoint alone does not settle it.

    Args:
        evidence: the claims of the checkpoint.
        ask: reads the slot that the platform routes users to.
        named: the slot that a person declares live (TIERS_LIVE), None for no slot; False if nobody declares one.
        stack: the stack's name, for the command in the error.

    Raises:
        ReleaseError: the sources contradict each other, or none is certain. The message lists each source and the command
            that helps.
    """
    if decision := settled(evidence):
        return decision
    routing = ask()
    try:
        decision = _named(evidence, named) if not isinstance(named, bool) else _compared(evidence, routing)
        if decision.live and decision.live not in evidence.orders:
            raise UndecidedError(f"{decision.live} is live, and the checkpoint does not hold it")
    except UndecidedError as problem:
        raise ReleaseError(_explained(str(problem), evidence, routing, stack)) from None
    return decision


class UndecidedError(Exception):
    pass


def _named(evidence: Evidence, named: Slot | None) -> Decision:
    numbers = [claim.switches for claim in (*evidence.claims, *([evidence.intent] if evidence.intent else ()))]
    return Decision(live=named, switches=max([*numbers, evidence.floor(named) if named else 0]))


def _compared(evidence: Evidence, routing: Routing) -> Decision:
    top = max((claim.switches for claim in evidence.claims), default=None)
    slots = {claim.live for claim in evidence.claims if claim.switches == top}
    if len(slots) > 1:
        raise UndecidedError("the checkpoint contradicts itself")
    candidates = dict.fromkeys(slots, top or 0)
    intent = evidence.intent
    if intent and intent.switches == 1 and top is None:
        candidates[None] = 0
    if intent and (top is None or intent.switches > top) and intent.live not in candidates:
        candidates[intent.live] = intent.switches
    if routing.problem or routing.live is None:
        return _without_platform(evidence, routing, candidates, top)
    return _with_platform(evidence, routing, routing.live, candidates, top)


def _with_platform(
    evidence: Evidence, routing: Routing, live: Slot, candidates: Mapping[Slot | None, int], top: int | None
) -> Decision:
    """Return the decision if the platform routes users to a slot. The checkpoint must not contradict it."""
    if routing.switches is not None:
        if top is not None and (routing.switches < top or (routing.switches == top and live not in candidates)):
            raise UndecidedError("the platform and the checkpoint contradict each other")
        return Decision(live=live, switches=routing.switches)
    if candidates:
        if live not in candidates:
            raise UndecidedError("the platform and the checkpoint contradict each other")
        return Decision(live=live, switches=max(candidates[live], evidence.floor(live)))
    if not evidence.orders and live not in routing.running:
        # The map outlived its containers, as after `make heal FORCE=state`, and routes to none.
        return Decision(live=None, switches=0)
    return Decision(live=live, switches=max(evidence.floor(live), evidence.failed))


def _without_platform(
    evidence: Evidence, routing: Routing, candidates: Mapping[Slot | None, int], top: int | None
) -> Decision:
    """Return the decision if the platform routes users to no slot, or can't be read."""
    if not candidates:
        if routing.problem or evidence.orders:
            raise UndecidedError("nothing says which slot is live")
        return Decision(live=None, switches=0)
    if top is not None and routing.absent and _never_made(evidence):
        candidates = {live: number for live, number in candidates.items() if number <= top}
    if not routing.problem and None in candidates and not (routing.absent and evidence.proven):
        # The first release failed before its switch.
        return Decision(live=None, switches=candidates[None])
    intent = evidence.intent
    finished = intent is not None and top is not None and (top >= intent.switches or intent.live not in candidates)
    final = finished or any(claim.final and claim.switches == top for claim in evidence.claims)
    if len(candidates) > 1 or not final:
        raise UndecidedError(
            "the platform does not say which slot is live, and the checkpoint alone does not settle it"
        )
    [(live, number)] = candidates.items()
    return Decision(live=live, switches=number)


def _never_made(evidence: Evidence) -> bool:
    """Tell whether the switch that the last update planned can't have happened, because the slot did not pass its gates.

    The routing object is gone, so neither slot serves users, and the last confirmed live slot is the one to restore.
    """
    intent = evidence.intent
    return intent is not None and intent.live is not None and intent.live not in evidence.proven


def _explained(problem: str, evidence: Evidence, routing: Routing, stack: str) -> str:
    slots = ", ".join(evidence.orders) or "no slot"
    lines = [*map(str, evidence.claims), str(routing), f"the checkpoint: it holds {slots}"]
    if evidence.intent:
        lines.append(f"the last update: it planned switch {evidence.intent.switches} to {evidence.intent.live}")
    sources = "\n".join(f"    {line}" for line in lines)
    if not evidence.orders and routing.live:
        fix = (
            "if the state is kept somewhere else, say where (PULUMI_BACKEND_URL); if it is lost, put its copy back "
            "(docs/runbook.md#lost-state-file)"
        )
    else:
        fix = (
            "find out which slot users get (on Docker any answer has the header X-Tiers-Slot, on Kubernetes the HTTPRoute "
            "names its Services), and name it: "
            f"TIERS_LIVE=blue make up ENV={stack} (or green; none if nothing serves)"
        )
    return f"{problem}, so neither slot is changed. The sources say:\n{sources}\n{fix}"
