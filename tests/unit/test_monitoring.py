"""Metrics, alerts and dashboard, checked by promtool on artificial series."""

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

from components import alerts, dashboard
from components.alerts import Watched
from components.config import ConfigError, TierName, load_app, load_environment
from components.platforms import operated, prometheus
from components.platforms.manifests import Scope
from components.platforms.reachability import Network
from images.backup.backup import serve
from images.backup.backup.repository import Run

from .program import (
    CONTAINER,
    NETWORK,
    ROOT,
    SECRETS,
    VOLUME,
    Deployment,
    deploy,
    environment,
    exported,
    first,
    project,
)

HERE = 'namespace="board"'
MINUTES = 700


def watched(stack: str = "dev", app: dict[str, Any] | None = None, **more: Any) -> Watched:
    """Return the monitoring input of the board in one of its stacks."""
    env = environment(stack) | {"monitoring": True, "pinned": False, **more}
    described = load_app(app or project())
    return Watched(app=described, environment=load_environment(env, described), namespace="board")


def certified() -> Watched:
    env = environment("staging")
    env["kubernetes"] |= {"url": "https://board.test"}
    env["kubernetes"]["gateway"] = {"name": "own", "namespace": "gateway", "inside": "https://board.test"}
    env["kubernetes"]["gateway"]["create"] = {"gateway_class": "x", "certificate": "tls", "issuer": "letsencrypt"}
    return watched("staging", kubernetes=env["kubernetes"])


def replicated() -> Watched:
    """Return the monitoring input with `ha` for database and cache."""
    one = watched("staging")
    tiers = {
        tier: one.environment.size(tier).model_copy(update={"ha": True}) for tier in (TierName.DATABASE, TierName.CACHE)
    }
    return replace(one, environment=one.environment.model_copy(update={"tiers": tiers}))


def with_backup(stack: str, target: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
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
    "docker": watched(),
    "kubernetes": watched("staging"),
    "certified": certified(),
    "replicated": replicated(),
    "backed up": watched("staging", tiers=with_backup("staging")),
    "archived": watched("staging", tiers=with_backup("staging", S3, ha=True)),
}
every_deployment = pytest.mark.parametrize("one", ALL.values(), ids=ALL)


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("promtool"), "no promtool on PATH: run `python3 -m lab up lint`"
    return subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60)


@every_deployment
def test_promtool_accepts_the_alert_rules(one: Watched, tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps(alerts.file(one)))
    done = promtool("check", "rules", "--lint-fatal", file)
    assert done.returncode == 0, done.stdout + done.stderr


@every_deployment
def test_promtool_accepts_every_query_of_the_dashboard(one: Watched, tmp_path: Path) -> None:
    file = tmp_path / "queries.yml"
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(dashboard.queries(one))]
    assert len(rules) > 15
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration_of_prometheus(tmp_path: Path) -> None:
    one = watched(monitoring={"alertmanager": "https://alerts.test"}, tiers=with_backup("dev"))
    for name, text in prometheus.files(one).items():
        here = tmp_path / Path(name).name
        here.write_text(text.replace(prometheus.CONFIG, str(tmp_path)))
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------- alerts

Series = dict[str, str]


def series(name: str, values: str | float, /, **labels: str) -> Series:
    selector = ",".join([HERE, *(f'{key}="{value}"' for key, value in labels.items())])
    return {"series": f"{name}{{{selector}}}", "values": values if isinstance(values, str) else f"{values:g}x{MINUTES}"}


def growing(name: str, by: float, /, **labels: str) -> Series:
    return series(name, f"0+{by:g}x{MINUTES}", **labels)


def at_the_gateway(failed: float) -> list[Series]:
    """Return series of 940 successful answers a minute at the gateway, and of failed ones."""
    name, proxy = "haproxy_frontend_http_responses_total", "gateway"
    return [growing(name, 940, proxy=proxy, code="2xx"), growing(name, failed, proxy=proxy, code="5xx")]


def by_the_api(failed: float) -> list[Series]:
    name, labels = "http_request_duration_seconds_count", {"job": "api", "route": "/api/x"}
    # Requests to the readiness path must not count as successful ones.
    ready = growing(name, 10_000, job="api", route="/ready", status="200")
    return [growing(name, 940, **labels, status="200"), growing(name, failed, **labels, status="503"), ready]


def taking(seconds: str) -> list[Series]:
    """Return series in which every answer takes at most this long, and longer than the bucket bound below."""
    bounds = ["0.25", "0.5", "1", "2.5", "+Inf"]
    name, labels = "http_request_duration_seconds_bucket", {"job": "api", "route": "/api/x"}
    return [growing(name, 60 * (bounds.index(le) >= bounds.index(seconds)), **labels, le=le) for le in bounds]


def connections(taken: float) -> list[Series]:
    return [series("pg_stat_activity_count", taken), series("pg_settings_max_connections", 100)]


def in_memory(used: float) -> list[Series]:
    labels = {"pod": "a", "container": "api"}
    names = {"container_memory_working_set_bytes": used, "container_spec_memory_limit_bytes": 100}
    return [series(name, value, **labels) for name, value in names.items()]


def held_back(periods: float) -> list[Series]:
    labels = {"pod": "a", "container": "api"}
    names = {"container_cpu_cfs_throttled_periods_total": periods, "container_cpu_cfs_periods_total": 100}
    return [growing(name, value, **labels) for name, value in names.items()]


def on_disk(left: float) -> list[Series]:
    names = {"kubelet_volume_stats_available_bytes": left, "kubelet_volume_stats_capacity_bytes": 100}
    return [series(name, value, persistentvolumeclaim="database-data") for name, value in names.items()]


def one(name: str, value: float, **labels: str) -> list[Series]:
    return [series(name, value, **labels)]


def until(days: float) -> list[Series]:
    # promtool's clock begins in 1970.
    return one("certmanager_certificate_expiration_timestamp_seconds", days * 86400)


def instances(up: int, lag: float = 0, writes: int = 1) -> list[Series]:
    """Return series of three database instances: the number that are up, the number that accept writes, and the lag of all in seconds."""
    series_: list[Series] = []
    for number in range(3):
        pod = f"database-{number}"
        series_.append(series("cnpg_collector_up", int(number < up), pod=pod))
        series_.append(series("cnpg_pg_replication_in_recovery", int(number >= writes), pod=pod))
        series_.append(series("cnpg_pg_replication_lag", lag, pod=pod))
    return series_


def connected(taken: float) -> list[Series]:
    return [
        series("cnpg_backends_total", taken, pod="database-0"),
        series("cnpg_pg_settings_setting", 100, pod="database-0", name="max_connections"),
    ]


def waiting(files: int) -> list[Series]:
    """Return series of WAL files that the three instances have not archived yet."""
    return [
        series("cnpg_collector_pg_wal_archive_status", files if pod == "1" else 0, pod=pod, value="ready")
        for pod in "123"
    ] + [series("cnpg_collector_pg_wal_archive_status", 900, pod="1", value="done")]


def streaming(replicas: int) -> list[Series]:
    """Return series of the replicas that stream from the primary; the replicas themselves report none."""
    name = "cnpg_pg_replication_streaming_replicas"
    return [series(name, replicas if pod == "1" else 0, pod=pod) for pod in "123"]


def base(days: float) -> list[Series]:
    """Return series of the last base backup, so many days before promtool's clock begins."""
    name = "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp"
    return [series(name, -days * 86400, pod=pod) for pod in "123"]


DOCKER, CLUSTER, CERTIFIED, REPLICATED, BACKED_UP, ARCHIVED = ALL
# Columns: deployment; alert and its own labels; series that fire and series that do not; minutes until evaluation.
CASES: list[tuple[str, str, dict[str, str], list[Series], list[Series], int]] = [
    (DOCKER, "ErrorBudgetBurns", {"over": "1h"}, at_the_gateway(200), at_the_gateway(9), 10),
    (DOCKER, "ErrorBudgetBurns", {"over": "6h"}, at_the_gateway(80), at_the_gateway(9), 60),
    (DOCKER, "ErrorBudgetBurns", {"over": "1d"}, at_the_gateway(40), at_the_gateway(9), 300),
    (DOCKER, "ErrorBudgetBurns", {"over": "3d"}, at_the_gateway(15), at_the_gateway(9), 600),
    (CLUSTER, "ErrorBudgetBurns", {"over": "1h"}, by_the_api(20), by_the_api(0), 10),
    (CLUSTER, "ErrorBudgetBurns", {"over": "6h"}, by_the_api(8), by_the_api(0), 60),
    (CLUSTER, "ErrorBudgetBurns", {"over": "1d"}, by_the_api(4), by_the_api(0), 300),
    (CLUSTER, "ErrorBudgetBurns", {"over": "3d"}, by_the_api(2), by_the_api(0), 600),
    (CLUSTER, "AnswersAreSlow", {"quantile": "p95"}, taking("0.5"), taking("0.25"), 20),
    (CLUSTER, "AnswersAreSlow", {"quantile": "p99"}, taking("2.5"), taking("1"), 20),
    (DOCKER, "AnswersAreSlow", {"quantile": "p95"}, taking("1"), taking("0.5"), 20),
    (DOCKER, "AnswersAreSlow", {"quantile": "p99"}, taking("2.5"), taking("1"), 20),
    (DOCKER, "NothingAnswers", {"job": "api"}, one("up", 0, job="api"), one("up", 1, job="api"), 4),
    (DOCKER, "NothingAnswers", {"job": "gateway"}, [], one("up", 1, job="gateway"), 4),
    (CLUSTER, "NothingAnswers", {"job": "api"}, [], one("up", 1, job="api"), 4),
    *(
        (where, "TargetIsDown", {"job": job}, one("up", 0, job=job), one("up", 1, job=job), 7)
        for where in (DOCKER, CLUSTER)
        for job in ("api", "database", "cache")
    ),
    *(
        case
        for where in (DOCKER, CLUSTER)
        for case in (
            (where, "FigureIsBeyond", {"figure": "queue_age"}, one("board_queue_oldest_seconds", 301), one("board_queue_oldest_seconds", 299), 12),
            (where, "FigureIsBeyond", {"figure": "queue_depth"}, one("board_queue_depth", 1001), one("board_queue_depth", 999), 12),
            (where, "DatabaseIsDown", {}, one("pg_up", 0), one("pg_up", 1), 3),
            (where, "DatabaseConnectionsRunOut", {}, connections(81), connections(79), 7),
            (where, "DatabaseDeadlocks", {}, [growing("pg_stat_database_deadlocks", 10)], [growing("pg_stat_database_deadlocks", 1)], 20),
            (where, "CacheIsDown", {}, [], one("redis_up", 1), 3),
            (where, "CacheIsNotKept", {}, one("redis_aof_last_write_status", 0), one("redis_aof_last_write_status", 1), 3),
        )
    ),
    (DOCKER, "CacheMemoryRunsOut", {}, one("redis_memory_used_bytes", 460 * 2**20), one("redis_memory_used_bytes", 430 * 2**20), 7),
    (CLUSTER, "CacheMemoryRunsOut", {}, one("redis_memory_used_bytes", 230 * 2**20), one("redis_memory_used_bytes", 215 * 2**20), 7),
    (CLUSTER, "MemoryRunsOut", {"pod": "a"}, in_memory(95), in_memory(85), 12),
    (CLUSTER, "ProcessorRunsOut", {"pod": "a"}, held_back(60), held_back(40), 20),
    (CLUSTER, "DiskRunsFull", {"persistentvolumeclaim": "database-data"}, on_disk(14), on_disk(16), 7),
    (REPLICATED, "DatabaseIsDown", {}, instances(3, writes=0), instances(1), 3),
    (REPLICATED, "DatabaseInstanceIsLost", {}, instances(2), instances(3), 12),
    (REPLICATED, "DatabaseReplicaDoesNotStream", {}, streaming(1), streaming(2), 12),
    (REPLICATED, "DatabaseLags", {}, instances(3, lag=31), instances(3, lag=29), 7),
    (REPLICATED, "DatabaseConnectionsRunOut", {"pod": "database-0"}, connected(81), connected(79), 7),
    (REPLICATED, "DatabaseDeadlocks", {}, [growing("cnpg_pg_stat_database_deadlocks", 10)], [growing("cnpg_pg_stat_database_deadlocks", 1)], 20),
    (ARCHIVED, "ChangesAreNotKept", {}, waiting(9), waiting(8), 12),
    (ARCHIVED, "BaseBackupIsOld", {}, base(9.1), base(8.9), 65),
    (ARCHIVED, "BaseBackupIsOld", {}, [], base(0), 65),
    (REPLICATED, "CacheReplicaIsLost", {}, one("redis_connected_slaves", 1), one("redis_connected_slaves", 2), 12),
    (BACKED_UP, "BackupIsOverdue", {"kind": "full"}, one("tiers_backup_overdue", 1, kind="full"), one("tiers_backup_overdue", 0, kind="full"), 7),
    (BACKED_UP, "BackupDoesNotComeBack", {}, one("tiers_backup_verified", 0), one("tiers_backup_verified", 1), 7),
    (BACKED_UP, "BackupsCanNotBeRead", {}, one("tiers_backup_repository_readable", 0), one("tiers_backup_repository_readable", 1), 17),
    (BACKED_UP, "BackupsSayNothing", {}, [], one("tiers_backup_repository_readable", 0), 17),
    (CERTIFIED, "CertificateExpires", {}, until(13.5), until(16), 65),
]  # fmt: skip


def alert_test(
    name: str, labels: dict[str, str], input_series: list[Series], minutes: int, fires: int
) -> dict[str, Any]:
    """Return a promtool test: the number of firing alerts with this name and these labels after some minutes."""
    selector = ",".join(
        f'{key}="{value}"' for key, value in {"alertname": name, "alertstate": "firing", **labels}.items()
    )
    samples = [{"labels": "{}", "value": fires}]
    test = {
        "expr": f"count(ALERTS{{{HERE},{selector}}}) or vector(0)",
        "eval_time": f"{minutes}m",
        "exp_samples": samples,
    }
    # promtool needs at least one series.
    return {
        "name": f"{name} {labels} {fires}",
        "interval": "1m",
        "input_series": input_series or one("x", 1),
        "promql_expr_test": [test],
    }


def verdict(where: str, tests: list[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool on the tests. For tests of hours it evaluates every fifth minute, because it evaluates all rules each time."""
    (folder / "rules.yml").write_text(json.dumps(alerts.file(ALL[where])))
    by_interval: dict[str, list[dict[str, Any]]] = {}
    for test in tests:
        minutes = int(test["promql_expr_test"][0]["eval_time"].removesuffix("m"))
        by_interval.setdefault("5m" if minutes > 60 else "1m", []).append(test)
    files = [folder / f"every-{interval}.yml" for interval in by_interval]
    for file, (interval, entry) in zip(files, by_interval.items(), strict=True):
        file.write_text(json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": entry}))
    return promtool("test", "rules", *files)


@pytest.mark.parametrize("where", ALL)
def test_alert_fires_beyond_its_limit_and_not_within(where: str, tmp_path: Path) -> None:
    cases = [(name, labels, bad, good, after) for at, name, labels, bad, good, after in CASES if at == where]
    tests = [alert_test(name, labels, bad, after, 1) for name, labels, bad, _, after in cases]
    tests += [alert_test(name, labels, good, after, 0) for name, labels, _, good, after in cases]
    done = verdict(where, tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("minutes", [3, 300])
def test_promtool_fails_if_an_expected_alert_does_not_fire(minutes: int, tmp_path: Path) -> None:
    done = verdict("docker", [alert_test("DatabaseIsDown", {}, one("pg_up", 1), minutes, 1)], tmp_path)
    assert done.returncode == 1
    assert "DatabaseIsDown" in done.stdout + done.stderr


def test_every_distinct_alert_expression_is_tested() -> None:
    tested = {(where, name, own_labels(labels)) for where, name, labels, *_ in CASES}
    others: set[str] = set()
    for where in ALL:
        expressions = {(rule["alert"], own_labels(rule["labels"])): rule["expr"] for rule in alerts.alerts(ALL[where])}
        assert {(where, *key) for key, expr in expressions.items() if expr not in others} == {
            entry for entry in tested if entry[0] == where
        }
        # Docker's metrics have other names; equal expressions are a coincidence.
        others |= set(expressions.values()) if where != DOCKER else set()


NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def backup_metrics(*runs_: tuple[str, bool]) -> list[Series]:
    """Return the backup program's metrics after these runs, an hour apart, the last one just now."""
    runs = [
        Run(id=kind, kind=kind, at=NOW - timedelta(hours=age), ok=ok, of=("data",), size=1, seconds=1)
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
    monkeypatch.setattr(serve, "_next", lambda at, after: after + timedelta(days=1))
    names = {rule["alert"] for rule in alerts.alerts(ALL[BACKED_UP]) if rule["alert"].startswith("Backup")}
    assert len(names) == 4
    tests = [alert_test(name, {}, backup_metrics(*runs), 30, int(name in firing)) for name in sorted(names)]
    done = verdict(BACKED_UP, tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_queries_about_backups_use_exactly_the_exported_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_next", lambda at, after: after + timedelta(days=1))
    queries = json.dumps([alerts.file(ALL[BACKED_UP]), dashboard.queries(ALL[BACKED_UP])])
    exported_ = {
        entry["series"].partition("{")[0]
        for entry in backup_metrics(("begin", True), ("backup", True), ("verify", True))
    }
    assert set(re.findall(r"tiers_backup_\w+", queries)) == exported_
    assert "tiers_backup" not in json.dumps([alerts.file(ALL[CLUSTER]), dashboard.queries(ALL[CLUSTER])])


OWN = ("over", "quantile", "job", "figure")


def own_labels(labels: dict[str, Any]) -> str:
    return " ".join(value for key, value in labels.items() if key in OWN)


@pytest.mark.parametrize("where", ALL)
def test_alert_has_severity_summary_and_runbook_entry(where: str) -> None:
    for rule in alerts.alerts(ALL[where]):
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].startswith("board: ")
        file, _, heading = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^## (.+)$", (ROOT / file).read_text(), re.MULTILINE)
        assert heading in {entry.lower().replace(" ", "-") for entry in headings}


@pytest.mark.parametrize(("schedule", "days"), [("daily", 9), ("weekly", 9), ("monthly", 33)])
def test_limit_for_an_old_base_backup_follows_its_schedule(schedule: str, days: int) -> None:
    tiers = with_backup("staging", S3, ha=True)
    tiers["database"]["backup"]["schedule"] = schedule
    rules = alerts.alerts(watched("staging", tiers=tiers))
    [expr] = [rule["expr"] for rule in rules if rule["alert"] == "BaseBackupIsOld"]
    assert f"> {days * 86400} " in expr


def test_alert_that_could_never_fire_is_left_out() -> None:
    burns = [rule["labels"]["over"] for rule in alerts.alerts(watched(slo={"errors": 0.2})) if "over" in rule["labels"]]
    assert burns == ["1d", "3d"]
    assert len([1 for rule in alerts.alerts(watched(slo={"errors": 0})) if "over" in rule["labels"]]) == 4


def test_external_database_has_no_alerts() -> None:
    outside = watched(tiers={"database": {"external": {"host": "db.test"}}})
    assert not [rule for rule in alerts.alerts(outside) if rule["alert"].startswith("Database")]
    assert "pg_" not in json.dumps([dashboard.queries(outside), alerts.file(outside), prometheus.files(outside)])


def test_every_query_selects_the_own_namespace() -> None:
    for one in ALL.values():
        texts = [rule["expr"] for group in alerts.file(one)["groups"] for rule in group["rules"]] + dashboard.queries(
            one
        )
        for text in texts:
            bare = re.sub(r'"[^"]*"', "", text)
            assert text.count("{") == text.count(HERE) == bare.count("namespace="), text


# ---------------------------------------------------------------------- the configuration


@pytest.mark.parametrize(
    ("stack", "monitoring", "message"),
    [
        ("dev", {"namespace": "x"}, "environment.monitoring.namespace: platform is docker"),
        ("staging", {"port": 1}, "environment.monitoring.port: platform is kubernetes"),
        ("dev", {"port": 8080}, "environment.monitoring.port: 8080 is the gateway's, too"),
        ("dev", "yes", "environment.monitoring: "),
    ],
)
def test_monitoring_setting_of_another_platform_is_refused(stack: str, monitoring: object, message: str) -> None:
    app = load_app(project())
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_environment(environment(stack) | {"monitoring": monitoring}, app)


def test_exporter_image_without_a_digest_is_refused_where_images_are_pinned() -> None:
    with pytest.raises(ConfigError, match=r"environment\.monitoring\.exporters\.cache: .* not named by its digest"):
        load_environment(environment("prod") | {"monitoring": True}, load_app(project()))


def test_exporter_that_is_not_deployed_needs_no_digest() -> None:
    """A database cluster exports its own metrics."""
    env: Any = environment("prod") | {"monitoring": {"exporters": {"cache": f"exporter@sha256:{'0' * 64}"}}}
    env["tiers"]["database"]["ha"] = False
    with pytest.raises(ConfigError, match=r"exporters\.database: .* not named by its digest"):
        load_environment(env, load_app(project()))
    env["tiers"]["database"]["ha"] = True
    load_environment(env | {"pooler": f"pgbouncer@sha256:{'0' * 64}"}, load_app(project()))


def test_figure_needs_a_namespace_selector_and_a_tier_with_metrics() -> None:
    app = project()
    app["figures"] = {"orders": {"query": "sum(orders_total)"}}
    with pytest.raises(ConfigError, match=r"app\.figures\.orders\.query: .*sum\(shop_orders_total\{\$here\}\)"):
        load_app(app)
    app = project()
    del app["api"]["metrics"]
    with pytest.raises(ConfigError, match=r"app\.figures: no tier has metrics"):
        load_app(app)


# ---------------------------------------------------------------------- resources


def monitored() -> Deployment:
    return deploy(env=environment() | {"monitoring": {"port": 9191}})


def networks(deployed: Deployment, name: str) -> set[str]:
    return {network["name"].rpartition("-")[2] for network in deployed.by_name[name].inputs.get("networksAdvanced", ())}


def test_prometheus_has_no_data_network_and_exporters_no_outside_network() -> None:
    deployed = monitored()
    assert networks(deployed, "prometheus") == {"edge", "watch", "outside"}
    assert networks(deployed, "database-exporter") == networks(deployed, "cache-exporter") == {"data", "watch"}
    [watch] = [entry for entry in deployed.of_type(NETWORK) if entry.name == "watch"]
    assert watch.inputs["internal"] is True
    tiers = [entry for entry in deployed.of_type(CONTAINER) if entry.labels["tiers.role"] in ("tier", "task")]
    assert tiers
    assert not [entry.name for entry in tiers if "watch" in networks(deployed, entry.name)]


def test_without_monitoring_no_monitoring_resource_is_deployed() -> None:
    deployed = first()
    names = {entry.name for entry in deployed.all}
    assert not [name for name in names if "prometheus" in name or "exporter" in name or name in ("watch", "released")]


def test_exporter_reads_the_database_that_tiers_use() -> None:
    """After `make restore` tiers use another database. The first may be dropped, and an exporter that reads it raises an alert."""
    env = environment() | {"monitoring": True, "tiers": {"database": {"name": "board_restored"}}}
    deployed = deploy(env=env)
    assert "DATABASE_NAME=board_restored" in deployed.by_name["blue-api-1"].inputs["envs"]
    variables = dict(variable.split("=", 1) for variable in deployed.by_name["database-exporter"].inputs["envs"])
    assert variables["DATA_SOURCE_URI"].startswith("database:5432/board_restored?")


@pytest.mark.parametrize("password", ["two words", "cGFzcw=="])
def test_password_that_a_connection_string_cannot_hold_reaches_the_exporter_in_a_variable(password: str) -> None:
    """postgres_exporter 0.11 splits its connection string at spaces and equals signs."""
    secrets = SECRETS | {"database-password": password}
    exporter = deploy(env=environment() | {"monitoring": True}, secrets=secrets).by_name["database-exporter"]
    variables = dict(variable.split("=", 1) for variable in exporter.inputs["envs"])
    assert {name: value for name, value in variables.items() if name.startswith("DATA_SOURCE")} == {
        "DATA_SOURCE_NAME": "postgresql://board@database:5432/board?sslmode=disable&role=pg_monitor&default_transaction_read_only=on"
    }
    assert 'PGPASSWORD="$(cat /run/secrets/database-password)"' in exporter.inputs["command"][-1]
    assert password not in json.dumps(exporter.inputs)


def test_monitoring_on_docker_changes_the_release_because_the_gateway_changes() -> None:
    claim = monitored().by_name["blue-claim"].inputs["command"]
    assert "prometheus-exporter" in claim[-1]
    assert "prometheus-exporter" not in first().by_name["blue-claim"].inputs["command"][-1]
    assert monitored().release != first().release


def test_changed_rule_replaces_prometheus_on_the_same_volume_and_a_release_does_not() -> None:
    before = monitored()
    env = environment() | {"monitoring": {"port": 9191}}
    app = project() | {"version": "2.0.0"}
    released = deploy(app, env, export=exported(before))
    assert released.by_name["prometheus"].inputs == before.by_name["prometheus"].inputs
    files = [entry.by_name["released"].inputs["uploads"][0] for entry in (before, released)]
    assert [json.loads(file["content"])[0]["labels"]["slot"] for file in files] == ["blue", "green"]
    changed = deploy(project(), env | {"slo": {"errors": 0.05}}, export=exported(before))
    volumes = [
        {volume["volumeName"] for volume in one.by_name["prometheus"].inputs["volumes"]} for one in (before, changed)
    ]
    assert {"board-dev-prometheus-data", "board-dev-prometheus-released"} == volumes[0] & volumes[1] != volumes[0]


def test_release_on_kubernetes_is_recorded_in_a_rule_after_the_switch() -> None:
    deployed = deploy(env=environment("staging") | {"monitoring": True}, stack="staging")
    [rule] = deployed.one("PrometheusRule", "board-release").inputs["spec"]["groups"][0]["rules"]
    assert rule["labels"] == {"namespace": "board-staging", "release": deployed.release, "slot": "blue"}
    assert "board" in deployed.before(deployed.one("PrometheusRule", "board-release"))
    text = deployed.one("ConfigMap", "board-dashboard").inputs["data"]["board-staging.json"]
    assert len(json.loads(text)["panels"]) > 15


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    for one in ALL.values():
        panels = dashboard.dashboard(one)["panels"]
        places = [(x, y) for panel in panels for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
                  for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])]  # fmt: skip
        assert len(places) == len(set(places))
        assert len({panel["id"] for panel in panels}) == len(panels)


def test_volume_of_prometheus_is_not_protected() -> None:
    assert not [
        entry.name for entry in monitored().of_type(VOLUME) if entry.name.startswith("prometheus") and entry.protect
    ]


def test_database_instances_expose_metrics_to_prometheus_only() -> None:
    one = replicated()
    scope = Scope(app="board", instance="board-staging", namespace="board-staging")
    # The cluster of a point-in-time restore must not be selected: it has a primary, too.
    instance = {
        "cnpg.io/cluster": "database-ha",
        "cnpg.io/podRole": "instance",
        "app.kubernetes.io/instance": "board-staging",
    }
    [monitor] = [entry for entry in operated.monitors(scope, one, {}) if entry["kind"] == "PodMonitor"]
    assert monitor["spec"]["selector"]["matchLabels"] == instance
    [policy] = [
        entry for entry in operated.policies(scope, one, {}) if entry["metadata"]["name"] == "watch-database-instances"
    ]
    network, pod = Network("board-staging", [policy]), ("board-staging", instance)
    assert network.may("Ingress", pod, ("monitoring", {}), operated.INSTANCE_PORT, "TCP")
    assert not network.may("Ingress", pod, ("monitoring", {}), 5432, "TCP")
    assert not network.may("Ingress", pod, ("elsewhere", {}), operated.INSTANCE_PORT, "TCP")


def backed_up(stack: str, monitoring: object = True) -> Deployment:
    env = environment(stack) | {"monitoring": monitoring, "tiers": with_backup(stack)}
    return deploy(env=env, stack=stack, secrets=SECRETS | {"backup-key": "the-key-of-backups"})


def test_on_docker_prometheus_scrapes_the_backup_container() -> None:
    deployed = backed_up("dev", {"port": 9191})
    assert networks(deployed, "backup-1") == {"data", "watch"}
    assert networks(backed_up("dev", False), "backup-1") == {"data"}
    [config] = [entry for entry in deployed.all if re.fullmatch(r"prometheus-config-\w+-files", entry.name)]
    [text] = [upload["content"] for upload in config.inputs["uploads"] if upload["file"].endswith("prometheus.yml")]
    [job] = [entry for entry in json.loads(text)["scrape_configs"] if entry["job_name"] == "backup"]
    assert job["static_configs"] == [{"targets": ["backup:9200"]}]
    assert '"backup"' not in prometheus.files(watched())[f"{prometheus.CONFIG}/prometheus.yml"]


def test_on_kubernetes_prometheus_scrapes_the_backup_service_once() -> None:
    deployed = backed_up("staging")
    monitor = deployed.one("ServiceMonitor", "backup").inputs["spec"]
    selector = monitor["selector"]["matchLabels"].items()
    assert [entry.name for entry in deployed.of_type("Service") if selector <= entry.labels.items()] == ["backup"]
    network = Network("board-staging", [entry.inputs for entry in deployed.of_type("NetworkPolicy")])
    pods = deployed.one("StatefulSet", "backup").inputs["spec"]["template"]["metadata"]["labels"]
    run = deployed.one("CronJob", "backup-backup").inputs["spec"]["jobTemplate"]["spec"]["template"]["metadata"][
        "labels"
    ]
    for source, labels, port, may in (
        ("monitoring", pods, 9200, True),
        ("monitoring", pods, 9201, False),
        ("monitoring", run, 9200, False),
        ("elsewhere", pods, 9200, False),
    ):
        assert network.may("Ingress", ("board-staging", labels), (source, {}), port, "TCP") is may


def test_prometheus_of_the_cluster_reaches_metrics_ports_only() -> None:
    deployed = deploy(env=environment("staging") | {"monitoring": True}, stack="staging")
    network = Network("board-staging", [entry.inputs for entry in deployed.of_type("NetworkPolicy")])
    pods = {
        entry.name: entry.inputs["spec"]["template"]["metadata"]["labels"]
        for kind in ("Deployment", "StatefulSet")
        for entry in deployed.of_type(kind)
    }
    open_to = {
        (name, port)
        for name, labels in pods.items()
        for port in (8000, 8080, 5432, 6379, 9187, 9121)
        if network.may("Ingress", ("board-staging", labels), ("monitoring", {}), port, "TCP")
    }
    assert open_to == {("api-blue", 8000), ("database-exporter", 9187), ("cache-exporter", 9121)}
    for data, port in (("database", 5432), ("cache", 6379)):
        asks, other = ("board-staging", pods[f"{data}-exporter"]), {"database": "cache", "cache": "database"}[data]
        assert network.reaches(asks, ("board-staging", pods[data]), port)
        assert not network.reaches(asks, ("board-staging", pods[other]), {"database": 5432, "cache": 6379}[other])
        assert not network.reaches(asks, ("board-staging", pods["api-blue"]), 8000)


def test_only_exact_probe_and_metrics_paths_are_left_out_of_user_requests() -> None:
    app = project()
    app["api"] |= {"health": "/a.b", "ready": "/c", "metrics": "/m"}
    del app["web"]
    environment = {"platform": "docker", "monitoring": True}
    input_ = Watched(app=load_app(app), environment=load_environment(environment, load_app(app)), namespace="x")
    assert 'route!~"/a[.]b|/c|/m"' in input_.answers("count")
