"""Tests of stores: further services (`app.services`) that both slots share, with any image.

The objects of stores must satisfy every invariant, as the objects of database and cache do.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from ci import check, pins
from ci.preview.diagram import diagram
from ci.preview.read import Area, parse_preview
from ci.preview.risk import dangers
from components.config import ConfigError, load_app, load_environment, load_stack
from components.platforms.docker import isolation
from components.platforms.process import listening_ports
from components.release.checkpoint import Checkpoint, parse
from components.release.planner import Slot
from components.state.docker import VOLUME
from components.state.kubernetes import CLAIM
from policy.rules import RULES

from . import invariants, test_kubernetes, test_reachability
from .program import SECRETS, Deployment, checkpoint_of, deploy, environment, preview_output, project
from .test_policy import TRUSTING_SETTINGS, problems, resources
from .test_reachability import Network

STACKS = ("dev", "staging")
STORES: Mapping[str, Any] = {
    "mysql": {
        "tier": "store", "image": "mysql:8.4", "port": 3306, "alive": ["mysqladmin", "ping"], "volumes": {"mysql-data": "/var/lib/mysql"},
        "env": {"MYSQL_DATABASE": "shop"}, "secret_env": {"MYSQL_PASSWORD": "${secrets.mysql-password}"}, "command": ["--max-connections=50"],
        "writable": ["/tmp", "/var/run/mysqld"], "secrets": ["root-password"], "stop_within": "60s",
    },
    "sessions": {
        "tier": "store", "image": "redis:7-bookworm", "port": 6379, "alive": ["redis-cli", "ping"], "volumes": {"session-data": "/data"},
        "secret_files": {"redis-conf": "requirepass ${secrets.mysql-password}"}, "entrypoint": ["redis-server"], "egress": True,
    },
    "gotenberg": {"tier": "store", "image": "gotenberg/gotenberg:8", "port": 3000, "health": "/health", "uid": 1001},
    "mail": {"tier": "store", "image": "axllent/mailpit:v1.27", "port": 1025, "alive": ["/mailpit", "readyz"], "environments": ["dev", "pr-*"]},
}  # fmt: skip
ALL_SECRETS = SECRETS | {"mysql-password": "the-mysql-secret", "root-password": "the-root-secret"}


def app_and_environment(stack: str) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = copy.deepcopy(project()), environment(stack)
    app["services"] = copy.deepcopy(dict(STORES))
    app["api"]["needs"] = [*app["api"]["needs"], "mysql", "gotenberg", "mail"]
    app["api"]["secret_env"] = {
        "SMTP_URL": "smtp://${mail.host}:${mail.port}",
        "MYSQL_URL": "mysql://shop:${secrets.mysql-password}@${mysql.host}:${mysql.port}/shop",
    }
    app["worker"]["needs"] = [*app["worker"]["needs"], "sessions"]
    env["tiers"] = copy.deepcopy(env.get("tiers", {})) | {"mysql": {"memory": "1Gi"}}
    if stack != "dev":
        env["tiers"]["mysql"]["storage"] = "5Gi"
        api = env["tiers"].get("api", {})
        env["tiers"]["api"] = api | {"env": {**api.get("env", {}), "SMTP_URL": "smtp://relay.example.com:587"}}
    return app, env


def deploy_stores(app: Mapping[str, Any], env: Mapping[str, Any], stack: str, **more: Any) -> Deployment:
    return deploy(app, env, stack=stack, secrets=ALL_SECRETS, **more)


@cache
def deployed(stack: str) -> Deployment:
    return deploy_stores(*app_and_environment(stack), stack)


def load(**services: Mapping[str, Any]) -> Any:
    return load_app(project() | {"services": services})


# ---------------------------------------------------------------------- invariants


def test_containers_of_stores_satisfy_every_docker_invariant() -> None:
    for assert_invariant, entry in invariants.cases(deployed("dev")):
        assert_invariant(entry)
    running = {entry.name for entry in deployed("dev") if invariants.is_long_running(entry)}
    assert {"mysql-1", "sessions-1", "gotenberg-1", "mail-1"} <= running
    invariants.no_secret_is_in_a_plain_input(deployed("dev"), ALL_SECRETS.values())
    invariants.every_secret_is_a_file_and_encrypted_in_the_state(
        deployed("dev"), {name: value for name, value in ALL_SECRETS.items() if name != "mysql-password"}
    )
    invariants.containers_of_a_slot_have_labels_of_slot_and_release(deployed("dev"))


def test_objects_of_stores_satisfy_every_kubernetes_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    test_kubernetes.assert_every_invariant(deployed("staging"), monkeypatch)
    for name in ("mysql", "sessions", "gotenberg"):
        assert deployed("staging").get_object("StatefulSet", name)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("stack", STACKS)
def test_objects_of_stores_pass_every_policy_rule(stack: str, rule: Any) -> None:
    owners = ("axllent", "gotenberg", "me")
    registries = (*TRUSTING_SETTINGS.registries, *(f"docker.io/{owner}" for owner in owners))
    settings = replace(TRUSTING_SETTINGS, registries=registries)
    assert problems(rule, resources(deployed(stack), stack), settings) == []


@pytest.mark.parametrize("stack", STACKS)
def test_second_update_with_stores_changes_nothing(stack: str) -> None:
    before = checkpoint_of(deployed(stack))
    again = deploy_stores(*app_and_environment(stack), stack, export=before)
    assert {step["op"] for step in preview_output(before, again)["steps"]} == {"same"}


@pytest.mark.parametrize("stack", STACKS)
def test_release_changes_no_store(stack: str) -> None:
    before = checkpoint_of(deployed(stack))
    app, env = app_and_environment(stack)
    released = deploy_stores(app | {"version": "2.0.0"}, env, stack, export=before)
    changes = parse_preview(preview_output(before, released), stack).changes
    assert released.release != deployed(stack).release
    assert {change.op.word for change in changes if change.membership.owner in STORES} == {"unchanged"}


@pytest.mark.parametrize("stack", STACKS)
def test_changed_store_makes_no_new_release(stack: str) -> None:
    app, env = app_and_environment(stack)
    app["services"]["mysql"]["image"] = "mysql:8.4.1"
    before = checkpoint_of(deployed(stack))
    changes = parse_preview(preview_output(before, deploy_stores(app, env, stack, export=before)), stack).changes
    assert {change.membership.owner for change in changes if change.op} == {"mysql"}


@pytest.mark.parametrize("stack", STACKS)
def test_component_of_a_store_has_the_type_token_of_stores(stack: str) -> None:
    tokens = {entry.name: entry.type for entry in deployed(stack) if not entry.custom}
    assert {tokens[name] for name in ("mysql", "sessions", "gotenberg")} == {"tiers:store:Store"}


# ---------------------------------------------------------------------- network and addresses


def test_network_policies_open_a_store_only_to_tiers_that_need_it() -> None:
    network = Network(deployed("staging"))
    edges = {("api-blue", "mysql"), ("api-blue", "gotenberg"), ("worker-blue", "sessions")}
    edges |= {("blue-api-migrate", "mysql"), ("blue-api-migrate", "gotenberg")}
    assert network.graph() - {("sessions", "world")} == test_reachability.expected_graph("staging", "blue") | edges
    test_reachability.opens_only_the_port_of_each_edge(network)
    test_reachability.lets_no_stray_pod_connect(network)
    assert deployed("staging").get_object("NetworkPolicy", "sessions-to-world")


def test_store_joins_the_data_network_and_with_egress_the_outside_network() -> None:
    def networks(name: str) -> set[str]:
        return {network["name"] for network in deployed("dev").by_name[name].inputs["networksAdvanced"]}

    assert networks("mysql-1") == {"board-dev-data"}
    assert networks("sessions-1") == {"board-dev-data", "board-dev-outside"}


@pytest.mark.parametrize("stack", STACKS)
def test_service_that_needs_a_store_receives_its_host_and_port(stack: str) -> None:
    entries = parse(checkpoint_of(deployed(stack))).entries
    variables = next(entry.variables for entry in entries if entry.runs and entry.tier == "api")
    assert {"MYSQL_HOST": "mysql", "MYSQL_PORT": "3306", "GOTENBERG_HOST": "gotenberg"}.items() <= variables.items()
    assert "SESSIONS_HOST" not in variables


def test_template_of_a_service_reads_the_address_of_a_store() -> None:
    secret = next(
        upload["content"]
        for entry in deployed("dev")
        if "blue-api-secrets" in entry.name and entry.inputs.get("uploads")
        for upload in entry.inputs["uploads"]
        if upload["file"].endswith("MYSQL_URL")
    )
    assert secret == "mysql://shop:the-mysql-secret@mysql:3306/shop"


def test_isolation_check_covers_the_ports_of_stores() -> None:
    app = load_app(app_and_environment("dev")[0])
    assert listening_ports(app)["mysql"] == 3306
    addresses = {"board-dev-data": "172.20.0.3/16"}
    containers = [
        isolation.Container(name=name, role="tier", tier=tier, published=(), addresses=addresses)
        for name, tier in (("web-1", "web"), ("mysql-1", "mysql"))
    ]
    [problem] = isolation.unexpected_routes(app, containers, [])
    assert problem.startswith("web-1 can connect to mysql-1")


# ---------------------------------------------------------------------- processes


def test_command_of_a_store_keeps_the_entrypoint_of_its_image_on_kubernetes() -> None:
    def container(name: str) -> Mapping[str, Any]:
        [container] = (
            deployed("staging").get_object("StatefulSet", name).inputs["spec"]["template"]["spec"]["containers"]
        )
        return container

    assert "command" not in container("mysql")
    assert container("mysql")["args"] == ["--max-connections=50"]
    assert container("sessions")["command"] == ["redis-server"]
    assert container("mysql")["securityContext"]["runAsUser"] == 10999
    assert "httpHeaders" not in container("gotenberg")["startupProbe"]["httpGet"]


def test_health_check_of_a_store_needs_no_program_of_its_image_on_docker() -> None:
    tests = deployed("dev").by_name["gotenberg-1"].inputs["healthcheck"]["tests"]
    assert tests[:2] == ["CMD", "/.tiers/busybox"]
    assert tests[-1] == "http://127.0.0.1:3000/health"
    assert "--header" not in tests


def test_container_settings_of_a_store_contain_no_secret_variable() -> None:
    inputs = deployed("dev").by_name["mysql-1"].inputs
    assert "MYSQL_DATABASE=shop" in inputs["envs"]
    assert not [variable for variable in inputs["envs"] if variable.startswith("MYSQL_PASSWORD")]
    assert inputs["entrypoints"][-1] == "/entrypoint"
    assert inputs["command"] == ["--max-connections=50"]


# ---------------------------------------------------------------------- data


@pytest.mark.parametrize("stack", STACKS)
def test_volumes_of_stores_are_labelled_and_protected_as_data(stack: str) -> None:
    app, env = app_and_environment(stack)
    protected = deploy_stores(app, env | {"protect_data": True}, stack)
    volumes = [
        entry for entry in protected if entry.type in (VOLUME, CLAIM) and entry.name in ("mysql-data", "session-data")
    ]
    assert len(volumes) == 2
    for volume in volumes:
        assert volume.labels["tiers.data"] == "yes"
        assert volume.protect and volume.retained


def test_claim_of_a_store_has_the_size_of_its_tier_and_one_node_may_mount_it() -> None:
    spec = deployed("staging").get_object("PersistentVolumeClaim", "mysql-data").inputs["spec"]
    assert spec["accessModes"] == ["ReadWriteOnce"]
    assert spec["resources"]["requests"]["storage"] == "5Gi"


def without_mysql(app: dict[str, Any], env: dict[str, Any]) -> None:
    del app["services"]["mysql"], env["tiers"]["mysql"], app["api"]["secret_env"]["MYSQL_URL"]
    app["api"]["needs"].remove("mysql")


def with_renamed_store(app: dict[str, Any], env: dict[str, Any]) -> None:
    app["services"]["mariadb"] = app["services"]["mysql"]
    without_mysql(app, env)


def with_renamed_volume(app: dict[str, Any], _: dict[str, Any]) -> None:
    app["services"]["mysql"]["volumes"] = {"mysql-files": "/var/lib/mysql"}


def with_volume_of_the_api(app: dict[str, Any], env: dict[str, Any]) -> None:
    without_mysql(app, env)
    app["api"]["volumes"] = {"mysql-data": "/mysql"}
    if env["platform"] == "kubernetes":
        env["tiers"]["api"] |= {"storage_class": "shared", "storage": "5Gi"}


def in_another_stack(app: dict[str, Any], env: dict[str, Any]) -> None:
    app["services"]["mysql"]["environments"] = ["prod"]
    env["tiers"].setdefault("api", {}).setdefault("env", {})["MYSQL_URL"] = "mysql://elsewhere"
    del env["tiers"]["mysql"]


LOSSES: Mapping[str, tuple[Any, str]] = {
    "removed": (without_mysql, r"app\.services\.mysql: this stack no longer has the store, and .*mysql-data would be deleted"),
    "renamed": (with_renamed_store, r"app\.services\.mariadb: the volume mysql-data can't move from mysql to mariadb, because"),
    "renamed volume": (with_renamed_volume, r"app\.services\.mysql\.volumes: the store no longer has the volume mysql-data, and"),
    "volume of another service": (with_volume_of_the_api, r"the volume mysql-data can't move from mysql to another service"),
    "another stack": (in_another_stack, r"app\.services\.mysql: this stack no longer has the store, .*list this stack"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
@pytest.mark.parametrize("stack", STACKS)
def test_update_that_would_delete_a_volume_of_a_store_is_refused(stack: str, case: str) -> None:
    change, message = LOSSES[case]
    app, env = app_and_environment(stack)
    change(app, env)
    with pytest.raises(ConfigError, match=message):
        deploy_stores(app, env, stack, export=checkpoint_of(deployed(stack)))


def test_another_storage_class_or_a_smaller_volume_of_a_store_is_refused() -> None:
    app, env = app_and_environment("staging")
    env["tiers"]["mysql"] |= {"storage_class": "slow"}
    with pytest.raises(
        ConfigError, match=r"environment\.tiers\.mysql\.storage_class: .*a claim can't change its class"
    ):
        deploy_stores(app, env, "staging", export=checkpoint_of(deployed("staging")))
    env["tiers"]["mysql"] = {"storage": "1Gi"}
    with pytest.raises(
        ConfigError, match=r"environment\.tiers\.mysql\.storage: the claim has 5Gi and can't shrink to 1Gi"
    ):
        deploy_stores(app, env, "staging", export=checkpoint_of(deployed("staging")))


@pytest.mark.parametrize("stack", STACKS)
def test_store_without_volumes_may_be_removed(stack: str) -> None:
    app, env = app_and_environment(stack)
    del app["services"]["gotenberg"]
    app["api"]["needs"].remove("gotenberg")
    before = checkpoint_of(deployed(stack))
    after = deploy_stores(app, env, stack, export=before)
    assert not [entry.name for entry in after if entry.name.startswith("gotenberg")]
    lines = dangers(parse_preview(preview_output(before, after), stack))
    assert any("gotenberg is deleted" in line for line in lines)


# ---------------------------------------------------------------------- stacks without a store


def test_stack_that_a_store_does_not_list_has_no_object_and_no_need_of_it() -> None:
    assert not [entry.name for entry in deployed("staging") if entry.name.split("-")[0] == "mail"]
    entries = parse(checkpoint_of(deployed("staging"))).entries
    variables = next(entry.variables for entry in entries if entry.runs and entry.tier == "api")
    assert variables["SMTP_URL"] == "smtp://relay.example.com:587"
    assert "MAIL_HOST" not in variables


def test_pattern_in_the_environments_of_a_store_matches_names_of_stacks() -> None:
    app, env = app_and_environment("dev")
    assert "mail" in load_stack(app, env, "pr-12")[0].stores
    env["tiers"]["api"] = {"env": {"SMTP_URL": "smtp://relay"}}
    reduced, _ = load_stack(app, env, "prod")
    assert "mail" not in reduced.names
    assert reduced.api
    assert "mail" not in reduced.api.needs
    assert "SMTP_URL" not in reduced.api.secret_env


def test_secret_of_an_absent_store_is_not_required() -> None:
    app, env = app_and_environment("dev")
    app["services"]["mail"]["secrets"] = ["mail-password"]
    env["tiers"]["api"] = {"env": {"SMTP_URL": "smtp://relay"}}
    assert "mail-password" in load_app(app).secrets
    assert "mail-password" not in load_stack(app, env, "prod")[0].secrets


def test_template_with_a_value_of_an_absent_store_is_refused_with_the_fix() -> None:
    app, env = app_and_environment("dev")
    with pytest.raises(
        ConfigError,
        match=r"app\.api\.secret_env\.SMTP_URL: the stack prod has no mail .*set SMTP_URL in environment\.tiers\.api\.env",
    ):
        load_stack(app, env, "prod")
    app["api"]["secret_files"] = {"smtp-url": app["api"]["secret_env"].pop("SMTP_URL")}
    with pytest.raises(ConfigError, match=r"app\.api\.secret_files\.smtp-url: the stack prod has no mail .*a variable"):
        load_stack(app, env, "prod")


def test_settings_and_images_of_an_absent_store_are_refused() -> None:
    app, env = app_and_environment("dev")
    env["tiers"] |= {"api": {"env": {"SMTP_URL": "smtp://relay"}}, "mail": {"memory": "64Mi"}}
    with pytest.raises(ConfigError, match=r"environment\.tiers\.mail: .*does not list the stack prod; remove this key"):
        load_stack(app, env, "prod")


# ---------------------------------------------------------------------- commands


def test_make_check_requires_every_store() -> None:
    app, env = load_stack(*app_and_environment("dev"), "dev")
    expected = check.expected_replicas(app, env, Slot.BLUE, Checkpoint())
    assert {("", name) for name in STORES} <= {*expected}


def test_images_of_stores_are_in_the_list_of_images_to_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "load", lambda stack: load_stack(*app_and_environment(stack), stack))
    images = pins.required_images("dev")
    assert images["environment.images.mysql"].reference == "mysql:8.4"
    assert images["environment.images.mysql"].path == "app.services.mysql.image"
    assert "environment.images.mail" not in pins.required_images("staging")


def test_pinned_environment_refuses_a_store_image_without_a_digest() -> None:
    app, env = app_and_environment("dev")
    with pytest.raises(ConfigError, match=r"environment\.images\.mysql: mysql:8\.4 has no digest"):
        load_environment(env | {"pinned": True}, load_app(app))


def test_preview_shows_stores_in_the_data_area_and_in_the_diagram() -> None:
    export = checkpoint_of(deployed("dev"))
    app, env = app_and_environment("dev")
    app["services"]["mysql"]["image"] = "mysql:8.4.1"
    preview = parse_preview(preview_output(export, deploy_stores(app, env, "dev", export=export)), "dev")
    assert {change.area for change in preview.changes if change.membership.owner in STORES} == {Area.DATA}
    [text] = diagram(preview)
    assert "mysql" in text and "blue --- sessions" in text


# ---------------------------------------------------------------------- refusals

STORE: Mapping[str, Any] = {"tier": "store", "image": "a:1", "port": 9000, "health": "/health"}
REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"x": {**STORE, "port": 80}}, "app.services.x: only root can open port 80; use a port above 1023"),
    ({"x": {"tier": "store", "image": "a:1"}}, "app.services.x.port: it is not set; add it, as in port: 8080"),
    ({"x": {"tier": "store", "image": "a:1", "port": 9000}}, "app.services.x: exactly one of `health` and `alive` is required"),
    ({"x": {**STORE, "alive": ["true"]}}, "app.services.x: exactly one of `health` and `alive` is required"),
    ({"x": {**STORE, "user": 5}}, "app.services.x.user: there is no such key; did you mean uid?"),
    ({"x": {**STORE, "needs": ["database"]}}, "app.services.x.needs: a store has no needs; remove needs, or write tier: api"),
    ({"x": {**STORE, "build": "x"}}, "app.services.x.build: a store has no build"),
    ({"x": {**STORE, "uid": 0}}, "app.services.x.uid: 0 is out of range"),
    ({"x": {**STORE, "environments": ["de v"]}}, "app.services.x.environments.0: 'de v' is not the name of a stack"),
    ({"x": {**STORE, "secret_env": {"A": "${database.password}"}}}, "app.services.x.secret_env.A: ${database.password} is no value that a store can read"),
    ({"x": {**STORE, "env": {"A": "1"}, "secret_env": {"A": "2"}}}, "app.services.x: A is in `env` and in `secret_env`"),
    ({"x": {**STORE, "secrets": ["a"], "env": {"A_FILE": "/x"}}}, "app.services.x.env.A_FILE: the program sets this variable"),
    ({"x": {**STORE, "secrets": ["a"], "volumes": {"v": "/run/secrets/x"}}}, "app.services.x.volumes.v: the program mounts secrets"),
    ({"x": {**STORE, "volumes": {"v": "/tmp"}}}, "app.services.x: /tmp occurs twice"),
    ({"x": {**STORE, "volumes": {"cache-data": "/data"}}}, "app.services.x.volumes.cache-data: the program uses this name for another volume"),
    ({"x": {**STORE, "volumes": {"x-secrets-0a1b2c": "/data"}}}, "app.services.x.volumes.x-secrets-0a1b2c: the program uses this name"),
    ({"x": {**STORE, "volumes": {"x-programs-0a1b2c": "/data"}}}, "app.services.x.volumes.x-programs-0a1b2c: the program uses this name"),
    (
        {"x": {**STORE, "volumes": {"v": "/data"}}, "y": {**STORE, "volumes": {"v": "/data"}}},
        "app.services.y.volumes.v: app.services.x has a volume of this name, and a store shares no volume",
    ),
    (
        {"x": {**STORE, "volumes": {"v": "/data"}}, "y": {"tier": "worker", "image": "a:1", "volumes": {"v": "/data"}}},
        "app.services.x.volumes.v: app.services.y has a volume of this name",
    ),
    ({"api-blue": STORE}, "app.services.api-blue: the program uses this name itself"),
    ({"blue-api": STORE}, "app.services.blue-api: the program uses this name itself"),
    ({"dns": STORE}, "app.services.dns: the program uses this name itself"),
    ({"default": STORE}, "app.services.default: the program uses this name itself"),
    ({"public": STORE}, "app.services.public: the program uses this name itself"),
    ({"to-mysql": STORE}, "app.services.to-mysql: the program uses this name itself"),
    ({"cache-2": STORE}, "app.services.cache-2: the program uses this name itself"),
    ({"api-migrate": STORE}, "app.services.api-migrate: app.api already has a container with the name api-migrate"),
    ({"x": STORE, "x-pods": STORE}, "app.services.x-pods: app.services.x has an object of the name x-pods"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("services", "message"), REFUSALS, ids=[message.partition(";")[0][:80] for _, message in REFUSALS]
)
def test_invalid_store_is_refused_with_its_path_and_the_fix(services: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**services)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replicas": 2}, r"environment\.tiers\.x\.replicas: a store always runs as one instance; remove replicas"),
        ({"autoscale": {"max": 2}}, r"environment\.tiers\.x\.autoscale: a store always runs as one instance"),
        ({"ha": True}, r"environment\.tiers\.x\.ha: x always runs as one instance; remove `ha`"),
        ({"env": {"A": "1"}}, r"environment\.tiers\.x\.env: .*move them to app\.services\.x\.env"),
        ({"external": {"host": "db.example.com"}}, r"environment\.tiers\.x\.external: a store can't be external"),
        ({"storage": "1Gi"}, r"environment\.tiers\.x\.storage: x has no volumes; remove storage"),
        ({"backup": {"target": {"volume": True}}}, r"environment\.tiers\.x\.backup: x has no volumes; remove backup"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_setting_that_a_store_does_not_have_is_refused(settings: dict[str, Any], message: str) -> None:
    env = environment("staging")
    env["tiers"] = {**env["tiers"], "x": settings}
    with pytest.raises(ConfigError, match=message):
        load_environment(env, load(x=STORE))


def test_stores_with_similar_names_are_accepted() -> None:
    app = load(redis=STORE, **{"redis-sessions": STORE, "redis-queue": STORE})
    assert {*app.stores} == {"redis", "redis-sessions", "redis-queue"}
