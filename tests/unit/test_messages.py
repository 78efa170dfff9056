"""Tests of errors about wrong configuration values: each error names the path of the wrong field and says how to fix it."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.config import App, ConfigError, Environment, check_secrets, explain, load_app, load_environment

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]

APP: dict[str, Any] = {
    "name": "shop",
    "version": "1.0.0",
    "checks": [{"path": "/", "headers": {"X-Frame-Options": "DENY"}, "contains": "Shop"}],
    "figures": {"orders": {"query": "sum(orders_total{$here})", "help": "Orders.", "above": 5}},
    "web": {"image": "shop-web:1", "port": 8080, "metrics": "/metrics"},
    "api": {
        "build": "api",
        "target": "run",
        "port": 8000,
        "command": ["serve"],
        "env": {"LEVEL": "info"},
        "secrets": ["api-key"],
        "needs": ["database", "cache"],
        "volumes": {"uploads": "/data"},
        "migrate": {"command": ["migrate"], "check": ["checked"]},
        "tasks": {"index": {"command": ["index"]}},
        "seed": {"command": ["seed"]},
        "reload": {"target": "dev", "command": ["watch"], "mounts": {"src": "/src"}, "writable": ["/build"]},
    },
    "worker": {
        "build": {
            "context": "worker",
            "dockerfile": "docker/worker.Dockerfile",
            "target": "run",
            "args": {"MODE": "fast"},
        },
        "alive": ["true"],
    },
    "services": {
        "admin": {"tier": "web", "image": "shop-admin:1", "port": 8080, "paths": ["/admin"], "host": "admin"},
        "feed": {"tier": "api", "image": "shop-feed:1", "port": 8100, "paths": ["/feed"]},
        "mailer": {"tier": "worker", "image": "shop-worker:1", "alive": ["true"]},
        "mysql": {
            "tier": "store",
            "image": "mysql:8.4",
            "port": 3306,
            "alive": ["mysqladmin", "ping"],
            "volumes": {"mysql-data": "/var/lib/mysql"},
            "environments": ["dev"],
        },
    },
    "jobs": {"digest": {"service": "worker", "command": ["digest"], "schedule": "daily"}},
    "database": {"init": ["a.sql"], "seed": ["b.sql"], "anonymise": ["c.sql"]},
    "cache": {},
}
S3 = {"endpoint": "https://s3.example.com", "bucket": "shop-backups", "access_key": "s3-id", "secret_key": "s3-key"}
DOCKER: dict[str, Any] = {
    "platform": "docker",
    "hosts": {"admin": "admin.localhost"},
    "docker": {"host": "unix:///run/docker.sock"},
    "gateway": {"ports": {"api": 9001}, "metrics_port": 9002},
    "monitoring": {"exporters": {}, "port": 9003},
    "images": {"api": "shop-api:1"},
    "tiers": {
        "api": {"env": {"COLOUR": "red"}},
        "database": {"backup": {"target": {"s3": S3 | {"prefix": "shop"}}}},
        "cache": {"external": {"host": "cache.example.com", "port": 6379}},
    },
}
CLUSTER: dict[str, Any] = {
    "platform": "kubernetes",
    "hosts": {"admin": "admin.example.com"},
    "registry": "registry.example.com/team",
    "release": {},
    "slo": {},
    "monitoring": {"labels": {"release": "prometheus"}},
    "kubernetes": {
        "context": "lab",
        "url": "https://shop.example.com",
        "hostnames": ["www.example.com"],
        "pull_secrets": ["registry"],
        "gateway": {
            "name": "public",
            "namespace": "gateway",
            "inside": "http://traefik.gateway:80",
            "cidrs": ["10.0.0.0/8"],
            "create": {"gateway_class": "traefik", "certificate": "shop", "issuer": "le"},
        },
        "namespace": {"name": "shop", "quota": {"cpu": 4, "pods": 9}, "limits": {}},
        "secrets": {"api-key": {"store": "vault", "key": "shop", "property": "api"}},
    },
    "tiers": {
        "web": {"autoscale": {"max": 4}, "reserve": 0.1, "priority_class": "high"},
        "api": {"storage": "1Gi", "storage_class": "nfs"},
        "database": {"ha": True, "storage": "1Gi", "backup": {"target": {"volume": True, "storage": "2Gi"}}},
    },
}
WRONG = [None, True, -1, 0, 3.5, 10**30, float("nan"), "", " ", "a\nb", "A_!", "\0", "\ud800", "x" * 200_000, [], ["?", 1], [[]],
         {}, {"k": 1}, {"?": "!"}, {1: 2}]  # fmt: skip
FORBIDDEN = re.compile(
    r"valid (tuple|string|integer|number|dict|boolean|list)|instance of|input should|pydantic|docs/configuration\.md|Extra inputs",
    re.IGNORECASE,
)


def _load(root: str, value: object) -> None:
    if root == "app":
        load_app(value)
    else:
        load_environment(value, _app())


@cache
def _app() -> App:
    return load_app(APP)


BASES = [("app", App, APP), ("environment", Environment, DOCKER), ("environment", Environment, CLUSTER)]


def _resolve_schema(node: Schema, parts: Mapping[str, Schema]) -> Schema:
    while "$ref" in node or "anyOf" in node:
        options = node.get("anyOf", [node])
        node = next(entry for entry in reversed(options) if entry.get("type") != "null")
        node = parts[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    return node


def _fields(node: Schema, parts: Mapping[str, Schema], value: object, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every field that the schema defines for a value, including fields that the value does not set."""
    node = _resolve_schema(node, parts)
    if "oneOf" in node and isinstance(value, dict):
        tag = node["discriminator"]["propertyName"]
        node = parts[node["discriminator"]["mapping"][value[tag]].rpartition("/")[2]]
    if isinstance(value, dict):
        for key, inner in node.get("properties", {}).items():
            yield (*path, key)
            yield from _fields(inner, parts, value.get(key), (*path, key))
        for key in value if "additionalProperties" in node and "properties" not in node else ():
            yield (*path, key)
            yield from _fields(node["additionalProperties"], parts, value[key], (*path, key))
    if isinstance(value, list):
        for number, inner in enumerate(value):
            yield (*path, number)
            yield from _fields(node.get("items", {}), parts, inner, (*path, number))


def _field_cases() -> Iterator[Any]:
    for number, (root, model, base) in enumerate(BASES):
        schema = explain.schema_of(model)
        for path in _fields(schema, schema["$defs"], base):
            yield pytest.param(root, base, path, id=f"{number}-{'.'.join(map(str, path))}")


FIELD_CASES = list(_field_cases())


def _changed_base(base: Mapping[str, Any], path: Path, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(dict(base))
    _put(changed, path, value)
    return changed


def test_base_configurations_of_the_error_message_tests_are_valid_and_contain_every_field() -> None:
    for root, _, base in BASES:
        _load(root, base)
    covered_fields = {(str(field.values[0]), str(field.values[2][-1])) for field in FIELD_CASES}
    for root, model, _ in BASES:
        schema = explain.schema_of(model)
        for name, part in schema["$defs"].items():
            for key in part.get("properties", {}):
                assert (root, key) in covered_fields, f"{name}.{key}"


@pytest.mark.parametrize(("root", "base"), [(root, base) for root, _, base in BASES], ids=["app", "docker", "cluster"])
def test_wrong_value_of_any_field_is_refused_with_its_path_and_a_fix(
    root: str, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check every field with every wrong value.

    To save time, set all fields of the same depth at once. Pydantic reports the errors of all these fields together. Set fields
    named `tier` in a separate step: if `tier` is wrong, pydantic does not check the other keys of the same mapping.
    """
    monkeypatch.setattr(explain, "LINES", 10**6)
    paths = [field.values[2] for field in FIELD_CASES if field.values[1] is base]
    refusals = dict.fromkeys(paths, 0)
    for depth, tag in product(sorted({len(path) for path in paths}), (False, True)):
        paths_of_depth = [path for path in paths if len(path) == depth and (path[-1] == "tier") is tag]
        for value in WRONG:
            changed = copy.deepcopy(base)
            for path in paths_of_depth:
                _put(changed, path, value)
            for error_path in _checked_lines(root, changed):
                for path in paths_of_depth:
                    field_path = ".".join([root, *map(str, path)])
                    refusals[path] += error_path == field_path or error_path.startswith(f"{field_path}.")
    assert not [path for path, times in refusals.items() if times < 5]


def _checked_lines(root: str, value: object) -> set[str]:
    """Load a value, check the format of each error line, and return the path at the start of each line."""
    try:
        _load(root, value)
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        return set()
    for line in lines:
        assert re.match(rf"{root}(\.[^ :]+)*: .+; .+", line), line
        assert len(line) < 400, line
        assert not FORBIDDEN.search(line), line
    return {line.partition(": ")[0] for line in lines}


def _put(target: Any, path: Path, value: object) -> None:
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value


@pytest.mark.parametrize(
    ("root", "base", "path", "value", "line"),
    [
        ("app", APP, ("api", "needs"), "database", "app.api.needs: it is a text; write a list, as in [database]"),
        ("app", APP, ("visits",), ["/a?b"], "app.visits.0: '/a?b' is not a URL path; write it like /health"),
        ("app", APP, ("reload",), {}, "app.reload: this key is in the wrong place; move it to app.web, app.api or app.worker"),
        ("app", APP, ("api", "replicas"), 2,
         "app.api.replicas: this key is in the wrong place; move it to environment.tiers.<tier>, in the stack file"),
        ("app", APP, ("api", "prot"), 1, "app.api.prot: there is no such key; did you mean port?"),
        ("app", APP, ("api", "args"), [], "app.api.args: there is no such key; did you mean command?"),
        ("app", APP, ("api", "context"), ".", "app.api.context: there is no such key; did you mean build?"),
        ("app", APP, ("api", "depends_on"), [], "app.api.depends_on: there is no such key; did you mean needs?"),
        ("app", APP, ("redis",), {}, "app.redis: there is no such key; did you mean cache?"),
        ("app", APP, ("database", "version"), "15", "app.database.version: there is no such key; did you mean image?"),
        ("environment", DOCKER, ("tiers", "api", "image"), "x:1",
         "environment.tiers.api.image: this key is in the wrong place; move it to environment.images.api"),
        ("environment", DOCKER, ("tiers", "api", "port"), 80,
         "environment.tiers.api.port: this key is in the wrong place; move it to app.api, in Pulumi.yaml"),
        ("environment", DOCKER, ("version",), "1", "environment.version: this key is in the wrong place; move it to app, in Pulumi.yaml"),
        ("environment", DOCKER, ("secrets",), {"a": "b"},
         "environment.secrets: secrets are not part of `environment`; set each secret with …"),
        ("app", APP, ("api", "zzz"), 1, "app.api.zzz: there is no such key; use one of image, build, target, command, entrypoint, …"),
        ("environment", DOCKER, ("visits",), ["/"],
         "environment.visits: this key is in the wrong place; move it to app, in Pulumi.yaml"),
        ("environment", DOCKER, ("tiers", "api", "env", "DEBUG"), True,
         'environment.tiers.api.env.DEBUG: true is a boolean; write it in quotes: DEBUG: "true"'),
        ("environment", DOCKER, ("tiers", "api", "env", "SINCE"), "2024-01-01 00:00:00 +0000 UTC",
         'environment.tiers.api.env.SINCE: it is a date; write it in quotes: SINCE: "2024-01-01"'),
        ("app", APP, ("api", "command", 0), 8000, 'app.api.command.0: 8000 is a number; write it in quotes: - "8000"'),
        ("app", APP, ("api", "command"), {"a": "b"}, "app.api.command: it is a mapping; write a list, as in [python, -m, app]"),
        ("environment", DOCKER, ("platform",), "dokcer",
         "environment.platform: 'dokcer' is not an allowed value; write docker or kubernetes (did you mean docker?)"),
        ("environment", DOCKER, ("monitoring",), "on",
         "environment.monitoring: it is a text; write true or false, or a mapping, as in {interval: 30s}"),
        ("environment", DOCKER, ("gateway",), None,
         "environment.gateway: it has no value; remove this key, or set a value"),
        ("app", APP, ("worker",), None, "app.worker: it has no value; remove this key, or set a value"),
        ("app", APP, ("api", "env", 8), "x", 'app.api.env.8: the key is a number; write it in quotes: "8"'),
        ("app", APP, ("database", "password"), "hunter2!", "app.database.password: this text is not a valid name of a secret; …"),
    ],
)  # fmt: skip
def test_error_about_a_wrong_value_has_the_expected_text(
    root: str, base: dict[str, Any], path: Path, value: object, line: str
) -> None:
    with pytest.raises(ConfigError) as error:
        _load(root, _changed_base(base, path, value))
    message = str(error.value)
    assert message == line or (line.endswith("…") and message.startswith(line[:-1])), message
    assert "hunter2" not in message


def test_error_about_a_missing_value_has_an_example() -> None:
    changed = copy.deepcopy(APP)
    del changed["api"]["port"]
    with pytest.raises(ConfigError, match=re.escape("app.api.port: it is not set; add it, as in port: 8080")):
        load_app(changed)


@pytest.mark.parametrize("value", [None, {}, [], "text", 5])
def test_app_or_environment_that_is_not_a_mapping_is_refused(value: object) -> None:
    for root in ("app", "environment"):
        with pytest.raises(ConfigError, match=rf"^{root}: it is [^;]+; \w+"):
            _load(root, value)


def test_error_with_too_many_problems_ends_with_the_number_of_problems_not_shown() -> None:
    with pytest.raises(ConfigError) as error:
        load_app(APP | {f"key{number}": 1 for number in range(100)})
    assert str(error.value).splitlines()[-1] == "app: 60 more problems are not shown; first correct those above"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(WRONG[:13]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.sampled_from(FIELD_CASES), JSON)
def test_configuration_with_any_value_at_any_path_is_loaded_or_raises_config_error(field: Any, value: object) -> None:
    root, base, path = field.values
    try:
        _load(root, _changed_base(base, path, value))
    except ConfigError as error:
        assert re.match(rf"{root}|app", str(error))


def test_configuration_with_very_deep_nesting_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for root, _, base in BASES:
        with pytest.raises(ConfigError, match="nested too deeply"):
            _load(root, base | {"checks": deep, "images": deep})
    with pytest.raises(ConfigError):
        check_secrets({"database-password": deep}, load_app(APP))


def test_very_long_number_is_refused_by_an_error_that_does_not_print_the_number() -> None:
    with pytest.raises(ConfigError) as error:
        load_app(_changed_base(APP, ("api", "port"), 10**6000))
    assert len(str(error.value)) < 400


def test_error_about_a_secret_hides_its_value() -> None:
    app = load_app(APP)
    for value in (5, ["hunter2"], {"hunter2": 1}, "", "hunter2\ud800", "hunter2" * 200_000, json.loads("1e400")):
        secrets = dict.fromkeys(("api-key", "database-password", "cache-password"), value)
        with pytest.raises(ConfigError) as error:
            check_secrets(secrets, app)
        assert "hunter2" not in str(error.value)
        assert all(re.match(r"secrets\.[\w-]+: .+; ", line) for line in str(error.value).splitlines())
