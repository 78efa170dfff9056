"""Prometheus rules of an environment: recording rules and alerts. All functions are pure.

The rules use the histogram `http_request_duration_seconds` of web and api, with the label `status`. They also use the metrics of
HAProxy, postgres_exporter, redis_exporter, CloudNativePG with its backup plugin, and cert-manager (docs/monitoring.md). An
environment gets an alert only if its services export the metrics of the alert. The burn rates come from the Site Reliability
Workbook, chapter 5.

Texts of rules are part of the state of deployed stacks. A changed text therefore updates the rules of every stack.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..config import HERE, App, Environment, Monitoring
from ..model.names import store_backup
from ..model.services import CACHE, DATABASE, Exporter

Rule = dict[str, Any]
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
BURNS = (
    # Columns: factor, long window, short window, duration, severity. The four alerts fire when 2, 5, 10 and 10 % of the
    # 30-day error budget is used up.
    (14.4, "1h", "5m", "2m", "critical"),
    (6, "6h", "30m", "15m", "critical"),
    (3, "1d", "2h", "1h", "warning"),
    (1, "3d", "6h", "3h", "warning"),
)
CERTIFICATE_DAYS = 14
"""An alert fires if a certificate expires within this number of days."""
INSTANCES = 3
"""Number of instances of a database cluster (`ha: true`), including the primary."""
REPLICAS = INSTANCES - 1
"""Number of replicas, besides the primary, of a database or cache with `ha: true`."""
WAL_BACKLOG = 8
"""Number of WAL files (16 MB each) that may wait for the archive after a burst of writes. An alert fires if more of them wait."""
BACKUP, BACKUP_PORT = "backup", 9200
"""Name of the backup workload, and port of its metrics. The scrape job has the same name."""
BACKUP_INTERVAL, BACKUP_TIMEOUT = "60s", "30s"
"""Scrape interval and timeout of the scrape job for backups. Both times are long, because a remote repository answers slowly."""


@dataclass(frozen=True, kw_only=True)
class MonitoringScope:
    """A monitored environment. The methods of this class return PromQL that selects only the series of this environment.

    Example:
        scope = MonitoringScope(app=context.app, environment=context.environment, namespace=rollout.platform.namespace)
        query = scope.selector("up", job="api")  # up{namespace="shop-prod",job="api"}
    """

    app: App
    """The application."""
    environment: Environment
    """The environment."""
    namespace: str
    """Value of the label `namespace`, which all series of this environment have."""

    @property
    def settings(self) -> Monitoring:
        assert self.environment.monitoring
        return self.environment.monitoring

    @property
    def matcher(self) -> str:
        """Label matcher of the series of this environment."""
        return f'namespace="{self.namespace}"'

    @property
    def exporters(self) -> Mapping[str, Exporter]:
        """Metrics exporters by name of the data service."""
        return self.environment.exporters(self.app)

    @property
    def replicated(self) -> bool:
        """True if services connect to a database cluster. The instances of a cluster export metrics without an exporter."""
        return (
            DATABASE.name in self.environment.data(self.app)
            and self.environment.tier_settings(DATABASE.name).uses_cluster
        )

    @property
    def backup_jobs(self) -> tuple[str, ...]:
        """Names of the backup workloads, which are also their scrape jobs: `backup` for the database, `mysql-backup` for a store."""
        backups = self.environment.backups
        database = [BACKUP] if self.app.database is not None and DATABASE.name in backups else []
        return (*database, *(store_backup(store) for store in self.app.stores if store in backups))

    @property
    def on_docker(self) -> bool:
        """True if the platform is Docker."""
        return self.environment.platform == "docker"

    @property
    def has_request_metrics(self) -> bool:
        """True if responses to users are counted: on Docker by the gateway, on Kubernetes by web and api."""
        return self.on_docker or bool(self.app.measured)

    @property
    def has_certificate_metrics(self) -> bool:
        """True if cert-manager issues the gateway's certificate. cert-manager then exports the certificate's expiry date."""
        gateway = self.environment.kubernetes and self.environment.kubernetes.gateway.create
        return bool(gateway and gateway.issuer)

    def selector(self, metric: str, *matchers: str, **labels: str) -> str:
        """Return the PromQL selector of a metric's series in this environment.

        Args:
            metric: name of the metric.
            matchers: additional label matchers, such as `status=~"5.."`.
            labels: additional labels with their exact values.
        """
        equal = [f'{name}="{value}"' for name, value in labels.items()]
        return f"{metric}{{{','.join([self.matcher, *equal, *matchers])}}}"

    def responses(self, metric: str, *matchers: str) -> str:
        """Return the PromQL selector of responses to users, from the histogram of web and api.

        The selector excludes health checks and requests for metrics.

        Args:
            metric: series of the histogram: `count`, `sum` or `bucket`.
            matchers: additional label matchers.
        """
        internal_paths = {
            path for tier in self.app.measured.values() for path in (tier.health, tier.ready, tier.metrics) if path
        }
        # Escape dots, because no other character in these paths has a special meaning in a regular expression.
        routes = "|".join(path.replace(".", "[.]") for path in sorted(internal_paths))
        return self.selector(f"http_request_duration_seconds_{metric}", f'route!~"{routes}"', *matchers)

    def figure_query(self, name: str) -> str:
        """Return the PromQL query of a business metric (`app.figures`), restricted to the series of this environment."""
        return self.app.figures[name].query.replace(HERE, self.matcher)


def recording_rules(monitored: MonitoringScope) -> list[Rule]:
    """Return the recording rules for alerts and the dashboard. The recorded series have the same names on all platforms."""
    rules = [*_requests(monitored), *_latencies(monitored)]
    if monitored.on_docker:
        # The series `up` of the job `release` has the live release in its labels. These labels come from a file that the program
        # writes after traffic has moved.
        released = f"max by (release, slot) ({monitored.selector('up', job='release')})"
        rules.append(_record(monitored, "tiers_release_info", released))
    for name in monitored.app.figures:
        rules.append(_record(monitored, "tiers_figure", monitored.figure_query(name), figure=name))
    return rules


def _record(monitored: MonitoringScope, name: str, expr: str, **labels: str) -> Rule:
    return {"record": name, "expr": expr, "labels": {"namespace": monitored.namespace, **labels}}


def _requests(monitored: MonitoringScope) -> Iterator[Rule]:
    """Yield the rules for the rate of requests and the ratio of errors.

    On Docker the rules use metrics of the gateway, which also counts requests that no service answered. On Kubernetes the
    rules use the histogram of web and api, because another team may run the Gateway.
    """
    if monitored.on_docker:
        all_responses = monitored.selector("haproxy_frontend_http_responses_total", proxy="gateway")
        failed = monitored.selector("haproxy_frontend_http_responses_total", proxy="gateway", code="5xx")
    elif monitored.has_request_metrics:
        all_responses, failed = monitored.responses("count"), monitored.responses("count", 'status=~"5.."')
    else:
        return
    yield _record(monitored, "tiers:requests:rate5m", f"sum(rate({all_responses}[5m]))")
    for window in WINDOWS:
        # Before the first failure no series of failures exists, so `or vector(0)` makes the rate zero.
        errors, requests = f"(sum(rate({failed}[{window}])) or vector(0))", f"sum(rate({all_responses}[{window}]))"
        yield _record(monitored, f"tiers:errors:ratio_rate{window}", f"{errors} / {requests}")


def _latencies(monitored: MonitoringScope) -> Iterator[Rule]:
    if monitored.app.measured:
        for name, quantile in (("p95", 0.95), ("p99", 0.99)):
            expr = f"histogram_quantile({quantile}, sum by (le) (rate({monitored.responses('bucket')}[5m])))"
            yield _record(monitored, f"tiers:latency:{name}_5m", expr)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert, which fires when its expression is true for a duration."""

    name: str
    expr: str
    """PromQL expression."""
    duration: str
    """Duration such as `10m`."""
    severity: str
    """`critical` or `warning`."""
    summary: str
    """Summary for people, as a Prometheus template."""
    heading: str
    """Anchor of the alert's section in the runbook."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Additional labels, to distinguish alerts of the same name."""

    def rule(self, monitored: MonitoringScope) -> Rule:
        """Return the alerting rule for Prometheus."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.duration,
            "labels": {"namespace": monitored.namespace, "severity": self.severity, **self.labels},
            "annotations": {
                "summary": f"{monitored.namespace}: {self.summary}",
                "runbook_url": f"{monitored.settings.runbook}#{self.heading}",
            },
        }


def alerts(monitored: MonitoringScope) -> list[Rule]:
    """Return all alerting rules of an environment."""
    groups = (
        _burns,
        _slow,
        _silent,
        _figures,
        _database,
        _database_cluster_alerts,
        _backups,
        _cache,
        _containers,
        _certificate,
    )
    return [alert.rule(monitored) for group in groups for alert in group(monitored)]


def _burns(monitored: MonitoringScope) -> Iterator[Alert]:
    budget = monitored.environment.slo.errors
    for factor, long, short, duration, severity in BURNS if monitored.has_request_metrics else ():
        limit = round(factor * budget, 6)
        # Skip a limit of 1 or more, because the ratio of errors can't exceed 1.
        if limit < 1:
            over = [f"{monitored.selector(f'tiers:errors:ratio_rate{window}')} > {limit}" for window in (long, short)]
            yield Alert(
                name="ErrorBudgetBurns",
                expr=" and ".join(over),
                duration=duration,
                severity=severity,
                summary=f"for {long} and still, errors use up the budget of {budget:g} {factor:g} times too fast",
                heading="high-error-rate",
                labels={"over": long},
            )


def _slow(monitored: MonitoringScope) -> Iterator[Alert]:
    slo = monitored.environment.slo
    for name, limit in (("p95", slo.p95), ("p99", slo.p99)) if monitored.app.measured else ():
        yield Alert(
            name="AnswersAreSlow",
            expr=f"{monitored.selector(f'tiers:latency:{name}_5m')} > {limit:g}",
            duration="10m",
            severity="warning",
            summary=f"{name} is {{{{ $value | humanizeDuration }}}}, and {limit:g} s are promised",
            heading="high-latency",
            labels={"quantile": name},
        )


def _silent(monitored: MonitoringScope) -> Iterator[Alert]:
    for job in [*monitored.app.measured, *monitored.exporters]:
        yield Alert(
            name="TargetIsDown",
            expr=f"{monitored.selector('up', job=job)} == 0",
            duration="5m",
            severity="warning",
            summary=f"{{{{ $labels.instance }}}} of {job} does not say how it is",
            heading="a-target-is-down",
            labels={"job": job},
        )
    for job in [*monitored.app.measured, *(["gateway"] if monitored.on_docker else [])]:
        yield Alert(
            name="NothingAnswers",
            expr=f"absent({monitored.selector('up', job=job)} == 1)",
            duration="2m",
            severity="critical",
            summary=f"nothing answers for the {job}",
            heading="high-error-rate",
            labels={"job": job},
        )


def _figures(monitored: MonitoringScope) -> Iterator[Alert]:
    for name, figure in monitored.app.figures.items():
        if figure.above is not None:
            yield Alert(
                name="FigureIsBeyond",
                expr=f"{monitored.selector('tiers_figure', figure=name)} > {number(figure.above)}",
                duration="10m",
                severity="warning",
                summary=f"{literal(figure.help or name)}: {{{{ $value | humanize }}}}, which is beyond {number(figure.above)}",
                heading="a-figure-is-beyond",
                labels={"figure": name},
            )


def _database(monitored: MonitoringScope) -> Iterator[Alert]:
    if DATABASE.name not in monitored.exporters:
        return
    yield Alert(
        name="DatabaseIsDown",
        expr=f"absent({monitored.selector('pg_up')} == 1)",
        duration="1m",
        severity="critical",
        summary="the database takes no connections",
        heading="database-is-down",
    )
    taken = f"sum({monitored.selector('pg_stat_activity_count')}) / max({monitored.selector('pg_settings_max_connections')})"
    yield Alert(
        name="DatabaseConnectionsRunOut",
        expr=f"{taken} > 0.8",
        duration="5m",
        severity="warning",
        summary="{{ $value | humanizePercentage }} of the database's connections are taken",
        heading="database-connections-run-out",
    )
    yield Alert(
        name="DatabaseDeadlocks",
        expr=f"sum(rate({monitored.selector('pg_stat_database_deadlocks')}[5m])) > 0.1",
        duration="10m",
        severity="warning",
        summary="transactions of the database wait for each other until one is given up",
        heading="database-deadlocks",
    )


def _database_cluster_alerts(monitored: MonitoringScope) -> Iterator[Alert]:
    """Yield the alerts of a database cluster, from CloudNativePG's own metrics (1.27, default-monitoring.yaml)."""
    if not monitored.replicated:
        return
    selector = monitored.selector
    yield Alert(
        name="DatabaseIsDown",
        expr=f"absent({selector('cnpg_pg_replication_in_recovery')} == 0)",
        duration="1m",
        severity="critical",
        summary="no instance of the database takes writes",
        heading="database-is-down",
    )
    yield Alert(
        name="DatabaseInstanceIsLost",
        expr=f"count({selector('cnpg_collector_up')} == 1) < {INSTANCES}",
        duration="10m",
        severity="warning",
        summary=f"{{{{ $value }}}} of {INSTANCES} instances of the database are up",
        heading="failover",
    )
    yield Alert(
        name="DatabaseLags",
        expr=f"max({selector('cnpg_pg_replication_lag')}) > 30",
        duration="5m",
        severity="warning",
        summary="an instance of the database is {{ $value | humanizeDuration }} behind the one that writes",
        heading="replica-lag",
    )
    yield Alert(
        name="DatabaseReplicaDoesNotStream",
        expr=f"max({selector('cnpg_pg_replication_streaming_replicas')}) < {REPLICAS}",
        duration="10m",
        severity="warning",
        summary=f"{{{{ $value }}}} of {REPLICAS} replicas take what the database writes; with one more lost nothing can be written",
        heading="replica-lag",
    )
    taken = f"sum by (pod) ({selector('cnpg_backends_total')})"
    most = f"max by (pod) ({selector('cnpg_pg_settings_setting', name='max_connections')})"
    yield Alert(
        name="DatabaseConnectionsRunOut",
        expr=f"{taken} / {most} > 0.8",
        duration="5m",
        severity="warning",
        summary="{{ $value | humanizePercentage }} of the connections of {{ $labels.pod }} are taken",
        heading="database-connections-run-out",
    )
    yield Alert(
        name="DatabaseDeadlocks",
        expr=f"sum(rate({selector('cnpg_pg_stat_database_deadlocks')}[5m])) > 0.1",
        duration="10m",
        severity="warning",
        summary="transactions of the database wait for each other until one is given up",
        heading="database-deadlocks",
    )
    if monitored.environment.archived:
        yield Alert(
            name="ChangesAreNotKept",
            expr=f"max({selector('cnpg_collector_pg_wal_archive_status', value='ready')}) > {WAL_BACKLOG}",
            duration="10m",
            severity="critical",
            summary="{{ $value }} files of the database's changes wait for the archive, and fill its disk meanwhile",
            heading="changes-are-not-kept",
        )
        yield _base_backup_alert(monitored)


def _base_backup_alert(monitored: MonitoringScope) -> Alert:
    """Return the alert for an old or missing base backup. If none exists, the plugin (version 0.7) exports the time 0."""
    last = monitored.selector("barman_cloud_cloudnative_pg_io_last_available_backup_timestamp")
    backup = monitored.environment.tier_settings(DATABASE.name).backup
    # Expect a base backup every week if the day of the month is `*` in the schedule, else every month. Add two days of tolerance.
    days = 2 + (7 if backup and backup.schedule.split()[2] == "*" else 31)
    return Alert(
        name="BaseBackupIsOld",
        expr=f"time() - max({last}) > {days * 86400} or absent({last})",
        duration="1h",
        severity="warning",
        summary=f"all of the database was not kept for {days} days, or never: what is kept of its changes takes longer and longer to replay",
        heading="changes-are-not-kept",
    )


def _backups(monitored: MonitoringScope) -> Iterator[Alert]:
    """Yield the alerts of backups. `BackupsSayNothing` fires if the metrics of a backup workload are missing."""
    if not monitored.backup_jobs:
        return
    yield Alert(
        name="BackupIsOverdue",
        expr=f"{monitored.selector('tiers_backup_overdue')} == 1",
        duration="5m",
        severity="warning",
        summary="of the backups, {{ $labels.kind }} was due over two hours ago, and has not gone well",
        heading="backup-stale",
    )
    yield Alert(
        name="BackupDoesNotComeBack",
        expr=f"{monitored.selector('tiers_backup_verified')} == 0",
        duration="5m",
        severity="critical",
        summary="the last verification of the backups failed: what they hold may be lost",
        heading="backup-stale",
    )
    yield Alert(
        name="BackupsCanNotBeRead",
        expr=f"{monitored.selector('tiers_backup_repository_readable')} == 0",
        duration="15m",
        severity="critical",
        summary="the repository of the backups can't be read: none is taken, and none would come back",
        heading="backup-stale",
    )
    # The alert of the only backup of the database has no label `job`, as in earlier versions.
    for job in monitored.backup_jobs:
        labels: dict[str, str] = {} if monitored.backup_jobs == (BACKUP,) else {"job": job}
        yield Alert(
            name="BackupsSayNothing",
            expr=f"absent({monitored.selector('tiers_backup_repository_readable', **labels)})",
            duration="15m",
            severity="warning",
            summary="what takes backups is away, or waits for its repository: nobody knows how they are",
            heading="backup-stale",
            labels=labels,
        )


def _cache(monitored: MonitoringScope) -> Iterator[Alert]:
    if CACHE.name not in monitored.exporters:
        return
    if monitored.environment.tier_settings(CACHE.name).ha:
        yield Alert(
            # If all replicas are lost, the proxy routes to no primary. Then the exporter can't connect, and `CacheIsDown` fires.
            name="CacheReplicaIsLost",
            expr=f"max({monitored.selector('redis_connected_slaves')}) < {REPLICAS}",
            duration="10m",
            severity="warning",
            summary=f"{{{{ $value }}}} of {REPLICAS} replicas follow the cache's primary; with one more lost nobody answers",
            heading="failover",
        )
    yield Alert(
        name="CacheIsDown",
        expr=f"absent({monitored.selector('redis_up')} == 1)",
        duration="1m",
        severity="critical",
        summary="the cache takes no connections",
        heading="cache-is-down",
    )
    limit = monitored.environment.tier_settings(CACHE.name).memory
    yield Alert(
        name="CacheMemoryRunsOut",
        expr=f"max({monitored.selector('redis_memory_used_bytes')}) / {limit} > 0.85",
        duration="5m",
        severity="critical",
        summary="{{ $value | humanizePercentage }} of the cache's memory are used; it drops nothing, and beyond that it is killed",
        heading="cache-memory-runs-out",
    )
    yield Alert(
        name="CacheIsNotKept",
        expr=f"min({monitored.selector('redis_aof_last_write_status')}) == 0",
        duration="1m",
        severity="critical",
        summary="the cache can't write to its disk: what it acknowledged would not survive a restart",
        heading="disk-full",
    )


def _containers(monitored: MonitoringScope) -> Iterator[Alert]:
    """Yield the alerts of containers and volumes. These alerts use metrics of kubelets, which Docker lacks."""
    if monitored.on_docker:
        return
    one = 'container!=""'
    limit = monitored.selector("container_spec_memory_limit_bytes", one)
    yield Alert(
        name="MemoryRunsOut",
        expr=f"{monitored.selector('container_memory_working_set_bytes', one)} / ({limit} > 0) > 0.9",
        duration="10m",
        severity="warning",
        summary="{{ $labels.pod }} uses {{ $value | humanizePercentage }} of its memory; beyond that it is killed",
        heading="memory-runs-out",
    )
    throttled, periods = (
        monitored.selector(f"container_cpu_cfs_{name}periods_total", one) for name in ("throttled_", "")
    )
    yield Alert(
        name="ProcessorRunsOut",
        expr=f"sum by (pod) (rate({throttled}[5m])) / sum by (pod) (rate({periods}[5m])) > 0.5",
        duration="15m",
        severity="warning",
        summary="{{ $labels.pod }} is held back for {{ $value | humanizePercentage }} of the time: it wants more processor",
        heading="processor-runs-out",
    )
    left, size = (monitored.selector(f"kubelet_volume_stats_{name}_bytes") for name in ("available", "capacity"))
    yield Alert(
        name="DiskRunsFull",
        expr=f"{left} / {size} < 0.15",
        duration="5m",
        severity="critical",
        summary="{{ $value | humanizePercentage }} of volume {{ $labels.persistentvolumeclaim }} are left",
        heading="disk-full",
    )


def _certificate(monitored: MonitoringScope) -> Iterator[Alert]:
    """Yield the alert for a certificate of cert-manager that expires soon. `make check` checks all other certificates."""
    if monitored.has_certificate_metrics:
        until = monitored.selector("certmanager_certificate_expiration_timestamp_seconds")
        yield Alert(
            name="CertificateExpires",
            expr=f"({until} - time()) / 86400 < {CERTIFICATE_DAYS}",
            duration="1h",
            severity="critical",
            summary="the certificate is good for {{ $value | humanize }} days more, and should have been renewed",
            heading="expired-certificate",
        )


def literal(text: str) -> str:
    """Return a text escaped for a Prometheus template (Go's text/template)."""
    return text.replace("{{", '{{ "{{" }}')


def number(value: float) -> str:
    """Return a number as a short text with exactly the same value, such as `0.5` or `100`."""
    return short if float(short := f"{value:g}") == value else repr(value)


def rule_file(monitored: MonitoringScope) -> dict[str, Any]:
    """Return all rules of an environment, in the format of Prometheus' rule files and of the `spec` of a PrometheusRule."""
    parts = {"figures": recording_rules(monitored), "alerts": alerts(monitored)}
    return {
        "groups": [{"name": f"{monitored.namespace}-{name}", "rules": rules} for name, rules in parts.items() if rules]
    }
