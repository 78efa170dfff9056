"""Tests that the data loss guard, the preview and the policy recognise the same resources as data stores.

The label `tiers.data` marks these resources. The result must be the same in an older stack without the label.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from ci.preview.read import parse_preview
from ci.preview.risk import Verdict, dangers, losses, verdict
from components.model import services
from components.model.names import LABEL_DATA
from components.release.checkpoint import Checkpoint, Entry, parse
from components.safety import guard
from components.safety.data import data_labels, holds_data, owner
from components.state.docker import VOLUME
from components.state.kubernetes import CLAIM, CLUSTER, NAMESPACE
from policy.model import Resource
from policy.rules import RULES
from policy.settings import SETTINGS

from .program import (
    SECRETS,
    Deployment,
    checkpoint_of,
    deploy,
    environment,
    first_release,
    preview_output,
    project,
    unlabelled,
    with_whole_urns,
)

ALL_SECRETS = SECRETS | {"backup-key": "the-key-of-backups", "mail-password": "the-mail-secret"}


def app_and_environment(stack: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an app and an environment that together use every kind of volume of the platform."""
    app = project()
    env: dict[str, Any] = environment(stack) | {"monitoring": True, "protect_data": False}
    app["api"] |= {"secrets": ["mail-password"], "volumes": {"uploads": "/data", "a-secrets-b": "/other"}}
    app["web"]["volumes"] = {"uploads": "/data:ro"}
    app["database"] |= {"init": ["tests/unit/made.sql"]}
    tiers: dict[str, Any] = env.setdefault("tiers", {})
    tiers["database"] = {"backup": {"target": {"volume": True}}}
    if stack != "dev":
        tiers["database"] |= {"ha": True, "single": "live"}
        tiers |= {"cache": {"ha": True}, "api": {"storage_class": "nfs"}, "web": {"storage_class": "nfs"}}
    return app, env


@cache
def deploy_all_features(stack: str) -> Deployment:
    """Return a deployment with every kind of volume of the platform."""
    return deploy(*app_and_environment(stack), stack=stack, secrets=ALL_SECRETS)


EXPECTED = {
    "dev": {(VOLUME, name) for name in ("database-data", "cache-data", "uploads", "a-secrets-b", "backups")},
    "staging": {
        *((CLAIM, name) for name in ("database-data", "cache-data", "cache-data-1", "cache-data-2")),
        *((CLAIM, name) for name in ("uploads", "a-secrets-b", "backups")),
        (CLUSTER, "database-ha"),
        (NAMESPACE, "board-staging"),
    },
}
STACKS = sorted(EXPECTED)


def entries(stack: str, *, labelled: bool) -> tuple[Entry, ...]:
    export = checkpoint_of(deploy_all_features(stack))
    return parse(with_whole_urns(export if labelled else unlabelled(export))).entries


@pytest.mark.parametrize("labelled", [True, False], ids=["label", "no label"])
@pytest.mark.parametrize("stack", STACKS)
class TestAllReadersAgree:
    """Check that guard, preview and policy find the same data stores, with and without the label `tiers.data`."""

    def test_holds_data_is_true_for_exactly_the_data_stores(self, stack: str, labelled: bool) -> None:
        stores = {(entry.type, entry.name) for entry in entries(stack, labelled=labelled) if _holds_data(entry)}
        assert stores == EXPECTED[stack]

    def test_data_loss_guard_protects_exactly_the_data_stores(self, stack: str, labelled: bool) -> None:
        stores = guard.stored_data(Checkpoint(entries=entries(stack, labelled=labelled)))
        names = {(store.type, store.address.rpartition("/")[2].removeprefix("board-dev-")) for store in stores.values()}
        assert names == EXPECTED[stack]

    def test_preview_of_a_deletion_marks_exactly_the_data_stores(self, stack: str, labelled: bool) -> None:
        steps = [
            {"op": "delete", "urn": entry.urn, "oldState": _state(entry)}
            for entry in entries(stack, labelled=labelled)
            if entry.custom
        ]
        changes = parse_preview({"steps": steps}, stack).changes
        stores = {(change.entry.type, change.entry.name) for change in changes if change.membership.holds_data}
        assert stores == EXPECTED[stack]

    def test_policy_refuses_exactly_the_unprotected_data_stores(self, stack: str, labelled: bool) -> None:
        rule = next(rule for rule in RULES if rule.name == "protected-data")
        resources = [
            Resource(type=entry.type, name=entry.name, stack="prod", props=entry.inputs, urn=entry.urn)
            for entry in entries(stack, labelled=labelled)
        ]
        refused = {(resource.type, resource.name) for resource, _ in rule.problems(resources, SETTINGS)}
        assert refused == EXPECTED[stack]


def _holds_data(entry: Entry) -> bool:
    return holds_data(entry.urn, entry.labels)


def _state(entry: Entry) -> dict[str, Any]:
    return {"urn": entry.urn, "type": entry.type, "parent": entry.parent, "custom": True, "inputs": entry.inputs}


class TestDeclaration:
    @pytest.mark.parametrize("stack", STACKS)
    def test_data_label_is_set_on_new_volumes_and_database_clusters_and_namespaces_only(self, stack: str) -> None:
        stores = [entry for entry in deploy_all_features(stack) if entry.type in (VOLUME, CLAIM, CLUSTER, NAMESPACE)]
        declared = {(entry.type, entry.name) for entry in stores if entry.labels[LABEL_DATA] == "yes"}
        assert declared == EXPECTED[stack]
        assert {entry.labels[LABEL_DATA] for entry in stores} <= {"yes", "no"}
        assert not [
            entry.urn for entry in deploy_all_features(stack) if entry not in stores and LABEL_DATA in entry.labels
        ]

    @pytest.mark.parametrize("stack", STACKS)
    def test_preview_shows_no_change_for_a_stack_deployed_without_the_data_label(self, stack: str) -> None:
        before = unlabelled(checkpoint_of(deploy_all_features(stack)))
        again = deploy(*app_and_environment(stack), stack=stack, export=before, secrets=ALL_SECRETS)
        steps = preview_output(before, again)["steps"]
        assert {step["op"] for step in steps} == {"same"}

    @pytest.mark.parametrize("stack", STACKS)
    def test_preview_shows_no_change_for_a_stack_deployed_with_the_data_label(self, stack: str) -> None:
        before = checkpoint_of(deploy_all_features(stack))
        again = deploy(*app_and_environment(stack), stack=stack, export=before, secrets=ALL_SECRETS)
        assert {step["op"] for step in preview_output(before, again)["steps"]} == {"same"}

    def test_docker_volume_with_changed_labels_is_never_replaced(self) -> None:
        """Check that Pulumi ignores changed labels.

        Otherwise an update would replace a retained volume whose labels differ from the program's labels.
        """
        assert {entry.ignores for entry in deploy_all_features("dev").of_type(VOLUME)} == {("labels",)}

    def test_instances_of_a_database_cluster_do_not_inherit_the_data_label(self) -> None:
        """Check that pods do not inherit the label, because a new label would replace the pods of deployed clusters."""
        cluster = deploy_all_features("staging").get_object("Cluster", "database-ha").inputs
        assert LABEL_DATA not in cluster["spec"]["inheritedMetadata"]["labels"]

    def test_deployed_resource_without_the_data_label_gets_no_data_label(self) -> None:
        entry = Entry(urn="urn", type=VOLUME, parent="", custom=True, inputs={"labels": []})
        assert data_labels(entry) == data_labels(entry, holds_data=False) == {}
        assert data_labels(None) == {LABEL_DATA: "yes"}
        assert data_labels(None, holds_data=False) == {LABEL_DATA: "no"}
        labelled = replace(entry, inputs={"labels": [{"label": LABEL_DATA, "value": "yes"}]})
        assert data_labels(labelled) == {LABEL_DATA: "yes"}

    @pytest.mark.parametrize("stack", STACKS)
    def test_volume_of_a_service_that_holds_no_data_is_neither_guarded_nor_protected(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = [replace(service, holds_data=service.name != "cache") for service in services.SERVICES]
        monkeypatch.setattr(services, "SERVICES", tuple(records))
        env = environment(stack) | {"protect_data": True}
        deployed = deploy(env=env, stack=stack)
        [volume] = [entry for entry in deployed if entry.name == "cache-data"]
        assert (volume.labels[LABEL_DATA], volume.protect) == ("no", False)
        assert "cache-data" not in guard.stored_data(parse(checkpoint_of(deployed)))


class TestOwner:
    @pytest.mark.parametrize(
        ("stack", "owners"),
        [
            ("dev", {"database-data": "database", "cache-data": "cache", "uploads": None, "backups": None}),
            ("staging", {"database-ha": "database", "cache-data-2": "cache", "uploads": None, "board-staging": None}),
        ],
    )
    def test_owner_of_a_data_store_is_the_service_whose_component_contains_the_store(
        self, stack: str, owners: Mapping[str, str | None]
    ) -> None:
        all_owners = {entry.name: owner(entry.parent) for entry in entries(stack, labelled=False) if _holds_data(entry)}
        assert {name: all_owners[name] for name in owners} == owners

    def test_owner_of_a_data_store_of_an_unknown_service_is_the_name_of_the_component(self) -> None:
        parent = "urn:pulumi:dev::board::tiers:search:Search::search"
        assert owner(parent) == "search"
        assert owner("urn:pulumi:dev::board::tiers:switch:Gateway::gateway") is None
        assert owner("") is None
        urn = f"urn:pulumi:dev::board::tiers:search:Search${VOLUME}::"
        assert holds_data(f"{urn}search-data", {})
        assert not holds_data(f"{urn}search-secrets-0a1b2c", {})
        assert not holds_data(f"{urn}search-scripts", {})


def preview_of(stack: str, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    """Return the preview of a change to the stack that `deploy_all_features` deployed."""
    app, env = app_and_environment(stack)
    change(app, env)
    before = checkpoint_of(deploy_all_features(stack))
    return preview_output(before, deploy(app, env, stack=stack, export=before, secrets=ALL_SECRETS))


class TestPreview:
    @pytest.mark.parametrize("stack", STACKS)
    def test_preview_does_not_report_a_changed_alert_rule_as_lost_data(self, stack: str) -> None:
        def slower(app: dict[str, Any], env: dict[str, Any]) -> None:
            env["slo"] = {"p95": "700ms", "p99": "2s"}

        preview = parse_preview(preview_of(stack, slower), stack)
        lost = {(change.kind, change.entry.name) for change in losses(preview)}
        # On Docker the container is replaced, because Prometheus reads its configuration only when it starts.
        assert lost == ({("Container", "prometheus")} if stack == "dev" else set())
        assert not [line for line in dangers(preview) if "deleted" in line or "data" in line]
        assert verdict(preview) is (Verdict.LOSS if stack == "dev" else Verdict.IN_PLACE)

    def test_preview_does_not_report_a_rotated_password_as_lost_data(self) -> None:
        before = checkpoint_of(first_release("dev"))
        after = deploy(export=before, secrets=SECRETS | {"cache-password": "another"})
        lines = dangers(parse_preview(preview_output(before, after), "dev"))
        assert lines == ["**cache is replaced**, and both slots share it: Container `cache-1`"]

    @pytest.mark.parametrize("name", ["database-scripts", "gateway-state", "cache-secrets-", "prometheus-"])
    def test_preview_does_not_report_a_deleted_volume_without_data_as_lost_data(self, name: str) -> None:
        deleted = [step for step in _deleted(deploy_all_features("dev")) if f"${VOLUME}::{name}" in step["urn"]]
        assert deleted
        assert not [line for line in dangers(parse_preview({"steps": deleted}, "dev")) if "with its data" in line]

    def test_preview_reports_a_deleted_namespace_as_lost_data(self) -> None:
        steps = [step for step in _deleted(deploy_all_features("staging")) if NAMESPACE in step["urn"]]
        [line] = [line for line in dangers(parse_preview({"steps": steps}, "staging")) if "is deleted" in line]
        assert line.endswith("Namespace `board-staging` **with its data**")


def _deleted(deployed: Deployment) -> list[dict[str, Any]]:
    resources = with_whole_urns(checkpoint_of(deployed))["deployment"]["resources"]
    return [{"op": "delete", "urn": resource["urn"], "oldState": resource} for resource in resources]


@pytest.mark.parametrize("stack", STACKS)
def test_data_loss_guard_checks_all_data_stores_with_their_registered_names_and_labels(
    stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare the resources that the data loss guard checks with the resources that the program registers."""
    compared: dict[str, tuple[str, Mapping[str, Any]]] = {}
    refuse = guard.refuse

    def spy(checkpoint: Any, app: Any, environment: Any, desired: Any, holding: Any, forced: bool) -> None:
        compared.update(desired)
        refuse(checkpoint, app, environment, desired, holding, forced)

    monkeypatch.setattr(guard, "refuse", spy)
    app, env = app_and_environment(stack)
    deployed = deploy(app, env, stack=stack, secrets=ALL_SECRETS)
    assert {(type_, name) for name, (type_, _) in compared.items() if name != "namespace"} == {
        (type_, name) for type_, name in EXPECTED[stack] if type_ != NAMESPACE
    }
    for name, (type_, inputs) in compared.items():
        [entry] = [entry for entry in deployed if entry.type == type_ and name in (entry.name, "namespace")]
        if type_ == VOLUME:
            assert inputs["name"] == entry.inputs["name"]
        else:
            assert inputs["metadata"] == entry.inputs["metadata"]
