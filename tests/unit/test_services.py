"""Tests of further services (`app.services`): several web, api and worker services in one application.

The objects of these services must satisfy every invariant, as the objects of web, api and worker do.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from components import monitoring, shared
from components.config import ConfigError, load_app, load_environment
from components.model.services import Catalogue, common_catalogue
from components.model.workload import Route
from components.platforms.docker import haproxy
from components.release import memory
from components.release.checkpoint import SLOT, parse
from components.release.planner import Slot
from components.release.standby import suspended_services
from components.rendering import render_routes
from policy.rules import RULES

from . import invariants, test_kubernetes, test_reachability
from .program import SECRETS, Deployment, checkpoint_of, deploy, environment, preview_output, project
from .test_policy import TRUSTING_SETTINGS, problems, resources
from .test_reachability import Network

STACKS = ("dev", "staging")

FURTHER: Mapping[str, Any] = {
    "admin": {"tier": "web", "image": "nginx:1.27", "port": 8080, "paths": ["/admin"], "needs": ["api", "images"]},
    "feed": {"tier": "api", "image": "me/feed:1", "port": 4000, "paths": ["/api/feed", "/cable"], "needs": ["cache"]},
    "images": {"tier": "api", "image": "me/images:1", "port": 9000, "volumes": {"pictures": "/data"}},
    "mailer": {
        "tier": "worker", "image": "me/api:1", "command": ["celery", "-Q", "mail"], "needs": ["database", "cache", "images"],
        "secrets": ["mail-password"], "migrate": {"command": ["mailer", "migrate"]}, "alive": ["mailer", "alive"],
    },
}  # fmt: skip
ALL_SECRETS = SECRETS | {"mail-password": "the-mail-secret"}


def app_and_environment(stack: str) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = project() | {"services": dict(FURTHER)}, environment(stack)
    env["tiers"] = env.get("tiers", {}) | {"mailer": {"replicas": 2, "env": {"LOG_LEVEL": "debug"}}}
    if stack == "staging":
        env["tiers"] |= {"images": {"storage_class": "nfs"}}
    return app, env


@cache
def deployed(stack: str) -> Deployment:
    return deploy(*app_and_environment(stack), stack=stack, secrets=ALL_SECRETS)


def load(**services: Mapping[str, Any]) -> Any:
    return load_app(project() | {"services": services})


# ---------------------------------------------------------------------- invariants


def test_containers_of_further_services_satisfy_every_docker_invariant() -> None:
    for assert_invariant, entry in invariants.cases(deployed("dev")):
        assert_invariant(entry)
    running = {entry.name for entry in deployed("dev") if invariants.is_long_running(entry)}
    assert {"blue-admin-1", "blue-feed-1", "blue-images-1", "blue-mailer-1", "blue-mailer-2"} <= running
    invariants.no_secret_is_in_a_plain_input(deployed("dev"), ALL_SECRETS.values())
    invariants.every_secret_is_a_file_and_encrypted_in_the_state(deployed("dev"), ALL_SECRETS)
    invariants.containers_of_a_slot_have_labels_of_slot_and_release(deployed("dev"))


def test_objects_of_further_services_satisfy_every_kubernetes_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    test_kubernetes.assert_every_invariant(deployed("staging"), monkeypatch)
    for name in FURTHER:
        assert deployed("staging").get_object("Deployment", f"{name}-blue")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("stack", STACKS)
def test_objects_of_further_services_pass_every_policy_rule(stack: str, rule: Any) -> None:
    settings = replace(TRUSTING_SETTINGS, registries=(*TRUSTING_SETTINGS.registries, "docker.io/me"))
    assert problems(rule, resources(deployed(stack), stack), settings) == []


@pytest.mark.parametrize("stack", STACKS)
def test_second_update_with_further_services_changes_nothing(stack: str) -> None:
    before = checkpoint_of(deployed(stack))
    again = deploy(*app_and_environment(stack), stack=stack, secrets=ALL_SECRETS, export=before)
    assert {step["op"] for step in preview_output(before, again)["steps"]} == {"same"}


@pytest.mark.parametrize("stack", STACKS)
def test_component_of_a_further_service_has_the_type_token_of_its_tier(stack: str) -> None:
    tokens = {entry.name: entry.type for entry in deployed(stack) if not entry.custom}
    assert {name: tokens[f"blue-{name}"] for name in FURTHER} == {
        "admin": "tiers:web:Web",
        "feed": "tiers:api:Api",
        "images": "tiers:api:Api",
        "mailer": "tiers:worker:Worker",
    }


def test_network_policies_allow_exactly_the_expected_connections_of_further_services() -> None:
    network = Network(deployed("staging"))
    edges = {
        ("gateway", "admin-blue"), ("gateway", "feed-blue"), ("admin-blue", "api-blue"), ("admin-blue", "images-blue"),
        ("feed-blue", "cache"), ("mailer-blue", "images-blue"), ("mailer-blue", "database"), ("mailer-blue", "cache"),
        ("blue-mailer-migrate", "images-blue"), ("blue-mailer-migrate", "database"), ("blue-mailer-migrate", "cache"),
    }  # fmt: skip
    assert network.graph() == test_reachability.expected_graph("staging", "blue") | edges
    test_reachability.opens_only_the_port_of_each_edge(network)
    test_reachability.reaches_dns_and_no_stranger(network)
    test_reachability.lets_no_stray_pod_connect(network)


# ---------------------------------------------------------------------- one release


def test_service_receives_the_address_of_a_further_service_in_the_same_slot() -> None:
    entries = parse(checkpoint_of(deployed("dev"))).entries
    variables = next(entry.variables for entry in entries if entry.runs and entry.tier == "mailer")
    assert variables["IMAGES_URL"] == "http://images-blue:9000"
    assert variables["LOG_LEVEL"] == "debug"
    assert "FEED_URL" not in variables


@pytest.mark.parametrize("stack", STACKS)
def test_changed_further_service_makes_a_new_release_in_the_idle_slot(stack: str) -> None:
    app, env = app_and_environment(stack)
    app["services"] = {**FURTHER, "mailer": FURTHER["mailer"] | {"command": ["celery", "-Q", "mail,sms"]}}
    before = checkpoint_of(deployed(stack))
    after = deploy(app, env, stack=stack, secrets=ALL_SECRETS, export=before)
    assert after.release != deployed(stack).release
    created = {
        step["urn"].rpartition("::")[2] for step in preview_output(before, after)["steps"] if step["op"] == "create"
    }
    assert {f"green-{name}" for name in ("web", "api", "worker", *FURTHER)} <= created


def test_further_workers_of_the_standby_are_suspended_and_other_services_keep_running() -> None:
    app = load(**FURTHER)
    release = load_environment(environment("dev"), app).release
    assert suspended_services(release, app.catalogue) == {"worker", "mailer"}


def test_standby_cold_suspends_all_services_and_workers_both_suspends_none() -> None:
    app = load(**FURTHER)

    def suspended(**release: str) -> frozenset[str]:
        env = environment("dev") | {"release": release}
        return suspended_services(load_environment(env, app).release, app.catalogue)

    assert suspended(standby="cold") == suspended(standby="cold", workers="both") == set(app.slot_services)
    assert suspended(workers="both") == frozenset()


def test_services_start_after_the_services_that_they_need() -> None:
    app = load(**FURTHER)
    order = app.catalogue.start_order(
        {name: service.needs for name, service in app.slot_services.items()}, app.slot_services
    )
    assert sorted(order) == sorted(app.slot_services)
    for name, service in app.slot_services.items():
        assert all(order.index(need) < order.index(name) for need in service.needs if need in app.slot_services)


def test_order_of_further_services_in_the_file_is_not_part_of_a_release() -> None:
    app, env = app_and_environment("dev")
    app["services"] = dict(reversed(list(FURTHER.items())))
    assert deploy(app, env, secrets=ALL_SECRETS).release == deployed("dev").release


@pytest.mark.parametrize("stack", STACKS)
def test_stored_copies_of_a_slot_leave_out_services_that_the_release_lacks(stack: str) -> None:
    export = checkpoint_of(deployed(stack))
    entries = parse(export).descendants(Slot.BLUE, SLOT)
    [component] = [entry for entry in export["deployment"]["resources"] if entry["type"] == SLOT]
    component["outputs"]["made"] = memory.remember(entries)
    whole = {entry.urn for entry in memory.recall(parse(export), Slot.BLUE)}
    assert whole == {entry.urn for entry in entries if memory.is_memorable(entry)}
    for name in FURTHER:
        del component["inputs"]["parts"][name]
    rest = {entry.urn for entry in memory.recall(parse(export), Slot.BLUE)}
    dropped = {urn.rpartition("::")[2] for urn in whole - rest}
    assert {f"blue-{name}" for name in FURTHER} <= dropped
    assert not [name for name in dropped if not any(further in name for further in FURTHER)]
    assert not [
        urn
        for urn in rest
        if any(f"-{name}" in urn.rpartition("::")[2] or urn.endswith(f"::{name}-blue") for name in FURTHER)
    ]


# ---------------------------------------------------------------------- routes


def routes_of(app: Any, stack: str = "dev") -> dict[str, Route]:
    return {route.tier: route for route in render_routes(app, load_environment(environment(stack), app))}


def test_gateway_routes_each_path_to_its_service_and_all_other_paths_to_web() -> None:
    prefixes = {name: route.prefixes for name, route in routes_of(load(**FURTHER)).items()}
    assert prefixes == {"api": ("/api",), "web": ("/",), "admin": ("/admin",), "feed": ("/api/feed", "/cable")}


def test_further_service_without_paths_has_no_route_in_the_gateway() -> None:
    assert "images" not in routes_of(load(**FURTHER))
    routes = tuple(routes_of(load(**FURTHER)).values())
    text = haproxy.configuration(dict.fromkeys(Slot, routes), url="http://127.0.0.1:8080")
    assert "images-blue" not in text
    assert text.index(
        "use_backend feed-blue if { var(txn.slot) -m str blue } { var(txn.normal) -m beg -- /api/feed/ }"
    ) < (text.index("use_backend api-blue if { var(txn.slot) -m str blue } { var(txn.normal) -m beg -- /api/ }"))


def test_api_without_web_gets_all_paths_that_no_further_service_gets() -> None:
    app = {key: value for key, value in project().items() if key != "web"}
    alone = load_app(app | {"services": {"feed": FURTHER["feed"]}})
    assert alone.routes == {"api": ("/",), "feed": ("/api/feed", "/cable")}
    beside = load_app(
        app | {"services": {"site": {"tier": "web", "image": "nginx:1.27", "port": 8080, "paths": ["/"]}}}
    )
    assert beside.routes == {"api": ("/api",), "site": ("/",)}


def test_application_with_only_further_services_is_accepted() -> None:
    app = load_app(
        {
            "name": "shop",
            "version": "1",
            "services": {"site": {"tier": "web", "image": "a:1", "port": 8080, "paths": ["/"]}},
        }
    )
    assert app.routes == {"site": ("/",)}
    assert app.names == {"site"}


# ---------------------------------------------------------------------- refusals

WORKER = {"tier": "worker", "image": "a:1"}
API = {"tier": "api", "image": "a:1", "port": 9000}
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"mailer": {"image": "a:1"}}, "app.services.mailer.tier: it is not set; add it, as in tier: worker"),
    (
        {"mailer": WORKER | {"tier": "workr"}},
        "app.services.mailer.tier: 'workr' is not an allowed value; write api, store, web or worker (did you mean worker?)",
    ),
    ({"mailer": 5}, "app.services.mailer: it is a number; write a mapping, as in {image: getmeili/meilisearch:v1.8, tier: store, port: 8080}"),
    ({"mailer": WORKER | {"comand": ["x"]}}, "app.services.mailer.comand: there is no such key; did you mean command?"),
    ({"mailer": WORKER | {"command": "x"}}, "app.services.mailer.command: it is a text; write a list"),
    ({"mailer": WORKER | {"env": {"A": None}}}, "app.services.mailer.env.A: it has no value"),
    ({"mailer": WORKER | {"port": 9000}}, "app.services.mailer.port: a worker has no port; remove port, or write tier: api, tier: store or tier: web"),
    ({"mailer": WORKER | {"needs": ["datbase"]}}, "app.services.mailer.needs.0: 'datbase' is not a tier"),
    ({"mailer": WORKER | {"needs": ["worker"]}}, "app.services.mailer.needs: mailer can't need worker; remove worker, because mailer may only need api,"),
    ({"mailer": WORKER | {"env": {"SLOT": "x"}}}, "app.services.mailer.env.SLOT: the program sets this variable"),
    ({"feed": API | {"port": 80}}, "app.services.feed: only root can open port 80"),
    ({"api": API}, "app.services.api: the name api is reserved for app.api; move the service to app.api, or use another name"),
    ({"gateway": API}, "app.services.gateway: the program uses this name itself"),
    ({"database-2": WORKER}, "app.services.database-2: the program uses this name itself"),
    ({"api-migrate": WORKER}, "app.services.api-migrate: app.api already has a container with the name api-migrate"),
    ({"worker-2": WORKER}, "app.services.worker-2: app.worker already has a container with the name worker-2"),
    ({"Mailer": WORKER}, "app.services.Mailer: 'Mailer' is not a name"),
    ({"feed": API | {"paths": ["/api/"]}}, "app.services.feed.paths.0: app.api.paths.0 already has the path /api/"),
    ({"feed": API | {"paths": ["/"]}}, "app.services.feed.paths.0: / routes all requests to feed, so none reach web"),
    (
        {"one": API | {"needs": ["two"]}, "two": API | {"needs": ["one"]}},
        "app: services need each other (one → two → one), so none of them can start first",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("services", "message"), REFUSALS, ids=[message.partition(";")[0][:70] for _, message in REFUSALS]
)
def test_invalid_further_service_is_refused_with_its_path_and_the_fix(services: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**services)
    assert message in str(refused.value)


def test_path_in_visits_that_no_service_serves_is_refused() -> None:
    app = {"name": "shop", "version": "1", "services": {"feed": API | {"paths": ["/feed"]}}}
    with pytest.raises(
        ConfigError, match=r"app\.visits\.0: no service gets requests for /; add the path to the `paths`"
    ):
        load_app(app)
    assert load_app(app | {"visits": ["/feed/x"]}).routes == {"feed": ("/feed",)}


def test_environment_settings_of_an_unknown_service_are_refused() -> None:
    env = environment("dev")
    env["tiers"] = {"mailr": {}}
    with pytest.raises(ConfigError, match=r"environment\.tiers\.mailr: 'mailr' is not a tier; .*did you mean mailer\?"):
        load_environment(env, load(**FURTHER))


def test_services_with_routes_are_refused_on_kubernetes_if_an_http_route_has_too_few_rules() -> None:
    many = {f"s{number}": API | {"paths": [f"/s{number}"]} for number in range(4)}
    app = load(**many)
    with pytest.raises(
        ConfigError, match=r"app\.services: the gateway routes requests to 6 services, but an HTTPRoute has rules for 5"
    ):
        load_environment(environment("staging"), app)
    assert load_environment(environment("dev"), app)


def test_application_without_further_services_has_only_the_five_common_services() -> None:
    app = load_app(project())
    assert app.catalogue == Catalogue(app.catalogue.records[:5])
    assert app.path("api") == "app.api"


def test_every_data_service_and_every_exporter_has_a_renderer() -> None:
    assert shared.RENDERERS.keys() == {record.name for record in common_catalogue().data}
    assert monitoring.EXPORTERS.keys() == {record.name for record in common_catalogue().data if record.exporter}
