"""Tests that a developer can add a service without changes in the rest of the program. The example is `search`.

A new data service needs a service record and two functions: one renders the workload of the service, the other renders
the workload of its metrics exporter. The objects of the service must satisfy every invariant, and all commands must
handle the service.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from ci import check, pins
from ci.compose.conversion import convert
from ci.preview.read import Area, parse_preview
from ci.preview.risk import dangers
from components import monitoring, shared
from components.config import ConfigError, DataSettings, load_app, load_environment
from components.context import Description
from components.model import names, services
from components.model.services import AccessMode, Exporter, Kind, Service
from components.model.workload import Probe, Workload, Zone
from components.observability import alerts
from components.observability.alerts import MonitoringScope
from components.platforms.docker import prometheus
from components.platforms.process import listening_ports
from components.release.checkpoint import Checkpoint, parse
from components.release.planner import Slot
from components.rendering import data_image
from components.safety import guard
from components.state.docker import VOLUME
from components.state.kubernetes import CLAIM
from policy.rules import RULES

from . import invariants, test_kubernetes, test_reachability
from .program import (
    SECRETS,
    Deployment,
    checkpoint_of,
    deploy,
    environment,
    preview_output,
    project,
    unlabelled,
    with_whole_urns,
)
from .test_policy import TRUSTING_SETTINGS, problems, resources
from .test_reachability import Network

SEARCH = Service(
    name="search",
    tier="search",
    kind=Kind.DATA,
    holds_data=True,
    port=7700,
    exporter=Exporter(port=9700, image="getmeili/exporter:v1.0"),
    products=frozenset({"meilisearch"}),
)
STACKS = ("dev", "staging")


def renderer(settings: DataSettings, description: Description) -> Workload:
    """Return the workload of the service `search`. Every new data service needs such a renderer."""
    return Workload(
        tier=SEARCH.name,
        image=data_image(SEARCH.name, settings, description),
        resources=description.resources(SEARCH.name),
        port=SEARCH.port,
        probe=Probe(path="/health", port=7700),
        zones=(Zone.DATA,),
        writable=("/tmp",),
        volumes=(description.volume(SEARCH.name, "search-data", "/meili_data"),),
        user=settings.uid,
        start_within=settings.start_within,
        stop_within=30,
    )


def exporter_renderer(settings: DataSettings, description: Description) -> Workload:
    """Return the metrics exporter of the service `search`."""
    return monitoring.exporter_workload(SEARCH, description, {"SEARCH_URL": f"http://search:{SEARCH.port}"})


@pytest.fixture(autouse=True)
def search_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "SERVICES", (*services.SERVICES, SEARCH))
    monkeypatch.setitem(shared.RENDERERS, SEARCH.name, renderer)
    monkeypatch.setitem(monitoring.EXPORTERS, SEARCH.name, exporter_renderer)


def app_and_environment(stack: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    app: dict[str, Any] = project()
    app["search"] = {"image": "getmeili/meilisearch:v1.8", "uid": 1000, "start_within": "30s"}
    app["api"]["needs"] = [*app["api"]["needs"], "search"]
    return app, environment(stack) | more


@cache
def deploy_with_search(stack: str, monitoring: bool = False) -> Deployment:
    """Deploy the application `board` with the service `search`, which the fixture `search_service` must have added."""
    return deploy(*app_and_environment(stack, monitoring=monitoring), stack=stack)


with_and_without_monitoring = pytest.mark.parametrize("monitoring", [False, True], ids=["plain", "monitoring"])


# ---------------------------------------------------------------------- invariants


@with_and_without_monitoring
def test_containers_of_a_new_service_satisfy_every_docker_invariant(monitoring: bool) -> None:
    deployed = deploy_with_search("dev", monitoring)
    for assert_invariant, entry in invariants.cases(deployed):
        assert_invariant(entry)
    names = {entry.name for entry in deployed if invariants.is_long_running(entry)}
    assert "search-1" in names
    assert ("search-exporter" in names) is monitoring
    invariants.no_secret_is_in_a_plain_input(deployed, SECRETS.values())
    invariants.every_secret_is_a_file_and_encrypted_in_the_state(deployed, SECRETS)
    invariants.containers_of_a_slot_have_labels_of_slot_and_release(deployed)


@with_and_without_monitoring
def test_second_update_with_a_new_service_changes_nothing(monitoring: bool) -> None:
    before = deploy_with_search("dev", monitoring)
    repeated = deploy(*app_and_environment("dev", monitoring=monitoring), export=checkpoint_of(before))
    invariants.second_update_deploys_no_slot_and_does_not_switch(before, repeated)


@with_and_without_monitoring
def test_objects_of_a_new_service_satisfy_every_kubernetes_invariant(
    monitoring: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = deploy_with_search("staging", monitoring)
    test_kubernetes.assert_every_invariant(deployed, monkeypatch)
    assert deployed.get_object("StatefulSet", "search")
    assert not monitoring or deployed.get_object("Deployment", "search-exporter")


def test_network_policies_open_a_new_service_only_to_tiers_that_need_it() -> None:
    network = Network(deploy_with_search("staging"))
    search_edges = {("api-blue", "search"), ("blue-api-migrate", "search")}
    assert network.graph() == test_reachability.expected_graph("staging", "blue") | search_edges
    test_reachability.opens_only_the_port_of_each_edge(network)
    test_reachability.reaches_dns_and_no_stranger(network)
    test_reachability.lets_no_stray_pod_connect(network)
    pod_edges = {(client, server) for client, server in network.graph() if {client, server} <= network.pods.keys()}
    assert network.edges("Egress") == network.edges("Ingress") == pod_edges


def test_new_data_service_joins_the_data_network_only() -> None:
    networks = {network["name"] for network in deploy_with_search("dev").by_name["search-1"].inputs["networksAdvanced"]}
    assert networks == {"board-dev-data"}


@with_and_without_monitoring
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("stack", STACKS)
def test_objects_of_a_new_service_pass_every_policy_rule(stack: str, rule: Any, monitoring: bool) -> None:
    deployed = resources(deploy_with_search(stack, monitoring), stack)
    assert problems(rule, deployed, settings_with_registries()) == []


def settings_with_registries() -> Any:
    """Return policy settings that also trust the registries of the search engine, of the exporters and of Prometheus."""
    owners = ("getmeili", "oliver006", "prom", "prometheuscommunity")
    registries = (*TRUSTING_SETTINGS.registries, *(f"docker.io/{owner}" for owner in owners))
    return replace(TRUSTING_SETTINGS, registries=registries)


# ---------------------------------------------------------------------- monitoring


def test_exporter_of_a_new_service_joins_the_networks_of_data_and_of_monitoring() -> None:
    exporter = deploy_with_search("dev", monitoring=True).by_name["search-exporter"]
    assert {network["name"] for network in exporter.inputs["networksAdvanced"]} == {"board-dev-data", "board-dev-watch"}
    assert "SEARCH_URL=http://search:7700" in exporter.inputs["envs"]


def test_exporter_of_a_new_service_connects_only_to_its_service_and_has_a_service_monitor() -> None:
    network = Network(deploy_with_search("staging", monitoring=True))
    connections = {edge for edge in network.graph() if "search-exporter" in edge}
    assert connections == {("search-exporter", "search")}
    assert deploy_with_search("staging", monitoring=True).get_object("ServiceMonitor", "search-exporter")


def scope_with_search(stack: str, **settings: Any) -> MonitoringScope:
    app, env = app_and_environment(stack, monitoring=settings)
    model = load_app(app)
    return MonitoringScope(app=model, environment=load_environment(env, model), namespace="board")


def test_prometheus_reads_the_exporter_of_a_new_service() -> None:
    [text] = [text for path, text in prometheus.files(scope_with_search("dev")).items() if "prometheus.yml" in path]
    [job] = [job for job in json.loads(text)["scrape_configs"] if job["job_name"] == "search"]
    assert job["static_configs"] == [{"targets": ["search-exporter:9700"]}]


@pytest.mark.parametrize("stack", STACKS)
def test_alert_fires_if_the_exporter_of_a_new_service_is_down(stack: str) -> None:
    rules = [rule for group in alerts.rule_file(scope_with_search(stack))["groups"] for rule in group["rules"]]
    down = [rule["labels"]["job"] for rule in rules if rule.get("alert") == "TargetIsDown"]
    assert down.count("search") == 1


def test_image_of_the_exporter_of_a_new_service_is_set_by_the_name_of_the_service() -> None:
    scope = scope_with_search("dev", exporters={"search": "registry.test/exporter:v2"})
    images = scope.environment.monitoring_images(scope.app)
    assert images["exporters.search"] == "registry.test/exporter:v2"
    assert images["exporters.cache"].startswith("oliver006/redis_exporter:")
    with pytest.raises(ConfigError, match=r"monitoring\.exporters\.serch: .*write database, cache or search \(did you"):
        scope_with_search("dev", exporters={"serch": "registry.test/exporter:v2"})


# ---------------------------------------------------------------------- addresses, volumes, names


@pytest.mark.parametrize("stack", STACKS)
def test_tier_that_needs_a_new_service_receives_its_host_and_port(stack: str) -> None:
    def variables(service: str) -> Mapping[str, str]:
        entries = parse(checkpoint_of(deploy_with_search(stack))).entries
        return next(entry.variables for entry in entries if entry.runs and entry.tier == service)

    assert {"SEARCH_HOST": "search", "SEARCH_PORT": "7700"}.items() <= variables("api").items()
    assert not [name for name in variables("worker") if name.startswith("SEARCH")]


def test_volume_claim_of_a_new_data_service_has_the_access_mode_read_write_once() -> None:
    claim = deploy_with_search("staging").get_object("PersistentVolumeClaim", "search-data")
    assert claim.inputs["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_explicit_access_mode_of_a_service_replaces_the_default_of_the_kind_of_service() -> None:
    assert replace(SEARCH, access=AccessMode.ANY_NODE).volume_access is AccessMode.ANY_NODE
    assert replace(SEARCH, kind=Kind.WORKER).volume_access is AccessMode.ANY_NODE
    assert replace(SEARCH, kind=Kind.WORKER, access=AccessMode.ONE_NODE).volume_access is AccessMode.ONE_NODE


def test_volume_name_of_a_new_service_is_reserved() -> None:
    assert names.is_reserved_volume("search-data")
    app, _ = app_and_environment("dev")
    app["api"]["volumes"] = {"search-data": "/data"}
    with pytest.raises(
        ConfigError, match=r"app\.api\.volumes\.search-data: the program uses this name for another volume"
    ):
        load_app(app)


def test_address_variable_of_a_new_service_is_refused_in_the_configuration() -> None:
    app, _ = app_and_environment("dev")
    app["api"]["env"] = {"SEARCH_HOST": "elsewhere"}
    with pytest.raises(ConfigError, match=r"app\.api\.env\.SEARCH_HOST: the program sets this variable"):
        load_app(app)


def test_ha_of_a_service_that_runs_as_one_instance_is_refused() -> None:
    app, env = app_and_environment("staging")
    env["tiers"] = {**env.get("tiers", {}), "search": {"ha": True}}
    with pytest.raises(ConfigError, match=r"environment\.tiers\.search\.ha: search always runs as one instance"):
        load_environment(env, load_app(app))
    env["tiers"] = {"api": {"ha": True}}
    with pytest.raises(ConfigError, match=r"environment\.tiers\.api\.ha: only database and cache have this key"):
        load_environment(env, load_app(app))


# ---------------------------------------------------------------------- data


@pytest.mark.parametrize("labelled", [True, False], ids=["label", "no label"])
@pytest.mark.parametrize("stack", STACKS)
def test_data_loss_guard_and_preview_and_policy_treat_the_volume_of_a_new_service_as_data(
    stack: str, labelled: bool
) -> None:
    export = (
        checkpoint_of(deploy_with_search(stack)) if labelled else unlabelled(checkpoint_of(deploy_with_search(stack)))
    )
    assert "search-data" in guard.stored_data(parse(export))
    app, env = without_search(stack)
    deletion = preview_output(export, deploy_with_force(app, env, export, stack))
    lines = dangers(parse_preview(deletion, stack))
    kind = "Volume" if stack == "dev" else "PersistentVolumeClaim"
    assert any(
        f"**search is deleted**, and both slots share it: {kind} `search-data` **with its data**" in line
        for line in lines
    )
    rule = next(rule for rule in RULES if rule.name == "protected-data")
    volumes = [entry for entry in resources(deploy_with_search(stack), "prod") if entry.name == "search-data"]
    [problem] = problems(rule, [replace(entry, protect=False) for entry in volumes if entry.type in (VOLUME, CLAIM)])
    assert "protect_data" in problem


def without_search(stack: str) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = app_and_environment(stack)
    del app["search"]
    app["api"]["needs"].remove("search")
    return app, env


def deploy_with_force(
    app: Mapping[str, Any], env: Mapping[str, Any], export: Mapping[str, Any], stack: str
) -> Deployment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIERS_FORCE", "data")
        return deploy(app, env, export=export, stack=stack)


@pytest.mark.parametrize("stack", STACKS)
def test_removal_of_a_new_service_with_data_is_refused(stack: str) -> None:
    app, env = without_search(stack)
    with pytest.raises(ConfigError, match=r"app\.search: this tier was removed, and .*search-data would be deleted"):
        deploy(app, env, export=checkpoint_of(deploy_with_search(stack)), stack=stack)


@pytest.mark.parametrize("stack", STACKS)
def test_program_that_does_not_know_a_deployed_service_refuses_to_delete_the_data_of_this_service(
    stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, env = without_search(stack)
    checkpoint_of_older_program = checkpoint_of(deploy_with_search(stack))
    monkeypatch.setattr(services, "SERVICES", services.SERVICES[:-1])
    monkeypatch.delitem(shared.RENDERERS, SEARCH.name)
    with pytest.raises(ConfigError, match=r"app\.search: this version of the program has no service search"):
        deploy(app, env, export=checkpoint_of_older_program, stack=stack)


@pytest.mark.parametrize("stack", STACKS)
def test_data_of_a_new_service_is_protected(stack: str) -> None:
    app, env = app_and_environment(stack, protect_data=True)
    [volume] = [
        entry
        for entry in deploy(app, env, stack=stack)
        if (entry.type, entry.name) in ((VOLUME, "search-data"), (CLAIM, "search-data"))
    ]
    assert volume.protect and volume.retained


# ---------------------------------------------------------------------- commands


def test_make_check_requires_a_new_service_and_probes_its_port() -> None:
    app = load_app(app_and_environment("dev")[0])
    env = load_environment(app_and_environment("dev")[1], app)
    assert ("", "search") in check.expected_replicas(app, env, Slot.BLUE, Checkpoint())
    assert listening_ports(app)["search"] == 7700


def test_image_of_a_new_service_is_in_the_list_of_images_to_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    app = load_app(app_and_environment("dev")[0])
    env = load_environment(app_and_environment("dev")[1], app)
    monkeypatch.setattr(pins, "load", lambda _: (app, env))
    assert pins.required_images("dev")["environment.images.search"].reference == "getmeili/meilisearch:v1.8"


def test_status_lists_a_new_shared_service() -> None:
    entries = parse(with_whole_urns(checkpoint_of(deploy_with_search("dev")))).entries
    assert [entry.name for entry in entries if entry.runs and entry.tier == "search"] == ["search-1"]


def test_preview_shows_changes_of_a_new_data_service_in_the_data_area() -> None:
    export = checkpoint_of(deploy_with_search("dev"))
    changes = parse_preview(preview_output(export, deploy_with_search("dev")), "dev").changes
    assert {change.area for change in changes if change.membership.owner == "search"} == {Area.DATA}


def test_compose_service_with_the_image_of_a_new_service_is_imported_as_this_service() -> None:
    compose: dict[str, Any] = {
        "services": {
            "api": {"image": "me/api:1", "ports": [{"target": 8000, "published": "8000"}]},
            "finder": {"image": "getmeili/meilisearch:v1.8"},
        }
    }
    compose["services"]["api"]["environment"] = {"SEARCH_URL": "http://finder:7700", "SEARCH_HOST": "finder"}
    result = convert(compose, name="board", base="/src", folder="/src", password=lambda: "secret")
    assert result.app["search"] == {"image": "getmeili/meilisearch:v1.8"}
    assert result.app["api"]["needs"] == ["search"]
    assert "env" not in result.app["api"]
    assert result.environment["tiers"] == {}
    assert result.app["api"]["secret_env"] == {"SEARCH_URL": "http://${search.host}:${search.port}"}
    load_app(result.app)


# ---------------------------------------------------------------------- a new service with routes

ADMIN = Service(name="admin", tier="admin", kind=Kind.HTTP, routed=True, may_need=frozenset({"api"}))


class TestRoutedService:
    """Tests of a new service with gateway routes, `admin`, which needs only a service record."""

    @pytest.fixture(autouse=True)
    def admin_service(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(services, "SERVICES", (*services.SERVICES, ADMIN))

    def app(self, **settings: Any) -> dict[str, Any]:
        return project() | {"admin": {"image": "nginx:1.27", "port": 8080, "needs": ["api"], **settings}}

    def test_service_gets_its_paths_and_web_gets_the_root_path(self) -> None:
        assert load_app(self.app(paths=["/admin"])).routes == {"api": ("/api",), "web": ("/",), "admin": ("/admin",)}

    def test_api_without_web_gets_all_paths_that_the_service_does_not_get(self) -> None:
        def routes(*paths: str) -> Mapping[str, tuple[str, ...]]:
            return load_app({key: value for key, value in self.app(paths=[*paths]).items() if key != "web"}).routes

        assert routes("/admin") == {"api": ("/",), "admin": ("/admin",)}
        assert routes("/") == {"api": ("/api",), "admin": ("/",)}

    def test_service_without_paths_or_with_the_paths_of_web_is_refused_with_a_fix(self) -> None:
        with pytest.raises(ConfigError, match=r"app\.admin\.paths: it is not set; add it, as in "):
            load_app(self.app())
        with pytest.raises(ConfigError, match=r"app\.admin\.paths\.0: / routes all requests to admin, .*longer prefix"):
            load_app(self.app(paths=["/"]))

    def test_objects_of_the_service_satisfy_every_invariant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        containers = deploy(self.app(paths=["/admin"]), environment("dev"))
        assert {"blue-admin-1"} <= {entry.name for entry in containers if invariants.is_long_running(entry)}
        for assert_invariant, entry in invariants.cases(containers):
            assert_invariant(entry)
        objects = deploy(self.app(paths=["/admin"]), environment("staging"), stack="staging")
        test_kubernetes.assert_every_invariant(objects, monkeypatch)
        edges = {("gateway", "admin-blue"), ("admin-blue", "api-blue")}
        assert Network(objects).graph() == test_reachability.expected_graph("staging", "blue") | edges

    def test_gateway_port_is_accepted_for_the_service_and_refused_for_a_worker(self) -> None:
        app, env = load_app(self.app(paths=["/admin"])), environment("dev")
        load_environment(env | {"gateway": {"ports": {"admin": 9000}}}, app)
        with pytest.raises(ConfigError, match=r"ports\.worker: only web, api or admin of the application"):
            load_environment(env | {"gateway": {"ports": {"worker": 9000}}}, app)


# ---------------------------------------------------------------------- a slot with a service that the program does not know


INDEXER = Service(name="search", tier="search", kind=Kind.WORKER)


class TestKeptSlotOfAnotherProgram:
    """Tests of a slot that an older version deployed, with a service that the current version does not know."""

    @pytest.fixture(params=STACKS)
    def stack(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.delitem(shared.RENDERERS, SEARCH.name)
        return request.param

    def checkpoint_of_older_program(self, stack: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Deploy the service `search`, remove the service from the program, and return the checkpoint.

        The checkpoint then contains a service that the program does not know.
        """
        current_services = services.SERVICES[:-1]
        monkeypatch.setattr(services, "SERVICES", (*current_services, INDEXER))
        app: dict[str, Any] = project()
        app["search"] = {key: value for key, value in app["worker"].items() if key != "reload"}
        export_before = checkpoint_of(deploy(app, environment(stack) | {"release": {"workers": "both"}}, stack=stack))
        monkeypatch.setattr(services, "SERVICES", current_services)
        return export_before

    def release(self, stack: str, version: str, export_before: Mapping[str, Any]) -> Deployment:
        env = environment(stack) | {"release": {"workers": "both"}}
        return deploy(project() | {"version": version}, env, export=export_before, stack=stack)

    def test_release_to_the_other_slot_leaves_a_slot_with_an_unknown_service_unchanged(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export_before = self.checkpoint_of_older_program(stack, monkeypatch)
        released = self.release(stack, "2.0.0", export_before)
        ops = {
            step["urn"]: step["op"]
            for step in preview_output(export_before, released)["steps"]
            if "tiers:slot:Slot" in step["urn"]
        }
        blue_steps = {urn: op for urn, op in ops.items() if "blue" in urn.rpartition("::")[2]}
        assert any("tiers:search:Search" in urn for urn in blue_steps)
        assert set(blue_steps.values()) == {"same"}
        assert released.outputs

    def test_rollback_to_a_slot_with_an_unknown_service_only_moves_traffic(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export_before = self.checkpoint_of_older_program(stack, monkeypatch)
        released = checkpoint_of(self.release(stack, "2.0.0", export_before))
        monkeypatch.setenv("TIERS_RELEASE", "previous")
        back = self.release(stack, "2.0.0", released)
        ops = {step["urn"]: step["op"] for step in preview_output(released, back)["steps"]}
        assert {op for urn, op in ops.items() if "tiers:slot:Slot" in urn} == {"same"}
        assert any("tiers:search:Search" in urn for urn in ops)

    def test_release_into_a_slot_with_an_unknown_service_deletes_the_service(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export_before = self.checkpoint_of_older_program(stack, monkeypatch)
        second = checkpoint_of(self.release(stack, "2.0.0", export_before))
        third = self.release(stack, "3.0.0", second)
        deleted_urns = {step["urn"] for step in preview_output(second, third)["steps"] if step["op"] == "delete"}
        assert any("tiers:search:Search" in urn for urn in deleted_urns)
        assert not [entry.urn for entry in third if "search" in entry.name]
        assert not [line for line in dangers(parse_preview(preview_output(second, third), stack)) if "search" in line]
