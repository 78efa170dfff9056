"""Tests of the board in namespaces of a cluster. The tests run in file order: use, failures, scaling, releases, prod, removal."""

import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes
import pytest
import requests
import yaml

from .gateway import HIDDEN, send_raw_request
from .leftovers import LABEL
from .stack import ROOT, SECRETS, ClusterStack, eventually, run_kubectl, steady_requests

API_SETTINGS = {"replicas": 2, "cpu": 0.5, "reserve": 0.05, "memory": "512Mi", "autoscale": {"max": 4, "cpu": 20}}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """Deploy staging once for the tests of this module."""
    board = ClusterStack(tmp_path_factory.mktemp("staging"), "e2e")
    board.environment["tiers"]["api"] = dict(API_SETTINGS)
    board.environment["kubernetes"]["schedule_within"] = "20s"
    board.build_images()
    try:
        board.up()
        yield board
    finally:
        board.destroy(check=False)


def uids(pods: list[Any]) -> set[str]:
    """Return the uids of pods."""
    return {pod.metadata.uid for pod in pods}


def are_ready(stack: ClusterStack, tier: str, slot: str, count: int) -> bool:
    """Return whether a tier has at least `count` pods in a slot and all of them are ready."""
    statuses = [pod.status.container_statuses or [] for pod in stack.pods(tier, slot)]
    return len(statuses) >= count and all(entry and all(status.ready for status in entry) for entry in statuses)


def test_all_five_tiers_answer_through_the_gateway(stack: ClusterStack) -> None:
    outputs = stack.outputs()
    assert outputs["url"] == "http://board-e2e.localhost:8000"
    assert (outputs["live"], outputs["release"].split("-")[0]) == ("blue", "1.0.0")
    assert stack.get("/").headers["X-Release"] == outputs["release"]
    assert stack.live() == {"release": outputs["release"], "slot": "blue"}
    assert stack.get("/metrics").status_code == 404
    port = urlsplit(stack.url).port or 80
    for path in HIDDEN:
        status, body = send_raw_request(port, path, stack.host)
        assert status and b"# TYPE" not in body, path
    assert send_raw_request(port, b"/metrics-of-2026", stack.host)[0] == 200, (
        "a longer path is a page and must not be hidden"
    )


def test_posted_message_is_stored_and_found_and_its_job_runs(stack: ClusterStack) -> None:
    message = stack.post("a message with a word like rhubarb and some more of them to shorten")
    assert [entry["id"] for entry in stack.get("/api/search?q=rhubarb").json()] == [message["id"]]
    path = f"/api/messages/{message['id']}"
    eventually(lambda: stack.get(path).json()["processed"] == 1)
    assert stack.get("/api/stats").json()["messages"] == 1, "without seed: true no data is seeded"


def test_make_trace_prints_log_lines_of_a_request_from_web_api_and_worker(stack: ClusterStack) -> None:
    headers = {**stack.headers, "X-Request-Id": "trace-e2e-1"}
    message = {"author": "e2e", "body": "to be followed"}
    posted = requests.post(f"{stack.url}/api/messages", json=message, headers=headers, timeout=10, verify=False).json()
    eventually(lambda: stack.get(f"/api/messages/{posted['id']}").json()["processed"] == 1)
    assert stack.get("/", headers=headers).headers["X-Request-Id"] == "trace-e2e-1"
    assert len(stack.get("/").headers["X-Request-Id"]) == 32, (
        "the web tier must create an id, because the cluster's gateway does not"
    )
    lines = [line.split()[1:] for line in stack.run_ci("trace", "trace-e2e-1").splitlines()]
    assert {words[0] for words in lines} == {"web", "api", "worker"}
    assert all(words[2] == stack.outputs()["release"] for words in lines)


def test_second_update_changes_nothing(stack: ClusterStack) -> None:
    changed = stack.up().changes
    assert set(changed) == {"unchanged"}
    assert changed["unchanged"] > 50


def test_preview_shows_the_replacement_of_the_database(stack: ClusterStack) -> None:
    sizes = stack.environment["tiers"]
    stack.environment["tiers"] = sizes | {"database": {**sizes.get("database", {}), "memory": "640Mi"}}
    assert re.search(r"StatefulSet +database +replace", stack.preview().text)
    stack.environment["tiers"] = sizes


def test_unrestricted_pod_is_refused(stack: ClusterStack) -> None:
    refused = stack.kubectl("run", "root", "--image=python:3.11-slim-bookworm", "--privileged", check=False)
    assert 'violates PodSecurity "restricted:latest"' in refused
    pods_named_root = [
        pod for pod in stack.core.list_namespaced_pod(stack.namespace).items if pod.metadata.name == "root"
    ]
    assert not pods_named_root


def test_no_secret_is_in_plain_text_anywhere(stack: ClusterStack) -> None:
    sources = {"the state": stack.pulumi("stack", "export", check=True).text}
    for file in (stack.folder / ".state").rglob("*.json"):
        sources[f"the state file {file.name}"] = file.read_text()
    sources["every object but Secrets"] = stack.kubectl("get", "all,jobs,httproutes,configmaps,pods", "--output=yaml")
    sources["events"] = stack.kubectl("get", "events", "--output=yaml")
    for tier in ("web", "api", "worker", "database", "cache"):
        [pod, *_] = stack.pods(tier)
        sources[f"logs of {tier}"] = stack.kubectl("logs", pod.metadata.name)
    sources["a preview"] = stack.pulumi("preview", "--diff", check=True).text
    for source, text in sources.items():
        for value in SECRETS.values():
            assert value not in text, source
    [api, *_] = stack.pods("api")
    password = stack.kubectl("exec", api.metadata.name, "--", "cat", "/run/secrets/database-password")
    assert password == SECRETS["database-password"]


def test_pod_has_a_read_only_root_and_no_service_account_token(stack: ClusterStack) -> None:
    for tier in ("web", "api", "worker", "database", "cache"):
        [pod, *_] = stack.pods(tier)
        name = pod.metadata.name
        assert int(stack.kubectl("exec", name, "--", "id", "-u")) > 10_000
        assert "No such file" in stack.kubectl("exec", name, "--", "ls", "/var/run/secrets/kubernetes.io", check=False)
        refused_write = stack.kubectl("exec", name, "--", "sh", "-c", "echo x > /etc/x", check=False)
        assert "Read-only file system" in refused_write


def test_no_request_fails_when_any_pod_is_deleted(stack: ClusterStack) -> None:
    before = stack.get("/api/stats").json()["messages"]
    with steady_requests(stack) as statuses:
        for tier, count in (("web", 2), ("api", 2), ("worker", 1)):
            for pod in stack.pods(tier, "blue"):
                stack.kubectl("delete", "pod", pod.metadata.name, "--wait=false")
                eventually(partial(are_ready, stack, tier, "blue", count), seconds=60)
                time.sleep(2)  # Give the gateway time to notice the ready pod.
    assert set(statuses) == {"200", "201"}, statuses
    assert sum(statuses.values()) > 100
    stats = stack.get("/api/stats").json()
    assert stats["messages"] == before + statuses["201"]
    # Wait long: if a worker was stopped before it began a job, the next worker finds and queues this job only after some time.
    eventually(lambda: stack.get("/api/stats").json()["processed"] == stats["messages"], seconds=120)


def test_drain_evicts_one_pod_at_a_time(stack: ClusterStack) -> None:
    first, second, *_ = stack.pods("web", "blue")

    def evict(pod: Any) -> int:
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.metadata.name, "namespace": stack.namespace},
        }
        try:
            stack.core.create_namespaced_pod_eviction(pod.metadata.name, stack.namespace, body)
        except kubernetes.client.ApiException as error:
            return int(error.status or 0)
        return 201

    with steady_requests(stack) as statuses:
        assert evict(first) == 201
        assert evict(second) == 429, "the disruption budget must allow one eviction at a time"
        eventually(lambda: are_ready(stack, "web", "blue", 2), seconds=60)
        eventually(lambda: evict(second) == 201, seconds=30)
        eventually(lambda: are_ready(stack, "web", "blue", 2), seconds=60)
    assert set(statuses) <= {"200", "201"}, statuses


@pytest.mark.long
def test_api_is_scaled_up_under_load_and_down_again(stack: ClusterStack) -> None:
    def desired_replicas() -> int:
        return int(stack.kubectl("get", "hpa", "api-blue", "--output=jsonpath={.status.desiredReplicas}") or 0)

    def request(_: int) -> int:
        return stack.get("/api/messages?limit=100").status_code

    eventually(lambda: desired_replicas() == 2, seconds=240)
    most_replicas, deadline = 0, time.monotonic() + 120
    with ThreadPoolExecutor(4) as pool:
        for _ in range(300):  # Send at most 300 rounds of 100 requests, for at most two minutes.
            assert set(pool.map(request, range(100))) == {200}
            most_replicas = max(most_replicas, desired_replicas())
            if most_replicas > 2 or time.monotonic() > deadline:
                break
    assert most_replicas > 2
    eventually(lambda: len(stack.pods("api", "blue")) > 2, seconds=60)
    eventually(lambda: desired_replicas() == 2 and len(stack.pods("api", "blue")) == 2, seconds=240)
    assert set(stack.up().changes) == {"unchanged"}, "an update must not reset the replicas of the autoscaler"


def test_changed_replicas_of_the_live_slot_cause_no_release(stack: ClusterStack) -> None:
    before, outputs = uids(stack.pods("web", "blue")), stack.outputs()
    stack.environment["tiers"]["web"]["replicas"] = 3
    with steady_requests(stack) as statuses:
        changed = stack.up().changes
    assert changed["updated"] == 1
    assert set(statuses) <= {"200", "201"}, statuses
    assert uids(stack.pods("web", "blue")) > before
    assert are_ready(stack, "web", "blue", 3)
    assert stack.outputs()["release"] == outputs["release"]
    assert set(stack.up().changes) == {"unchanged"}


def test_update_is_refused_if_kubectl_has_changed_a_managed_field(stack: ClusterStack) -> None:
    stack.kubectl("scale", "deployment/web-blue", "--replicas=4")
    stack.environment["tiers"]["web"]["replicas"] = 2
    refused = stack.up(check=False)
    assert refused.code
    assert (
        "environment.tiers.web: Deployment web-blue: fields that this program manages were changed by kubectl: .spec.replicas"
        in refused.text
    )
    assert len(stack.pods("web", "blue")) == 4
    stack.up(PULUMI_K8S_ENABLE_PATCH_FORCE="true")
    eventually(lambda: len(stack.pods("web", "blue")) == 2)
    assert set(stack.up().changes) == {"unchanged"}


def test_release_goes_to_the_idle_slot_and_loses_no_request(stack: ClusterStack) -> None:
    ids = {tier: uids(stack.pods(tier, "blue")) for tier in ("web", "api")}
    before = stack.get("/api/stats").json()["messages"]
    stack.app["version"] = "1.1.0"
    with steady_requests(stack) as statuses:
        stack.up()
    assert stack.live()["slot"] == "green"
    assert set(statuses) <= {"200", "201"}, statuses
    assert stack.get("/api/stats").json()["messages"] == before + statuses["201"]
    assert {tier: uids(stack.pods(tier, "blue")) for tier in ids} == ids
    assert not stack.pods("worker", "blue"), "the old workers have finished"
    assert set(stack.up().changes) == {"unchanged"}


def test_rollback_switches_traffic_and_replaces_no_object(stack: ClusterStack) -> None:
    with steady_requests(stack) as statuses:
        changed = stack.up(TIERS_RELEASE="previous").changes
    assert stack.live()["slot"] == "blue"
    assert changed["created"] == changed["deleted"] == 1, "only the workers change"
    assert "replaced" not in changed
    assert set(statuses) <= {"200", "201"}, statuses
    stack.up()
    assert stack.live()["slot"] == "green"


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            {"web": {"image": "127.0.0.1:5005/board/nothing:0.0.1"}},
            ["app.web: Deployment web-blue: not ready in time", "container web: waiting, ", "ImagePull"],
        ),
        pytest.param(
            {"api": {"command": ["sh", "-c", "echo the moon is wrong; exit 3"]}},
            ["app.api: Deployment api-blue: not ready in time", "exit code 3", "| the moon is wrong"],
            marks=pytest.mark.long,
        ),
        (
            {"api": {"migrate": {"command": ["sh", "-c", "echo the table is on fire; exit 9"]}}},
            ["app.api.migrate: Job blue-api-migrate: ", "exit code 9", "| the table is on fire"],
        ),
    ],
    ids=["no-such-image", "crash-loop", "failing-migration"],
)
def test_release_that_cannot_start_reports_the_cause_and_leaves_the_live_slot_unchanged(
    stack: ClusterStack, change: dict[str, dict[str, object]], messages: list[str]
) -> None:
    before, running = stack.live(), {tier: uids(stack.pods(tier, "green")) for tier in ("web", "api", "worker")}
    valid = json.loads(json.dumps(stack.app))
    for tier, values in change.items():
        if "image" in values:
            stack.app[tier].pop("build")
        stack.app[tier] |= values | {"start_within": "5s"}
    with steady_requests(stack) as statuses:
        failed = stack.up(check=False)
    assert failed.code
    assert not [part for part in messages if part not in failed.text], failed.text
    assert "the live slot was not changed" in failed.text
    assert stack.live() == before
    assert {tier: uids(stack.pods(tier, "green")) for tier in running} == running
    assert set(statuses) <= {"200", "201"}, statuses
    if "command" in change.get("api", {}):
        second_update = stack.up(check=False)
        assert second_update.code, "the second update must not accept the failed objects"
        assert stack.live() == before
    stack.app.clear()
    stack.app |= valid


def test_release_after_a_failed_release_goes_live(stack: ClusterStack) -> None:
    stack.app["version"] = "1.2.0"
    with steady_requests(stack) as statuses:
        stack.up()
    assert stack.live()["slot"] == "blue"
    assert set(statuses) <= {"200", "201"}, statuses
    assert set(stack.up().changes) == {"unchanged"}


@pytest.mark.long
def test_unbound_volume_claim_is_reported(tmp_path: Path) -> None:
    stack = ClusterStack(tmp_path / "claim", "e2e-claim")
    for key in ("api", "worker", "database", "figures"):
        stack.app.pop(key)
    stack.app["cache"]["start_within"] = "5s"
    stack.environment["kubernetes"]["schedule_within"] = "20s"
    stack.environment["tiers"] = {"cache": {"storage_class": "nowhere", "reserve": 0.05}}
    try:
        failed = stack.up(check=False)
        assert failed.code
        assert "app.cache: StatefulSet cache: not ready in time; both slots share this service" in failed.text
        assert (
            'PersistentVolumeClaim cache-data: ProvisioningFailed: storageclass.storage.k8s.io "nowhere" not found'
            in failed.text
        )
    finally:
        stack.destroy()


# ---------------------------------------------------------------------- prod with restricted rights


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStack]:
    """Create a stack with prod's stack file in an existing namespace.

    The account that deploys the stack has only the Role of docs/kubernetes-role.yaml.
    """
    folder = tmp_path_factory.mktemp("prod")
    board = ClusterStack(folder, "e2e-live", "prod")
    board.environment.pop("release")
    board.environment["kubernetes"]["namespace"]["name"] = board.namespace = "board-e2e-live"
    board.environment["kubernetes"]["context"] = "deployer"
    gateway = {"gateway_class": "traefik", "certificate": "board-tls"}
    board.environment["kubernetes"]["gateway"] |= {"name": "board", "create": gateway}
    board.environment["kubernetes"]["gateway"].pop("listener", None)
    labels = {"pod-security.kubernetes.io/enforce": "restricted", LABEL: "prod"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": board.namespace, "labels": labels}}
    run_kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
    try:
        in_namespace = ("--namespace", board.namespace)
        run_kubectl("apply", *in_namespace, "-f", str(ROOT / "docs/kubernetes-role.yaml"))
        run_kubectl("create", *in_namespace, "serviceaccount", "deployer")
        certificate = _certificate(folder, board.host)
        run_kubectl("create", *in_namespace, "secret", "tls", "board-tls", *certificate)
        account = f"{board.namespace}:deployer"
        run_kubectl(
            "create", *in_namespace, "rolebinding", "deployer", "--role=tiers-deployer", f"--serviceaccount={account}"
        )
        board.variables |= {
            "KUBECONFIG": str(_kubeconfig(folder, run_kubectl("create", *in_namespace, "token", "deployer").strip()))
        }
        board.build_images()
        yield board
    finally:
        run_kubectl("delete", "namespace", board.namespace)


def _certificate(folder: Path, host: str) -> tuple[str, str]:
    key, certificate = folder / "tls.key", folder / "tls.crt"
    words = ["openssl", "req", "-x509", "-nodes", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    words += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    return f"--key={key}", f"--cert={certificate}"


def _kubeconfig(folder: Path, token: str) -> Path:
    config = yaml.safe_load(run_kubectl("config", "view", "--raw", "--minify", "--output=yaml"))
    config["users"] = [{"name": "deployer", "user": {"token": token}}]
    config["contexts"] = [
        {"name": "deployer", "context": {"cluster": config["clusters"][0]["name"], "user": "deployer"}}
    ]
    config["current-context"] = "deployer"
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


def test_prod_is_deployed_with_rights_in_its_namespace_only(prod: ClusterStack) -> None:
    refused = subprocess.run(
        ["kubectl", "get", "namespaces"],
        env=os.environ | {"KUBECONFIG": prod.variables["KUBECONFIG"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "cannot list resource" in refused.stderr
    prod.up()
    assert set(prod.up().changes) == {"unchanged"}
    assert prod.live()["slot"] == "blue"
    images = {
        container.image
        for pod in prod.core.list_namespaced_pod(prod.namespace).items
        for container in pod.spec.containers
    }
    assert all("@sha256:" in image for image in images)
    # Expect the images of web, api, smoke test, PostgreSQL, PostgreSQL's pooler, Redis, and Redis' proxy.
    assert len(images) == 7


def test_prod_and_staging_share_no_data(stack: ClusterStack, prod: ClusterStack) -> None:
    messages_of_staging = stack.get("/api/stats").json()["messages"]
    message = prod.post("for prod only")
    eventually(lambda: prod.get(f"/api/messages/{message['id']}").json()["processed"] == 1)
    assert prod.get("/api/stats").json()["messages"] == 1
    assert stack.get("/api/stats").json()["messages"] == messages_of_staging
    assert prod.url.startswith("https:")
    assert requests.get("http://127.0.0.1:8000/api/release", headers=prod.headers, timeout=10).status_code == 404


def test_prod_serves_its_certificate(prod: ClusterStack) -> None:
    context = ssl.create_default_context(cafile=str(prod.folder / "tls.crt"))
    connection = socket.create_connection(("127.0.0.1", 8443), timeout=10)
    with context.wrap_socket(connection, server_hostname=prod.host) as secure:
        assert secure.version() == "TLSv1.3"


def test_destroy_of_a_stack_with_protected_data_is_refused(prod: ClusterStack) -> None:
    refused = prod.destroy(check=False)
    assert refused.code
    assert "protect" in refused.text
    assert "database-ha" in refused.text
    assert prod.live()["slot"] == "blue"


def test_destroy_leaves_nothing_and_keeps_the_other_environment(stack: ClusterStack, prod: ClusterStack) -> None:
    stack.destroy()
    assert run_kubectl("get", "namespace", stack.namespace, "--ignore-not-found") == ""
    assert prod.live()["slot"] == "blue"
    prod.environment["protect_data"] = False
    prod.up()
    prod.destroy()
    objects_of_administrator = {
        "serviceaccount/deployer",
        "secret/board-tls",
        "role.rbac.authorization.k8s.io/tiers-deployer",
    }
    objects_of_administrator |= {"rolebinding.rbac.authorization.k8s.io/deployer"}
    # Wait, because pods end only after their grace period, and Kubernetes deletes an operator's objects only after their owner.
    eventually(lambda: set(prod.leftovers()) == objects_of_administrator, seconds=180)
    eventually(lambda: run_kubectl("get", "persistentvolumes", "--output=name") == "", seconds=60)
