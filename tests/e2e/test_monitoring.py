"""Tests of monitoring on both platforms: targets, rules and metrics of Prometheus, and alerts when users get errors."""

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

from components.config import load_app, load_environment
from components.observability import alerts, dashboard
from components.observability.alerts import MonitoringScope

from .stack import ClusterStack, DockerStack, Stack, create_board, deployment, eventually, free_port

Query = Callable[[str], Any]
PATIENCE = 90
"""Seconds to wait for a scrape and an evaluation of the rules."""
BACKUP_METRICS_PATIENCE = 180
"""Seconds to wait for metrics of a backup. The backup container reads its repository, then Prometheus scrapes the container."""
pytestmark = pytest.mark.long


def monitoring_scope(stack: Stack, namespace: str) -> MonitoringScope:
    app = load_app(stack.app)
    return MonitoringScope(app=app, environment=load_environment(stack.environment, app), namespace=namespace)


def query_function(base: str) -> Query:
    """Return a function that sends a query to the HTTP API of a Prometheus server, and returns the `data` of the answer."""

    def query_prometheus(path: str) -> Any:
        answer = requests.get(f"{base}/api/v1/{path}", timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    return query_prometheus


def read_value(query_prometheus: Query, expression: str) -> float:
    """Return the value of the only series that a PromQL expression selects."""
    [series] = query_prometheus(f"query?query={requests.utils.quote(expression)}")["result"]
    return float(series["value"][1])


def alert_states(query_prometheus: Query, name: str, **labels: str) -> set[str]:
    """Return the states (inactive, pending, firing) of the alerts with this name and these labels."""
    rules = [rule for group in query_prometheus("rules?type=alert")["groups"] for rule in group["rules"]]
    states = {rule["state"] for rule in rules if rule["name"] == name and labels.items() <= rule["labels"].items()}
    assert states, name
    return states


def metric_names(scope: MonitoringScope) -> set[str]:
    """Return the names of all metrics that the rules and the dashboard read."""
    rules = [rule["expr"] for group in alerts.rule_file(scope)["groups"] for rule in group["rules"]]
    return {name for text in [*rules, *dashboard.queries(scope)] for name in re.findall(r"([a-zA-Z_:][\w:]*)\{", text)}


def configure_backups(stack: Stack) -> None:
    """Configure backups of the database that are written to a volume."""
    database = stack.environment.setdefault("tiers", {}).setdefault("database", {})
    database["backup"] = {"target": {"volume": True}}
    key = ["--path", "secrets.backup-key", "e2e-key-of-backups-6f1a"]
    stack.pulumi("config", "set", "--secret", *key, check=True)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerStack]:
    board = create_board("docker", tmp_path_factory.mktemp("watched"), "e2e-watch")
    assert isinstance(board, DockerStack)
    board.environment["monitoring"] = {"port": free_port(), "interval": "2s"}
    board.environment["slo"] = {"errors": 0.001}
    configure_backups(board)
    with deployment(board):
        yield board


@pytest.fixture
def query_prometheus(stack: DockerStack) -> Query:
    return query_function(f"http://127.0.0.1:{stack.environment['monitoring']['port']}")


def test_every_target_is_up_and_every_rule_is_loaded(stack: DockerStack, query_prometheus: Query) -> None:
    eventually(lambda: {target["labels"]["job"] for target in query_prometheus("targets")["activeTargets"] if target["health"] == "up"}
               == {"api", "backup", "cache", "database", "gateway", "prometheus", "release"}, PATIENCE)  # fmt: skip
    assert not [target for target in query_prometheus("targets")["activeTargets"] if target["health"] != "up"]
    rules = [rule for group in query_prometheus("rules")["groups"] for rule in group["rules"]]
    expected = [
        rule for group in alerts.rule_file(monitoring_scope(stack, stack.prefix))["groups"] for rule in group["rules"]
    ]
    assert len(rules) == len(expected)
    eventually(
        lambda: {rule["health"] for group in query_prometheus("rules")["groups"] for rule in group["rules"]} == {"ok"}
    )


def test_business_metrics_follow_the_work_of_the_board(stack: DockerStack, query_prometheus: Query) -> None:
    for number in range(20):
        stack.post(f"message {number}")
        time.sleep(0.2)
    eventually(lambda: read_value(query_prometheus, 'tiers_figure{figure="messages_per_hour"}') > 10, PATIENCE)
    eventually(lambda: 0 < read_value(query_prometheus, "tiers:latency:p95_5m") < 5, PATIENCE)
    assert read_value(query_prometheus, "tiers:errors:ratio_rate5m") == 0
    # Pause the worker, because jobs must wait in the queue.
    [worker] = [container for container in stack.containers() if container.name.endswith("blue-worker-1")]
    worker.pause()
    try:
        # Post two messages. The paused worker still receives the first job, because the worker was already waiting for a job. The
        # second job stays in the queue.
        for _ in range(2):
            stack.post("nobody summarises this")
        eventually(lambda: read_value(query_prometheus, 'tiers_figure{figure="queue_depth"}') >= 1, PATIENCE)
        eventually(lambda: read_value(query_prometheus, 'tiers_figure{figure="queue_age"}') > 3, PATIENCE)
    finally:
        worker.unpause()
    eventually(lambda: read_value(query_prometheus, 'tiers_figure{figure="queue_depth"}') == 0, PATIENCE)


def test_backup_metrics_appear_with_the_first_backup(stack: DockerStack, query_prometheus: Query) -> None:
    last_success = 'tiers_backup_last_success_timestamp_seconds{{kind="{}"}}'
    eventually(lambda: read_value(query_prometheus, last_success.format("backup")) == 0, PATIENCE)
    assert not query_prometheus("query?query=tiers_backup_verified")["result"]
    before = time.time()
    stack.run_ci("backup", "backup")
    stack.run_ci("backup", "verify")
    eventually(
        lambda: read_value(query_prometheus, last_success.format("verify")) >= int(before), BACKUP_METRICS_PATIENCE
    )
    assert read_value(query_prometheus, last_success.format("backup")) >= int(before)
    assert (
        read_value(query_prometheus, "tiers_backup_verified")
        == read_value(query_prometheus, "tiers_backup_repository_readable")
        == 1
    )
    for name in ("BackupIsOverdue", "BackupDoesNotComeBack", "BackupsCanNotBeRead", "BackupsSayNothing"):
        assert alert_states(query_prometheus, name) == {"inactive"}


def test_every_metric_of_rules_and_dashboard_exists(stack: DockerStack, query_prometheus: Query) -> None:
    expected = metric_names(monitoring_scope(stack, stack.prefix))
    assert len(expected) > 25
    eventually(lambda: not expected - set(query_prometheus("label/__name__/values")), PATIENCE)


def test_live_release_is_a_metric_and_second_update_changes_nothing(
    stack: DockerStack, query_prometheus: Query
) -> None:
    release_metric = f'tiers_release_info{{release="{stack.outputs()["release"]}",slot="blue"}}'
    eventually(lambda: read_value(query_prometheus, release_metric) == 1)
    assert set(stack.up().changes) == {"unchanged"}


def test_only_the_gateway_is_public_and_prometheus_listens_on_loopback(stack: DockerStack) -> None:
    assert "ok             only the gateway can be reached" in stack.run_ci("check")
    [prometheus] = [container for container in stack.containers() if container.name.endswith("-prometheus")]
    assert [entry["HostIp"] for bound in prometheus.ports.values() for entry in bound or ()] == ["127.0.0.1"]
    script = "for host in {}; do (exec 3<>/dev/tcp/$host) 2>/dev/null && echo $host; done; true"
    data_ports = prometheus.exec_run(["timeout", "10", "bash", "-c", script.format("database/5432 cache/6379")])
    assert data_ports.output == b""
    metrics_ports = prometheus.exec_run(
        ["timeout", "10", "bash", "-c", script.format("database-exporter/9187 gateway/8404")]
    )
    assert metrics_ports.output.decode().split() == ["database-exporter/9187", "gateway/8404"]


def test_errors_raise_an_alert_and_a_new_release_becomes_a_metric(stack: DockerStack, query_prometheus: Query) -> None:
    assert alert_states(query_prometheus, "ErrorBudgetBurns") == {"inactive"}
    stack.stop_tier("api", "blue")
    for _ in range(50):
        assert stack.get("/api/release").status_code == 503
    eventually(lambda: alert_states(query_prometheus, "ErrorBudgetBurns", over="1h") <= {"pending", "firing"}, PATIENCE)
    eventually(lambda: alert_states(query_prometheus, "NothingAnswers", job="api") <= {"pending", "firing"}, PATIENCE)
    before = json.loads(
        json.dumps([container.id for container in stack.containers() if container.name.endswith("-prometheus")])
    )
    stack.app["version"] = "2.0.0"
    stack.up()
    release_metric = f'tiers_release_info{{release="{stack.outputs()["release"]}",slot="green"}}'
    eventually(lambda: read_value(query_prometheus, release_metric) == 1, PATIENCE)
    assert before == [container.id for container in stack.containers() if container.name.endswith("-prometheus")]
    eventually(lambda: alert_states(query_prometheus, "NothingAnswers", job="api") == {"inactive"}, PATIENCE)


def test_prometheus_operator_accepts_the_service_monitors_and_the_rules_of_the_stack(tmp_path: Path) -> None:
    stack = create_board("kubernetes", tmp_path, "e2e-watch")
    assert isinstance(stack, ClusterStack)
    stack.environment["monitoring"] = True
    configure_backups(stack)
    with deployment(stack):
        scope = monitoring_scope(stack, stack.namespace)
        objects = json.loads(stack.kubectl("get", "servicemonitors,prometheusrules", "--output=json"))["items"]
        kinds = {f"{entry['kind']} {entry['metadata']['name']}" for entry in objects}
        monitors = {f"ServiceMonitor {name}" for name in ("api", "database-exporter", "cache-exporter", "backup")}
        assert kinds == monitors | {"PrometheusRule board", "PrometheusRule board-release"}
        # The operator has accepted the monitors and rules if the configuration of the operator's Prometheus contains them.
        jobs = {f"serviceMonitor/{stack.namespace}/{name.partition(' ')[2]}/0" for name in monitors}
        eventually(
            lambda: jobs <= {entry["job_name"] for entry in _prometheus_configuration(stack)["scrape_configs"]},
            PATIENCE,
        )
        eventually(lambda: f"{stack.namespace}-alerts" in _rule_files(stack), PATIENCE)
        exported = _exported_metrics(stack)
        # Leave out the volume metrics, because the lab's volumes are folders of the node. The kubelet exports no metrics of folders.
        expected = {
            name for name in metric_names(scope) if not name.startswith(("tiers", "up", "kubelet_volume_stats"))
        }
        assert len(expected) > 15
        assert not expected - exported
        assert {"tiers_backup_repository_readable", "tiers_backup_overdue"} < exported
        assert set(stack.up().changes) == {"unchanged"}
        assert "ok             only the gateway can be reached" in stack.run_ci("check")


def _prometheus_configuration(stack: ClusterStack) -> Any:
    secret = json.loads(stack.kubectl("get", "secret", "prometheus-lab", "--namespace=monitoring", "--output=json"))
    return yaml.safe_load(gzip.decompress(base64.b64decode(secret["data"]["prometheus.yaml.gz"])))


def _rule_files(stack: ClusterStack) -> str:
    return stack.kubectl("get", "configmap", "prometheus-lab-rulefiles-0", "--namespace=monitoring", "--output=yaml")


def _exported_metrics(stack: ClusterStack) -> set[str]:
    """Return the names of all metrics that the pods and the kubelet export."""
    stack.post("a message, for its answer to be counted")
    pages = [
        stack.kubectl("get", "--raw", f"/api/v1/namespaces/{stack.namespace}/services/{service}:main/proxy/metrics")
        for service in ("api-blue", "database-exporter", "cache-exporter", "backup")
    ]
    pages += [stack.kubectl("get", "--raw", f"/api/v1/nodes/lab/proxy/metrics{more}") for more in ("", "/cadvisor")]
    return {name for page in pages for name in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{|\s)", page, re.MULTILINE)}
