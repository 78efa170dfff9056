"""Invariants of every Kubernetes object of staging, of prod, and of applications that use every option."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from pulumi import RunError

from components.platforms import access
from components.platforms.manifests import LABEL_MEMBER, Manifest

from .program import SECRETS, Deployment, Registered, deploy, environment, exported, first, project, second


def everything() -> Deployment:
    """Deploy to a cluster with every option that Kubernetes supports."""
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


def beginning() -> Deployment:
    """Deploy a database that is initialised with SQL."""
    app = project()
    app["database"]["init"] = ["tests/unit/made.sql"]
    return deploy(app, environment("staging"), stack="staging")


def monitored() -> Deployment:
    """Deploy prod with monitoring, where the database cluster exports its own metrics."""
    env = environment("prod") | {"monitoring": {"labels": {"release": "prometheus"}}}
    env["monitoring"]["exporters"] = {"cache": f"exporter@sha256:{'2' * 64}"}
    return deploy(env=env, stack="prod")


def backed_up() -> Deployment:
    """Deploy a database with monitoring, whose backups go to a volume and include a volume of the api."""
    app, env = project(), environment("staging")
    env["monitoring"] = True
    app["api"]["volumes"] = {"uploads": "/data"}
    env["tiers"]["api"]["storage_class"] = "nfs"
    env["tiers"]["database"]["backup"] = {"target": {"volume": True}}
    return deploy(app, env, stack="staging", secrets=SECRETS | {"backup-key": "the-key-of-backups"})


def replicated() -> Deployment:
    """Deploy a database cluster that is initialised with SQL."""
    app, env = project(), environment("staging")
    app["database"]["init"] = ["tests/unit/made.sql"]
    env["tiers"]["database"] |= {"ha": True, "priority_class": "high", "storage_class": "fast"}
    env["kubernetes"]["pull_secrets"] = ["registry"]
    return deploy(app, env, stack="staging")


def archived() -> Deployment:
    """Deploy a database cluster with an archive of every change."""
    env = environment("staging")
    keys = {"access_key": "backup-access", "secret_key": "backup-secret"}
    target = {"s3": {"endpoint": "https://s3.test", "bucket": "backups", **keys}}
    env["tiers"]["database"] |= {"ha": True, "backup": {"target": target}}
    values = {name: f"the-{name}-secret" for name in ("backup-key", *keys.values())}
    return deploy(env=env, stack="staging", secrets=SECRETS | values)


def moving() -> Deployment:
    """Deploy a live single-instance database beside the cluster that will receive its data."""
    env = environment("staging")
    env["tiers"]["database"] |= {"ha": True, "single": "live", "backup": {"target": {"volume": True}}}
    return deploy(env=env, stack="staging", secrets=SECRETS | {"backup-key": "the-key-of-backups"})


ALL = {
    "staging": first("staging"),
    "prod": first("prod"),
    "everything": everything(),
    "beginning": beginning(),
    "monitored": monitored(),
    "backed-up": backed_up(),
    "replicated": replicated(),
    "archived": archived(),
    "moving": moving(),
}
OBJECTS = [(f"{name}-{entry.kind}-{entry.name}", entry) for name, deployed in ALL.items() for entry in deployed.objects]
# The operator defines the other fields of a Pooler's pods.
PODS = [
    entry
    for entry in OBJECTS
    if {"template", "jobTemplate"} & set(entry[1].inputs.get("spec", {})) and entry[1].kind != "Pooler"
]
STAYING = [(name, entry) for name, entry in PODS if entry.kind not in ("Job", "CronJob")]


def of_each(items: list[tuple[str, Registered]]) -> Callable[[Callable[[Registered], None]], Callable[[], None]]:
    """Return a decorator that runs one check on all items and names the item that fails; a test for each would cost seconds."""

    def over(check: Callable[[Registered], None]) -> Callable[[], None]:
        def test() -> None:
            assert items
            for name, it in items:
                try:
                    check(it)
                except (AssertionError, LookupError) as error:
                    raise AssertionError(f"{name}: {error!r}") from error

        return test

    return over


every_object, every_pod, every_staying = of_each(OBJECTS), of_each(PODS), of_each(STAYING)


def in_a_slot(it: Registered, *deployed: Deployment) -> bool:
    return any(entry.inside(it, "tiers:slot:Slot") for entry in deployed or ALL.values())


def pod(it: Registered) -> Manifest:
    spec = it.inputs["spec"]
    return spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]


def containers(it: Registered) -> list[Manifest]:
    spec = pod(it)
    return [*spec["containers"], *spec.get("initContainers", ())]


def test_deployments_cover_every_tier_and_kind() -> None:
    tiers = {container.labels["app.kubernetes.io/component"] for _, container in STAYING}
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


def test_documented_role_grants_exactly_the_kinds_that_are_created() -> None:
    kinds = {entry.kind for _, entry in OBJECTS} - {"Namespace", "ResourceQuota", "LimitRange"}
    assert kinds == set(access.KINDS)
    granted = {(rule["apiGroups"][0], name) for rule in access.role()["rules"] for name in rule["resources"]}
    assert granted == {*access.KINDS.values(), *access.READ}
    for it in (entry for _, entry in OBJECTS if entry.kind in kinds):
        assert it.inputs["apiVersion"].rpartition("/")[0] == access.KINDS[it.kind][0]


@every_object
def test_object_has_the_recommended_labels_and_namespace(it: Registered) -> None:
    labels = it.labels
    for name in ("name", "instance", "part-of", "managed-by", "component"):
        assert labels[f"app.kubernetes.io/{name}"], name
    assert labels["tiers.app"] == "board"
    if it.kind != "Namespace":
        assert it.inputs["metadata"]["namespace"] in ("board-staging", "board-prod")


@every_object
def test_only_objects_of_a_slot_or_switch_have_release_labels(it: Registered) -> None:
    in_slot = in_a_slot(it) or any(entry.inside(it, "tiers:switch:Switch") for entry in ALL.values())
    assert ("tiers.release" in it.labels) == ("app.kubernetes.io/version" in it.labels) == in_slot


@every_object
def test_names_and_labels_are_valid_for_kubernetes(it: Registered) -> None:
    assert len(it.inputs["metadata"]["name"]) <= 63
    for value in it.labels.values():
        assert len(value) <= 63
        assert value[0].isalnum()
        assert value[-1].isalnum()


@every_object
def test_no_object_names_the_tag_latest(it: Registered) -> None:
    assert ":latest" not in json.dumps(it.inputs)


@every_object
def test_no_secret_is_in_a_plain_input(it: Registered) -> None:
    assert not [value for value in SECRETS.values() if value in it.plain]


@every_pod
def test_pod_meets_the_restricted_standard(it: Registered) -> None:
    context = pod(it)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) > 10_000
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(it))
    for volume in pod(it)["volumes"]:
        assert set(volume) - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected"}


@every_pod
def test_containers_of_a_pod_are_hardened(it: Registered) -> None:
    for container in containers(it):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["privileged"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["runAsNonRoot"] is True
        assert min(context["runAsUser"], context["runAsGroup"]) > 10_000


@every_pod
def test_pod_mounts_no_service_account_token(it: Registered) -> None:
    assert pod(it)["automountServiceAccountToken"] is False


@every_pod
def test_containers_have_requests_and_limits(it: Registered) -> None:
    for container in containers(it):
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert set(requests) == set(limits) == {"cpu", "memory", "ephemeral-storage"}
        assert requests["memory"] == limits["memory"]


@every_pod
def test_pod_writes_only_to_limited_memory_and_volumes(it: Registered) -> None:
    sizes = [volume["emptyDir"] for volume in pod(it)["volumes"] if "emptyDir" in volume]
    assert sizes or it.labels["app.kubernetes.io/component"] == "cache"
    assert all(entry["medium"] == "Memory" and entry["sizeLimit"] for entry in sizes)


@every_pod
def test_secrets_are_read_only_files_and_never_variables(it: Registered) -> None:
    for container in containers(it):
        for variable in container.get("env", ()):
            assert "valueFrom" not in variable
        for mount in container["volumeMounts"]:
            assert mount.get("readOnly") is True or mount["mountPath"] != "/run/secrets"


@every_staying
def test_startup_liveness_and_readiness_probes_differ(it: Registered) -> None:
    for container in containers(it):
        startup, liveness, readiness = (
            container["startupProbe"],
            container["livenessProbe"],
            container.get("readinessProbe"),
        )
        assert bool(readiness) == (it.labels["app.kubernetes.io/component"] != "worker")
        assert startup != liveness != readiness != startup
        handlers = [{key for key in probe if key in ("exec", "httpGet", "tcpSocket")} for probe in (startup, liveness)]
        assert all(len(handler) == 1 for handler in handlers)
        if readiness:
            handler_ = {key: value for key, value in readiness.items() if key in ("exec", "httpGet", "tcpSocket")}
            assert handler_ != {key: liveness.get(key) for key in handler_}


@every_staying
def test_workload_has_its_own_service_account_and_disruption_budget(it: Registered) -> None:
    deployed = next(entry for entry in ALL.values() if it in entry.all)
    # Members of one workload share its budget: one of them at a time may leave.
    owner = it.labels["app.kubernetes.io/name"] if LABEL_MEMBER in it.labels else it.inputs["metadata"]["name"]
    assert pod(it)["serviceAccountName"] == owner
    account = deployed.one("ServiceAccount", owner)
    assert account.inputs["automountServiceAccountToken"] is False
    budget = deployed.one("PodDisruptionBudget", owner).inputs["spec"]
    assert budget["maxUnavailable"] == 1
    labels_ = budget["selector"]["matchLabels"].items()
    assert {"app.kubernetes.io/name", "app.kubernetes.io/instance"} <= {key for key, _ in labels_}
    assert labels_ <= it.inputs["spec"]["selector"]["matchLabels"].items()


@every_staying
def test_pod_has_time_to_finish_its_requests(it: Registered) -> None:
    described = project().get(it.labels["app.kubernetes.io/component"], {})
    container = containers(it)[0]
    grace = pod(it)["terminationGracePeriodSeconds"]
    if it.kind == "Deployment" and "port" in described:
        assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
        grace -= 5
    assert grace >= 30


@pytest.mark.parametrize("deployed", ALL.values(), ids=ALL)
def test_tiers_of_a_slot_spread_over_zones_and_hosts(deployed: Deployment) -> None:
    for it in (entry for entry in deployed.of_type("Deployment") if entry.labels["tiers.role"] == "tier"):
        spread = pod(it)["topologySpreadConstraints"]
        assert [entry["topologyKey"] for entry in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        assert all(entry["labelSelector"] == it.inputs["spec"]["selector"] for entry in spread)


def test_replicas_of_an_autoscaled_tier_are_ignored() -> None:
    deployed = ALL["prod"]
    api = deployed.one("Deployment", "api-blue")
    # It begins with the lower bound, because it must not go live as one pod. After that the autoscaler sets the number.
    assert (api.inputs["spec"]["replicas"], api.ignores) == (2, ("spec.replicas",))
    assert deployed.one("Deployment", "web-blue").ignores == ()
    assert deployed.one("Deployment", "web-blue").inputs["spec"]["replicas"] == 2
    scaler = deployed.one("HorizontalPodAutoscaler", "api-blue").inputs["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    assert scaler["metrics"][0]["resource"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    assert scaler["scaleTargetRef"]["name"] == "api-blue"


def test_pods_of_tasks_are_in_no_service() -> None:
    for deployed in ALL.values():
        services = [entry.inputs["spec"]["selector"].items() for entry in deployed.of_type("Service")]
        jobs = [job.inputs["spec"] for job in deployed.of_type("Job")]
        jobs += [entry.inputs["spec"]["jobTemplate"]["spec"] for entry in deployed.objects if entry.kind == "CronJob"]
        for job in jobs:
            labels = job["template"]["metadata"]["labels"].items()
            assert not [entry for entry in services if entry <= labels]


def test_every_image_of_prod_is_named_by_its_digest() -> None:
    images = {container["image"] for _, it in PODS if it in ALL["prod"].all for container in containers(it)}
    images |= {ALL["prod"].one("Cluster", "database-ha").inputs["spec"]["imageName"]}
    images |= {entry["image"] for entry in pod(ALL["prod"].one("Pooler", "database-pooler"))["containers"]}
    # The images are of web, api, worker and the smoke test; of PostgreSQL and its pooler; of Redis and its proxy.
    assert len(images) == 8
    assert all("@sha256:" in image for image in images)


def test_built_images_come_from_the_registry() -> None:
    [api] = containers(ALL["staging"].one("Deployment", "api-blue"))
    assert api["image"].startswith("127.0.0.1:5005/board/board-api:")


def test_secrets_are_immutable_and_named_by_their_content() -> None:
    one, other = first("staging"), deploy(stack="staging", secrets=SECRETS | {"cache-password": "another"})
    names = [{entry.inputs["metadata"]["name"] for entry in deployed.of_type("Secret")} for deployed in (one, other)]
    assert len(names[0] - names[1]) == 3  # Those of api, worker and cache change; the database's does not.
    assert all(entry.inputs["immutable"] is True for entry in one.of_type("Secret"))
    assert all(set(entry.secret_outputs) == {"data", "stringData"} for entry in one.of_type("Secret"))
    assert one.release != other.release


def test_tier_receives_its_own_secrets_only() -> None:
    secrets = {
        entry.labels["app.kubernetes.io/component"]: set(entry.inputs["stringData"])
        for entry in first("prod").of_type("Secret")
    }
    both, cache = {"database-password", "cache-password"}, {"cache-password"}
    assert secrets == {
        "api": both, "worker": both, "database": {"username", "password"}, "cache": cache, "cache-proxy": cache,
    }  # fmt: skip


def test_external_secrets_are_mounted_with_the_others() -> None:
    deployed = ALL["everything"]
    [volume] = [entry for entry in pod(deployed.one("Deployment", "api-blue"))["volumes"] if entry["name"] == "secrets"]
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
    [api] = containers(deployed.one("Deployment", "api-blue"))
    assert {"name": "DATABASE_HOST", "value": "db.test"} in api["env"]


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_data_is_protected_with_protect_data(stack: str) -> None:
    protected = {entry.kind for entry in first(stack).objects if entry.protect}
    assert {entry.kind for entry in first(stack).objects if entry.retained} == protected
    # In prod the operator creates the claims of the database: they belong to the Cluster.
    assert protected == ({"Cluster", "PersistentVolumeClaim"} if stack == "prod" else set())
    env = environment("staging") | {"protect_data": True}
    assert {entry.kind for entry in deploy(env=env, stack="staging").objects if entry.protect} == {
        "PersistentVolumeClaim",
        "Namespace",
    }


def test_existing_namespace_is_left_alone_and_a_created_one_is_restricted() -> None:
    assert not [entry for entry in first("prod").objects if entry.kind == "Namespace"]
    [namespace] = first("staging").of_type("Namespace")
    assert namespace.labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(namespace.urn in entry.waits_for for entry in first("staging").objects if entry is not namespace)


# ---------------------------------------------------------------------- releases


def test_one_route_moves_all_traffic_and_no_resource_depends_on_it() -> None:
    for deployed in (first("staging"), second("staging")):
        live = deployed.one("HTTPRoute", "board")
        slot = live.labels["tiers.slot"]
        backends = {ref["name"] for rule in live.inputs["spec"]["rules"] for ref in rule["backendRefs"]}
        assert backends == {f"web-{slot}", f"api-{slot}"}
        for path in ("/", "/api"):
            everybody = {"path": {"type": "PathPrefix", "value": path}}
            assert [rule for rule in live.inputs["spec"]["rules"] if everybody in rule["matches"]]
        assert "X-Tiers-Slot" not in json.dumps(live.inputs)
        assert not [entry.name for entry in deployed if live.urn in entry.waits_for]
    assert {entry.name for entry in second("staging").of_type("HTTPRoute")} == {"board", "board-blue", "board-green"}


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
def test_cookie_pins_assets_to_the_slot_of_their_page_and_new_pages_to_live(accept: str) -> None:
    old, new = first("staging"), second("staging")
    for route, release in (
        (old.one("HTTPRoute", "board-blue"), old.release),
        (new.one("HTTPRoute", "board-green"), new.release),
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


def test_only_responses_with_pages_set_the_release_cookie() -> None:
    live = second("prod").one("HTTPRoute", "board").inputs["spec"]["rules"]
    for rule in live:
        added = [entry["responseHeaderModifier"]["add"][0] for entry in rule.get("filters", ()) if "add" in str(entry)]
        pages = [
            match
            for match in rule["matches"]
            if match.get("headers") == [{"name": "Accept", "type": "RegularExpression", "value": "^text/html"}]
        ]
        assert bool(added) == bool(pages) == (len(pages) == len(rule["matches"]))
        for entry in added:
            assert entry["value"] == f"tiers-release={second('prod').release}; Path=/; HttpOnly; SameSite=Lax; Secure"


def test_pinned_route_of_a_replaced_release_changes_before_its_workloads() -> None:
    third = deploy(project() | {"version": "3.0.0"}, export=exported(second("staging")), stack="staging")
    for kind in ("Deployment", "Service"):
        for entry in third.of_type(kind):
            if entry.name.endswith("-blue") and not entry.ignores:
                assert "board-blue" in third.before(entry), entry.name


def test_cold_standby_has_no_cookie_routes() -> None:
    env = environment("staging") | {"release": {"standby": "cold"}}
    deployed = deploy(env=env, stack="staging")
    assert "tiers-release" not in json.dumps([entry.inputs for entry in deployed.of_type("HTTPRoute")])


def test_suspended_standby_receives_no_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cookies of the release's pages are ignored, too. A rollback routes them again once everything runs."""
    route = first("staging").one("HTTPRoute", "board-blue").inputs
    open_rules = [rule for rule in route["spec"]["rules"] if len(rule["matches"][0]["headers"]) == 1]
    assert open_rules != route["spec"]["rules"]
    cold: dict[str, Any] = environment("staging") | {"release": {"standby": "cold"}}
    after = deploy(project() | {"version": "2.0.0"}, cold, export=exported(first("staging")), stack="staging")
    shut = after.one("HTTPRoute", "board-blue")
    assert shut.inputs == route | {"spec": route["spec"] | {"rules": open_rules}}
    assert "board-blue" in after.before(after.one("HTTPRoute", "board"))
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    back = deploy(env=cold, export=exported(after), stack="staging")
    way = back.one("HTTPRoute", "board-blue")
    assert way.inputs == route
    assert {"web-blue", "api-blue", "worker-blue"} <= back.before(way)
    assert back.one("HTTPRoute", "board").inputs["spec"] == first("staging").one("HTTPRoute", "board").inputs["spec"]


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
def test_selectors_of_two_releases_differ(kind: str) -> None:
    """Otherwise a pod of another release could be awaited, or answer requests, instead of a pod of this one."""
    selectors = [
        json.dumps(entry.inputs["spec"]["selector"])
        for deployed in (first("staging"), deploy(project() | {"version": "2.0.0"}, stack="staging"))
        for entry in deployed.of_type(kind)
        if in_a_slot(entry, deployed)
    ]
    assert len(selectors) == len(set(selectors)) >= 4


def test_switch_depends_on_every_gate() -> None:
    deployed = first("prod")
    switch = deployed.one("HTTPRoute", "board")
    assert {"blue-smoke"} <= deployed.before(switch)
    before = deployed.before(deployed.by_name["blue-smoke"])
    assert {"web-blue", "api-blue", "worker-blue", "blue-api-migrate", "board-blue"} <= before
    assert {"database-ha", "database-pooler", "cache"} <= deployed.before("blue-api-migrate")


def test_live_slot_is_replayed_unchanged_by_a_release() -> None:
    for stack in ("staging", "prod"):
        replayed = [entry for entry in second(stack).objects if entry.ignores == ("*",)]
        created = [entry for entry in first(stack).objects if in_a_slot(entry, first(stack))]
        resting = {entry.urn for entry in created if entry.kind == "Deployment" and entry.name == "worker-blue"}
        assert {entry.urn for entry in replayed} == {entry.urn for entry in created} - resting
        assert len(resting) == 1
        assert all(not entry.inputs for entry in replayed)


@pytest.mark.parametrize("failing", ["blue-api-migrate", "blue-smoke"])
def test_failed_gate_stops_before_the_switch(failing: str) -> None:
    seen: list[Registered] = []
    with pytest.raises(Exception, match=failing):
        deploy(stack="staging", fail=lambda name: name == failing, seen=seen)
    assert [entry for entry in seen if entry.name == "api-blue"] or failing == "blue-api-migrate"
    assert not [entry for entry in seen if entry.labels.get("tiers.role") == "switch"]


def test_rollback_is_a_switch_with_the_routes_of_the_old_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    app: dict[str, Any] = project() | {"version": "2.0.0"}
    app["api"] |= {"port": 9000, "paths": ["/v2"]}
    released = deploy(app, export=exported(first("staging")), stack="staging")
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    back = deploy(app, export=exported(released), stack="staging")
    rules = back.one("HTTPRoute", "board").inputs["spec"]["rules"]
    assert rules == first("staging").one("HTTPRoute", "board").inputs["spec"]["rules"] != []
    again = [entry for entry in back.objects if in_a_slot(entry, back) and entry.ignores != ("*",)]
    assert [(entry.kind, entry.name) for entry in again] == [("Deployment", "worker-blue")]
    assert again[0].inputs == first("staging").one("Deployment", "worker-blue").inputs


def test_failed_job_is_created_again() -> None:
    export = exported(first("staging"))
    for resource in export["deployment"]["resources"]:
        if resource["urn"].endswith("::blue-smoke"):
            resource["initErrors"] = ["the Job has failed"]
        if not resource["custom"]:
            resource["outputs"] = {}
    export["deployment"]["resources"] = [
        resource for resource in export["deployment"]["resources"] if not resource["urn"].endswith("HTTPRoute::board")
    ]
    again = deploy(export=export, stack="staging").by_name["blue-smoke"]
    assert again.inputs["spec"]["template"]["metadata"]["labels"]["tiers.attempt"] == "2"


def test_only_the_scale_of_the_live_slot_follows_the_configuration() -> None:
    env = environment("prod")
    env["tiers"] = copy.deepcopy(env["tiers"])
    env["tiers"]["web"]["replicas"] = 5
    env["tiers"]["api"]["autoscale"] = {"max": 12, "cpu": 70}
    after = deploy(env=env, export=exported(first("prod")), stack="prod")
    touched = {
        (entry.kind, entry.name): entry.inputs
        for entry in after.objects
        if in_a_slot(entry, after) and not entry.ignores
    }
    assert set(touched) == {("Deployment", "web-blue"), ("HorizontalPodAutoscaler", "api-blue")}
    web: Any = copy.deepcopy(first("prod").one("Deployment", "web-blue").inputs)
    web["spec"]["replicas"] = 5
    assert touched["Deployment", "web-blue"] == web
    scaler = touched["HorizontalPodAutoscaler", "api-blue"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 12)
    [switch] = [entry for entry in after.of_type("HTTPRoute") if entry.name == "board"]
    assert switch.ignores == ("*",)


def test_paths_are_part_of_the_release_digest() -> None:
    app = project()
    app["api"] |= {"paths": ["/api", "/v2"]}
    assert deploy(app, stack="staging").release != first("staging").release


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
    """Otherwise a change would reach the live slot without a gate, or have no effect without a message."""
    env: Any = environment("staging")
    *parents, last = path.split(".")
    target = env
    for part in parents:
        target = target[part]
    target[last] = value
    assert deploy(env=env, stack="staging").release != first("staging").release


def test_changed_database_pod_is_replaced_on_the_same_volume() -> None:
    """An update in place would not be awaited, and a pod that can't start would block one that can."""
    env = environment("staging")
    env["tiers"] = {**env["tiers"], "database": {"memory": "1Gi"}}
    one, other = (
        deployed.one("StatefulSet", "database").inputs["spec"]
        for deployed in (first("staging"), deploy(env=env, stack="staging"))
    )
    assert one["selector"] != other["selector"]
    assert one["template"]["spec"]["volumes"] == other["template"]["spec"]["volumes"]
    for spec in (one, other):
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    assert (
        first("staging").one("Deployment", "api-blue").inputs
        == deploy(env=env, stack="staging").one("Deployment", "api-blue").inputs
    )


def test_worker_without_a_probe_must_run_10_s() -> None:
    app = project()
    del app["worker"]["alive"]
    spec = deploy(app, stack="staging").one("Deployment", "worker-blue").inputs["spec"]
    assert spec["minReadySeconds"] == 10


def test_rollback_scales_the_slot_before_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    app, env = project() | {"version": "2.0.0"}, environment("staging")
    released = deploy(app, env, export=exported(first("staging")), stack="staging")
    env["tiers"] = {**env["tiers"], "web": {"replicas": 5}}
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    back = deploy(app, env, export=exported(released), stack="staging")
    assert back.one("Deployment", "web-blue").inputs["spec"]["replicas"] == 5
    assert "web-blue" in back.before(back.one("HTTPRoute", "board"))


def test_another_application_in_the_same_stack_is_refused() -> None:
    with pytest.raises(RunError, match=r"app\.name: this stack holds board"):
        deploy(project() | {"name": "shop"}, export=exported(first("staging")), stack="staging")


def test_read_only_user_of_a_shared_volume_mounts_it_read_only() -> None:
    mounts = {
        name: next(
            container
            for container in containers(ALL["everything"].one("Deployment", name))[0]["volumeMounts"]
            if container["name"] == "uploads"
        )
        for name in ("web-blue", "api-blue")
    }
    assert mounts["web-blue"] == {"name": "uploads", "mountPath": "/data", "readOnly": True}
    assert mounts["api-blue"] == {"name": "uploads", "mountPath": "/data"}
