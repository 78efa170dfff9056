"""Tests of the objects that Tiers deploys on Kubernetes, and of releases there.

Many tests check every object of the deployments in `ALL`. Together these deployments use every option.
"""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pulumi import RunError

from components.model.names import LABEL_MEMBER, ROLE_SINGLE
from components.platforms.kubernetes import access
from components.platforms.kubernetes.objects import Manifest

from .program import (
    SECRETS,
    Deployment,
    Registered,
    checkpoint_of,
    deploy,
    environment,
    first_release,
    project,
    second_release,
)


def deploy_every_option() -> Deployment:
    """Deploy an application with an external database and most options that Kubernetes supports."""
    app, env = project(), environment("staging")
    app["api"] |= {"secrets": ["mail-password", "token"], "volumes": {"uploads": "/data"}, "egress": True}
    app["api"] |= {"tasks": {"collect": {"command": ["collect"]}}, "scratch": "128Mi"}
    app["web"]["volumes"] = {"uploads": "/data:ro"}
    app["web"]["needs"] = ["api"]
    app["worker"]["needs"] = ["api", "cache"]
    cluster = env["kubernetes"]
    cluster |= {"pull_secrets": ["registry"], "hostnames": ["www.board.test"], "url": "https://board.test"}
    cluster["gateway"] = {"name": "own", "namespace": "gateway", "inside": "https://board.test"}
    cluster["gateway"]["create"] = {"gateway_class": "traefik", "certificate": "board-tls", "issuer": "letsencrypt"}
    cluster["namespace"] |= {"limits": {}}
    cluster["secrets"] = {
        "mail-password": {"secret": "mail", "key": "password"},
        "token": {"store": "vault", "key": "t"},
    }
    env["tiers"] = {
        "web": {"storage_class": "nfs", "storage": "5Gi"},
        "api": {
            "replicas": 3,
            "autoscale": {"max": 9},
            "priority_class": "high",
            "storage_class": "nfs",
            "storage": "5Gi",
        },
        "database": {"external": {"host": "db.test"}},
    }
    return deploy(app, env, stack="staging")


def deploy_with_init_sql() -> Deployment:
    """Deploy a database that is initialised with SQL."""
    app = project()
    app["database"]["init"] = ["tests/unit/made.sql"]
    return deploy(app, environment("staging"), stack="staging")


def deploy_with_monitoring() -> Deployment:
    """Deploy prod with monitoring and an exporter for the cache.

    The database cluster needs no exporter, because CloudNativePG exports metrics itself.
    """
    env = environment("prod") | {"monitoring": {"labels": {"release": "prometheus"}}}
    env["monitoring"]["exporters"] = {"cache": f"exporter@sha256:{'2' * 64}"}
    return deploy(env=env, stack="prod")


def deploy_with_backup() -> Deployment:
    """Deploy staging with monitoring and with a volume that stores backups of the database and of the api's files."""
    app, env = project(), environment("staging")
    env["monitoring"] = True
    app["api"]["volumes"] = {"uploads": "/data"}
    env["tiers"]["api"]["storage_class"] = "nfs"
    env["tiers"]["database"]["backup"] = {"target": {"volume": True}}
    return deploy(app, env, stack="staging", secrets=SECRETS | {"backup-key": "the-key-of-backups"})


def deploy_database_cluster() -> Deployment:
    """Deploy a database cluster that is initialised with SQL."""
    app, env = project(), environment("staging")
    app["database"]["init"] = ["tests/unit/made.sql"]
    env["tiers"]["database"] |= {"ha": True, "priority_class": "high", "storage_class": "fast"}
    env["kubernetes"]["pull_secrets"] = ["registry"]
    return deploy(app, env, stack="staging")


def deploy_with_archive() -> Deployment:
    """Deploy a database cluster that archives every change."""
    env = environment("staging")
    keys = {"access_key": "backup-access", "secret_key": "backup-secret"}
    target = {"s3": {"endpoint": "https://s3.test", "bucket": "backups", **keys}}
    env["tiers"]["database"] |= {"ha": True, "backup": {"target": target}}
    values = {name: f"the-{name}-secret" for name in ("backup-key", *keys.values())}
    return deploy(env=env, stack="staging", secrets=SECRETS | values)


def deploy_during_move() -> Deployment:
    """Deploy a live single-instance database and the database cluster to which the data will move."""
    env = environment("staging")
    env["tiers"]["database"] |= {"ha": True, "single": "live", "backup": {"target": {"volume": True}}}
    return deploy(env=env, stack="staging", secrets=SECRETS | {"backup-key": "the-key-of-backups"})


ALL = {
    "staging": first_release("staging"),
    "prod": first_release("prod"),
    "everything": deploy_every_option(),
    "init-sql": deploy_with_init_sql(),
    "monitored": deploy_with_monitoring(),
    "backed-up": deploy_with_backup(),
    "database-cluster": deploy_database_cluster(),
    "archived": deploy_with_archive(),
    "migration": deploy_during_move(),
}
OBJECTS = [(f"{name}-{entry.kind}-{entry.name}", entry) for name, deployed in ALL.items() for entry in deployed.objects]


def creates_pods(resource: Registered) -> bool:
    """Return whether an object has a complete pod template. Exclude a Pooler, because its template is partial."""
    return bool({"template", "jobTemplate"} & set(resource.inputs.get("spec", {}))) and resource.kind != "Pooler"


def creates_long_running_pods(resource: Registered) -> bool:
    """Return whether an object creates pods that run until they are deleted."""
    return creates_pods(resource) and resource.kind not in ("Job", "CronJob")


PODS = [entry for entry in OBJECTS if creates_pods(entry[1])]
LONG_RUNNING = [entry for entry in OBJECTS if creates_long_running_pods(entry[1])]
CHECKS: list[tuple[Callable[[Registered], None], Callable[[Registered], bool]]] = []
"""Pairs: a check of one object, and a function that returns whether the check applies to an object."""


def assert_every_invariant(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply every check of one object to the objects of another test's deployment."""
    monkeypatch.setitem(ALL, "another test", deployment)
    for assert_invariant, applies_to in CHECKS:
        for entry in filter(applies_to, deployment.objects):
            assert_invariant(entry)


def check_all(
    items: list[tuple[str, Registered]], applies_to: Callable[[Registered], bool]
) -> Callable[[Callable[[Registered], None]], Callable[[], None]]:
    """Return a decorator that turns a check of one object into a test of all `items`.

    The decorator also adds the check to CHECKS, which other modules use. An error names the failing item. A separate
    test for each item would be several seconds slower.
    """

    def decorate(check: Callable[[Registered], None]) -> Callable[[], None]:
        CHECKS.append((check, applies_to))

        def test() -> None:
            assert items
            for name, resource in items:
                try:
                    check(resource)
                except (AssertionError, LookupError) as error:
                    raise AssertionError(f"{name}: {error!r}") from error

        return test

    return decorate


every_object = check_all(OBJECTS, lambda _: True)
every_pod, every_long_running_workload = (
    check_all(PODS, creates_pods),
    check_all(LONG_RUNNING, creates_long_running_pods),
)


def in_a_slot(resource: Registered, *deployed: Deployment) -> bool:
    return any(entry.inside(resource, "tiers:slot:Slot") for entry in deployed or ALL.values())


def pod(resource: Registered) -> Manifest:
    spec = resource.inputs["spec"]
    return spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]


def containers(resource: Registered) -> list[Manifest]:
    spec = pod(resource)
    return [*spec["containers"], *spec.get("initContainers", ())]


def test_tested_deployments_contain_every_tier_and_every_kind_of_object() -> None:
    tiers = {container.labels["app.kubernetes.io/component"] for _, container in LONG_RUNNING}
    assert tiers == {
        "web",
        "api",
        "worker",
        "database",
        "cache",
        "database-exporter",
        "cache-exporter",
        "backup",
        "vault",
    }
    kinds = {entry.kind for _, entry in OBJECTS}
    assert kinds == {
        "Cluster", "ConfigMap", "CronJob", "Deployment", "ExternalSecret", "Gateway", "HTTPRoute", "HorizontalPodAutoscaler", "Job",
        "LimitRange", "Namespace", "NetworkPolicy", "ObjectStore", "PersistentVolumeClaim", "PodDisruptionBudget", "PodMonitor", "Pooler",
        "PrometheusRule", "ResourceQuota", "ScheduledBackup", "Secret", "Service", "ServiceAccount", "ServiceMonitor", "StatefulSet",
    }  # fmt: skip


def test_documented_kubernetes_role_grants_access_to_exactly_the_kinds_that_the_program_creates() -> None:
    kinds = {entry.kind for _, entry in OBJECTS} - {"Namespace", "ResourceQuota", "LimitRange"}
    assert kinds == set(access.KINDS)
    granted = {(rule["apiGroups"][0], name) for rule in access.role()["rules"] for name in rule["resources"]}
    assert granted == {*access.KINDS.values(), *access.READ}
    for resource in (entry for _, entry in OBJECTS if entry.kind in kinds):
        assert resource.inputs["apiVersion"].rpartition("/")[0] == access.KINDS[resource.kind][0]


@every_object
def test_object_has_the_recommended_labels_and_namespace(resource: Registered) -> None:
    labels = resource.labels
    for name in ("name", "instance", "part-of", "managed-by", "component"):
        assert labels[f"app.kubernetes.io/{name}"], name
    assert labels["tiers.app"] == "board"
    if resource.kind != "Namespace":
        assert resource.inputs["metadata"]["namespace"] in ("board-staging", "board-prod")


@every_object
def test_only_objects_of_a_slot_a_switch_or_the_live_release_have_release_labels(resource: Registered) -> None:
    outside = ("tiers:switch:Switch", "tiers:live:LiveService")
    in_slot = in_a_slot(resource) or any(entry.inside(resource, type_) for entry in ALL.values() for type_ in outside)
    assert ("tiers.release" in resource.labels) == ("app.kubernetes.io/version" in resource.labels) == in_slot


@every_object
def test_names_and_labels_are_valid_for_kubernetes(resource: Registered) -> None:
    assert len(resource.inputs["metadata"]["name"]) <= 63
    for value in resource.labels.values():
        assert len(value) <= 63
        assert value[0].isalnum()
        assert value[-1].isalnum()


@every_object
def test_no_object_uses_the_image_tag_latest(resource: Registered) -> None:
    assert ":latest" not in json.dumps(resource.inputs)


@every_object
def test_no_secret_value_is_in_a_plain_text_input_of_a_resource(resource: Registered) -> None:
    assert not [value for value in SECRETS.values() if value in resource.plain]


@every_pod
def test_pod_meets_the_restricted_pod_security_standard(resource: Registered) -> None:
    context = pod(resource)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) > 10_000
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(resource))
    for volume in pod(resource)["volumes"]:
        assert set(volume) - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}


@every_pod
def test_containers_of_a_pod_are_hardened(resource: Registered) -> None:
    for container in containers(resource):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["privileged"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsNonRoot"] is True
        assert min(context["runAsUser"], context["runAsGroup"]) > 10_000


@every_pod
def test_pod_mounts_no_service_account_token(resource: Registered) -> None:
    assert pod(resource)["automountServiceAccountToken"] is False


@every_pod
def test_containers_have_cpu_and_memory_requests_and_limits(resource: Registered) -> None:
    for container in containers(resource):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert set(requests) == set(limits) == {"cpu", "memory", "ephemeral-storage"}
        assert requests["memory"] == limits["memory"]


@every_pod
def test_pod_can_write_only_to_size_limited_memory_and_to_volumes(resource: Registered) -> None:
    sizes = [volume["emptyDir"] for volume in pod(resource)["volumes"] if "emptyDir" in volume]
    assert sizes or resource.labels["app.kubernetes.io/component"] == "cache"
    assert all(entry["medium"] == "Memory" and entry["sizeLimit"] for entry in sizes)


@every_pod
def test_secrets_are_read_only_files_or_references_to_kubernetes_secrets(resource: Registered) -> None:
    for container in containers(resource):
        for variable in container.get("env", ()):
            assert variable.get("valueFrom", {}).keys() <= {"secretKeyRef"}
        for mount in container["volumeMounts"]:
            assert mount.get("readOnly") is True or mount["mountPath"] != "/run/secrets"


@every_long_running_workload
def test_startup_liveness_and_readiness_probes_of_a_container_differ(resource: Registered) -> None:
    for container in containers(resource):
        startup, liveness, readiness = (
            container["startupProbe"],
            container["livenessProbe"],
            container.get("readinessProbe"),
        )
        has_no_port = any(type_ in resource.urn for type_ in ("tiers:worker:Worker", "tiers:live:LiveService"))
        assert bool(readiness) != has_no_port
        assert startup != liveness != readiness != startup
        handlers = [{key for key in probe if key in ("exec", "httpGet", "tcpSocket")} for probe in (startup, liveness)]
        assert all(len(handler) == 1 for handler in handlers)
        if readiness:
            readiness_handler = {
                key: value for key, value in readiness.items() if key in ("exec", "httpGet", "tcpSocket")
            }
            assert readiness_handler != {key: liveness.get(key) for key in readiness_handler}


def owner_of(resource: Registered) -> str:
    """Return the name of a workload's ServiceAccount and disruption budget."""
    name = resource.labels["app.kubernetes.io/name"]
    if LABEL_MEMBER in resource.labels:
        # Members of one workload share a disruption budget, because only one member at a time may be evicted.
        return name
    if resource.labels["tiers.role"] == ROLE_SINGLE:
        # The slot has the objects around the process, because they belong to one release.
        return f"{name}-{resource.labels['tiers.slot']}"
    return resource.inputs["metadata"]["name"]


@every_long_running_workload
def test_workload_has_its_own_service_account_and_disruption_budget(resource: Registered) -> None:
    deployed = next(entry for entry in ALL.values() if resource in entry.all)
    owner = owner_of(resource)
    assert pod(resource)["serviceAccountName"] == owner
    account = deployed.get_object("ServiceAccount", owner)
    assert account.inputs["automountServiceAccountToken"] is False
    budget = deployed.get_object("PodDisruptionBudget", owner).inputs["spec"]
    assert budget["maxUnavailable"] == 1
    selector = budget["selector"]["matchLabels"].items()
    assert {"app.kubernetes.io/name", "app.kubernetes.io/instance"} <= {key for key, _ in selector}
    assert selector <= resource.inputs["spec"]["selector"]["matchLabels"].items()


@every_long_running_workload
def test_grace_period_leaves_a_pod_30_s_to_finish_its_requests(resource: Registered) -> None:
    tier = project().get(resource.labels["app.kubernetes.io/component"], {})
    container = containers(resource)[0]
    grace = pod(resource)["terminationGracePeriodSeconds"]
    if resource.kind == "Deployment" and "port" in tier:
        assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
        grace -= 5
    assert grace >= 30


@pytest.mark.parametrize("deployed", ALL.values(), ids=ALL)
def test_tiers_of_a_slot_spread_over_zones_and_hosts(deployed: Deployment) -> None:
    for resource in (entry for entry in deployed.of_type("Deployment") if entry.labels["tiers.role"] == "tier"):
        spread = pod(resource)["topologySpreadConstraints"]
        assert [entry["topologyKey"] for entry in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert all(entry["labelSelector"] == resource.inputs["spec"]["selector"] for entry in spread)


def test_pulumi_ignores_the_replicas_of_an_autoscaled_tier() -> None:
    deployed = ALL["prod"]
    api = deployed.get_object("Deployment", "api-blue")
    # A new Deployment starts with the autoscaler's minimum of pods, because one pod can't serve the live traffic.
    assert (api.inputs["spec"]["replicas"], api.ignores) == (2, ("spec.replicas",))
    assert deployed.get_object("Deployment", "web-blue").ignores == ()
    assert deployed.get_object("Deployment", "web-blue").inputs["spec"]["replicas"] == 2
    scaler = deployed.get_object("HorizontalPodAutoscaler", "api-blue").inputs["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    assert scaler["metrics"][0]["resource"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    assert scaler["scaleTargetRef"]["name"] == "api-blue"


def test_no_kubernetes_service_selects_the_pods_of_jobs() -> None:
    for deployed in ALL.values():
        services = [entry.inputs["spec"]["selector"].items() for entry in deployed.of_type("Service")]
        jobs = [job.inputs["spec"] for job in deployed.of_type("Job")]
        jobs += [entry.inputs["spec"]["jobTemplate"]["spec"] for entry in deployed.objects if entry.kind == "CronJob"]
        for job in jobs:
            labels = job["template"]["metadata"]["labels"].items()
            assert not [entry for entry in services if entry <= labels]


def test_every_image_of_prod_is_named_by_its_digest() -> None:
    images = {
        container["image"] for _, resource in PODS if resource in ALL["prod"].all for container in containers(resource)
    }
    images |= {ALL["prod"].get_object("Cluster", "database-ha").inputs["spec"]["imageName"]}
    images |= {entry["image"] for entry in pod(ALL["prod"].get_object("Pooler", "database-pooler"))["containers"]}
    # Images: web, api, worker, smoke test, PostgreSQL, pooler, Redis, Redis proxy.
    assert len(images) == 8
    assert all("@sha256:" in image for image in images)


def test_built_image_is_pulled_from_the_registry() -> None:
    [api] = containers(ALL["staging"].get_object("Deployment", "api-blue"))
    assert api["image"].startswith("127.0.0.1:5005/board/board-api:")


def test_kubernetes_secret_is_immutable_and_a_new_value_gives_a_secret_with_a_new_name() -> None:
    before, after = first_release("staging"), deploy(stack="staging", secrets=SECRETS | {"cache-password": "another"})
    names = [{entry.inputs["metadata"]["name"] for entry in deployed.of_type("Secret")} for deployed in (before, after)]
    assert len(names[0] - names[1]) == 3  # The Secrets of api, worker and cache change.
    assert all(entry.inputs["immutable"] is True for entry in before.of_type("Secret"))
    assert all(set(entry.secret_outputs) == {"data", "stringData"} for entry in before.of_type("Secret"))
    assert before.release != after.release


def test_tier_receives_its_own_secrets_only() -> None:
    secrets = {
        entry.labels["app.kubernetes.io/component"]: set(entry.inputs["stringData"])
        for entry in first_release("prod").of_type("Secret")
    }
    both_passwords, cache = {"database-password", "cache-password"}, {"cache-password"}
    assert secrets == {
        "api": both_passwords, "worker": both_passwords, "database": {"username", "password"}, "cache": cache, "cache-proxy": cache,
    }  # fmt: skip


def test_external_secrets_are_mounted_in_the_same_folder_as_other_secrets() -> None:
    deployed = ALL["everything"]
    [volume] = [
        entry for entry in pod(deployed.get_object("Deployment", "api-blue"))["volumes"] if entry["name"] == "secrets"
    ]
    files = {
        item["path"]: source["secret"]["name"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert files["mail-password"] == "mail"
    assert files["token"] == deployed.of_type("ExternalSecret")[0].inputs["spec"]["target"]["name"]
    assert files["cache-password"].startswith("api-blue-")


def test_external_database_is_not_deployed_and_its_host_is_passed_to_tiers() -> None:
    deployed = ALL["everything"]
    assert [entry.name for entry in deployed.of_type("StatefulSet")] == ["cache"]
    [api] = containers(deployed.get_object("Deployment", "api-blue"))
    assert {"name": "DATABASE_HOST", "value": "db.test"} in api["env"]


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_data_volumes_and_database_clusters_are_protected_if_protect_data_is_set(stack: str) -> None:
    protected = {entry.kind for entry in first_release(stack).objects if entry.protect}
    assert {entry.kind for entry in first_release(stack).objects if entry.retained} == protected
    # In prod CloudNativePG creates the volume claims of the database, so Tiers protects the Cluster instead.
    assert protected == ({"Cluster", "PersistentVolumeClaim"} if stack == "prod" else set())
    env = environment("staging") | {"protect_data": True}
    assert {entry.kind for entry in deploy(env=env, stack="staging").objects if entry.protect} == {
        "PersistentVolumeClaim",
        "Namespace",
    }


def test_created_namespace_is_restricted_and_existing_namespace_is_not_managed() -> None:
    assert not [entry for entry in first_release("prod").objects if entry.kind == "Namespace"]
    [namespace] = first_release("staging").of_type("Namespace")
    assert namespace.labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(namespace.urn in entry.waits_for for entry in first_release("staging").objects if entry is not namespace)


# ---------------------------------------------------------------------- releases


def test_one_http_route_switches_all_traffic_and_has_no_dependents() -> None:
    for deployed in (first_release("staging"), second_release("staging")):
        live = deployed.get_object("HTTPRoute", "board")
        slot = live.labels["tiers.slot"]
        backends = {ref["name"] for rule in live.inputs["spec"]["rules"] for ref in rule["backendRefs"]}
        assert backends == {f"web-{slot}", f"api-{slot}"}
        for path in ("/", "/api"):
            path_match = {"path": {"type": "PathPrefix", "value": path}}
            assert [rule for rule in live.inputs["spec"]["rules"] if path_match in rule["matches"]]
        assert "X-Tiers-Slot" not in json.dumps(live.inputs)
        assert not [entry.name for entry in deployed if live.urn in entry.waits_for]
    assert {entry.name for entry in second_release("staging").of_type("HTTPRoute")} == {
        "board",
        "board-blue",
        "board-green",
    }


ACCEPTS = {
    "text/html,application/xhtml+xml,*/*;q=0.8": True,
    "text/html": True,
    "*/*": False,
    "text/css,*/*;q=0.1": False,
    "text/event-stream": False,
    "application/json": False,
    "image/avif,image/webp,*/*": False,
}


@pytest.mark.parametrize("accept", ACCEPTS)
def test_requests_for_assets_but_not_for_pages_are_routed_by_the_release_cookie(accept: str) -> None:
    old, new = first_release("staging"), second_release("staging")
    for route, release in (
        (old.get_object("HTTPRoute", "board-blue"), old.release),
        (new.get_object("HTTPRoute", "board-green"), new.release),
    ):
        pinned = [
            match for rule in route.inputs["spec"]["rules"] for match in rule["matches"] if len(match["headers"]) == 2
        ]
        assert {entry["path"]["value"] for entry in pinned} == {"/", "/api"}
        for match in pinned:
            cookie, accepts = (header["value"] for header in match["headers"])
            assert re.search(cookie, f"theme=dark; tiers-release={release}; session=1")
            assert not re.search(cookie, f"tiers-release={release}0")
            assert not re.search(cookie, f"other-tiers-release={release}")
            assert bool(re.search(accepts, accept)) is not ACCEPTS[accept]


def test_release_cookie_is_added_to_pages_only() -> None:
    live = second_release("prod").get_object("HTTPRoute", "board").inputs["spec"]["rules"]
    for rule in live:
        added = [entry["responseHeaderModifier"]["add"][0] for entry in rule.get("filters", ()) if "add" in str(entry)]
        pages = [
            match
            for match in rule["matches"]
            if match.get("headers") == [{"name": "Accept", "type": "RegularExpression", "value": "^text/html"}]
        ]
        assert bool(added) == bool(pages) == (len(pages) == len(rule["matches"]))
        for entry in added:
            assert (
                entry["value"]
                == f"tiers-release={second_release('prod').release}; Path=/; HttpOnly; SameSite=Lax; Secure"
            )


def test_workloads_of_a_replaced_release_are_updated_after_the_cookie_route() -> None:
    third = deploy(project() | {"version": "3.0.0"}, export=checkpoint_of(second_release("staging")), stack="staging")
    for kind in ("Deployment", "Service"):
        for entry in third.of_type(kind):
            if entry.name.endswith("-blue") and not entry.ignores:
                assert "board-blue" in third.dependencies_of(entry), entry.name


def test_standby_in_mode_cold_has_no_cookie_routes() -> None:
    env = environment("staging") | {"release": {"standby": "cold"}}
    deployed = deploy(env=env, stack="staging")
    assert "tiers-release" not in json.dumps([entry.inputs for entry in deployed.of_type("HTTPRoute")])


def test_gateway_sends_no_requests_to_a_suspended_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the gateway ignores the release cookie of a suspended standby.

    A rollback must first start all tiers of the standby. Only then may the gateway use the cookie again.
    """
    route = first_release("staging").get_object("HTTPRoute", "board-blue").inputs
    open_rules = [rule for rule in route["spec"]["rules"] if len(rule["matches"][0]["headers"]) == 1]
    assert open_rules != route["spec"]["rules"]
    cold: dict[str, Any] = environment("staging") | {"release": {"standby": "cold"}}
    after = deploy(
        project() | {"version": "2.0.0"}, cold, export=checkpoint_of(first_release("staging")), stack="staging"
    )
    closed_route = after.get_object("HTTPRoute", "board-blue")
    assert closed_route.inputs == route | {"spec": route["spec"] | {"rules": open_rules}}
    assert "board-blue" in after.dependencies_of(after.get_object("HTTPRoute", "board"))
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    rollback = deploy(env=cold, export=checkpoint_of(after), stack="staging")
    reopened_route = rollback.get_object("HTTPRoute", "board-blue")
    assert reopened_route.inputs == route
    assert {"web-blue", "api-blue", "worker-blue"} <= rollback.dependencies_of(reopened_route)
    assert (
        rollback.get_object("HTTPRoute", "board").inputs["spec"]
        == first_release("staging").get_object("HTTPRoute", "board").inputs["spec"]
    )


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_pod_selectors_of_two_releases_differ(kind: str) -> None:
    """Check that no selector matches both releases. Otherwise Pulumi or a Service could select the wrong pods."""
    selectors = [
        json.dumps(entry.inputs["spec"]["selector"])
        for deployed in (first_release("staging"), deploy(project() | {"version": "2.0.0"}, stack="staging"))
        for entry in deployed.of_type(kind)
        if in_a_slot(entry, deployed)
    ]
    assert len(selectors) == len(set(selectors)) >= 4


def test_switch_depends_on_every_gate() -> None:
    deployed = first_release("prod")
    switch = deployed.get_object("HTTPRoute", "board")
    assert {"blue-smoke"} <= deployed.dependencies_of(switch)
    before = deployed.dependencies_of(deployed.by_name["blue-smoke"])
    assert {"web-blue", "api-blue", "worker-blue", "blue-api-migrate", "board-blue"} <= before
    assert {"database-ha", "database-pooler", "cache"} <= deployed.dependencies_of("blue-api-migrate")


def test_new_release_leaves_the_live_slot_unchanged() -> None:
    for stack in ("staging", "prod"):
        replayed = [entry for entry in second_release(stack).objects if entry.ignores == ("*",)]
        created = [entry for entry in first_release(stack).objects if in_a_slot(entry, first_release(stack))]
        suspended = {entry.urn for entry in created if entry.kind == "Deployment" and entry.name == "worker-blue"}
        assert {entry.urn for entry in replayed} == {entry.urn for entry in created} - suspended
        assert len(suspended) == 1
        assert all(not entry.inputs for entry in replayed)


@pytest.mark.parametrize("failing_gate", ["blue-api-migrate", "blue-smoke"])
def test_failed_gate_stops_the_update_before_the_switch(failing_gate: str) -> None:
    registrations: list[Registered] = []
    with pytest.raises(Exception, match=failing_gate):
        deploy(stack="staging", fail=lambda name: name == failing_gate, registrations=registrations)
    assert [entry for entry in registrations if entry.name == "api-blue"] or failing_gate == "blue-api-migrate"
    assert not [entry for entry in registrations if entry.labels.get("tiers.role") == "switch"]


def test_rollback_restores_the_routes_and_the_worker_of_the_old_release(monkeypatch: pytest.MonkeyPatch) -> None:
    app: dict[str, Any] = project() | {"version": "2.0.0"}
    app["api"] |= {"port": 9000, "paths": ["/v2"]}
    released = deploy(app, export=checkpoint_of(first_release("staging")), stack="staging")
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    rollback = deploy(app, export=checkpoint_of(released), stack="staging")
    rules = rollback.get_object("HTTPRoute", "board").inputs["spec"]["rules"]
    assert rules == first_release("staging").get_object("HTTPRoute", "board").inputs["spec"]["rules"] != []
    again = [entry for entry in rollback.objects if in_a_slot(entry, rollback) and entry.ignores != ("*",)]
    assert [(entry.kind, entry.name) for entry in again] == [("Deployment", "worker-blue")]
    assert again[0].inputs == first_release("staging").get_object("Deployment", "worker-blue").inputs


def test_failed_smoke_test_job_is_created_again_by_the_next_update() -> None:
    export = checkpoint_of(first_release("staging"))
    for resource in export["deployment"]["resources"]:
        if resource["urn"].endswith("::blue-smoke"):
            resource["initErrors"] = ["the Job failed"]
        if not resource["custom"]:
            resource["outputs"] = {}
    export["deployment"]["resources"] = [
        resource for resource in export["deployment"]["resources"] if not resource["urn"].endswith("HTTPRoute::board")
    ]
    again = deploy(export=export, stack="staging").by_name["blue-smoke"]
    assert again.inputs["spec"]["template"]["metadata"]["labels"]["tiers.attempt"] == "2"


def test_changed_replicas_and_autoscaling_of_the_live_slot_are_applied_without_a_release() -> None:
    env = environment("prod")
    env["tiers"] = copy.deepcopy(env["tiers"])
    env["tiers"]["web"]["replicas"] = 5
    env["tiers"]["api"]["autoscale"] = {"max": 12, "cpu": 70}
    after = deploy(env=env, export=checkpoint_of(first_release("prod")), stack="prod")
    changed = {
        (entry.kind, entry.name): entry.inputs
        for entry in after.objects
        if in_a_slot(entry, after) and not entry.ignores
    }
    assert set(changed) == {("Deployment", "web-blue"), ("HorizontalPodAutoscaler", "api-blue")}
    web: Any = copy.deepcopy(first_release("prod").get_object("Deployment", "web-blue").inputs)
    web["spec"]["replicas"] = 5
    assert changed["Deployment", "web-blue"] == web
    scaler = changed["HorizontalPodAutoscaler", "api-blue"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 12)
    [switch] = [entry for entry in after.of_type("HTTPRoute") if entry.name == "board"]
    assert switch.ignores == ("*",)


def test_url_paths_of_a_tier_are_part_of_the_release_digest() -> None:
    app = project()
    app["api"] |= {"paths": ["/api", "/v2"]}
    assert deploy(app, stack="staging").release != first_release("staging").release


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kubernetes.gateway.name", "another"),
        ("kubernetes.gateway.namespace", "another"),
        ("kubernetes.url", "http://another.test"),
        ("kubernetes.hostnames", ["another.test"]),
        ("kubernetes.pull_secrets", ["registry"]),
        ("tiers.api.autoscale", {"max": 3}),
        ("tiers.api.reserve", 0.1),
    ],
)
def test_settings_of_pods_and_routes_are_part_of_the_release_digest(path: str, value: Any) -> None:
    """Check that a change gives a new digest. Otherwise the change would bypass the gates or have no effect."""
    env: Any = environment("staging")
    *parents, last = path.split(".")
    target = env
    for part in parents:
        target = target[part]
    target[last] = value
    assert deploy(env=env, stack="staging").release != first_release("staging").release


def test_database_with_changed_settings_is_replaced_on_the_same_volume() -> None:
    """Check that the StatefulSet is replaced instead of updated in place.

    Pulumi does not wait for the new pod of an update in place. If this pod can't start, Kubernetes does not
    replace it, and the pod would block the next update.
    """
    env = environment("staging")
    env["tiers"] = {**env["tiers"], "database": {"memory": "1Gi"}}
    before, after = (
        deployed.get_object("StatefulSet", "database").inputs["spec"]
        for deployed in (first_release("staging"), deploy(env=env, stack="staging"))
    )
    assert before["selector"] != after["selector"]
    assert before["template"]["spec"]["volumes"] == after["template"]["spec"]["volumes"]
    for spec in (before, after):
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert (
        first_release("staging").get_object("Deployment", "api-blue").inputs
        == deploy(env=env, stack="staging").get_object("Deployment", "api-blue").inputs
    )


def test_worker_without_a_probe_counts_as_ready_after_10_s() -> None:
    app = project()
    del app["worker"]["alive"]
    spec = deploy(app, stack="staging").get_object("Deployment", "worker-blue").inputs["spec"]
    assert spec["minReadySeconds"] == 10


def test_rollback_applies_changed_replicas_to_the_slot_before_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    app, env = project() | {"version": "2.0.0"}, environment("staging")
    released = deploy(app, env, export=checkpoint_of(first_release("staging")), stack="staging")
    env["tiers"] = {**env["tiers"], "web": {"replicas": 5}}
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    rollback = deploy(app, env, export=checkpoint_of(released), stack="staging")
    assert rollback.get_object("Deployment", "web-blue").inputs["spec"]["replicas"] == 5
    assert "web-blue" in rollback.dependencies_of(rollback.get_object("HTTPRoute", "board"))


def test_update_is_refused_if_the_stack_has_another_application() -> None:
    with pytest.raises(RunError, match=r"app\.name: this stack contains the application board"):
        deploy(project() | {"name": "shop"}, export=checkpoint_of(first_release("staging")), stack="staging")


def test_tier_with_read_only_access_mounts_a_shared_volume_read_only() -> None:
    mounts = {
        name: next(
            mount
            for mount in containers(ALL["everything"].get_object("Deployment", name))[0]["volumeMounts"]
            if mount["name"] == "uploads"
        )
        for name in ("web-blue", "api-blue")
    }
    assert mounts["web-blue"] == {"name": "uploads", "mountPath": "/data", "readOnly": True}
    assert mounts["api-blue"] == {"name": "uploads", "mountPath": "/data"}
