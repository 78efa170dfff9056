"""Tests of processes that must never run twice (`single`): only the live release runs them, and the switch hands them over."""

import copy
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from ci.check import expected_replicas
from ci.preview.read import Area, parse_preview
from ci.preview.risk import dangers
from components.availability import missing_images
from components.config import ConfigError, load_app, load_environment
from components.model.names import LABEL_CONTENT, LABEL_RELEASE, LABEL_SLOT
from components.release.checkpoint import LIVE_OBJECTS, LIVE_SERVICE, parse
from components.release.planner import Slot
from policy.rules import RULES

from . import invariants, test_kubernetes
from .program import SECRETS, Deployment, Registered, checkpoint_of, deploy, environment, preview_output, project
from .test_policy import TRUSTING_SETTINGS, problems, resources

STACKS = ("dev", "staging")
BEAT: Mapping[str, Any] = {
    "tier": "worker", "image": "python:3.11-slim", "command": ["celery", "beat"], "needs": ["cache"], "single": True, "alive": ["true"],
    "secret_env": {"CACHE_URL": "redis://:${cache.password}@${cache.host}:${cache.port}/0"}, "stop_within": "45s",
    "tasks": {"prepare": {"command": ["celery", "purge"]}},
}  # fmt: skip
NAMES = {"dev": "beat-1", "staging": "beat"}
"""Name of the resource that runs the process, by stack."""


def app(version: str = "1.0.0", **beat: Any) -> dict[str, Any]:
    return copy.deepcopy(project()) | {"version": version, "services": {"beat": {**BEAT, **beat}}}


def settings(stack: str) -> dict[str, Any]:
    return environment(stack) | {"release": {}, "pinned": False}


def deploy_app(stack: str, description: Mapping[str, Any], **more: Any) -> Deployment:
    return deploy(description, settings(stack), stack=stack, **more)


@cache
def first(stack: str) -> Deployment:
    return deploy_app(stack, app())


@cache
def second(stack: str) -> Deployment:
    return deploy_app(stack, app("2.0.0"), export=checkpoint_of(first(stack)))


def process(deployment: Deployment, stack: str) -> Registered:
    """Return the resource that runs the process, and assert that it is the only one."""
    [entry] = [entry for entry in deployment if entry.custom and entry.labels.get("tiers.role") == "single"]
    assert entry.name == NAMES[stack]
    return entry


def changes(before: Deployment, after: Deployment) -> dict[str, str]:
    steps = preview_output(checkpoint_of(before), after)["steps"]
    return {step["urn"].rpartition("::")[2]: step["op"] for step in steps if step["op"] != "same"}


@pytest.mark.parametrize("stack", STACKS)
def test_process_starts_after_the_switch_and_not_in_a_slot(stack: str) -> None:
    entry, deployment = process(first(stack), stack), first(stack)
    [switch] = [other for other in deployment if other.labels.get("tiers.role") == "switch"]
    assert switch.urn in entry.waits_for
    [component] = [other for other in deployment if other.urn == entry.parent]
    assert (component.type, component.name) == (LIVE_SERVICE, "beat")
    assert entry.labels[LABEL_SLOT] == "blue"
    assert entry.labels[LABEL_RELEASE] == deployment.release


@pytest.mark.parametrize("stack", STACKS)
def test_tasks_of_the_process_run_before_the_switch(stack: str) -> None:
    [task] = [entry for entry in first(stack) if entry.name == "blue-beat-prepare"]
    [switch] = [entry for entry in first(stack) if entry.labels.get("tiers.role") == "switch"]
    assert task.urn in switch.waits_for


@pytest.mark.parametrize("stack", STACKS)
def test_release_replaces_the_process_under_the_same_name(stack: str) -> None:
    old, new = process(first(stack), stack), process(second(stack), stack)
    assert old.urn == new.urn
    assert new.labels[LABEL_RELEASE] == second(stack).release != old.labels[LABEL_RELEASE]
    assert new.labels[LABEL_SLOT] == "green"


@pytest.mark.parametrize("stack", STACKS)
def test_second_update_changes_nothing(stack: str) -> None:
    again = deploy_app(stack, app(), export=checkpoint_of(first(stack)))
    assert changes(first(stack), again) == {}
    after_release = deploy_app(stack, app("2.0.0"), export=checkpoint_of(second(stack)))
    assert process(after_release, stack).inputs == process(second(stack), stack).inputs


@pytest.mark.parametrize("stack", STACKS)
def test_rollback_restores_the_process_of_the_older_release(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    back = deploy_app(stack, app("2.0.0", command=["other"]), export=checkpoint_of(second(stack)))
    assert process(back, stack).inputs == process(first(stack), stack).inputs


@pytest.mark.parametrize("stack", STACKS)
def test_rollback_restores_a_process_that_the_newer_release_lacks(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without = deploy_app(stack, project() | {"version": "2.0.0"}, export=checkpoint_of(first(stack)))
    assert not [entry for entry in without if entry.labels.get("tiers.role") == "single"]
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    back = deploy_app(stack, project() | {"version": "2.0.0"}, export=checkpoint_of(without))
    assert process(back, stack).inputs == process(first(stack), stack).inputs


@pytest.mark.parametrize("stack", STACKS)
def test_release_that_waits_for_promotion_leaves_the_process_unchanged(stack: str) -> None:
    manual = settings(stack) | {"release": {"promote": "manual"}}
    before = checkpoint_of(deploy(app(), manual, stack=stack))
    waiting = deploy(app("2.0.0"), manual, stack=stack, export=before)
    assert process(waiting, stack).inputs == process(first(stack), stack).inputs


@pytest.mark.parametrize("stack", STACKS)
def test_process_stays_if_the_state_lost_its_description(stack: str) -> None:
    state = checkpoint_of(first(stack))
    for resource in state["deployment"]["resources"]:
        resource["outputs"].pop(LIVE_OBJECTS, None)
    again = deploy_app(stack, app(), export=state)
    assert again.by_name[NAMES[stack]].ignores == ("*",)


def test_failed_process_starts_again_in_the_next_update() -> None:
    state = checkpoint_of(first("dev"))
    for resource in state["deployment"]["resources"]:
        if resource["urn"] == process(first("dev"), "dev").urn:
            resource["initErrors"] = ["container exited immediately"]
    again = process(deploy_app("dev", app(), export=state), "dev")
    assert again.labels["tiers.attempt"] == "2"
    settled = process(deploy_app("dev", app(), export=state), "dev")
    assert settled.inputs == again.inputs


def test_containers_satisfy_every_docker_invariant() -> None:
    for assert_invariant, entry in invariants.cases(first("dev")):
        assert_invariant(entry)
    assert invariants.is_long_running(process(first("dev"), "dev"))
    invariants.no_secret_is_in_a_plain_input(first("dev"), SECRETS.values())
    invariants.containers_of_a_slot_have_labels_of_slot_and_release(first("dev"))


def test_objects_satisfy_every_kubernetes_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    test_kubernetes.assert_every_invariant(first("staging"), monkeypatch)


@pytest.mark.parametrize("stack", STACKS)
def test_no_secret_is_in_the_stored_description(stack: str) -> None:
    [slot] = [entry for entry in first(stack) if entry.type == "tiers:slot:Slot"]
    stored = repr(slot.outputs[LIVE_OBJECTS])
    assert "beat" in stored
    assert not [value for value in SECRETS.values() if value in stored]


def test_selector_of_the_stateful_set_changes_with_its_content() -> None:
    selectors = [
        process(deployment, "staging").inputs["spec"]["selector"]
        for deployment in (first("staging"), second("staging"))
    ]
    assert selectors[0]["matchLabels"][LABEL_CONTENT] != selectors[1]["matchLabels"][LABEL_CONTENT]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("stack", STACKS)
def test_objects_pass_every_policy_rule(stack: str, rule: Any) -> None:
    assert [
        text
        for name, text in problems(rule, resources(first(stack), stack), TRUSTING_SETTINGS)
        if "beat" in f"{name} {text}"
    ] == []


@pytest.mark.parametrize("stack", STACKS)
def test_check_expects_one_process_of_the_live_release(stack: str) -> None:
    model = load_app(app())
    expected = expected_replicas(
        model, load_environment(settings(stack), model), Slot.BLUE, parse(checkpoint_of(first(stack)))
    )
    assert expected["blue", "beat"] == 1


def test_rollback_needs_the_image_of_the_older_process() -> None:
    class Engine:
        def absent_images(self, images: Mapping[str, str]) -> list[str]:
            return sorted(images)

    state = parse(checkpoint_of(second("dev")))
    absent = missing_images(Engine(), state, Slot.BLUE)  # pyright: ignore[reportArgumentType]
    assert any("beat" in text for text in absent)
    assert not any("beat" in text for text in missing_images(Engine(), state, Slot.GREEN))  # pyright: ignore[reportArgumentType]


def test_release_digest_of_an_application_without_single_is_unchanged() -> None:
    worker = {key: value for key, value in BEAT.items() if key != "single"}
    plain = deploy_app("dev", copy.deepcopy(project()) | {"services": {"beat": worker}})
    explicit = deploy_app("dev", copy.deepcopy(project()) | {"services": {"beat": worker | {"single": False}}})
    assert plain.release == explicit.release


@pytest.mark.parametrize(("key", "value"), [("replicas", 2), ("autoscale", {"max": 3})], ids=["replicas", "autoscale"])
def test_more_than_one_process_is_refused(key: str, value: object) -> None:
    model = load_app(app())
    size = settings("staging")
    size["tiers"] = {**size.get("tiers", {}), "beat": {key: value}}
    with pytest.raises(
        ConfigError, match=rf"environment.tiers.beat.{key}: app.services.beat.single allows one process; remove {key}"
    ):
        load_environment(size, model)


@pytest.mark.parametrize("stack", STACKS)
def test_preview_of_a_release_reports_no_danger_for_the_replaced_process(stack: str) -> None:
    preview = parse_preview(preview_output(checkpoint_of(first(stack)), second(stack)), stack)
    assert [text for text in dangers(preview) if "beat" in str(text)] == []
    [change] = [change for change in preview.changes if change.entry.name == NAMES[stack]]
    assert (change.area, change.membership.owner) == (Area.SWITCH, "beat")
