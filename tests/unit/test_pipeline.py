"""Tests of the GitHub pipeline.

The tests cover workflows, permissions, pinned actions and images, pull request environments, drift check and SLO.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from pulumi import RunError

from ci import drift, ephemeral, pins, pulumi_stack, slo
from ci.preview.post import PULL_REQUEST
from components.config import ConfigError, Environment, Slo, load_app, load_environment
from components.model.workload import Image
from components.release.planner import Slot

from .program import ROOT, environment, project

APP = load_app(project())

WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((ROOT / ".github/workflows").glob("*.yml"))}
ACTION = yaml.safe_load((ROOT / ".github/actions/prepare/action.yml").read_text())
TEXT = "\n".join(file.read_text() for file in (ROOT / ".github").rglob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OTHER_COMMANDS = {
    'git checkout --detach "$(make --silent deployed ENV=${{ matrix.environment }})"',
    'cat "$APP/reports/preview-prod.txt" >> "$GITHUB_STEP_SUMMARY"',
}
"""Commands that a workflow may run besides make targets: the checkout of the deployed commit, and the job summary."""


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, workflow in WORKFLOWS.items():
        for job, definition in workflow["jobs"].items():
            yield f"{name}.{job}", definition


JOBS = dict(jobs())


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
def test_every_workflow_reads_its_application_from_a_repository_variable(workflow: dict[str, Any]) -> None:
    assert workflow["env"] == {"APP": "${{ vars.APP || '.' }}"}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
class TestEveryJob:
    def test_workflow_job_runs_make_targets_only(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            for command in step.get("run", "").splitlines():
                if command not in OTHER_COMMANDS:
                    call = re.fullmatch(
                        r'make (?:--silent )?([a-z-]+)(?: [A-Z]+=[^ ;&|]+| [A-Z]+=.*?\}\})*(?: >> "\$GITHUB_OUTPUT")?',
                        command,
                    )
                    assert call, command
                    assert call[1] in TARGETS, command

    def test_workflow_job_has_explicit_permissions_and_a_timeout(self, job: dict[str, Any]) -> None:
        assert isinstance(job["permissions"], dict)
        assert "write-all" not in job["permissions"].values()
        assert job["permissions"].get("contents", "read") == "read"
        assert 0 < job["timeout-minutes"] <= 60

    def test_workflow_job_expands_no_untrusted_text_in_commands(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            for expression in re.findall(r"\$\{\{\s*(.*?)\s*\}\}", step.get("run", "")):
                assert expression in ("matrix.environment", "github.event.number"), expression

    def test_workflow_job_checkout_does_not_keep_the_token(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False

    def test_workflow_job_with_secrets_has_an_environment_and_excludes_forks(self, job: dict[str, Any]) -> None:
        text = yaml.safe_dump(job)
        if "secrets." in text or "id-token" in job["permissions"]:
            assert "environment" in job or job["permissions"].get("attestations") == "write"
        if "secrets." in text and "github.event.number" in text + str(job.get("if")):
            assert "head.repo.full_name == github.repository" in job["if"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_has_one_concurrency_group_and_no_permissions(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {}
    groups = [workflow.get("concurrency"), *(job.get("concurrency") for job in workflow["jobs"].values())]
    [group] = [entry for entry in groups if entry]
    assert group["cancel-in-progress"] is (name == "pull-request"), "an update is never cancelled"


def test_github_actions_are_pinned_by_commit() -> None:
    images = re.findall(r"uses: *(\S+)(.*)", TEXT)
    assert len(images) > 10
    for action, comment in images:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: add the version as a comment"
    assert len(set(images)) == len({action.partition("@")[0] for action, _ in images}), (
        "an action is used in two versions"
    )


def test_step_that_posts_the_preview_comment_sets_all_required_variables() -> None:
    steps = [step for job in JOBS.values() for step in job["steps"] if "make preview-comment" in step.get("run", "")]
    assert steps
    for step in steps:
        # The step need not set GITHUB_REPOSITORY, because GitHub sets this variable itself.
        assert {*PULL_REQUEST} - {*step["env"]} == {"GITHUB_REPOSITORY"}


def test_jobs_with_secrets_or_permissions_exclude_forks_and_dependabot() -> None:
    for name, workflow in WORKFLOWS.items():
        # The key of `on` is True, because YAML 1.1 reads `on` as a boolean.
        assert "pull_request_target" not in workflow[True], name
        if "pull_request" in workflow[True]:
            for job in workflow["jobs"].values():
                if "secrets." in yaml.safe_dump(job) or set(job["permissions"]) - {"contents"}:
                    assert "head.repo.full_name == github.repository" in job["if"]
                    assert "user.login != 'dependabot[bot]'" in job["if"], "Dependabot gets no secrets from GitHub"


UPDATES = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]


@pytest.mark.parametrize("entry", UPDATES, ids=lambda entry: f"{entry['package-ecosystem']}-{entry['directories'][0]}")
def test_every_folder_in_the_dependabot_configuration_exists(entry: dict[str, Any]) -> None:
    for pattern in entry["directories"]:
        assert list(ROOT.glob(pattern.strip("/") or "*")), pattern


@pytest.mark.parametrize(
    ("ecosystem", "file", "updated_by_hand"),
    [
        ("pip", "requirements*.txt", {".", "tests/compose/classic/backend"}),
        ("gomod", "go.sum", {"lab/toolchain/upstream"}),
        ("npm", "package-lock.json", set[str]()),
    ],
)
def test_dependabot_reads_every_file_with_pinned_versions(ecosystem: str, file: str, updated_by_hand: set[str]) -> None:
    tracked = subprocess.run(["git", "ls-files", f"**/{file}", file], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("this folder has no Git history, so the tracked files are unknown")
    folders = {str(PurePosixPath(name).parent) for name in tracked.stdout.split()}
    patterns = [path for entry in UPDATES if entry["package-ecosystem"] == ecosystem for path in entry["directories"]]
    read_folders = {str(match.relative_to(ROOT)) for path in patterns for match in ROOT.glob(path.strip("/"))}
    assert len(folders) > len(updated_by_hand)
    assert folders - read_folders == updated_by_hand


def test_production_uses_the_commit_of_a_successful_staging_run() -> None:
    assert WORKFLOWS["production"][True]["workflow_run"] == {
        "workflows": ["staging"], "types": ["completed"], "branches": ["develop"],
    }  # fmt: skip
    for job in WORKFLOWS["production"]["jobs"].values():
        checkout, download, *_ = job["steps"]
        assert checkout["with"]["ref"] == "${{ github.event.workflow_run.head_sha }}"
        assert download["with"]["run-id"] == "${{ github.event.workflow_run.id }}"


# ---------------------------------------------------------------------- images


DIGEST = f"sha256:{'1' * 64}"
IMAGES = {
    "environment.images.api": Image(reference="r/api:1", path="app.api.build", context="api"),
    "environment.toolbox": Image(reference=f"python:3@{DIGEST}", path="environment.toolbox"),
}
PINNED = {"environment.images.api": f"r/api:1@{DIGEST}", "environment.toolbox": f"python:3@{DIGEST}"}


def test_image_digests_of_another_image_version_are_refused() -> None:
    assert pins.check_pins(IMAGES, PINNED | {"environment.images.old": "r/old:1"}, "release.json") == PINNED
    with pytest.raises(RunError, match=r"release.json has r/api:2@.*, but the configuration needs r/api:1; check out"):
        pins.check_pins(IMAGES, PINNED | {"environment.images.api": f"r/api:2@{DIGEST}"}, "release.json")
    with pytest.raises(
        RunError, match=r"environment.images.api: it has no digest of r/api:1; run `make images PIN=yes`"
    ):
        pins.check_pins(IMAGES, PINNED | {"environment.images.api": "r/api:1"}, "it")


def test_image_used_in_prod_only_is_pinned_by_the_stack_file_of_prod(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Check the sources of the digests in prod.

    The digests of images that staging uses must come from release.json. All other digests must come from the stack file of prod,
    for example the digest of the cache's proxy.
    """
    other = f"sha256:{'2' * 64}"
    staging_images = {path: f"{entry.reference}@{DIGEST}" for path, entry in pins.required_images("staging").items()}
    prod_images = {path: f"{entry.reference}@{other}" for path, entry in pins.required_images("prod").items()}
    images: dict[str, str] = {}
    (tmp_path / "release.json").write_text(json.dumps(staging_images))
    monkeypatch.setattr(pins, "FILE", tmp_path / "release.json")
    monkeypatch.setattr(pins, "stack_file_pins", lambda _: prod_images)
    monkeypatch.setattr(pins, "write", lambda _, written: images.update(written))
    pins.use("prod")
    assert images.keys() == prod_images.keys()
    for path, image in images.items():
        assert image == (
            staging_images[path]
            if staging_images.get(path, "").startswith(image.partition("@")[0])
            else prod_images[path]
        )
    assert images["environment.images.api"].endswith(DIGEST)
    assert images["environment.proxy"].endswith(other)
    monkeypatch.setattr(pins, "stack_file_pins", lambda _: {})
    with pytest.raises(RunError, match=r"environment\.proxy: release\.json has no digest of haproxy:"):
        pins.use("prod")
    (tmp_path / "release.json").write_text(json.dumps(staging_images | {"environment.images.api": f"r/api:2@{DIGEST}"}))
    monkeypatch.setattr(pins, "stack_file_pins", lambda _: prod_images)
    with pytest.raises(RunError, match="check out the commit of that image"):
        pins.use("prod")


def test_images_in_environment_settings_are_listed_by_the_path_of_the_setting() -> None:
    assert pins.pins_in({"images": {"api": "r/api:1"}, "toolbox": "python:3"}) == {
        "environment.images.api": "r/api:1", "environment.toolbox": "python:3",
    }  # fmt: skip
    assert pins.pins_in({}) == {}


# ---------------------------------------------------------------------- environments of pull requests


def test_pull_request_environment_has_its_own_url_and_namespace() -> None:
    staging = yaml.safe_load((ROOT / "Pulumi.staging.yaml").read_text())["config"]["board:environment"]
    staging |= {"pinned": True, "images": {"api": "r/api:1"}, "release": {"promote": "manual"}}
    staging["kubernetes"] |= {"hostnames": ["board.example.com"]}
    staging["kubernetes"]["namespace"] |= {"name": "board-staging", "create": False}
    settings = ephemeral.pr_settings(staging, "board", "pr-123")
    assert settings["kubernetes"]["url"] == "http://board-pr-123.localhost:8000"
    assert settings["kubernetes"]["namespace"] == {"quota": staging["kubernetes"]["namespace"]["quota"]}
    assert not settings["protect_data"]
    assert not {"pinned", "images", "release"} & set(settings)
    assert "hostnames" not in settings["kubernetes"]
    assert load(settings).cluster.host == "board-pr-123.localhost"


def test_restored_stack_file_of_a_pull_request_contains_no_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Pulumi.yaml", "Pulumi.staging.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(ephemeral, "ROOT", tmp_path)
    monkeypatch.setattr(pulumi_stack, "FOLDER", tmp_path)
    monkeypatch.setattr(ephemeral, "last_update", lambda _: {"result": "succeeded"})
    secrets = {name: {"secure": "v1:x"} for name in ("database-password", "cache-password")}

    def restore(*words: str, text: str = "") -> str:
        if words[:2] == ("config", "refresh"):
            restored = {"board:app": {"name": "board"}, "board:secrets": secrets}
            (tmp_path / "Pulumi.pr-1.yaml").write_text(yaml.safe_dump({"config": restored}))
        return '[{"name": "pr-1"}]'

    monkeypatch.setattr(ephemeral, "pulumi", restore)
    ephemeral.main("pr-1")
    assert pulumi_stack.stack_file("pr-1").environment["kubernetes"]["url"] == "http://board-pr-1.localhost:8000"
    assert yaml.safe_load((tmp_path / "Pulumi.pr-1.yaml").read_text())["config"]["board:secrets"] == secrets


def load(settings: dict[str, Any]) -> Environment:
    return load_environment(settings, APP)


# ---------------------------------------------------------------------- drift


def test_replicas_set_by_an_autoscaler_are_not_reported_as_drift() -> None:
    metadata = {"name": "api-blue", "namespace": "board"}
    target = {"spec": {"scaleTargetRef": {"name": "api-blue"}}, "metadata": {"name": "api", "namespace": "board"}}
    resources = [
        {"type": "kubernetes:apps/v1:Deployment", "inputs": {"metadata": metadata}, "ignoreChanges": ["*"]},
        {"type": "kubernetes:apps/v1:Deployment", "inputs": {"metadata": metadata | {"name": "web-blue"}}},
        {"type": "kubernetes:autoscaling/v2:HorizontalPodAutoscaler", "inputs": target, "ignoreChanges": ["*"]},
        {"type": "tiers:slot:Slot"},
    ]
    result = drift.comparable_checkpoint({"version": 3, "deployment": {"resources": resources}})["deployment"][
        "resources"
    ]
    assert [resource["ignoreChanges"] for resource in result] == [["spec.replicas"], [], [], []]


# ---------------------------------------------------------------------- the SLO


def test_slo_is_passed_to_the_load_script_as_variables() -> None:
    assert slo.limits(load(environment("prod")).slo) == {
        "RATE": "20", "SECONDS": "300", "ERRORS": "0.001", "P95": "300", "P99": "1000",
    }  # fmt: skip


def values(**counts: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {name: {"values": {"count": count}} for name, count in counts.items()}
    durations = {"values": {"p(95)": 12.3, "p(99)": 45.6}}
    return {"state": {"testRunDurationMs": 20_000}, "metrics": metrics | {"http_req_duration": durations}}


def test_load_measurement_beyond_the_slo_is_reported_with_the_number_of_bad_requests() -> None:
    summary = values(http_reqs=30, failed=7, p95=30, p99=4) | {
        "due": 400,
        "allowed": {"failed": 4, "p95": 20, "p99": 4},
    }
    result = slo.Measurement(summary=summary, limit_exceeded=True, answers=("/: HTTP 503",))
    assert str(result) == "30 requests in 20 s, 7 failed, 95 in 100 within 12 ms, 99 within 46 ms\n    /: HTTP 503"
    assert result.exceeded_limits == (
        "7 of 400 requests failed, at most 4 are allowed; 30 of 400 requests took longer than slo.p95, at most 20 are allowed"
    )


class Stack:
    """Mock of a stack for `slo.watch`, which records rollbacks.

    `live` lists live releases. Each read of the stack outputs returns the next release, and the last release repeats.
    If `beyond` is true, every measurement violates the SLO.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, beyond: bool, *live: str) -> None:
        self.live, self.rollbacks = [*live], list[str]()
        summary = values(http_reqs=400, failed=9, p95=0, p99=0) | {"due": 400, "allowed": {"failed": 4}}
        result = slo.Measurement(summary=summary, limit_exceeded=beyond, answers=())
        monkeypatch.setattr(slo, "outputs", self.outputs)
        monkeypatch.setattr(slo, "measure", lambda *_: result)
        monkeypatch.setattr(slo, "go_back", lambda stack, who: self.rollbacks.append(who))

    def outputs(self, stack: str) -> dict[str, str]:
        release = self.live.pop(0) if len(self.live) > 1 else self.live[0]
        return {"url": "http://board.localhost", "release": release, "live": Slot.BLUE}


def watch() -> None:
    slo.watch("prod", Slo(), APP)


def test_release_within_the_slo_stays_live(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(monkeypatch, False, "2.0-b")
    watch()
    assert not stack.rollbacks


def test_release_beyond_the_slo_is_rolled_back_with_the_reason_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(monkeypatch, True, "2.0-b", "2.0-b", "1.0-a")
    with pytest.raises(
        RunError, match=r"2.0-b exceeds the SLO: 9 of 400 requests failed, at most 4 are allowed; 1.0-a is live again"
    ):
        watch()
    assert stack.rollbacks == ["make watch: 9 of 400 requests failed, at most 4 are allowed"]


def test_release_that_was_replaced_during_the_watch_is_not_rolled_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(monkeypatch, True, "2.0-b", "3.0-c")
    with pytest.raises(RunError, match=r"nothing was changed, because 3.0-c is live now"):
        watch()
    assert not stack.rollbacks


def test_missing_k6_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="k6 is not on PATH; run `python3 -m lab up load`"):
        slo.measure("perf", APP, "http://board.localhost", {})


def test_prod_has_an_slo_and_manual_promotion() -> None:
    assert load(environment("prod")).slo.p99 == 1
    assert load(environment("staging")).release.promote == "auto"
    assert load(environment("prod")).release.promote == "manual"


@pytest.mark.parametrize("stack", ["pr-Feature", "pr-a_b", "pr-1.2", "pr-", "pr-1-", "pr-" + "x" * 55])
def test_pull_request_environment_with_an_invalid_host_name_is_refused(stack: str) -> None:
    with pytest.raises(ConfigError, match=r"^ENV: .* can't be the first part of a host name; use .*, as in pr-123$"):
        ephemeral.pr_settings(environment("staging"), "board", stack)
