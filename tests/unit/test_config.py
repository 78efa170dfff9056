"""Tests that the error about an invalid setting contains the path of the setting, the problem and the fix."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import ConfigError, check_secrets, check_stack, load_app, load_environment

from .program import environment, project

Change = Callable[[dict[str, Any]], object]


def put(path: str, value: object) -> Change:
    """Return a function that sets the value at a dotted path of a configuration."""

    def change(target: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = value

    return change


def drop(path: str) -> Change:
    def change(target: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            target = target[part]
        del target[last]

    return change


APP: list[tuple[Change, str, str]] = [
    (put("nmae", "board"), "app.nmae", "no such key"),
    (put("web.prot", 8080), "app.web.prot", "no such key"),
    (put("database.password_file", "x"), "app.database.password_file", "no such key"),
    (drop("name"), "app.name", "not set"),
    (drop("version"), "app.version", "not set"),
    (drop("api.port"), "app.api.port", "not set"),
    (put("name", "Board"), "app.name", "lower-case"),
    (put("name", ""), "app.name", "lower-case"),
    (put("name", "a" * 31), "app.name", "at most 30"),
    (put("name", "-board"), "app.name", "lower-case"),
    (put("name", 7), "app.name", "lower-case"),
    (put("version", 1.0), "app.version", "a version as text"),
    (put("version", "1 0"), "app.version", "a version as text"),
    (put("web", "nginx"), "app.web", "it is a text; write a mapping, as in {port: 8080}"),
    (put("api", []), "app.api", "it is a list; write a mapping, as in {port: 8080}"),
    (put("api.port", 0), "app.api.port", "1 to 65535"),
    (put("api.port", 70000), "app.api.port", "1 to 65535"),
    (put("api.port", -1), "app.api.port", "1 to 65535"),
    (put("api.port", "8000"), "app.api.port", "whole number"),
    (put("api.port", 80.5), "app.api.port", "whole number"),
    (put("api.port", True), "app.api.port", "whole number"),
    (put("web.port", 80), "app.web", "above 1023"),
    (put("web.image", "nginx:1.27"), "app.web", "either `image` or `build` is required, but not both"),
    (drop("web.build"), "app.web", "either `image` or `build` is required, but not both"),
    (put("database.image", "postgres"), "app.database.image", "tag or digest"),
    (put("database.image", "postgres:latest"), "app.database.image", "write the version that you tested"),
    (put("database.image", "post gres:15"), "app.database.image", "tag or digest"),
    (put("database.name", "Board-Data"), "app.database.name", "underscores"),
    (put("database.user", "1board"), "app.database.user", "underscores"),
    (put("database.uid", 0), "app.database.uid", "0 is out of range; use a whole number from 1 to"),
    (put("api.needs", ["datbase"]), "app.api.needs.0", "not a tier"),
    (put("api.needs", ["web"]), "app.api.needs", "can't need web"),
    (put("api.needs", ["api"]), "app.api.needs", "can't need api"),
    (put("worker.needs", ["worker"]), "app.worker.needs", "can't need worker"),
    (drop("database"), "app.api.needs", "the application has no database"),
    (drop("cache"), "app.worker.needs", "the application has no cache"),
    (put("api.env", {"log-level": "info"}), "app.api.env.log-level", "capitals"),
    (put("api.env", {"LOG_LEVEL": 3}), "app.api.env.LOG_LEVEL", '3 is a number; write it in quotes: LOG_LEVEL: "3"'),
    (put("api.env", {"RELEASE": "x"}), "app.api.env.RELEASE", "program sets this variable"),
    (put("worker.env", {"SLOT": "x"}), "app.worker.env.SLOT", "program sets this variable"),
    (put("api.secrets", ["Api_Key"]), "app.api.secrets.0", "lower-case"),
    (put("api.secrets", "api-key"), "app.api.secrets", "it is a text; write a list, as in [api-key]"),
    (put("api.command", "gunicorn"), "app.api.command", "it is a text; write a list, as in [python, -m, app]"),
    (put("api.command", [""]), "app.api.command.0", "it is empty"),
    (put("api.health", "health"), "app.api.health", "like /health"),
    (put("api.ready", "/ready?full"), "app.api.ready", "like /health"),
    (put("api.paths", []), "app.api.paths", "it is empty; write at least one, as in [/api]"),
    (put("api.paths", ["api"]), "app.api.paths.0", "like /health"),
    (put("api.writable", ["tmp"]), "app.api.writable.0", "absolute path"),
    (put("api.writable", ["/tmp/../etc"]), "app.api.writable.0", "absolute path"),
    (put("api.volumes", {"Uploads": "/data"}), "app.api.volumes.Uploads", "lower-case"),
    (put("api.volumes", {"uploads": "data"}), "app.api.volumes.uploads", "absolute path"),
    (put("api.volumes", {"uploads": "/tmp"}), "app.api", "/tmp occurs twice"),
    (put("api.user", 0), "app.api.user", "0 is out of range; use a whole number from 1 to"),
    (put("api.user", "root"), "app.api.user", "is a text; use a whole number"),
    (put("api.egress", "yes"), "app.api.egress", "is a text; write true or false, without quotes"),
    (put("api.start_within", 30), "app.api.start_within", "like 30s"),
    (put("api.stop_within", "30"), "app.api.stop_within", "like 30s"),
    (put("api.stop_within", "30 s"), "app.api.stop_within", "like 30s"),
    (put("api.migrate", {}), "app.api.migrate.command", "not set"),
    (put("api.migrate.command", []), "app.api.migrate.command", "it is empty; write at least one"),
    (put("api.seed.contract", True), "app.api.seed.contract", "in the wrong place"),
    (put("api.seed.timeout", "soon"), "app.api.seed.timeout", "like 30s"),
    (put("api.migrate.check", "alembic"), "app.api.migrate.check", "write a list"),
    (put("api.seed.check", ["true"]), "app.api.seed.check", "in the wrong place"),
    (put("checks", {"/": 200}), "app.checks", "it is a mapping; write a list, as in [{path: /health}]"),
    (put("checks", [{"status": 200}]), "app.checks.0.path", "not set"),
    (put("checks", [{"path": "page"}]), "app.checks.0.path", "like /health"),
    (
        put("checks", [{"path": "/", "status": 99}]),
        "app.checks.0.status",
        "99 is out of range; use a whole number from 200 to 599",
    ),
    (
        put("checks", [{"path": "/", "status": "200"}]),
        "app.checks.0.status",
        "is a text; use a whole number from 200 to 599, without quotes",
    ),
    (put("checks", [{"path": "/", "header": {}}]), "app.checks.0.header", "did you mean headers?"),
    (
        put("checks", [{"path": "/", "headers": {"X Frame": "DENY"}}]),
        "app.checks.0.headers.X Frame",
        "like X-Frame-Options",
    ),
    (put("checks", [{"path": "/", "contains": ""}]), "app.checks.0.contains", "it is empty"),
    (put("checks", [{"path": "/", "status": 204, "contains": "x"}]), "app.checks.0", "204 has no content"),
    (put("checks", [{"path": "/", "headers": {"X-A": "1", "x-a": "2"}}]), "app.checks.0", "header x-a is listed twice"),
    (
        put("checks", [{"path": "/x", "status": 200}, {"path": "/x", "status": 404}]),
        "app.checks.1.status",
        "app.checks.0 also requests /x, but expects status 200; remove one of the two checks",
    ),
    (
        put("checks", [{"path": "/", "status": 404}]),
        "app.checks.0.status",
        "remove the path from app.checks or from app.visits",
    ),
    (put("checks", [{"path": f"/{n}-{'x' * 900}"} for n in range(80)]), "app.checks", "all checks together have"),
    (put("visits", [f"/{n}-{'x' * 900}" for n in range(150)]), "app.visits", "all visits together have"),
    (
        put("visits", ["/.gateway/health"]),
        "app.visits.0",
        "the gateway itself answers /.gateway and all paths below it",
    ),
    (
        put("api.paths", ["/%2egateway/x"]),
        "app.api.paths.0",
        "the gateway itself answers /.gateway and all paths below it",
    ),
    (put("api.command", ["x" * 100_000] * 11), "app.api.command", "but a process accepts 1048576"),
    (put("api.migrate.command", ["x" * 100_000] * 11), "app.api.migrate.command", "but a process accepts 1048576"),
    (
        put("worker.tasks", {"t": {"command": ["x" * 100_000] * 11}}),
        "app.worker.tasks.t.command",
        "a process accepts 1048576",
    ),
    (put("api.paths", ["/"]), "app.api.paths.0", "/ routes all requests to api, so none reach web"),
    (
        put("api.paths", ["/api", "/"]),
        "app.api.paths.1",
        "/ routes all requests to api, so none reach web; use a longer prefix",
    ),
    (
        put("figures", {f"f{n}": {"query": "a{$here}", "help": "x" * 3000} for n in range(100)}),
        "app.figures",
        "bytes, but a dashboard accepts 262144",
    ),
    (put("api.scratch", "1Mi"), "app.api.scratch", "is too little for files; use at least 6Mi"),
    (put("api.metrics", "/.gateway"), "app.api.metrics", "the gateway itself answers /.gateway and all paths below it"),
    (put("api.writable", ["/var/run/secrets/x"]), "app.api.writable", "the program mounts secrets"),
    (put("api.reload", {"command": ["x"]}), "app.api.reload.mounts", "not set"),
    (put("web.reload.mounts", {"src": "srv"}), "app.web.reload.mounts.src", "absolute path"),
]

ENVIRONMENT: list[tuple[Change, str, str]] = [
    (put("platfrom", "docker"), "environment.platfrom", "no such key"),
    (drop("platform"), "environment.platform", "not set"),
    (put("platform", "nomad"), "environment.platform", "docker"),
    (put("docker.host", "/var/run/docker.sock"), "environment.docker.host", "like unix:///var/run/docker.sock"),
    (put("docker.host", "ssh://deploy@server"), "environment", "use a local engine"),
    (put("toolbox", "python"), "environment.toolbox", "tag or digest"),
    (put("gateway.port", 99999), "environment.gateway.port", "1 to 65535"),
    (put("gateway.metrics_port", 8080), "environment.gateway", "have the same port"),
    (put("gateway.address", "10.0.0.1"), "environment.gateway.address", "127.0.0.1"),
    (put("gateway.memory", "128"), "environment.gateway.memory", "like 512Mi"),
    (put("reload", "true"), "environment.reload", "is a text; write true or false, without quotes"),
    (put("protect_data", None), "environment.protect_data", "it has no value; remove this key, or set a value"),
    (put("tiers.db", {}), "environment.tiers.db", "not a tier"),
    (put("tiers.api.memory", "512"), "environment.tiers.api.memory", "like 512Mi"),
    (put("tiers.api.memory", 512), "environment.tiers.api.memory", "like 512Mi"),
    (put("tiers.api.memory", "512MB"), "environment.tiers.api.memory", "like 512Mi"),
    (put("tiers.api.memory", "1Mi"), "environment.tiers.api.memory", "at least 6Mi"),
    (put("tiers.api.cpu", "0.5"), "environment.tiers.api.cpu", "like 0.5"),
    (put("tiers.api.cpu", 0), "environment.tiers.api.cpu", "like 0.5"),
    (put("tiers.api.cpu", float("nan")), "environment.tiers.api.cpu", "nan is not a finite number"),
    (put("tiers.api.replicas", 0), "environment.tiers.api.replicas", "use a whole number from 1 to 100"),
    (put("tiers.api.replicas", 11), "environment.tiers.api.replicas", "at most 10"),
    (put("tiers.api.replicas", 1.5), "environment.tiers.api.replicas", "1.5 is not a whole number"),
    (put("tiers.database.replicas", 2), "environment.tiers.database.replicas", "have no replicas"),
    (put("tiers.cache.env", {"A": "b"}), "environment.tiers.cache.env", "have no replicas, autoscaling or variables"),
    (put("tiers.api.env", {"RELEASE": "x"}), "environment.tiers.api.env.RELEASE", "remove the variable here or"),
    (put("tiers.api.autoscale", {"max": 3}), "environment.tiers.api.autoscale", "no effect on Docker"),
    (put("tiers.api.reserve", 0.1), "environment.tiers.api.reserve", "no effect on Docker"),
    (put("tiers.database.storage", "1Gi"), "environment.tiers.database.storage", "no effect on Docker"),
    (
        put("tiers.api.external", {"host": "db.test"}),
        "environment.tiers.api.external",
        "only database and cache can be external",
    ),
    (put("tiers.cache.ha", True), "environment.tiers.cache.ha", "no effect on Docker"),
    (put("tiers.cache.ha", "yes"), "environment.tiers.cache.ha", "true or false"),
    (put("tiers.api.ha", True), "environment.tiers.api.ha", "replace it by `replicas`"),
    (
        put("tiers.cache", {"ha": True, "external": {"host": "h"}}),
        "environment.tiers.cache.external",
        "remove external or the other keys",
    ),
    (
        put("tiers.database", {"cpu": 1, "external": {"host": "h"}}),
        "environment.tiers.database.external",
        "remove external or the other keys",
    ),
    (put("tiers.database.external", {"host": "http://db"}), "environment.tiers.database.external.host", "a host name"),
    (put("images.api", "board:latest"), "environment.images.api", "has the tag latest"),
    (put("slo", {"p95": "2s", "p99": "1s"}), "environment.slo", "p95 is above p99"),
    (
        put("monitoring.runbook", "//elsewhere.test/x"),
        "environment.monitoring.runbook",
        "write a path like docs/runbook.md",
    ),
    (
        put("slo.errors", "0.01"),
        "environment.slo.errors",
        "'0.01' is a text; use a number from 0 to 1, without quotes",
    ),
    (put("monitoring.interval", "10m"), "environment.monitoring.interval", "use at most 2m"),
    (
        put("tiers.api.env", {f"A{n}": "x" * 100_000 for n in range(11)}),
        "app.api.env",
        "a process accepts 1048576",
    ),
    (put("pinned", True), "environment.images.api", "make images"),
    (put("pinned", True), "environment.toolbox", "make images"),
    (put("kubernetes", {"context": "x"}), "environment.kubernetes.url", "not set"),
    (put("platform", "kubernetes"), "environment", "no cluster is set"),
]

CLUSTER: list[tuple[Change, str, str]] = [
    (put("docker", {}), "environment", "docker is set"),
    (put("gateway", {}), "environment", "gateway is set"),
    (put("reload", True), "environment", "set reload: false"),
    (put("platform", "docker"), "environment", "kubernetes is set"),
    (drop("registry"), "app.api.build", "the cluster must pull this image from a registry"),
    (put("registry", "https://x"), "environment.registry", "like ghcr.io/team"),
    (drop("kubernetes.context"), "environment.kubernetes.context", "not set"),
    (put("kubernetes.contxt", "a"), "environment.kubernetes.contxt", "did you mean context?"),
    (put("kubernetes.url", "board.test"), "environment.kubernetes.url", "like https://"),
    (put("kubernetes.url", "https://board.test/app"), "environment.kubernetes.url", "has a path; remove '/app'"),
    (put("kubernetes.hostnames", ["a b"]), "environment.kubernetes.hostnames.0", "a host name"),
    (drop("kubernetes.gateway.inside"), "environment.kubernetes.gateway.inside", "not set"),
    (put("kubernetes.gateway.name", "Public"), "environment.kubernetes.gateway.name", "lower-case"),
    (put("kubernetes.gateway", {"name": "g", "namespace": "g", "inside": "http://a.b", "create":
         {"gateway_class": "t", "certificate": "c"}}), "environment.kubernetes", "use https in url"),
    (put("kubernetes.gateway.create", {"gateway_class": "t"}), "environment.kubernetes.gateway", "remove `listener`"),
    (put("kubernetes.gateway.cidrs", ["everywhere"]), "environment.kubernetes.gateway.cidrs.0", "like 10.0.0.0/8"),
    (put("kubernetes.hostnames", ["board-staging.localhost"]), "environment.kubernetes", "is in both `url` and `hostnames`"),
    (put("kubernetes.namespace.create", False), "environment.kubernetes", "administrator"),
    (put("kubernetes.namespace.quota.cpu", "8"), "environment.kubernetes.namespace.quota.cpu", "like 0.5"),
    (put("kubernetes.secrets", {"database-password": {"key": "a"}}), "environment.kubernetes.secrets.database-password",
     "either `secret` or `store` is required, but not both"),
    (put("kubernetes.secrets", {"database-password": {"secret": "a", "key": "b", "property": "c"}}),
     "environment.kubernetes.secrets.database-password", "only with `store`"),
    (put("kubernetes.secrets", {"mail": {"secret": "a", "key": "b"}}), "environment.kubernetes.secrets.mail",
     "no setting uses this secret"),
    (put("kubernetes.secrets", {"database-password": {"secret": "a", "key": "my key"}}),
     "environment.kubernetes.secrets.database-password.key", "is not a key of a Secret; use at most 253 letters"),
    (put("tiers.database", {"ha": True, "name": "pgbouncer"}), "environment.tiers.database.name", "for its console"),
    (put("tiers.api.reserve", 3), "environment.tiers.api.reserve", "at most 0.5"),
    (put("tiers.api.autoscale", {"max": 1}), "environment.tiers.api.autoscale.max", "use a whole number from 2 to 500"),
    (put("tiers.web.autoscale", {"max": 2}), "environment.tiers.web.autoscale.max", "at least 3"),
    (put("tiers.api.storage", "1Gi"), "environment.tiers.api.storage", "no volumes"),
    (put("tiers.database.storage", "1G"), "environment.tiers.database.storage", "like 512Mi"),
    (put("tiers.api.priority_class", "High Priority"), "environment.tiers.api.priority_class", "lower-case"),
]  # fmt: skip


def assert_refused(load: Callable[[], object], path: str, message: str) -> None:
    """Assert that `load` raises a ConfigError with a line that begins with the path and contains the message."""
    with pytest.raises(ConfigError) as error:
        load()
    assert any(line.startswith(f"{path}: ") and message in line for line in str(error.value).splitlines()), str(
        error.value
    )


@pytest.mark.parametrize(("change", "path", "message"), APP, ids=[f"{n:02}-{case[1]}" for n, case in enumerate(APP)])
def test_invalid_setting_of_the_application_is_refused_with_the_path_of_the_setting(
    change: Change, path: str, message: str
) -> None:
    value = copy.deepcopy(project())
    change(value)
    assert_refused(lambda: load_app(value), path, message)


@pytest.mark.parametrize(
    ("change", "path", "message"), ENVIRONMENT, ids=[f"{n:02}-{case[1]}" for n, case in enumerate(ENVIRONMENT)]
)
def test_invalid_setting_of_the_environment_is_refused_with_the_path_of_the_setting(
    change: Change, path: str, message: str
) -> None:
    value = copy.deepcopy(environment())
    change(value)
    assert_refused(lambda: load_environment(value, load_app(project())), path, message)


@pytest.mark.parametrize(
    ("change", "path", "message"), CLUSTER, ids=[f"{n:02}-{case[1]}" for n, case in enumerate(CLUSTER)]
)
def test_invalid_setting_of_a_kubernetes_environment_is_refused_with_the_path_of_the_setting(
    change: Change, path: str, message: str
) -> None:
    value = copy.deepcopy(environment("staging"))
    value["tiers"]["web"]["replicas"] = 3
    change(value)
    assert_refused(lambda: load_environment(value, load_app(project())), path, message)


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (put("api.user", 1000), "app.api.user", "above 10000"),
        (put("api.volumes", {"uploads": "/data"}), "environment.tiers.api.storage_class", "ReadWriteMany"),
    ],
    ids=["user", "volume"],
)
def test_application_setting_that_kubernetes_can_not_apply_is_refused_with_the_path_of_the_setting(
    change: Change, path: str, message: str
) -> None:
    value = project()
    change(value)
    with pytest.raises(ConfigError) as error:
        load_environment(environment("staging"), load_app(value))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_at_least_60_invalid_configurations_are_tested() -> None:
    assert len(APP) + len(ENVIRONMENT) >= 60


def test_configuration_error_lists_all_problems() -> None:
    value = project() | {"name": "Board", "version": ""}
    with pytest.raises(ConfigError) as error:
        load_app(value)
    assert len(str(error.value).splitlines()) == 2


def test_environment_settings_of_a_tier_are_refused_if_the_application_has_no_such_tier() -> None:
    value = project()
    del value["worker"]
    with pytest.raises(ConfigError, match=r"environment\.tiers\.worker: the application has no worker"):
        load_environment({"platform": "docker", "tiers": {"worker": {}}}, load_app(value))


def test_environment_variable_that_is_set_in_both_app_and_environment_is_refused() -> None:
    value = project()
    value["api"]["env"] = {"LOG_LEVEL": "info"}
    with pytest.raises(ConfigError, match=r"environment\.tiers\.api\.env\.LOG_LEVEL: .* remove the variable here or"):
        load_environment({"platform": "docker", "tiers": {"api": {"env": {"LOG_LEVEL": "x"}}}}, load_app(value))


def test_volume_shared_by_two_tiers_with_different_storage_settings_is_refused() -> None:
    value, env = project(), environment("staging")
    value["web"]["volumes"] = value["api"]["volumes"] = {"uploads": "/data"}
    env["tiers"] |= {"web": {"storage_class": "nfs"}, "api": {"storage_class": "nfs", "storage": "5Gi"}}
    problem = (
        r"environment\.tiers\.api: api shares volume uploads with web; set the same storage and storage_class for both"
    )
    with pytest.raises(ConfigError, match=problem):
        load_environment(env, load_app(value))
    env["tiers"]["web"] = env["tiers"]["api"]
    load_environment(env, load_app(value))


@pytest.mark.parametrize(
    ("tier", "change", "problem"),
    [
        ("api", {"tasks": {"seed": {"command": ["x"]}}}, "app.api: `tasks` can't contain seed"),
        ("api", {"build": None, "image": "a:1", "target": "x"}, "app.api: `target` names a stage of a Dockerfile"),
        ("web", {"build": None, "image": "a:1", "reload": {"target": "dev", "mounts": {}}}, "app.web: reload.target names a stage"),
        ("web", {"target": "A B"}, "app.web.target: 'A B' is not a stage; write it as the Dockerfile does"),
        ("web", {"target": "a", "build": {"context": "web", "target": "b"}},
         "app.web: `target` and `build.target` both name a stage of the Dockerfile; remove `target`"),
        ("web", {"build": ""}, "app.web.build: '' is not a text of one line"),
        ("web", {"build": ["web"]}, "app.web.build: it is a list; write a text, or a mapping, as in api"),
        ("web", {"build": {"dockerfile": "x"}}, "app.web.build.context: it is not set; add it, as in context: api"),
        ("web", {"build": {"context": "web", "dockerfile": "../x"}}, "app.web.build.dockerfile: '../x' is not the path of a Dockerfile"),
        ("web", {"build": {"context": "web", "dockerfile": "/x"}}, "app.web.build.dockerfile: '/x' is not the path of a Dockerfile"),
        ("web", {"build": {"context": "web", "dockerfile": "a*b"}}, "app.web.build.dockerfile: 'a*b' is not the path of a Dockerfile"),
        ("web", {"build": {"context": "web", "args": {"A-B": "1"}}}, "app.web.build.args.A-B: 'A-B' is not the name of a build argument"),
        ("web", {"build": {"context": "web", "args": {"A": 1}}}, "app.web.build.args.A: 1 is a number; write it in quotes"),
    ],
)  # fmt: skip
def test_invalid_task_name_or_build_stage_is_refused(tier: str, change: dict[str, Any], problem: str) -> None:
    value = project()
    value[tier] |= change
    with pytest.raises(ConfigError, match=re.escape(problem)):
        load_app(value)


@pytest.mark.parametrize(
    ("gateway", "problem"),
    [
        ({"ports": {"worker": 9000}}, "environment.gateway.ports.worker: only web or api of the application"),
        (
            {"port": 9000, "ports": {"api": 9000}},
            "environment.gateway: port and ports.api have the same port 9000",
        ),
    ],
)
def test_gateway_port_is_refused_if_the_service_is_a_worker_or_the_number_is_in_use(
    gateway: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        load_environment({"platform": "docker", "gateway": gateway}, load_app(project()))


def test_application_with_neither_web_nor_api_is_refused() -> None:
    with pytest.raises(ConfigError, match="app: neither web nor api is set"):
        load_app({"name": "a", "version": "1"})


SECRET_CASES: list[Any] = [
    {}, None, {"database-password": "x"}, {"database-password": "", "cache-password": "x"},
    {"database-password": 5, "cache-password": "x"},
]  # fmt: skip


@pytest.mark.parametrize("secrets", SECRET_CASES, ids=repr)
def test_missing_secret_is_refused_with_the_command_that_sets_it(secrets: Any) -> None:
    with pytest.raises(ConfigError, match=r"secrets\.(database|cache)-password: .*pulumi config set --secret"):
        check_secrets(secrets, load_app(project()))


def test_error_message_never_contains_a_secret() -> None:
    with pytest.raises(ConfigError) as error:
        check_secrets({"database-password": "hunter2"}, load_app(project()))
    assert "hunter2" not in str(error.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["name", "version", "web", "api", "worker", "database", "cache", "image", "build", "port", "needs", "env", "volumes",
     "writable", "secrets", "command", "reload", "mounts", "migrate", "platform", "docker", "gateway", "tiers", "host"]
)  # fmt: skip
CONFIG_VALUES = st.recursive(
    JSON, lambda inner: st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=6), max_leaves=20
)


@given(CONFIG_VALUES)
def test_loading_any_value_as_configuration_succeeds_or_raises_config_error(value: object) -> None:
    app = load_app(project())
    for load in (load_app, lambda data: load_environment(data, app), lambda data: check_secrets(data, app)):
        try:
            load(value)
        except ConfigError as error:
            assert str(error)


@given(st.sampled_from(["name", "version", "web", "api", "worker", "database", "cache"]), CONFIG_VALUES)
def test_any_value_of_an_app_key_is_loaded_or_gives_an_error_that_names_the_key(part: str, value: object) -> None:
    try:
        load_app(project() | {part: value})
    except ConfigError as error:
        assert str(error).startswith("app")


def test_environment_that_is_configured_as_a_copy_of_itself_is_refused() -> None:
    target = {"copy_of": "dev", "backup": {"target": {"volume": True}}}
    value = environment() | {"protect_data": False, "tiers": {"database": target}}
    app = load_app(project())
    with pytest.raises(
        ConfigError, match=r"^environment\.tiers\.database\.copy_of: dev is this environment itself; name"
    ):
        check_stack("dev", app, load_environment(value, app))
    check_stack("staging", app, load_environment(value, app))
