"""The pipeline: its workflows run make targets and little else, with pinned actions and no more rights than they need."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from pulumi import RunError

from ci import drift, ephemeral, pins, slo
from ci.preview import POSTED_TO
from components.config import ConfigError, Environment, Slo, load_app, load_environment
from components.release import Slot
from components.workload import Image

from .program import ROOT, environment, project

APP = load_app(project())

WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted((ROOT / ".github/workflows").glob("*.yml"))}
ACTION = yaml.safe_load((ROOT / ".github/actions/prepare/action.yml").read_text())
TEXT = "\n".join(file.read_text() for file in (ROOT / ".github").rglob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
BESIDES = {
    'git checkout --detach "$(make --silent deployed ENV=${{ matrix.environment }})"',
    'cat "$APP/reports/preview-prod.txt" >> "$GITHUB_STEP_SUMMARY"',
}
"""Commands that are no make target: each is about the runner itself."""


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
    def test_job_runs_make_targets_only(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            for command in step.get("run", "").splitlines():
                if command not in BESIDES:
                    call = re.fullmatch(
                        r'make (?:--silent )?([a-z-]+)(?: [A-Z]+=[^ ;&|]+| [A-Z]+=.*?\}\})*(?: >> "\$GITHUB_OUTPUT")?',
                        command,
                    )
                    assert call, command
                    assert call[1] in TARGETS, command

    def test_job_has_explicit_permissions_and_a_timeout(self, job: dict[str, Any]) -> None:
        assert isinstance(job["permissions"], dict)
        assert "write-all" not in job["permissions"].values()
        assert job["permissions"].get("contents", "read") == "read"
        assert 0 < job["timeout-minutes"] <= 60

    def test_job_expands_no_untrusted_text_in_commands(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            for expression in re.findall(r"\$\{\{\s*(.*?)\s*\}\}", step.get("run", "")):
                assert expression in ("matrix.environment", "github.event.number"), expression

    def test_job_leaves_no_token_in_the_checkout(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False

    def test_job_with_secrets_has_an_environment_and_excludes_forks(self, job: dict[str, Any]) -> None:
        text = yaml.safe_dump(job)
        if "secrets." in text or "id-token" in job["permissions"]:
            assert "environment" in job or job["permissions"].get("attestations") == "write"
        if "secrets." in text and "github.event.number" in text + str(job.get("if")):
            assert "head.repo.full_name == github.repository" in job["if"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_has_no_permissions_and_one_concurrency_group(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {}
    groups = [workflow.get("concurrency"), *(job.get("concurrency") for job in workflow["jobs"].values())]
    [group] = [entry for entry in groups if entry]
    assert group["cancel-in-progress"] is (name == "pull-request"), "an update is never cancelled"


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: *(\S+)(.*)", TEXT)
    assert len(used) > 10
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: say which version it is"
    assert len(set(used)) == len({action.partition("@")[0] for action, _ in used}), "one version of each"


def test_preview_comment_step_has_the_variables_to_post() -> None:
    steps = [step for job in JOBS.values() for step in job["steps"] if "make preview-comment" in step.get("run", "")]
    assert steps
    for step in steps:
        # GitHub itself gives GITHUB_REPOSITORY to every step.
        assert {*POSTED_TO} - {*step["env"]} == {"GITHUB_REPOSITORY"}


def test_forks_get_no_secrets_and_no_permissions() -> None:
    for name, workflow in WORKFLOWS.items():
        # YAML 1.1 reads `on` as true.
        assert "pull_request_target" not in workflow[True], name
        if "pull_request" in workflow[True]:
            for job in workflow["jobs"].values():
                if "secrets." in yaml.safe_dump(job) or set(job["permissions"]) - {"contents"}:
                    assert "head.repo.full_name == github.repository" in job["if"]
                    assert "user.login != 'dependabot[bot]'" in job["if"], "Dependabot gets no secrets from GitHub"


UPDATES = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]


@pytest.mark.parametrize("entry", UPDATES, ids=lambda entry: f"{entry['package-ecosystem']}-{entry['directories'][0]}")
def test_dependabot_reads_folders_that_exist(entry: dict[str, Any]) -> None:
    for pattern in entry["directories"]:
        assert list(ROOT.glob(pattern.strip("/") or "*")), pattern


@pytest.mark.parametrize(
    ("ecosystem", "file", "by_hand"),
    [
        ("pip", "requirements*.txt", {".", "tests/compose/classic/backend"}),
        ("gomod", "go.sum", {"lab/toolchain/upstream"}),
        ("npm", "package-lock.json", set[str]()),
    ],
)
def test_dependabot_reads_every_file_of_pins(ecosystem: str, file: str, by_hand: set[str]) -> None:
    tracked = subprocess.run(["git", "ls-files", f"**/{file}", file], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git history of this folder: which files are tracked is not known")
    folders = {str(PurePosixPath(name).parent) for name in tracked.stdout.split()}
    patterns = [path for entry in UPDATES if entry["package-ecosystem"] == ecosystem for path in entry["directories"]]
    read = {str(match.relative_to(ROOT)) for path in patterns for match in ROOT.glob(path.strip("/"))}
    assert len(folders) > len(by_hand)
    assert folders - read == by_hand


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
ASKED = {
    "environment.images.api": Image(reference="r/api:1", path="app.api.build", context="api"),
    "environment.toolbox": Image(reference=f"python:3@{DIGEST}", path="environment.toolbox"),
}
KNOWN = {"environment.images.api": f"r/api:1@{DIGEST}", "environment.toolbox": f"python:3@{DIGEST}"}


def test_images_of_another_commit_are_refused() -> None:
    assert pins.checked(ASKED, KNOWN | {"environment.images.old": "r/old:1"}, "release.json") == KNOWN
    with pytest.raises(RunError, match=r"release.json has r/api:2@.*, and the files describe r/api:1; check out"):
        pins.checked(ASKED, KNOWN | {"environment.images.api": f"r/api:2@{DIGEST}"}, "release.json")
    with pytest.raises(
        RunError, match=r"environment.images.api: it names no digest of r/api:1; run `make images PIN=yes`"
    ):
        pins.checked(ASKED, KNOWN | {"environment.images.api": "r/api:1"}, "it")


def test_image_of_one_environment_only_is_pinned_by_its_own_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A single-instance cache in staging has no proxy. Every image that both environments have is the one tested in staging."""
    other = f"sha256:{'2' * 64}"
    proven = {path: f"{entry.reference}@{DIGEST}" for path, entry in pins.wanted("staging").items()}
    pinned = {path: f"{entry.reference}@{other}" for path, entry in pins.wanted("prod").items()}
    used: dict[str, str] = {}
    (tmp_path / "release.json").write_text(json.dumps(proven))
    monkeypatch.setattr(pins, "FILE", tmp_path / "release.json")
    monkeypatch.setattr(pins, "named", lambda _: pinned)
    monkeypatch.setattr(pins, "write", lambda _, images: used.update(images))
    pins.use("prod")
    assert used.keys() == pinned.keys()
    for path, image in used.items():
        assert image == (proven[path] if proven.get(path, "").startswith(image.partition("@")[0]) else pinned[path])
    assert used["environment.images.api"].endswith(DIGEST)
    assert used["environment.proxy"].endswith(other)
    monkeypatch.setattr(pins, "named", lambda _: {})
    with pytest.raises(RunError, match=r"environment\.proxy: release\.json names no digest of haproxy:"):
        pins.use("prod")
    (tmp_path / "release.json").write_text(json.dumps(proven | {"environment.images.api": f"r/api:2@{DIGEST}"}))
    monkeypatch.setattr(pins, "named", lambda _: pinned)
    with pytest.raises(RunError, match="check out the commit it is of"):
        pins.use("prod")


def test_images_named_by_an_environment_are_listed_by_path() -> None:
    assert pins.given({"images": {"api": "r/api:1"}, "toolbox": "python:3"}) == {
        "environment.images.api": "r/api:1", "environment.toolbox": "python:3",
    }  # fmt: skip
    assert pins.given({}) == {}


# ---------------------------------------------------------------------- environments of pull requests


def test_environment_of_a_pull_request_has_its_own_url_and_namespace() -> None:
    staging = yaml.safe_load((ROOT / "Pulumi.staging.yaml").read_text())["config"]["board:environment"]
    staging |= {"pinned": True, "images": {"api": "r/api:1"}, "release": {"promote": "manual"}}
    staging["kubernetes"] |= {"hostnames": ["board.example.com"]}
    staging["kubernetes"]["namespace"] |= {"name": "board-staging", "create": False}
    settings = ephemeral.like(staging, "board", "pr-123")
    assert settings["kubernetes"]["url"] == "http://board-pr-123.localhost:8000"
    assert settings["kubernetes"]["namespace"] == {"quota": staging["kubernetes"]["namespace"]["quota"]}
    assert not settings["protect_data"]
    assert not {"pinned", "images", "release"} & set(settings)
    assert "hostnames" not in settings["kubernetes"]
    assert load(settings).cluster.host == "board-pr-123.localhost"


def load(settings: dict[str, Any]) -> Environment:
    return load_environment(settings, APP)


# ---------------------------------------------------------------------- drift


def test_replicas_set_by_an_autoscaler_are_no_drift() -> None:
    metadata = {"name": "api-blue", "namespace": "board"}
    target = {"spec": {"scaleTargetRef": {"name": "api-blue"}}, "metadata": {"name": "api", "namespace": "board"}}
    left = [
        {"type": "kubernetes:apps/v1:Deployment", "inputs": {"metadata": metadata}, "ignoreChanges": ["*"]},
        {"type": "kubernetes:apps/v1:Deployment", "inputs": {"metadata": metadata | {"name": "web-blue"}}},
        {"type": "kubernetes:autoscaling/v2:HorizontalPodAutoscaler", "inputs": target, "ignoreChanges": ["*"]},
        {"type": "tiers:slot:Slot"},
    ]
    seen = drift.seeing({"version": 3, "deployment": {"resources": left}})["deployment"]["resources"]
    assert [resource["ignoreChanges"] for resource in seen] == [["spec.replicas"], [], [], []]


# ---------------------------------------------------------------------- the SLO


def test_slo_is_passed_to_the_load_script_as_variables() -> None:
    assert slo.limits(load(environment("prod")).slo) == {
        "RATE": "20", "SECONDS": "300", "ERRORS": "0.001", "P95": "300", "P99": "1000",
    }  # fmt: skip


def values(**counts: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {name: {"values": {"count": count}} for name, count in counts.items()}
    took = {"values": {"p(95)": 12.3, "p(99)": 45.6}}
    return {"state": {"testRunDurationMs": 20_000}, "metrics": metrics | {"http_req_duration": took}}


def test_measurement_beyond_the_slo_is_reported_with_counts() -> None:
    summary = values(http_reqs=30, failed=7, p95=30, p99=4) | {
        "due": 400,
        "allowed": {"failed": 4, "p95": 20, "p99": 4},
    }
    seen = slo.Measured(summary=summary, beyond=True, answers=("/: HTTP 503",))
    assert str(seen) == "30 requests in 20 s, 7 failed, 95 in 100 within 12 ms, 99 within 46 ms\n    /: HTTP 503"
    assert seen.why == ("7 of 400 requests failed, and 4 may; 30 of 400 requests took longer than slo.p95, and 20 may")


class Stack:
    """Stand-in for a stack: its live release, a measurement within or beyond the SLO, and the rollbacks it receives."""

    def __init__(self, patched: pytest.MonkeyPatch, beyond: bool, *live: str) -> None:
        self.live, self.back = [*live], list[str]()
        summary = values(http_reqs=400, failed=9, p95=0, p99=0) | {"due": 400, "allowed": {"failed": 4}}
        seen = slo.Measured(summary=summary, beyond=beyond, answers=())
        patched.setattr(slo, "outputs", self.outputs)
        patched.setattr(slo, "measure", lambda *_: seen)
        patched.setattr(slo, "go_back", lambda stack, who: self.back.append(who))

    def outputs(self, stack: str) -> dict[str, str]:
        release = self.live.pop(0) if len(self.live) > 1 else self.live[0]
        return {"url": "http://board.localhost", "release": release, "live": Slot.BLUE}


def watch() -> None:
    slo.watch("prod", Slo(), APP)


def test_release_within_the_slo_stays_live(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(monkeypatch, False, "2.0-b")
    watch()
    assert not stack.back


def test_release_beyond_the_slo_is_rolled_back_with_the_reason_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(monkeypatch, True, "2.0-b", "2.0-b", "1.0-a")
    with pytest.raises(
        RunError, match=r"2.0-b is beyond the SLO: 9 of 400 requests failed, and 4 may; 1.0-a is live again"
    ):
        watch()
    assert stack.back == ["make watch: 9 of 400 requests failed, and 4 may"]


def test_release_that_changed_during_the_watch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(monkeypatch, True, "2.0-b", "3.0-c")
    with pytest.raises(RunError, match=r"by now 3.0-c is live, so nothing was changed"):
        watch()
    assert not stack.back


def test_missing_k6_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="no `k6` on PATH to measure with; run `python3 -m lab up load`"):
        slo.measure("perf", APP, "http://board.localhost", {})


def test_prod_has_an_slo_and_manual_promotion() -> None:
    assert load(environment("prod")).slo.p99 == 1
    assert load(environment("staging")).release.promote == "auto"
    assert load(environment("prod")).release.promote == "manual"


@pytest.mark.parametrize("stack", ["pr-Feature", "pr-a_b", "pr-1.2", "pr-", "pr-1-", "pr-" + "x" * 55])
def test_environment_of_a_pull_request_needs_a_valid_host_name(stack: str) -> None:
    with pytest.raises(ConfigError, match=r"^ENV: .* begins the host of its url; use .*, as in pr-123$"):
        ephemeral.like(environment("staging"), "board", stack)
