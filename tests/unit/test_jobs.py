"""Tests of scheduled jobs (`app.jobs`): only the live release runs them, on both platforms."""

import copy
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ci.scheduled_jobs import live_jobs
from ci.scheduled_jobs import problems as job_problems
from components.config import ConfigError, grammar, load_app
from components.model.names import JOB_STATE, LABEL_DATA, LABEL_RELEASE, LABEL_SLOT
from components.model.schedules import Schedule, posix_rule
from components.model.workload import Job
from components.platforms import JobRun, SlotTarget
from components.platforms.docker import job_runner
from components.release.checkpoint import LIVE_SERVICE, parse
from components.release.planner import Release, Slot
from policy.rules import RULES

from . import invariants, test_kubernetes
from .program import (
    SECRETS,
    VOLUME,
    Deployment,
    Registered,
    checkpoint_of,
    deploy,
    environment,
    preview_output,
    project,
)
from .test_policy import TRUSTING_SETTINGS, problems, resources

STACKS = ("dev", "staging")
JOBS: Mapping[str, Any] = {
    "digest": {"service": "worker", "command": ["digest", "--all"], "schedule": "*/5 * * * *", "timezone": "Europe/Berlin"},
    "cleanup": {"service": "api", "command": ["cleanup"], "schedule": "daily", "timeout": "20m", "retries": 2, "overlap": "allow", "missed": "once"},
}  # fmt: skip


def app(version: str = "1.0.0", jobs: Mapping[str, Any] = JOBS) -> dict[str, Any]:
    return copy.deepcopy(project()) | {"version": version, "jobs": copy.deepcopy(dict(jobs))}


def deploy_app(stack: str, description: Mapping[str, Any], **more: Any) -> Deployment:
    return deploy(description, environment(stack) | {"release": {}, "pinned": False}, stack=stack, **more)


@cache
def first(stack: str) -> Deployment:
    return deploy_app(stack, app())


@cache
def second(stack: str) -> Deployment:
    return deploy_app(stack, app("2.0.0"), export=checkpoint_of(first(stack)))


def with_role(deployment: Deployment, role: str) -> dict[str, Registered]:
    return {entry.name: entry for entry in deployment if entry.custom and entry.labels.get("tiers.role") == role}


def live_slot(deployment: Deployment) -> str:
    """Return the slot that the container `job-slot` names to the containers of jobs."""
    [upload] = deployment.by_name[job_runner.LIVE_OBJECT].inputs["uploads"]
    assert upload["file"] == job_runner.LIVE_FILE
    return upload["content"]


# ---------------------------------------------------------------------- Kubernetes


def test_cron_job_has_the_settings_of_its_job() -> None:
    digest, cleanup = (first("staging").by_name[name].inputs["spec"] for name in ("job-digest", "job-cleanup"))
    assert (digest["schedule"], digest["timeZone"], digest["concurrencyPolicy"]) == (
        "*/5 * * * *",
        "Europe/Berlin",
        "Forbid",
    )
    assert (cleanup["schedule"], cleanup["timeZone"], cleanup["concurrencyPolicy"]) == ("17 3 * * *", "UTC", "Allow")
    assert digest["startingDeadlineSeconds"] < cleanup["startingDeadlineSeconds"] == 86_400
    assert cleanup["jobTemplate"]["spec"]["backoffLimit"] == 2
    pod = cleanup["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["activeDeadlineSeconds"] == 1200
    assert pod["containers"][0]["args"] == ["cleanup"]


def test_cron_jobs_change_after_the_switch_and_keep_their_names() -> None:
    [switch] = [entry for entry in second("staging") if entry.labels.get("tiers.role") == "switch"]
    for name in ("job-digest", "job-cleanup"):
        old, new = first("staging").by_name[name], second("staging").by_name[name]
        assert switch.urn in new.waits_for
        assert (old.urn, old.inputs["metadata"]["name"]) == (new.urn, new.inputs["metadata"]["name"])
        assert (old.labels[LABEL_SLOT], new.labels[LABEL_SLOT]) == ("blue", "green")


def test_rollback_restores_the_schedules_of_the_older_release(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {"digest": {**JOBS["digest"], "schedule": "0 * * * *"}}
    newer = deploy_app("staging", app("2.0.0", jobs), export=checkpoint_of(first("staging")))
    assert "job-cleanup" not in newer.by_name
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    back = deploy_app("staging", app("2.0.0", jobs), export=checkpoint_of(newer))
    for name in ("job-digest", "job-cleanup"):
        assert back.by_name[name].inputs == first("staging").by_name[name].inputs


# ---------------------------------------------------------------------- Docker


def test_each_slot_has_a_container_for_each_job_with_the_settings_of_its_service() -> None:
    containers = with_role(first("dev"), "job")
    assert containers.keys() == {"blue-job-digest", "blue-job-cleanup"}
    api, cleanup = first("dev").by_name["blue-api-1"].inputs, containers["blue-job-cleanup"].inputs
    for key in ("image", "memory", "user", "envs", "tmpfs"):
        assert cleanup[key] == api[key], key
    assert cleanup["command"][-1] == "cleanup"


def test_container_of_a_job_ends_after_a_run_in_progress() -> None:
    cleanup = first("dev").by_name["blue-job-cleanup"].inputs
    assert cleanup["destroyGraceSeconds"] == cleanup["stopTimeout"] > 3 * 1200


def test_containers_learn_the_live_slot_after_the_switch() -> None:
    [switch] = [entry for entry in second("dev") if entry.labels.get("tiers.role") == "switch"]
    assert switch.urn in second("dev").by_name[job_runner.LIVE_OBJECT].waits_for
    assert (live_slot(first("dev")), live_slot(second("dev"))) == ("blue", "green")


def test_release_without_jobs_stops_those_of_the_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    without = deploy_app("dev", project() | {"version": "2.0.0"}, export=checkpoint_of(first("dev")))
    assert live_slot(without) == "green"
    monkeypatch.setenv("TIERS_RELEASE", "previous")
    assert live_slot(deploy_app("dev", project() | {"version": "2.0.0"}, export=checkpoint_of(without))) == "blue"


def test_volume_of_jobs_stays_until_the_stack_is_destroyed_and_holds_no_data() -> None:
    assert first("dev").by_name[JOB_STATE].labels[LABEL_DATA] == "no"
    state = checkpoint_of(deploy_app("dev", project() | {"version": "2.0.0"}, export=checkpoint_of(first("dev"))))
    third = deploy_app("dev", project() | {"version": "3.0.0"}, export=state)
    assert [entry.name for entry in third if entry.type == VOLUME and entry.name == JOB_STATE]


# ---------------------------------------------------------------------- both platforms


@pytest.mark.parametrize("stack", STACKS)
def test_second_update_changes_nothing(stack: str) -> None:
    for before, version in ((first(stack), "1.0.0"), (second(stack), "2.0.0")):
        again = deploy_app(stack, app(version), export=checkpoint_of(before))
        steps = preview_output(checkpoint_of(before), again)["steps"]
        standby = [
            step
            for step in steps
            if step["op"] != "same" and "Slot::" not in step["urn"] and "slot:Slot$" not in step["urn"]
        ]
        assert standby == []


@pytest.mark.parametrize("stack", STACKS)
def test_release_that_waits_for_promotion_leaves_the_jobs_of_the_live_release(stack: str) -> None:
    manual = environment(stack) | {"release": {"promote": "manual"}, "pinned": False}
    before = deploy(app(), manual, stack=stack)
    waiting = deploy(app("2.0.0"), manual, stack=stack, export=checkpoint_of(before))
    for entry in waiting:
        if entry.custom and "tiers:live:LiveService" in entry.urn:
            assert entry.inputs == before.by_name[entry.name].inputs


@pytest.mark.parametrize("stack", STACKS)
def test_application_without_jobs_has_no_object_of_jobs(stack: str) -> None:
    plain = deploy_app(stack, copy.deepcopy(project()))
    assert plain.release == deploy_app(stack, copy.deepcopy(project()) | {"jobs": {}}).release
    assert not [entry for entry in plain if "job" in entry.name or entry.type == LIVE_SERVICE]


def test_containers_satisfy_every_docker_invariant() -> None:
    for assert_invariant, entry in invariants.cases(first("dev")):
        assert_invariant(entry)
    invariants.no_secret_is_in_a_plain_input(first("dev"), SECRETS.values())
    invariants.containers_of_a_slot_have_labels_of_slot_and_release(first("dev"))


def test_objects_satisfy_every_kubernetes_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    test_kubernetes.assert_every_invariant(first("staging"), monkeypatch)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("stack", STACKS)
def test_objects_pass_every_policy_rule(stack: str, rule: Any) -> None:
    found = [f"{name} {text}" for name, text in problems(rule, resources(first(stack), stack), TRUSTING_SETTINGS)]
    assert [text for text in found if "job" in text] == []


# ---------------------------------------------------------------------- schedules

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


def schedule(cron: str, zone: str = "UTC") -> Schedule:
    return grammar.schedule(cron, zone)


@pytest.mark.parametrize(
    ("cron", "zone", "due"),
    [
        ("*/15 * * * *", "UTC", "2026-03-28T12:15"),
        ("0 9 * * mon", "Europe/Berlin", "2026-03-30T07:00"),
        ("30 2 29 * *", "Europe/Berlin", "2026-04-29T00:30"),
        ("0 0 29 feb *", "UTC", "2028-02-29T00:00"),
    ],
    ids=["every 15 minutes", "after the change to summer time", "local time that the change skips", "leap day"],
)
def test_next_due_time(cron: str, zone: str, due: str) -> None:
    assert schedule(cron, zone).next_after(NOON) == datetime.fromisoformat(f"{due}:00+00:00")


@given(
    minute=st.integers(0, 59), hour=st.integers(0, 23), zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]),
    offset=st.integers(0, 366 * 24 * 60),
)  # fmt: skip
def test_next_due_time_is_the_first_minute_that_is_due(minute: int, hour: int, zone: str, offset: int) -> None:
    daily, start = schedule(f"{minute} {hour} * * *", zone), NOON + timedelta(minutes=offset)
    due = daily.next_after(start)
    assert due and due > start and daily.is_due(due)
    between = [start + timedelta(minutes=number) for number in range(1, int((due - start).total_seconds() // 60), 7)]
    assert not any(daily.is_due(moment) for moment in between)
    local = due.astimezone(ZoneInfo(zone))
    assert (local.hour, local.minute) == (hour, minute)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_posix_rule_gives_the_local_time_of_the_zone(zone: str) -> None:
    for moment in (NOON, NOON + timedelta(days=100), NOON + timedelta(days=250)):
        words = ["date", "-d", f"@{int(moment.timestamp())}", "+%H:%M"]
        shown = subprocess.run(
            words, env={"TZ": posix_rule(zone), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
        )
        assert shown.stdout.strip() == moment.astimezone(ZoneInfo(zone)).strftime("%H:%M")


# ---------------------------------------------------------------------- program of a job's container

EVERY_MINUTE = Job(name="tick", command=("true",), timeout=5, cron="* * * * *", schedule=schedule("* * * * *"))


def run_program(folder: Path, job: Job, *command: str, slot: Slot = Slot.BLUE, seconds: float = 2) -> str:
    """Run the program of a job's container for some seconds with the shell of this machine, and return its output."""
    words = job_runner.runner(job, SlotTarget(slot=slot, release=Release(version="1", digest="a")), 10001)
    text = [word.replace(job_runner.FOLDER, str(folder)) for word in words]
    box = str(Path(__file__).with_name("busybox.sh"))
    text = [word.replace("/.tiers/busybox", box) for word in text]
    shell = ["sh", *text[2:]]
    process = subprocess.Popen(
        [*shell, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": "/usr/bin:/bin", "RELEASE": "1-a"},
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate(timeout=20)
    return output


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return the folder of a volume in which blue is live, and the job's last handled due time is five minutes ago."""
    (tmp_path / "live").write_text("blue")
    folder = tmp_path / "tick-10001"
    folder.mkdir()
    minute = int(datetime.now(UTC).timestamp()) // 60 * 60
    (folder / "last").write_text(str(minute - 300))
    return tmp_path


def runs_in(state: Path) -> list[JobRun]:
    return job_runner.parse_runs(
        {str(path.relative_to(state)): path.read_text().strip() for path in state.rglob("*") if path.is_file()}
    )


def test_due_time_runs_once_and_its_result_is_stored(state: Path) -> None:
    assert "ran" in run_program(state, EVERY_MINUTE, "echo", "ran")
    [run] = runs_in(state)
    assert (run.job, run.code, run.release) == ("tick", 0, "1-a")
    run_program(state, EVERY_MINUTE, "echo", "again", seconds=1)
    assert len({run.due for run in runs_in(state)}) == len(runs_in(state))


def test_program_of_the_other_slot_runs_nothing(state: Path) -> None:
    assert "ran" not in run_program(state, EVERY_MINUTE, "echo", "ran", slot=Slot.GREEN)
    assert runs_in(state) == []


def test_program_without_a_live_slot_runs_nothing(state: Path) -> None:
    (state / "live").unlink()
    assert "ran" not in run_program(state, EVERY_MINUTE, "echo", "ran")


def test_programs_of_both_slots_that_count_themselves_live_run_a_due_time_once(state: Path) -> None:
    run_program(state, EVERY_MINUTE, "true", seconds=1)
    (state / "live").write_text("green")
    minute = runs_in(state)[0].due
    (state / "tick-10001" / "last").write_text(str(int(minute.timestamp()) - 60))
    run_program(state, EVERY_MINUTE, "true", slot=Slot.GREEN, seconds=1)
    dues = [run.due for run in runs_in(state)]
    assert dues.count(minute) == 1


def test_command_gets_its_arguments_unchanged(state: Path) -> None:
    assert "a  b|$(date)|*" in run_program(state, EVERY_MINUTE, "printf", "%s|%s|%s\\n", "a  b", "$(date)", "*")


def test_failed_run_is_repeated_and_its_exit_code_is_stored(state: Path) -> None:
    text = job_runner.RUNNER
    assert '"$box" sleep 10' in text
    run_program(state, EVERY_MINUTE, "sh", "-c", "exit 7")
    assert [run.code for run in runs_in(state)] == [7]


def test_stopped_program_finishes_its_run(state: Path) -> None:
    output = run_program(state, replace(EVERY_MINUTE, timeout=10), "sh", "-c", "sleep 3; echo finished", seconds=1.5)
    assert "finished" in output
    assert [run.code for run in runs_in(state)] == [0]


def test_run_that_exceeds_its_time_limit_is_ended(state: Path) -> None:
    run_program(state, replace(EVERY_MINUTE, timeout=1), "sleep", "30", seconds=3.5)
    assert [run.code for run in runs_in(state)] == [124]


def test_job_that_forbids_overlap_does_not_start_while_a_run_is_in_progress(state: Path) -> None:
    now = int(datetime.now(UTC).timestamp())
    other = state / "tick-10001" / str(now // 60 * 60 - 120)
    other.mkdir()
    (other / "begin").write_text(f"1-a {now}")
    (other / "alive").write_text(str(now))
    assert "ran" not in run_program(state, EVERY_MINUTE, "echo", "ran")
    (state / "tick-10001" / "last").write_text(str(now // 60 * 60 - 60))
    assert "ran" in run_program(state, replace(EVERY_MINUTE, overlaps=True), "echo", "ran")


@pytest.mark.parametrize(("makes_up", "expected"), [(False, 0), (True, 1)], ids=["skip", "once"])
def test_missed_due_times_are_skipped_or_made_up_by_one_run(state: Path, makes_up: bool, expected: int) -> None:
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    (state / "tick-10001" / "last").write_text(str(int((an_hour_ago - timedelta(hours=1)).timestamp()) // 60 * 60))
    hourly = schedule(f"{an_hour_ago.minute} {an_hour_ago.hour} * * *")
    job = replace(EVERY_MINUTE, schedule=hourly, makes_up=makes_up)
    run_program(state, job, "true", seconds=6)
    assert len(runs_in(state)) == expected


# ---------------------------------------------------------------------- status


@pytest.mark.parametrize("stack", STACKS)
def test_status_shows_the_last_run_and_the_next_due_time(stack: str) -> None:
    runs = [JobRun(job="digest", due=NOON, code=0, seconds=3.0)]
    digest = {job.name: job for job in live_jobs(parse(checkpoint_of(first(stack))), lambda: runs)}["digest"]
    line = digest.describe(NOON + timedelta(minutes=1))
    assert (
        "*/5 * * * * Europe/Berlin; last 2026-03-28 12:00 UTC, exit code 0 after 3 s; next 2026-03-28 12:05 UTC" in line
    )


@pytest.mark.parametrize("stack", STACKS)
def test_failed_job_and_overdue_job_are_problems(stack: str) -> None:
    state = parse(checkpoint_of(first(stack)))
    failed = JobRun(job="digest", due=NOON, code=3, seconds=1.0)
    assert any(
        "digest failed" in text and "exit code 3" in text
        for text in job_problems(live_jobs(state, lambda: [failed]), state, NOON + timedelta(minutes=1))
    )
    [digest] = [job for job in live_jobs(state, list) if job.name == "digest"]
    assert "was due at 2026-03-28 12:05 UTC" in digest.problem(NOON + timedelta(hours=1), NOON)
    assert digest.problem(NOON + timedelta(minutes=8), NOON) == ""


@pytest.mark.parametrize("stack", STACKS)
def test_jobs_of_the_standby_are_not_shown(stack: str) -> None:
    jobs = live_jobs(parse(checkpoint_of(second(stack))), list)
    assert [job.name for job in jobs] == ["cleanup", "digest"]


# ---------------------------------------------------------------------- refused values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"service": "database"}, "app.jobs.digest.service: 'database' is no service in a slot"),
        ({"service": "wrker"}, "app.jobs.digest.service: 'wrker' is no service in a slot"),
        ({"timezone": "Berlin"}, "app.jobs.digest.timezone"),
        ({"schedule": "61 * * * *"}, "app.jobs.digest.schedule"),
        ({"overlap": "maybe"}, "app.jobs.digest.overlap"),
        ({"retries": 11}, "app.jobs.digest.retries"),
        ({"command": []}, "app.jobs.digest.command"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_invalid_job_is_refused(change: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_app(app(jobs={"digest": {**JOBS["digest"], **change}}))
    assert message in str(refused.value)


def test_names_of_jobs_objects_are_refused_for_other_objects() -> None:
    description = app()
    description["services"] = {"job": {"tier": "worker", "image": "x:1"}}
    description["api"]["volumes"] = {JOB_STATE: "/state"}
    with pytest.raises(ConfigError) as refused:
        load_app(description)
    assert "app.services.job: scheduled jobs use names that begin with job-" in str(refused.value)
    assert f"app.api.volumes.{JOB_STATE}: the program uses this name" in str(refused.value)


def test_release_labels_are_on_every_object_of_a_job() -> None:
    for stack in STACKS:
        assert all(entry.labels[LABEL_RELEASE] for entry in with_role(first(stack), "job").values())
