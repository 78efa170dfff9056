"""Tests of the readers of resources in a stack's state, on Docker and on Kubernetes."""

from typing import Any

import pytest

from components.release.checkpoint import Entry, image_names, parse
from components.release.memory import to_state
from components.state import docker, kubernetes, reader, types

TYPES = {
    docker.CONTAINER: set[str](),
    docker.NETWORK: set[str](),
    docker.VOLUME: {"is_volume", "may_hold_data"},
    docker.IMAGE: {"is_image"},
    docker.FOUNDATION: {"is_foundation"},
    kubernetes.CLAIM: {"is_claim", "may_hold_data"},
    kubernetes.CLUSTER: {"is_database_cluster", "may_hold_data"},
    kubernetes.NAMESPACE: {"is_namespace", "may_hold_data"},
    kubernetes.JOB: {"is_job"},
    kubernetes.FOUNDATION: {"is_foundation"},
}
"""Type token → names of the predicates that are true for the type."""
CONTAINER: dict[str, Any] = {
    "image": "sha256:1",
    "labels": [{"label": "a", "value": "1"}, {"label": "b", "value": "2"}],
}
OBJECT: dict[str, Any] = {"metadata": {"name": "api", "labels": {"a": "1", "b": "2"}}, "spec": {}}


def entry(type_: str, inputs: dict[str, Any], outputs: dict[str, Any] | None = None) -> Entry:
    return Entry(urn="urn::a", type=type_, parent="", custom=True, inputs=inputs, outputs=outputs or {})


@pytest.mark.parametrize("type_", TYPES)
def test_each_type_token_matches_its_predicates_only(type_: str) -> None:
    predicates = {name: value for name, value in vars(types).items() if name.startswith(("is_", "may_"))}
    assert {name for name, predicate in predicates.items() if predicate(type_)} == TYPES[type_]


@pytest.mark.parametrize("inputs", [CONTAINER, OBJECT], ids=["docker", "kubernetes"])
def test_label_is_removed_without_a_change_of_other_inputs(inputs: dict[str, Any]) -> None:
    before = repr(inputs)
    changed = reader(inputs).without_label(inputs, "a")
    assert reader(changed).labels(changed) == {"b": "2"}
    assert reader(inputs).without_label(inputs, "c") == inputs
    assert changed.keys() == inputs.keys()
    assert repr(inputs) == before


def test_inputs_without_labels_get_no_labels() -> None:
    assert docker.without_label({"name": "a"}, "a") == {"name": "a"}
    assert kubernetes.without_label({"metadata": {"name": "a"}}, "a") == {"metadata": {"name": "a"}}


@pytest.mark.parametrize(("outputs", "failed"), [({}, False), ({"exitCode": 0}, False), ({"exitCode": 3}, True)])
def test_container_counts_as_failed_if_its_exit_code_is_not_0(outputs: dict[str, Any], failed: bool) -> None:
    resource = {"urn": "urn::a", "type": docker.CONTAINER, "inputs": CONTAINER, "outputs": outputs}
    assert parse({"deployment": {"resources": [resource]}}).entries[0].failed is failed


def test_image_of_a_container_is_found_by_the_id_of_the_image() -> None:
    image = entry(docker.IMAGE, {"name": "shop-api:1"}, {"imageId": "sha256:1"})
    container = entry(docker.CONTAINER, CONTAINER)
    assert image_names([image, container, entry(docker.IMAGE, {"name": "lost"})]) == {"sha256:1": "shop-api:1"}
    assert container.image_id == image.image_id == "sha256:1"
    assert entry(kubernetes.JOB, OBJECT).image_id is None


def test_stored_state_of_a_resource_contains_no_output_except_the_id_of_an_image() -> None:
    stored = to_state(entry(docker.IMAGE, {"name": "shop-api:1"}, {"imageId": "sha256:1", "repoDigest": "a"}))
    assert stored["outputs"] == {"imageId": "sha256:1"}
    assert "outputs" not in to_state(entry(docker.CONTAINER, CONTAINER, {"ports": []}))
    assert "outputs" not in to_state(entry(kubernetes.JOB, OBJECT, {"status": {}}))
