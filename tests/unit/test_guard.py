"""Tests of the guard against data loss.

The guard refuses a plan that would lose data. The refusal comes before the program registers any resource, and
FORCE=data overrides the refusal.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.config import ConfigError
from components.release.checkpoint import parse
from components.safety import guard
from components.state.kubernetes import CLAIM

from ..e2e.test_guard import rename_database_component
from .program import (
    CONTAINER,
    ROOT,
    SECRETS,
    VOLUME,
    Registered,
    checkpoint_of,
    deploy,
    environment,
    first_release,
    project,
)

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def remove_tier(tier: str) -> Change:
    def change(app: dict[str, Any], env: dict[str, Any]) -> None:
        del app[tier]
        env.get("tiers", {}).pop(tier, None)
        for other in ("api", "worker"):
            app[other]["needs"] = [need for need in app[other]["needs"] if need != tier]

    return change


def set_tier(tier: str, **values: Any) -> Change:
    return lambda app, env: env.setdefault("tiers", {}).__setitem__(tier, values)


def use_external_service(tier: str) -> Change:
    return set_tier(tier, external={"host": "db.test"})


def change_database_major(app: dict[str, Any], env: dict[str, Any]) -> None:
    app["database"]["image"] = "postgres:16-bookworm"
    if "images" in env:
        env["images"]["database"] = "postgres:16-bookworm@sha256:" + "0" * 64


def remove_volume(app: dict[str, Any], env: dict[str, Any]) -> None:
    del app["api"]["volumes"]
    env.get("tiers", {}).pop("api", None)


def rename_volume(app: dict[str, Any], env: dict[str, Any]) -> None:
    app["api"]["volumes"] = {"files": "/data"}


def change_namespace(app: dict[str, Any], env: dict[str, Any]) -> None:
    env["kubernetes"]["namespace"]["name"] = "another"


def use_existing_namespace(app: dict[str, Any], env: dict[str, Any]) -> None:
    env["kubernetes"]["namespace"] = {"create": False}


def change_platform(app: dict[str, Any], env: dict[str, Any]) -> None:
    env.clear()
    env.update(environment("dev") | {"reload": False})


BOTH_PLATFORMS: dict[str, tuple[Change, str]] = {
    "database removed": (remove_tier("database"), "app.database: this tier was removed"),
    "cache removed": (remove_tier("cache"), "app.cache: this tier was removed"),
    "database external": (
        use_external_service("database"),
        "environment.tiers.database.external: data is not copied to the external service",
    ),
    "cache external": (use_external_service("cache"), "environment.tiers.cache.external"),
    "database major changed": (change_database_major, "app.database.image: PostgreSQL 16 can't read the files of 15"),
    "volume removed": (remove_volume, "no tier has the volume uploads any longer"),
    "volume renamed": (rename_volume, "no tier has the volume uploads any longer"),
}
KUBERNETES_ONLY: dict[str, tuple[Change, str]] = {
    "storage class changed": (
        set_tier("database", storage="2Gi", storage_class="other"),
        "environment.tiers.database.storage_class: the default becomes other",
    ),
    "namespace changed": (change_namespace, "this update would use another/database-data"),
    "namespace of an administrator": (use_existing_namespace, "environment.kubernetes.namespace.create: false"),
    "platform changed": (change_platform, "environment.platform: this update does not copy data to docker"),
}
CASES = [
    pytest.param(stack, *case, id=f"{stack}: {name}")
    for stack, cases in (("dev", BOTH_PLATFORMS), ("staging", BOTH_PLATFORMS | KUBERNETES_ONLY))
    for name, case in cases.items()
]


def app_and_environment(stack: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = project(), environment(stack) | {"release": {}} | more
    app["api"]["volumes"] = {"uploads": "/data"}
    if stack != "dev":
        env["tiers"] = {"api": {"storage_class": "shared"}, "database": {"storage": "2Gi"}}
    return app, env


@cache
def first_checkpoint(stack: str, protect_data: bool = False) -> dict[str, Any]:
    """Return the checkpoint after a first release. Tests share the result and must not change it."""
    return checkpoint_of(deploy(*app_and_environment(stack, protect_data=protect_data), stack=stack))


def deploy_change(stack: str, change: Change, protect_data: bool = False) -> tuple[list[Registered], list[str]]:
    """Deploy a change after a first release. Return the registered resources and the lines of the error, if any."""
    app, env = app_and_environment(stack, protect_data=protect_data)
    export = first_checkpoint(stack, protect_data=protect_data)
    change(app, env)
    registrations: list[Registered] = []
    try:
        deploy(app, env, export=export, stack=stack, registrations=registrations)
    except ConfigError as error:
        return registrations, str(error).splitlines()
    return registrations, []


@pytest.mark.parametrize(("stack", "change", "message"), CASES)
def test_plan_that_loses_data_is_refused_before_any_resource_is_registered(
    stack: str, change: Change, message: str
) -> None:
    registrations, lines = deploy_change(stack, change)
    assert any(message in line for line in lines), lines
    assert all(line.endswith("To update anyway: `make up FORCE=data` (TIERS_FORCE=data)") for line in lines)
    assert not registrations


@pytest.mark.parametrize(("stack", "change", "message"), CASES)
def test_force_allows_loss_of_unprotected_data(
    stack: str, change: Change, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERS_FORCE", "data")
    registrations, lines = deploy_change(stack, change)
    assert not lines
    assert any(entry.custom for entry in registrations)


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_removal_of_protected_data_is_refused_until_the_protection_is_removed(
    stack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERS_FORCE", "data")
    registrations, [line] = deploy_change(stack, remove_tier("cache"), protect_data=True)
    assert "set environment.protect_data: false, `make up`, then `make up FORCE=data`" in line
    assert not [entry for entry in registrations if entry.custom]
    app, env = app_and_environment(stack, protect_data=True)
    protected = first_checkpoint(stack, protect_data=True)
    env["protect_data"] = False
    unprotected = checkpoint_of(deploy(app, env, export=protected, stack=stack))
    remove_tier("cache")(app, env)
    assert not [entry for entry in deploy(app, env, export=unprotected, stack=stack) if entry.name.startswith("cache")]


@pytest.mark.parametrize("forced", ["", "data"])
def test_smaller_storage_of_a_data_volume_is_refused_even_if_forced(
    forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERS_FORCE", forced)
    registrations, [line] = deploy_change("staging", set_tier("database", storage="1Gi"))
    assert line.startswith("environment.tiers.database.storage: the claim has 2Gi and can't shrink to 1Gi")
    assert "use at least 2Gi" in line
    assert not [entry for entry in registrations if entry.custom]


def test_larger_storage_of_a_data_volume_is_applied_without_a_replacement() -> None:
    registrations, lines = deploy_change("staging", set_tier("database", storage="3Gi"))
    assert not lines
    [claim] = [
        entry for entry in registrations if entry.kind == "PersistentVolumeClaim" and entry.name == "database-data"
    ]
    assert claim.inputs["spec"]["resources"]["requests"]["storage"] == "3Gi"
    [database] = [entry for entry in registrations if entry.kind == "StatefulSet" and entry.name == "database"]
    before = first_checkpoint("staging")["deployment"]["resources"]
    assert database.inputs == next(entry["inputs"] for entry in before if entry["urn"] == database.urn)


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_data_loss_guard_accepts_a_release_that_changes_only_the_version(stack: str) -> None:
    app, env = project() | {"version": "2.0.0"}, environment(stack)
    assert deploy(app, env, export=checkpoint_of(first_release(stack)), stack=stack).release


def test_renamed_stack_is_refused_because_its_data_has_the_old_name() -> None:
    before = checkpoint_of(first_release("dev"))
    with pytest.raises(
        ConfigError, match="database-data: the data is in board-dev-database-data, but this update would use"
    ):
        deploy(export=before, stack="test", env=environment("dev"))


def test_data_loss_guard_ignores_volumes_that_every_update_fills_again() -> None:
    app = project()
    app["database"]["init"] = ["tests/unit/made.sql"]
    deployed = deploy(app)
    stores = guard.stored_data(parse(checkpoint_of(deployed)))
    assert set(stores) == {"database-data", "cache-data"}
    assert len(deployed.of_type(VOLUME)) > 5


@pytest.mark.parametrize(
    ("image", "major"),
    [
        ("postgres:15-bookworm", 15),
        ("registry.test:5000/team/postgres:16.3@sha256:00", 16),
        ("postgres@sha256:15", None),
        ("registry.test:5000/postgres", None),
        ("postgres:bookworm", None),
        (None, None),
    ],
)
def test_postgresql_major_version_is_read_from_the_image_tag(image: str | None, major: int | None) -> None:
    assert guard.major_version(image) == major


@given(st.integers(1, 2**45), st.integers(1, 2**45))
def test_new_size_of_a_volume_claim_is_refused_only_if_smaller_than_the_old_size(old_size: int, new_size: int) -> None:
    store = guard.Store(type=CLAIM, address="board/database-data", size=old_size, tier="database")
    desired = guard.Store(type=CLAIM, address="board/database-data", size=new_size, tier="database")
    losses = list(guard.losses({"database-data": store}, {"database-data": desired}, *loaded_staging()))
    assert bool(losses) == (new_size < old_size)


def loaded_staging() -> Any:
    from components.config import load_app, load_environment

    app = load_app(project())
    return app, load_environment(environment("staging"), app)


def with_ha(tier: str) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = app_and_environment("staging")
    env["tiers"][tier] = {"ha": True}
    return app, env


def test_ha_of_the_cache_can_be_added_without_force_but_not_removed_without_force() -> None:
    ha_checkpoint = checkpoint_of(deploy(*with_ha("cache"), export=first_checkpoint("staging"), stack="staging"))
    stores = guard.stored_data(parse(ha_checkpoint))
    assert {name for name in stores if name.startswith("cache")} == {"cache-data", "cache-data-1", "cache-data-2"}
    deploy(*with_ha("cache"), export=ha_checkpoint, stack="staging")
    with pytest.raises(ConfigError, match=r"environment\.tiers\.cache\.ha: .*cache-data-1 would be deleted"):
        deploy(*app_and_environment("staging"), export=ha_checkpoint, stack="staging")


def test_removal_of_a_database_cluster_is_refused_without_force() -> None:
    app, env = with_ha("database")
    ha_checkpoint = checkpoint_of(deploy(app, env, stack="staging"))
    assert "database-ha" in guard.stored_data(parse(ha_checkpoint))
    deploy(app, env, export=ha_checkpoint, stack="staging")
    with pytest.raises(ConfigError, match=r"environment\.tiers\.database\.ha: .*database-ha would be deleted"):
        deploy(*app_and_environment("staging"), export=ha_checkpoint, stack="staging")


def test_changed_postgresql_major_of_a_database_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the change is refused. Otherwise CloudNativePG would convert the data files in place."""
    app, env = with_ha("database")
    ha_checkpoint = checkpoint_of(deploy(app, env, stack="staging"))
    app["database"]["ha_image"] = "ghcr.io/cloudnative-pg/postgresql:16-standard-bookworm"
    with pytest.raises(ConfigError, match=r"app\.database\.ha_image: PostgreSQL 16 .* files of 15 .*FORCE=data"):
        deploy(app, env, export=ha_checkpoint, stack="staging")
    monkeypatch.setenv("TIERS_FORCE", "data")
    deploy(app, env, export=ha_checkpoint, stack="staging")


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_change_that_shrinks_or_removes_a_backup_volume_is_refused_without_force(stack: str) -> None:
    app, env = app_and_environment(stack)
    database = env.setdefault("tiers", {}).setdefault("database", {})
    secrets = SECRETS | {"backup-key": "the-key"}
    database["backup"] = {"target": {"volume": True} | ({"storage": "4Gi"} if stack != "dev" else {})}
    deployed = checkpoint_of(deploy(app, env, stack=stack, secrets=secrets))
    if stack != "dev":
        database["backup"] = {"target": {"volume": True, "storage": "1Gi"}}
        with pytest.raises(
            ConfigError, match=r"^environment\.tiers\.database\.backup\.target\.storage: the claim has 4Gi and"
        ):
            deploy(app, env, export=deployed, stack=stack, secrets=secrets)
    del database["backup"]
    with pytest.raises(
        ConfigError, match=r"^environment\.tiers\.database\.backup\.target: the target is no longer a volume"
    ):
        deploy(app, env, export=deployed, stack=stack, secrets=secrets)


def test_data_loss_guard_ignores_the_data_of_prometheus() -> None:
    app, env = app_and_environment("dev")
    monitored = checkpoint_of(deploy(app, env | {"monitoring": True}))
    assert set(guard.stored_data(parse(monitored))) == {"database-data", "cache-data", "uploads"}
    deploy(app, env | {"monitoring": True}, export=monitored)
    deploy(app, env, export=monitored)


ADDRESSES: Mapping[str, set[str]] = {
    "dev": {
        "tiers:cache:Cache$docker:index/volume:Volume::cache-data",
        "tiers:database:Database$docker:index/volume:Volume::database-data",
        "tiers:docker:Ground$docker:index/volume:Volume::uploads",
    },
    "staging": {
        "tiers:cache:Cache$kubernetes:core/v1:PersistentVolumeClaim::cache-data",
        "tiers:database:Database$kubernetes:core/v1:PersistentVolumeClaim::database-data",
        "tiers:kubernetes:Ground$kubernetes:core/v1:PersistentVolumeClaim::uploads",
    },
}


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_resource_addresses_of_data_stores_never_change(stack: str) -> None:
    """Compare the URNs of resources with fixed values. If a URN changes, the next update deletes the volume in a user's stack.

    Only `aliases` in the component would prevent the deletion (docs/data.md#renaming).
    """
    deployed = deploy(*app_and_environment(stack), stack=stack)
    data = set(guard.stored_data(parse(checkpoint_of(deployed))).keys()) - {"namespace"}
    assert {
        entry.urn.partition("::project::")[2] for entry in deployed if entry.name in data and entry.custom
    } == ADDRESSES[stack]


def test_data_path_in_the_database_container_never_changes() -> None:
    database = first_release("dev").by_name["database-1"]
    assert database.type == CONTAINER
    assert "PGDATA=/var/lib/postgresql/data/pgdata" in database.inputs["envs"]
    assert database.inputs["volumes"][0]["containerPath"] == "/var/lib/postgresql/data"


def test_end_to_end_test_of_a_renamed_component_finds_the_texts_that_it_replaces(tmp_path: Path) -> None:
    for name in ("__main__.py", "components/service.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    rename_database_component(tmp_path)
    assert "tiers:postgres:Postgres" in (tmp_path / "components/service.py").read_text()
