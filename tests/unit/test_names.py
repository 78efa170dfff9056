"""Tests of reserved names and labels: a user can't configure a name or label that the program gives to its own objects."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest

from components.config import ConfigError, load_app, load_environment
from components.model import names
from components.model.workload import Secret
from components.platforms.kubernetes import objects, pod_spec

from .program import SECRETS, VOLUME, Deployment, checkpoint_of, deploy, environment, project

PREFIX = "board-dev-"
USER_VOLUMES = {"uploads", "scratch-tmp", "secret-notes"}
S3 = {"endpoint": "http://s3.test", "bucket": "backups", "access_key": "s3-id", "secret_key": "s3-key"}
VALUES = {**SECRETS, "backup-key": "k", "s3-id": "i", "s3-key": "k"}


def app_with_every_name() -> dict[str, Any]:
    """Return an application with all settings that become part of object names: volumes, scripts, tasks and secrets."""
    app = project()
    app["database"] = {**(app["database"] or {}), "init": ["tests/unit/made.sql"]}
    app["api"]["volumes"] = {name: f"/srv/{name}" for name in sorted(USER_VOLUMES)}
    app["worker"]["volumes"] = {"uploads": "/srv/uploads:ro"}
    app["web"]["secrets"] = ["s3-id"]
    return app


@cache
def deploy_on_docker() -> Deployment:
    env = environment("dev") | {
        "monitoring": True,
        "tiers": {"database": {"backup": {"target": {"volume": True}}}},
    }
    first = deploy(app_with_every_name(), env, secrets=VALUES)
    return deploy(app_with_every_name() | {"version": "2.0.0"}, env, secrets=VALUES, export=checkpoint_of(first))


@cache
def deploy_on_kubernetes(archived: bool = False) -> Deployment:
    env = environment("staging")
    env["monitoring"] = {"labels": {"release": "prometheus"}}
    backup = {"target": {"s3": S3} if archived else {"volume": True}}
    env["tiers"] = {
        "api": {"storage_class": "nfs"},
        "worker": {"storage_class": "nfs"},
        "cache": {"ha": True},
        "database": {"backup": backup, "ha": archived},
    }
    env["kubernetes"]["namespace"] = {"quota": {"cpu": 4}, "limits": {}}
    first = deploy(app_with_every_name(), env, secrets=VALUES, stack="staging")
    changed = app_with_every_name() | {"version": "2.0.0"}
    return deploy(changed, env, secrets=VALUES, stack="staging", export=checkpoint_of(first))


def deployments() -> list[Deployment]:
    return [deploy_on_docker(), deploy_on_kubernetes(), deploy_on_kubernetes(archived=True)]


def volumes(deployment: Deployment) -> Iterator[str]:
    """Yield the names of all Docker volumes and PersistentVolumeClaims, including claims that the database operator creates."""
    for entry in deployment.sorted:
        if entry.type == VOLUME:
            yield entry.name
        if entry.type == VOLUME and "name" in entry.inputs:
            yield entry.inputs["name"].removeprefix(PREFIX)
        if entry.kind == "PersistentVolumeClaim":
            yield entry.name
        if entry.kind == "Cluster":
            yield f"{entry.name}-1"


def label_keys(value: Any) -> Iterator[str]:
    """Yield the label keys in an object, including the keys in templates and selectors."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key in ("labels", "matchLabels") and isinstance(part, Mapping):
                yield from part
            else:
                yield from label_keys(part)
    elif isinstance(value, list):
        for part in value:
            yield from label_keys(part)


def test_every_volume_name_of_the_program_is_reserved():
    names_ = {name for deployment in deployments() for name in volumes(deployment)} - USER_VOLUMES
    assert {"gateway", "database-scripts", "prometheus-released", "cache-data-1", "database-ha-1", "backups"} <= names_
    assert not [name for name in sorted(names_) if not names.is_reserved_volume(name)]


def test_reserved_volume_name_is_refused():
    for name in sorted({name for deployment in deployments() for name in volumes(deployment)} - USER_VOLUMES):
        if len(name) > 30:
            continue  # A name of more than 30 characters is refused because of its length.
        app = app_with_every_name()
        app["api"]["volumes"] = {name: "/srv/x"}
        with pytest.raises(
            ConfigError, match=f"app.api.volumes.{name}: the program uses this name for another volume; use"
        ):
            load_app(app)


@pytest.mark.parametrize(
    "name", ["uploads", "my-scripts", "gateways", "scratch-tmp", "scripts", "cache-data-x", "data"]
)
def test_volume_name_that_is_not_reserved_is_accepted(name: str):
    app = app_with_every_name()
    app["api"]["volumes"] = {name: "/srv/x"}
    assert load_app(app).volumes == {name, "uploads"}


def test_task_named_like_a_secrets_volume_is_refused():
    app = app_with_every_name()
    app["api"]["tasks"] = {"secrets-0a1b2c": {"command": ["x"]}, "secrets-of-the-day": {"command": ["x"]}}
    with pytest.raises(ConfigError) as error:
        load_app(app)
    assert (
        str(error.value)
        == "app.api.tasks.secrets-0a1b2c: the program uses this name for another container; use another name"
    )


def test_every_label_of_the_program_is_reserved():
    # Skip each PrometheusRule, because the labels in a rule belong to time series and not to objects.
    objects = [entry for deployment in deployments() for entry in deployment.sorted if entry.kind != "PrometheusRule"]
    keys = {key for entry in objects for key in label_keys(entry.inputs)}
    keys |= {key for entry in deploy_on_docker().sorted for key in entry.labels}
    foreign_label = re.compile(
        r"release$|kubernetes.io/metadata.name$|k8s-app$|cnpg.io/|severity|environment$|service$"
    )
    own_labels = {key for key in keys if not foreign_label.match(key)}
    assert {"tiers.app", "tiers.role", "tiers.switch", "app.kubernetes.io/name", "tiers.needs/database"} <= own_labels
    assert not [key for key in sorted(own_labels) if not names.is_reserved_label(key)]


@pytest.mark.parametrize("label", ["tiers.app", "tiers.role", "tiers.to-come", "app.kubernetes.io/instance"])
def test_reserved_label_is_refused(label: str):
    env = environment("staging") | {"monitoring": {"labels": {label: "evil", "release": "prometheus"}}}
    with pytest.raises(ConfigError) as error:
        load_environment(env, load_app(project()))
    assert str(error.value) == f"environment.monitoring.labels.{label}: the program reserves this label; remove it"


def test_object_names_are_unique_within_a_kind():
    for deployment in deployments():
        objects = Counter(
            (entry.kind, entry.inputs["metadata"]["name"]) for entry in deployment.sorted if "metadata" in entry.inputs
        )
        objects.update((entry.kind, entry.inputs["name"]) for entry in deployment.sorted if "name" in entry.inputs)
        # Images may occur twice, because both slots can use the same image.
        images = {key for key in objects if key[0] == "RemoteImage"}
        assert not [key for key, count in objects.items() if count > 1 and key not in images]


# ---------------------------------------------------------------------- names that are valid on Kubernetes


@pytest.mark.parametrize(
    "paths",
    [
        ["/a/b", "/a-b"],
        ["/app/a_b", "/app/a.b", "/app/a/b"],
        ["/app/node_modules/@scope/engine"],
        ["/srv/a-very-long-name/of-a-folder/that-somebody/has-chosen/for-some/reason"],
        ["/a b"],
        ["/A", "/a"],
        ["/ü", "/é"],
        ["/-", "/_"],
        ["/srv/uploads", "/srv-uploads"],
    ],
)
def test_volumes_for_any_writable_folders_have_distinct_valid_names(paths: list[str]):
    names_by_path = pod_spec.scratch_names(paths, ["scratch", "scratch-srv-uploads"])
    assert sorted(names_by_path) == sorted(paths)
    assert len({*names_by_path.values(), "scratch", "scratch-srv-uploads"}) == len(paths) + 2
    assert all(names.is_dns_label(name) for name in names_by_path.values())


def test_names_of_volumes_for_writable_folders_never_change():
    paths = ["/tmp", "/var/run/postgresql", "/app/.cache", "/app/node_modules", "/A"]
    assert list(pod_spec.scratch_names(paths).values()) == [
        "scratch-a",
        "scratch-app--cache",
        "scratch-app-node-modules",
        "scratch-tmp",
        "scratch-var-run-postgresql",
    ]


def test_user_volume_named_like_a_volume_for_a_writable_folder_does_not_collide():
    [pod] = [
        entry.inputs["spec"]["template"]["spec"]
        for entry in deploy_on_kubernetes().of_type("Deployment")
        if entry.name == "api-green"
    ]
    volumes = [volume["name"] for volume in pod["volumes"]]
    assert len(set(volumes)) == len(volumes) and "scratch-tmp" in volumes


def test_init_container_gets_a_tmp_volume_even_if_its_task_has_none():
    app = app_with_every_name()
    app["api"]["writable"] = ["/cache"]
    deployment = deploy(
        app,
        environment("staging") | {"tiers": {"api": {"storage_class": "x"}, "worker": {"storage_class": "x"}}},
        stack="staging",
        secrets=VALUES,
    )
    spec = deployment.get_object("Job", "blue-api-migrate").inputs["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in (*spec["containers"], *spec["initContainers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= set(volumes)
    [tmp] = [m["name"] for m in spec["initContainers"][0]["volumeMounts"] if m["mountPath"] == "/tmp"]
    assert "emptyDir" in volumes[tmp]


def test_tier_with_many_secrets_has_a_valid_secret_name_on_both_platforms():
    app = project()
    secrets = {f"secret-{number}": "x" for number in range(36)}
    app["api"]["secrets"] = sorted(secrets)
    values = {**SECRETS, **secrets}
    deployment = deploy(app, environment("staging"), stack="staging", secrets=values)
    [name] = [e.inputs["metadata"]["name"] for e in deployment.of_type("Secret") if e.name.startswith("api-blue")]
    assert re.fullmatch("api-blue(-[0-9a-f]{6}){2}", name)
    [volume] = [
        e for e in deploy(app, environment("dev"), secrets=values).of_type(VOLUME) if "blue-api-secrets" in e.name
    ]
    assert re.fullmatch("blue-api-secrets(-[0-9a-f]{6}){2}", volume.name) and names.is_reserved_volume(volume.name)


def test_name_of_a_kubernetes_secret_depends_on_the_version_of_each_secret_value():
    two_secrets = [Secret(name="a", version="0123456789"), Secret(name="b", version="abcdef0000")]
    assert objects.secret_name("api-blue", two_secrets) == "api-blue-012345-abcdef"
    secrets = [Secret(name=f"s{number}", version=f"{number:010}") for number in range(36)]
    changed = [*secrets[:-1], Secret(name="s35", version="ffffff0000")]
    assert objects.secret_name("api-blue", secrets) != objects.secret_name("api-blue", changed)


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("api", "api"),
        ("my_app", "my_app"),
        ("a--b", "a--b"),
        ("Api", "api"),
        ("My App", "my-app"),
        ("a..b", "a-b"),
        ("_x_", "x"),
        ("日本", ""),
        ("x" * 300, "x" * 200),
    ],
)
def test_folder_name_becomes_a_valid_part_of_an_image_name(folder: str, part: str):
    assert names.as_repository(folder, 200) == part


@pytest.mark.parametrize("name", ["my file.sql", "ü.sql", "a" * 300 + ".sql", "@.sql"])
def test_file_name_becomes_a_valid_config_map_key(name: str):
    key = names.as_file_name(name, 250)
    assert re.fullmatch(r"[-._a-zA-Z0-9]{1,250}", key) and key.endswith(".sql")


def test_file_name_that_is_a_valid_config_map_key_is_not_changed():
    assert names.as_file_name("001_init-x.sql") == "001_init-x.sql"
