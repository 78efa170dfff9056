"""Tests of the errors about an unreachable cluster and about workloads that do not start."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as Stub
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException
from pulumi import RunError

from components.platforms import Location
from components.platforms.kubernetes import errors, jobs, kubeconfig, pod_exec

from .program import first_release

CONFLICT = """\
1 error occurred:
\t* the Kubernetes API server reported that "board/web-blue" failed to fully initialize or become live: Server-Side Apply
field conflict detected. The resource managed by field manager "pulumi-kubernetes-7b" had an apply conflict: Apply failed
with 2 conflicts: conflicts with "kubectl" with subresource "scale" using apps/v1:
- .spec.replicas
conflicts with "helm" using apps/v1:
- .spec.template.spec.containers[name="web"].image
"""


@pytest.fixture
def server() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def write_kubeconfig(folder: Path, port: int, context: str = "here") -> Path:
    file = folder / context
    file.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
                "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return file


def test_kubernetes_context_is_found_in_any_of_several_kubeconfig_files(
    tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "none", write_kubeconfig(tmp_path, server, "first"), write_kubeconfig(tmp_path, 1, "second")]
    monkeypatch.setenv("KUBECONFIG", ":".join(str(file) for file in files))
    kubeconfig.check("first")
    # Both files define the cluster `c`. The first definition counts, as in kubectl.
    # Therefore the context `second` reaches `server` too.
    kubeconfig.check("second")


def test_missing_kubernetes_context_is_refused_with_a_list_of_the_existing_contexts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, 1)))
    with pytest.raises(
        RunError,
        match=r"environment\.kubernetes\.context: the context lab is not in .*contexts: here.*make lab-cluster",
    ):
        kubeconfig.check("lab")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(RunError, match="the file is empty or missing"):
        kubeconfig.check("lab")


def test_cluster_that_does_not_answer_is_refused_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, 1)))
    with pytest.raises(
        RunError,
        match=r"environment\.kubernetes\.context: the server of context here does not answer at 127\.0\.0\.1:1",
    ):
        kubeconfig.check("here")


def test_kubeconfig_that_is_not_yaml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").write_text("{")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    with pytest.raises(RunError, match=r"KUBECONFIG: .*broken is not YAML"):
        kubeconfig.check("here")


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (
            CONFLICT,
            'fields that this program manages were changed by helm, kubectl: .spec.replicas, .spec.template.spec.containers[name="web"].image',
        ),
        (
            'conflict with "x" using apps/v1: .spec.replicas',
            "fields that this program manages were changed by x: .spec.replicas",
        ),
        ("timed out waiting to be Ready", "not ready in time"),
        ('"a/b" failed to fully initialize or become live: b', "not ready in time"),
        ("[ProgressDeadlineExceeded] timed out progressing", "not ready in time"),
        ("Job failed: BackoffLimitExceeded", "failed"),
        ("1 error: quota  exceeded\n pods", "1 error: quota exceeded pods"),
    ],
)
def test_long_kubernetes_error_is_shortened_to_its_cause(cause: str, message: str) -> None:
    assert errors.reason(cause).startswith(message)


def status(state: dict[str, Any], restarts: int = 0, last: Any = None) -> Any:
    states = {"waiting": None, "running": None, "terminated": None} | state
    return Stub(name="api", ready=False, restart_count=restarts, state=Stub(**states), last_state=Stub(terminated=last))


class Api:
    """Mock of the Kubernetes API calls that `errors.evidence` uses."""

    def __init__(self, *statuses: Any) -> None:
        pod = Stub(
            metadata=Stub(name="api-blue-1", creation_timestamp=1),
            status=Stub(phase="Running", container_statuses=statuses, init_container_statuses=None),
        )
        involved = Stub(kind="Pod", name="api-blue-1")
        other = Stub(kind="Pod", name="web-blue-1")
        self.pods = [pod]
        self.events = [
            Stub(
                involved_object=entry, last_timestamp="1", event_time=None, reason="Failed", message=f"of {entry.name}"
            )
            for entry in (involved, other)
        ]
        self.requests: list[Any] = []

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        self.requests.append(label_selector)
        return Stub(items=self.pods)

    def list_namespaced_event(self, namespace: str, field_selector: str) -> Any:
        return Stub(items=self.events)

    def read_namespaced_pod_log(self, pod: str, namespace: str, **more: Any) -> str:
        self.requests.append(more)
        return "first\nthe moon is wrong\n"


def explanation(api: Api, kind: str, name: str) -> str:
    manifest = first_release("staging").get_object(kind, name).inputs
    return "\n".join(errors.evidence(api, manifest))


def test_error_about_a_crash_loop_contains_the_log_of_the_previous_container_run() -> None:
    ended = Stub(reason="Error", exit_code=3)
    api = Api(status({"waiting": Stub(reason="CrashLoopBackOff", message="back-off")}, 2, ended))
    text = explanation(api, "Deployment", "api-blue")
    assert "container api: waiting, CrashLoopBackOff (back-off), 2 restarts (before: Error, exit code 3)" in text
    assert "    | the moon is wrong" in text
    assert api.requests[1]["previous"] is True
    assert "tiers.release=" in api.requests[0]
    assert "of api-blue-1" in text
    assert "of web-blue-1" not in text


def test_sql_in_a_database_pod_runs_all_statements_and_returns_the_last_result(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def execute(selector: pod_exec.PodSelector, command: list[str]) -> str:
        commands.append(command)
        return "WARNING:  something\n7"

    monkeypatch.setattr(pod_exec, "execute", execute)
    location = Location(app="board", stack="prod", context="lab", namespace="board")
    assert pod_exec.sql(location, {}, "ONE", "TWO", user="owner", database="of") == "7"
    assert commands[0][-8:] == ["--username", "owner", "--dbname", "of", "--command", "ONE", "--command", "TWO"]
    pod_exec.sql(location, {}, "ONE")
    # Without user and database in the command, psql uses its defaults.
    assert commands[1][:1] + commands[1][-3:] == ["psql", "--set=ON_ERROR_STOP=1", "--command", "ONE"]


class ManualJob:
    """Mock of a CronJob and of a Job that is started from the CronJob by hand. The test sets how the Job ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pods: Any, succeeded: int = 0) -> None:
        self.api = Api()
        self.api.pods, self.removed = list(pods), list[str]()
        self.job = Stub(metadata=Stub(name="list-1"), status=Stub(succeeded=succeeded, failed=1 - succeeded))
        involved = Stub(kind="Job", name="list-1")
        quota = {"last_timestamp": "1", "event_time": None, "reason": "FailedCreate", "message": "exceeded quota"}
        self.api.events = [Stub(involved_object=involved, **quota)]
        monkeypatch.setattr("kubernetes.config.new_client_from_config", lambda **_: None)
        monkeypatch.setattr("kubernetes.client.BatchV1Api", lambda _: self)
        monkeypatch.setattr(jobs, "core", lambda _: self.api)
        monkeypatch.setattr(jobs, "manual_job", lambda *_: None)
        monkeypatch.setattr(jobs.time, "sleep", lambda _: None)

    def read_namespaced_cron_job(self, *_: str) -> None: ...

    def create_namespaced_job(self, *_: object) -> Any:
        return self.job

    def delete_namespaced_job(self, name: str, namespace: str, **_: str) -> None:
        self.removed.append(name)

    def run(self) -> str:
        return jobs.run_once("", "board", "backup-verify", ("backup", "list"), schedule_within=0)


def pod_of_a_job(phase: str, *statuses: Any) -> Any:
    metadata = Stub(name="list-1-x", namespace="board", creation_timestamp=1)
    return Stub(metadata=metadata, status=Stub(phase=phase, container_statuses=statuses, init_container_statuses=None))


PULLING = status({"waiting": Stub(reason="ImagePullBackOff", message=None)})


@pytest.mark.parametrize(
    ("pods", "message"), [([], "exceeded quota"), ([pod_of_a_job("Pending", PULLING)], "ImagePullBackOff")]
)
def test_manual_job_that_does_not_start_is_deleted(
    pods: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that the Job is removed at once. Otherwise the database could stay read-only for six hours."""
    manual_job = ManualJob(monkeypatch, *pods)
    with pytest.raises(RunError, match=rf"(?s)`backup list` did not start: Job list-1 had no running pod, .*{message}"):
        manual_job.run()
    assert manual_job.removed == ["list-1"]


def test_manual_job_runs_to_its_end_and_returns_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    manual_job = ManualJob(monkeypatch, pod_of_a_job("Succeeded"), succeeded=1)
    assert manual_job.run().endswith("the moon is wrong")
    assert not manual_job.removed


def test_failed_manual_job_is_reported_even_if_its_log_can_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    manual_job = ManualJob(monkeypatch, pod_of_a_job("Failed"))

    def refuse_log(*_: str, **__: object) -> str:
        raise ApiException(status=400, reason="Bad Request")

    monkeypatch.setattr(manual_job.api, "read_namespaced_pod_log", refuse_log)
    with pytest.raises(RunError, match=r"failed in Job list-1: \(the log of list-1-x can't be read: Bad Request\)"):
        manual_job.run()


def test_error_about_an_image_pull_failure_is_written_without_reading_a_log() -> None:
    api = Api(status({"waiting": Stub(reason="ImagePullBackOff", message=None)}))
    assert "waiting, ImagePullBackOff, 0 restarts" in explanation(api, "Deployment", "api-blue")
    assert len(api.requests) == 1


def test_error_about_a_failed_job_contains_the_state_of_the_pods_of_the_job() -> None:
    api = Api(status({"terminated": Stub(reason="Error", exit_code=9)}))
    text = explanation(api, "Job", "blue-api-migrate")
    assert "container api: ended, Error, exit code 9" in text
    assert api.requests[0] == "batch.kubernetes.io/job-name=blue-api-migrate"
    assert api.requests[1]["previous"] is False


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"- 1\n", b"text\n", b"a: b: c\n", b"contexts: 5\n", b"contexts: {a: b}\n", b"contexts: [1]\n",
        b"contexts: [{name: here}]\n", b"contexts: [{name: here, context: 5}]\n", b"contexts: [{name: [1], context: {}}]\n",
        b"contexts: [{name: here, context: {cluster: {a: b}}}]\n",
        b"contexts: [{name: here, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: 'https://x:99999'}}]\n",
        b"contexts: [{name: here, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: 'https://[x'}}]\n",
        b"contexts: [{name: here, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: 'https://%s'}}]\n" % (b"x" * 70),
        b"contexts: [{name: here, context: {cluster: c}}]\nclusters: [{name: c}]\n",
        b"contexts: [{name: here, context: {cluster: c}}]\nclusters: {}\n",
        b"[" * 3000,
    ],
)  # fmt: skip
def test_invalid_kubeconfig_is_refused_with_a_fix(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_bytes(content)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(RunError, match=r"^(environment\.kubernetes\.context|KUBECONFIG): .*; "):
        kubeconfig.check("here")


def test_unreadable_kubeconfig_is_refused_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'loop'}:{tmp_path / 'folder'}:{'x' * 5000}")
    with pytest.raises(
        RunError, match=r"^environment\.kubernetes\.context: the context here is not in .*; use an existing context"
    ):
        kubeconfig.check("here")
