"""Monitoring on real engines: Prometheus has its targets, rules and metrics, and raises alerts when users get errors."""

import base64
import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from components import alerts, dashboard
from components.alerts import Watched
from components.config import load_app, load_environment

from .stack import ClusterStack, DockerStack, Stack, deployed, eventually, free_port, on

Ask = Callable[[str], Any]
PATIENCE = 90
TWO_ANSWERS = 180
"""Seconds until backup metrics are scraped again and the repository is read again."""
pytestmark = pytest.mark.long


def watched(stack: Stack, namespace: str) -> Watched:
    app = load_app(stack.app)
    return Watched(app=app, environment=load_environment(stack.environment, app), namespace=namespace)


def querying(base: str) -> Ask:
    """Return a function that queries the HTTP API of a Prometheus."""

    def ask(path: str) -> Any:
        answer = requests.get(f"{base}/api/v1/{path}", timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    return ask


def value(ask: Ask, query: str) -> float:
    """Return the value of the only series that a query selects."""
    [series] = ask(f"query?query={requests.utils.quote(query)}")["result"]
    return float(series["value"][1])


def state(ask: Ask, name: str, **labels: str) -> set[str]:
    """Return the states (inactive, pending or firing) of all alerts with this name and these labels."""
    rules = [rule for group in ask("rules?type=alert")["groups"] for rule in group["rules"]]
    states = {rule["state"] for rule in rules if rule["name"] == name and labels.items() <= rule["labels"].items()}
    assert states, name
    return states


def names(one: Watched) -> set[str]:
    """Return every metric that rules and dashboard read."""
    rules = [rule["expr"] for group in alerts.file(one)["groups"] for rule in group["rules"]]
    return {name for text in [*rules, *dashboard.queries(one)] for name in re.findall(r"([a-zA-Z_:][\w:]*)\{", text)}


def backed_up(stack: Stack) -> None:
    database = stack.environment.setdefault("tiers", {}).setdefault("database", {})
    database["backup"] = {"target": {"volume": True}}
    key = ["--path", "secrets.backup-key", "e2e-key-of-backups-6f1a"]
    stack.pulumi("config", "set", "--secret", *key, check=True)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    board = on("docker", tmp_path_factory.mktemp("watched"), "e2e-watch")
    assert isinstance(board, DockerStack)
    board.environment["monitoring"] = {"port": free_port(), "interval": "2s"}
    board.environment["slo"] = {"errors": 0.001}
    backed_up(board)
    with deployed(board):
        yield board


@pytest.fixture
def ask(stack: DockerStack) -> Ask:
    return querying(f"http://127.0.0.1:{stack.environment['monitoring']['port']}")


def test_every_target_is_up_and_every_rule_is_loaded(stack: DockerStack, ask: Ask) -> None:
    eventually(lambda: {target["labels"]["job"] for target in ask("targets")["activeTargets"] if target["health"] == "up"}
               == {"api", "backup", "cache", "database", "gateway", "prometheus", "release"}, PATIENCE)  # fmt: skip
    assert not [target for target in ask("targets")["activeTargets"] if target["health"] != "up"]
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    expected = [rule for group in alerts.file(watched(stack, stack.prefix))["groups"] for rule in group["rules"]]
    assert len(rules) == len(expected)
    eventually(lambda: {rule["health"] for group in ask("rules")["groups"] for rule in group["rules"]} == {"ok"})


def test_figures_follow_the_work_of_the_board(stack: DockerStack, ask: Ask) -> None:
    for number in range(20):
        stack.post(f"message {number}")
        time.sleep(0.2)
    eventually(lambda: value(ask, 'tiers_figure{figure="messages_per_hour"}') > 10, PATIENCE)
    eventually(lambda: 0 < value(ask, "tiers:latency:p95_5m") < 5, PATIENCE)
    assert value(ask, "tiers:errors:ratio_rate5m") == 0
    # While the worker is paused, waiting jobs get older.
    [worker] = [container for container in stack.containers() if container.name.endswith("blue-worker-1")]
    worker.pause()
    try:
        # An idle worker still receives the job it is waiting for; the next job waits.
        for _ in range(2):
            stack.post("nobody summarises this")
        eventually(lambda: value(ask, 'tiers_figure{figure="queue_depth"}') >= 1, PATIENCE)
        eventually(lambda: value(ask, 'tiers_figure{figure="queue_age"}') > 3, PATIENCE)
    finally:
        worker.unpause()
    eventually(lambda: value(ask, 'tiers_figure{figure="queue_depth"}') == 0, PATIENCE)


def test_backup_metrics_appear_with_the_first_backup(stack: DockerStack, ask: Ask) -> None:
    last = 'tiers_backup_last_success_timestamp_seconds{{kind="{}"}}'
    eventually(lambda: value(ask, last.format("backup")) == 0, PATIENCE)
    assert not ask("query?query=tiers_backup_verified")["result"]
    before = time.time()
    stack.ci("backup", "backup")
    stack.ci("backup", "verify")
    eventually(lambda: value(ask, last.format("verify")) >= int(before), TWO_ANSWERS)
    assert value(ask, last.format("backup")) >= int(before)
    assert value(ask, "tiers_backup_verified") == value(ask, "tiers_backup_repository_readable") == 1
    for name in ("BackupIsOverdue", "BackupDoesNotComeBack", "BackupsCanNotBeRead", "BackupsSayNothing"):
        assert state(ask, name) == {"inactive"}


def test_every_metric_of_rules_and_dashboard_exists(stack: DockerStack, ask: Ask) -> None:
    expected = names(watched(stack, stack.prefix))
    assert len(expected) > 25
    eventually(lambda: not expected - set(ask("label/__name__/values")), PATIENCE)


def test_live_release_is_a_metric_and_second_update_changes_nothing(stack: DockerStack, ask: Ask) -> None:
    released = f'tiers_release_info{{release="{stack.outputs()["release"]}",slot="blue"}}'
    eventually(lambda: value(ask, released) == 1)
    assert set(stack.up().changed) == {"unchanged"}


def test_only_the_gateway_is_public_and_prometheus_listens_on_loopback(stack: DockerStack) -> None:
    assert "ok             only the gateway can be reached" in stack.ci("check")
    [prometheus] = [container for container in stack.containers() if container.name.endswith("-prometheus")]
    assert [entry["HostIp"] for bound in prometheus.ports.values() for entry in bound or ()] == ["127.0.0.1"]
    reach = "for host in {}; do (exec 3<>/dev/tcp/$host) 2>/dev/null && echo $host; done; true"
    data = prometheus.exec_run(["timeout", "10", "bash", "-c", reach.format("database/5432 cache/6379")])
    assert data.output == b""
    seen = prometheus.exec_run(["timeout", "10", "bash", "-c", reach.format("database-exporter/9187 gateway/8404")])
    assert seen.output.decode().split() == ["database-exporter/9187", "gateway/8404"]


def test_errors_raise_an_alert_and_a_new_release_becomes_a_metric(stack: DockerStack, ask: Ask) -> None:
    assert state(ask, "ErrorBudgetBurns") == {"inactive"}
    stack.break_down("api", "blue")
    for _ in range(50):
        assert stack.get("/api/release").status_code == 503
    eventually(lambda: state(ask, "ErrorBudgetBurns", over="1h") <= {"pending", "firing"}, PATIENCE)
    eventually(lambda: state(ask, "NothingAnswers", job="api") <= {"pending", "firing"}, PATIENCE)
    before = json.loads(
        json.dumps([container.id for container in stack.containers() if container.name.endswith("-prometheus")])
    )
    stack.app["version"] = "2.0.0"
    stack.up()
    released = f'tiers_release_info{{release="{stack.outputs()["release"]}",slot="green"}}'
    eventually(lambda: value(ask, released) == 1, PATIENCE)
    assert before == [container.id for container in stack.containers() if container.name.endswith("-prometheus")]
    eventually(lambda: state(ask, "NothingAnswers", job="api") == {"inactive"}, PATIENCE)


def test_prometheus_operator_of_the_cluster_accepts_monitors_and_rules(tmp_path: Path) -> None:
    stack = on("kubernetes", tmp_path, "e2e-watch")
    assert isinstance(stack, ClusterStack)
    stack.environment["monitoring"] = True
    backed_up(stack)
    with deployed(stack):
        one = watched(stack, stack.namespace)
        objects = json.loads(stack.kubectl("get", "servicemonitors,prometheusrules", "--output=json"))["items"]
        kinds = {f"{entry['kind']} {entry['metadata']['name']}" for entry in objects}
        monitors = {f"ServiceMonitor {name}" for name in ("api", "database-exporter", "cache-exporter", "backup")}
        assert kinds == monitors | {"PrometheusRule board", "PrometheusRule board-release"}
        # The operator has accepted the monitors and rules: both are in the configuration of its Prometheus.
        jobs = {f"serviceMonitor/{stack.namespace}/{name.partition(' ')[2]}/0" for name in monitors}
        eventually(lambda: jobs <= {entry["job_name"] for entry in _configured(stack)["scrape_configs"]}, PATIENCE)
        eventually(lambda: f"{stack.namespace}-alerts" in _rules(stack), PATIENCE)
        exposed = _exposed(stack)
        # The lab's volumes are folders of its node, and a kubelet has no metrics of those.
        expected = {name for name in names(one) if not name.startswith(("tiers", "up", "kubelet_volume_stats"))}
        assert len(expected) > 15
        assert not expected - exposed
        assert {"tiers_backup_repository_readable", "tiers_backup_overdue"} < exposed
        assert set(stack.up().changed) == {"unchanged"}
        assert "ok             only the gateway can be reached" in stack.ci("check")


def _configured(stack: ClusterStack) -> Any:
    secret = json.loads(stack.kubectl("get", "secret", "prometheus-lab", "--namespace=monitoring", "--output=json"))
    return yaml.safe_load(gzip.decompress(base64.b64decode(secret["data"]["prometheus.yaml.gz"])))


def _rules(stack: ClusterStack) -> str:
    return stack.kubectl("get", "configmap", "prometheus-lab-rulefiles-0", "--namespace=monitoring", "--output=yaml")


def _exposed(stack: ClusterStack) -> set[str]:
    """Return the names of all metrics that the pods and the kubelet export."""
    stack.post("a message, for its answer to be counted")
    pages = [
        stack.kubectl("get", "--raw", f"/api/v1/namespaces/{stack.namespace}/services/{service}:main/proxy/metrics")
        for service in ("api-blue", "database-exporter", "cache-exporter", "backup")
    ]
    pages += [stack.kubectl("get", "--raw", f"/api/v1/nodes/lab/proxy/metrics{more}") for more in ("", "/cadvisor")]
    return {name for page in pages for name in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{|\s)", page, re.MULTILINE)}
