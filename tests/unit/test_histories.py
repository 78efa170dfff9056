"""Tests of the release invariants on a small model, with random sequences of updates, failures and rollbacks.

The model runs an update step by step. An update may end after any step, because a gate fails or the engine is killed.
The checkpoint may then lack the last step. Therefore the model heals the stack after the update, as `ci.heal` does.
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from components.release.planner import Plan, Release, ReleaseAction, ReleaseError, Slot, SlotState, StackState, plan

TIERS = ("api", "worker", "web")
STEPS = 12
"""Upper bound of the number of steps in an update."""


@dataclass
class World:
    """Simulated platform (running tiers and live slot) and checkpoint of the model."""

    live: Slot | None = None
    tiers: dict[Slot, dict[str, Release]] = field(default_factory=lambda: {slot: {} for slot in Slot})
    checkpoint: StackState = field(default_factory=StackState)
    switch_is_unrecorded: bool = False
    """True from the switch until the checkpoint records the switch."""

    def record_slot(self, slot: Slot, state: SlotState | None) -> None:
        others = {other: entry for other, entry in self.checkpoint.slots.items() if other is not slot}
        self.checkpoint = replace(self.checkpoint, slots=others | ({slot: state} if state else {}))


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.version = 0
        self.desired = Release(version="0", digest="0")
        self.manual = False
        self.live_digests: set[str] = set()

    # ------------------------------------------------------------------ steps of an update

    def steps(self, update_plan: Plan) -> Generator[None]:
        world = self.world
        for slot in Slot:
            if slot not in (update_plan.render, *update_plan.keep):
                world.record_slot(slot, None)
        if slot := update_plan.render:
            order = world.checkpoint.switches + 1
            world.record_slot(slot, SlotState(release=update_plan.release, proven=False, order=order))
            yield
            for tier in TIERS:
                self.deploy_tier(slot, tier, update_plan.release)
                yield
            world.record_slot(slot, SlotState(release=update_plan.release, proven=True, order=order))
            yield
        if update_plan.moves:
            for tier in TIERS:
                if tier not in world.tiers[update_plan.live]:
                    self.deploy_tier(update_plan.live, tier, update_plan.release)
                    yield
            world.live = update_plan.live
            world.switch_is_unrecorded = True
            yield
            world.checkpoint = replace(world.checkpoint, live=update_plan.live, switches=update_plan.switches)
            world.switch_is_unrecorded = False
            yield
            if update_plan.previous:
                world.tiers[update_plan.previous].pop("worker", None)

    def deploy_tier(self, slot: Slot, tier: str, release: Release) -> None:
        assert slot is not self.world.live, "a live slot is never modified"
        self.world.tiers[slot][tier] = release

    def update(self, action: ReleaseAction, last: int, undo: bool, force: bool = False) -> None:
        """Run an update and check each step. After step number `last`, stop the update and heal the stack."""
        before, current = (
            self.world.checkpoint,
            self.world.checkpoint.slots.get(self.world.checkpoint.live or Slot.BLUE),
        )
        try:
            update_plan = plan(before, self.desired, action, force, manual=self.manual)
        except ReleaseError:
            assert action is not ReleaseAction.CONFIGURED or (current and current.release.contract)
            return
        if update_plan.moves and not update_plan.render and current and not force:
            older = before.slots[update_plan.live].order < current.order
            assert not (older and current.release.contract), "a rollback past a contract migration needs force"
        if action is ReleaseAction.PROMOTE:
            assert update_plan.render is None, "a release is promoted only after it was rendered"
        if action is ReleaseAction.PREVIOUS:
            assert update_plan.release.digest in self.live_digests, "a rollback goes to a release that was live"
        if self.manual and action is ReleaseAction.CONFIGURED and before.live:
            assert not update_plan.moves, "a manual promotion needs a command"
        for number, _ in enumerate(self.steps(update_plan)):
            self.live_slot_is_complete()
            if number >= last:
                self.heal(undo)
                return
        self.live_slot_is_complete()
        assert self.world.checkpoint.live == self.world.live == update_plan.live
        if not update_plan.waits:
            assert self.world.tiers[update_plan.live]["api"].digest == update_plan.release.digest
        if action is ReleaseAction.CONFIGURED:
            again = plan(self.world.checkpoint, self.desired, manual=self.manual)
            assert (again.render, again.moves) == (None, False), "a second update changes nothing"

    def heal(self, undo: bool) -> None:
        """Repair the stack if the checkpoint lacks the last switch.

        Args:
            undo: True moves traffic back (Docker). False records the switch in the checkpoint (Kubernetes).
        """
        world = self.world
        if world.switch_is_unrecorded and undo and world.checkpoint.live:
            world.live = world.checkpoint.live
        elif world.switch_is_unrecorded and world.live:
            state = world.checkpoint.slots.get(world.live)
            world.checkpoint = replace(world.checkpoint, live=world.live, switches=world.checkpoint.switches + 1)
            assert state and state.proven
        world.switch_is_unrecorded = False

    # ------------------------------------------------------------------ actions of users

    @rule(last=st.integers(0, STEPS), undo=st.booleans(), contract=st.booleans())
    def release(self, last: int, undo: bool, contract: bool) -> None:
        self.version += 1
        self.desired = Release(version=str(self.version), digest=str(self.version), contract=contract)
        self.update(ReleaseAction.CONFIGURED, last, undo)

    @rule(last=st.integers(0, STEPS), undo=st.booleans())
    def repeat_release(self, last: int, undo: bool) -> None:
        self.update(ReleaseAction.CONFIGURED, last, undo)

    @rule(slot=st.sampled_from(Slot), last=st.integers(0, STEPS), undo=st.booleans())
    def repeat_release_of_a_slot(self, slot: Slot, last: int, undo: bool) -> None:
        if state := self.world.checkpoint.slots.get(slot):
            self.desired = state.release
            self.update(ReleaseAction.CONFIGURED, last, undo)

    @rule(last=st.integers(0, STEPS), undo=st.booleans(), force=st.booleans())
    def roll_back(self, last: int, undo: bool, force: bool) -> None:
        self.update(ReleaseAction.PREVIOUS, last, undo, force)

    @rule(last=st.integers(0, STEPS), undo=st.booleans())
    def promote(self, last: int, undo: bool) -> None:
        self.update(ReleaseAction.PROMOTE, last, undo)

    @rule(manual=st.booleans())
    def set_manual_promotion(self, manual: bool) -> None:
        self.manual = manual

    # ------------------------------------------------------------------ invariants

    @invariant()
    def live_slot_is_complete(self) -> None:
        """Check that all tiers of the live slot run the same release, and that this release is recorded as verified."""
        live = self.world.live
        if not live:
            return
        tiers = self.world.tiers[live]
        assert set(tiers) == set(TIERS)
        assert len({release.digest for release in tiers.values()}) == 1
        state = self.world.checkpoint.slots[live]
        assert state.proven
        assert state.release.digest == tiers["api"].digest
        self.live_digests.add(state.release.digest)


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
TestHistories = Histories.TestCase
