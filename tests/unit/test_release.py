"""Tests of the release planner with generated states, and of the release digest."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.model.workload import Image, Resources, Workload
from components.release.planner import (
    Plan,
    Release,
    ReleaseAction,
    ReleaseError,
    Slot,
    SlotState,
    StackState,
    explain,
    identify,
    parse_release_action,
    plan,
)

RELEASES = st.builds(Release, version=st.sampled_from(["1.0", "2.0"]), digest=st.sampled_from("abcd"))
SLOT_STATES = st.builds(SlotState, release=RELEASES, proven=st.booleans())
STATES_BEFORE_FIRST_SWITCH = st.builds(StackState, slots=st.dictionaries(st.sampled_from(list(Slot)), SLOT_STATES))
STATES_AFTER_FIRST_SWITCH = st.builds(
    lambda live, live_state, others, count: StackState(
        live=live, slots={**others, live: replace(live_state, proven=True)}, switches=count
    ),
    st.sampled_from(list(Slot)),
    SLOT_STATES,
    st.dictionaries(st.sampled_from(list(Slot)), SLOT_STATES),
    st.integers(1, 50),
)
OBSERVED = STATES_BEFORE_FIRST_SWITCH | STATES_AFTER_FIRST_SWITCH


def state_after(observed: StackState, release_plan: Plan) -> StackState:
    """Return the state of the stack after an update has executed the plan."""
    slots = {slot: observed.slots[slot] for slot in release_plan.keep}
    if release_plan.render:
        slots[release_plan.render] = SlotState(release=release_plan.release, proven=True)
    return StackState(live=release_plan.live, slots=slots, switches=release_plan.switches)


@given(OBSERVED, RELEASES)
def test_plan_never_deploys_to_the_live_slot(observed: StackState, desired: Release) -> None:
    assert plan(observed, desired).render is not observed.live or observed.live is None


@given(OBSERVED, RELEASES)
def test_plan_keeps_an_existing_live_slot(observed: StackState, desired: Release) -> None:
    if observed.live in observed.slots:
        assert observed.live in plan(observed, desired).keep


@given(OBSERVED, RELEASES)
def test_plan_never_both_deploys_to_a_slot_and_keeps_the_slot(observed: StackState, desired: Release) -> None:
    release_plan = plan(observed, desired)
    assert release_plan.render not in release_plan.keep
    assert release_plan.live in (release_plan.render, *release_plan.keep)


@given(OBSERVED, RELEASES)
def test_plan_makes_the_desired_release_live(observed: StackState, desired: Release) -> None:
    release_plan = plan(observed, desired)
    assert release_plan.release.digest == desired.digest
    if release_plan.render is None:
        assert observed.slots[release_plan.live].release == release_plan.release


@given(OBSERVED, RELEASES)
def test_second_plan_for_the_same_release_changes_nothing(observed: StackState, desired: Release) -> None:
    release_plan = plan(observed, desired)
    second_plan = plan(state_after(observed, release_plan), desired)
    assert (second_plan.render, second_plan.moves, second_plan.switches) == (None, False, release_plan.switches)


@given(OBSERVED, RELEASES)
def test_switch_number_grows_if_and_only_if_traffic_moves(observed: StackState, desired: Release) -> None:
    release_plan = plan(observed, desired)
    if observed.live:
        assert release_plan.switches == observed.switches + release_plan.moves


@given(OBSERVED, RELEASES)
def test_slot_that_never_passed_its_gates_does_not_go_live(observed: StackState, desired: Release) -> None:
    release_plan = plan(observed, desired)
    if release_plan.moves and release_plan.render is None:
        assert observed.slots[release_plan.live].proven


@given(OBSERVED, RELEASES, RELEASES)
def test_rollback_makes_one_switch_and_deploys_to_no_slot(
    observed: StackState, first: Release, second: Release
) -> None:
    one = state_after(observed, plan(observed, first))
    two = state_after(one, plan(one, second))
    if first.digest != second.digest:
        rollback = plan(two, second, ReleaseAction.PREVIOUS)
        assert (rollback.render, rollback.moves, rollback.release.digest) == (None, True, first.digest)
        assert set(rollback.keep) == set(Slot)


@pytest.mark.parametrize(
    "observed",
    [
        StackState(),
        StackState(live=Slot.BLUE, slots={Slot.BLUE: SlotState(release=Release(version="1", digest="a"), proven=True)}),
        StackState(
            live=Slot.BLUE,
            slots={
                slot: SlotState(release=Release(version="1", digest=slot), proven=slot is Slot.BLUE) for slot in Slot
            },
        ),
    ],
)
def test_rollback_without_a_previous_release_is_refused(observed: StackState) -> None:
    with pytest.raises(ReleaseError, match=r"nothing to go back to|nothing is live"):
        plan(observed, Release(version="1", digest="a"), ReleaseAction.PREVIOUS)


def test_first_release_goes_to_blue() -> None:
    first = plan(StackState(), Release(version="1", digest="a"))
    assert (first.live, first.render, first.switches) == (Slot.BLUE, Slot.BLUE, 1)


WORKLOAD = Workload(tier="api", image=Image(reference="api:1"), resources=Resources(cpu=1, memory=2**30))


@pytest.mark.parametrize(
    "changed",
    [
        replace(WORKLOAD, image=Image(reference="api:2")),
        replace(WORKLOAD, command=("serve",)),
        replace(WORKLOAD, env=(("LOG_LEVEL", "debug"),)),
        replace(WORKLOAD, resources=Resources(cpu=1, memory=2**31)),
        replace(WORKLOAD, user=10002),
        replace(WORKLOAD, stop_within=31),
    ],
)
def test_any_difference_in_a_workload_changes_the_digest(changed: Workload) -> None:
    assert identify("1", [changed]).digest != identify("1", [WORKLOAD]).digest


def test_changed_version_changes_the_release_digest() -> None:
    assert identify("1", [WORKLOAD]).digest != identify("2", [WORKLOAD]).digest


def test_changed_build_context_does_not_change_the_release_digest() -> None:
    moved = replace(WORKLOAD, image=Image(reference="api:1", context="elsewhere", path="app.api.build"))
    assert identify("1", [moved]) == identify("1", [WORKLOAD])


def test_order_of_tiers_does_not_change_the_release_digest() -> None:
    other = replace(WORKLOAD, tier="web")
    assert identify("1", [WORKLOAD, other]) == identify("1", [other, WORKLOAD])


@pytest.mark.parametrize("manual", [False, True])
def test_explanation_of_a_plan_contains_the_slots_and_the_differences_and_the_switch(manual: bool) -> None:
    one = Release(version="1.0", digest="aa", parts={"api": "1", "web": "1", "api.migrate": "1"})
    two = Release(version="2.0", digest="bb", parts={"api": "2", "web": "1", "api.migrate": "1"}, contract=True)
    older = Release(version="0.9", digest="cc")
    observed = StackState(
        live=Slot.BLUE,
        slots={
            Slot.BLUE: SlotState(release=one, proven=True, order=2),
            Slot.GREEN: SlotState(release=older, proven=True, order=1),
        },
        switches=2,
    )
    text = explain(observed, plan(observed, two, manual=manual))
    for part in (
        "green gets 2.0-bb, in place of 0.9-cc",
        "it differs in api;",
        "migration: api.migrate (contract",
        "blue stays live with 1.0-aa",
        "no traffic moves: the release waits to be promoted"
        if manual
        else "switch 3 moves all traffic to green, 2.0-bb",
    ):
        assert part in text, text
    assert explain(observed, plan(observed, one)) == "the release does not change"


def test_unknown_value_of_tiers_release_or_tiers_force_is_refused() -> None:
    assert (
        parse_release_action({})
        == parse_release_action({"TIERS_RELEASE": "", "TIERS_FORCE": ""})
        == (ReleaseAction.CONFIGURED, False)
    )
    assert parse_release_action({"TIERS_RELEASE": "previous", "TIERS_FORCE": "contract"}) == (
        ReleaseAction.PREVIOUS,
        True,
    )
    with pytest.raises(
        ReleaseError, match="TIERS_RELEASE: 'prevoius' is not a release action; use configured, promote, previous"
    ):
        parse_release_action({"TIERS_RELEASE": "prevoius"})
    with pytest.raises(ReleaseError, match="TIERS_FORCE: 'all' can't be forced"):
        parse_release_action({"TIERS_FORCE": "all"})


def test_promotion_without_a_waiting_release_is_refused() -> None:
    one, two = (Release(version=version, digest=version) for version in "12")
    observed = StackState(live=Slot.BLUE, slots={Slot.BLUE: SlotState(release=one, proven=True, order=1)}, switches=1)
    for desired in (one, two):
        with pytest.raises(ReleaseError, match="there is nothing to promote"):
            plan(observed, desired, ReleaseAction.PROMOTE, manual=True)
