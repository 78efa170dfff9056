"""Tests of platform limits: a value at a limit is accepted, and a value beyond the limit is refused."""

import re
from typing import Any
from unittest import mock

import pytest

from components.config import ConfigError, check_stack, load_app, load_environment
from components.platforms import inspector
from components.release.checkpoint import parse
from components.rendering import render_routes

from . import program
from .program import deploy, environment, project


def _cluster(standby: str = "warm") -> dict[str, Any]:
    settings = environment("staging")
    return settings | {"release": {"standby": standby}, "pinned": False}


@pytest.mark.parametrize(("standby", "limit"), [("warm", 60), ("cold", 64)])
def test_path_prefixes_of_a_tier_are_accepted_up_to_the_limit_and_refused_above_the_limit(
    standby: str, limit: int
) -> None:
    app = project()
    app["web"]["metrics"] = app["api"]["metrics"] = "/metrics"
    app["api"]["paths"] = [f"/p{number}" for number in range(limit)]
    for route in deploy(app, _cluster(standby), stack="staging").of_type("HTTPRoute"):
        matches = [len(rule["matches"]) for rule in route.inputs["spec"]["rules"]]
        assert max(matches) <= 64
        assert sum(matches) <= 128
        assert len(matches) <= 16
    app["api"]["paths"].append("/more")
    with pytest.raises(ConfigError, match=f"app.api.paths: .*; use at most {limit}"):
        load_environment(_cluster(standby), load_app(app))


@pytest.mark.parametrize(
    ("stack", "problem"),
    [
        ("Prod", "'board-Prod' can't be the name of a namespace"),
        ("prod.eu", "'board-prod.eu' can't be the name of a namespace"),
        ("prod_", "'board-prod_' can't be the value of a Kubernetes label"),
        ("p" * 58, "has 64 characters, but the value of a Kubernetes label has at most 63"),
    ],
)
def test_stack_name_invalid_as_namespace_is_refused_on_kubernetes_only(stack: str, problem: str) -> None:
    app = load_app(project())
    on_cluster, on_engine = load_environment(_cluster(), app), load_environment(environment("dev"), app)
    with pytest.raises(ConfigError, match=f"^stack: .*{re.escape(problem)}.*; "):
        check_stack(stack, app, on_cluster)
    check_stack(stack, app, on_engine)


def test_any_stack_name_is_accepted_if_the_namespace_is_configured() -> None:
    app, value = load_app(project()), _cluster()
    value["kubernetes"]["namespace"] = {"name": "shop"}
    check_stack("Prod.eu", app, load_environment(value, app))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"storage": "6Mi"}, "environment.tiers.database.storage: an empty database needs more; use at least 64Mi"),
        ({"storage": "2000000Gi"}, "environment.tiers.database.storage: '2000000Gi' is more than any machine has; …"),
        ({"memory": "99999999Gi"}, "environment.tiers.database.memory: '99999999Gi' is more than any machine has; …"),
    ],
)
def test_storage_or_memory_outside_of_the_possible_range_is_refused(change: dict[str, Any], line: str) -> None:
    value = _cluster()
    value["tiers"]["database"] = change
    with pytest.raises(ConfigError, match="^" + re.escape(line.rstrip("…"))):
        load_environment(value, load_app(project()))


def test_worker_without_a_probe_is_refused_if_its_start_time_is_too_short() -> None:
    app, value = project(), _cluster()
    app["worker"] |= {"alive": [], "start_within": "9s"}
    value["kubernetes"]["schedule_within"] = "1s"
    with pytest.raises(
        ConfigError,
        match=r"app\.worker\.start_within: start_within and kubernetes\.schedule_within add up to 10s, .*; use more",
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
def test_environment_variable_reserved_for_the_program_is_refused_in_the_configuration(
    tier: str, variable: str
) -> None:
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


def test_secrets_are_refused_if_one_secret_or_all_secrets_together_exceed_1_mib() -> None:
    app = project()
    app["api"]["secrets"] = ["one", "two"]
    values = program.SECRETS | {"one": "x" * 700_000, "two": "y" * 700_000}
    with pytest.raises(ConfigError, match=r"app\.api\.secrets: all secrets together have 1400000 bytes"):
        deploy(app, _cluster(), stack="staging", secrets=values)
    with pytest.raises(
        ConfigError, match=r"secrets\.one: app\.api\.secrets uses this secret, but it has 1100000 bytes"
    ):
        deploy(app, environment("dev"), secrets=values | {"one": "x" * 1_100_000})


def test_list_of_writable_folders_with_a_repeated_folder_is_refused() -> None:
    app = project()
    app["api"]["writable"] = ["/tmp", "/tmp/../tmp/"]
    with pytest.raises(ConfigError, match="absolute path"):
        load_app(app)
    app["api"]["writable"] = ["/tmp", "/tmp/./"]
    with pytest.raises(ConfigError, match="occurs twice"):
        load_app(app)


@pytest.mark.parametrize("path", ["/run/secrets", "/run/secrets/", "/run//secrets/x", "/run/./secrets"])
@pytest.mark.parametrize("key", ["writable", "volumes"])
def test_mount_over_the_folder_of_secrets_is_refused(key: str, path: str) -> None:
    app = project()
    app["api"][key] = [path] if key == "writable" else {"files": path}
    with pytest.raises(ConfigError, match=rf"app\.api\.{key}.*: the program mounts secrets at .*; "):
        load_app(app)


def test_parent_of_the_folder_of_secrets_may_be_writable() -> None:
    app = project()
    app["api"]["writable"] = ["/run", "/tmp"]
    assert load_app(app).api


def test_gateway_configuration_too_long_for_an_environment_variable_is_refused() -> None:
    app = load_app(project() | {"api": project()["api"] | {"paths": [f"/{n}/{'x' * 1000}" for n in range(64)]}})
    settings = mock.Mock(app=app, environment=load_environment(environment("dev"), app))
    with pytest.raises(
        ConfigError, match=r"^app\.api\.paths: these paths make the gateway's configuration \d+ bytes long, .*;"
    ):
        inspector(app, settings.environment, "dev").check(settings, parse({}), render_routes(app, settings.environment))


@pytest.mark.parametrize(("timeout", "word"), [("1.5s", "1.5"), ("999999s", "999999"), ("1000h", "3600000")])
def test_timeout_of_a_task_is_written_as_a_number_without_an_exponent(timeout: str, word: str) -> None:
    app = project()
    app["api"]["migrate"]["timeout"] = timeout
    entrypoint = deploy(app, environment("dev")).by_name["blue-api-migrate"].inputs["entrypoints"]
    assert entrypoint[-2:] == [word, *program.IMAGE_PROCESS.entrypoint]


@pytest.mark.parametrize("length", [241, 248])
def test_registry_too_long_for_an_image_name_is_refused(length: int) -> None:
    app = load_app(project())
    value = environment("dev") | {"registry": f"r.test/{'x' * (length - 7)}"}
    if length == 241:
        assert load_environment(value, app)
        return
    with pytest.raises(ConfigError, match=r"^environment\.registry: .* is too long; use at most 242 characters"):
        load_environment(value, app)


def test_app_and_stack_names_that_form_a_reserved_namespace_are_refused() -> None:
    app, value = load_app(project() | {"name": "kube"}), _cluster()
    value["kubernetes"]["namespace"] = {}
    with pytest.raises(
        ConfigError, match=r"^app\.name: namespace kube-system belongs to the cluster; use another name, or set"
    ):
        check_stack("system", app, load_environment(value, app))
    value["kubernetes"]["namespace"] = {"name": "shop"}
    check_stack("system", app, load_environment(value, app))
