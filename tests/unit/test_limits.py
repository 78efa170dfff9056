"""Limits of a platform, checked on rendered objects at the limit and one beyond it."""

import re
from typing import Any

import pytest
from pulumi import Output

from components.checkpoint import parse
from components.config import ConfigError, Settings, check_stack, load_app, load_environment
from components.platforms import docker
from components.tier import routes

from . import program
from .program import deploy, environment, project


def _cluster(standby: str = "warm") -> dict[str, Any]:
    settings = environment("staging")
    return settings | {"release": {"standby": standby}, "pinned": False}


@pytest.mark.parametrize(("standby", "most"), [("warm", 60), ("cold", 64)])
def test_most_prefixes_of_a_route_are_rendered_and_one_more_is_refused(standby: str, most: int) -> None:
    app = project()
    app["web"]["metrics"] = app["api"]["metrics"] = "/metrics"
    app["api"]["paths"] = [f"/p{number}" for number in range(most)]
    for route in deploy(app, _cluster(standby), stack="staging").of_type("HTTPRoute"):
        matches = [len(rule["matches"]) for rule in route.inputs["spec"]["rules"]]
        assert max(matches) <= 64
        assert sum(matches) <= 128
        assert len(matches) <= 16
    app["api"]["paths"].append("/more")
    with pytest.raises(ConfigError, match=f"app.api.paths: .*; give at most {most}"):
        load_environment(_cluster(standby), load_app(app))


@pytest.mark.parametrize(
    ("stack", "wrong"),
    [
        ("Prod", "'board-Prod' is not the name of a namespace"),
        ("prod.eu", "'board-prod.eu' is not the name of a namespace"),
        ("prod_", "'board-prod_' is not the value of a label"),
        ("p" * 58, "has 64 characters, and a label takes 63"),
    ],
)
def test_stack_name_that_is_no_namespace_is_refused_on_kubernetes_only(stack: str, wrong: str) -> None:
    app = load_app(project())
    on_cluster, on_engine = load_environment(_cluster(), app), load_environment(environment("dev"), app)
    with pytest.raises(ConfigError, match=f"^stack: .*{re.escape(wrong)}.*; "):
        check_stack(stack, app, on_cluster)
    check_stack(stack, app, on_engine)


def test_any_stack_name_is_accepted_with_a_configured_namespace() -> None:
    app, value = load_app(project()), _cluster()
    value["kubernetes"]["namespace"] = {"name": "shop"}
    check_stack("Prod.eu", app, load_environment(value, app))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"storage": "6Mi"}, "environment.tiers.database.storage: an empty database needs more; give at least 64Mi"),
        ({"storage": "2000000Gi"}, "environment.tiers.database.storage: '2000000Gi' is more than any machine has; …"),
        ({"memory": "99999999Gi"}, "environment.tiers.database.memory: '99999999Gi' is more than any machine has; …"),
    ],
)
def test_impossible_size_is_refused(change: dict[str, Any], line: str) -> None:
    value = _cluster()
    value["tiers"]["database"] = change
    with pytest.raises(ConfigError, match="^" + re.escape(line.rstrip("…"))):
        load_environment(value, load_app(project()))


def test_worker_without_a_probe_and_too_little_start_time_is_refused() -> None:
    app, value = project(), _cluster()
    app["worker"] |= {"alive": [], "start_within": "9s"}
    value["kubernetes"]["schedule_within"] = "1s"
    with pytest.raises(
        ConfigError, match=r"app\.worker\.start_within: with kubernetes\.schedule_within it is 10s, .*; give more"
    ):
        load_environment(value, load_app(app))
    value["kubernetes"]["schedule_within"] = "2s"
    load_environment(value, load_app(app))


@pytest.mark.parametrize(
    ("tier", "variable"),
    [
        ("api", "DATABASE_HOST"),
        ("api", "DATABASE_PASSWORD_FILE"),
        ("worker", "CACHE_PORT"),
        ("web", "API_URL"),
        ("web", "PUBLIC_URL"),
    ],
)
def test_variable_that_the_program_sets_is_refused_in_app_and_environment(tier: str, variable: str) -> None:
    app = project()
    app["web"]["needs"] = ["api"]
    for value, settings, path in (
        (app | {tier: app[tier] | {"env": {variable: "x"}}}, environment("dev"), f"app.{tier}.env.{variable}"),
        (
            app,
            environment("dev") | {"tiers": {tier: {"env": {variable: "x"}}}},
            f"environment.tiers.{tier}.env.{variable}",
        ),
    ):
        with pytest.raises(ConfigError, match=rf"{re.escape(path)}: .*; "):
            load_environment(settings, load_app(value))


def test_secrets_over_a_mebibyte_are_refused_one_by_one_and_together() -> None:
    app = project()
    app["api"]["secrets"] = ["one", "two"]
    values = program.SECRETS | {"one": "x" * 700_000, "two": "y" * 700_000}
    with pytest.raises(ConfigError, match=r"app\.api\.secrets: they have 1400000 bytes together"):
        deploy(app, _cluster(), stack="staging", secrets=values)
    with pytest.raises(ConfigError, match=r"secrets\.one: app\.api\.secrets uses it, and it has 1100000 bytes"):
        deploy(app, environment("dev"), secrets=values | {"one": "x" * 1_100_000})


def test_paths_that_are_one_folder_in_two_spellings_are_refused() -> None:
    app = project()
    app["api"]["writable"] = ["/tmp", "/tmp/../tmp/"]
    with pytest.raises(ConfigError, match="absolute path"):
        load_app(app)
    app["api"]["writable"] = ["/tmp", "/tmp/./"]
    with pytest.raises(ConfigError, match="given twice"):
        load_app(app)


@pytest.mark.parametrize("path", ["/run/secrets", "/run/secrets/", "/run//secrets/x", "/run/./secrets"])
@pytest.mark.parametrize("key", ["writable", "volumes"])
def test_mount_over_the_folder_of_secrets_is_refused(key: str, path: str) -> None:
    app = project()
    app["api"][key] = [path] if key == "writable" else {"files": path}
    with pytest.raises(ConfigError, match=rf"app\.api\.{key}.*: .* where the program mounts secrets; "):
        load_app(app)


def test_parent_of_the_folder_of_secrets_may_be_writable() -> None:
    app = project()
    app["api"]["writable"] = ["/run", "/tmp"]
    assert load_app(app).api


def test_gateway_configuration_too_long_for_a_process_is_refused() -> None:
    app = load_app(project() | {"api": project()["api"] | {"paths": [f"/{n}/{'x' * 1000}" for n in range(64)]}})
    settings = Settings(
        app=app, environment=load_environment(environment("dev"), app), secrets={}, sealed=Output.secret({})
    )
    with pytest.raises(
        ConfigError, match=r"^app\.api\.paths: with them the gateway's configuration has \d+ bytes, .*;"
    ):
        docker.check(settings, parse({}), routes(app, settings.environment))


@pytest.mark.parametrize(("timeout", "word"), [("1.5s", "1.5"), ("999999s", "999999"), ("1000h", "3600000")])
def test_timeout_of_a_task_is_written_without_exponent(timeout: str, word: str) -> None:
    app = project()
    app["api"]["migrate"]["timeout"] = timeout
    assert deploy(app, environment("dev")).by_name["blue-api-migrate"].inputs["command"][:2] == ["timeout", word]


@pytest.mark.parametrize("length", [241, 248])
def test_registry_too_long_for_an_image_name_is_refused(length: int) -> None:
    app = load_app(project())
    value = environment("dev") | {"registry": f"r.test/{'x' * (length - 7)}"}
    if length == 241:
        assert load_environment(value, app)
        return
    with pytest.raises(ConfigError, match=r"^environment\.registry: .* is too long; give at most 242 characters"):
        load_environment(value, app)


def test_names_that_add_up_to_a_namespace_of_the_cluster_are_refused() -> None:
    app, value = load_app(project() | {"name": "kube"}), _cluster()
    value["kubernetes"]["namespace"] = {}
    with pytest.raises(
        ConfigError, match=r"^app\.name: namespace kube-system is the cluster's own; give another, or set"
    ):
        check_stack("system", app, load_environment(value, app))
    value["kubernetes"]["namespace"] = {"name": "shop"}
    check_stack("system", app, load_environment(value, app))
