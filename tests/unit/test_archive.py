"""The archive of a replicated database: every change is stored encrypted, and a restore goes into a new database."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from pulumi import RunError

from ci import beside, restore
from components import config
from components.config import ConfigError, load_app, load_environment
from components.platforms import barman, recovery

from .program import SECRETS, Deployment, deploy, environment, project

KEYS = {"backup-key": "the-backup-key", "backup-access": "the-access-key", "backup-secret": "the-s3-secret"}
TARGET = {
    "s3": {
        "endpoint": "https://s3.test",
        "bucket": "backups",
        "access_key": "backup-access",
        "secret_key": "backup-secret",
    }
}
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def archived(**more: Any) -> dict[str, Any]:
    env = environment("staging")
    env["tiers"]["database"] = {"ha": True, "backup": {"target": TARGET}, **more}
    return env


@cache
def deployed() -> Deployment:
    return deploy(env=archived(), stack="staging", secrets=SECRETS | KEYS)


def vault() -> dict[str, Any]:
    return deployed().one("StatefulSet", "vault").inputs["spec"]["template"]["spec"]["containers"][0]


def test_database_archives_changes_through_the_archive_proxy_to_the_bucket() -> None:
    plugins = deployed().one("Cluster", "database-ha").inputs["spec"]["plugins"]
    assert plugins == [barman.used("database-ha")]
    store = deployed().one("ObjectStore", "database-ha").inputs["spec"]
    assert store["configuration"]["endpointURL"] == "http://vault:9000"
    assert store["retentionPolicy"] == "30d"
    variables = {variable["name"]: variable["value"] for variable in vault()["env"]}
    assert variables["RCLONE_CONFIG_VAULT_TYPE"] == "crypt"
    assert variables["RCLONE_CONFIG_VAULT_REMOTE"] == "store:backups/board-staging-changes"
    assert variables["RCLONE_CONFIG_STORE_ENDPOINT"] == "https://s3.test"


def test_archive_proxy_is_created_before_the_database() -> None:
    assert {"vault", "database-ha"} <= deployed().before(deployed().one("Cluster", "database-ha"))
    assert deployed().one("ScheduledBackup", "database-ha").inputs["spec"]["schedule"] == "0 17 3 * * *"


def test_archive_proxy_accepts_database_instances_only_and_reaches_the_internet_only() -> None:
    label = "tiers.needs/vault"
    instances = deployed().one("Cluster", "database-ha").inputs["spec"]["inheritedMetadata"]["labels"]
    assert instances[label] == "yes"
    holders = [
        entry
        for entry in deployed().objects
        if label in (entry.inputs.get("spec", {}).get("template", {}).get("metadata", {}).get("labels") or {})
    ]
    assert not holders
    [into] = deployed().one("NetworkPolicy", "vault").inputs["spec"]["ingress"]
    assert into["from"] == [{"podSelector": {"matchLabels": {label: "yes"}}}]
    [out] = deployed().one("NetworkPolicy", "vault-to-world").inputs["spec"]["egress"]
    assert out["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32"]


def test_keys_of_the_archive_are_in_secrets_and_never_in_plain_text() -> None:
    for entry in deployed().objects:
        assert not [value for value in KEYS.values() if value in entry.plain], entry.name
    credentials = deployed().one("ObjectStore", "database-ha").inputs["spec"]["configuration"]["s3Credentials"]
    holder = {entry.inputs["metadata"]["name"]: entry.inputs for entry in deployed().of_type("Secret")}
    for which, key in (("accessKeyId", "backup-access"), ("secretAccessKey", "backup-secret")):
        assert credentials[which]["key"] == key
        assert key in holder[credentials[which]["name"]]["stringData"]


def test_archive_key_in_a_secret_of_the_cluster_is_referenced_by_its_name() -> None:
    env = archived()
    env["kubernetes"]["secrets"] = {"backup-access": {"secret": "bucket", "key": "id"}}
    deployment = deploy(env=env, stack="staging", secrets=SECRETS | KEYS)
    credentials = deployment.one("ObjectStore", "database-ha").inputs["spec"]["configuration"]["s3Credentials"]
    assert credentials["accessKeyId"] == {"name": "bucket", "key": "id"}


@pytest.mark.parametrize("change", [{"ha": False}, {"backup": {"target": {"volume": True}}}, {"backup": ...}])
def test_without_ha_or_bucket_no_archive_proxy_is_deployed(change: dict[str, Any]) -> None:
    env = archived(**change)
    env["tiers"]["database"] = {key: value for key, value in env["tiers"]["database"].items() if value is not ...}
    deployment = deploy(env=env, stack="staging", secrets=SECRETS | KEYS)
    assert not {"vault", "ObjectStore"} & {entry.name if entry.custom else entry.kind for entry in deployment.objects}


def test_recovery_cluster_is_a_single_instance_without_archiving() -> None:
    spec = deployed().one("Cluster", "database-ha").inputs["spec"]
    cluster = barman.recovery(spec, "database-ha", "2026-11-21 12:00:00+00")
    assert cluster["instances"] == 1
    assert "plugins" not in cluster
    assert cluster["bootstrap"]["recovery"]["recoveryTarget"] == {"targetTime": "2026-11-21 12:00:00+00"}
    assert cluster["bootstrap"]["recovery"]["secret"] == spec["bootstrap"]["initdb"]["secret"]
    assert cluster["externalClusters"] == [barman.source("database-ha")]


def test_missing_failover_quorum_annotation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may remove the annotation in an emergency. An update does not notice that it is missing."""
    metadata = dict(deployed().one("Cluster", "database-ha").inputs["metadata"])

    class Api:
        def __init__(self, *_: Any) -> None: ...

        def read(self, *_: str) -> dict[str, Any]:
            return {"metadata": metadata}

    monkeypatch.setattr(recovery, "_Api", Api)
    settings: Any = None
    assert recovery.guarded(settings, settings, "database-ha")
    del metadata["annotations"]
    with pytest.raises(RunError, match=r"database-ha lacks the annotation alpha\.cnpg\.io/failoverQuorum=true"):
        recovery.guarded(settings, settings, "database-ha")


@pytest.mark.parametrize(
    ("moment", "first", "message"),
    [
        (NOON + timedelta(minutes=1), NOON - timedelta(days=1), "is in the future"),
        (NOON - timedelta(days=2), NOON - timedelta(days=1), "the archive begins at 2026-11-20T12:00:00Z"),
        (NOON, None, "its first base backup is not done"),
        (NOON, NOON - timedelta(days=1), ""),
    ],
)
def test_restore_time_outside_the_archive_is_refused_with_the_reason(
    moment: datetime, first: datetime | None, message: str
) -> None:
    problem = recovery.out_of_reach(moment, first, NOON)
    assert message in problem
    assert bool(message) == bool(problem)


@pytest.mark.parametrize(
    ("kind", "status", "reason", "message"),
    [
        ("LastBackupSucceeded", "False", "BackupStarted", ""),
        ("LastBackupSucceeded", "False", "LastBackupFailed", "no room"),
        ("LastBackupSucceeded", "True", "LastBackupSucceeded", ""),
        ("ContinuousArchiving", "False", "ContinuousArchivingFailing", "no room"),
        ("Ready", "False", "ClusterIsNotReady", ""),
    ],
)
def test_running_base_backup_is_not_reported_as_failed(kind: str, status: str, reason: str, message: str) -> None:
    good = {"type": "ContinuousArchiving", "status": "True", "reason": "", "message": "it works"}
    condition = {"type": kind, "status": status, "reason": reason, "message": "no room"}
    assert recovery.unkept([good, condition]) == message


# ---------------------------------------------------------------------- copies


def copy(**more: Any) -> config.Environment:
    env = environment("staging")
    env["tiers"]["database"] |= {"backup": {"target": {"volume": True}}, **more}
    return load_environment(env, load_app(project()))


@pytest.mark.parametrize(
    ("more", "database", "message"),
    [
        ({"copy_of": "prod"}, "prod", ""),
        ({"copy_of": "prod"}, "other", "staging is not for the data of other, it is a copy of prod"),
        ({}, "prod", "staging is not for the data of prod, it is nobody's copy"),
        ({"copy_of": "prod"}, "", "FROM is not given"),
    ],
)
def test_data_of_another_environment_is_refused_without_copy_of(
    more: dict[str, Any], database: str, message: str
) -> None:
    problem = restore.unfit(load_app(project()), copy(**more), "staging", database)
    assert message in problem
    assert bool(message) == bool(problem)


def test_copy_without_anonymise_is_refused() -> None:
    app = project()
    del app["database"]["anonymise"]
    assert "app.database.anonymise" in restore.unfit(load_app(app), copy(copy_of="prod"), "staging", "prod")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protect_data": True}, "copy_of requires protect_data: false"),
        ({"tiers": {"database": {"copy_of": "prod"}}}, "set environment.tiers.database.backup, too"),
        (
            {"tiers": {"database": {"copy_of": "prod", "ha": True, "backup": {"target": TARGET}}}},
            "environment.tiers.database.copy_of: every change is archived here.*back up to a volume",
        ),
        ({"tiers": {"cache": {"copy_of": "prod"}}}, "environment.tiers.cache.copy_of: it is for the database"),
    ],
)
def test_copy_of_with_conflicting_settings_is_refused(change: dict[str, Any], message: str) -> None:
    env = environment("staging")
    env["tiers"]["database"] = {"copy_of": "prod", "backup": {"target": {"volume": True}}}
    with pytest.raises(ConfigError, match=message):
        load_environment(env | change, load_app(project()))


def test_name_of_a_restored_database_has_at_most_63_characters() -> None:
    app = project()
    app["database"]["name"] = "a" * 63
    name = beside.fresh(load_app(app), NOON)
    assert name == "a" * 45 + "_r20261121_120000"
    assert len(name) <= 63


@pytest.mark.parametrize(
    ("more", "message", "steps"),
    [
        ({}, {"name": "board_r"}, ["name=board_r"]),
        ({"ha": True}, {"name": "board_r"}, ["introduced", "name=board_r"]),
        ({"ha": True, "single": "live"}, {"name": "board_r"}, ["name=board_r"]),
        (
            {"ha": True, "single": "live"},
            {"single": "kept", "name": "board_r"},
            ["introduced", "single=kept name=board_r"],
        ),
        ({"ha": True, "single": "kept"}, {"single": "live", "name": "board"}, ["single=live name=board"]),
    ],
)
def test_pooler_learns_a_database_before_the_stack_file_names_it(
    more: dict[str, Any], message: dict[str, str], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pooler no introduction is needed."""
    done: list[str] = []
    monkeypatch.setattr(beside.recovery, "introduce", lambda *_: done.append("introduced"))
    monkeypatch.setattr(beside, "project", lambda: "board")

    def written(*words: str) -> None:
        done.append(" ".join(entry.rpartition(".")[2] for entry in words if "=" in entry))

    monkeypatch.setattr(beside, "pulumi", written)
    beside.use(load_app(project()), copy(**more), "staging", **message)
    assert done == steps


@pytest.mark.parametrize(
    ("to", "moment"),
    [("latest", None), ("20261121", None), ("2026-11-21T12:00:00Z", NOON), ("2026-11-21T12:00", NOON), ("4f2a", None)],
)
def test_restore_target_is_parsed_as_a_time_or_left_as_an_id(to: str, moment: datetime | None) -> None:
    assert restore.moment_of(to) == moment


class TestDatabaseThatIsRestored:
    @pytest.fixture(autouse=True)
    def copies(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        """Return the copies that a restore makes, in an environment whose database was restored once before."""
        problem: list[tuple[Any, ...]] = []
        env = load_environment(archived(name="board_r1"), load_app(project()))
        monkeypatch.setattr(restore, "load", lambda _: (load_app(project()), env))
        monkeypatch.setattr(restore.recovery, "recovered", lambda *_: nullcontext("recovered-rw"))
        monkeypatch.setattr(restore, "copied", lambda *words: problem.append(words[3:5]))
        monkeypatch.setattr(restore, "use", lambda *_, **__: None)
        return problem

    @pytest.mark.parametrize(("database", "source"), [("board", "board"), ("", "board_r1")])
    def test_variable_of_selects_the_database_to_read_and_defaults_to_the_current_one(
        self, database: str, source: str, copies: list[tuple[Any, ...]]
    ) -> None:
        restore.main("staging", "2026-11-20T12:00:00Z", database)
        # The statement that creates a database has to run in an existing one.
        assert copies == [(("recovered-rw", source), "board_r1")]

    def test_variable_of_is_refused_for_a_backup(self) -> None:
        with pytest.raises(RunError, match="OF: a backup is of one database"):
            restore.main("staging", "latest", "board")
