"""Tests of the state repair, which drops lost resources from Pulumi's state and selects stopped containers to start.

These tests use a mock of Pulumi's engine, whereas tests/e2e/test_put_back.py uses a real Docker engine and cluster.
"""

import json
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.repair import keeps_running, plan_repair
from components.platforms.docker.errors import with_remedy
from components.platforms.inventory import CONTAINER, IMAGE, Inventory, Location, key_of, locate, resources_of
from components.release import memory
from components.release.checkpoint import SLOT, observe, parse
from components.release.planner import Slot

from . import program

State = dict[str, Any]
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:sealed"}


def exported_state(stack: str) -> State:
    """Return a state of the application `board` with a live and a standby slot, in the format of `pulumi stack export`.

    The state also contains what the mock engine omits: resource ids, providers and encrypted secrets.
    """
    state = program.checkpoint_of(program.second_release(stack))
    by_urn = {resource["urn"]: resource for resource in resources_of(state)}
    # Put dependencies first, as in a real state, because the mock engine uses another order.
    state["deployment"]["resources"] = [
        dict(by_urn[entry.urn]) for entry in memory.sort_by_dependencies(parse(state).entries)
    ]
    provider = next(resource for resource in resources_of(state) if resource["type"].startswith("pulumi:providers:"))
    for number, resource in enumerate(resources_of(state)):
        # Remove the copies of resources that each slot stores. The mock engine encrypts no secrets, so these copies
        # differ from the copies in a real state.
        resource["outputs"] = {name: value for name, value in resource["outputs"].items() if name != memory.MEMORY}
        # Remove dependencies on deleted resources, because the mock engine leaves such dependencies in the standby.
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
    """Return each reference to a missing resource, or to a resource that comes later in the state, as `URN → URN`.

    `pulumi stack import` refuses a state with such references.
    """
    earlier, broken = set[str](), list[str]()
    for resource in resources_of(state):
        referenced = [
            resource.get("parent") or "",
            str(resource.get("provider") or "").rpartition("::")[0],
            resource.get("deletedWith") or "",
        ]
        referenced += resource.get("dependencies") or []
        referenced += [urn for urns in (resource.get("propertyDependencies") or {}).values() for urn in urns]
        broken += [f"{resource['urn']} → {urn}" for urn in referenced if urn and urn not in earlier]
        earlier.add(resource["urn"])
    return broken


class ShortState(dict[str, Any]):
    """State that is printed as the word `state`, to keep the output of a failed test short."""

    def __repr__(self) -> str:
        return "state"


@pytest.fixture(scope="module", params=["dev", "staging"])
def state(request: pytest.FixtureRequest) -> State:
    complete_state = exported_state(request.param)
    # Add the resource of the stack itself, because only Pulumi's real engine registers this resource.
    root = min((resource.get("parent", "") for resource in resources_of(complete_state)), key=len)
    first = {"urn": root, "type": "pulumi:pulumi:Stack", "custom": False, "inputs": {}, "outputs": {}}
    complete_state["deployment"]["resources"].insert(0, first)
    assert not broken_references(complete_state)
    return ShortState(complete_state)


@given(st.data())
def test_state_repair_after_any_loss_drops_only_the_missing_resources_from_the_state(
    state: State, data: st.DataObject
) -> None:
    all_keys = keys(state)
    missing = data.draw(st.sets(st.sampled_from(all_keys), max_size=12))
    stopped = data.draw(st.sets(st.sampled_from([key for key in all_keys if key not in missing]), max_size=4))
    inventory = Inventory(keys=frozenset(all_keys) - missing, stopped=dict.fromkeys(stopped, "exited"))
    repaired = plan_repair(state, inventory)
    before, after = by_urn(state), by_urn(repaired.state)
    dropped = before.keys() - after.keys()
    assert {key_of(before[urn]) for urn in dropped} == missing
    assert not broken_references(repaired.state)
    assert set(repaired.start) <= stopped
    assert repaired.changes_state == bool(missing)
    assert {urn: entry["inputs"] for urn, entry in after.items()} == {urn: before[urn]["inputs"] for urn in after}
    # A second repair changes nothing.
    second_repair = plan_repair(repaired.state, inventory)
    assert second_repair.state == repaired.state
    assert not second_repair.dropped


@given(st.data())
def test_stored_copies_of_a_slot_contain_every_lost_resource_that_the_slot_needs(
    state: State, data: st.DataObject
) -> None:
    """Check that each lost resource of a slot has a stored copy. Gates have no copy.

    If a resource has no secret inputs, its copy must have the same inputs, type, parent and dependencies.
    """
    checkpoint = parse(state)
    inside = [entry.urn for slot in Slot for entry in checkpoint.descendants(slot, SLOT) if entry.custom]
    urns = data.draw(st.sets(st.sampled_from(inside), min_size=1, max_size=6))
    missing = {key_of(by_urn(state)[urn]) for urn in urns}
    repaired = parse(plan_repair(state, Inventory(keys=frozenset(keys(state)) - missing)).state)
    for slot in Slot:
        remembered = {entry.urn: entry for entry in memory.recall(repaired, slot)}
        for entry in checkpoint.descendants(slot, SLOT):
            if entry.urn in urns:
                assert (entry.urn in remembered) == memory.is_memorable(entry)
            if (restored := remembered.get(entry.urn)) and not restored.sealed:
                assert restored.inputs == entry.inputs
                assert (restored.type, restored.parent, restored.dependencies) == (
                    entry.type,
                    entry.parent,
                    entry.dependencies,
                )


@given(st.data())
def test_state_repair_after_any_loss_preserves_the_live_slot_and_the_passed_gates(
    state: State, data: st.DataObject
) -> None:
    all_keys = keys(state)
    missing = data.draw(
        st.sets(st.sampled_from([key for key in all_keys if "switch" in key or "smoke" in key] or all_keys))
    )
    missing |= data.draw(st.sets(st.sampled_from(all_keys), max_size=8))
    before = observe(parse(state))
    after = observe(parse(plan_repair(state, Inventory(keys=frozenset(all_keys) - missing)).state))
    assert (after.live, after.switches) == (before.live, before.switches)
    assert {slot: state_of_slot.proven for slot, state_of_slot in after.slots.items()} == {
        slot: state_of_slot.proven for slot, state_of_slot in before.slots.items()
    }


def test_stored_copies_of_a_slot_contain_no_secret(state: State) -> None:
    checkpoint = parse(state)
    all_keys = frozenset(keys(state))
    inside = {key_of(by_urn(state)[entry.urn]) for slot in Slot for entry in checkpoint.descendants(slot, SLOT)}
    repaired = parse(plan_repair(state, Inventory(keys=all_keys - inside)).state)
    text = json.dumps([entry.outputs for entry in repaired.entries if entry.type == SLOT])
    assert "tiers.slot" in text
    assert "ciphertext" not in text
    for value in program.SECRETS.values():
        assert value not in text


def test_state_repair_does_not_start_containers_of_a_failed_release() -> None:
    state = exported_state("dev")
    containers = [
        resource for resource in resources_of(state) if resource["type"] == CONTAINER and keeps_running(resource)
    ]
    stopped = Inventory(keys=frozenset(keys(state)), stopped={str(key_of(entry)): "exited" for entry in containers})
    assert len(plan_repair(state, stopped).start) == len(containers)
    idle = observe(parse(state)).live.other  # pyright: ignore[reportOptionalMemberAccess]
    for resource in resources_of(state):
        if resource["urn"].endswith(f"{idle}-smoke"):
            resource["outputs"] = {"exitCode": 1}
        elif resource["urn"].endswith(f"::{idle}"):
            resource["outputs"] = {}
    started = set(plan_repair(state, stopped).start)
    idle_containers = {key_of(entry) for entry in containers if f"::{idle}-" in entry["urn"]}
    assert idle_containers
    assert not started & idle_containers
    assert started == {key_of(entry) for entry in containers} - idle_containers


def test_state_repair_does_not_start_a_one_shot_container_that_has_ended() -> None:
    state = exported_state("dev")
    ended = {
        str(key_of(resource)): "exited"
        for resource in resources_of(state)
        if resource["type"] == CONTAINER and not keeps_running(resource)
    }
    assert len(ended) > 4
    assert not plan_repair(state, Inventory(keys=frozenset(keys(state)), stopped=ended)).start


@pytest.mark.parametrize("protected", [True, False])
def test_state_repair_reports_the_loss_of_a_protected_data_volume(protected: bool) -> None:
    state = exported_state("dev")
    [volume] = [resource for resource in resources_of(state) if resource["urn"].endswith("::database-data")]
    volume["protect"] = protected
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state)) - {str(key_of(volume))}))
    assert repaired.data == (("Volume database-data",) if protected else ())
    assert repaired.dropped == ("Volume database-data",)


def test_state_repair_reports_a_platform_without_any_object_of_the_stack(state: State) -> None:
    assert plan_repair(state, Inventory()).nothing_found
    assert not plan_repair(state, Inventory(keys=frozenset(keys(state)[:1]))).nothing_found
    assert not plan_repair({"deployment": {"resources": []}}, Inventory()).nothing_found


def test_missing_container_of_an_unfinished_replacement_is_dropped_from_the_state() -> None:
    """Check a missing container that Pulumi would replace, and a missing container that Pulumi would delete.

    If the state still contained these containers, every update would fail, because the Docker provider can't delete a
    missing container.
    """
    state = exported_state("dev")
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


def test_resources_stay_in_the_state_if_the_platform_could_not_list_objects_of_their_kind() -> None:
    state = exported_state("staging")
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
def test_location_of_a_stack_on_docker_or_kubernetes_is_read_from_the_state(
    stack: str, location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    state = exported_state(stack)
    for resource in resources_of(state):
        if resource["type"] == "tiers:kubernetes:Ground":
            resource["outputs"] = {"namespace": "board-staging"}
    assert locate(state, stack) == location
    assert locate({"deployment": {"resources": []}}, stack) is None


def test_state_repair_identifies_a_docker_image_by_its_id_and_not_by_its_name() -> None:
    assert (
        key_of({"type": IMAGE, "custom": True, "id": "sha256:1a:2", "outputs": {"imageId": "sha256:1"}})
        == "image sha256:1"
    )
    assert key_of({"type": IMAGE, "custom": True, "id": "sha256:1a:2", "outputs": {}}) is None


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_update_restores_lost_resources_of_an_unchanged_slot_from_stored_copies(stack: str) -> None:
    """Check that an update creates the lost resources of a slot again, although the release does not change the slot.

    Before this update, the repair drops the lost resources from the state.
    """
    state = exported_state(stack)
    checkpoint = parse(state)
    live = observe(checkpoint).live
    assert live
    lost = [entry for entry in checkpoint.descendants(live, SLOT) if entry.runs and entry.tier == "web"]
    assert lost
    missing = {key_of(by_urn(state)[entry.urn]) for entry in lost}
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state)) - missing)).state
    settings = program.environment(stack) | {"release": {}}
    deployment = program.deploy(program.project() | {"version": "2.0.0"}, settings, export=repaired, stack=stack)
    for entry in lost:
        restored = deployment.by_urn[entry.urn]
        assert restored.ignores != ("*",)
        assert restored.inputs == dict(entry.inputs)
        assert restored.parent == entry.parent


def test_release_to_the_other_slot_leaves_a_complete_slot_unchanged() -> None:
    deployment = program.deploy(
        program.project() | {"version": "2.0.0"},
        program.environment("dev") | {"release": {}},
        export=exported_state("dev"),
    )
    replayed = [entry for entry in deployment if entry.custom and deployment.inside(entry, SLOT)]
    assert replayed
    assert all(entry.ignores == ("*",) for entry in replayed)


def test_live_release_that_cannot_be_restored_is_deployed_to_the_other_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that an update deploys the live release to the other slot if an image of the live slot is missing.

    Without this image, the lost containers of the live slot can't be created again.
    """
    state = exported_state("dev")
    checkpoint = parse(state)
    live = observe(checkpoint).live
    assert live
    lost = [entry for entry in checkpoint.descendants(live, SLOT) if entry.runs and entry.tier == "web"]
    missing = {key_of(by_urn(state)[entry.urn]) for entry in lost}
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state)) - missing)).state
    settings = program.environment("dev") | {"release": {}}
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    deployment = program.deploy(
        program.project() | {"version": "2.0.0"},
        settings,
        export=repaired,
        missing_images={str(entry.inputs["image"]) for entry in lost},
    )
    assert not [entry for entry in lost if entry.urn in deployment.by_urn]
    for entry in lost:
        assert any(f"{entry.name} is missing" in text and f"of {live}'s web is missing" in text for text in warnings)
    slots = {
        entry.labels.get("tiers.slot")
        for entry in deployment
        if entry.runs and entry.labels.get("tiers.role") == "tier"
    }
    assert str(live.other) in slots
    assert f"switch-{observe(checkpoint).switches + 1}" in deployment.by_name


@pytest.mark.parametrize("action", ["configured", "previous"])
def test_rollback_uses_the_settings_of_the_last_update_if_the_stack_file_is_invalid(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = exported_state("dev")
    invalid_settings = program.environment("dev") | {"tiers": {"api": {"nothing": 1}}}
    monkeypatch.setenv("TIERS_RELEASE", action)
    if action == "previous":
        deployment = program.deploy(program.project(), invalid_settings, export=state)
        assert f"switch-{observe(parse(state)).switches + 1}" in deployment.by_name
    else:
        with pytest.raises(Exception, match="nothing"):
            program.deploy(program.project(), invalid_settings, export=state)


def test_settings_that_are_stored_in_the_state_contain_no_secret() -> None:
    outputs = [resource["outputs"] for resource in resources_of(exported_state("dev")) if not resource["custom"]]
    text = json.dumps(outputs)
    assert '\\"environment\\"' in text
    for value in program.SECRETS.values():
        assert value not in text


@pytest.mark.parametrize(
    ("cause", "names_heal"),
    [
        ("Error stopping container 1f: Error response from daemon: No such container: 1f", True),
        ("Error response from daemon: get board-dev-data: no such volume", True),
        ("not healthy within 20s", False),
    ],
)
def test_error_about_a_missing_docker_object_names_make_heal(cause: str, names_heal: bool) -> None:
    assert ("`make heal ENV=dev`" in with_remedy(cause, "dev")) == names_heal


def test_creation_errors_in_an_unchanged_slot_are_removed_from_the_state(state: State) -> None:
    """Check that the repair removes creation errors from the state.

    Otherwise every update would wait for the resource to become ready, even if the release does not change the slot.
    """
    broken = json.loads(json.dumps(state))
    checkpoint = parse(broken)
    live = observe(checkpoint).live
    [urn, *_] = [entry.urn for entry in checkpoint.descendants(live, SLOT) if entry.runs]  # pyright: ignore[reportArgumentType]
    by_urn(broken)[urn]["initErrors"] = ["it never became ready"]
    repaired = plan_repair(broken, Inventory(keys=frozenset(keys(broken))))
    assert repaired.changes_state
    assert "initErrors" not in by_urn(repaired.state)[urn]
    assert not plan_repair(repaired.state, Inventory(keys=frozenset(keys(broken)))).changes_state


def test_state_repair_rewrites_a_whole_number_of_cpus_in_the_format_of_the_docker_provider() -> None:
    state = exported_state("dev")
    [container] = [resource for resource in resources_of(state) if resource["urn"].endswith("::database-1")]
    container["inputs"] = container["inputs"] | {"cpus": "1"}
    container["outputs"] = container["outputs"] | {"cpus": "1.0"}
    repaired = plan_repair(state, Inventory(keys=frozenset(keys(state))))
    assert repaired.cpus_rewritten == ("Container database-1",)
    assert repaired.changes_state
    repaired_container = by_urn(repaired.state)[container["urn"]]
    assert (repaired_container["inputs"]["cpus"], repaired_container["outputs"]["cpus"]) == ("1.0", "1.0")
    assert not plan_repair(repaired.state, Inventory(keys=frozenset(keys(state)))).changes_state
