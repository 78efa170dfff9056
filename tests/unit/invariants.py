"""Invariants on Docker: functions that check one resource and functions that check a whole deployment."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping

from .program import CONTAINER, IMAGE, NETWORK, VOLUME, Deployment, Registered

Check = Callable[[Registered], None]


def is_long_running(container: Registered) -> bool:
    """Return whether a container is started and runs until it is stopped."""
    return container.runs and container.inputs.get("mustRun") is not False


# ---------------------------------------------------------------------- every container


def does_not_run_as_root(container: Registered) -> None:
    uid, gid = container.inputs["user"].split(":")
    assert int(uid) > 0 and int(gid) > 0


def has_no_privileges_and_no_capabilities(container: Registered) -> None:
    assert container.inputs["securityOpts"] == ["no-new-privileges:true"]
    assert container.inputs["capabilities"] == {"drops": ["ALL"]}
    assert not container.inputs.get("privileged")


def has_memory_and_cpu_limits(container: Registered) -> None:
    assert container.inputs["memory"] >= 6
    assert container.inputs["memorySwap"] == container.inputs["memory"]
    assert float(container.inputs["cpus"]) > 0


def rotates_its_log(container: Registered) -> None:
    assert container.inputs["logDriver"] == "json-file"
    assert container.inputs["logOpts"] == {"max-size": "10m", "max-file": "3"}


def restarts_unless_it_is_a_task(container: Registered) -> None:
    assert container.inputs["restart"] == ("unless-stopped" if is_long_running(container) else "no")


def only_gateway_and_prometheus_publish_ports_on_loopback(container: Registered) -> None:
    ports = container.inputs.get("ports") or []
    assert bool(ports) == (container.name in ("gateway", "prometheus"))
    assert all(port["ip"] == "127.0.0.1" for port in ports)


def mounts_no_host_folder_writable_except_backups(container: Registered) -> None:
    writable = [mount["source"] for mount in container.inputs.get("mounts") or () if not mount["readOnly"]]
    # Only the folder that stores the backups is writable.
    assert writable == (["/srv/backups"] if container.name == "backup-1" else [])
    assert not any(volume.get("hostPath") for volume in container.inputs.get("volumes") or ())


def names_its_image_by_id(container: Registered) -> None:
    assert container.inputs["image"].startswith("sha256:")


# ---------------------------------------------------------------------- started and long-running containers


def has_a_read_only_root_file_system(container: Registered) -> None:
    assert container.inputs["readOnly"] is True


def mounts_secrets_read_only(container: Registered) -> None:
    for volume in container.inputs.get("volumes") or ():
        if volume["containerPath"] == "/run/secrets":
            assert volume["readOnly"] is True


def has_a_health_check(container: Registered) -> None:
    assert container.inputs["healthcheck"]["tests"][0] in ("CMD", "CMD-SHELL")


def has_at_least_30_s_to_stop(container: Registered) -> None:
    assert container.inputs["stopTimeout"] == container.inputs["destroyGraceSeconds"] >= 30


# ---------------------------------------------------------------------- other resources


def has_a_tag_other_than_latest(image: Registered) -> None:
    assert ":" in image.inputs["name"] and not image.inputs["name"].endswith(":latest")


def has_a_component_as_its_parent(entry: Registered) -> None:
    assert "$" in entry.parent or "::tiers:" in entry.parent, entry.parent


def has_a_type_token_of_tiers(component: Registered) -> None:
    package, module, name = component.type.split(":")
    assert (package, name[0].isupper(), module.islower()) == ("tiers", True, True)


def has_name_and_labels_of_its_app_and_environment(entry: Registered) -> None:
    assert entry.inputs["name"].startswith("board-dev-")
    assert (entry.labels["tiers.app"], entry.labels["tiers.environment"]) == ("board", "dev")


def _is_container(entry: Registered) -> bool:
    return entry.type == CONTAINER


CHECKS: Mapping[Check, Callable[[Registered], bool]] = {
    does_not_run_as_root: _is_container,
    has_no_privileges_and_no_capabilities: _is_container,
    has_memory_and_cpu_limits: _is_container,
    rotates_its_log: _is_container,
    restarts_unless_it_is_a_task: _is_container,
    only_gateway_and_prometheus_publish_ports_on_loopback: _is_container,
    mounts_no_host_folder_writable_except_backups: _is_container,
    names_its_image_by_id: _is_container,
    has_a_read_only_root_file_system: lambda entry: entry.runs,
    mounts_secrets_read_only: lambda entry: entry.runs,
    has_a_health_check: is_long_running,
    has_at_least_30_s_to_stop: is_long_running,
    has_a_tag_other_than_latest: lambda entry: entry.type == IMAGE,
    has_a_component_as_its_parent: lambda entry: entry.custom,
    has_a_type_token_of_tiers: lambda entry: not entry.custom,
    has_name_and_labels_of_its_app_and_environment: lambda entry: entry.type in (CONTAINER, VOLUME, NETWORK),
}
"""Function that checks one resource → predicate that selects the resources to check."""


def cases(deployed: Deployment) -> Iterator[tuple[Check, Registered]]:
    """Yield each check together with each resource that the check applies to. Fail if a check applies to no resource."""
    for check, selects in CHECKS.items():
        entries = [entry for entry in deployed.sorted if selects(entry)]
        assert entries, f"nothing to check: {check.__name__}"
        yield from ((check, entry) for entry in entries)


# ---------------------------------------------------------------------- whole deployments


def no_secret_is_in_a_plain_input(deployed: Deployment, secrets: Collection[str]) -> None:
    for entry in deployed.sorted:
        assert not [value for value in secrets if value in entry.plain], entry.urn


def every_secret_is_a_file_and_encrypted_in_the_state(deployed: Deployment, secrets: Mapping[str, str]) -> None:
    holders = [entry for entry in deployed.of_type(CONTAINER) if entry.labels["tiers.role"] == "secrets"]
    uploads = [(upload["file"], upload["content"]) for entry in holders for upload in entry.inputs["uploads"]]
    for name, value in secrets.items():
        assert (f"/run/secrets/{name}", value) in uploads
    assert all("uploads" in entry.secret_outputs for entry in holders)


def containers_of_a_slot_have_labels_of_slot_and_release(deployed: Deployment) -> None:
    slot_containers = [
        entry for entry in deployed.of_type(CONTAINER) if entry.runs and "tiers:slot:Slot" in entry.parent
    ]
    assert len(slot_containers) >= 7
    for entry in slot_containers:
        assert entry.labels["tiers.slot"] == "blue"
        assert entry.labels["tiers.release"] == deployed.release


def second_update_deploys_no_slot_and_does_not_switch(before: Deployment, again: Deployment) -> None:
    assert {entry.urn for entry in again} == {entry.urn for entry in before}
    assert again.by_name["switch-1"].ignores == ("*",)
    shared = {entry.name for entry in before if entry.type == CONTAINER and _is_shared(entry)}
    assert shared >= {"database-1", "cache-1"}
    for name in ("gateway", *sorted(shared)):
        assert json.dumps(again.by_name[name].inputs) == json.dumps(before.by_name[name].inputs)


def _is_shared(entry: Registered) -> bool:
    return is_long_running(entry) and entry.labels.get("tiers.role") == "tier" and "tiers.slot" not in entry.labels
