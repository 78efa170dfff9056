"""Random histories of a small model: the invariants of a release hold after any events in any order.

The model follows the program step by step. Any step may be the last one: a gate fails or the engine is killed, also
between a step and its record in the checkpoint. Healing then does the same as `ci.heal`.
"""

from collections.abc import Generator
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from components.release import Ask, Held, Observed, Plan, Release, ReleaseError, Slot, plan

TIERS = ("api", "worker", "web")
STEPS = 12
"""More steps than any update has."""


@dataclass
class World:
    """Workloads that really run, and the checkpoint's record of them."""

    live: Slot | None = None
    tiers: dict[Slot, dict[str, Release]] = field(default_factory=lambda: {slot: {} for slot in Slot})
    checkpoint: Observed = field(default_factory=Observed)
    doubtful: bool = False
    """True if the engine was killed between a switch and its record."""

    def hold(self, slot: Slot, state: Held | None) -> None:
        others = {other: entry for other, entry in self.checkpoint.held.items() if other is not slot}
        self.checkpoint = replace(self.checkpoint, held=others | ({slot: state} if state else {}))


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.version = 0
        self.desired = Release(version="0", digest="0")
        self.manual = False
        self.lived: set[str] = set()

    # ------------------------------------------------------------------ steps of an update

    def steps(self, done: Plan) -> Generator[None]:
        world = self.world
        for slot in Slot:
            if slot not in (done.render, *done.keep):
                world.hold(slot, None)
        if slot := done.render:
            order = world.checkpoint.switches + 1
            world.hold(slot, Held(release=done.release, proven=False, order=order))
            yield
            for tier in TIERS:
                self.touch(slot, tier, done.release)
                yield
            world.hold(slot, Held(release=done.release, proven=True, order=order))
            yield
        if done.moves:
            for tier in TIERS:
                if tier not in world.tiers[done.live]:
                    self.touch(done.live, tier, done.release)
                    yield
            world.live = done.live
            world.doubtful = True
            yield
            world.checkpoint = replace(world.checkpoint, live=done.live, switches=done.switches)
            world.doubtful = False
            yield
            if done.previous:
                world.tiers[done.previous].pop("worker", None)

    def touch(self, slot: Slot, tier: str, release: Release) -> None:
        assert slot is not self.world.live, "a live slot is never modified"
        self.world.tiers[slot][tier] = release

    def update(self, ask: Ask, last: int, undo: bool, force: bool = False) -> None:
        """Run an update up to its step number `last`."""
        before, current = self.world.checkpoint, self.world.checkpoint.held.get(self.world.checkpoint.live or Slot.BLUE)
        try:
            done = plan(before, self.desired, ask, force, manual=self.manual)
        except ReleaseError:
            assert ask is not Ask.CONFIGURED or (current and current.release.contract)
            return
        if done.moves and not done.render and current and not force:
            older = before.held[done.live].order < current.order
            assert not (older and current.release.contract), "a rollback past a contract migration needs force"
        if ask is Ask.PROMOTE:
            assert done.render is None, "a release is promoted only after it was rendered"
        if ask is Ask.PREVIOUS:
            assert done.release.digest in self.lived, "a rollback goes to a release that was live"
        if self.manual and ask is Ask.CONFIGURED and before.live:
            assert not done.moves, "a manual promotion needs a command"
        for number, _ in enumerate(self.steps(done)):
            self.whole()
            if number >= last:
                self.heal(undo)
                return
        self.whole()
        assert self.world.checkpoint.live == self.world.live == done.live
        if not done.waits:
            assert self.world.tiers[done.live]["api"].digest == done.release.digest
        if ask is Ask.CONFIGURED:
            again = plan(self.world.checkpoint, self.desired, manual=self.manual)
            assert (again.render, again.moves) == (None, False), "a second update changes nothing"

    def heal(self, undo: bool) -> None:
        """Settle a checkpoint that is one switch behind: Docker undoes the switch, Kubernetes reads it again."""
        world = self.world
        if world.doubtful and undo and world.checkpoint.live:
            world.live = world.checkpoint.live
        elif world.doubtful and world.live:
            state = world.checkpoint.held.get(world.live)
            world.checkpoint = replace(world.checkpoint, live=world.live, switches=world.checkpoint.switches + 1)
            assert state and state.proven
        world.doubtful = False

    # ------------------------------------------------------------------ actions of users

    @rule(last=st.integers(0, STEPS), undo=st.booleans(), contract=st.booleans())
    def release(self, last: int, undo: bool, contract: bool) -> None:
        self.version += 1
        self.desired = Release(version=str(self.version), digest=str(self.version), contract=contract)
        self.update(Ask.CONFIGURED, last, undo)

    @rule(last=st.integers(0, STEPS), undo=st.booleans())
    def the_same_again(self, last: int, undo: bool) -> None:
        self.update(Ask.CONFIGURED, last, undo)

    @rule(slot=st.sampled_from(Slot), last=st.integers(0, STEPS), undo=st.booleans())
    def one_that_a_slot_holds(self, slot: Slot, last: int, undo: bool) -> None:
        if state := self.world.checkpoint.held.get(slot):
            self.desired = state.release
            self.update(Ask.CONFIGURED, last, undo)

    @rule(last=st.integers(0, STEPS), undo=st.booleans(), force=st.booleans())
    def back(self, last: int, undo: bool, force: bool) -> None:
        self.update(Ask.PREVIOUS, last, undo, force)

    @rule(last=st.integers(0, STEPS), undo=st.booleans())
    def promote(self, last: int, undo: bool) -> None:
        self.update(Ask.PROMOTE, last, undo)

    @rule(manual=st.booleans())
    def promotion(self, manual: bool) -> None:
        self.manual = manual

    # ------------------------------------------------------------------ invariants

    @invariant()
    def whole(self) -> None:
        """Check that the live slot has one verified release in all tiers, and that the checkpoint knows it."""
        live = self.world.live
        if not live:
            return
        tiers = self.world.tiers[live]
        assert set(tiers) == set(TIERS)
        assert len({release.digest for release in tiers.values()}) == 1
        state = self.world.checkpoint.held[live]
        assert state.proven
        assert state.release.digest == tiers["api"].digest
        self.lived.add(state.release.digest)


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
TestHistories = Histories.TestCase
