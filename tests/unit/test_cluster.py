"""Errors about an unreachable cluster, and about workloads that do not start in a reachable one."""

import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace as Some
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiException
from pulumi import RunError

from components.config import Kubernetes, Namespace
from components.platforms import cluster

from .program import first

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


def kubeconfig(folder: Path, port: int, context: str = "here") -> Path:
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


def test_reachable_cluster_is_found_in_any_kubeconfig_file(
    tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "none", kubeconfig(tmp_path, server, "first"), kubeconfig(tmp_path, 1, "second")]
    monkeypatch.setenv("KUBECONFIG", ":".join(str(file) for file in files))
    cluster.check("first")
    # kubectl does the same: of two clusters with one name the first counts.
    cluster.check("second")


def test_missing_context_is_refused_with_the_existing_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, 1)))
    with pytest.raises(
        RunError, match=r"environment\.kubernetes\.context: lab is not in .*there are: here.*make lab-cluster"
    ):
        cluster.check("lab")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(RunError, match="the file is empty or missing"):
        cluster.check("lab")


def test_cluster_that_does_not_answer_is_refused_with_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, 1)))
    with pytest.raises(
        RunError, match=r"environment\.kubernetes\.context: the server of here does not answer at 127\.0\.0\.1:1"
    ):
        cluster.check("here")


def test_kubeconfig_that_is_not_yaml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").write_text("{")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    with pytest.raises(RunError, match=r"KUBECONFIG: .*broken is not YAML"):
        cluster.check("here")


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (CONFLICT, 'helm, kubectl has changed it (.spec.replicas, .spec.template.spec.containers[name="web"].image)'),
        ('conflict with "x" using apps/v1: .spec.replicas', "x has changed it (.spec.replicas)"),
        ("timed out waiting to be Ready", "it is not ready in time"),
        ('"a/b" failed to fully initialize or become live: b', "it is not ready in time"),
        ("[ProgressDeadlineExceeded] timed out progressing", "it is not ready in time"),
        ("Job failed: BackoffLimitExceeded", "it failed"),
        ("1 error: quota  exceeded\n pods", "1 error: quota exceeded pods"),
    ],
)
def test_cause_of_a_failure_is_summarised_in_one_sentence(cause: str, message: str) -> None:
    assert cluster.reason(cause).startswith(message)


def status(state: dict[str, Any], restarts: int = 0, last: Any = None) -> Any:
    states = {"waiting": None, "running": None, "terminated": None} | state
    return Some(name="api", ready=False, restart_count=restarts, state=Some(**states), last_state=Some(terminated=last))


class Api:
    """Stand-in for the parts of the cluster's API that an explanation reads."""

    def __init__(self, *statuses: Any) -> None:
        pod = Some(
            metadata=Some(name="api-blue-1", creation_timestamp=1),
            status=Some(phase="Running", container_statuses=statuses, init_container_statuses=None),
        )
        involved = Some(kind="Pod", name="api-blue-1")
        other = Some(kind="Pod", name="web-blue-1")
        self.pods = [pod]
        self.events = [
            Some(
                involved_object=where, last_timestamp="1", event_time=None, reason="Failed", message=f"of {where.name}"
            )
            for where in (involved, other)
        ]
        self.asked: list[Any] = []

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        self.asked.append(label_selector)
        return Some(items=self.pods)

    def list_namespaced_event(self, namespace: str, field_selector: str) -> Any:
        return Some(items=self.events)

    def read_namespaced_pod_log(self, pod: str, namespace: str, **more: Any) -> str:
        self.asked.append(more)
        return "first\nthe moon is wrong\n"


def explanation(api: Api, kind: str, name: str) -> str:
    manifest = first("staging").one(kind, name).inputs
    return "\n".join(cluster._told(api, manifest))  # pyright: ignore[reportPrivateUsage]


def test_crash_loop_is_explained_with_the_log_of_the_previous_run() -> None:
    ended = Some(reason="Error", exit_code=3)
    api = Api(status({"waiting": Some(reason="CrashLoopBackOff", message="back-off")}, 2, ended))
    text = explanation(api, "Deployment", "api-blue")
    assert "container api: waiting, CrashLoopBackOff (back-off), 2 restarts (before: Error, exit code 3)" in text
    assert "    | the moon is wrong" in text
    assert api.asked[1]["previous"] is True
    assert "tiers.release=" in api.asked[0]
    assert "of api-blue-1" in text
    assert "of web-blue-1" not in text


def test_sql_runs_all_statements_and_returns_the_last_result(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def execute(settings: object, instance: str, labels: object, command: list[str]) -> str:
        commands.append(command)
        return "WARNING:  something\n7"

    monkeypatch.setattr(cluster, "execute", execute)
    settings: Any = None
    assert cluster.sql(settings, "board", {}, "ONE", "TWO", user="owner", database="of") == "7"
    assert commands[0][-8:] == ["--username", "owner", "--dbname", "of", "--command", "ONE", "--command", "TWO"]
    cluster.sql(settings, "board", {}, "ONE")
    # Without a user and a database psql uses its defaults.
    assert commands[1][:1] + commands[1][-3:] == ["psql", "--set=ON_ERROR_STOP=1", "--command", "ONE"]


class Once:
    """CronJob whose manual Jobs end as the test configures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pods: Any, succeeded: int = 0) -> None:
        self.api = Api()
        self.api.pods, self.removed = list(pods), list[str]()
        self.job = Some(metadata=Some(name="list-1"), status=Some(succeeded=succeeded, failed=1 - succeeded))
        involved = Some(kind="Job", name="list-1")
        quota = {"last_timestamp": "1", "event_time": None, "reason": "FailedCreate", "message": "exceeded quota"}
        self.api.events = [Some(involved_object=involved, **quota)]
        monkeypatch.setattr("kubernetes.config.new_client_from_config", lambda **_: None)
        monkeypatch.setattr("kubernetes.client.BatchV1Api", lambda _: self)
        monkeypatch.setattr(cluster, "_core", lambda _: self.api)
        monkeypatch.setattr(cluster, "by_hand", lambda *_: None)
        monkeypatch.setattr(cluster.time, "sleep", lambda _: None)

    def read_namespaced_cron_job(self, *_: str) -> None: ...

    def create_namespaced_job(self, *_: object) -> Any:
        return self.job

    def delete_namespaced_job(self, name: str, namespace: str, **_: str) -> None:
        self.removed.append(name)

    def run(self) -> str:
        settings = Kubernetes.model_construct(context="", namespace=Namespace(name="board"), schedule_within=0)
        return cluster.run_once(settings, "board", "backup-verify", ("backup", "list"))


def pod_of_a_job(phase: str, *statuses: Any) -> Any:
    where = Some(name="list-1-x", namespace="board", creation_timestamp=1)
    return Some(metadata=where, status=Some(phase=phase, container_statuses=statuses, init_container_statuses=None))


PULLING = status({"waiting": Some(reason="ImagePullBackOff", message=None)})


@pytest.mark.parametrize(
    ("pods", "message"), [([], "exceeded quota"), ([pod_of_a_job("Pending", PULLING)], "ImagePullBackOff")]
)
def test_job_that_never_starts_is_removed_at_once(
    pods: list[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait can last six hours, with the database read-only meanwhile."""
    once = Once(monkeypatch, *pods)
    with pytest.raises(RunError, match=rf"(?s)`backup list` does not begin, as Job list-1, .*{message}"):
        once.run()
    assert once.removed == ["list-1"]


def test_running_job_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    once = Once(monkeypatch, pod_of_a_job("Succeeded"), succeeded=1)
    assert once.run().endswith("the moon is wrong")
    assert not once.removed


def test_failed_job_without_a_log_is_still_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    once = Once(monkeypatch, pod_of_a_job("Failed"))

    def gone(*_: str, **__: object) -> str:
        raise ApiException(status=400, reason="Bad Request")

    monkeypatch.setattr(once.api, "read_namespaced_pod_log", gone)
    with pytest.raises(RunError, match=r"failed, as Job list-1: \(the log of list-1-x can't be read: Bad Request\)"):
        once.run()


def test_image_pull_failure_is_explained_without_reading_a_log() -> None:
    api = Api(status({"waiting": Some(reason="ImagePullBackOff", message=None)}))
    assert "waiting, ImagePullBackOff, 0 restarts" in explanation(api, "Deployment", "api-blue")
    assert len(api.asked) == 1


def test_job_is_explained_by_its_own_pods() -> None:
    api = Api(status({"terminated": Some(reason="Error", exit_code=9)}))
    text = explanation(api, "Job", "blue-api-migrate")
    assert "container api: ended, Error, exit code 9" in text
    assert api.asked[0] == "batch.kubernetes.io/job-name=blue-api-migrate"
    assert api.asked[1]["previous"] is False


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
def test_any_kubeconfig_is_used_or_refused(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_bytes(content)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(RunError, match=r"^(environment\.kubernetes\.context|KUBECONFIG): .*; "):
        cluster.check("here")


def test_unreadable_kubeconfig_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'loop'}:{tmp_path / 'folder'}:{'x' * 5000}")
    with pytest.raises(RunError, match=r"^environment\.kubernetes\.context: here is not in .*; name one of them"):
        cluster.check("here")
