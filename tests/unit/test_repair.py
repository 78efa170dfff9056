"""Repair of a state: what leaves it, what is started, and that Pulumi would take the result. Real engines: tests/e2e/test_put_back.py."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.repair import is_to_run, plan_repair
from components import memory
from components.checkpoint import SLOT, observe, parse
from components.platforms.engine import with_remedy
from components.platforms.inventory import CONTAINER, IMAGE, Inventory, Location, key_of, locate, resources_of
from components.release import Slot

from . import program

State = dict[str, Any]
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:sealed"}


def deployed(stack: str) -> State:
    """The board with a standby, as `pulumi stack export` prints it: with ids, providers, and secrets that are encrypted."""
    state = program.exported(program.second(stack))
    by_urn = {each["urn"]: each for each in resources_of(state)}
    # The recording has a slot that stays in the order in which it was replayed.
    state["deployment"]["resources"] = [dict(by_urn[entry.urn]) for entry in memory.ordered(parse(state).entries)]
    provider = next(each for each in resources_of(state) if each["type"].startswith("pulumi:providers:"))
    for number, resource in enumerate(resources_of(state)):
        # The recording knows no encrypted values, so what it remembers is not what a state would.
        resource["outputs"] = {name: value for name, value in resource["outputs"].items() if name != memory.MADE}
        # Of a slot that stays the recording keeps what it depended on once, too.
        resource["dependencies"] = [urn for urn in resource["dependencies"] if urn in by_urn]
        if not resource["custom"]:
            continue
        metadata = resource["inputs"].get("metadata")
        resource["id"] = (
            f"{metadata.get('namespace', '')}/{metadata['name']}".lstrip("/") if metadata else f"id{number}"
        )
        if resource is not provider:
            resource["provider"] = f"{provider['urn']}::{provider['id']}"
        resource["propertyDependencies"] = {"some": resource["dependencies"][:1]}
        if "uploads" in resource["inputs"] and resource["urn"].endswith("-files"):
            resource["inputs"] = resource["inputs"] | {"uploads": SECRET}
        if resource["type"].endswith(":Secret"):
            resource["inputs"] = resource["inputs"] | {
                key: SECRET for key in ("data", "stringData") if key in resource["inputs"]
            }
    return state


def keys(state: State) -> list[str]:
    return [key for each in resources_of(state) if (key := key_of(each))]


def by_urn(state: State) -> dict[str, State]:
    return {each["urn"]: each for each in resources_of(state)}


def broken_references(state: State) -> list[str]:
    """What `pulumi stack import` would refuse: a reference to a resource that does not come before it."""
    seen, broken = set[str](), list[str]()
    for each in resources_of(state):
        named = [
            each.get("parent") or "",
            str(each.get("provider") or "").rpartition("::")[0],
            each.get("deletedWith") or "",
        ]
        named += each.get("dependencies") or []
        named += [urn for urns in (each.get("propertyDependencies") or {}).values() for urn in urns]
        broken += [f"{each['urn']} → {urn}" for urn in named if urn and urn not in seen]
        seen.add(each["urn"])
    return broken


class Quiet(dict[str, Any]):
    """A state that a failing test does not print."""

    def __repr__(self) -> str:
        return "state"


@pytest.fixture(scope="module", params=["dev", "staging"])
def state(request: pytest.FixtureRequest) -> State:
    made = deployed(request.param)
    # The stack's own resource is registered by Pulumi, not by the program.
    root = min((each.get("parent", "") for each in resources_of(made)), key=len)
    first = {"urn": root, "type": "pulumi:pulumi:Stack", "custom": False, "inputs": {}, "outputs": {}}
    made["deployment"]["resources"].insert(0, first)
    assert not broken_references(made)
    return Quiet(made)


@given(st.data())
def test_repair_of_any_loss_keeps_what_exists_and_leaves_no_broken_reference(state: State, data: st.DataObject) -> None:
    everything = keys(state)
    gone = data.draw(st.sets(st.sampled_from(everything), max_size=12))
    stopped = data.draw(st.sets(st.sampled_from([key for key in everything if key not in gone]), max_size=4))
    found = Inventory(keys=frozenset(everything) - gone, stopped=dict.fromkeys(stopped, "exited"))
    repaired = plan_repair(state, found)
    before, after = by_urn(state), by_urn(repaired.state)
    dropped = before.keys() - after.keys()
    assert {key_of(before[urn]) for urn in dropped} == gone
    assert not broken_references(repaired.state)
    assert set(repaired.start) <= stopped
    assert repaired.changes_state == bool(gone)
    assert {urn: each["inputs"] for urn, each in after.items()} == {urn: before[urn]["inputs"] for urn in after}
    # Nothing more is to be done, and doing it again changes nothing.
    again = plan_repair(repaired.state, found)
    assert again.state == repaired.state
    assert not again.dropped


@given(st.data())
def test_slot_remembers_each_lasting_resource_that_is_gone(state: State, data: st.DataObject) -> None:
    """Its inputs without the secrets, and all that it depends on."""
    known = parse(state)
    inside = [entry.urn for slot in Slot for entry in known.below(slot, SLOT) if entry.custom]
    urns = data.draw(st.sets(st.sampled_from(inside), min_size=1, max_size=6))
    gone = {key_of(by_urn(state)[urn]) for urn in urns}
    repaired = parse(plan_repair(state, Inventory(keys=frozenset(keys(state)) - gone)).state)
    for slot in Slot:
        remembered = {entry.urn: entry for entry in memory.recall(repaired, slot)}
        for entry in known.below(slot, SLOT):
            if entry.urn in urns:
                assert (entry.urn in remembered) == memory.is_memorable(entry)
            if (back := remembered.get(entry.urn)) and not back.sealed:
                assert back.inputs == entry.inputs
                assert (back.type, back.parent, back.dependencies) == (entry.type, entry.parent, entry.dependencies)


@given(st.data())
def test_who_is_live_and_what_passed_its_gates_is_known_after_any_loss(state: State, data: st.DataObject) -> None:
    everything = keys(state)
    gone = data.draw(
        st.sets(st.sampled_from([key for key in everything if "switch" in key or "smoke" in key] or everything))
    )
    gone |= data.draw(st.sets(st.sampled_from(everything), max_size=8))
    before = observe(parse(state))
    after = observe(parse(plan_repair(state, Inventory(keys=frozenset(everything) - gone)).state))
    assert (after.live, after.switches) == (before.live, before.switches)
    assert {slot: held.proven for slot, held in after.held.items()} == {
        slot: held.proven for slot, held in before.held.items()
    }


def test_memory_of_a_slot_holds_no_secret(state: State) -> None:
    known = parse(state)
    everything = frozenset(keys(state))
    inside = {key_of(by_urn(state)[entry.urn]) for slot in Slot for entry in known.below(slot, SLOT)}
    repaired = parse(plan_repair(state, Inventory(keys=everything - inside)).state)
    text = json.dumps([entry.outputs for entry in repaired.entries if entry.type == SLOT])
    assert "tiers.slot" in text
    assert "ciphertext" not in text
    for value in program.SECRETS.values():
        assert value not in text


def test_release_that_failed_a_gate_is_not_started() -> None:
    state = deployed("dev")
    containers = [each for each in resources_of(state) if each["type"] == CONTAINER and is_to_run(each)]
    stopped = Inventory(keys=frozenset(keys(state)), stopped={str(key_of(each)): "exited" for each in containers})
    assert len(plan_repair(state, stopped).start) == len(containers)
    idle = observe(parse(state)).live.other  # pyright: ignore[reportOptionalMemberAccess]
    for each in resources_of(state):
        if each["urn"].endswith(f"{idle}-smoke"):
            each["outputs"] = {"exitCode": 1}
        elif each["urn"].endswith(f"::{idle}"):
            each["outputs"] = {}
    started = set(plan_repair(state, stopped).start)
    of_idle = {key_of(each) for each in containers if f"::{idle}-" in each["urn"]}
    assert of_idle
    assert not started & of_idle
    assert started == {key_of(each) for each in containers} - of_idle


def test_one_shot_that_has_ended_is_not_started() -> None:
    state = deployed("dev")
    ended = {
        str(key_of(each)): "exited" for each in resources_of(state) if each["type"] == CONTAINER and not is_to_run(each)
    }
    assert len(ended) > 4
    assert not plan_repair(state, Inventory(keys=frozenset(keys(state)), stopped=ended)).start


@pytest.mark.parametrize("protected", [True, False])
def test_lost_data_volume_is_named_if_it_is_protected(protected: bool) -> None:
    state = deployed("dev")
    [volume] = [each for each in resources_of(state) if each["urn"].endswith("::database-data")]
    volume["protect"] = protected
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state)) - {str(key_of(volume))}))
    assert repaired.data == (("Volume database-data",) if protected else ())
    assert repaired.dropped == ("Volume database-data",)


def test_platform_without_anything_of_the_stack_is_recognised(state: State) -> None:
    assert plan_repair(state, Inventory()).nothing_found
    assert not plan_repair(state, Inventory(keys=frozenset(keys(state)[:1]))).nothing_found
    assert not plan_repair({"deployment": {"resources": []}}, Inventory()).nothing_found


def test_leftover_of_a_replacement_leaves_the_state_once_it_is_gone() -> None:
    """With the stand-in for the docker plugin a container that is not there can't be deleted, so each update failed."""
    state = deployed("dev")
    [web] = [each for each in resources_of(state) if each["urn"].endswith("::blue-web-1")]
    waiting = web | {"id": "gone", "pendingReplacement": True}
    leftover = web | {"id": "gone-too", "delete": True}
    resources = resources_of(state)
    state["deployment"]["resources"] = [waiting if each is web else each for each in resources] + [leftover]
    there = frozenset(keys(state)) - {"container gone", "container gone-too"}
    assert not [
        each for each in resources_of(plan_repair(state, Inventory(keys=there)).state) if each["urn"] == web["urn"]
    ]


def test_kind_that_could_not_be_listed_stays() -> None:
    state = deployed("staging")
    repaired = plan_repair(state, Inventory(kinds=frozenset({"Deployment"})))
    assert repaired.dropped
    assert {name.partition(" ")[0] for name in repaired.dropped} == {"Deployment"}


@pytest.mark.parametrize(
    ("stack", "location"),
    [
        ("dev", Location(app="board", stack="dev", host="unix:///var/run/docker.sock")),
        ("staging", Location(app="board", stack="staging", context="lab", namespace="board-staging")),
    ],
)
def test_platform_is_read_from_the_state(stack: str, location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    state = deployed(stack)
    for each in resources_of(state):
        if each["type"] == "tiers:kubernetes:Ground":
            each["outputs"] = {"namespace": "board-staging"}
    assert locate(state, stack) == location
    assert locate({"deployment": {"resources": []}}, stack) is None


def test_image_is_known_by_its_id_not_by_its_name() -> None:
    assert (
        key_of({"type": IMAGE, "custom": True, "id": "sha256:1a:2", "outputs": {"imageId": "sha256:1"}})
        == "image sha256:1"
    )
    assert key_of({"type": IMAGE, "custom": True, "id": "sha256:1a:2", "outputs": {}}) is None


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_kept_slot_puts_back_what_its_memory_has_and_the_state_lost(stack: str) -> None:
    """Whether healing took it out of the state, or a refresh did."""
    state = deployed(stack)
    known = parse(state)
    live = observe(known).live
    assert live
    lost = [entry for entry in known.below(live, SLOT) if entry.runs and entry.tier == "web"]
    assert lost
    gone = {key_of(by_urn(state)[entry.urn]) for entry in lost}
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state)) - gone)).state
    settings = program.environment(stack) | {"release": {}}
    again = program.deploy(program.project() | {"version": "2.0.0"}, settings, export=repaired, stack=stack)
    for entry in lost:
        back = again.by_urn[entry.urn]
        assert back.ignores != ("*",)
        assert back.inputs == dict(entry.inputs)
        assert back.parent == entry.parent


def test_kept_slot_that_is_whole_is_left_alone() -> None:
    again = program.deploy(
        program.project() | {"version": "2.0.0"}, program.environment("dev") | {"release": {}}, export=deployed("dev")
    )
    kept = [each for each in again if each.custom and again.inside(each, SLOT)]
    assert kept
    assert all(each.ignores == ("*",) for each in kept)


def test_live_slot_that_cannot_be_put_back_is_released_anew_to_the_other_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its image is gone with its containers: what is asked for is what was live, and yet there is something to do."""
    state = deployed("dev")
    known = parse(state)
    live = observe(known).live
    assert live
    lost = [entry for entry in known.below(live, SLOT) if entry.runs and entry.tier == "web"]
    gone = {key_of(by_urn(state)[entry.urn]) for entry in lost}
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state)) - gone)).state
    settings = program.environment("dev") | {"release": {}}
    again = program.deploy(
        program.project() | {"version": "2.0.0"},
        settings,
        export=repaired,
        absent={str(entry.inputs["image"]) for entry in lost},
    )
    assert not [entry for entry in lost if entry.urn in again.by_urn]
    made = {each.labels.get("tiers.slot") for each in again if each.runs and each.labels.get("tiers.role") == "tier"}
    assert str(live.other) in made
    assert f"switch-{observe(known).switches + 1}" in again.by_name


@pytest.mark.parametrize("asked", ["configured", "previous"])
def test_way_back_works_with_the_settings_of_the_last_update_if_the_files_are_wrong(
    asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = deployed("dev")
    wrong = program.environment("dev") | {"tiers": {"api": {"nothing": 1}}}
    monkeypatch.setenv("TIERS_RELEASE", asked)
    if asked == "previous":
        again = program.deploy(program.project(), wrong, export=state)
        assert f"switch-{observe(parse(state)).switches + 1}" in again.by_name
    else:
        with pytest.raises(Exception, match="nothing"):
            program.deploy(program.project(), wrong, export=state)


def test_settings_in_the_state_hold_no_secret_in_plain() -> None:
    outputs = [each["outputs"] for each in resources_of(deployed("dev")) if not each["custom"]]
    text = json.dumps(outputs)
    assert '\\"environment\\"' in text
    for value in program.SECRETS.values():
        assert value not in text


@pytest.mark.parametrize(
    ("cause", "helped"),
    [
        ("Error stopping container 1f: Error response from daemon: No such container: 1f", True),
        ("Error response from daemon: get board-dev-data: no such volume", True),
        ("it is not healthy within 20s", False),
    ],
)
def test_error_of_a_plain_update_names_the_command_that_heals(cause: str, helped: bool) -> None:
    assert ("`make heal ENV=dev`" in with_remedy(cause, "dev")) == helped


def test_resource_of_a_kept_slot_that_never_became_ready_holds_up_no_release(state: State) -> None:
    """Pulumi waits for a resource with errors of its creation in every update, and each would fail."""
    broken = json.loads(json.dumps(state))
    known = parse(broken)
    live = observe(known).live
    [urn, *_] = [entry.urn for entry in known.below(live, SLOT) if entry.runs]  # pyright: ignore[reportArgumentType]
    by_urn(broken)[urn]["initErrors"] = ["it never became ready"]
    repaired = plan_repair(broken, Inventory(keys=frozenset(keys(broken))))
    assert repaired.changes_state
    assert "initErrors" not in by_urn(repaired.state)[urn]
    assert not plan_repair(repaired.state, Inventory(keys=frozenset(keys(broken)))).changes_state
