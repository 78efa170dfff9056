"""Backups: their configuration, retention, resources and schedule."""

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
from components.checkpoint import DATABASE, Checkpoint, parse
from components.config import ConfigError, TierName, check_secrets, load_app, load_environment
from components.platforms import cluster
from components.release import Slot
from components.tier import Description
from images.backup.backup import repository, serve
from images.backup.backup.repository import BackupError, Run, Snapshot

from .program import ROOT, SECRETS, Deployment, Registered, deploy, environment, exported, project

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = {"backup-key": "the-key-of-backups"}
S3 = {"endpoint": "https://s3.test", "bucket": "b", "access_key": "s3-id", "secret_key": "s3-key"}


def with_backup(settings: dict[str, Any] | None = None, stack: str = "dev") -> dict[str, Any]:
    env = environment(stack)
    database = env.setdefault("tiers", {}).setdefault("database", {})
    database["backup"] = settings or {"target": {"volume": True}}
    return env


def deployed(settings: dict[str, Any] | None = None, stack: str = "dev", **secrets: str) -> Deployment:
    return deploy(env=with_backup(settings, stack), stack=stack, secrets=SECRETS | KEY | secrets)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("given_times", "cron"),
        [
            ("daily", "17 3 * * *"),
            ("weekly", "17 3 * * sun"),
            ("monthly", "17 3 1 * *"),
            ("*/5 * * * *", "*/5 * * * *"),
            ("0,30 2-4 1-7 jan *", "0,30 2-4 1-7 jan *"),
        ],
    )
    def test_schedule_accepts_words_and_cron_expressions(self, given_times: str, cron: str) -> None:
        env = load_environment(
            with_backup({"schedule": given_times, "target": {"volume": True}}), load_app(project())
        ).tiers
        assert [tier.backup.schedule for tier in env.values() if tier.backup] == [cron]

    @pytest.mark.parametrize(
        ("wrong", "path", "message"),
        [
            ({}, "target", "not set"),
            ({"target": {}}, "target", "exactly one"),
            ({"target": {"volume": True, "directory": "/srv"}}, "target", "exactly one"),
            ({"target": {"directory": "/srv", "storage": "1Gi"}}, "target", "are of a `volume`"),
            ({"target": {"volume": True, "storage": "1Gi"}}, "target.storage", "no such thing"),
            ({"target": {"s3": S3 | {"endpoint": "s3.test"}}}, "target.s3.endpoint", "scheme, host and port"),
            ({"target": {"volume": True}, "schedule": "hourly"}, "schedule", "as cron writes it"),
            ({"target": {"volume": True}, "schedule": "60 * * * *"}, "schedule", "as cron writes it"),
            # Day 0 is Sunday to one scheduler and Monday to another.
            ({"target": {"volume": True}, "full": "0 4 * * 0"}, "full", "days of the week by name"),
            ({"target": {"volume": True}, "verify": 5}, "verify", "as cron writes it"),
            ({"target": {"volume": True}, "retention": "30"}, "retention", "like 30d"),
        ],
    )
    def test_invalid_backup_setting_is_refused_with_its_path(
        self, wrong: dict[str, Any], path: str, message: str
    ) -> None:
        settings = with_backup()
        settings["tiers"]["database"]["backup"] = wrong
        with pytest.raises(ConfigError) as error:
            load_environment(settings, load_app(project()))
        assert f"environment.tiers.database.backup.{path}: " in str(error.value)
        assert message in str(error.value)

    def test_backup_into_a_folder_of_a_node_is_refused_on_kubernetes(self) -> None:
        with pytest.raises(ConfigError, match="use volume or s3"):
            load_environment(with_backup({"target": {"directory": "/srv"}}, "staging"), load_app(project()))

    def test_backup_of_the_cache_is_refused(self) -> None:
        settings = environment() | {"tiers": {"cache": {"backup": {"target": {"volume": True}}}}}
        with pytest.raises(ConfigError, match=r"cache\.backup: it is for the database"):
            load_environment(settings, load_app(project()))

    def test_backup_of_volumes_with_different_users_is_refused(self) -> None:
        app = project()
        app["api"]["volumes"] = {"uploads": "/data"}
        app["worker"] |= {"volumes": {"made": "/made"}, "user": 10002}
        with pytest.raises(ConfigError, match="give these tiers the same user"):
            load_environment(with_backup(), load_app(app))

    def test_missing_backup_secrets_are_reported_with_the_setting_that_uses_them(self) -> None:
        app = load_app(project())
        env = load_environment(with_backup({"target": {"s3": S3}}), app)
        with pytest.raises(ConfigError) as error:
            check_secrets(SECRETS, app, (), env.secrets)
        for name, path in (
            ("backup-key", "key"),
            ("s3-id", "target.s3.access_key"),
            ("s3-key", "target.s3.secret_key"),
        ):
            assert f"secrets.{name}: environment.tiers.database.backup.{path} uses it" in str(error.value)
        assert set(check_secrets(SECRETS, app)) == set(SECRETS)

    @pytest.mark.parametrize(("ha", "named"), [(False, "image"), (True, "ha_image")])
    def test_backup_image_is_based_on_the_image_of_the_database(self, ha: bool, named: str) -> None:
        settings = with_backup(stack="staging")
        settings["tiers"]["database"]["ha"] = ha
        app = load_app(project())
        described = Description(app=app, environment=load_environment(settings, app), secrets={}, root=ROOT)
        backup = described.environment.size(TierName.DATABASE).backup
        assert backup and app.database
        assert component.image(backup, described).base == getattr(app.database, named)

    def test_built_backup_image_is_refused_where_images_are_pinned(self) -> None:
        app = load_app(project())
        with pytest.raises(ConfigError, match=r"backup\.image: an image that is built is not named by its digest"):
            load_environment(with_backup(stack="prod"), app)


def database_variables(deployment: Deployment) -> dict[str, str]:
    """Return the environment variables that the backup container receives about the database."""
    [holder] = [entry for entry in parse(exported(deployment)).entries if entry.runs and entry.tier == "backup"]
    return {name: value for name, value in holder.variables.items() if name in DATABASE}


@pytest.mark.parametrize("stack", ["dev", "staging"])
class TestBackupsFollowTheLiveDatabase:
    def up(self, stack: str, name: str = "", before: Deployment | None = None, **more: Any) -> Deployment:
        """Run an update with another database in the stack file."""
        env = with_backup(stack=stack) | {"release": {}} | more
        env["tiers"]["database"] |= {"name": name} if name else {}
        export = exported(before) if before else None
        return deploy(env=env, stack=stack, secrets=SECRETS | KEY, export=export)

    def test_restored_database_is_backed_up_after_the_switch(self, stack: str) -> None:
        restored = self.up(stack, "board_r1", self.up(stack))
        assert database_variables(restored)["DATABASE_NAME"] == "board_r1"
        [component] = [entry for entry in restored if entry.type == "tiers:backup:Backup"]
        assert [urn for urn in component.waits_for if "tiers:switch:Switch$" in urn]

    def test_going_back_points_backups_at_the_previous_database(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.up(stack, release={"standby": "cold"})
        restored = self.up(stack, "board_r1", first, release={"standby": "cold"})
        monkeypatch.setenv("TIERS_RELEASE", "previous")
        back = self.up(stack, "board_r1", restored, release={"standby": "cold"})
        assert database_variables(back) == database_variables(first)
        assert not check.misled(parse(exported(back)), Slot.BLUE)

    def test_database_of_a_waiting_release_is_not_backed_up_before_promotion(
        self, stack: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, manual = self.up(stack), {"release": {"promote": "manual"}}
        waits = self.up(stack, "board_r1", first, **manual)
        assert database_variables(waits) == database_variables(first)
        monkeypatch.setenv("TIERS_RELEASE", "promote")
        assert database_variables(self.up(stack, "board_r1", waits, **manual))["DATABASE_NAME"] == "board_r1"

    def test_second_update_leaves_backup_resources_unchanged(self, stack: str) -> None:
        first = self.up(stack)
        before, again = ([entry.inputs for entry in deployment.sorted if entry.name.startswith("backup")]
                       for deployment in (first, self.up(stack, before=first)))  # fmt: skip
        assert before == again

    def test_backups_of_another_database_are_reported_by_check(self, stack: str) -> None:
        checkpoint = parse(exported(self.up(stack)))
        assert not check.misled(checkpoint, Slot.BLUE)
        holders = [entry for entry in parse(exported(self.up(stack, "board_r1"))).entries if entry.tier == "backup"]
        mixed = Checkpoint(entries=(*(entry for entry in checkpoint.entries if entry.tier != "backup"), *holders))
        assert check.misled(mixed, Slot.BLUE).startswith("backups are of board_r1 at ")


def test_failed_gate_leaves_backups_on_the_live_database() -> None:
    before, seen = deployed(), list[Registered]()
    env = with_backup()
    env["tiers"]["database"]["name"] = "board_r1"
    with pytest.raises(RunError, match="smoke"):
        deploy(
            env=env, secrets=SECRETS | KEY, export=exported(before), fail=lambda name: name == "green-smoke", seen=seen
        )
    assert {entry.name for entry in seen} >= {"green-smoke", "green-api-1"}
    assert not [entry.name for entry in seen if entry.name.startswith("backup-")]


class TestResources:
    def test_backups_are_no_part_of_the_release_digest(self) -> None:
        assert deployed().release == deploy().release

    def test_on_docker_the_backup_container_receives_its_schedule(self) -> None:
        [container] = [entry for entry in deployed().all if entry.name == "backup-1"]
        assert container.inputs["command"] == [
            "backup", "serve", "backup=17 3 * * *", "full=17 4 * * sun", "verify=17 5 1 * *", "prune=17 6 * * *"
        ]  # fmt: skip
        assert {network["name"] for network in container.inputs["networksAdvanced"]} == {"board-dev-data"}

    def test_only_a_bucket_target_gives_backups_egress(self) -> None:
        secrets = {"s3-id": "the-id-of-the-key", "s3-key": "the-key-itself"}
        deployment = deployed({"target": {"s3": S3}}, **secrets)
        [container] = [entry for entry in deployment.all if entry.name == "backup-1"]
        assert {network["name"] for network in container.inputs["networksAdvanced"]} == {
            "board-dev-data",
            "board-dev-outside",
        }
        assert not [value for value in secrets.values() if value in container.plain]
        assert "RESTIC_REPOSITORY=s3:https://s3.test/b/board-dev" in container.inputs["envs"]
        policies = {
            entry.name for entry in deployed({"target": {"s3": S3}}, "staging", **secrets).of_type("NetworkPolicy")
        }
        assert "backup-to-world" in policies
        assert "backup-to-world" not in {entry.name for entry in deployed(stack="staging").of_type("NetworkPolicy")}

    def test_on_kubernetes_each_schedule_is_a_cron_job(self) -> None:
        jobs = deployed(stack="staging").of_type("CronJob")
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
            # A ReadWriteOnce volume is available on one node only.
            assert template["spec"]["affinity"]["podAffinity"]

    def test_volume_of_backups_is_protected_with_protect_data(self) -> None:
        settings = with_backup() | {"protect_data": True}
        deployment = deploy(env=settings, secrets=SECRETS | KEY)
        assert [entry.protect for entry in deployment.all if entry.name == "backups"] == [True]

    def test_volumes_of_tiers_are_mounted_read_only(self) -> None:
        app = project()
        app["api"]["volumes"] = {"uploads": "/data"}
        deployment = deploy(app, with_backup(), secrets=SECRETS | KEY)
        [container] = [entry for entry in deployment.all if entry.name == "backup-1"]
        read_only = {volume["containerPath"]: volume.get("readOnly") for volume in container.inputs["volumes"]}
        assert read_only["/volumes/uploads"] is True
        assert len([entry for entry in deployment.all if entry.name == "uploads"]) == 1

    def test_backup_receives_the_volume_size_where_volumes_have_a_size(self) -> None:
        [job] = [entry for entry in deployed(stack="staging").of_type("CronJob") if entry.name == "backup-verify"]
        pod = job.inputs["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        size = load_environment(with_backup(stack="staging"), load_app(project())).tiers[TierName.DATABASE]
        assert {"name": "BACKUP_ROOM", "value": str(size.capacity)} in pod["containers"][0]["env"]
        [container] = [entry for entry in deployed().all if entry.name == "backup-1"]
        assert not [variable for variable in container.inputs["envs"] if variable.startswith("BACKUP_ROOM")]

    def test_backup_by_hand_is_the_same_pod_with_another_command(self) -> None:
        [rendered] = [entry for entry in deployed(stack="staging").of_type("CronJob") if entry.name == "backup-verify"]
        # The protocol has no integers; this restores them.
        manifest = json.loads(json.dumps(rendered.inputs), parse_float=lambda text: int(float(text)))
        parent: Any = client.V1CronJob.from_dict(manifest)
        parent.metadata.uid = "u"
        job = cluster.by_hand(parent, ("backup", "list"), "backup-verify-1")
        assert job.spec.template.spec.containers[0].command == ["backup", "list"]
        # An object with an owner is no stray to `make heal`.
        assert job.metadata.owner_references[0].uid == "u"

    def test_path_and_port_match_the_program_in_the_backup_image(self) -> None:
        assert (f"/{repository.VOLUMES}", serve.PORT) == (component.VOLUMES, component.PORT)


def run(kind: str, days: float, *snapshots: str, ok: bool = True, id: str = "") -> Run:
    return Run(id=id or f"{kind}-{days}", kind=kind, at=NOW - timedelta(days=days), ok=ok, of=snapshots)


def kept_as(runs: Sequence[Run]) -> list[Snapshot]:
    """Return the snapshots that these runs have left."""
    snapshots: list[Snapshot] = []
    for run in runs:
        tags = {"record": "", "kind": run.kind, "ok": "yes" if run.ok else "no", "of": "+".join(run.of)}
        snapshots.append(Snapshot(id=run.id, time=run.at, tags=tags))
        if run.kind in repository.MAKING:
            snapshots += [Snapshot(id=one, time=run.at) for one in run.of]
    return snapshots


@st.composite
def histories(draw: st.DrawFn) -> list[Run]:
    days = draw(st.lists(st.floats(0, 400), max_size=25, unique=True))
    kinds = [draw(st.sampled_from(["backup", "full", "verify", "prune"])) for _ in days]
    return [
        run(kind, day, f"data-{number}", ok=draw(st.booleans()), id=f"record-{number}")
        if kind in repository.MAKING
        else run(kind, day, ok=draw(st.booleans()), id=f"record-{number}")
        for number, (kind, day) in enumerate(zip(kinds, days, strict=True))
    ]


class TestRetention:
    @given(histories(), st.integers(1, 90))
    def test_exactly_the_runs_older_than_the_retention_before_the_last_good_one_expire(
        self, history: list[Run], days: int
    ) -> None:
        keep = timedelta(days=days)
        gone = set(repository.expired(kept_as(history), keep, NOW))
        for run in history:
            good = [other.at for other in history if other.ok and other.kind == run.kind]
            old = bool(good) and run.at < max(good) - keep
            assert (run.id in gone) == old
            assert all((one in gone) == old for one in run.of)

    @given(histories(), st.integers(1, 90))
    def test_last_good_backup_of_each_kind_never_expires(self, history: list[Run], days: int) -> None:
        gone = set(repository.expired(kept_as(history), timedelta(days=days), NOW + timedelta(days=1000)))
        for kind in repository.MAKING:
            good = [run for run in history if run.ok and run.kind == kind]
            assert not good or not {good[0].id, *good[0].of} & gone or good[0].at < max(entry.at for entry in good)
            last = max(good, key=lambda entry: entry.at, default=None)
            assert last is None or not {last.id, *last.of} & gone

    def test_snapshot_without_a_record_expires_after_a_day(self) -> None:
        now_and_then = [
            Snapshot(id="new", time=NOW - timedelta(hours=5)),
            Snapshot(id="old", time=NOW - timedelta(days=2)),
        ]
        assert repository.expired([*now_and_then, *kept_as([run("backup", 1, "data")])], timedelta(days=30), NOW) == [
            "old"
        ]

    def test_backup_dated_in_the_future_expires_nothing(self) -> None:
        runs = [run("backup", 40, "old"), run("backup", 20, "good"), run("backup", -300, "ahead")]
        assert repository.expired(kept_as(runs), timedelta(days=30), NOW) == []

    def test_verification_does_not_keep_an_old_backup(self) -> None:
        runs = [run("backup", 50, "old"), run("backup", 0, "new"), run("verify", 1, "old")]
        assert repository.expired(kept_as(runs), timedelta(days=30), NOW) == ["backup-50", "old"]


class TestChoiceOfABackup:
    KNOWN = (
        run("backup", 3, "aaaa1111"),
        run("full", 2.5, "20261118", "eeee5555"),
        run("full", 2, "bbbb2222", "cccc3333"),
        run("backup", 1, "dddd4444", ok=False),
    )

    @pytest.mark.parametrize(
        ("which", "snapshot"),
        [
            ("latest", "bbbb2222"),
            ("aaaa", "aaaa1111"),
            ("2026-11-18T13:00:00Z", "aaaa1111"),
            ("2026-11-21", "bbbb2222"),
            # A word of digits alone is an id, though it looks like a day.
            ("20261118", "20261118"),
        ],
    )
    def test_backup_is_chosen_by_latest_id_or_time(self, which: str, snapshot: str) -> None:
        assert repository.chosen(self.KNOWN, which).of[0] == snapshot

    @pytest.mark.parametrize("which", ["dddd", "ffff", "2020-01-01"])
    def test_missing_or_failed_backup_is_refused(self, which: str) -> None:
        with pytest.raises(BackupError, match=f"there is no backup {which}"):
            repository.chosen(self.KNOWN, which)

    def test_snapshot_without_a_record_is_no_backup(self) -> None:
        runs = repository.runs([Snapshot(id="cut-off", time=NOW), *kept_as(self.KNOWN)])
        assert [run.of[0] for run in repository.backups(runs)] == ["aaaa1111", "20261118", "bbbb2222"]


@pytest.fixture
def daily(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything due a day after its last run; the real scheduler is in the image."""
    monkeypatch.setattr(serve, "_next", lambda at, after: after + timedelta(days=1))


@pytest.mark.usefixtures("daily")
class TestMetrics:
    DUE = {"backup": "17 3 * * *", "verify": "17 5 1 * *"}

    def metrics(self, runs: Sequence[Run] | None) -> dict[str, float]:
        lines = (line.rpartition(" ") for line in serve.metrics(runs, self.DUE, NOW))
        return {name: float(value) for name, _, value in lines}

    def test_metrics_have_the_last_good_run_of_each_kind(self) -> None:
        metrics = self.metrics(
            [run("begin", 9), run("backup", 0.5, "a"), run("backup", 0.1, ok=False), run("verify", 0.4, "a")]
        )
        last = (NOW - timedelta(days=0.5)).timestamp()
        assert metrics['tiers_backup_last_success_timestamp_seconds{kind="backup"}'] == last
        assert metrics["tiers_backup_verified"] == metrics["tiers_backup_repository_readable"] == 1
        assert metrics['tiers_backup_overdue{kind="backup"}'] == 0

    def test_failed_verification_replaces_an_earlier_good_one(self) -> None:
        assert self.metrics([run("verify", 2), run("verify", 1, ok=False)])["tiers_backup_verified"] == 0
        assert self.metrics([run("begin", 2), run("verify", 1, ok=False)])["tiers_backup_verified"] == 0

    def test_before_the_first_verification_the_metric_is_absent(self) -> None:
        assert "tiers_backup_verified" not in self.metrics([run("begin", 2), run("backup", 1, "a")])

    def test_missed_backup_is_overdue(self) -> None:
        metrics = self.metrics([run("begin", 9), run("backup", 2, "a")])
        assert metrics['tiers_backup_overdue{kind="backup"}'] == metrics['tiers_backup_overdue{kind="verify"}'] == 1
        assert metrics['tiers_backup_last_success_timestamp_seconds{kind="verify"}'] == 0

    def test_backup_dated_in_the_future_is_not_the_last_one(self) -> None:
        runs = [run("begin", 9), run("backup", 2, "a"), run("backup", -300, "b")]
        assert serve.overdue(runs, self.DUE, NOW)["backup"]

    def test_new_repository_has_nothing_overdue(self) -> None:
        assert not any(serve.overdue([run("begin", 0.5)], self.DUE, NOW).values())

    def test_unreadable_repository_has_no_other_metrics(self) -> None:
        assert self.metrics(None) == {"tiers_backup_repository_readable": 0}
