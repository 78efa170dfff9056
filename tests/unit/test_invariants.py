"""Tests of the invariants of all containers, networks, volumes and images on Docker.

Each check was tested once with a deployment that violates its invariant, and failed as expected.
"""

import pytest

from . import invariants
from .program import (
    CONTAINER,
    NETWORK,
    SECRETS,
    VOLUME,
    Deployment,
    Registered,
    checkpoint_of,
    deploy,
    environment,
    first_release,
    project,
    second_release,
)

OTHER_SECRETS = {"mail-password": "the-mail-secret", "backup-key": "the-key-of-backups"}


def deploy_everything() -> Deployment:
    """Deploy all five tiers with secrets, volumes, tasks, replicas, metrics, egress, monitoring and backups."""
    app, env = project(), environment()
    app["api"] |= {"secrets": ["mail-password"], "volumes": {"uploads": "/data", "static": "/srv"}, "egress": True}
    app["api"] |= {"tasks": {"collect": {"command": ["collect"]}}, "scratch": "128Mi"}
    app["web"] |= {"volumes": {"static": "/srv"}, "target": "build"}
    app["database"] |= {"init": ["tests/unit/made.sql"], "seed": ["tests/unit/made.sql"]}
    env["gateway"] |= {"metrics_port": 8404, "ports": {"api": 8000}}
    env["monitoring"] = True
    env["tiers"] = {"api": {"replicas": 3, "env": {"LOG_LEVEL": "debug"}}, "worker": {"replicas": 2}}
    env["tiers"] |= {"database": {"backup": {"target": {"directory": "/srv/backups"}}}}
    return deploy(app, env, secrets=SECRETS | OTHER_SECRETS)


DEPLOYED = deploy_everything()
CONTAINERS = DEPLOYED.of_type(CONTAINER)
LONG_RUNNING = [entry for entry in CONTAINERS if invariants.is_long_running(entry)]


def test_deployment_under_test_has_all_tiers_and_replicas() -> None:
    tiers = {entry.labels.get("tiers.tier") for entry in LONG_RUNNING}
    assert tiers >= {"web", "api", "worker", "database", "cache"}
    assert DEPLOYED.of_type(VOLUME)
    assert DEPLOYED.of_type(NETWORK)
    assert {entry.name for entry in LONG_RUNNING} >= {"gateway", "blue-api-3", "blue-worker-2", "database-1", "cache-1"}


@pytest.mark.parametrize(
    ("check", "entry"),
    list(invariants.cases(DEPLOYED)),
    ids=lambda value: value.name if isinstance(value, Registered) else value.__name__,
)
def test_docker_resource_satisfies_the_invariant(check: invariants.Check, entry: Registered) -> None:
    check(entry)


def test_no_secret_value_is_in_a_plain_text_input_of_a_resource() -> None:
    invariants.no_secret_is_in_a_plain_input(DEPLOYED, (SECRETS | OTHER_SECRETS).values())


def test_every_secret_is_mounted_as_a_file_and_encrypted_in_the_state() -> None:
    invariants.every_secret_is_a_file_and_encrypted_in_the_state(DEPLOYED, SECRETS | OTHER_SECRETS)


def test_tier_receives_its_own_secrets_only() -> None:
    secrets = {
        entry.labels["tiers.tier"]: {upload["file"].rsplit("/", 1)[1] for upload in entry.inputs["uploads"]}
        for entry in CONTAINERS
        if entry.labels["tiers.role"] == "secrets"
    }
    assert secrets == {
        "database": {"database-password"},
        "cache": {"cache-password"},
        "backup": {"database-password", "backup-key"},
        "api": {"database-password", "cache-password", "mail-password"},
        "worker": {"database-password", "cache-password"},
        "database-exporter": {"database-password"},
        "cache-exporter": {"cache-password"},
    }


def test_container_of_a_slot_has_labels_of_slot_and_release() -> None:
    invariants.containers_of_a_slot_have_labels_of_slot_and_release(DEPLOYED)


def test_data_volumes_are_unprotected_if_protect_data_is_false() -> None:
    assert environment()["protect_data"] is False
    assert not [entry.name for entry in first_release().of_type(VOLUME) if entry.protect or entry.retained]


def test_data_volumes_are_protected_by_default() -> None:
    env = environment()
    del env["protect_data"]
    app = project()
    app["api"]["volumes"] = {"uploads": "/data"}
    volumes = deploy(app, env).of_type(VOLUME)
    slot_resources = {entry.name for entry in volumes if entry.protect}
    assert slot_resources == {"database-data", "cache-data", "uploads"}
    assert {entry.name for entry in volumes if entry.retained} == slot_resources, (
        "a data volume must stay on the engine when it leaves the state"
    )


def test_new_release_removes_the_worker_of_the_standby_slot_and_no_other_resource_of_this_slot() -> None:
    before, after = first_release(), second_release()
    slot_resources = [entry for entry in before if "tiers:slot:Slot" in entry.parent and entry.custom]
    assert len(slot_resources) >= 10
    for entry in slot_resources:
        if entry.labels.get("tiers.role") == "tier" and entry.labels["tiers.tier"] == "worker":
            assert entry.urn not in after.by_urn, "the standby slot must have no worker"
            continue
        replayed = next(other for other in after if other.urn == entry.urn)
        assert (replayed.inputs, replayed.ignores, replayed.parent) == ({}, ("*",), entry.parent)
        deleted = {urn for urn in entry.waits_for if urn not in after.by_urn}
        assert replayed.waits_for >= entry.waits_for - deleted, "a dependency is missing, so it would be deleted first"
    assert any(entry.name == "green-api-1" for entry in after)
    assert "switch-2" in after.by_name and "switch-1" not in after.by_name


def test_second_update_without_changes_deploys_to_no_slot_and_does_not_switch() -> None:
    invariants.second_update_deploys_no_slot_and_does_not_switch(
        first_release(), deploy(export=checkpoint_of(first_release()))
    )
