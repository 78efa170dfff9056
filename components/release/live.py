"""Decide which slot is live. Several sources are compared, because each may be lost (docs/adr/021-sources-of-live.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .planner import ReleaseError, Slot


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Statement of one source about the live slot."""

    source: str
    """Name of the source, for messages."""
    live: Slot | None
    """The live slot; None if no slot is live."""
    switches: int
    """Number of the switch that made the slot live."""
    final: bool = False
    """True if this claim is about the last switch. A later switch would have overwritten the claim."""

    def __str__(self) -> str:
        return f"{self.source}: {self.live or 'nothing'} is live after switch {self.switches}"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a checkpoint says about which slot is live."""

    switches: tuple[Claim, ...] = ()
    """Statements in the resources of successful switches, one statement for each switch."""
    records: tuple[Claim, ...] = ()
    """Statements in the components `Slot` and `Switch`, and in the stack's outputs."""
    intent: Claim | None = None
    """Switch that the last update planned and that may have happened. None if no switch was planned, or if a gate failed."""
    complete: bool = False
    """True if the checkpoint has the component `Switch`. Its inputs record each switch before the switch starts."""
    failed: int = 0
    """Number of the latest failed switch; 0 if no switch failed. A failed switch may have moved traffic."""
    switch_numbers: Mapping[Slot, int] = field(default_factory=dict[Slot, int])
    """Slot in the checkpoint → number of the switch that was planned when the slot was deployed."""
    proven: frozenset[Slot] = frozenset()
    """Slots whose release passed its gates."""

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All statements except the planned switch."""
        return (*self.switches, *self.records)

    def fewest_switches(self, live: Slot) -> int:
        """Return the minimum number of switches until now, assuming that `live` is the live slot.

        `switch_numbers` contains the number of each slot's planned switch. The switch to the live slot has happened. The
        switch to the other slot may not have happened, so subtract 1 from its number.
        """
        return max(1, self.switch_numbers.get(live, 0), self.switch_numbers.get(live.other, 0) - 1)


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Routing as the platform reports it: the slot that users reach, and the slots that run.

    Example:
        routing = rollout.platform.inspector.routing(context.environment)
        is_blue_live = routing.live is SlotName.BLUE
    """

    source: str
    """Name of the routing object, for messages."""
    live: Slot | None = None
    """Slot that the platform routes users to; None if users reach no slot."""
    switches: int | None = None
    """Number of the last switch; None if the platform does not record this number."""
    running: frozenset[Slot] = frozenset()
    """Slots with running containers."""
    absent: bool = False
    """True if the routing object does not exist: it was deleted, or never created."""
    problem: str = ""
    """Reason why the platform can't be read; empty if the platform was read."""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.source}: can't be read ({self.problem})"
        if self.absent:
            return f"{self.source}: missing"
        number = f" after switch {self.switches}" if self.switches is not None else ""
        return f"{self.source}: {self.live or 'nothing'} is live{number}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The live slot (None if no slot is live), and the number of switches until now."""

    live: Slot | None
    switches: int


def decide_from_checkpoint(evidence: Evidence) -> Decision | None:
    """Decide which slot is live from the checkpoint alone. Return None if the checkpoint is incomplete or contradictory."""
    top = max((claim.switches for claim in evidence.claims), default=0)
    slots = {claim.live for claim in evidence.claims if claim.switches == top}
    [live] = slots if len(slots) == 1 else [None]
    recorded = any(claim.switches == top for claim in evidence.switches)
    if (
        not (recorded and evidence.complete)
        or live is None
        or live not in evidence.switch_numbers
        or evidence.failed > top
    ):
        return None
    if evidence.intent and evidence.intent.switches > top and evidence.intent.live is not live:
        return None
    return Decision(live=live, switches=top)


def likely(evidence: Evidence) -> Decision:
    """Return the live slot according to the last switch in the checkpoint.

    The slot is None if the checkpoint contradicts itself. The result may be wrong, because this function does not read the
    platform. Use the result only for display.
    """
    top = max((claim.switches for claim in evidence.claims), default=0)
    slots = {claim.live for claim in evidence.claims if claim.switches == top}
    return Decision(live=slots.pop() if len(slots) == 1 else None, switches=top)


def decide(
    evidence: Evidence, read_routing: Callable[[], Routing], declared: Slot | bool | None = False, stack: str = ""
) -> Decision:
    """Return the live slot. Read the platform only if the checkpoint is incomplete or contradictory.

    Args:
        evidence: statements of the checkpoint.
        read_routing: function that returns the slot that the platform routes users to.
        declared: slot that a person declares live by TIERS_LIVE; None for TIERS_LIVE=none; False if TIERS_LIVE is not set.
        stack: name of the stack, for the command in the error.

    Raises:
        ReleaseError: the sources contradict each other, or are incomplete. The message lists all sources, and the command to run.
    """
    if decision := decide_from_checkpoint(evidence):
        return decision
    routing = read_routing()
    try:
        decision = (
            _declared_decision(evidence, declared)
            if not isinstance(declared, bool)
            else _compare_with_platform(evidence, routing)
        )
        if decision.live and decision.live not in evidence.switch_numbers:
            raise UndecidedError(f"slot {decision.live} is live, but the checkpoint does not contain this slot")
    except UndecidedError as problem:
        raise ReleaseError(_conflict_message(str(problem), evidence, routing, stack)) from None
    return decision


class UndecidedError(Exception):
    """Error: the sources don't determine the live slot. The message gives the reason."""


def _declared_decision(evidence: Evidence, slot: Slot | None) -> Decision:
    numbers = [claim.switches for claim in (*evidence.claims, *([evidence.intent] if evidence.intent else ()))]
    return Decision(live=slot, switches=max([*numbers, evidence.fewest_switches(slot) if slot else 0]))


def _compare_with_platform(evidence: Evidence, routing: Routing) -> Decision:
    top = max((claim.switches for claim in evidence.claims), default=None)
    slots = {claim.live for claim in evidence.claims if claim.switches == top}
    if len(slots) > 1:
        raise UndecidedError("the entries of the checkpoint contradict each other")
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
    """Decide that the slot `live` is live, because the platform routes users to it.

    Raises:
        UndecidedError: the checkpoint contradicts the platform.
    """
    if routing.switches is not None:
        if top is not None and (routing.switches < top or (routing.switches == top and live not in candidates)):
            raise UndecidedError("the platform and the checkpoint contradict each other")
        return Decision(live=live, switches=routing.switches)
    if candidates:
        if live not in candidates:
            raise UndecidedError("the platform and the checkpoint contradict each other")
        return Decision(live=live, switches=max(candidates[live], evidence.fewest_switches(live)))
    if not evidence.switch_numbers and live not in routing.running:
        # No slot is live: the routing object names a slot without containers, as after `make heal FORCE=state`.
        return Decision(live=None, switches=0)
    return Decision(live=live, switches=max(evidence.fewest_switches(live), evidence.failed))


def _without_platform(
    evidence: Evidence, routing: Routing, candidates: Mapping[Slot | None, int], top: int | None
) -> Decision:
    """Return the decision if the platform routes users to no slot, or can't be read.

    Raises:
        UndecidedError: the checkpoint alone does not determine the live slot.
    """
    if not candidates:
        if routing.problem or evidence.switch_numbers:
            raise UndecidedError("no source reports the live slot")
        return Decision(live=None, switches=0)
    if top is not None and routing.absent and _switch_was_impossible(evidence):
        candidates = {live: number for live, number in candidates.items() if number <= top}
    if not routing.problem and None in candidates and not (routing.absent and evidence.proven):
        # No slot is live, because the first release failed before its switch.
        return Decision(live=None, switches=candidates[None])
    intent = evidence.intent
    finished = intent is not None and top is not None and (top >= intent.switches or intent.live not in candidates)
    final = finished or any(claim.final and claim.switches == top for claim in evidence.claims)
    if len(candidates) > 1 or not final:
        raise UndecidedError(
            "the platform does not report the live slot, and the checkpoint alone is not enough to decide"
        )
    [(live, number)] = candidates.items()
    return Decision(live=live, switches=number)


def _switch_was_impossible(evidence: Evidence) -> bool:
    """Return whether the last planned switch can't have happened, because the release of its slot did not pass the gates.

    The slot that was live before the update is then still live. Call this function only if the routing object is missing. An
    existing object names the live slot.
    """
    intent = evidence.intent
    return intent is not None and intent.live is not None and intent.live not in evidence.proven


def _conflict_message(problem: str, evidence: Evidence, routing: Routing, stack: str) -> str:
    slots = ", ".join(evidence.switch_numbers) or "no slot"
    lines = [*map(str, evidence.claims), str(routing), f"the checkpoint: it contains {slots}"]
    if evidence.intent:
        lines.append(f"the last update: it planned switch {evidence.intent.switches} to {evidence.intent.live}")
    sources = "\n".join(f"    {line}" for line in lines)
    if not evidence.switch_numbers and routing.live:
        fix = (
            "if the state is in another backend, set PULUMI_BACKEND_URL; if the state is lost, restore a copy of it "
            "(docs/runbook.md#lost-state-file)"
        )
    else:
        fix = (
            "find the slot that serves users (Docker: see the response header X-Tiers-Slot; Kubernetes: see the Services of the "
            "HTTPRoute), then run "
            f"`TIERS_LIVE=SLOT make up ENV={stack}` with its name as SLOT, or none if no slot serves users"
        )
    return f"{problem}, so neither slot is changed. The sources report:\n{sources}\n{fix}"
