"""The guard: a plan that would lose data is refused with the reason before anything is registered, and can be forced by name."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import guard
from components.checkpoint import parse
from components.config import ConfigError

from .program import CONTAINER, SECRETS, VOLUME, Registered, deploy, environment, exported, first, project

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def without(tier: str) -> Change:
    def change(app: dict[str, Any], env: dict[str, Any]) -> None:
        del app[tier]
        env.get("tiers", {}).pop(tier, None)
        for other in ("api", "worker"):
            app[other]["needs"] = [need for need in app[other]["needs"] if need != tier]

    return change


def sized(tier: str, **values: Any) -> Change:
    return lambda app, env: env.setdefault("tiers", {}).__setitem__(tier, values)


def elsewhere(tier: str) -> Change:
    return sized(tier, external={"host": "db.test"})


def another_image(app: dict[str, Any], env: dict[str, Any]) -> None:
    app["database"]["image"] = "postgres:16-bookworm"
    if "images" in env:
        env["images"]["database"] = "postgres:16-bookworm@sha256:" + "0" * 64


def no_volume(app: dict[str, Any], env: dict[str, Any]) -> None:
    del app["api"]["volumes"]
    env.get("tiers", {}).pop("api", None)


def renamed_volume(app: dict[str, Any], env: dict[str, Any]) -> None:
    app["api"]["volumes"] = {"files": "/data"}


def another_namespace(app: dict[str, Any], env: dict[str, Any]) -> None:
    env["kubernetes"]["namespace"]["name"] = "another"


def given_namespace(app: dict[str, Any], env: dict[str, Any]) -> None:
    env["kubernetes"]["namespace"] = {"create": False}


def other_platform(app: dict[str, Any], env: dict[str, Any]) -> None:
    env.clear()
    env.update(environment("dev") | {"reload": False})


BOTH: dict[str, tuple[Change, str]] = {
    "no database": (without("database"), "app.database: it is not described any more"),
    "no cache": (without("cache"), "app.cache: it is not described any more"),
    "database elsewhere": (
        elsewhere("database"),
        "environment.tiers.database.external: data is not copied to the external service",
    ),
    "cache elsewhere": (elsewhere("cache"), "environment.tiers.cache.external"),
    "another major": (another_image, "app.database.image: PostgreSQL 16 can't read the files of 15"),
    "a volume gone": (no_volume, "no tier has the volume uploads any more"),
    "a volume renamed": (renamed_volume, "no tier has the volume uploads any more"),
}
CLUSTER: dict[str, tuple[Change, str]] = {
    "another class": (
        sized("database", storage="2Gi", storage_class="other"),
        "environment.tiers.database.storage_class: the default becomes other",
    ),
    "another namespace": (another_namespace, "would be looked for in another/database-data"),
    "a namespace of somebody else": (given_namespace, "environment.kubernetes.namespace.create: false"),
    "another platform": (other_platform, "environment.platform: docker has none of this data"),
}
CASES = [
    pytest.param(stack, *case, id=f"{stack}: {name}")
    for stack, cases in (("dev", BOTH), ("staging", BOTH | CLUSTER))
    for name, case in cases.items()
]


def described(stack: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = project(), environment(stack) | {"release": {}} | more
    app["api"]["volumes"] = {"uploads": "/data"}
    if stack != "dev":
        env["tiers"] = {"api": {"storage_class": "shared"}, "database": {"storage": "2Gi"}}
    return app, env


@cache
def left(stack: str, protect_data: bool = False) -> dict[str, Any]:
    """Return the checkpoint that a first release leaves. Tests share it: do not change it."""
    return exported(deploy(*described(stack, protect_data=protect_data), stack=stack))


def changed(stack: str, change: Change, protect_data: bool = False) -> tuple[list[Registered], list[str]]:
    """Apply a change after a first release, and return the registrations and the lines of the refusal."""
    app, env = described(stack, protect_data=protect_data)
    export = left(stack, protect_data=protect_data)
    change(app, env)
    seen: list[Registered] = []
    try:
        deploy(app, env, export=export, stack=stack, seen=seen)
    except ConfigError as error:
        return seen, str(error).splitlines()
    return seen, []


@pytest.mark.parametrize(("stack", "change", "message"), CASES)
def test_data_loss_is_refused_with_the_reason_before_anything_is_touched(
    stack: str, change: Change, message: str
) -> None:
    seen, lines = changed(stack, change)
    assert any(message in line for line in lines), lines
    assert all(line.endswith("To force it: `make up FORCE=data` (TIERS_FORCE=data)") for line in lines)
    assert not seen


@pytest.mark.parametrize(("stack", "change", "message"), CASES)
def test_data_loss_can_be_forced_where_data_is_not_protected(
    stack: str, change: Change, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERS_FORCE", "data")
    seen, lines = changed(stack, change)
    assert not lines
    assert any(entry.custom for entry in seen)


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_protected_data_must_be_unprotected_before_it_is_removed(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERS_FORCE", "data")
    seen, [line] = changed(stack, without("cache"), protect_data=True)
    assert "set environment.protect_data: false, `make up`, then `make up FORCE=data`" in line
    assert not [entry for entry in seen if entry.custom]
    app, env = described(stack, protect_data=True)
    protected = left(stack, protect_data=True)
    env["protect_data"] = False
    unprotected = exported(deploy(app, env, export=protected, stack=stack))
    without("cache")(app, env)
    assert not [entry for entry in deploy(app, env, export=unprotected, stack=stack) if entry.name.startswith("cache")]


@pytest.mark.parametrize("forced", ["", "data"])
def test_smaller_storage_is_refused_even_if_forced(forced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERS_FORCE", forced)
    seen, [line] = changed("staging", sized("database", storage="1Gi"))
    assert line.startswith("environment.tiers.database.storage: it is 2Gi and can't become 1Gi")
    assert "give at least 2Gi" in line
    assert not [entry for entry in seen if entry.custom]


def test_larger_storage_is_applied_in_place() -> None:
    seen, lines = changed("staging", sized("database", storage="3Gi"))
    assert not lines
    [claim] = [entry for entry in seen if entry.kind == "PersistentVolumeClaim" and entry.name == "database-data"]
    assert claim.inputs["spec"]["resources"]["requests"]["storage"] == "3Gi"
    [database] = [entry for entry in seen if entry.kind == "StatefulSet" and entry.name == "database"]
    before = left("staging")["deployment"]["resources"]
    assert database.inputs == next(entry["inputs"] for entry in before if entry["urn"] == database.urn)


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_ordinary_release_is_not_refused_by_the_guard(stack: str) -> None:
    app, env = project() | {"version": "2.0.0"}, environment(stack)
    assert deploy(app, env, export=exported(first(stack)), stack=stack).release


def test_renamed_stack_is_refused_because_its_data_has_the_old_name() -> None:
    before = exported(first("dev"))
    with pytest.raises(
        ConfigError, match="database-data: its data is in board-dev-database-data, and would be looked for in"
    ):
        deploy(export=before, stack="test", env=environment("dev"))


def test_volume_that_an_update_fills_is_not_guarded() -> None:
    app = project()
    app["database"]["init"] = ["tests/unit/made.sql"]
    deployed = deploy(app)
    stores = guard.held(parse(exported(deployed)))
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
def test_major_version_is_read_from_the_image_tag(image: str | None, major: int | None) -> None:
    assert guard.major(image) == major


@given(st.integers(1, 2**45), st.integers(1, 2**45))
def test_claim_is_refused_only_if_it_becomes_smaller(one: int, other: int) -> None:
    store = guard.Store(type=guard.CLAIM, place="board/database-data", size=one, tier="database")
    desired = guard.Store(type=guard.CLAIM, place="board/database-data", size=other, tier="database")
    refused = list(guard.losses({"database-data": store}, {"database-data": desired}, *loaded()))
    assert bool(refused) == (other < one)


def loaded() -> Any:
    from components.config import load_app, load_environment

    app = load_app(project())
    return app, load_environment(environment("staging"), app)


def replicated(tier: str) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = described("staging")
    env["tiers"][tier] = {"ha": True}
    return app, env


def test_cache_ha_is_added_freely_and_removed_only_by_force() -> None:
    several = exported(deploy(*replicated("cache"), export=left("staging"), stack="staging"))
    stores = guard.held(parse(several))
    assert {name for name in stores if name.startswith("cache")} == {"cache-data", "cache-data-1", "cache-data-2"}
    deploy(*replicated("cache"), export=several, stack="staging")
    with pytest.raises(ConfigError, match=r"environment\.tiers\.cache\.ha: .*cache-data-1 would be deleted"):
        deploy(*described("staging"), export=several, stack="staging")


def test_database_cluster_is_removed_only_by_force() -> None:
    app, env = replicated("database")
    several = exported(deploy(app, env, stack="staging"))
    assert "database-ha" in guard.held(parse(several))
    deploy(app, env, export=several, stack="staging")
    with pytest.raises(ConfigError, match=r"environment\.tiers\.database\.ha: .*database-ha would be deleted"):
        deploy(*described("staging"), export=several, stack="staging")


def test_another_postgresql_major_of_a_cluster_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """CloudNativePG would convert the files in place."""
    app, env = replicated("database")
    several = exported(deploy(app, env, stack="staging"))
    app["database"]["ha_image"] = "ghcr.io/cloudnative-pg/postgresql:16-standard-bookworm"
    with pytest.raises(ConfigError, match=r"app\.database\.ha_image: PostgreSQL 16 .* files of 15 .*FORCE=data"):
        deploy(app, env, export=several, stack="staging")
    monkeypatch.setenv("TIERS_FORCE", "data")
    deploy(app, env, export=several, stack="staging")


@pytest.mark.parametrize("stack", ["dev", "staging"])
def test_volume_of_backups_is_not_shrunk_or_removed_without_force(stack: str) -> None:
    app, env = described(stack)
    database = env.setdefault("tiers", {}).setdefault("database", {})
    secrets = SECRETS | {"backup-key": "the-key"}
    database["backup"] = {"target": {"volume": True} | ({"storage": "4Gi"} if stack != "dev" else {})}
    deployed = exported(deploy(app, env, stack=stack, secrets=secrets))
    if stack != "dev":
        database["backup"] = {"target": {"volume": True, "storage": "1Gi"}}
        with pytest.raises(ConfigError, match=r"^environment\.tiers\.database\.backup\.target\.storage: it is 4Gi and"):
            deploy(app, env, export=deployed, stack=stack, secrets=secrets)
    del database["backup"]
    with pytest.raises(ConfigError, match=r"^environment\.tiers\.database\.backup\.target: it is no volume any more"):
        deploy(app, env, export=deployed, stack=stack, secrets=secrets)


def test_monitoring_data_is_not_guarded() -> None:
    app, env = described("dev")
    watched = exported(deploy(app, env | {"monitoring": True}))
    assert set(guard.held(parse(watched))) == {"database-data", "cache-data", "uploads"}
    deploy(app, env | {"monitoring": True}, export=watched)
    deploy(app, env, export=watched)


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
def test_addresses_of_data_never_change(stack: str) -> None:
    """A changed address deletes the volume in a user's stack, unless the renamed component sets `aliases` (docs/data.md#renaming)."""
    deployed = deploy(*described(stack), stack=stack)
    data = set(guard.held(parse(exported(deployed))).keys()) - {"namespace"}
    assert {
        entry.urn.partition("::project::")[2] for entry in deployed if entry.name in data and entry.custom
    } == ADDRESSES[stack]


def test_data_path_in_the_database_container_never_changes() -> None:
    database = first("dev").by_name["database-1"]
    assert database.type == CONTAINER
    assert "PGDATA=/var/lib/postgresql/data/pgdata" in database.inputs["envs"]
    assert database.inputs["volumes"][0]["containerPath"] == "/var/lib/postgresql/data"
