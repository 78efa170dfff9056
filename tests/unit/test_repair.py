"""Repair of a state: resources that leave it, containers that are started, and a result that Pulumi imports.

Real engines are tested in tests/e2e/test_put_back.py.
"""

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
    """Return the board's state with a standby as `pulumi stack export` prints it, with ids, providers and encrypted secrets."""
    state = program.exported(program.second(stack))
    by_urn = {resource["urn"]: resource for resource in resources_of(state)}
    # The recording has a kept slot in the order of its replay.
    state["deployment"]["resources"] = [dict(by_urn[entry.urn]) for entry in memory.ordered(parse(state).entries)]
    provider = next(resource for resource in resources_of(state) if resource["type"].startswith("pulumi:providers:"))
    for number, resource in enumerate(resources_of(state)):
        # The recording has no encrypted values, so its memory of a slot differs from that of a real state.
        resource["outputs"] = {name: value for name, value in resource["outputs"].items() if name != memory.MADE}
        # The recording keeps old dependencies of a kept slot.
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
    return [key for resource in resources_of(state) if (key := key_of(resource))]


def by_urn(state: State) -> dict[str, State]:
    return {resource["urn"]: resource for resource in resources_of(state)}


def broken_references(state: State) -> list[str]:
    """Return the references that `pulumi stack import` would refuse: those to a resource that does not come earlier."""
    seen, broken = set[str](), list[str]()
    for resource in resources_of(state):
        named = [
            resource.get("parent") or "",
            str(resource.get("provider") or "").rpartition("::")[0],
            resource.get("deletedWith") or "",
        ]
        named += resource.get("dependencies") or []
        named += [urn for urns in (resource.get("propertyDependencies") or {}).values() for urn in urns]
        broken += [f"{resource['urn']} → {urn}" for urn in named if urn and urn not in seen]
        seen.add(resource["urn"])
    return broken


class Quiet(dict[str, Any]):
    """State that a failing test does not print."""

    def __repr__(self) -> str:
        return "state"


@pytest.fixture(scope="module", params=["dev", "staging"])
def state(request: pytest.FixtureRequest) -> State:
    exported = deployed(request.param)
    # Pulumi registers the stack's own resource, not the program.
    root = min((resource.get("parent", "") for resource in resources_of(exported)), key=len)
    first = {"urn": root, "type": "pulumi:pulumi:Stack", "custom": False, "inputs": {}, "outputs": {}}
    exported["deployment"]["resources"].insert(0, first)
    assert not broken_references(exported)
    return Quiet(exported)


@given(st.data())
def test_repair_of_any_loss_keeps_what_exists_and_leaves_no_broken_reference(state: State, data: st.DataObject) -> None:
    everything = keys(state)
    gone = data.draw(st.sets(st.sampled_from(everything), max_size=12))
    stopped = data.draw(st.sets(st.sampled_from([key for key in everything if key not in gone]), max_size=4))
    inventory = Inventory(keys=frozenset(everything) - gone, stopped=dict.fromkeys(stopped, "exited"))
    repaired = plan_repair(state, inventory)
    before, after = by_urn(state), by_urn(repaired.state)
    dropped = before.keys() - after.keys()
    assert {key_of(before[urn]) for urn in dropped} == gone
    assert not broken_references(repaired.state)
    assert set(repaired.start) <= stopped
    assert repaired.changes_state == bool(gone)
    assert {urn: entry["inputs"] for urn, entry in after.items()} == {urn: before[urn]["inputs"] for urn in after}
    # A second repair changes nothing.
    again = plan_repair(repaired.state, inventory)
    assert again.state == repaired.state
    assert not again.dropped


@given(st.data())
def test_slot_remembers_each_lost_resource_that_it_needs_again(state: State, data: st.DataObject) -> None:
    """The slot remembers their inputs without secrets, and all their dependencies."""
    checkpoint = parse(state)
    inside = [entry.urn for slot in Slot for entry in checkpoint.below(slot, SLOT) if entry.custom]
    urns = data.draw(st.sets(st.sampled_from(inside), min_size=1, max_size=6))
    gone = {key_of(by_urn(state)[urn]) for urn in urns}
    repaired = parse(plan_repair(state, Inventory(keys=frozenset(keys(state)) - gone)).state)
    for slot in Slot:
        remembered = {entry.urn: entry for entry in memory.recall(repaired, slot)}
        for entry in checkpoint.below(slot, SLOT):
            if entry.urn in urns:
                assert (entry.urn in remembered) == memory.is_memorable(entry)
            if (back := remembered.get(entry.urn)) and not back.sealed:
                assert back.inputs == entry.inputs
                assert (back.type, back.parent, back.dependencies) == (entry.type, entry.parent, entry.dependencies)


@given(st.data())
def test_live_slot_and_passed_gates_are_known_after_any_loss(state: State, data: st.DataObject) -> None:
    everything = keys(state)
    gone = data.draw(
        st.sets(st.sampled_from([key for key in everything if "switch" in key or "smoke" in key] or everything))
    )
    gone |= data.draw(st.sets(st.sampled_from(everything), max_size=8))
    before = observe(parse(state))
    after = observe(parse(plan_repair(state, Inventory(keys=frozenset(everything) - gone)).state))
    assert (after.live, after.switches) == (before.live, before.switches)
    assert {slot: state_of_slot.proven for slot, state_of_slot in after.held.items()} == {
        slot: state_of_slot.proven for slot, state_of_slot in before.held.items()
    }


def test_memory_of_a_slot_holds_no_secret(state: State) -> None:
    checkpoint = parse(state)
    everything = frozenset(keys(state))
    inside = {key_of(by_urn(state)[entry.urn]) for slot in Slot for entry in checkpoint.below(slot, SLOT)}
    repaired = parse(plan_repair(state, Inventory(keys=everything - inside)).state)
    text = json.dumps([entry.outputs for entry in repaired.entries if entry.type == SLOT])
    assert "tiers.slot" in text
    assert "ciphertext" not in text
    for value in program.SECRETS.values():
        assert value not in text


def test_containers_of_a_failed_release_are_not_started() -> None:
    state = deployed("dev")
    containers = [resource for resource in resources_of(state) if resource["type"] == CONTAINER and is_to_run(resource)]
    stopped = Inventory(keys=frozenset(keys(state)), stopped={str(key_of(entry)): "exited" for entry in containers})
    assert len(plan_repair(state, stopped).start) == len(containers)
    idle = observe(parse(state)).live.other  # pyright: ignore[reportOptionalMemberAccess]
    for resource in resources_of(state):
        if resource["urn"].endswith(f"{idle}-smoke"):
            resource["outputs"] = {"exitCode": 1}
        elif resource["urn"].endswith(f"::{idle}"):
            resource["outputs"] = {}
    started = set(plan_repair(state, stopped).start)
    of_idle = {key_of(entry) for entry in containers if f"::{idle}-" in entry["urn"]}
    assert of_idle
    assert not started & of_idle
    assert started == {key_of(entry) for entry in containers} - of_idle


def test_ended_one_shot_container_is_not_started() -> None:
    state = deployed("dev")
    ended = {
        str(key_of(resource)): "exited"
        for resource in resources_of(state)
        if resource["type"] == CONTAINER and not is_to_run(resource)
    }
    assert len(ended) > 4
    assert not plan_repair(state, Inventory(keys=frozenset(keys(state)), stopped=ended)).start


@pytest.mark.parametrize("protected", [True, False])
def test_lost_data_volume_is_named_if_it_is_protected(protected: bool) -> None:
    state = deployed("dev")
    [volume] = [resource for resource in resources_of(state) if resource["urn"].endswith("::database-data")]
    volume["protect"] = protected
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state)) - {str(key_of(volume))}))
    assert repaired.data == (("Volume database-data",) if protected else ())
    assert repaired.dropped == ("Volume database-data",)


def test_platform_without_any_object_of_the_stack_is_recognised(state: State) -> None:
    assert plan_repair(state, Inventory()).nothing_found
    assert not plan_repair(state, Inventory(keys=frozenset(keys(state)[:1]))).nothing_found
    assert not plan_repair({"deployment": {"resources": []}}, Inventory()).nothing_found


def test_missing_leftover_of_a_replacement_leaves_the_state() -> None:
    """With the stand-in for the docker plugin a missing container can't be deleted, so every update failed."""
    state = deployed("dev")
    [web] = [resource for resource in resources_of(state) if resource["urn"].endswith("::blue-web-1")]
    waiting = web | {"id": "gone", "pendingReplacement": True}
    leftover = web | {"id": "gone-too", "delete": True}
    resources = resources_of(state)
    state["deployment"]["resources"] = [waiting if resource is web else resource for resource in resources] + [leftover]
    existing = frozenset(keys(state)) - {"container gone", "container gone-too"}
    assert not [
        resource
        for resource in resources_of(plan_repair(state, Inventory(keys=existing)).state)
        if resource["urn"] == web["urn"]
    ]


def test_resources_of_a_kind_that_could_not_be_listed_stay() -> None:
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
    for resource in resources_of(state):
        if resource["type"] == "tiers:kubernetes:Ground":
            resource["outputs"] = {"namespace": "board-staging"}
    assert locate(state, stack) == location
    assert locate({"deployment": {"resources": []}}, stack) is None


def test_image_is_identified_by_its_id_not_by_its_name() -> None:
    assert (
        key_of({"type": IMAGE, "custom": True, "id": "sha256:1a:2", "outputs": {"imageId": "sha256:1"}})
        == "image sha256:1"
    )
    assert key_of({"type": IMAGE, "custom": True, "id": "sha256:1a:2", "outputs": {}}) is None


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_kept_slot_restores_lost_resources_from_its_memory(stack: str) -> None:
    """It does not matter if healing or a refresh removed the resources from the state."""
    state = deployed(stack)
    checkpoint = parse(state)
    live = observe(checkpoint).live
    assert live
    lost = [entry for entry in checkpoint.below(live, SLOT) if entry.runs and entry.tier == "web"]
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


def test_complete_kept_slot_is_left_alone() -> None:
    again = program.deploy(
        program.project() | {"version": "2.0.0"}, program.environment("dev") | {"release": {}}, export=deployed("dev")
    )
    replayed = [entry for entry in again if entry.custom and again.inside(entry, SLOT)]
    assert replayed
    assert all(entry.ignores == ("*",) for entry in replayed)


def test_live_slot_that_cannot_be_restored_is_released_to_the_other_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image of the containers is gone, too. The requested release is the live one, and still a release is needed."""
    state = deployed("dev")
    checkpoint = parse(state)
    live = observe(checkpoint).live
    assert live
    lost = [entry for entry in checkpoint.below(live, SLOT) if entry.runs and entry.tier == "web"]
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
    slots = {
        entry.labels.get("tiers.slot") for entry in again if entry.runs and entry.labels.get("tiers.role") == "tier"
    }
    assert str(live.other) in slots
    assert f"switch-{observe(checkpoint).switches + 1}" in again.by_name


@pytest.mark.parametrize("action", ["configured", "previous"])
def test_rollback_uses_the_settings_of_the_last_update_if_the_files_are_wrong(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = deployed("dev")
    wrong = program.environment("dev") | {"tiers": {"api": {"nothing": 1}}}
    monkeypatch.setenv("TIERS_RELEASE", action)
    if action == "previous":
        again = program.deploy(program.project(), wrong, export=state)
        assert f"switch-{observe(parse(state)).switches + 1}" in again.by_name
    else:
        with pytest.raises(Exception, match="nothing"):
            program.deploy(program.project(), wrong, export=state)


def test_settings_in_the_state_hold_no_secret_in_plain() -> None:
    outputs = [resource["outputs"] for resource in resources_of(deployed("dev")) if not resource["custom"]]
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
def test_error_of_a_plain_update_names_make_heal(cause: str, helped: bool) -> None:
    assert ("`make heal ENV=dev`" in with_remedy(cause, "dev")) == helped


def test_resource_of_a_kept_slot_with_creation_errors_blocks_no_release(state: State) -> None:
    """In every update Pulumi waits for a resource with creation errors, so every update would fail."""
    broken = json.loads(json.dumps(state))
    checkpoint = parse(broken)
    live = observe(checkpoint).live
    [urn, *_] = [entry.urn for entry in checkpoint.below(live, SLOT) if entry.runs]  # pyright: ignore[reportArgumentType]
    by_urn(broken)[urn]["initErrors"] = ["it never became ready"]
    repaired = plan_repair(broken, Inventory(keys=frozenset(keys(broken))))
    assert repaired.changes_state
    assert "initErrors" not in by_urn(repaired.state)[urn]
    assert not plan_repair(repaired.state, Inventory(keys=frozenset(keys(broken)))).changes_state


def test_whole_amount_of_processors_is_stored_as_the_provider_reads_it() -> None:
    state = deployed("dev")
    [container] = [resource for resource in resources_of(state) if resource["urn"].endswith("::database-1")]
    container["inputs"] = container["inputs"] | {"cpus": "1"}
    container["outputs"] = container["outputs"] | {"cpus": "1.0"}
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state))))
    assert repaired.respelled == ("Container database-1",)
    assert repaired.changes_state
    mended = by_urn(repaired.state)[container["urn"]]
    assert (mended["inputs"]["cpus"], mended["outputs"]["cpus"]) == ("1.0", "1.0")
    assert not plan_repair(repaired.state, Inventory(keys=frozenset(keys(state)))).changes_state
