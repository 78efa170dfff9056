"""Recording rules and alerts of an environment: pure functions that return Prometheus rules, the same for every platform.

Metrics (docs/monitoring.md): the histogram `http_request_duration_seconds` with a label `status` from web and api, and the
metrics of HAProxy, postgres_exporter, redis_exporter, CloudNativePG, its plugin and cert-manager. An alert exists only
where its metric has a source. Burn rates: Site Reliability Workbook, chapter 5.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .config import HERE, App, Environment, Monitoring, TierName

Rule = dict[str, Any]
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
BURNS = (
    # factor, long window, short window, duration, severity. They use up 2, 5, 10 and 10 % of the error budget of 30 days.
    (14.4, "1h", "5m", "2m", "critical"),
    (6, "6h", "30m", "15m", "critical"),
    (3, "1d", "2h", "1h", "warning"),
    (1, "3d", "6h", "3h", "warning"),
)
CERTIFICATE_DAYS = 14
INSTANCES = 3
"""Instances of a database with `ha`."""
REPLICAS = INSTANCES - 1
"""Replicas of a database or a cache with `ha`."""
WAITING = 8
"""WAL files of 16 MB that may wait for the archive in normal operation: the number that a burst of writes leaves."""
EXPORTER_PORTS = {TierName.DATABASE: 9187, TierName.CACHE: 9121}
BACKUP, BACKUP_PORT = "backup", 9200
"""Name of the backup workload and of its metrics job, and the port of its metrics."""
BACKUP_INTERVAL, BACKUP_TIMEOUT = "60s", "30s"
"""Scrape interval and timeout of the backup job. Its metrics change no more often, and a remote repository answers slowly."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A monitored environment. The label `namespace` distinguishes its series from those of other environments."""

    app: App
    environment: Environment
    namespace: str

    @property
    def settings(self) -> Monitoring:
        assert self.environment.monitoring
        return self.environment.monitoring

    @property
    def here(self) -> str:
        return f'namespace="{self.namespace}"'

    @property
    def exported(self) -> tuple[TierName, ...]:
        """Data tiers with an exporter."""
        return self.environment.exported(self.app)

    @property
    def replicated(self) -> bool:
        """True if the application uses a database cluster. Its instances have metrics of their own."""
        return TierName.DATABASE in self.environment.data(self.app) and self.environment.size(TierName.DATABASE).several

    @property
    def backed_up(self) -> bool:
        return self.app.database is not None and self.environment.size(TierName.DATABASE).backup is not None

    @property
    def on_docker(self) -> bool:
        return self.environment.platform == "docker"

    @property
    def counted(self) -> bool:
        """True if responses to users are counted."""
        return self.on_docker or bool(self.app.measured)

    @property
    def certified(self) -> bool:
        """True if cert-manager issues the gateway's certificate and exports its expiry."""
        gateway = self.environment.kubernetes and self.environment.kubernetes.gateway.create
        return bool(gateway and gateway.issuer)

    def of(self, metric: str, *matchers: str, **labels: str) -> str:
        """Return a selector for series of this environment."""
        equal = [f'{name}="{value}"' for name, value in labels.items()]
        return f"{metric}{{{','.join([self.here, *equal, *matchers])}}}"

    def answers(self, metric: str, *matchers: str) -> str:
        """Return a selector for responses to users, from the tiers' own histogram without health checks and scrapes."""
        probed = {
            path for tier in self.app.measured.values() for path in (tier.health, tier.ready, tier.metrics) if path
        }
        # The dot is the only character of a path with a special meaning in a regular expression.
        routes = "|".join(path.replace(".", "[.]") for path in sorted(probed))
        return self.of(f"http_request_duration_seconds_{metric}", f'route!~"{routes}"', *matchers)

    def figure(self, name: str) -> str:
        return self.app.figures[name].query.replace(HERE, self.here)


def recorded(watched: Watched) -> list[Rule]:
    """Return the recording rules for alerts and dashboard. Their names are the same on every platform."""
    rules = [*_requests(watched), *_latencies(watched)]
    if watched.on_docker:
        # The target `release` is a file that the program writes after traffic has moved.
        released = f"max by (release, slot) ({watched.of('up', job='release')})"
        rules.append(_record(watched, "tiers_release_info", released))
    for name in watched.app.figures:
        rules.append(_record(watched, "tiers_figure", watched.figure(name), figure=name))
    return rules


def _record(watched: Watched, name: str, expr: str, **labels: str) -> Rule:
    return {"record": name, "expr": expr, "labels": {"namespace": watched.namespace, **labels}}


def _requests(watched: Watched) -> Iterator[Rule]:
    """Yield the rules that count requests and errors.

    On Docker the gateway counts them, including requests that no tier answered. On a cluster the gateway may belong to
    somebody else, so web and api count them.
    """
    if watched.on_docker:
        every = watched.of("haproxy_frontend_http_responses_total", proxy="gateway")
        failed = watched.of("haproxy_frontend_http_responses_total", proxy="gateway", code="5xx")
    elif watched.counted:
        every, failed = watched.answers("count"), watched.answers("count", 'status=~"5.."')
    else:
        return
    yield _record(watched, "tiers:requests:rate5m", f"sum(rate({every}[5m]))")
    for window in WINDOWS:
        # Without any failure the series of failures does not exist; that means zero, not unknown.
        errors, requests = f"(sum(rate({failed}[{window}])) or vector(0))", f"sum(rate({every}[{window}]))"
        yield _record(watched, f"tiers:errors:ratio_rate{window}", f"{errors} / {requests}")


def _latencies(watched: Watched) -> Iterator[Rule]:
    if watched.app.measured:
        for name, quantile in (("p95", 0.95), ("p99", 0.99)):
            expr = f"histogram_quantile({quantile}, sum by (le) (rate({watched.answers('bucket')}[5m])))"
            yield _record(watched, f"tiers:latency:{name}_5m", expr)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert: it fires when `expr` holds for as long as it `lasts`. `at` is its heading in the runbook."""

    name: str
    expr: str
    lasts: str
    severity: str
    says: str
    at: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def rule(self, watched: Watched) -> Rule:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.lasts,
            "labels": {"namespace": watched.namespace, "severity": self.severity, **self.labels},
            "annotations": {
                "summary": f"{watched.namespace}: {self.says}",
                "runbook_url": f"{watched.settings.runbook}#{self.at}",
            },
        }


def alerts(watched: Watched) -> list[Rule]:
    """Return all alerting rules."""
    kinds = (_burns, _slow, _silent, _figures, _database, _databases, _backups, _cache, _containers, _certificate)
    return [alert.rule(watched) for kind in kinds for alert in kind(watched)]


def _burns(watched: Watched) -> Iterator[Alert]:
    budget = watched.environment.slo.errors
    for factor, long, short, lasts, severity in BURNS if watched.counted else ():
        limit = round(factor * budget, 6)
        # With a budget above 1/14.4 this burn rate can't occur: it would mean more errors than responses.
        if limit < 1:
            over = [f"{watched.of(f'tiers:errors:ratio_rate{window}')} > {limit}" for window in (long, short)]
            yield Alert(
                name="ErrorBudgetBurns",
                expr=" and ".join(over),
                lasts=lasts,
                severity=severity,
                says=f"for {long} and still, errors use up the budget of {budget:g} {factor:g} times too fast",
                at="high-error-rate",
                labels={"over": long},
            )


def _slow(watched: Watched) -> Iterator[Alert]:
    slo = watched.environment.slo
    for name, limit in (("p95", slo.p95), ("p99", slo.p99)) if watched.app.measured else ():
        yield Alert(
            name="AnswersAreSlow",
            expr=f"{watched.of(f'tiers:latency:{name}_5m')} > {limit:g}",
            lasts="10m",
            severity="warning",
            says=f"{name} is {{{{ $value | humanizeDuration }}}}, and {limit:g} s are promised",
            at="high-latency",
            labels={"quantile": name},
        )


def _silent(watched: Watched) -> Iterator[Alert]:
    for job in [*watched.app.measured, *watched.exported]:
        yield Alert(
            name="TargetIsDown",
            expr=f"{watched.of('up', job=job)} == 0",
            lasts="5m",
            severity="warning",
            says=f"{{{{ $labels.instance }}}} of {job} does not say how it is",
            at="a-target-is-down",
            labels={"job": job},
        )
    for job in [*watched.app.measured, *(["gateway"] if watched.on_docker else [])]:
        yield Alert(
            name="NothingAnswers",
            expr=f"absent({watched.of('up', job=job)} == 1)",
            lasts="2m",
            severity="critical",
            says=f"nothing answers for the {job}",
            at="high-error-rate",
            labels={"job": job},
        )


def _figures(watched: Watched) -> Iterator[Alert]:
    for name, figure in watched.app.figures.items():
        if figure.above is not None:
            yield Alert(
                name="FigureIsBeyond",
                expr=f"{watched.of('tiers_figure', figure=name)} > {number(figure.above)}",
                lasts="10m",
                severity="warning",
                says=f"{literal(figure.help or name)}: {{{{ $value | humanize }}}}, which is beyond {number(figure.above)}",
                at="a-figure-is-beyond",
                labels={"figure": name},
            )


def _database(watched: Watched) -> Iterator[Alert]:
    if TierName.DATABASE not in watched.exported:
        return
    yield Alert(
        name="DatabaseIsDown",
        expr=f"absent({watched.of('pg_up')} == 1)",
        lasts="1m",
        severity="critical",
        says="the database takes no connections",
        at="database-is-down",
    )
    taken = f"sum({watched.of('pg_stat_activity_count')}) / max({watched.of('pg_settings_max_connections')})"
    yield Alert(
        name="DatabaseConnectionsRunOut",
        expr=f"{taken} > 0.8",
        lasts="5m",
        severity="warning",
        says="{{ $value | humanizePercentage }} of the database's connections are taken",
        at="database-connections-run-out",
    )
    yield Alert(
        name="DatabaseDeadlocks",
        expr=f"sum(rate({watched.of('pg_stat_database_deadlocks')}[5m])) > 0.1",
        lasts="10m",
        severity="warning",
        says="transactions of the database wait for each other until one is given up",
        at="database-deadlocks",
    )


def _databases(watched: Watched) -> Iterator[Alert]:
    """Yield the alerts of a database cluster, from CloudNativePG's own metrics (1.27, default-monitoring.yaml)."""
    if not watched.replicated:
        return
    selector = watched.of
    yield Alert(
        name="DatabaseIsDown",
        expr=f"absent({selector('cnpg_pg_replication_in_recovery')} == 0)",
        lasts="1m",
        severity="critical",
        says="no instance of the database takes writes",
        at="database-is-down",
    )
    yield Alert(
        name="DatabaseInstanceIsLost",
        expr=f"count({selector('cnpg_collector_up')} == 1) < {INSTANCES}",
        lasts="10m",
        severity="warning",
        says=f"{{{{ $value }}}} of {INSTANCES} instances of the database are up",
        at="failover",
    )
    yield Alert(
        name="DatabaseLags",
        expr=f"max({selector('cnpg_pg_replication_lag')}) > 30",
        lasts="5m",
        severity="warning",
        says="an instance of the database is {{ $value | humanizeDuration }} behind the one that writes",
        at="replica-lag",
    )
    yield Alert(
        name="DatabaseReplicaDoesNotStream",
        expr=f"max({selector('cnpg_pg_replication_streaming_replicas')}) < {REPLICAS}",
        lasts="10m",
        severity="warning",
        says=f"{{{{ $value }}}} of {REPLICAS} replicas take what the database writes; with one more lost nothing can be written",
        at="replica-lag",
    )
    taken = f"sum by (pod) ({selector('cnpg_backends_total')})"
    most = f"max by (pod) ({selector('cnpg_pg_settings_setting', name='max_connections')})"
    yield Alert(
        name="DatabaseConnectionsRunOut",
        expr=f"{taken} / {most} > 0.8",
        lasts="5m",
        severity="warning",
        says="{{ $value | humanizePercentage }} of the connections of {{ $labels.pod }} are taken",
        at="database-connections-run-out",
    )
    yield Alert(
        name="DatabaseDeadlocks",
        expr=f"sum(rate({selector('cnpg_pg_stat_database_deadlocks')}[5m])) > 0.1",
        lasts="10m",
        severity="warning",
        says="transactions of the database wait for each other until one is given up",
        at="database-deadlocks",
    )
    if watched.environment.archived:
        yield Alert(
            name="ChangesAreNotKept",
            expr=f"max({selector('cnpg_collector_pg_wal_archive_status', value='ready')}) > {WAITING}",
            lasts="10m",
            severity="critical",
            says="{{ $value }} files of the database's changes wait for the archive, and fill its disk meanwhile",
            at="changes-are-not-kept",
        )
        yield _base(watched)


def _base(watched: Watched) -> Alert:
    """Return the alert for an old base backup. The plugin (0.7) exports the time of the last one, and 0 until there is one."""
    last = watched.of("barman_cloud_cloudnative_pg_io_last_available_backup_timestamp")
    backup = watched.environment.size(TierName.DATABASE).backup
    # A schedule that names no day of the month runs at least weekly, any other monthly. Two days of tolerance are added.
    days = 2 + (7 if backup and backup.schedule.split()[2] == "*" else 31)
    return Alert(
        name="BaseBackupIsOld",
        expr=f"time() - max({last}) > {days * 86400} or absent({last})",
        lasts="1h",
        severity="warning",
        says=f"all of the database was not kept for {days} days, or never: what is kept of its changes takes longer and longer to replay",
        at="changes-are-not-kept",
    )


def _backups(watched: Watched) -> Iterator[Alert]:
    """Yield the alerts of backups. Their metrics come from the backup workload itself, so its absence is an alert too."""
    if not watched.backed_up:
        return
    yield Alert(
        name="BackupIsOverdue",
        expr=f"{watched.of('tiers_backup_overdue')} == 1",
        lasts="5m",
        severity="warning",
        says="of the backups, {{ $labels.kind }} was due over two hours ago, and has not gone well",
        at="backup-stale",
    )
    yield Alert(
        name="BackupDoesNotComeBack",
        expr=f"{watched.of('tiers_backup_verified')} == 0",
        lasts="5m",
        severity="critical",
        says="the last verification of the backups failed: what they hold may be lost",
        at="backup-stale",
    )
    yield Alert(
        name="BackupsCanNotBeRead",
        expr=f"{watched.of('tiers_backup_repository_readable')} == 0",
        lasts="15m",
        severity="critical",
        says="the repository of the backups can't be read: none is taken, and none would come back",
        at="backup-stale",
    )
    yield Alert(
        name="BackupsSayNothing",
        expr=f"absent({watched.of('tiers_backup_repository_readable')})",
        lasts="15m",
        severity="warning",
        says="what takes backups is away, or waits for its repository: nobody knows how they are",
        at="backup-stale",
    )


def _cache(watched: Watched) -> Iterator[Alert]:
    if TierName.CACHE not in watched.exported:
        return
    if watched.environment.size(TierName.CACHE).ha:
        yield Alert(
            # The exporter connects through the proxy, which has no primary to route to once no replica is left.
            name="CacheReplicaIsLost",
            expr=f"max({watched.of('redis_connected_slaves')}) < {REPLICAS}",
            lasts="10m",
            severity="warning",
            says=f"{{{{ $value }}}} of {REPLICAS} replicas follow the cache's primary; with one more lost nobody answers",
            at="failover",
        )
    yield Alert(
        name="CacheIsDown",
        expr=f"absent({watched.of('redis_up')} == 1)",
        lasts="1m",
        severity="critical",
        says="the cache takes no connections",
        at="cache-is-down",
    )
    limit = watched.environment.size(TierName.CACHE).memory
    yield Alert(
        name="CacheMemoryRunsOut",
        expr=f"max({watched.of('redis_memory_used_bytes')}) / {limit} > 0.85",
        lasts="5m",
        severity="critical",
        says="{{ $value | humanizePercentage }} of the cache's memory are used; it drops nothing, and beyond that it is killed",
        at="cache-memory-runs-out",
    )
    yield Alert(
        name="CacheIsNotKept",
        expr=f"min({watched.of('redis_aof_last_write_status')}) == 0",
        lasts="1m",
        severity="critical",
        says="the cache can't write to its disk: what it acknowledged would not survive a restart",
        at="disk-full",
    )


def _containers(watched: Watched) -> Iterator[Alert]:
    """Yield the alerts of containers and volumes, from the kubelets of a cluster. A Docker engine measures neither."""
    if watched.on_docker:
        return
    one = 'container!=""'
    limit = watched.of("container_spec_memory_limit_bytes", one)
    yield Alert(
        name="MemoryRunsOut",
        expr=f"{watched.of('container_memory_working_set_bytes', one)} / ({limit} > 0) > 0.9",
        lasts="10m",
        severity="warning",
        says="{{ $labels.pod }} uses {{ $value | humanizePercentage }} of its memory; beyond that it is killed",
        at="memory-runs-out",
    )
    throttled, periods = (watched.of(f"container_cpu_cfs_{name}periods_total", one) for name in ("throttled_", ""))
    yield Alert(
        name="ProcessorRunsOut",
        expr=f"sum by (pod) (rate({throttled}[5m])) / sum by (pod) (rate({periods}[5m])) > 0.5",
        lasts="15m",
        severity="warning",
        says="{{ $labels.pod }} is held back for {{ $value | humanizePercentage }} of the time: it wants more processor",
        at="processor-runs-out",
    )
    left, size = (watched.of(f"kubelet_volume_stats_{name}_bytes") for name in ("available", "capacity"))
    yield Alert(
        name="DiskRunsFull",
        expr=f"{left} / {size} < 0.15",
        lasts="5m",
        severity="critical",
        says="{{ $value | humanizePercentage }} of volume {{ $labels.persistentvolumeclaim }} are left",
        at="disk-full",
    )


def _certificate(watched: Watched) -> Iterator[Alert]:
    """Yield the alert of a certificate from cert-manager. For other certificates `make check` asks the gateway."""
    if watched.certified:
        until = watched.of("certmanager_certificate_expiration_timestamp_seconds")
        yield Alert(
            name="CertificateExpires",
            expr=f"({until} - time()) / 86400 < {CERTIFICATE_DAYS}",
            lasts="1h",
            severity="critical",
            says="the certificate is good for {{ $value | humanize }} days more, and should have been renewed",
            at="expired-certificate",
        )


def literal(text: str) -> str:
    """Return a template that Prometheus (Go's text/template) renders as `text`."""
    return text.replace("{{", '{{ "{{" }}')


def number(value: float) -> str:
    """Return a number as text without loss of precision, in six digits if they are enough."""
    return short if float(short := f"{value:g}") == value else repr(value)


def file(watched: Watched) -> dict[str, Any]:
    """Return all rules, in the format of Prometheus' rule files and of a PrometheusRule."""
    parts = {"figures": recorded(watched), "alerts": alerts(watched)}
    return {
        "groups": [{"name": f"{watched.namespace}-{name}", "rules": rules} for name, rules in parts.items() if rules]
    }
