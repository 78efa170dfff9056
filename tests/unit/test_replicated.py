"""Tests of the database cluster: settings for the operator, network policies, and environment variables of tiers."""

from dataclasses import replace
from typing import Any

import pytest

from components.config import ConfigError, load_app, load_environment
from components.platforms.kubernetes import isolation
from policy.model import Resource
from policy.rules import RULES
from policy.settings import SETTINGS

from .program import SECRETS, checkpoint_of, deploy, environment, first_release, project
from .test_kubernetes import ALL, containers, deploy_database_cluster
from .test_reachability import GATEWAY, STRANGER, WORLD, Network

DEPLOYED = ALL["database-cluster"]
NETWORK = Network(DEPLOYED)
INSTANCE, OTHER_INSTANCE, POOLER = (
    NETWORK.pods[name] for name in ("database-ha-1", "database-ha-2", "database-pooler")
)
OPERATOR = ("cnpg-system", {"app.kubernetes.io/name": "cloudnative-pg"})


def spec(kind: str = "Cluster", name: str = "database-ha") -> dict[str, Any]:
    return DEPLOYED.get_object(kind, name).inputs["spec"]


def variables_of(kind: str, name: str) -> dict[str, str]:
    [container] = [container for container in containers(DEPLOYED.get_object(kind, name)) if "env" in container]
    return {variable["name"]: variable["value"] for variable in container["env"]}


def configuration_error(settings: dict[str, Any], stack: str = "staging", **more: Any) -> str:
    env = environment(stack)
    env |= {"tiers": {"database": settings}, **more}
    with pytest.raises(ConfigError) as error:
        load_environment(env, load_app(project()))
    return str(error.value)


def test_every_commit_requires_a_synchronous_replica() -> None:
    assert spec()["instances"] == 3
    assert spec()["postgresql"]["synchronous"] == {"dataDurability": "required", "method": "any", "number": 1}
    assert spec()["bootstrap"]["initdb"]["dataChecksums"] is True


@pytest.mark.parametrize(
    ("apart", "key"),
    [("zones", "topology.kubernetes.io/zone"), ("hosts", "kubernetes.io/hostname"), ("anywhere", None)],
)
def test_spread_of_database_instances_is_required_unless_the_key_apart_has_the_value_anywhere(
    apart: str, key: str | None
) -> None:
    env = environment("staging")
    env["tiers"]["database"] = {"ha": True}
    env["kubernetes"] |= {"apart": apart} if apart != "hosts" else {}
    affinity = deploy(env=env, stack="staging").get_object("Cluster", "database-ha").inputs["spec"]["affinity"]
    assert affinity["podAntiAffinityType"] == ("required" if key else "preferred")
    assert affinity["topologyKey"] == (key or "kubernetes.io/hostname")


def test_database_cluster_has_the_configured_storage_memory_and_priority() -> None:
    assert spec()["storage"] == {"size": "2Gi", "storageClass": "fast"}
    assert spec()["resources"]["limits"]["memory"] == spec()["resources"]["requests"]["memory"] == "512Mi"
    assert spec()["postgresql"]["parameters"]["shared_buffers"] == "128MB"
    assert spec()["priorityClassName"] == spec("Pooler", "database-pooler")["template"]["spec"]["priorityClassName"]
    assert spec()["imagePullSecrets"] == [{"name": "registry"}]


def test_tiers_connect_to_the_pooler_and_tasks_connect_to_the_primary() -> None:
    api = variables_of("Deployment", "api-blue")
    assert (api["DATABASE_HOST"], api["DATABASE_DIRECT_HOST"]) == ("database-pooler", "database-ha-rw")
    assert api["DATABASE_READ_HOST"] == "database-ha-ro"
    assert variables_of("Job", "blue-api-migrate")["DATABASE_HOST"] == "database-ha-rw"
    [init_container] = DEPLOYED.get_object("Job", "blue-api-migrate").inputs["spec"]["template"]["spec"][
        "initContainers"
    ]
    assert "database-ha-rw:5432" in init_container["command"]


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_all_database_host_variables_name_the_single_instance_without_ha(stack: str) -> None:
    deployed = first_release(stack)
    if stack == "dev":
        env = dict(variable.partition("=")[::2] for variable in deployed.by_name["blue-api-1"].inputs["envs"])
    else:
        [api] = containers(deployed.get_object("Deployment", "api-blue"))
        env = {variable["name"]: variable["value"] for variable in api["env"]}
    assert {env["DATABASE_HOST"], env["DATABASE_DIRECT_HOST"], env["DATABASE_READ_HOST"]} == {"database"}


def test_changed_database_name_makes_a_new_release() -> None:
    env = environment("staging")
    env["tiers"]["database"]["name"] = "board_restored"
    before, after = (
        first_release("staging"),
        deploy(env=env, stack="staging", export=checkpoint_of(first_release("staging"))),
    )
    [api] = containers(after.get_object("Deployment", "api-green"))
    assert {"name": "DATABASE_NAME", "value": "board_restored"} in api["env"]
    assert before.release != after.release
    assert after.get_object("StatefulSet", "database").inputs == before.get_object("StatefulSet", "database").inputs


def test_database_password_is_in_one_basic_auth_secret() -> None:
    [secret] = [entry for entry in DEPLOYED.of_type("Secret") if entry.inputs["type"] == "kubernetes.io/basic-auth"]
    assert secret.inputs["stringData"] == {"username": "board", "password": SECRETS["database-password"]}
    assert spec()["bootstrap"]["initdb"]["secret"] == {"name": secret.inputs["metadata"]["name"]}


@pytest.mark.parametrize("reference", [{"secret": "db-secret", "key": "password"}, {"store": "vault", "key": "db"}])
def test_database_password_from_a_cluster_secret_or_a_secret_store_is_used(reference: dict[str, str]) -> None:
    env = environment("staging")
    env["tiers"]["database"] = {"ha": True}
    env["kubernetes"]["secrets"] = {"database-password": reference}
    deployed = deploy(env=env, stack="staging")
    secret_name = deployed.get_object("Cluster", "database-ha").inputs["spec"]["bootstrap"]["initdb"]["secret"]["name"]
    if "secret" in reference:
        assert secret_name == "db-secret"
        return
    [external_secret] = [
        entry.inputs["spec"] for entry in deployed.of_type("ExternalSecret") if entry.name == secret_name
    ]
    assert external_secret["target"]["template"]["type"] == "kubernetes.io/basic-auth"
    assert external_secret["target"]["template"]["data"]["username"] == "board"


def test_init_sql_runs_as_the_owner_of_the_database() -> None:
    [key] = spec()["bootstrap"]["initdb"]["postInitApplicationSQLRefs"]["configMapRefs"]
    text = DEPLOYED.get_object("ConfigMap", key["name"]).inputs["data"][key["key"]]
    assert text.startswith('SET ROLE "board";\n')
    assert text.endswith("RESET ROLE;\n")


def test_only_pods_that_need_the_database_reach_the_database() -> None:
    for name, pod in NETWORK.pods.items():
        needs = name in ("api-blue", "worker-blue", "blue-api-migrate")
        for target in (INSTANCE, POOLER):
            if not name.startswith("database-"):
                assert NETWORK.reaches(pod, target, 5432) == needs, name
                assert not NETWORK.reaches(pod, target, 8000), name
                assert not NETWORK.reaches(target, pod, 8000), name
    for stranger in (STRANGER, GATEWAY, WORLD):
        assert not NETWORK.reaches(stranger, INSTANCE, 5432)
        assert not NETWORK.reaches(stranger, INSTANCE, 8000)


def test_database_instances_reach_each_other_and_the_api_server_only() -> None:
    assert NETWORK.reaches(INSTANCE, OTHER_INSTANCE, 5432) and NETWORK.reaches(INSTANCE, OTHER_INSTANCE, 8000)
    assert NETWORK.reaches(POOLER, INSTANCE, 5432)
    assert NETWORK.reaches(OPERATOR, INSTANCE, 8000) and not NETWORK.reaches(OPERATOR, INSTANCE, 5432)
    assert NETWORK.reaches(INSTANCE, WORLD, 6443) and not NETWORK.reaches(INSTANCE, WORLD, 80)
    assert not NETWORK.reaches(INSTANCE, "169.254.169.254", 443)


def test_make_check_does_not_report_connections_between_database_instances() -> None:
    pods = [
        {"metadata": {"name": entry[1]["cnpg.io/instanceName"], "labels": entry[1]}}
        for entry in (INSTANCE, OTHER_INSTANCE)
    ]
    policies = [entry.inputs for entry in DEPLOYED.of_type("NetworkPolicy")]
    objects = {"Service": [], "HTTPRoute": [], "NetworkPolicy": policies, "Pod": pods}
    assert not list(isolation.unexpected_routes(load_app(project()), objects, "board-staging"))


def test_database_cluster_is_protected_if_protect_data_is_set() -> None:
    env: dict[str, Any] = environment("staging") | {"protect_data": True}
    env["tiers"]["database"] = {"ha": True}
    protected = {entry.name for entry in deploy(env=env, stack="staging").objects if entry.protect}
    assert "database-ha" in protected
    assert "database-ha" not in {entry.name for entry in deploy_database_cluster().objects if entry.protect}


def test_update_waits_until_database_instances_and_pooler_are_ready() -> None:
    annotations = {kind: DEPLOYED.of_type(kind)[0].inputs["metadata"]["annotations"] for kind in ("Cluster", "Pooler")}
    assert {kind: entry["pulumi.com/waitFor"] for kind, entry in annotations.items()} == {
        "Cluster": "condition=Ready",
        "Pooler": "jsonpath={.status.instances}=2",
    }
    # With foreground deletion a Pooler is never deleted, because the operator recreates the Pooler's Deployment.
    assert {entry["pulumi.com/deletionPropagationPolicy"] for entry in annotations.values()} == {"background"}
    assert {"database-ha", "database-pooler"} <= DEPLOYED.dependencies_of("blue-api-migrate")


def test_database_ha_is_refused_in_unsupported_configurations() -> None:
    assert "environment.tiers.database.ha: it has no effect on Docker" in configuration_error({"ha": True}, "dev")
    assert "environment.tiers.database.external: " in configuration_error({"ha": True, "external": {"host": "db.test"}})
    images = {tier: f"registry.test/{tier}@sha256:{'0' * 64}" for tier in ("web", "api", "worker", "database", "cache")}
    message = configuration_error({"ha": True}, pinned=True, images=images, toolbox=f"python@sha256:{'0' * 64}")
    assert message.startswith("environment.pooler: ") and "make images" in message


@pytest.mark.parametrize("kind", ["Cluster", "Pooler"])
def test_policy_checks_the_images_that_the_database_operator_runs(kind: str) -> None:
    [rule] = [rule for rule in RULES if rule.name == "known-registries"]
    [manifest] = DEPLOYED.of_type(kind)
    strict = replace(SETTINGS, registries=("docker.io/library",))
    resources = [Resource(type=manifest.type, name=manifest.name, stack="prod", props=manifest.inputs)]
    assert not list(rule.problems(resources, SETTINGS))
    assert "ghcr.io/cloudnative-pg" in next(iter(rule.problems(resources, strict)))[1]


def test_database_secret_with_a_key_other_than_password_is_refused() -> None:
    env = environment("staging")
    env["tiers"]["database"] = {"ha": True}
    env["kubernetes"]["secrets"] = {"database-password": {"secret": "given", "key": "pw"}}
    with pytest.raises(ConfigError, match=r"database-password\.key: CloudNativePG requires .*key: password"):
        load_environment(env, load_app(project()))


def test_cpu_limit_is_written_in_the_format_of_cloudnativepg() -> None:
    """Check that one CPU is written as `1`.

    CloudNativePG changes `1000m` to `1`. Therefore every update would find a difference if the program wrote `1000m`.
    """
    for cpu, text in ((1, "1"), (2.0, "2"), (0.5, "500m"), (1.5, "1500m")):
        env = environment("staging")
        env["tiers"]["database"] |= {"ha": True, "cpu": cpu}
        cluster = deploy(env=env, stack="staging").get_object("Cluster", "database-ha")
        assert cluster.inputs["spec"]["resources"]["limits"]["cpu"] == text
