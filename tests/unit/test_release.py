"""Planning of a release: permitted and refused plans for any observed state."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.release import Ask, Held, Observed, Plan, Release, ReleaseError, Slot, asked, explain, identify, plan
from components.workload import Image, Resources, Workload

RELEASES = st.builds(Release, version=st.sampled_from(["1.0", "2.0"]), digest=st.sampled_from("abcd"))
HELD = st.builds(Held, release=RELEASES, proven=st.booleans())
FIRST = st.builds(Observed, held=st.dictionaries(st.sampled_from(list(Slot)), HELD))
LATER = st.builds(
    lambda live, live_held, others, count: Observed(
        live=live, held={**others, live: replace(live_held, proven=True)}, switches=count
    ),
    st.sampled_from(list(Slot)),
    HELD,
    st.dictionaries(st.sampled_from(list(Slot)), HELD),
    st.integers(1, 50),
)
OBSERVED = FIRST | LATER


def reached(observed: Observed, done: Plan) -> Observed:
    """Return the state that is observed after the plan was carried out."""
    slots = {slot: observed.held[slot] for slot in done.keep}
    if done.render:
        slots[done.render] = Held(release=done.release, proven=True)
    return Observed(live=done.live, held=slots, switches=done.switches)


@given(OBSERVED, RELEASES)
def test_live_slot_is_never_rendered(observed: Observed, desired: Release) -> None:
    assert plan(observed, desired).render is not observed.live or observed.live is None


@given(OBSERVED, RELEASES)
def test_live_slot_is_kept(observed: Observed, desired: Release) -> None:
    if observed.live in observed.held:
        assert observed.live in plan(observed, desired).keep


@given(OBSERVED, RELEASES)
def test_slot_is_either_rendered_or_kept(observed: Observed, desired: Release) -> None:
    done = plan(observed, desired)
    assert done.render not in done.keep
    assert done.live in (done.render, *done.keep)


@given(OBSERVED, RELEASES)
def test_desired_release_is_live_afterwards(observed: Observed, desired: Release) -> None:
    done = plan(observed, desired)
    assert done.release.digest == desired.digest
    if done.render is None:
        assert observed.held[done.live].release == done.release


@given(OBSERVED, RELEASES)
def test_second_plan_changes_nothing(observed: Observed, desired: Release) -> None:
    done = plan(observed, desired)
    again = plan(reached(observed, done), desired)
    assert (again.render, again.moves, again.switches) == (None, False, done.switches)


@given(OBSERVED, RELEASES)
def test_switch_number_grows_if_and_only_if_traffic_moves(observed: Observed, desired: Release) -> None:
    done = plan(observed, desired)
    if observed.live:
        assert done.switches == observed.switches + done.moves


@given(OBSERVED, RELEASES)
def test_slot_that_never_passed_its_gates_does_not_go_live(observed: Observed, desired: Release) -> None:
    done = plan(observed, desired)
    if done.moves and done.render is None:
        assert observed.held[done.live].proven


@given(OBSERVED, RELEASES, RELEASES)
def test_rollback_is_one_switch(observed: Observed, first: Release, second: Release) -> None:
    one = reached(observed, plan(observed, first))
    two = reached(one, plan(one, second))
    if first.digest != second.digest:
        back = plan(two, second, Ask.PREVIOUS)
        assert (back.render, back.moves, back.release.digest) == (None, True, first.digest)
        assert set(back.keep) == set(Slot)


@pytest.mark.parametrize(
    "observed",
    [
        Observed(),
        Observed(live=Slot.BLUE, held={Slot.BLUE: Held(release=Release(version="1", digest="a"), proven=True)}),
        Observed(
            live=Slot.BLUE,
            held={slot: Held(release=Release(version="1", digest=slot), proven=slot is Slot.BLUE) for slot in Slot},
        ),
    ],
)
def test_rollback_without_a_previous_release_is_refused(observed: Observed) -> None:
    with pytest.raises(ReleaseError, match=r"nothing to go back to|nothing is live"):
        plan(observed, Release(version="1", digest="a"), Ask.PREVIOUS)


def test_first_release_goes_to_blue() -> None:
    first = plan(Observed(), Release(version="1", digest="a"))
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
def test_any_difference_of_a_workload_changes_the_digest(changed: Workload) -> None:
    assert identify("1", [changed]).digest != identify("1", [WORKLOAD]).digest


def test_version_is_part_of_the_digest() -> None:
    assert identify("1", [WORKLOAD]).digest != identify("2", [WORKLOAD]).digest


def test_build_context_is_no_part_of_the_digest() -> None:
    moved = replace(WORKLOAD, image=Image(reference="api:1", context="elsewhere", path="app.api.build"))
    assert identify("1", [moved]) == identify("1", [WORKLOAD])


def test_order_of_tiers_is_no_part_of_the_digest() -> None:
    other = replace(WORKLOAD, tier="web")
    assert identify("1", [WORKLOAD, other]) == identify("1", [other, WORKLOAD])


@pytest.mark.parametrize("manual", [False, True])
def test_explanation_of_a_plan_names_slots_differences_and_switch(manual: bool) -> None:
    one = Release(version="1.0", digest="aa", parts={"api": "1", "web": "1", "api.migrate": "1"})
    two = Release(version="2.0", digest="bb", parts={"api": "2", "web": "1", "api.migrate": "1"}, contract=True)
    gone = Release(version="0.9", digest="cc")
    observed = Observed(
        live=Slot.BLUE,
        held={Slot.BLUE: Held(release=one, proven=True, order=2), Slot.GREEN: Held(release=gone, proven=True, order=1)},
        switches=2,
    )
    text = explain(observed, plan(observed, two, manual=manual))
    for part in (
        "green gets 2.0-bb, in place of 0.9-cc",
        "it differs in api;",
        "migration: api.migrate (contract",
        "blue stays live with 1.0-aa",
        "nothing switches: it waits to be promoted" if manual else "switch 3 moves all traffic to green, 2.0-bb",
    ):
        assert part in text, text
    assert explain(observed, plan(observed, one)) == "nothing of the release changes"


def test_unknown_release_action_or_force_is_refused() -> None:
    assert asked({}) == asked({"TIERS_RELEASE": "", "TIERS_FORCE": ""}) == (Ask.CONFIGURED, False)
    assert asked({"TIERS_RELEASE": "previous", "TIERS_FORCE": "contract"}) == (Ask.PREVIOUS, True)
    with pytest.raises(
        ReleaseError, match="TIERS_RELEASE: 'prevoius' is no release action; use configured, promote, previous"
    ):
        asked({"TIERS_RELEASE": "prevoius"})
    with pytest.raises(ReleaseError, match="TIERS_FORCE: 'all' can't be forced"):
        asked({"TIERS_FORCE": "all"})


def test_promotion_without_a_waiting_release_is_refused() -> None:
    one, two = (Release(version=version, digest=version) for version in "12")
    observed = Observed(live=Slot.BLUE, held={Slot.BLUE: Held(release=one, proven=True, order=1)}, switches=1)
    for desired in (one, two):
        with pytest.raises(ReleaseError, match="there is nothing to promote"):
            plan(observed, desired, Ask.PROMOTE, manual=True)
