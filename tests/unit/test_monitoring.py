"""Tests of metrics, alerts and the dashboard. promtool evaluates the alerts on artificial time series."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.config import ConfigError, load_app, load_environment
from components.model.services import CACHE, DATABASE
from components.observability import alerts, dashboard
from components.observability.alerts import MonitoringScope
from components.platforms.docker import prometheus
from components.platforms.kubernetes import operated
from components.platforms.kubernetes.objects import Scope
from components.platforms.kubernetes.reachability import Network
from images.backup.backup import serve
from images.backup.backup.repository import Run

from .program import (
    CONTAINER,
    NETWORK,
    ROOT,
    SECRETS,
    VOLUME,
    Deployment,
    checkpoint_of,
    deploy,
    environment,
    first_release,
    project,
)

NAMESPACE = 'namespace="board"'
MINUTES = 700


def board_scope(stack: str = "dev", app: dict[str, Any] | None = None, **more: Any) -> MonitoringScope:
    """Return the monitoring scope of a stack. By default the application is `board`."""
    env = environment(stack) | {"monitoring": True, "pinned": False, **more}
    app_model = load_app(app or project())
    return MonitoringScope(app=app_model, environment=load_environment(env, app_model), namespace="board")


def scope_with_certificate() -> MonitoringScope:
    env = environment("staging")
    env["kubernetes"] |= {"url": "https://board.test"}
    env["kubernetes"]["gateway"] = {"name": "own", "namespace": "gateway", "inside": "https://board.test"}
    env["kubernetes"]["gateway"]["create"] = {"gateway_class": "x", "certificate": "tls", "issuer": "letsencrypt"}
    return board_scope("staging", kubernetes=env["kubernetes"])


def scope_with_ha() -> MonitoringScope:
    """Return the monitoring scope of staging, with `ha: true` for the database and the cache."""
    monitoring_scope = board_scope("staging")
    tiers = {
        tier: monitoring_scope.environment.tier_settings(tier).model_copy(update={"ha": True})
        for tier in (DATABASE.name, CACHE.name)
    }
    return replace(monitoring_scope, environment=monitoring_scope.environment.model_copy(update={"tiers": tiers}))


def tiers_with_backup(stack: str, target: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    tiers = environment(stack).get("tiers", {})
    return tiers | {"database": tiers.get("database", {}) | {"backup": {"target": target or {"volume": True}}, **more}}


S3 = {
    "s3": {
        "endpoint": "https://s3.test",
        "bucket": "backups",
        "access_key": "backup-access",
        "secret_key": "backup-secret",
    }
}


ALL = {
    "docker": board_scope(),
    "kubernetes": board_scope("staging"),
    "certified": scope_with_certificate(),
    "replicated": scope_with_ha(),
    "backed up": board_scope("staging", tiers=tiers_with_backup("staging")),
    "archived": board_scope("staging", tiers=tiers_with_backup("staging", S3, ha=True)),
}
for_every_scope = pytest.mark.parametrize("monitoring_scope", ALL.values(), ids=ALL)


def run_promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("promtool"), "no promtool on PATH: run `python3 -m lab up lint`"
    return subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60)


@for_every_scope
def test_promtool_accepts_the_alert_rules(monitoring_scope: MonitoringScope, tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps(alerts.rule_file(monitoring_scope)))
    result = run_promtool("check", "rules", "--lint-fatal", file)
    assert result.returncode == 0, result.stdout + result.stderr


@for_every_scope
def test_promtool_accepts_every_query_of_the_dashboard(monitoring_scope: MonitoringScope, tmp_path: Path) -> None:
    file = tmp_path / "queries.yml"
    rules = [
        {"record": f"query_{number}", "expr": query} for number, query in enumerate(dashboard.queries(monitoring_scope))
    ]
    assert len(rules) > 15
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    result = run_promtool("check", "rules", file)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_prometheus_configuration(tmp_path: Path) -> None:
    monitoring_scope = board_scope(monitoring={"alertmanager": "https://alerts.test"}, tiers=tiers_with_backup("dev"))
    for name, text in prometheus.files(monitoring_scope).items():
        file = tmp_path / Path(name).name
        file.write_text(text.replace(prometheus.CONFIG, str(tmp_path)))
    result = run_promtool("check", "config", tmp_path / "prometheus.yml")
    assert result.returncode == 0, result.stdout + result.stderr


# ---------------------------------------------------------------------- alerts

Series = dict[str, str]


def series(name: str, values: str | float, /, **labels: str) -> Series:
    selector = ",".join([NAMESPACE, *(f'{key}="{value}"' for key, value in labels.items())])
    return {"series": f"{name}{{{selector}}}", "values": values if isinstance(values, str) else f"{values:g}x{MINUTES}"}


def counter(name: str, by: float, /, **labels: str) -> Series:
    return series(name, f"0+{by:g}x{MINUTES}", **labels)


def gateway_responses(failed: float) -> list[Series]:
    """Return the time series of the gateway's responses. Each minute, 940 requests succeed and `failed` requests fail."""
    name, proxy = "haproxy_frontend_http_responses_total", "gateway"
    return [counter(name, 940, proxy=proxy, code="2xx"), counter(name, failed, proxy=proxy, code="5xx")]


def api_requests(failed: float) -> list[Series]:
    name, labels = "http_request_duration_seconds_count", {"job": "api", "route": "/api/x"}
    # Requests to the readiness path must not count as successful user requests.
    ready = counter(name, 10_000, job="api", route="/ready", status="200")
    return [counter(name, 940, **labels, status="200"), counter(name, failed, **labels, status="503"), ready]


def request_durations(seconds: str) -> list[Series]:
    """Return a histogram of request durations. All requests are in the bucket whose upper bound is `seconds`."""
    bounds = ["0.25", "0.5", "1", "2.5", "+Inf"]
    name, labels = "http_request_duration_seconds_bucket", {"job": "api", "route": "/api/x"}
    return [counter(name, 60 * (bounds.index(le) >= bounds.index(seconds)), **labels, le=le) for le in bounds]


def connection_count(taken: float) -> list[Series]:
    return [series("pg_stat_activity_count", taken), series("pg_settings_max_connections", 100)]


def memory_usage(used: float) -> list[Series]:
    labels = {"pod": "a", "container": "api"}
    names = {"container_memory_working_set_bytes": used, "container_spec_memory_limit_bytes": 100}
    return [series(name, value, **labels) for name, value in names.items()]


def cpu_throttling(periods: float) -> list[Series]:
    labels = {"pod": "a", "container": "api"}
    names = {"container_cpu_cfs_throttled_periods_total": periods, "container_cpu_cfs_periods_total": 100}
    return [counter(name, value, **labels) for name, value in names.items()]


def free_disk_space(left: float) -> list[Series]:
    names = {"kubelet_volume_stats_available_bytes": left, "kubelet_volume_stats_capacity_bytes": 100}
    return [series(name, value, persistentvolumeclaim="database-data") for name, value in names.items()]


def single_series(name: str, value: float, **labels: str) -> list[Series]:
    return [series(name, value, **labels)]


def certificate_expiry(days: float) -> list[Series]:
    # promtool's clock starts at timestamp 0, so the expiry timestamp equals the number of remaining seconds.
    return single_series("certmanager_certificate_expiration_timestamp_seconds", days * 86400)


def database_instances(up: int, lag: float = 0, writes: int = 1) -> list[Series]:
    """Return the metrics of a database cluster with three instances.

    Args:
        up: Number of instances that are up.
        lag: Replication lag of every instance in seconds.
        writes: Number of instances that accept writes.
    """
    series_: list[Series] = []
    for number in range(3):
        pod = f"database-{number}"
        series_.append(series("cnpg_collector_up", int(number < up), pod=pod))
        series_.append(series("cnpg_pg_replication_in_recovery", int(number >= writes), pod=pod))
        series_.append(series("cnpg_pg_replication_lag", lag, pod=pod))
    return series_


def cluster_connection_count(taken: float) -> list[Series]:
    return [
        series("cnpg_backends_total", taken, pod="database-0"),
        series("cnpg_pg_settings_setting", 100, pod="database-0", name="max_connections"),
    ]


def unarchived_wal_files(files: int) -> list[Series]:
    """Return the WAL metrics of three instances. The first instance has `files` WAL files that are not archived yet."""
    return [
        series("cnpg_collector_pg_wal_archive_status", files if pod == "1" else 0, pod=pod, value="ready")
        for pod in "123"
    ] + [series("cnpg_collector_pg_wal_archive_status", 900, pod="1", value="done")]


def streaming_replicas(replicas: int) -> list[Series]:
    """Return the metric of streaming replicas for three instances: `replicas` on the primary, 0 on the others."""
    name = "cnpg_pg_replication_streaming_replicas"
    return [series(name, replicas if pod == "1" else 0, pod=pod) for pod in "123"]


def last_base_backup(days: float) -> list[Series]:
    """Return the metric of a last base backup that ended `days` days before promtool's clock starts."""
    name = "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp"
    return [series(name, -days * 86400, pod=pod) for pod in "123"]


DOCKER, CLUSTER, CERTIFIED, REPLICATED, BACKED_UP, ARCHIVED = ALL
# Columns: deployment, alert name, alert labels, series that fire the alert, series that don't, minutes until evaluation.
CASES: list[tuple[str, str, dict[str, str], list[Series], list[Series], int]] = [
    (DOCKER, "ErrorBudgetBurns", {"over": "1h"}, gateway_responses(200), gateway_responses(9), 10),
    (DOCKER, "ErrorBudgetBurns", {"over": "6h"}, gateway_responses(80), gateway_responses(9), 60),
    (DOCKER, "ErrorBudgetBurns", {"over": "1d"}, gateway_responses(40), gateway_responses(9), 300),
    (DOCKER, "ErrorBudgetBurns", {"over": "3d"}, gateway_responses(15), gateway_responses(9), 600),
    (CLUSTER, "ErrorBudgetBurns", {"over": "1h"}, api_requests(20), api_requests(0), 10),
    (CLUSTER, "ErrorBudgetBurns", {"over": "6h"}, api_requests(8), api_requests(0), 60),
    (CLUSTER, "ErrorBudgetBurns", {"over": "1d"}, api_requests(4), api_requests(0), 300),
    (CLUSTER, "ErrorBudgetBurns", {"over": "3d"}, api_requests(2), api_requests(0), 600),
    (CLUSTER, "AnswersAreSlow", {"quantile": "p95"}, request_durations("0.5"), request_durations("0.25"), 20),
    (CLUSTER, "AnswersAreSlow", {"quantile": "p99"}, request_durations("2.5"), request_durations("1"), 20),
    (DOCKER, "AnswersAreSlow", {"quantile": "p95"}, request_durations("1"), request_durations("0.5"), 20),
    (DOCKER, "AnswersAreSlow", {"quantile": "p99"}, request_durations("2.5"), request_durations("1"), 20),
    (DOCKER, "NothingAnswers", {"job": "api"}, single_series("up", 0, job="api"), single_series("up", 1, job="api"), 4),
    (DOCKER, "NothingAnswers", {"job": "gateway"}, [], single_series("up", 1, job="gateway"), 4),
    (CLUSTER, "NothingAnswers", {"job": "api"}, [], single_series("up", 1, job="api"), 4),
    *(
        (deployment, "TargetIsDown", {"job": job}, single_series("up", 0, job=job), single_series("up", 1, job=job), 7)
        for deployment in (DOCKER, CLUSTER)
        for job in ("api", "database", "cache")
    ),
    *(
        case
        for deployment in (DOCKER, CLUSTER)
        for case in (
            (deployment, "FigureIsBeyond", {"figure": "queue_age"}, single_series("board_queue_oldest_seconds", 301), single_series("board_queue_oldest_seconds", 299), 12),
            (deployment, "FigureIsBeyond", {"figure": "queue_depth"}, single_series("board_queue_depth", 1001), single_series("board_queue_depth", 999), 12),
            (deployment, "DatabaseIsDown", {}, single_series("pg_up", 0), single_series("pg_up", 1), 3),
            (deployment, "DatabaseConnectionsRunOut", {}, connection_count(81), connection_count(79), 7),
            (deployment, "DatabaseDeadlocks", {}, [counter("pg_stat_database_deadlocks", 10)], [counter("pg_stat_database_deadlocks", 1)], 20),
            (deployment, "CacheIsDown", {}, [], single_series("redis_up", 1), 3),
            (deployment, "CacheIsNotKept", {}, single_series("redis_aof_last_write_status", 0), single_series("redis_aof_last_write_status", 1), 3),
        )
    ),
    (DOCKER, "CacheMemoryRunsOut", {}, single_series("redis_memory_used_bytes", 460 * 2**20), single_series("redis_memory_used_bytes", 430 * 2**20), 7),
    (CLUSTER, "CacheMemoryRunsOut", {}, single_series("redis_memory_used_bytes", 230 * 2**20), single_series("redis_memory_used_bytes", 215 * 2**20), 7),
    (CLUSTER, "MemoryRunsOut", {"pod": "a"}, memory_usage(95), memory_usage(85), 12),
    (CLUSTER, "ProcessorRunsOut", {"pod": "a"}, cpu_throttling(60), cpu_throttling(40), 20),
    (CLUSTER, "DiskRunsFull", {"persistentvolumeclaim": "database-data"}, free_disk_space(14), free_disk_space(16), 7),
    (REPLICATED, "DatabaseIsDown", {}, database_instances(3, writes=0), database_instances(1), 3),
    (REPLICATED, "DatabaseInstanceIsLost", {}, database_instances(2), database_instances(3), 12),
    (REPLICATED, "DatabaseReplicaDoesNotStream", {}, streaming_replicas(1), streaming_replicas(2), 12),
    (REPLICATED, "DatabaseLags", {}, database_instances(3, lag=31), database_instances(3, lag=29), 7),
    (REPLICATED, "DatabaseConnectionsRunOut", {"pod": "database-0"}, cluster_connection_count(81), cluster_connection_count(79), 7),
    (REPLICATED, "DatabaseDeadlocks", {}, [counter("cnpg_pg_stat_database_deadlocks", 10)], [counter("cnpg_pg_stat_database_deadlocks", 1)], 20),
    (ARCHIVED, "ChangesAreNotKept", {}, unarchived_wal_files(9), unarchived_wal_files(8), 12),
    (ARCHIVED, "BaseBackupIsOld", {}, last_base_backup(9.1), last_base_backup(8.9), 65),
    (ARCHIVED, "BaseBackupIsOld", {}, [], last_base_backup(0), 65),
    (REPLICATED, "CacheReplicaIsLost", {}, single_series("redis_connected_slaves", 1), single_series("redis_connected_slaves", 2), 12),
    (BACKED_UP, "BackupIsOverdue", {"kind": "full"}, single_series("tiers_backup_overdue", 1, kind="full"), single_series("tiers_backup_overdue", 0, kind="full"), 7),
    (BACKED_UP, "BackupDoesNotComeBack", {}, single_series("tiers_backup_verified", 0), single_series("tiers_backup_verified", 1), 7),
    (BACKED_UP, "BackupsCanNotBeRead", {}, single_series("tiers_backup_repository_readable", 0), single_series("tiers_backup_repository_readable", 1), 17),
    (BACKED_UP, "BackupsSayNothing", {}, [], single_series("tiers_backup_repository_readable", 0), 17),
    (CERTIFIED, "CertificateExpires", {}, certificate_expiry(13.5), certificate_expiry(16), 65),
]  # fmt: skip


def alert_test(
    name: str, labels: dict[str, str], input_series: list[Series], minutes: int, fires: int
) -> dict[str, Any]:
    """Return a promtool test that expects `fires` firing alerts with this name and these labels after `minutes` minutes."""
    selector = ",".join(
        f'{key}="{value}"' for key, value in {"alertname": name, "alertstate": "firing", **labels}.items()
    )
    samples = [{"labels": "{}", "value": fires}]
    test = {
        "expr": f"count(ALERTS{{{NAMESPACE},{selector}}}) or vector(0)",
        "eval_time": f"{minutes}m",
        "exp_samples": samples,
    }
    # promtool needs at least one series, so a test without series gets an unrelated series.
    return {
        "name": f"{name} {labels} {fires}",
        "interval": "1m",
        "input_series": input_series or single_series("x", 1),
        "promql_expr_test": [test],
    }


def run_promtool_tests(deployment: str, tests: list[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run tests with promtool.

    A test of up to an hour evaluates the rules every minute. A longer test evaluates the rules every five minutes to save time,
    because each evaluation runs all rules.
    """
    (folder / "rules.yml").write_text(json.dumps(alerts.rule_file(ALL[deployment])))
    by_interval: dict[str, list[dict[str, Any]]] = {}
    for test in tests:
        minutes = int(test["promql_expr_test"][0]["eval_time"].removesuffix("m"))
        by_interval.setdefault("5m" if minutes > 60 else "1m", []).append(test)
    files = [folder / f"every-{interval}.yml" for interval in by_interval]
    for file, (interval, entry) in zip(files, by_interval.items(), strict=True):
        file.write_text(json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": entry}))
    return run_promtool("test", "rules", *files)


@pytest.mark.parametrize("deployment", ALL)
def test_alert_fires_above_its_limit_and_is_silent_below(deployment: str, tmp_path: Path) -> None:
    cases = [(name, labels, bad, good, after) for at, name, labels, bad, good, after in CASES if at == deployment]
    tests = [alert_test(name, labels, bad, after, 1) for name, labels, bad, _, after in cases]
    tests += [alert_test(name, labels, good, after, 0) for name, labels, _, good, after in cases]
    result = run_promtool_tests(deployment, tests, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("minutes", [3, 300])
def test_promtool_test_fails_if_an_expected_alert_does_not_fire(minutes: int, tmp_path: Path) -> None:
    result = run_promtool_tests(
        "docker", [alert_test("DatabaseIsDown", {}, single_series("pg_up", 1), minutes, 1)], tmp_path
    )
    assert result.returncode == 1
    assert "DatabaseIsDown" in result.stdout + result.stderr


def test_every_alert_expression_has_a_promtool_test() -> None:
    tested = {(deployment, name, distinguishing_values(labels)) for deployment, name, labels, *_ in CASES}
    kubernetes_expressions: set[str] = set()
    for deployment in ALL:
        expressions = {
            (rule["alert"], distinguishing_values(rule["labels"])): rule["expr"]
            for rule in alerts.alerts(ALL[deployment])
        }
        assert {(deployment, *key) for key, expr in expressions.items() if expr not in kubernetes_expressions} == {
            entry for entry in tested if entry[0] == deployment
        }
        # An expression that several Kubernetes deployments use needs one test only. The set contains no expressions of Docker,
        # because an expression that both platforms use must be tested on both.
        kubernetes_expressions |= set(expressions.values()) if deployment != DOCKER else set()


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def backup_metrics(*runs_: tuple[str, bool]) -> list[Series]:
    """Return the metrics that the backup program reports after the given runs.

    Each run is a pair: the kind of the run, and True if the run succeeded. The runs end one hour apart, and the last run ends at NOW.
    """
    runs = [
        Run(id=kind, kind=kind, time=NOW - timedelta(hours=age), ok=ok, snapshots=("data",), size=1, seconds=1)
        for age, (kind, ok) in enumerate(reversed(runs_))
    ]
    return [page_line(line) for line in serve.metrics(runs[::-1], {"backup": "daily", "verify": "monthly"}, NOW)]


def page_line(line: str) -> Series:
    name, _, labels = line.partition(" ")[0].rstrip("}").partition("{")
    return series(name, float(line.rpartition(" ")[2]), **dict(re.findall(r'(\w+)="(\w+)"', labels)))


@pytest.mark.parametrize(
    ("runs", "firing"),
    [
        ([("begin", True)], []),
        ([("begin", True), ("backup", True)], []),
        ([("begin", True), ("backup", True), ("verify", True)], []),
        ([("begin", True), ("backup", True), ("verify", False)], ["BackupDoesNotComeBack"]),
        ([("begin", True), ("backup", True), ("verify", False), ("verify", True)], []),
    ],
)
def test_backup_alert_fires_for_a_failed_verification_and_not_in_a_new_environment(
    runs: Sequence[tuple[str, bool]], firing: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_next_time", lambda schedule, after: after + timedelta(days=1))
    names = {rule["alert"] for rule in alerts.alerts(ALL[BACKED_UP]) if rule["alert"].startswith("Backup")}
    assert len(names) == 4
    tests = [alert_test(name, {}, backup_metrics(*runs), 30, int(name in firing)) for name in sorted(names)]
    result = run_promtool_tests(BACKED_UP, tests, tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_backup_queries_use_exactly_the_exported_backup_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_next_time", lambda schedule, after: after + timedelta(days=1))
    queries = json.dumps([alerts.rule_file(ALL[BACKED_UP]), dashboard.queries(ALL[BACKED_UP])])
    exported_ = {
        entry["series"].partition("{")[0]
        for entry in backup_metrics(("begin", True), ("backup", True), ("verify", True))
    }
    assert set(re.findall(r"tiers_backup_\w+", queries)) == exported_
    assert "tiers_backup" not in json.dumps([alerts.rule_file(ALL[CLUSTER]), dashboard.queries(ALL[CLUSTER])])


DISTINGUISHING_LABELS = ("over", "quantile", "job", "figure")


def distinguishing_values(labels: dict[str, Any]) -> str:
    return " ".join(value for key, value in labels.items() if key in DISTINGUISHING_LABELS)


@pytest.mark.parametrize("deployment", ALL)
def test_every_alert_has_a_severity_a_summary_and_a_runbook_entry(deployment: str) -> None:
    for rule in alerts.alerts(ALL[deployment]):
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].startswith("board: ")
        file, _, heading = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^## (.+)$", (ROOT / file).read_text(), re.MULTILINE)
        assert heading in {entry.lower().replace(" ", "-") for entry in headings}


@pytest.mark.parametrize(("schedule", "days"), [("daily", 9), ("weekly", 9), ("monthly", 33)])
def test_base_backup_age_limit_follows_the_backup_schedule(schedule: str, days: int) -> None:
    tiers = tiers_with_backup("staging", S3, ha=True)
    tiers["database"]["backup"]["schedule"] = schedule
    rules = alerts.alerts(board_scope("staging", tiers=tiers))
    [expr] = [rule["expr"] for rule in rules if rule["alert"] == "BaseBackupIsOld"]
    assert f"> {days * 86400} " in expr


def test_slo_alert_that_can_never_fire_is_left_out_of_the_alert_rules() -> None:
    burns = [
        rule["labels"]["over"] for rule in alerts.alerts(board_scope(slo={"errors": 0.2})) if "over" in rule["labels"]
    ]
    assert burns == ["1d", "3d"]
    assert len([1 for rule in alerts.alerts(board_scope(slo={"errors": 0})) if "over" in rule["labels"]]) == 4


def test_external_database_has_no_alerts_and_no_metric_queries() -> None:
    scope_with_external_database = board_scope(tiers={"database": {"external": {"host": "db.test"}}})
    assert not [rule for rule in alerts.alerts(scope_with_external_database) if rule["alert"].startswith("Database")]
    assert "pg_" not in json.dumps(
        [
            dashboard.queries(scope_with_external_database),
            alerts.rule_file(scope_with_external_database),
            prometheus.files(scope_with_external_database),
        ]
    )


def test_every_prometheus_query_selects_the_namespace_of_the_stack() -> None:
    for monitoring_scope in ALL.values():
        texts = [
            rule["expr"] for group in alerts.rule_file(monitoring_scope)["groups"] for rule in group["rules"]
        ] + dashboard.queries(monitoring_scope)
        for text in texts:
            expression_without_values = re.sub(r'"[^"]*"', "", text)
            assert text.count("{") == text.count(NAMESPACE) == expression_without_values.count("namespace="), text


# ---------------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    ("stack", "monitoring", "message"),
    [
        ("dev", {"namespace": "x"}, "environment.monitoring.namespace: it has no effect on the platform docker"),
        ("staging", {"port": 1}, "environment.monitoring.port: it has no effect on the platform kubernetes"),
        ("dev", {"port": 8080}, "environment.monitoring.port: the gateway has port 8080 too"),
        ("dev", "yes", "environment.monitoring: "),
        (
            "dev",
            {"exporters": {"databse": "exporter:1"}},
            "environment.monitoring.exporters.databse: 'databse' has no exporter; write database or cache (did you mean database?)",
        ),
        (
            "dev",
            {"exporters": {"api": "exporter:1"}},
            "environment.monitoring.exporters.api: 'api' has no exporter; write database or cache",
        ),
    ],
)
def test_monitoring_setting_without_effect_or_with_a_conflict_is_refused(
    stack: str, monitoring: object, message: str
) -> None:
    app = load_app(project())
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_environment(environment(stack) | {"monitoring": monitoring}, app)


def test_exporter_image_without_a_digest_is_refused_if_images_must_be_pinned() -> None:
    with pytest.raises(
        ConfigError, match=r"environment\.monitoring\.exporters\.cache: .* has no digest, which `pinned: true` requires"
    ):
        load_environment(environment("prod") | {"monitoring": True}, load_app(project()))


def test_exporter_image_that_is_not_deployed_needs_no_digest() -> None:
    """Check the image of the database exporter with and without `ha`.

    With `ha: true` the exporter is not deployed, because the instances of a database cluster export metrics themselves.
    """
    env: Any = environment("prod") | {"monitoring": {"exporters": {"cache": f"exporter@sha256:{'0' * 64}"}}}
    env["tiers"]["database"]["ha"] = False
    with pytest.raises(ConfigError, match=r"exporters\.database: .* has no digest, which `pinned: true` requires"):
        load_environment(env, load_app(project()))
    env["tiers"]["database"]["ha"] = True
    load_environment(env | {"pooler": f"pgbouncer@sha256:{'0' * 64}"}, load_app(project()))


def test_business_metric_is_refused_without_a_namespace_selector_or_without_a_tier_with_metrics() -> None:
    app = project()
    app["figures"] = {"orders": {"query": "sum(orders_total)"}}
    with pytest.raises(ConfigError, match=r"app\.figures\.orders\.query: .*sum\(shop_orders_total\{\$here\}\)"):
        load_app(app)
    app = project()
    del app["api"]["metrics"]
    with pytest.raises(ConfigError, match=r"app\.figures: figures need a tier with metrics"):
        load_app(app)


# ---------------------------------------------------------------------- resources


def deploy_with_monitoring() -> Deployment:
    return deploy(env=environment() | {"monitoring": {"port": 9191}})


def networks(deployed: Deployment, name: str) -> set[str]:
    return {network["name"].rpartition("-")[2] for network in deployed.by_name[name].inputs.get("networksAdvanced", ())}


def test_prometheus_is_not_in_the_data_network_and_exporters_have_no_egress() -> None:
    deployed = deploy_with_monitoring()
    assert networks(deployed, "prometheus") == {"edge", "watch", "outside"}
    assert networks(deployed, "database-exporter") == networks(deployed, "cache-exporter") == {"data", "watch"}
    [watch] = [entry for entry in deployed.of_type(NETWORK) if entry.name == "watch"]
    assert watch.inputs["internal"] is True
    tiers = [entry for entry in deployed.of_type(CONTAINER) if entry.labels["tiers.role"] in ("tier", "task")]
    assert tiers
    assert not [entry.name for entry in tiers if "watch" in networks(deployed, entry.name)]


def test_no_monitoring_resource_is_deployed_without_monitoring() -> None:
    deployed = first_release()
    names = {entry.name for entry in deployed.all}
    assert not [name for name in names if "prometheus" in name or "exporter" in name or name in ("watch", "released")]


def test_database_exporter_reads_the_database_that_tiers_use() -> None:
    """Check that the exporter connects to the restored database.

    After `make restore` a user may drop the old database. If the exporter still used the old database, an alert would fire.
    """
    env = environment() | {"monitoring": True, "tiers": {"database": {"name": "board_restored"}}}
    deployed = deploy(env=env)
    assert "DATABASE_NAME=board_restored" in deployed.by_name["blue-api-1"].inputs["envs"]
    variables = dict(variable.split("=", 1) for variable in deployed.by_name["database-exporter"].inputs["envs"])
    assert variables["DATA_SOURCE_URI"].startswith("database:5432/board_restored?")


@pytest.mark.parametrize("password", ["two words", "cGFzcw=="])
def test_password_with_spaces_or_equals_signs_is_passed_to_the_exporter_in_a_variable(password: str) -> None:
    """Check that the connection string has no password, because postgres_exporter 0.11 splits the string at spaces and `=`."""
    secrets = SECRETS | {"database-password": password}
    exporter = deploy(env=environment() | {"monitoring": True}, secrets=secrets).by_name["database-exporter"]
    variables = dict(variable.split("=", 1) for variable in exporter.inputs["envs"])
    assert {name: value for name, value in variables.items() if name.startswith("DATA_SOURCE")} == {
        "DATA_SOURCE_NAME": "postgresql://board@database:5432/board?sslmode=disable&role=pg_monitor&default_transaction_read_only=on"
    }
    assert 'PGPASSWORD="$(cat /run/secrets/database-password)"' in exporter.inputs["command"][-1]
    assert password not in json.dumps(exporter.inputs)


def test_monitoring_that_is_enabled_on_docker_changes_the_release_digest() -> None:
    claim = deploy_with_monitoring().by_name["blue-claim"].inputs["command"]
    assert "prometheus-exporter" in claim[-1]
    assert "prometheus-exporter" not in first_release().by_name["blue-claim"].inputs["command"][-1]
    assert deploy_with_monitoring().release != first_release().release


def test_prometheus_is_replaced_after_a_changed_alert_rule_but_not_after_a_release() -> None:
    before = deploy_with_monitoring()
    env = environment() | {"monitoring": {"port": 9191}}
    app = project() | {"version": "2.0.0"}
    released = deploy(app, env, export=checkpoint_of(before))
    assert released.by_name["prometheus"].inputs == before.by_name["prometheus"].inputs
    files = [entry.by_name["released"].inputs["uploads"][0] for entry in (before, released)]
    assert [json.loads(file["content"])[0]["labels"]["slot"] for file in files] == ["blue", "green"]
    changed = deploy(project(), env | {"slo": {"errors": 0.05}}, export=checkpoint_of(before))
    volumes = [
        {volume["volumeName"] for volume in monitoring_scope.by_name["prometheus"].inputs["volumes"]}
        for monitoring_scope in (before, changed)
    ]
    assert {"board-dev-prometheus-data", "board-dev-prometheus-released"} == volumes[0] & volumes[1] != volumes[0]


def test_release_on_kubernetes_is_recorded_in_a_prometheus_rule_after_the_switch() -> None:
    deployed = deploy(env=environment("staging") | {"monitoring": True}, stack="staging")
    [rule] = deployed.get_object("PrometheusRule", "board-release").inputs["spec"]["groups"][0]["rules"]
    assert rule["labels"] == {"namespace": "board-staging", "release": deployed.release, "slot": "blue"}
    assert "board" in deployed.dependencies_of(deployed.get_object("PrometheusRule", "board-release"))
    text = deployed.get_object("ConfigMap", "board-dashboard").inputs["data"]["board-staging.json"]
    assert len(json.loads(text)["panels"]) > 15


def test_dashboard_panels_do_not_overlap() -> None:
    for monitoring_scope in ALL.values():
        panels = dashboard.dashboard(monitoring_scope)["panels"]
        places = [(x, y) for panel in panels for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
                  for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])]  # fmt: skip
        assert len(places) == len(set(places))
        assert len({panel["id"] for panel in panels}) == len(panels)


def test_prometheus_volume_is_not_protected() -> None:
    assert not [
        entry.name
        for entry in deploy_with_monitoring().of_type(VOLUME)
        if entry.name.startswith("prometheus") and entry.protect
    ]


def test_metrics_port_of_database_instances_is_open_to_prometheus_only() -> None:
    monitoring_scope = scope_with_ha()
    scope = Scope(app="board", instance="board-staging", namespace="board-staging")
    # The selector must not match the temporary database cluster of a point-in-time restore. Otherwise Prometheus would count
    # two primaries.
    instance = {
        "cnpg.io/cluster": "database-ha",
        "cnpg.io/podRole": "instance",
        "app.kubernetes.io/instance": "board-staging",
    }
    [monitor] = [entry for entry in operated.monitors(scope, monitoring_scope, {}) if entry["kind"] == "PodMonitor"]
    assert monitor["spec"]["selector"]["matchLabels"] == instance
    [policy] = [
        entry
        for entry in operated.policies(scope, monitoring_scope, {})
        if entry["metadata"]["name"] == "watch-database-instances"
    ]
    network, pod = Network("board-staging", [policy]), ("board-staging", instance)
    assert network.allows("Ingress", pod, ("monitoring", {}), operated.INSTANCE_PORT, "TCP")
    assert not network.allows("Ingress", pod, ("monitoring", {}), 5432, "TCP")
    assert not network.allows("Ingress", pod, ("elsewhere", {}), operated.INSTANCE_PORT, "TCP")


def deploy_with_backup(stack: str, monitoring: object = True) -> Deployment:
    env = environment(stack) | {"monitoring": monitoring, "tiers": tiers_with_backup(stack)}
    return deploy(env=env, stack=stack, secrets=SECRETS | {"backup-key": "the-key-of-backups"})


def test_prometheus_scrapes_the_backup_container_on_docker() -> None:
    deployed = deploy_with_backup("dev", {"port": 9191})
    assert networks(deployed, "backup-1") == {"data", "watch"}
    assert networks(deploy_with_backup("dev", False), "backup-1") == {"data"}
    [config] = [entry for entry in deployed.all if re.fullmatch(r"prometheus-config-\w+-files", entry.name)]
    [text] = [upload["content"] for upload in config.inputs["uploads"] if upload["file"].endswith("prometheus.yml")]
    [job] = [entry for entry in json.loads(text)["scrape_configs"] if entry["job_name"] == "backup"]
    assert job["static_configs"] == [{"targets": ["backup:9200"]}]
    assert '"backup"' not in prometheus.files(board_scope())[f"{prometheus.CONFIG}/prometheus.yml"]


def test_prometheus_scrapes_the_backup_service_once_on_kubernetes() -> None:
    deployed = deploy_with_backup("staging")
    monitor = deployed.get_object("ServiceMonitor", "backup").inputs["spec"]
    selector = monitor["selector"]["matchLabels"].items()
    assert [entry.name for entry in deployed.of_type("Service") if selector <= entry.labels.items()] == ["backup"]
    network = Network("board-staging", [entry.inputs for entry in deployed.of_type("NetworkPolicy")])
    pods = deployed.get_object("StatefulSet", "backup").inputs["spec"]["template"]["metadata"]["labels"]
    run = deployed.get_object("CronJob", "backup-backup").inputs["spec"]["jobTemplate"]["spec"]["template"]["metadata"][
        "labels"
    ]
    for source, labels, port, may in (
        ("monitoring", pods, 9200, True),
        ("monitoring", pods, 9201, False),
        ("monitoring", run, 9200, False),
        ("elsewhere", pods, 9200, False),
    ):
        assert network.allows("Ingress", ("board-staging", labels), (source, {}), port, "TCP") is may


def test_prometheus_of_the_kubernetes_cluster_reaches_only_metrics_ports() -> None:
    deployed = deploy(env=environment("staging") | {"monitoring": True}, stack="staging")
    network = Network("board-staging", [entry.inputs for entry in deployed.of_type("NetworkPolicy")])
    pods = {
        entry.name: entry.inputs["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for entry in deployed.of_type(kind)
    }
    reachable_ports = {
        (name, port)
        for name, labels in pods.items()
        for port in (8000, 8080, 5432, 6379, 9187, 9121)
        if network.allows("Ingress", ("board-staging", labels), ("monitoring", {}), port, "TCP")
    }
    assert reachable_ports == {("api-blue", 8000), ("database-exporter", 9187), ("cache-exporter", 9121)}
    for data, port in (("database", 5432), ("cache", 6379)):
        exporter, other = ("board-staging", pods[f"{data}-exporter"]), {"database": "cache", "cache": "database"}[data]
        assert network.reaches(exporter, ("board-staging", pods[data]), port)
        assert not network.reaches(exporter, ("board-staging", pods[other]), {"database": 5432, "cache": 6379}[other])
        assert not network.reaches(exporter, ("board-staging", pods["api-blue"]), 8000)


def test_user_request_metrics_exclude_only_the_exact_paths_of_probes_and_metrics() -> None:
    app = project()
    app["api"] |= {"health": "/a.b", "ready": "/c", "metrics": "/m"}
    del app["web"]
    environment = {"platform": "docker", "monitoring": True}
    scope = MonitoringScope(app=load_app(app), environment=load_environment(environment, load_app(app)), namespace="x")
    assert 'route!~"/a[.]b|/c|/m"' in scope.responses("count")
