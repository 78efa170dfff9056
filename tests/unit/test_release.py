"""Planning a release: what may and may not happen, whatever was observed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.release import Held, Observed, Plan, Release, ReleaseError, Slot, identify, plan
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
    """What is observed after the plan was carried out."""
    held = {slot: observed.held[slot] for slot in done.keep}
    if done.render:
        held[done.render] = Held(release=done.release, proven=True)
    return Observed(live=done.live, held=held, switches=done.switches)


@given(OBSERVED, RELEASES)
def test_what_is_live_is_never_rendered(observed: Observed, wanted: Release) -> None:
    assert plan(observed, wanted).render is not observed.live or observed.live is None


@given(OBSERVED, RELEASES)
def test_what_is_live_is_kept(observed: Observed, wanted: Release) -> None:
    if observed.live in observed.held:
        assert observed.live in plan(observed, wanted).keep


@given(OBSERVED, RELEASES)
def test_a_slot_is_either_rendered_or_kept(observed: Observed, wanted: Release) -> None:
    done = plan(observed, wanted)
    assert done.render not in done.keep
    assert done.live in (done.render, *done.keep)


@given(OBSERVED, RELEASES)
def test_the_wanted_release_is_live_afterwards(observed: Observed, wanted: Release) -> None:
    done = plan(observed, wanted)
    assert done.release.digest == wanted.digest
    if done.render is None:
        assert observed.held[done.live].release == done.release


@given(OBSERVED, RELEASES)
def test_the_second_time_nothing_happens(observed: Observed, wanted: Release) -> None:
    done = plan(observed, wanted)
    again = plan(reached(observed, done), wanted)
    assert (again.render, again.moves, again.switches) == (None, False, done.switches)


@given(OBSERVED, RELEASES)
def test_a_switch_is_numbered_if_and_only_if_traffic_moves(observed: Observed, wanted: Release) -> None:
    done = plan(observed, wanted)
    if observed.live:
        assert done.switches == observed.switches + done.moves


@given(OBSERVED, RELEASES)
def test_a_slot_that_was_never_proven_is_not_gone_live_with(observed: Observed, wanted: Release) -> None:
    done = plan(observed, wanted)
    if done.moves and done.render is None:
        assert observed.held[done.live].proven


@given(OBSERVED, RELEASES, RELEASES)
def test_going_back_is_one_switch(observed: Observed, first: Release, second: Release) -> None:
    one = reached(observed, plan(observed, first))
    two = reached(one, plan(one, second))
    if first.digest != second.digest:
        back = plan(two, second, back=True)
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
def test_going_back_to_nothing_is_refused(observed: Observed) -> None:
    with pytest.raises(ReleaseError, match="nothing to go back to"):
        plan(observed, Release(version="1", digest="a"), back=True)


def test_the_first_release_goes_to_blue() -> None:
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
def test_any_difference_is_another_release(changed: Workload) -> None:
    assert identify("1", [changed]).digest != identify("1", [WORKLOAD]).digest


def test_the_version_is_part_of_a_release() -> None:
    assert identify("1", [WORKLOAD]).digest != identify("2", [WORKLOAD]).digest


def test_where_an_image_is_built_is_not_part_of_a_release() -> None:
    moved = replace(WORKLOAD, image=Image(reference="api:1", context="elsewhere", path="app.api.build"))
    assert identify("1", [moved]) == identify("1", [WORKLOAD])


def test_the_order_of_tiers_is_not_part_of_a_release() -> None:
    other = replace(WORKLOAD, tier="web")
    assert identify("1", [WORKLOAD, other]) == identify("1", [other, WORKLOAD])
