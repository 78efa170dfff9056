"""Tests of the archive of a database cluster, and of the restore into a new database.

The archive stores every change of the database in a bucket, in encrypted form.
"""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from pulumi import RunError

from ci import new_database, restore
from components import config, platforms
from components.config import ConfigError, load_app, load_environment
from components.platforms.kubernetes import barman, recovery
from components.platforms.kubernetes.inspect import KubernetesInspector

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


def environment_with_archive(**more: Any) -> dict[str, Any]:
    env = environment("staging")
    env["tiers"]["database"] = {"ha": True, "backup": {"target": TARGET}, **more}
    return env


@cache
def deploy_with_archive() -> Deployment:
    return deploy(env=environment_with_archive(), stack="staging", secrets=SECRETS | KEYS)


def archive_proxy_container() -> dict[str, Any]:
    return deploy_with_archive().get_object("StatefulSet", "vault").inputs["spec"]["template"]["spec"]["containers"][0]


def test_database_sends_its_archive_through_the_archive_proxy_to_the_bucket() -> None:
    plugins = deploy_with_archive().get_object("Cluster", "database-ha").inputs["spec"]["plugins"]
    assert plugins == [barman.plugin_entry("database-ha")]
    store = deploy_with_archive().get_object("ObjectStore", "database-ha").inputs["spec"]
    assert store["configuration"]["endpointURL"] == "http://vault:9000"
    assert store["retentionPolicy"] == "30d"
    variables = {variable["name"]: variable["value"] for variable in archive_proxy_container()["env"]}
    assert variables["RCLONE_CONFIG_VAULT_TYPE"] == "crypt"
    assert variables["RCLONE_CONFIG_VAULT_REMOTE"] == "store:backups/board-staging-changes"
    assert variables["RCLONE_CONFIG_STORE_ENDPOINT"] == "https://s3.test"


def test_archive_proxy_is_created_before_the_database() -> None:
    assert {"vault", "database-ha"} <= deploy_with_archive().dependencies_of(
        deploy_with_archive().get_object("Cluster", "database-ha")
    )
    assert (
        deploy_with_archive().get_object("ScheduledBackup", "database-ha").inputs["spec"]["schedule"] == "0 17 3 * * *"
    )


def test_archive_proxy_accepts_only_database_instances_and_connects_only_to_the_internet() -> None:
    label = "tiers.needs/vault"
    instances = deploy_with_archive().get_object("Cluster", "database-ha").inputs["spec"]["inheritedMetadata"]["labels"]
    assert instances[label] == "yes"
    workloads = [
        entry
        for entry in deploy_with_archive().objects
        if label in (entry.inputs.get("spec", {}).get("template", {}).get("metadata", {}).get("labels") or {})
    ]
    assert not workloads
    [ingress_rule] = deploy_with_archive().get_object("NetworkPolicy", "vault").inputs["spec"]["ingress"]
    assert ingress_rule["from"] == [{"podSelector": {"matchLabels": {label: "yes"}}}]
    [egress_rule] = deploy_with_archive().get_object("NetworkPolicy", "vault-to-world").inputs["spec"]["egress"]
    assert egress_rule["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32"]


def test_bucket_and_encryption_keys_of_the_database_archive_are_never_in_plain_text() -> None:
    for entry in deploy_with_archive().objects:
        assert not [value for value in KEYS.values() if value in entry.plain], entry.name
    credentials = (
        deploy_with_archive().get_object("ObjectStore", "database-ha").inputs["spec"]["configuration"]["s3Credentials"]
    )
    secrets_by_name = {
        entry.inputs["metadata"]["name"]: entry.inputs for entry in deploy_with_archive().of_type("Secret")
    }
    for field, key in (("accessKeyId", "backup-access"), ("secretAccessKey", "backup-secret")):
        assert credentials[field]["key"] == key
        assert key in secrets_by_name[credentials[field]["name"]]["stringData"]


def test_archive_key_in_an_existing_kubernetes_secret_is_referenced_by_the_name_of_the_secret() -> None:
    env = environment_with_archive()
    env["kubernetes"]["secrets"] = {"backup-access": {"secret": "bucket", "key": "id"}}
    deployment = deploy(env=env, stack="staging", secrets=SECRETS | KEYS)
    credentials = deployment.get_object("ObjectStore", "database-ha").inputs["spec"]["configuration"]["s3Credentials"]
    assert credentials["accessKeyId"] == {"name": "bucket", "key": "id"}


@pytest.mark.parametrize("change", [{"ha": False}, {"backup": {"target": {"volume": True}}}, {"backup": ...}])
def test_archive_proxy_is_not_deployed_without_ha_or_bucket(change: dict[str, Any]) -> None:
    env = environment_with_archive(**change)
    env["tiers"]["database"] = {key: value for key, value in env["tiers"]["database"].items() if value is not ...}
    deployment = deploy(env=env, stack="staging", secrets=SECRETS | KEYS)
    assert not {"vault", "ObjectStore"} & {entry.name if entry.custom else entry.kind for entry in deployment.objects}


def test_recovery_cluster_of_a_restore_has_one_instance_and_writes_no_archive() -> None:
    spec = deploy_with_archive().get_object("Cluster", "database-ha").inputs["spec"]
    cluster = barman.recovery(spec, "database-ha", "2026-11-21 12:00:00+00")
    assert cluster["instances"] == 1
    assert "plugins" not in cluster
    assert cluster["bootstrap"]["recovery"]["recoveryTarget"] == {"targetTime": "2026-11-21 12:00:00+00"}
    assert cluster["bootstrap"]["recovery"]["secret"] == spec["bootstrap"]["initdb"]["secret"]
    assert cluster["externalClusters"] == [barman.external_cluster_entry("database-ha")]


def test_missing_failover_quorum_annotation_of_a_database_cluster_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the annotation is read from the cluster and not from Pulumi's state.

    The state may be out of date, because an administrator may have removed the annotation in an emergency.
    """
    metadata = dict(deploy_with_archive().get_object("Cluster", "database-ha").inputs["metadata"])

    class Api:
        def __init__(self, *_: Any) -> None: ...

        def read(self, *_: str) -> dict[str, Any]:
            return {"metadata": metadata}

    monkeypatch.setattr(recovery, "_Api", Api)
    env = load_environment(environment_with_archive(), load_app(project()))
    inspector = platforms.cluster_inspector(load_app(project()), env, "staging")
    assert inspector.check_quorum("database-ha") == "the annotation is set"
    del metadata["annotations"]
    with pytest.raises(RunError, match=r"Cluster database-ha lacks the annotation alpha\.cnpg\.io/failoverQuorum=true"):
        inspector.check_quorum("database-ha")


@pytest.mark.parametrize(
    ("moment", "first", "message"),
    [
        (NOON + timedelta(minutes=1), NOON - timedelta(days=1), "is in the future"),
        (NOON - timedelta(days=2), NOON - timedelta(days=1), "the archive begins at 2026-11-20T12:00:00Z"),
        (NOON, None, "the first base backup of the database is not complete"),
        (NOON, NOON - timedelta(days=1), ""),
    ],
)
def test_restore_time_outside_the_archive_is_refused_with_the_reason(
    moment: datetime, first: datetime | None, message: str
) -> None:
    problem = recovery.recovery_problem(moment, first, NOON)
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
def test_archive_is_reported_as_failed_only_if_a_base_backup_or_the_archiving_failed(
    kind: str, status: str, reason: str, message: str
) -> None:
    good = {"type": "ContinuousArchiving", "status": "True", "reason": "", "message": "it works"}
    condition = {"type": kind, "status": status, "reason": reason, "message": "no room"}
    assert recovery.archive_failure([good, condition]) == message


# ---------------------------------------------------------------------- copies


def load_environment_with_backup(**more: Any) -> config.Environment:
    env = environment("staging")
    env["tiers"]["database"] |= {"backup": {"target": {"volume": True}}, **more}
    return load_environment(env, load_app(project()))


@pytest.mark.parametrize(
    ("more", "database", "message"),
    [
        ({"copy_of": "prod"}, "prod", ""),
        ({"copy_of": "prod"}, "other", "copy_of is prod, so staging does not accept the data of other"),
        ({}, "prod", "copy_of is not set, so staging does not accept the data of prod"),
        ({"copy_of": "prod"}, "", "FROM is missing"),
    ],
)
def test_restore_from_another_environment_is_refused_unless_copy_of_names_the_source_environment(
    more: dict[str, Any], database: str, message: str
) -> None:
    problem = restore.refresh_problem(load_app(project()), load_environment_with_backup(**more), "staging", database)
    assert message in problem
    assert bool(message) == bool(problem)


def test_restore_from_another_environment_is_refused_without_anonymise_scripts() -> None:
    app = project()
    del app["database"]["anonymise"]
    assert "app.database.anonymise" in restore.refresh_problem(
        load_app(app), load_environment_with_backup(copy_of="prod"), "staging", "prod"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protect_data": True}, "copy_of requires protect_data: false"),
        ({"tiers": {"database": {"copy_of": "prod"}}}, "set environment.tiers.database.backup"),
        (
            {"tiers": {"database": {"copy_of": "prod", "ha": True, "backup": {"target": TARGET}}}},
            "environment.tiers.database.copy_of: the continuous archive would store personal data.*back up to a volume",
        ),
        ({"tiers": {"cache": {"copy_of": "prod"}}}, "environment.tiers.cache.copy_of: only the database has this key"),
    ],
)
def test_environment_with_the_key_copy_of_and_a_conflicting_setting_is_refused(
    change: dict[str, Any], message: str
) -> None:
    env = environment("staging")
    env["tiers"]["database"] = {"copy_of": "prod", "backup": {"target": {"volume": True}}}
    with pytest.raises(ConfigError, match=message):
        load_environment(env | change, load_app(project()))


def test_restored_database_name_has_at_most_63_characters() -> None:
    app = project()
    app["database"]["name"] = "a" * 63
    name = new_database.unused_name(load_app(app), NOON)
    assert name == "a" * 45 + "_r20261121_120000"
    assert len(name) <= 63


@pytest.mark.parametrize(
    ("settings", "arguments", "steps"),
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
def test_restored_database_is_added_to_the_pooler_before_the_stack_file_contains_its_name(
    settings: dict[str, Any], arguments: dict[str, str], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that the pooler accepts the new database before the stack file contains the database's name.

    The step `introduced` adds the database to the pooler. A single-instance database has no pooler and needs no such step.
    """
    steps_done: list[str] = []
    monkeypatch.setattr(KubernetesInspector, "pool_database", lambda *_: steps_done.append("introduced"))
    monkeypatch.setattr(new_database, "project", lambda: "board")

    def record_settings(*words: str) -> None:
        steps_done.append(" ".join(entry.rpartition(".")[2] for entry in words if "=" in entry))

    monkeypatch.setattr(new_database, "pulumi", record_settings)
    new_database.set_database(load_app(project()), load_environment_with_backup(**settings), "staging", **arguments)
    assert steps_done == steps


@pytest.mark.parametrize(
    ("to", "moment"),
    [("latest", None), ("20261121", None), ("2026-11-21T12:00:00Z", NOON), ("2026-11-21T12:00", NOON), ("4f2a", None)],
)
def test_restore_target_is_a_moment_only_if_the_target_has_both_a_date_and_a_time_of_day(
    to: str, moment: datetime | None
) -> None:
    assert restore.parse_time(to) == moment


class TestRestoredDatabase:
    @pytest.fixture(autouse=True)
    def copies(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        """Mock the restore of an environment with the database `board_r1`.

        Return a list that records the arguments of each copy.
        """
        recorded: list[tuple[Any, ...]] = []
        env = load_environment(environment_with_archive(name="board_r1"), load_app(project()))
        monkeypatch.setattr(restore, "load", lambda _: (load_app(project()), env))
        monkeypatch.setattr(KubernetesInspector, "recovered", lambda *_: nullcontext("recovered-rw"))
        monkeypatch.setattr(restore, "copy_database", lambda *words: recorded.append(words[3:5]))
        monkeypatch.setattr(restore, "set_database", lambda *_, **__: None)
        return recorded

    @pytest.mark.parametrize(("database", "source"), [("board", "board"), ("", "board_r1")])
    def test_restore_to_a_moment_copies_the_configured_database_unless_another_database_is_requested(
        self, database: str, source: str, copies: list[tuple[Any, ...]]
    ) -> None:
        restore.main("staging", "2026-11-20T12:00:00Z", database)
        # The restore connects to board_r1, because CREATE DATABASE must run in an existing database.
        assert copies == [(("recovered-rw", source), "board_r1")]

    def test_restore_from_a_backup_is_refused_if_a_source_database_is_requested(self) -> None:
        with pytest.raises(
            RunError,
            match="OF: a backup contains only one database; remove OF, or use a time in TO, and an archive of a database cluster",
        ):
            restore.main("staging", "latest", "board")
