"""Invariants of every container, network, volume and image of any tier on Docker. Each of them was seen to fail."""

import json

import pytest

from .program import (
    CONTAINER,
    IMAGE,
    NETWORK,
    SECRETS,
    VOLUME,
    Deployment,
    Registered,
    deploy,
    environment,
    exported,
    first,
    project,
    second,
)

OTHERS = {"mail-password": "the-mail-secret", "backup-key": "the-key-of-backups"}


def everything() -> Deployment:
    """Deploy all five tiers with every option: secrets, volumes, tasks, replicas, metrics, egress and monitoring."""
    app, env = project(), environment()
    app["api"] |= {"secrets": ["mail-password"], "volumes": {"uploads": "/data", "static": "/srv"}, "egress": True}
    app["api"] |= {"tasks": {"collect": {"command": ["collect"]}}, "scratch": "128Mi"}
    app["web"] |= {"volumes": {"static": "/srv"}, "target": "build"}
    app["database"] |= {"init": ["tests/unit/made.sql"], "seed": ["tests/unit/made.sql"]}
    env["gateway"] |= {"metrics_port": 8404, "ports": {"api": 8000}}
    env["monitoring"] = True
    env["tiers"] = {"api": {"replicas": 3, "env": {"LOG_LEVEL": "debug"}}, "worker": {"replicas": 2}}
    env["tiers"] |= {"database": {"backup": {"target": {"directory": "/srv/backups"}}}}
    return deploy(app, env, secrets=SECRETS | OTHERS)


DEPLOYED = everything()
CONTAINERS = DEPLOYED.of_type(CONTAINER)
RUNNING = [entry for entry in CONTAINERS if entry.runs]
STAYING = [entry for entry in RUNNING if entry.inputs.get("mustRun") is not False]

every_container = pytest.mark.parametrize("container", CONTAINERS, ids=lambda entry: entry.name)
every_running = pytest.mark.parametrize("container", RUNNING, ids=lambda entry: entry.name)
every_staying = pytest.mark.parametrize("container", STAYING, ids=lambda entry: entry.name)


def test_deployment_has_all_tiers_and_replicas() -> None:
    tiers = {entry.labels.get("tiers.tier") for entry in STAYING}
    assert tiers >= {"web", "api", "worker", "database", "cache"}
    assert {entry.name for entry in STAYING} >= {"gateway", "blue-api-3", "blue-worker-2", "database-1", "cache-1"}


@every_container
def test_container_does_not_run_as_root(container: Registered) -> None:
    uid, gid = container.inputs["user"].split(":")
    assert int(uid) > 0 and int(gid) > 0


@every_running
def test_root_file_system_is_read_only(container: Registered) -> None:
    assert container.inputs["readOnly"] is True


@every_container
def test_container_has_no_privileges_and_no_capabilities(container: Registered) -> None:
    assert container.inputs["securityOpts"] == ["no-new-privileges:true"]
    assert container.inputs["capabilities"] == {"drops": ["ALL"]}
    assert not container.inputs.get("privileged")


@every_container
def test_container_has_memory_and_cpu_limits(container: Registered) -> None:
    assert container.inputs["memory"] >= 6
    assert container.inputs["memorySwap"] == container.inputs["memory"]
    assert float(container.inputs["cpus"]) > 0


@every_container
def test_log_of_a_container_is_rotated(container: Registered) -> None:
    assert container.inputs["logDriver"] == "json-file"
    assert container.inputs["logOpts"] == {"max-size": "10m", "max-file": "3"}


@every_container
def test_long_running_container_restarts_and_a_task_does_not(container: Registered) -> None:
    assert container.inputs["restart"] == ("unless-stopped" if container in STAYING else "no")


@every_staying
def test_long_running_container_has_a_health_check(container: Registered) -> None:
    assert container.inputs["healthcheck"]["tests"][0] in ("CMD", "CMD-SHELL")


@every_staying
def test_long_running_container_has_at_least_30_s_to_stop(container: Registered) -> None:
    assert container.inputs["stopTimeout"] == container.inputs["destroyGraceSeconds"] >= 30


@every_container
def test_only_gateway_and_prometheus_publish_ports_on_loopback(container: Registered) -> None:
    ports = container.inputs.get("ports") or []
    assert bool(ports) == (container.name in ("gateway", "prometheus"))
    assert all(port["ip"] == "127.0.0.1" for port in ports)


@every_container
def test_no_host_folder_is_mounted_writable_except_backups(container: Registered) -> None:
    writable = [mount["source"] for mount in container.inputs.get("mounts") or () if not mount["readOnly"]]
    # Only a backup target is mounted writable.
    assert writable == (["/srv/backups"] if container.name == "backup-1" else [])
    assert not any(volume.get("hostPath") for volume in container.inputs.get("volumes") or ())


@every_running
def test_secrets_are_mounted_read_only(container: Registered) -> None:
    for volume in container.inputs.get("volumes") or ():
        if volume["containerPath"] == "/run/secrets":
            assert volume["readOnly"] is True


@every_container
def test_container_names_its_image_by_id(container: Registered) -> None:
    assert container.inputs["image"].startswith("sha256:")


@pytest.mark.parametrize("image", DEPLOYED.of_type(IMAGE), ids=lambda entry: entry.name)
def test_no_image_has_the_tag_latest(image: Registered) -> None:
    assert ":" in image.inputs["name"] and not image.inputs["name"].endswith(":latest")


def holds_no_secret(entry: Registered) -> None:
    for value in (SECRETS | OTHERS).values():
        assert value not in entry.plain


@pytest.mark.parametrize("entry", DEPLOYED.sorted, ids=lambda entry: f"{entry.type.rsplit(':', 1)[-1]}-{entry.name}")
def test_no_secret_is_in_a_plain_input(entry: Registered) -> None:
    holds_no_secret(entry)


def test_every_secret_is_a_file_and_encrypted_in_the_state() -> None:
    holders = [entry for entry in CONTAINERS if entry.labels["tiers.role"] == "secrets"]
    uploads = [(upload["file"], upload["content"]) for entry in holders for upload in entry.inputs["uploads"]]
    for name, value in (SECRETS | OTHERS).items():
        assert (f"/run/secrets/{name}", value) in uploads
    assert all("uploads" in entry.secret_outputs for entry in holders)


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


@pytest.mark.parametrize("entry", [entry for entry in DEPLOYED.sorted if entry.custom], ids=lambda entry: entry.urn)
def test_resource_has_a_component_as_its_parent(entry: Registered) -> None:
    assert "$" in entry.parent or "::tiers:" in entry.parent, entry.parent


@pytest.mark.parametrize(
    "entry",
    [entry for entry in DEPLOYED.sorted if not entry.custom],
    ids=lambda entry: entry.urn,
)
def test_component_has_a_type_token_of_tiers(entry: Registered) -> None:
    package, module, name = entry.type.split(":")
    assert (package, name[0].isupper(), module.islower()) == ("tiers", True, True)


@pytest.mark.parametrize(
    "entry", [*CONTAINERS, *DEPLOYED.of_type(VOLUME), *DEPLOYED.of_type(NETWORK)], ids=lambda entry: entry.name
)
def test_resource_has_name_and_labels_of_its_app_and_environment(entry: Registered) -> None:
    assert entry.inputs["name"].startswith("board-dev-")
    assert (entry.labels["tiers.app"], entry.labels["tiers.environment"]) == ("board", "dev")


def test_container_of_a_slot_has_labels_of_slot_and_release() -> None:
    inside = [entry for entry in RUNNING if "tiers:slot:Slot" in entry.parent]
    assert len(inside) >= 7
    for entry in inside:
        assert entry.labels["tiers.slot"] == "blue"
        assert entry.labels["tiers.release"] == DEPLOYED.release


def test_data_is_unprotected_with_protect_data_false() -> None:
    assert environment()["protect_data"] is False
    assert not [entry.name for entry in first().of_type(VOLUME) if entry.protect or entry.retained]


def test_data_is_protected_by_default() -> None:
    env = environment()
    del env["protect_data"]
    app = project()
    app["api"]["volumes"] = {"uploads": "/data"}
    volumes = deploy(app, env).of_type(VOLUME)
    protected = {entry.name for entry in volumes if entry.protect}
    assert protected == {"database-data", "cache-data", "uploads"}
    assert {entry.name for entry in volumes if entry.retained} == protected, (
        "a volume that leaves the state stays on the engine"
    )


def test_standby_slot_is_replayed_unchanged_without_its_worker() -> None:
    before, after = first(), second()
    protected = [entry for entry in before if "tiers:slot:Slot" in entry.parent and entry.custom]
    assert len(protected) >= 10
    for entry in protected:
        if entry.labels.get("tiers.role") == "tier" and entry.labels["tiers.tier"] == "worker":
            assert entry.urn not in after.by_urn, "the old workers end when the new ones are live"
            continue
        replayed = next(other for other in after if other.urn == entry.urn)
        assert (replayed.inputs, replayed.ignores, replayed.parent) == ({}, ("*",), entry.parent)
        gone = {urn for urn in entry.waits_for if urn not in after.by_urn}
        assert replayed.waits_for >= entry.waits_for - gone, "its dependencies would be deleted before it"
    assert any(entry.name == "green-api-1" for entry in after)
    assert "switch-2" in after.by_name and "switch-1" not in after.by_name


def test_second_update_renders_no_slot_and_makes_no_switch() -> None:
    before = first()
    again = deploy(export=exported(before))
    assert {entry.urn for entry in again} == {entry.urn for entry in before}
    assert again.by_name["switch-1"].ignores == ("*",)
    for name in ("gateway", "database-1", "cache-1"):
        assert json.dumps(again.by_name[name].inputs) == json.dumps(before.by_name[name].inputs)
