"""The live slot after losses in the checkpoint: it is kept as it is, or the update is refused."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi import RunError

from components import journal
from components.checkpoint import STACK, SWITCH, observe, parse, settle
from components.live import Routing
from components.release import Release, ReleaseError, Slot, named_live, plan

from .program import Registered, deploy, environment, exported, first, project, second

Export = dict[str, Any]
STACKS = ("dev", "staging")
NEXT = Release(version="9", digest="next")
UNREACHABLE = Routing(source="the platform", problem="it does not answer")


def resources(export: Export) -> list[dict[str, Any]]:
    return export["deployment"]["resources"]


def finished(export: Export, live: Slot, number: int) -> Export:
    """Return the checkpoint after a successful update, including the stack's outputs."""
    outputs = {"live": str(live), "last_switch": {"number": number, "slot": str(live)}}
    stack = {"urn": "urn:pulumi:dev::board::pulumi:pulumi:Stack::board-dev", "type": STACK, "outputs": outputs}
    return {"deployment": {"resources": [stack, *resources(export)]}}


def cut_short(before: Export, seen: Sequence[Registered], failed: str = "(none)") -> Export:
    """Return the checkpoint that the engine leaves after an update that ended early.

    Nothing is deleted. A component with changed inputs has the outputs it registered; an unchanged one has its old outputs.
    The stack's outputs are the old ones. `failed` is the end of the name of a container that exited with an error.
    """
    old = {resource["urn"]: resource for resource in resources(before)}
    new: dict[str, dict[str, Any]] = {}
    for entry in seen:
        [resource] = resources(exported(_deployment([entry], before)))
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


def third(stack: str, fail: str = "") -> list[Registered]:
    """Return the registrations of the third release, up to the resource whose name ends with `fail` if that is set."""
    seen: list[Registered] = []
    app, settings = project() | {"version": "3.0.0"}, environment(stack) | {"release": {}}
    before = finished(exported(second(stack)), Slot.GREEN, 2)
    with suppress(Exception):
        deploy(
            app, settings, export=before, stack=stack, seen=seen, fail=lambda name: fail != "" and name.endswith(fail)
        )
    return seen


@cache
def histories(stack: str) -> list[tuple[str, Export, Slot, int]]:
    """Return checkpoints of a platform, each with the slot that is really live and the number of switches."""
    begun = finished(exported(first(stack)), Slot.BLUE, 1)
    again = finished(exported(second(stack)), Slot.GREEN, 2)
    failed = cut_short(again, third(stack, fail="blue-smoke"), "blue-smoke")
    killed = cut_short(again, third(stack))
    for resource in resources(killed):
        if resource["type"] == SWITCH:
            resource["outputs"] = {}
    return [("first", begun, Slot.BLUE, 1), ("second", again, Slot.GREEN, 2), ("failed", failed, Slot.GREEN, 2),
            ("killed after the switch", killed, Slot.BLUE, 3)]  # fmt: skip


def answer(stack: str, live: Slot, number: int) -> Routing:
    """Return the answer of a healthy platform: only Kubernetes records the number of switches."""
    return Routing(
        source="the platform", live=live, switches=None if stack == "dev" else number, running=frozenset(Slot)
    )


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_complete_checkpoint_needs_no_platform(stack: str, number: int) -> None:
    name, export, live, switches = histories(stack)[number]

    def ask() -> Routing:
        raise AssertionError("the platform was asked, which costs time in every preview")

    observed = settle(parse(export), ask)
    assert (observed.live, observed.switches, observed.missing) == (live, switches, False), name
    assert observe(parse(export)) == observed


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("number", range(4))
@given(data=st.data(), answers=st.booleans())
def test_after_any_loss_the_live_slot_is_kept_or_the_update_is_refused(
    stack: str, number: int, data: st.DataObject, answers: bool
) -> None:
    _, export, live, switches = histories(stack)[number]
    evidence = [
        resource
        for resource in resources(export)
        if resource["type"] in ("tiers:slot:Slot", SWITCH, STACK) or _says(resource)
    ]
    gone = data.draw(st.sets(st.sampled_from([entry["urn"] for entry in evidence])), label="entries that are lost")
    bare = data.draw(
        st.sets(st.sampled_from([entry["urn"] for entry in evidence])), label="entries that lost their outputs"
    )
    everything = data.draw(st.booleans(), label="all other entries are lost, too")
    left = [
        {**resource, "outputs": {}} if resource["urn"] in bare else resource
        for resource in resources(export)
        if resource["urn"] not in gone and not (everything and resource not in evidence)
    ]
    routing = answer(stack, live, switches) if answers else UNREACHABLE
    try:
        observed = settle(parse({"deployment": {"resources": left}}), lambda: routing)
    except ReleaseError as error:
        assert "neither slot is changed. The sources say:" in str(error)
        return
    done = plan(observed, NEXT)
    assert (observed.live, done.render) == (live, live.other)
    assert live in done.keep
    assert done.switches == switches + 1 or (stack == "dev" and done.switches <= switches + 1)


def _says(resource: Mapping[str, Any]) -> bool:
    """Tell whether a resource records the live slot."""
    return any(f'"{role}"' in str(resource["inputs"]).replace("'", '"') for role in ("switch", "smoke"))


def without(export: Export, *ends: str, outputs_of: Sequence[str] = ()) -> Export:
    """Return the checkpoint without resources whose URNs have these endings, and without the outputs of these types."""
    left = [resource for resource in resources(export) if not resource["urn"].endswith(ends)]
    return {
        "deployment": {
            "resources": [{**entry, "outputs": {}} if entry["type"] in outputs_of else entry for entry in left]
        }
    }


@pytest.mark.parametrize(("stack", "switch"), [("dev", "::switch-2"), ("staging", "HTTPRoute::board")])
def test_lost_switch_is_restored_and_the_next_release_goes_to_the_idle_slot(stack: str, switch: str) -> None:
    _, export, live, _ = histories(stack)[1]
    pruned = without(export, switch, "-smoke")
    app, settings = project() | {"version": "2.0.0"}, environment(stack) | {"release": {}}
    routing = answer(stack, live, 2)
    same = deploy(app, settings, export=pruned, stack=stack, routing=routing)
    [again] = [entry for entry in same if entry.custom and entry.urn.endswith(switch)]
    assert (again.labels["tiers.slot"], again.labels["tiers.switch"], again.ignores) == ("green", "2", ())
    assert {entry.name for entry in second(stack)} - {entry.name for entry in same} == {"blue-smoke", "green-smoke"}
    released = deploy(app | {"version": "3.0.0"}, settings, export=pruned, stack=stack, routing=routing)
    moves = {entry.labels["tiers.switch"]: entry for entry in released if entry.labels.get("tiers.role") == "switch"}
    assert {number: entry.labels["tiers.slot"] for number, entry in moves.items()} == {"2": "green", "3": "blue"}
    assert moves["2"].urn in moves["3"].waits_for
    assert not [urn for urn in moves["2"].waits_for if urn.endswith("-smoke")], (
        "the restored switch must not depend on the new release"
    )
    assert moves["2"].retained is (stack == "staging"), "the route is one object, which must not be deleted"


def test_substitute_of_a_lost_route_is_replaced_by_the_real_route() -> None:
    """On Kubernetes both are the same object: it must not be deleted."""
    _, export, live, _ = histories("staging")[1]
    pruned = without(export, "HTTPRoute::board")
    app, settings = project() | {"version": "2.0.0"}, environment("staging") | {"release": {}}
    seen: list[Registered] = []
    with pytest.raises(Exception, match="has failed"):
        deploy(app | {"version": "3.0.0"}, settings, export=pruned, stack="staging", seen=seen,
               fail=lambda name: name.endswith("smoke"), routing=answer("staging", live, 2))  # fmt: skip
    left = cut_short(pruned, seen)
    for resource in resources(left):
        resource["retainOnDelete"] = resource["urn"].endswith("::board-again")
    assert [resource["urn"].rpartition("::")[2] for resource in resources(left) if resource.get("retainOnDelete")] == [
        "board-again"
    ]
    settled = deploy(app, settings, export=left, stack="staging", routing=answer("staging", live, 2))
    route = settled.one("HTTPRoute", "board")
    assert (route.labels["tiers.slot"], route.labels["tiers.switch"], route.retained) == ("green", "2", False)
    assert "board-again" not in settled.by_name


def test_failed_releases_keep_the_journal() -> None:
    _, failed, _, _ = histories("dev")[2]
    assert [entry["number"] for entry in journal.entries(parse(failed))] == [1, 2]
    right = deploy(project() | {"version": "4.0.0"}, environment() | {"release": {}}, export=failed)
    [switch] = [entry for entry in right if entry.type == SWITCH]
    assert [entry["number"] for entry in switch.outputs["journal"]] == [1, 2, 3]


@pytest.mark.parametrize("failing", ["blue-api-migrate", "blue-smoke"])
def test_route_deleted_after_a_failed_release_is_restored_to_the_last_live_slot(failing: str) -> None:
    _, export, live, _ = histories("staging")[1]
    failed = cut_short(export, third("staging", fail=failing), failing)
    absent = Routing(source="the HTTPRoute", absent=True)
    for checkpoint in (failed, without(failed, "HTTPRoute::board")):
        observed = settle(parse(checkpoint), lambda: absent)
        assert (observed.live, observed.switches) == (live, 2)
        assert plan(observed, NEXT).render is live.other


def test_route_deleted_after_an_update_killed_at_the_switch_is_decided_by_a_person() -> None:
    _, killed, _, _ = histories("staging")[3]
    with pytest.raises(ReleaseError, match="TIERS_LIVE=blue make up"):
        settle(parse(without(killed, "HTTPRoute::board")), lambda: Routing(source="the HTTPRoute", absent=True))


@pytest.mark.parametrize("name", ["the state is lost", "the last switch is not where it was"])
def test_error_about_the_live_slot_lists_the_sources_and_the_command(name: str) -> None:
    _, export, live, _ = histories("dev")[1]
    if name == "the state is lost":
        with pytest.raises(
            ReleaseError, match=r"(?s)green is live, and the checkpoint does not hold it.*lost-state-file"
        ):
            deploy(export={}, routing=answer("dev", live, 2))
        return
    with pytest.raises(ReleaseError, match=r"(?s)contradict each other.*outputs of Switch: green.*the platform: blue is "
                       r"live.*TIERS_LIVE=blue make up ENV=dev"):  # fmt: skip
        deploy(export=without(export, "::switch-2"), routing=answer("dev", live.other, 2))


def test_tiers_live_names_the_live_slot_where_sources_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    _, export, live, _ = histories("dev")[3]
    doubtful = without(export, "::switch-2", "::switch-3")
    with pytest.raises(RunError, match="neither slot is changed"):
        deploy(export=doubtful, routing=UNREACHABLE)
    monkeypatch.setenv("TIERS_LIVE", str(live))
    app, settings = project() | {"version": "4.0.0"}, environment() | {"release": {}}
    released = deploy(app, settings, export=doubtful, routing=UNREACHABLE)
    assert released.by_name["switch-4"].labels["tiers.slot"] == "green"
    monkeypatch.setenv("TIERS_LIVE", "red")
    with pytest.raises(ReleaseError, match="TIERS_LIVE: there is no slot 'red'; use blue, green or none"):
        deploy(export=doubtful)
    assert [named_live({"TIERS_LIVE": name}) for name in ("", "none", "green")] == [False, None, Slot.GREEN]


@pytest.mark.parametrize("stack", STACKS)
def test_new_stack_has_no_live_slot(stack: str) -> None:
    assert settle(parse({}), partial(Routing, source="the platform", absent=True)).live is None
    stale = Routing(source="the platform", live=Slot.GREEN)
    assert settle(parse({}), lambda: stale).live is None, "the map file outlived the containers"
    with pytest.raises(ReleaseError, match="nothing says which slot is live"):
        settle(parse({}), lambda: UNREACHABLE)


@pytest.mark.parametrize("stack", STACKS)
def test_failed_first_release_is_retried(stack: str) -> None:
    seen: list[Registered] = []
    with suppress(Exception):
        deploy(stack=stack, seen=seen, fail=lambda name: name.endswith("smoke"))
    left = parse(cut_short({"deployment": {"resources": []}}, seen, "-smoke"))
    for absent in (True, False):
        observed = settle(left, partial(Routing, source="the platform", absent=absent))
        done = plan(observed, NEXT)
        assert (observed.live, done.render, done.switches) == (None, Slot.BLUE, 1)
