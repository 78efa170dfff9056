"""Tests of updates with an incomplete checkpoint: each update keeps the live slot or is refused."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi import RunError

from components.release import journal
from components.release.checkpoint import STACK, SWITCH, observe, parse, settle
from components.release.live import Routing
from components.release.planner import Release, ReleaseError, Slot, declared_live, plan

from .program import Registered, checkpoint_of, deploy, environment, first_release, project, second_release

Export = dict[str, Any]
STACKS = ("dev", "staging")
NEXT = Release(version="9", digest="next")
UNREACHABLE = Routing(source="the platform", problem="it does not answer")


def resources(export: Export) -> list[dict[str, Any]]:
    return export["deployment"]["resources"]


def checkpoint_after(export: Export, live: Slot, number: int) -> Export:
    """Return `export` with the outputs that the stack has after a successful update.

    The outputs are the live slot, and the number and slot of the last switch.
    """
    outputs = {"live": str(live), "last_switch": {"number": number, "slot": str(live)}}
    stack = {"urn": "urn:pulumi:dev::board::pulumi:pulumi:Stack::board-dev", "type": STACK, "outputs": outputs}
    return {"deployment": {"resources": [stack, *resources(export)]}}


def checkpoint_of_interrupted_update(
    before: Export, registrations: Sequence[Registered], failed: str = "(none)"
) -> Export:
    """Return the checkpoint that Pulumi leaves if an update ends early.

    Pulumi has deleted no resource. A component with changed inputs has only the outputs that the update registered. The stack and each
    unchanged component keep their old outputs.

    Args:
        before: Checkpoint before the update.
        registrations: Resources that the update registered before it ended.
        failed: Suffix of the name of a container. In the returned checkpoint this container has exit code 1.
    """
    old = {resource["urn"]: resource for resource in resources(before)}
    new: dict[str, dict[str, Any]] = {}
    for entry in registrations:
        [resource] = resources(checkpoint_of(_deployment([entry], before)))
        previous = old.get(entry.urn)
        if previous and not entry.custom and previous["inputs"] == entry.inputs and not entry.outputs:
            resource["outputs"] = previous["outputs"]
        if entry.name.endswith(failed) and "exitCode" in resource["outputs"]:
            resource["outputs"] = {"exitCode": 1}
        new[entry.urn] = resource
    return {"deployment": {"resources": [*({**old, **new}).values()]}}


def _deployment(entries: list[Registered], before: Export) -> Any:
    from .program import Deployment

    return Deployment(entries, {}, before)


def third_release(stack: str, fail: str = "") -> list[Registered]:
    """Return the resources that the third release registers.

    Args:
        fail: Ending of a resource name. If set, the release stops at the first resource with this ending.
    """
    registrations: list[Registered] = []
    app, settings = project() | {"version": "3.0.0"}, environment(stack) | {"release": {}}
    before = checkpoint_after(checkpoint_of(second_release(stack)), Slot.GREEN, 2)
    with suppress(Exception):
        deploy(
            app,
            settings,
            export=before,
            stack=stack,
            registrations=registrations,
            fail=lambda name: fail != "" and name.endswith(fail),
        )
    return registrations


@cache
def histories(stack: str) -> list[tuple[str, Export, Slot, int]]:
    """Return test cases: checkpoints of a stack after different updates.

    Each case has a name, a checkpoint, the live slot and the number of switches.
    """
    after_first_release = checkpoint_after(checkpoint_of(first_release(stack)), Slot.BLUE, 1)
    second_checkpoint = checkpoint_after(checkpoint_of(second_release(stack)), Slot.GREEN, 2)
    failed = checkpoint_of_interrupted_update(second_checkpoint, third_release(stack, fail="blue-smoke"), "blue-smoke")
    killed = checkpoint_of_interrupted_update(second_checkpoint, third_release(stack))
    for resource in resources(killed):
        if resource["type"] == SWITCH:
            resource["outputs"] = {}
    return [("first", after_first_release, Slot.BLUE, 1), ("second", second_checkpoint, Slot.GREEN, 2), ("failed", failed, Slot.GREEN, 2),
            ("killed after the switch", killed, Slot.BLUE, 3)]  # fmt: skip


def healthy_routing(stack: str, live: Slot, number: int) -> Routing:
    """Return the routing that a healthy platform reports. Only Kubernetes reports the number of switches."""
    return Routing(
        source="the platform", live=live, switches=None if stack == "dev" else number, running=frozenset(Slot)
    )


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_live_slot_is_read_from_a_complete_checkpoint_without_a_query_to_the_platform(stack: str, number: int) -> None:
    name, export, live, switches = histories(stack)[number]

    def query_platform() -> Routing:
        raise AssertionError("the program queried the platform, which slows down every preview")

    observed = settle(parse(export), query_platform)
    assert (observed.live, observed.switches, observed.missing) == (live, switches, False), name
    assert observe(parse(export)) == observed


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("number", range(4))
@given(data=st.data(), platform_answers=st.booleans())
def test_live_slot_is_kept_or_the_update_is_refused_after_any_loss_in_the_checkpoint(
    stack: str, number: int, data: st.DataObject, platform_answers: bool
) -> None:
    _, export, live, switches = histories(stack)[number]
    evidence = [
        resource
        for resource in resources(export)
        if resource["type"] in ("tiers:slot:Slot", SWITCH, STACK) or _is_switch_or_smoke_test(resource)
    ]
    lost_urns = data.draw(st.sets(st.sampled_from([entry["urn"] for entry in evidence])), label="lost entries")
    urns_without_outputs = data.draw(
        st.sets(st.sampled_from([entry["urn"] for entry in evidence])), label="entries without outputs"
    )
    loses_others = data.draw(st.booleans(), label="all other entries are lost")
    remaining = [
        {**resource, "outputs": {}} if resource["urn"] in urns_without_outputs else resource
        for resource in resources(export)
        if resource["urn"] not in lost_urns and not (loses_others and resource not in evidence)
    ]
    routing = healthy_routing(stack, live, switches) if platform_answers else UNREACHABLE
    try:
        observed = settle(parse({"deployment": {"resources": remaining}}), lambda: routing)
    except ReleaseError as error:
        assert "neither slot is changed. The sources report:" in str(error)
        return
    update_plan = plan(observed, NEXT)
    assert (observed.live, update_plan.render) == (live, live.other)
    assert live in update_plan.keep
    assert update_plan.switches == switches + 1 or (stack == "dev" and update_plan.switches <= switches + 1)


def _is_switch_or_smoke_test(resource: Mapping[str, Any]) -> bool:
    return any(f'"{role}"' in str(resource["inputs"]).replace("'", '"') for role in ("switch", "smoke"))


def checkpoint_without(export: Export, *ends: str, outputs_of: Sequence[str] = ()) -> Export:
    """Return a copy of a checkpoint without the given resources and outputs.

    Args:
        export: Complete checkpoint.
        ends: Endings of the URNs of the resources to remove.
        outputs_of: Resource types. Resources of these types lose their outputs.
    """
    remaining = [resource for resource in resources(export) if not resource["urn"].endswith(ends)]
    return {
        "deployment": {
            "resources": [{**entry, "outputs": {}} if entry["type"] in outputs_of else entry for entry in remaining]
        }
    }


@pytest.mark.parametrize(("stack", "switch"), [("dev", "::switch-2"), ("staging", "HTTPRoute::board")])
def test_lost_switch_is_restored_and_the_next_release_goes_to_the_idle_slot(stack: str, switch: str) -> None:
    _, export, live, _ = histories(stack)[1]
    pruned = checkpoint_without(export, switch, "-smoke")
    app, settings = project() | {"version": "2.0.0"}, environment(stack) | {"release": {}}
    routing = healthy_routing(stack, live, 2)
    repeated = deploy(app, settings, export=pruned, stack=stack, routing=routing)
    [restored_switch] = [entry for entry in repeated if entry.custom and entry.urn.endswith(switch)]
    assert (
        restored_switch.labels["tiers.slot"],
        restored_switch.labels["tiers.switch"],
        restored_switch.ignores,
    ) == ("green", "2", ())
    assert {entry.name for entry in second_release(stack)} - {entry.name for entry in repeated} == {
        "blue-smoke",
        "green-smoke",
    }
    released = deploy(app | {"version": "3.0.0"}, settings, export=pruned, stack=stack, routing=routing)
    moves = {entry.labels["tiers.switch"]: entry for entry in released if entry.labels.get("tiers.role") == "switch"}
    assert {number: entry.labels["tiers.slot"] for number, entry in moves.items()} == {"2": "green", "3": "blue"}
    assert moves["2"].urn in moves["3"].waits_for
    assert not [urn for urn in moves["2"].waits_for if urn.endswith("-smoke")], (
        "the restored switch must not depend on the new release"
    )
    assert moves["2"].retained is (stack == "staging"), "both switches are one HTTPRoute, which must not be deleted"


def test_substitute_of_a_lost_http_route_is_replaced_by_the_real_route() -> None:
    """Check the second update after the checkpoint lost the HTTPRoute `board`.

    The first update registered `board-again` as a substitute, and failed. The second update must register `board` and remove
    `board-again` from the state. It must not delete the Kubernetes object, because both resources manage the same object.
    """
    _, export, live, _ = histories("staging")[1]
    pruned = checkpoint_without(export, "HTTPRoute::board")
    app, settings = project() | {"version": "2.0.0"}, environment("staging") | {"release": {}}
    registrations: list[Registered] = []
    with pytest.raises(Exception, match="the Job blue-smoke failed"):
        deploy(app | {"version": "3.0.0"}, settings, export=pruned, stack="staging", registrations=registrations,
               fail=lambda name: name == "blue-smoke", routing=healthy_routing("staging", live, 2))  # fmt: skip
    remaining = checkpoint_of_interrupted_update(pruned, registrations)
    for resource in resources(remaining):
        resource["retainOnDelete"] = resource["urn"].endswith("::board-again")
    assert [
        resource["urn"].rpartition("::")[2] for resource in resources(remaining) if resource.get("retainOnDelete")
    ] == ["board-again"]
    settled = deploy(app, settings, export=remaining, stack="staging", routing=healthy_routing("staging", live, 2))
    route = settled.get_object("HTTPRoute", "board")
    assert (route.labels["tiers.slot"], route.labels["tiers.switch"], route.retained) == ("green", "2", False)
    assert "board-again" not in settled.by_name


def test_failed_release_does_not_lose_the_journal_of_releases() -> None:
    _, failed, _, _ = histories("dev")[2]
    assert [entry["number"] for entry in journal.entries(parse(failed))] == [1, 2]
    next_release = deploy(project() | {"version": "4.0.0"}, environment() | {"release": {}}, export=failed)
    [switch] = [entry for entry in next_release if entry.type == SWITCH]
    assert [entry["number"] for entry in switch.outputs["journal"]] == [1, 2, 3]


@pytest.mark.parametrize("failing", ["blue-api-migrate", "blue-smoke"])
def test_route_deleted_after_a_failed_release_is_restored_for_the_last_live_slot(failing: str) -> None:
    _, export, live, _ = histories("staging")[1]
    failed = checkpoint_of_interrupted_update(export, third_release("staging", fail=failing), failing)
    absent = Routing(source="the HTTPRoute", absent=True)
    for checkpoint in (failed, checkpoint_without(failed, "HTTPRoute::board")):
        observed = settle(parse(checkpoint), lambda: absent)
        assert (observed.live, observed.switches) == (live, 2)
        assert plan(observed, NEXT).render is live.other


def test_lost_route_after_a_killed_update_is_refused_with_the_advice_to_set_tiers_live() -> None:
    _, killed, _, _ = histories("staging")[3]
    with pytest.raises(ReleaseError, match="TIERS_LIVE=SLOT make up"):
        settle(
            parse(checkpoint_without(killed, "HTTPRoute::board")), lambda: Routing(source="the HTTPRoute", absent=True)
        )


@pytest.mark.parametrize("name", ["the state is lost", "the last switch is not where it was"])
def test_error_about_an_uncertain_live_slot_lists_the_sources_and_the_command_that_helps(name: str) -> None:
    _, export, live, _ = histories("dev")[1]
    if name == "the state is lost":
        with pytest.raises(
            ReleaseError,
            match=r"(?s)slot green is live, but the checkpoint does not contain this slot.*lost-state-file",
        ):
            deploy(export={}, routing=healthy_routing("dev", live, 2))
        return
    with pytest.raises(ReleaseError, match=r"(?s)contradict each other.*outputs of Switch: green.*the platform: blue is "
                       r"live.*TIERS_LIVE=SLOT make up ENV=dev"):  # fmt: skip
        deploy(export=checkpoint_without(export, "::switch-2"), routing=healthy_routing("dev", live.other, 2))


def test_live_slot_is_read_from_the_variable_tiers_live_if_no_source_reports_the_live_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, export, live, _ = histories("dev")[3]
    incomplete_checkpoint = checkpoint_without(export, "::switch-2", "::switch-3")
    with pytest.raises(RunError, match="neither slot is changed"):
        deploy(export=incomplete_checkpoint, routing=UNREACHABLE)
    monkeypatch.setenv("TIERS_LIVE", str(live))
    app, settings = project() | {"version": "4.0.0"}, environment() | {"release": {}}
    released = deploy(app, settings, export=incomplete_checkpoint, routing=UNREACHABLE)
    assert released.by_name["switch-4"].labels["tiers.slot"] == "green"
    monkeypatch.setenv("TIERS_LIVE", "red")
    with pytest.raises(ReleaseError, match="TIERS_LIVE: there is no slot 'red'; use blue, green or none"):
        deploy(export=incomplete_checkpoint)
    assert [declared_live({"TIERS_LIVE": name}) for name in ("", "none", "green")] == [False, None, Slot.GREEN]


@pytest.mark.parametrize("stack", STACKS)
def test_new_stack_without_a_checkpoint_has_no_live_slot(stack: str) -> None:
    assert settle(parse({}), partial(Routing, source="the platform", absent=True)).live is None
    stale = Routing(source="the platform", live=Slot.GREEN)
    assert settle(parse({}), lambda: stale).live is None, "a map file without containers must be ignored"
    with pytest.raises(ReleaseError, match="no source reports the live slot"):
        settle(parse({}), lambda: UNREACHABLE)


@pytest.mark.parametrize("stack", STACKS)
def test_failed_first_release_is_deployed_again_by_the_next_update(stack: str) -> None:
    registrations: list[Registered] = []
    with suppress(Exception):
        deploy(stack=stack, registrations=registrations, fail=lambda name: name.endswith("smoke"))
    remaining = parse(checkpoint_of_interrupted_update({"deployment": {"resources": []}}, registrations, "-smoke"))
    for absent in (True, False):
        observed = settle(remaining, partial(Routing, source="the platform", absent=absent))
        update_plan = plan(observed, NEXT)
        assert (observed.live, update_plan.render, update_plan.switches) == (None, Slot.BLUE, 1)
