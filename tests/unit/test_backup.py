"""Tests of backups: configuration, resources, schedule, retention and metrics."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client
from pulumi import RunError

from ci import check
from components import backup as component
from components.config import ConfigError, check_secrets, load_app, load_environment
from components.context import Description
from components.model.services import DATABASE
from components.platforms.kubernetes import jobs
from components.release.checkpoint import Checkpoint, parse
from components.release.planner import Slot
from images.backup.backup import repository, serve
from images.backup.backup.repository import BackupError, Run, Snapshot

from .program import ROOT, SECRETS, Deployment, Registered, checkpoint_of, deploy, environment, project

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = {"backup-key": "the-key-of-backups"}
S3 = {"endpoint": "https://s3.test", "bucket": "b", "access_key": "s3-id", "secret_key": "s3-key"}


def with_backup(settings: dict[str, Any] | None = None, stack: str = "dev") -> dict[str, Any]:
    env = environment(stack)
    database = env.setdefault("tiers", {}).setdefault("database", {})
    database["backup"] = settings or {"target": {"volume": True}}
    return env


def deploy_with_backup(settings: dict[str, Any] | None = None, stack: str = "dev", **secrets: str) -> Deployment:
    return deploy(env=with_backup(settings, stack), stack=stack, secrets=SECRETS | KEY | secrets)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("schedule", "cron"),
        [
            ("daily", "17 3 * * *"),
            ("weekly", "17 3 * * sun"),
            ("monthly", "17 3 1 * *"),
            ("*/5 * * * *", "*/5 * * * *"),
            ("0,30 2-4 1-7 jan *", "0,30 2-4 1-7 jan *"),
        ],
    )
    def test_schedule_accepts_daily_weekly_monthly_and_cron_expressions(self, schedule: str, cron: str) -> None:
        env = load_environment(
            with_backup({"schedule": schedule, "target": {"volume": True}}), load_app(project())
        ).tiers
        assert [tier.backup.schedule for tier in env.values() if tier.backup] == [cron]

    @pytest.mark.parametrize(
        ("settings_of_backup", "path", "message"),
        [
            ({}, "target", "not set"),
            ({"target": {}}, "target", "exactly one"),
            ({"target": {"volume": True, "directory": "/srv"}}, "target", "exactly one"),
            ({"target": {"directory": "/srv", "storage": "1Gi"}}, "target", "only with `volume: true`"),
            ({"target": {"volume": True, "storage": "1Gi"}}, "target.storage", "no effect on Docker"),
            ({"target": {"s3": S3 | {"endpoint": "s3.test"}}}, "target.s3.endpoint", "scheme, host and port"),
            ({"target": {"volume": True}, "schedule": "hourly"}, "schedule", "a cron expression"),
            ({"target": {"volume": True}, "schedule": "60 * * * *"}, "schedule", "a cron expression"),
            # A schedule must name the day of the week, because day 0 is Sunday for Kubernetes and Monday for APScheduler.
            ({"target": {"volume": True}, "full": "0 4 * * 0"}, "full", "days of the week by name"),
            ({"target": {"volume": True}, "verify": 5}, "verify", "a cron expression"),
            ({"target": {"volume": True}, "retention": "30"}, "retention", "like 30d"),
        ],
    )
    def test_invalid_backup_setting_is_refused_with_the_path_of_the_setting(
        self, settings_of_backup: dict[str, Any], path: str, message: str
    ) -> None:
        settings = with_backup()
        settings["tiers"]["database"]["backup"] = settings_of_backup
        with pytest.raises(ConfigError) as error:
            load_environment(settings, load_app(project()))
        assert f"environment.tiers.database.backup.{path}: " in str(error.value)
        assert message in str(error.value)

    def test_backup_into_a_host_folder_is_refused_on_kubernetes(self) -> None:
        with pytest.raises(ConfigError, match="replace `directory` by `volume` or `s3`"):
            load_environment(with_backup({"target": {"directory": "/srv"}}, "staging"), load_app(project()))

    def test_backup_of_the_cache_is_refused(self) -> None:
        settings = environment() | {"tiers": {"cache": {"backup": {"target": {"volume": True}}}}}
        with pytest.raises(ConfigError, match=r"cache\.backup: only the database and stores have this key"):
            load_environment(settings, load_app(project()))

    def test_backup_of_volumes_is_refused_if_the_tiers_of_the_volumes_run_as_different_users(self) -> None:
        app = project()
        app["api"]["volumes"] = {"uploads": "/data"}
        app["worker"] |= {"volumes": {"made": "/made"}, "user": 10002}
        with pytest.raises(ConfigError, match="set the same user for these tiers"):
            load_environment(with_backup(), load_app(app))

    def test_error_about_a_missing_backup_secret_names_the_setting_that_uses_the_secret(self) -> None:
        app = load_app(project())
        env = load_environment(with_backup({"target": {"s3": S3}}), app)
        with pytest.raises(ConfigError) as error:
            check_secrets(SECRETS, app, (), env.secrets)
        for name, path in (
            ("backup-key", "key"),
            ("s3-id", "target.s3.access_key"),
            ("s3-key", "target.s3.secret_key"),
        ):
            assert f"secrets.{name}: environment.tiers.database.backup.{path} uses this secret" in str(error.value)
        assert set(check_secrets(SECRETS, app)) == set(SECRETS)

    @pytest.mark.parametrize(("ha", "image_field"), [(False, "image"), (True, "ha_image")])
    def test_backup_image_is_based_on_the_image_of_the_database(self, ha: bool, image_field: str) -> None:
        settings = with_backup(stack="staging")
        settings["tiers"]["database"]["ha"] = ha
        app = load_app(project())
        described = Description(
            app=app, environment=load_environment(settings, app), secrets={}, stack="dev", root=ROOT
        )
        backup = described.environment.tier_settings(DATABASE.name).backup
        assert backup and app.database
        assert component.image(backup, described).base == getattr(app.database, image_field)

    def test_locally_built_backup_image_is_refused_if_images_must_be_pinned(self) -> None:
        app = load_app(project())
        with pytest.raises(
            ConfigError, match=r"backup\.image: an image that is built has no digest, which `pinned: true` requires"
        ):
            load_environment(with_backup(stack="prod"), app)


def database_variables(deployment: Deployment) -> dict[str, str]:
    """Return the DATABASE_* environment variables of the backup container."""
    [backup_workload] = [
        entry for entry in parse(checkpoint_of(deployment)).entries if entry.runs and entry.tier == "backup"
    ]
    return {name: value for name, value in backup_workload.variables.items() if name in DATABASE.variables}


@pytest.mark.parametrize("stack", ["dev", "staging"])
class TestBackupsFollowTheLiveDatabase:
    def update(self, stack: str, name: str = "", before: Deployment | None = None, **more: Any) -> Deployment:
        """Run an update of the deployment `before`. A non-empty `name` becomes the database name in the stack file."""
        env = with_backup(stack=stack) | {"release": {}} | more
        env["tiers"]["database"] |= {"name": name} if name else {}
        export = checkpoint_of(before) if before else None
        return deploy(env=env, stack=stack, secrets=SECRETS | KEY, export=export)

    def test_restored_database_is_backed_up_after_the_switch(self, stack: str) -> None:
        restored = self.update(stack, "board_r1", self.update(stack))
        assert database_variables(restored)["DATABASE_NAME"] == "board_r1"
        [component] = [entry for entry in restored if entry.type == "tiers:backup:Backup"]
        assert [urn for urn in component.waits_for if "tiers:switch:Switch$" in urn]

    def test_rollback_moves_backups_to_the_database_of_the_previous_release(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.update(stack, release={"standby": "cold"})
        restored = self.update(stack, "board_r1", first, release={"standby": "cold"})
        monkeypatch.setenv("TIERS_RELEASE", "previous")
        back = self.update(stack, "board_r1", restored, release={"standby": "cold"})
        assert database_variables(back) == database_variables(first)
        assert not check.backup_problem(parse(checkpoint_of(back)), Slot.BLUE)

    def test_database_of_a_waiting_release_is_not_backed_up_before_promotion(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, manual = self.update(stack), {"release": {"promote": "manual"}}
        waits = self.update(stack, "board_r1", first, **manual)
        assert database_variables(waits) == database_variables(first)
        monkeypatch.setenv("TIERS_RELEASE", "promote")
        assert database_variables(self.update(stack, "board_r1", waits, **manual))["DATABASE_NAME"] == "board_r1"

    def test_second_update_leaves_backup_resources_unchanged(self, stack: str) -> None:
        first = self.update(stack)
        before, again = ([entry.inputs for entry in deployment.sorted if entry.name.startswith("backup")]
                       for deployment in (first, self.update(stack, before=first)))  # fmt: skip
        assert before == again

    def test_make_check_reports_backups_of_a_database_that_the_live_slot_does_not_use(self, stack: str) -> None:
        checkpoint = parse(checkpoint_of(self.update(stack)))
        assert not check.backup_problem(checkpoint, Slot.BLUE)
        backup_workloads = [
            entry for entry in parse(checkpoint_of(self.update(stack, "board_r1"))).entries if entry.tier == "backup"
        ]
        mixed = Checkpoint(
            entries=(*(entry for entry in checkpoint.entries if entry.tier != "backup"), *backup_workloads)
        )
        assert check.backup_problem(mixed, Slot.BLUE).startswith("the backups are of database board_r1 at ")


def test_failed_gate_does_not_change_which_database_is_backed_up() -> None:
    before, registrations = deploy_with_backup(), list[Registered]()
    env = with_backup()
    env["tiers"]["database"]["name"] = "board_r1"
    with pytest.raises(RunError, match="smoke"):
        deploy(
            env=env,
            secrets=SECRETS | KEY,
            export=checkpoint_of(before),
            fail=lambda name: name == "green-smoke",
            registrations=registrations,
        )
    assert {entry.name for entry in registrations} >= {"green-smoke", "green-api-1"}
    assert not [entry.name for entry in registrations if entry.name.startswith("backup-")]


class TestResources:
    def test_backup_settings_do_not_change_the_release_digest(self) -> None:
        assert deploy_with_backup().release == deploy().release

    def test_backup_container_on_docker_receives_all_backup_schedules(self) -> None:
        [container] = [entry for entry in deploy_with_backup().all if entry.name == "backup-1"]
        assert container.inputs["command"] == [
            "backup", "serve", "backup=17 3 * * *", "full=17 4 * * sun", "verify=17 5 1 * *", "prune=17 6 * * *"
        ]  # fmt: skip
        assert {network["name"] for network in container.inputs["networksAdvanced"]} == {"board-dev-data"}

    def test_backup_container_has_egress_only_if_backups_are_stored_in_a_bucket(self) -> None:
        secrets = {"s3-id": "the-id-of-the-key", "s3-key": "the-key-itself"}
        deployment = deploy_with_backup({"target": {"s3": S3}}, **secrets)
        [container] = [entry for entry in deployment.all if entry.name == "backup-1"]
        assert {network["name"] for network in container.inputs["networksAdvanced"]} == {
            "board-dev-data",
            "board-dev-outside",
        }
        assert not [value for value in secrets.values() if value in container.plain]
        assert "RESTIC_REPOSITORY=s3:https://s3.test/b/board-dev" in container.inputs["envs"]
        policies = {
            entry.name
            for entry in deploy_with_backup({"target": {"s3": S3}}, "staging", **secrets).of_type("NetworkPolicy")
        }
        assert "backup-to-world" in policies
        assert "backup-to-world" not in {
            entry.name for entry in deploy_with_backup(stack="staging").of_type("NetworkPolicy")
        }

    def test_each_backup_schedule_becomes_a_cron_job_on_kubernetes(self) -> None:
        jobs = deploy_with_backup(stack="staging").of_type("CronJob")
        assert {entry.name: entry.inputs["spec"]["schedule"] for entry in jobs} == {
            "backup-backup": "17 3 * * *",
            "backup-full": "17 4 * * sun",
            "backup-verify": "17 5 1 * *",
            "backup-prune": "17 6 * * *",
        }
        for entry in jobs:
            spec = entry.inputs["spec"]
            template = spec["jobTemplate"]["spec"]["template"]
            assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
            assert template["spec"]["activeDeadlineSeconds"] > 0
            assert template["metadata"]["labels"]["tiers.needs/database"] == "yes"
            # The pods share a node, because a ReadWriteOnce volume is available on one node only.
            assert template["spec"]["affinity"]["podAffinity"]

    def test_backup_volume_is_protected_if_protect_data_is_set(self) -> None:
        settings = with_backup() | {"protect_data": True}
        deployment = deploy(env=settings, secrets=SECRETS | KEY)
        assert [entry.protect for entry in deployment.all if entry.name == "backups"] == [True]

    def test_backup_container_mounts_volumes_of_tiers_read_only(self) -> None:
        app = project()
        app["api"]["volumes"] = {"uploads": "/data"}
        deployment = deploy(app, with_backup(), secrets=SECRETS | KEY)
        [container] = [entry for entry in deployment.all if entry.name == "backup-1"]
        read_only = {volume["containerPath"]: volume.get("readOnly") for volume in container.inputs["volumes"]}
        assert read_only["/volumes/uploads"] is True
        assert len([entry for entry in deployment.all if entry.name == "uploads"]) == 1

    def test_backup_container_receives_the_size_of_the_database_volume_on_kubernetes_only(self) -> None:
        [job] = [
            entry for entry in deploy_with_backup(stack="staging").of_type("CronJob") if entry.name == "backup-verify"
        ]
        pod = job.inputs["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        size = load_environment(with_backup(stack="staging"), load_app(project())).tiers[DATABASE.name]
        assert {"name": "BACKUP_ROOM", "value": str(size.capacity)} in pod["containers"][0]["env"]
        [container] = [entry for entry in deploy_with_backup().all if entry.name == "backup-1"]
        assert not [variable for variable in container.inputs["envs"] if variable.startswith("BACKUP_ROOM")]

    def test_manual_backup_job_has_the_pod_of_the_cron_job_with_another_command(self) -> None:
        [rendered] = [
            entry for entry in deploy_with_backup(stack="staging").of_type("CronJob") if entry.name == "backup-verify"
        ]
        # Turn floats back into integers, because Pulumi's protocol turns integers into floats.
        manifest = json.loads(json.dumps(rendered.inputs), parse_float=lambda text: int(float(text)))
        parent: Any = client.V1CronJob.from_dict(manifest)
        parent.metadata.uid = "u"
        job = jobs.manual_job(parent, ("backup", "list"), "backup-verify-1")
        assert job.spec.template.spec.containers[0].command == ["backup", "list"]
        # The owner protects the Job from `make heal`, which removes unknown objects without an owner.
        assert job.metadata.owner_references[0].uid == "u"

    def test_backup_container_has_the_same_port_and_volume_folder_as_the_backup_image(self) -> None:
        assert (f"/{repository.VOLUMES}", serve.PORT) == (component.VOLUMES, component.PORT)


def run(kind: str, days: float, *snapshots: str, ok: bool = True, id: str = "") -> Run:
    return Run(id=id or f"{kind}-{days}", kind=kind, time=NOW - timedelta(days=days), ok=ok, snapshots=snapshots)


def snapshots_of(runs: Sequence[Run]) -> list[Snapshot]:
    """Return the restic snapshots that these runs create: one record of each run, and the data of each backup."""
    snapshots: list[Snapshot] = []
    for run in runs:
        tags = {"record": "", "kind": run.kind, "ok": "yes" if run.ok else "no", "of": "+".join(run.snapshots)}
        snapshots.append(Snapshot(id=run.id, time=run.time, tags=tags))
        if run.kind in repository.BACKUP_KINDS:
            snapshots += [Snapshot(id=one, time=run.time) for one in run.snapshots]
    return snapshots


@st.composite
def histories(draw: st.DrawFn) -> list[Run]:
    days = draw(st.lists(st.floats(0, 400), max_size=25, unique=True))
    kinds = [draw(st.sampled_from(["backup", "full", "verify", "prune"])) for _ in days]
    return [
        run(kind, day, f"data-{number}", ok=draw(st.booleans()), id=f"record-{number}")
        if kind in repository.BACKUP_KINDS
        else run(kind, day, ok=draw(st.booleans()), id=f"record-{number}")
        for number, (kind, day) in enumerate(zip(kinds, days, strict=True))
    ]


class TestRetention:
    @given(histories(), st.integers(1, 90))
    def test_backup_run_expires_if_the_retention_has_passed_between_this_run_and_the_last_successful_run(
        self, history: list[Run], days: int
    ) -> None:
        keep = timedelta(days=days)
        expired = set(repository.expired_ids(snapshots_of(history), keep, NOW))
        for run in history:
            good = [other.time for other in history if other.ok and other.kind == run.kind]
            is_expired = bool(good) and run.time < max(good) - keep
            assert (run.id in expired) == is_expired
            assert all((one in expired) == is_expired for one in run.snapshots)

    @given(histories(), st.integers(1, 90))
    def test_last_successful_backup_of_each_kind_never_expires(self, history: list[Run], days: int) -> None:
        expired = set(repository.expired_ids(snapshots_of(history), timedelta(days=days), NOW + timedelta(days=1000)))
        for kind in repository.BACKUP_KINDS:
            good = [run for run in history if run.ok and run.kind == kind]
            assert (
                not good
                or not {good[0].id, *good[0].snapshots} & expired
                or good[0].time < max(entry.time for entry in good)
            )
            last = max(good, key=lambda entry: entry.time, default=None)
            assert last is None or not {last.id, *last.snapshots} & expired

    def test_snapshot_without_a_record_of_its_backup_run_expires_after_a_day(self) -> None:
        snapshots = [
            Snapshot(id="new", time=NOW - timedelta(hours=5)),
            Snapshot(id="old", time=NOW - timedelta(days=2)),
        ]
        assert repository.expired_ids(
            [*snapshots, *snapshots_of([run("backup", 1, "data")])], timedelta(days=30), NOW
        ) == ["old"]

    def test_backup_dated_in_the_future_makes_no_other_backup_expire(self) -> None:
        runs = [run("backup", 40, "old"), run("backup", 20, "good"), run("backup", -300, "ahead")]
        assert repository.expired_ids(snapshots_of(runs), timedelta(days=30), NOW) == []

    def test_old_backup_expires_even_if_recently_verified(self) -> None:
        runs = [run("backup", 50, "old"), run("backup", 0, "new"), run("verify", 1, "old")]
        assert repository.expired_ids(snapshots_of(runs), timedelta(days=30), NOW) == ["backup-50", "old"]


class TestBackupSelection:
    RUNS = (
        run("backup", 3, "aaaa1111"),
        run("full", 2.5, "20261118", "eeee5555"),
        run("full", 2, "bbbb2222", "cccc3333"),
        run("backup", 1, "dddd4444", ok=False),
    )

    @pytest.mark.parametrize(
        ("selector", "snapshot"),
        [
            ("latest", "bbbb2222"),
            ("aaaa", "aaaa1111"),
            ("2026-11-18T13:00:00Z", "aaaa1111"),
            ("2026-11-21", "bbbb2222"),
            # A selector that has only digits is an id, even if it looks like a date.
            ("20261118", "20261118"),
        ],
    )
    def test_backup_is_found_by_id_by_time_and_by_the_word_latest(self, selector: str, snapshot: str) -> None:
        assert repository.select_backup(self.RUNS, selector).snapshots[0] == snapshot

    @pytest.mark.parametrize("selector", ["dddd", "ffff", "2020-01-01"])
    def test_selection_of_a_missing_or_failed_backup_is_refused(self, selector: str) -> None:
        with pytest.raises(BackupError, match=f"there is no backup {selector}"):
            repository.select_backup(self.RUNS, selector)

    def test_snapshot_without_a_record_of_its_backup_run_is_not_listed_as_backup(self) -> None:
        runs = repository.runs([Snapshot(id="cut-off", time=NOW), *snapshots_of(self.RUNS)])
        assert [run.snapshots[0] for run in repository.backups(runs)] == ["aaaa1111", "20261118", "bbbb2222"]


@pytest.fixture
def daily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mock the scheduler, because it is installed only in the backup image. Each run is due a day after the previous run."""
    monkeypatch.setattr(serve, "_next_time", lambda schedule, after: after + timedelta(days=1))


@pytest.mark.usefixtures("daily")
class TestMetrics:
    DUE = {"backup": "17 3 * * *", "verify": "17 5 1 * *"}

    def metrics(self, runs: Sequence[Run] | None) -> dict[str, float]:
        lines = (line.rpartition(" ") for line in serve.metrics(runs, self.DUE, NOW))
        return {name: float(value) for name, _, value in lines}

    def test_backup_metrics_contain_the_time_of_the_last_successful_run_of_each_kind(self) -> None:
        metrics = self.metrics(
            [run("begin", 9), run("backup", 0.5, "a"), run("backup", 0.1, ok=False), run("verify", 0.4, "a")]
        )
        last = (NOW - timedelta(days=0.5)).timestamp()
        assert metrics['tiers_backup_last_success_timestamp_seconds{kind="backup"}'] == last
        assert metrics["tiers_backup_verified"] == metrics["tiers_backup_repository_readable"] == 1
        assert metrics['tiers_backup_overdue{kind="backup"}'] == 0

    def test_metric_tiers_backup_verified_is_0_after_a_failed_verification(self) -> None:
        assert self.metrics([run("verify", 2), run("verify", 1, ok=False)])["tiers_backup_verified"] == 0
        assert self.metrics([run("begin", 2), run("verify", 1, ok=False)])["tiers_backup_verified"] == 0

    def test_metric_tiers_backup_verified_is_absent_before_the_first_verification(self) -> None:
        assert "tiers_backup_verified" not in self.metrics([run("begin", 2), run("backup", 1, "a")])

    def test_missed_backup_and_missed_verification_are_reported_as_overdue(self) -> None:
        metrics = self.metrics([run("begin", 9), run("backup", 2, "a")])
        assert metrics['tiers_backup_overdue{kind="backup"}'] == metrics['tiers_backup_overdue{kind="verify"}'] == 1
        assert metrics['tiers_backup_last_success_timestamp_seconds{kind="verify"}'] == 0

    def test_backup_dated_in_the_future_does_not_hide_that_the_next_backup_is_overdue(self) -> None:
        runs = [run("begin", 9), run("backup", 2, "a"), run("backup", -300, "b")]
        assert serve.overdue(runs, self.DUE, NOW)["backup"]

    def test_new_backup_repository_reports_no_overdue_backup_or_verification(self) -> None:
        assert not any(serve.overdue([run("begin", 0.5)], self.DUE, NOW).values())

    def test_unreadable_backup_repository_has_exactly_one_metric_and_its_value_is_0(self) -> None:
        assert self.metrics(None) == {"tiers_backup_repository_readable": 0}
