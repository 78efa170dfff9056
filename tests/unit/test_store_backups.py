"""Tests of the backups of stores: configuration, resources, copies of changing files, restore, and the commands of make."""

import copy
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client
from pulumi import RunError

from ci import backup as command
from ci import pins, pulumi_stack, restore
from components import backup
from components.config import ConfigError, check_secrets, load_app, load_environment, load_stack
from components.observability.alerts import MonitoringScope, alerts
from components.observability.dashboard import panels
from components.platforms import VolumeRestore
from components.platforms.docker import one_off
from components.platforms.kubernetes import jobs, stopped
from components.release.checkpoint import parse
from images.backup.backup import repository, volumes
from images.backup.backup.repository import BackupError, Run, Snapshot
from policy.rules import RULES

from . import invariants, test_kubernetes, test_stores
from .program import Deployment, checkpoint_of, deploy, preview_output
from .test_policy import TRUSTING_SETTINGS, problems, resources
from .test_stores import STACKS

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECRETS = test_stores.ALL_SECRETS | {"backup-key": "the-key-of-backups", "s3-id": "the-s3-id", "s3-key": "the-s3-key"}
S3 = {"endpoint": "https://s3.test", "bucket": "b", "access_key": "s3-id", "secret_key": "s3-key"}
VOLUME: Mapping[str, Any] = {"target": {"volume": True}}


def app_and_environment(stack: str, settings: Mapping[str, Any] = VOLUME) -> tuple[dict[str, Any], dict[str, Any]]:
    app, env = test_stores.app_and_environment(stack)
    env["tiers"]["mysql"] = {**env["tiers"]["mysql"], "backup": copy.deepcopy(dict(settings))}
    return app, env


def deploy_with_backup(stack: str, settings: Mapping[str, Any] = VOLUME, **more: Any) -> Deployment:
    app, env = app_and_environment(stack, settings)
    return deploy(app, env, stack=stack, secrets=SECRETS, **more)


@cache
def deployed(stack: str) -> Deployment:
    return deploy_with_backup(stack)


class TestResources:
    def test_containers_satisfy_every_docker_invariant(self) -> None:
        for assert_invariant, entry in invariants.cases(deployed("dev")):
            assert_invariant(entry)
        invariants.no_secret_is_in_a_plain_input(deployed("dev"), SECRETS.values())

    def test_objects_satisfy_every_kubernetes_invariant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        test_kubernetes.assert_every_invariant(deployed("staging"), monkeypatch)

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
    @pytest.mark.parametrize("stack", STACKS)
    def test_objects_pass_every_policy_rule(self, stack: str, rule: Any) -> None:
        owners = ("axllent", "gotenberg", "me")
        registries = (*TRUSTING_SETTINGS.registries, *(f"docker.io/{owner}" for owner in owners))
        settings = replace(TRUSTING_SETTINGS, registries=registries)
        assert problems(rule, resources(deployed(stack), stack), settings) == []

    def test_policy_accepts_the_folder_of_the_host_only_as_target_of_backups(self) -> None:
        deployment = deploy_with_backup("dev", {"target": {"directory": "/srv/mysql"}})
        found = [
            problem for rule in RULES for problem in problems(rule, resources(deployment, "prod"), TRUSTING_SETTINGS)
        ]
        assert not [problem for problem in found if "/srv/mysql" in str(problem)]

    @pytest.mark.parametrize("stack", STACKS)
    def test_second_update_changes_nothing(self, stack: str) -> None:
        before = checkpoint_of(deployed(stack))
        again = deploy_with_backup(stack, export=before)
        assert {step["op"] for step in preview_output(before, again)["steps"]} == {"same"}

    @pytest.mark.parametrize("stack", STACKS)
    def test_backups_change_neither_release_nor_store(self, stack: str) -> None:
        before = test_stores.deployed(stack)
        assert deployed(stack).release == before.release
        steps = preview_output(checkpoint_of(before), deploy_with_backup(stack, export=checkpoint_of(before)))["steps"]
        assert {step["op"] for step in steps} == {"same", "create"}

    def test_container_runs_as_the_user_of_the_store_and_mounts_the_volume_read_only(self) -> None:
        [container] = [entry for entry in deployed("dev") if entry.name == "mysql-backup-1"]
        store = next(entry for entry in deployed("dev") if entry.name == "mysql-1")
        assert container.inputs["user"] == store.inputs["user"] == "999:999"
        mounted = {volume["containerPath"]: volume for volume in container.inputs["volumes"]}
        assert mounted["/volumes/mysql-data"]["volumeName"] == "board-dev-mysql-data"
        assert mounted["/volumes/mysql-data"]["readOnly"] is True
        assert not mounted["/var/lib/backup"].get("readOnly")
        assert {network["name"] for network in container.inputs["networksAdvanced"]} == {"board-dev-data"}
        assert container.inputs["command"] == [
            "backup",
            "serve",
            "backup=17 3 * * *",
            "verify=17 5 1 * *",
            "prune=17 6 * * *",
        ]

    def test_volume_of_the_store_has_one_resource_and_the_backups_have_another(self) -> None:
        for stack in STACKS:
            names = [entry.name for entry in deployed(stack) if entry.name in ("mysql-data", "mysql-backups")]
            assert sorted(names) == ["mysql-backups", "mysql-data"]

    def test_pod_that_runs_all_the_time_mounts_no_volume_of_the_store(self) -> None:
        pods = deployed("staging").get_object("StatefulSet", "mysql-backup").inputs["spec"]["template"]["spec"]
        assert {claim(volume) for volume in pods["volumes"]} - {None} == {"mysql-backups"}

    def test_only_the_job_that_copies_the_volume_mounts_it_on_the_node_of_the_store(self) -> None:
        for name, mounts in (("backup", True), ("verify", False), ("prune", False)):
            template = deployed("staging").get_object("CronJob", f"mysql-backup-{name}").inputs["spec"]["jobTemplate"]
            pod = template["spec"]["template"]["spec"]
            assert ("mysql-data" in {claim(volume) for volume in pod["volumes"]}) == mounts
            terms = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            owners = [term["labelSelector"]["matchLabels"]["app.kubernetes.io/name"] for term in terms]
            # Several terms would have to match one and the same pod.
            assert owners == (["mysql"] if mounts else ["mysql-backup"])
            assert "mysql" not in {
                label.partition("/")[2] for label in template["spec"]["template"]["metadata"]["labels"]
            }

    def test_bucket_has_a_repository_for_each_store(self) -> None:
        deployment = deploy_with_backup("staging", {"target": {"s3": S3}})
        pods = deployment.get_object("StatefulSet", "mysql-backup").inputs["spec"]["template"]["spec"]
        variables = {entry["name"]: entry.get("value") for entry in pods["containers"][0]["env"]}
        assert variables["RESTIC_REPOSITORY"] == "s3:https://s3.test/b/board-staging/stores/mysql"
        assert "mysql-backup-to-world" in {entry.name for entry in deployment.of_type("NetworkPolicy")}
        assert not invariants_affinity(pods)

    def test_volume_of_backups_is_protected_and_its_loss_is_refused(self) -> None:
        app, env = app_and_environment("dev")
        protected = deploy(app, env | {"protect_data": True}, stack="dev", secrets=SECRETS)
        [volume] = [entry for entry in protected if entry.name == "mysql-backups"]
        assert volume.protect and volume.labels["tiers.data"] == "yes"
        app, env = test_stores.app_and_environment("dev")
        with pytest.raises(
            ConfigError, match=r"^environment\.tiers\.mysql\.backup\.target: the target is no longer a volume"
        ):
            deploy(app, env, stack="dev", secrets=SECRETS, export=checkpoint_of(deployed("dev")))

    def test_volume_of_backups_can_not_shrink(self) -> None:
        with pytest.raises(
            ConfigError, match=r"environment\.tiers\.mysql\.backup\.target\.storage: the claim has 10Gi"
        ):
            deploy_with_backup(
                "staging",
                {"target": {"volume": True, "storage": "1Gi"}},
                export=checkpoint_of(deployed("staging")),
            )

    def test_application_without_a_database_can_back_up_its_stores(self) -> None:
        app = {
            "name": "mail", "version": "1", "api": {"image": "a:1", "port": 8000, "needs": ["box"]},
            "services": {"box": {"tier": "store", "image": "b:1", "port": 9000, "health": "/", "volumes": {"box-data": "/data"}}},
        }  # fmt: skip
        env = {"platform": "docker", "tiers": {"box": {"backup": {"target": {"volume": True}}}}}
        deployment = deploy(app, env, secrets={"backup-key": "the-key"})
        [container] = [entry for entry in parse(checkpoint_of(deployment)).entries if entry.name == "box-backup-1"]
        assert "DATABASE_NAME" not in container.variables


def claim(volume: Mapping[str, Any]) -> str | None:
    return volume.get("persistentVolumeClaim", {}).get("claimName")


def invariants_affinity(pod: Mapping[str, Any]) -> object:
    return pod.get("affinity")


class TestConfiguration:
    @pytest.mark.parametrize(
        ("tier", "settings", "message"),
        [
            ("gotenberg", VOLUME, "environment.tiers.gotenberg.backup: gotenberg has no volumes; remove backup"),
            ("mysql", {**VOLUME, "full": "weekly"}, "environment.tiers.mysql.backup.full: every backup of a store has all its volumes"),
            ("database", {**VOLUME, "live": True}, "environment.tiers.database.backup.live: a backup of the database never needs this key"),
            ("api", VOLUME, "environment.tiers.api.backup: only the database and stores have this key; remove `backup`"),
            ("mysql", {"target": {"volume": True, "storage": "1Gi"}}, "environment.tiers.mysql.backup.target.storage: it has no effect on Docker"),
        ],
    )  # fmt: skip
    def test_invalid_backup_is_refused_with_its_path(self, tier: str, settings: Any, message: str) -> None:
        app, env = test_stores.app_and_environment("dev")
        env["tiers"][tier] = {**env["tiers"].get(tier, {}), "backup": settings}
        with pytest.raises(ConfigError) as refused:
            load_stack(app, env, "dev")
        assert message in str(refused.value)

    @pytest.mark.parametrize("change", ["service", "volume"])
    def test_name_that_the_backups_need_is_refused(self, change: str) -> None:
        app, env = app_and_environment("dev")
        if change == "service":
            app["services"]["mysql-backup"] = app["services"]["gotenberg"]
        else:
            app["api"]["volumes"] = {"mysql-backups": "/data"}
        with pytest.raises(ConfigError, match="the backups of mysql need names that begin with mysql-backup, but"):
            load_stack(app, env, "dev")

    def test_folder_of_two_backups_is_refused(self) -> None:
        app, env = app_and_environment("dev", {"target": {"directory": "/srv/backups/"}})
        env["tiers"]["database"] = {"backup": {"target": {"directory": "/srv/backups"}}}
        with pytest.raises(
            ConfigError, match=r"environment\.tiers\.mysql\.backup\.target\.directory: the backups of database"
        ):
            load_stack(app, env, "dev")

    def test_missing_secret_is_reported_with_the_setting_of_the_store(self) -> None:
        app, environment = load_stack(*app_and_environment("dev", {"target": {"s3": S3}}), "dev")
        with pytest.raises(ConfigError) as error:
            check_secrets(test_stores.ALL_SECRETS, app, (), environment.secrets)
        assert "secrets.backup-key: environment.tiers.mysql.backup.key uses this secret" in str(error.value)

    def test_key_that_restic_trims_is_refused_for_a_store(self) -> None:
        app, env = app_and_environment("dev")
        with pytest.raises(ConfigError, match="begins or ends with white space"):
            deploy(app, env, stack="dev", secrets=SECRETS | {"backup-key": " key"})

    def test_image_of_a_pinned_environment_needs_a_digest(self) -> None:
        app, env = app_and_environment("dev")
        with pytest.raises(
            ConfigError, match=r"environment\.tiers\.mysql\.backup\.image: an image that is built has no digest"
        ):
            load_environment(env | {"pinned": True}, load_app(app))

    def test_digests_of_backup_images_are_read_and_removed_by_tier(self) -> None:
        backups = {tier: {"backup": {"image": f"{tier}:1@sha256:0", "key": "k"}} for tier in ("database", "mysql")}
        env = {"tiers": {**backups, "api": {"memory": "1Gi"}, "web": None}, "images": {}}
        assert pins.pins_in(env) == {
            f"environment.tiers.{tier}.backup.image": f"{tier}:1@sha256:0" for tier in ("database", "mysql")
        }
        assert pulumi_stack.unpinned(env)["tiers"]["mysql"]["backup"] == {"key": "k"}


class TestMonitoring:
    def scope(self, *tiers: str) -> MonitoringScope:
        app, env = test_stores.app_and_environment("dev")
        for tier in tiers:
            env["tiers"][tier] = {**env["tiers"].get(tier, {}), "backup": dict(VOLUME)}
        app_model, environment = load_stack(app, env | {"monitoring": True}, "dev")
        return MonitoringScope(app=app_model, environment=environment, namespace="board")

    def silent(self, *tiers: str) -> list[tuple[str, str | None]]:
        rules = [rule for rule in alerts(self.scope(*tiers)) if rule["alert"] == "BackupsSayNothing"]
        return [(rule["expr"], rule["labels"].get("job")) for rule in rules]

    def test_each_backup_workload_has_an_alert_for_missing_metrics(self) -> None:
        assert self.silent() == []
        metric = "tiers_backup_repository_readable"
        assert self.silent("database") == [(f'absent({metric}{{namespace="board"}})', None)]
        assert [job for _, job in self.silent("database", "mysql")] == ["backup", "mysql-backup"]
        assert 'job="mysql-backup"' in self.silent("mysql")[0][0]

    def test_panels_name_the_backup_only_if_there_are_several(self) -> None:
        def legends(*tiers: str) -> set[str]:
            rows = panels(self.scope(*tiers))["Backups"]
            return {legend for panel in rows for legend in panel.lines if "kind" in legend}

        assert legends("database") == {"{{kind}}"}
        assert legends("database", "mysql") == {"{{job}} {{kind}}"}


# ---------------------------------------------------------------------- the program of the backup image


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a volume, instead of `/volumes`."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("one")
    monkeypatch.setattr(volumes, "ROOT", tmp_path)
    monkeypatch.setattr(volumes, "PAUSE", 0)
    return tmp_path


def copies(monkeypatch: pytest.MonkeyPatch, during: Callable[[int], None], missing: str = "") -> list[int]:
    """Mock the copy by restic. `during` runs in each copy, and gets its number. Return the numbers of the copies."""
    made: list[int] = []

    def save(name: str) -> tuple[tuple[str, int], str]:
        assert name == repository.VOLUMES
        made.append(len(made) + 1)
        during(made[-1])
        return (f"copy-{made[-1]}", 3), missing

    monkeypatch.setattr(repository, "save_changing_folder", save)
    return made


class TestCopies:
    def test_first_copy_counts_if_no_file_changes(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        copies(monkeypatch, lambda number: None)
        assert volumes.save(live=False) == ("copy-1", 3)

    @pytest.mark.parametrize("change", ["write", "same size and time", "new", "remove", "rename"])
    def test_copy_is_repeated_if_a_file_changes(self, root: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
        file = root / "data" / "file"
        times = file.stat().st_atime_ns, file.stat().st_mtime_ns

        def during(number: int) -> None:
            if number > 1:
                return
            if change == "write":
                file.write_text("longer")
            elif change == "same size and time":
                file.write_text("two")
                os.utime(file, ns=times)
            elif change == "new":
                (root / "data" / "other").touch()
            elif change == "remove":
                file.unlink()
            else:
                file.rename(root / "data" / "renamed")

        copies(monkeypatch, during)
        assert volumes.save(live=False) == ("copy-2", 3)

    def test_run_fails_if_files_never_rest(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def during(number: int) -> None:
            (root / "data" / "file").write_text("x" * number)

        made = copies(monkeypatch, during)
        with pytest.raises(
            BackupError, match=rf"files changed during each of 5 copies, the last of them {root}/data/file;"
        ):
            volumes.save(live=False)
        assert len(made) == volumes.ATTEMPTS

    def test_live_accepts_the_first_copy_of_changing_files(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        copies(monkeypatch, lambda number: (root / "data" / "file").unlink(missing_ok=True), missing="no such file")
        assert volumes.save(live=True) == ("copy-1", 3)

    def test_unreadable_file_fails_the_run_even_with_live(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        copies(monkeypatch, lambda number: None, missing="permission denied")
        with pytest.raises(BackupError, match="the data can't be saved: permission denied"):
            volumes.save(live=True)

    @pytest.mark.parametrize(("error", "fails"), [("no such file or directory", False), ("permission denied", True)])
    def test_only_removed_files_may_be_missing_in_a_copy(
        self, monkeypatch: pytest.MonkeyPatch, error: str, fails: bool
    ) -> None:
        done = SimpleNamespace(
            returncode=repository.INCOMPLETE,
            stdout='{"snapshot_id": "0123456789", "total_bytes_processed": 7}\n',
            stderr=f"error: lstat /volumes/data/file: {error}\nWarning: at least one source file could not be read\n",
        )
        monkeypatch.setattr(repository, "_restic", lambda *words, **options: done)
        if fails:
            with pytest.raises(BackupError, match="permission denied"):
                repository.save_changing_folder("volumes")
        else:
            saved, missing = repository.save_changing_folder("volumes")
            assert saved == ("01234567", 7) and "no such file" in missing


def archive_of(folder: Path) -> bytes:
    """Return a tar archive as `restic dump` writes it: with the whole path of each file, without a leading slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, arcname=str(path).lstrip("/"), recursive=False)
    return buffer.getvalue()


def serve(monkeypatch: pytest.MonkeyPatch, archive: bytes) -> None:
    """Mock the stream of a snapshot."""

    @contextmanager
    def read(snapshot: str, name: str) -> Generator[Any]:
        yield io.BytesIO(archive)

    monkeypatch.setattr(repository, "read", read)


class TestRestoreOfVolumes:
    def test_content_times_and_modes_come_back_and_new_files_go(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inner = root / "data" / "read-only"
        inner.mkdir()
        (inner / "é").write_text("text")
        (inner / "link").symlink_to("é")
        os.utime(inner / "é", (1, 2))
        inner.chmod(0o500)
        os.utime(inner, (3, 4))
        serve(monkeypatch, archive_of(root))
        (root / "data" / "new" / "deep").mkdir(parents=True)
        (root / "data" / "file").write_text("changed")
        assert volumes.restore("id") == 2
        assert sorted(path.name for path in root.rglob("*")) == ["data", "file", "link", "read-only", "é"]
        assert (root / "data" / "file").read_text() == "one"
        assert (inner / "link").read_text() == "text"
        assert (inner.stat().st_mode & 0o777, inner.stat().st_mtime, (inner / "é").stat().st_mtime) == (0o500, 4, 2)

    def test_snapshot_that_can_not_be_read_leaves_all_files(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        @contextmanager
        def read(snapshot: str, name: str) -> Generator[Any]:
            yield io.BytesIO()
            raise BackupError("snapshot id can't be read")

        monkeypatch.setattr(repository, "read", read)
        with pytest.raises(BackupError, match="snapshot id can't be read"):
            volumes.restore("id")
        assert (root / "data" / "file").read_text() == "one"

    def test_damaged_archive_is_an_error_with_the_next_step(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        serve(monkeypatch, archive_of(root)[:700])
        with pytest.raises(BackupError, match=r"the volumes can't be written: .*; run the restore again"):
            volumes.restore("id")

    def test_read_only_volume_is_left_unchanged(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(volumes.os, "access", lambda *_: False)
        with pytest.raises(BackupError, match="is read-only; run `make restore SERVICE"):
            volumes.restore("id")
        assert (root / "data" / "file").read_text() == "one"


class TestReplacedFiles:
    """Tests of the copy that a restore makes of the files that it replaces."""

    RUNS = (
        Run(id="1", kind="backup", time=NOW - timedelta(days=3), ok=True, snapshots=("aaaa1111",)),
        Run(id="2", kind="replaced", time=NOW - timedelta(days=2), ok=True, snapshots=("bbbb2222",)),
    )

    @pytest.mark.parametrize("selector", ["latest", "2026-11-21"])
    def test_latest_and_times_never_select_replaced_files(self, selector: str) -> None:
        assert repository.select_backup(self.RUNS, selector).snapshots == ("aaaa1111",)

    def test_replaced_files_are_found_by_their_id(self) -> None:
        assert repository.select_backup(self.RUNS, "bbbb").kind == "replaced"

    def test_replaced_files_outlive_the_day_of_data_without_a_record(self) -> None:
        snapshots = [Snapshot(id=one, time=run.time) for run in self.RUNS for one in run.snapshots]
        snapshots += [
            Snapshot(
                id=run.id, time=run.time, tags={"record": "", "kind": run.kind, "ok": "yes", "of": run.snapshots[0]}
            )
            for run in self.RUNS
        ]
        assert repository.expired_ids(snapshots, timedelta(days=30), NOW) == []


# ---------------------------------------------------------------------- the commands of make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Mock a stack with backups of the database and of MySQL, and return the calls of the inspector."""
    recorded: list[tuple[Any, ...]] = []
    app, env = app_and_environment("dev")
    env["tiers"]["database"] = {"backup": dict(VOLUME)}
    loaded = load_stack(app, env, "dev")

    def record(name: str) -> Callable[..., str]:
        return lambda *words: recorded.append((name, *words)) or "done"

    inspector = SimpleNamespace(
        execute=record("execute"),
        run_once=lambda environment, *words: record("run_once")(*words),
        run_on_volumes=lambda environment, *words: record("run_on_volumes")(*words),
    )
    for module in (command, restore):
        monkeypatch.setattr(module, "load", lambda stack: loaded)
        monkeypatch.setattr(module.platforms, "inspector", lambda *where: inspector)
    monkeypatch.setattr(restore, "undo_when_stopped", lambda name: None)
    return recorded


class TestCommands:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["full"], [("run_once", "backup", "verify", ("backup", "full"))]),
            (["backup", "--service", "mysql"], [("run_once", "mysql-backup", "backup", ("backup", "backup"))]),
            (["verify", "--service", "mysql"], [("run_once", "mysql-backup", "verify", ("backup", "verify"))]),
            (
                ["list", "--service", "mysql"],
                [("execute", "mysql-backup", None, ("backup", "list")), ("execute", "mysql-backup", None, ("backup", "status"))],
            ),
            (
                ["all"],
                [("run_once", "backup", "verify", ("backup", "full")), ("run_once", "mysql-backup", "backup", ("backup", "backup"))],
            ),
        ],
    )  # fmt: skip
    def test_command_runs_in_the_backup_workload(
        self, calls: list[tuple[Any, ...]], words: list[str], expected: list[tuple[Any, ...]]
    ) -> None:
        command.main("dev", words)
        assert calls == expected

    def test_restore_of_a_store_passes_the_store_its_workload_and_its_time(self, calls: list[tuple[Any, ...]]) -> None:
        restore.main("dev", "latest", "--service", "mysql")
        volumes_of_mysql = VolumeRestore(store="mysql", workload="mysql-backup", folder=backup.VOLUMES, ready_within=60)
        words = ("backup", "restore-volumes", "--snapshot", "latest")
        assert calls == [("run_on_volumes", volumes_of_mysql, words)]

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("latest", "api"), r"SERVICE: 'api' is not a store; use the name of a store \(mysql\), or remove SERVICE"),
            (
                ("latest", "sessions"),
                r"environment\.tiers\.sessions\.backup: stack dev has no such backups; set this key",
            ),
            (("", "mysql"), r"TO is missing; set TO to latest, an id from `make backups SERVICE=mysql`"),
        ],
    )
    def test_restore_without_backups_or_time_is_refused(
        self, calls: list[tuple[Any, ...]], words: tuple[str, str], message: str
    ) -> None:
        with pytest.raises(RunError, match=message):
            restore.main("dev", words[0], "--service", words[1])
        assert not calls


def test_only_the_volumes_of_the_store_become_writable_on_docker() -> None:
    binds = ["x-data:/volumes/data:ro", "x-secrets:/run/secrets:ro", "x-backups:/var/lib/backup:rw"]
    changed = one_off.with_writable_volumes({"HostConfig": {"Binds": binds, "Memory": 1}}, "/volumes")["HostConfig"]
    assert changed == {"Binds": ["x-data:/volumes/data", *binds[1:]], "Memory": 1}


@pytest.mark.parametrize("stored_in_a_volume", [True, False])
def test_job_of_a_restore_may_write_to_the_volumes_and_does_not_wait_for_the_stopped_store(
    stored_in_a_volume: bool,
) -> None:
    target = VOLUME["target"] if stored_in_a_volume else {"s3": S3}
    rendered = deploy_with_backup("staging", {"target": target}).get_object("CronJob", "mysql-backup-backup")
    # Turn floats back into integers, because Pulumi's protocol turns integers into floats.
    manifest = json.loads(json.dumps(rendered.inputs), parse_float=lambda text: int(float(text)))
    parent: Any = client.V1CronJob.from_dict(manifest)
    parent.metadata.uid = "u"
    volumes_of_mysql = VolumeRestore(store="mysql", workload="mysql-backup", folder="/volumes", ready_within=1)
    spec = jobs.manual_job(parent, ["backup"], "job", volumes_of_mysql).spec.template.spec
    read_only = {mount.mount_path: mount.read_only for mount in spec.containers[0].volume_mounts}
    assert (read_only["/volumes/mysql-data"], read_only["/run/secrets"]) == (None, True)
    if stored_in_a_volume:
        [term] = spec.affinity.pod_affinity.required_during_scheduling_ignored_during_execution
        assert term.label_selector.match_labels["app.kubernetes.io/name"] == "mysql-backup"
    else:
        assert spec.affinity is None


class TestStoppedStatefulSet:
    @pytest.fixture
    def scales(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Mock a cluster in which a StatefulSet reaches each scale at once. Return the scales."""
        scales: list[int] = []
        api = SimpleNamespace(
            patch_namespaced_stateful_set=lambda name, namespace, body: scales.append(body["spec"]["replicas"]),
            read_namespaced_stateful_set=lambda name, namespace: SimpleNamespace(
                status=SimpleNamespace(ready_replicas=scales[-1])
            ),
        )
        pods = SimpleNamespace(
            list_namespaced_pod=lambda *_, **__: SimpleNamespace(items=[] if scales[-1] == 0 else [1])
        )
        monkeypatch.setattr(stopped, "apps", lambda context: api)
        monkeypatch.setattr(stopped, "core", lambda context: pods)
        return scales

    def location(self) -> Any:
        return SimpleNamespace(context="c", namespace="n")

    def test_pod_starts_again_after_the_command(self, scales: list[int]) -> None:
        with stopped.stopped(self.location(), "mysql", 5):
            assert scales == [0]
        assert scales == [0, 1]

    def test_pod_starts_again_after_a_failed_command(self, scales: list[int]) -> None:
        with pytest.raises(RunError, match="broken"), stopped.stopped(self.location(), "mysql", 5):
            raise RunError("broken")
        assert scales == [0, 1]

    def test_pod_that_does_not_end_is_reported_and_scaled_up(
        self, scales: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stopped, "STOPPED_WITHIN", -1)
        monkeypatch.setattr(
            stopped,
            "core",
            lambda context: SimpleNamespace(list_namespaced_pod=lambda *_, **__: SimpleNamespace(items=[1])),
        )
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        with (
            pytest.raises(RunError, match="the pod of mysql does not end"),
            stopped.stopped(self.location(), "mysql", 5),
        ):
            pytest.fail("the command must not run")
        assert scales == [0, 1]
