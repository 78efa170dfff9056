"""Grafana dashboard of an environment. Its queries use the series of the recording rules in `alerts`. All functions are pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.services import CACHE, DATABASE
from .alerts import BACKUP, MonitoringScope

WIDTH, HEIGHT = 8, 7
"""Size of a panel in units of Grafana's grid, which has 24 columns."""
COLUMNS = 24 // WIDTH
"""Number of panels in a row."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel of the dashboard."""

    title: str
    lines: dict[str, str]
    """Lines of the graph: legend → PromQL query."""
    unit: str = "short"
    """Unit of the values, by its name in Grafana."""
    limit: float | None = None
    """Limit of the values, drawn as a line in a graph; None for no limit."""
    about: str = ""
    """Description of the panel."""
    kind: str = "timeseries"
    """Type of the panel in Grafana."""


def panels(monitored: MonitoringScope) -> dict[str, list[Panel]]:
    """Return the rows of the dashboard: title → panels. Rows without panels are left out."""
    rows = {
        "What users are promised": _promises,
        "What the business counts": _figures,
        "Tiers": _tiers,
        "Database": _database,
        "Databases": _databases,
        "Backups": _backups,
        "Cache": _cache,
        "Containers": _containers,
    }
    return {title: row for title, build in rows.items() if (row := list(build(monitored)))}


def _promises(monitored: MonitoringScope) -> Iterator[Panel]:
    slo, selector = monitored.environment.slo, monitored.selector
    if monitored.has_request_metrics:
        yield Panel(title="Requests", lines={"every second": selector("tiers:requests:rate5m")}, unit="reqps")
        ratios = {f"over {window}": selector(f"tiers:errors:ratio_rate{window}") for window in ("5m", "1h", "6h")}
        yield Panel(title="Errors", lines=ratios, unit="percentunit", limit=slo.errors, about="Share of all answers.")
        spent = f"avg_over_time({selector('tiers:errors:ratio_rate5m')}[30d])"
        left = f"1 - {spent} / {slo.errors}" if slo.errors else f"1 - {spent}"
        yield Panel(
            title="Error budget left of 30 days",
            lines={"budget": left, "answered well": f"1 - {spent}"},
            unit="percentunit",
            kind="stat",
            about="Of as many days as are kept.",
        )
    if monitored.app.measured:
        for name, limit in (("p95", slo.p95), ("p99", slo.p99)):
            lines = {name: selector(f"tiers:latency:{name}_5m")}
            yield Panel(title=f"{name.upper()} of answers", lines=lines, unit="s", limit=limit)


def _figures(monitored: MonitoringScope) -> Iterator[Panel]:
    for name, figure in monitored.app.figures.items():
        lines = {name: monitored.selector("tiers_figure", figure=name)}
        yield Panel(title=literal(figure.help or name), lines=lines, unit=figure.unit, limit=figure.above)


def literal(text: str) -> str:
    """Escape variables of Grafana in a title, such as `$source`, `${__from}` or `[[source]]`.

    Grafana has no escape character. Therefore insert an invisible character (word joiner) after `$` or `[`.
    """
    return re.sub(r"\$(?=\{?(source|__))|\[(?=\[(source|__))", "\\g<0>\u2060", text)


def _tiers(monitored: MonitoringScope) -> Iterator[Panel]:
    yield Panel(
        title="What says how it is", lines={"{{job}} {{slot}}": f"sum by (job, slot) ({monitored.selector('up')})"}
    )
    if monitored.app.measured:
        answers = f"sum by (slot) (rate({monitored.responses('count')}[5m]))"
        yield Panel(title="Requests by slot", lines={"{{slot}}": answers}, unit="reqps")
    if monitored.on_docker:
        sessions = monitored.selector("haproxy_frontend_current_sessions", proxy="gateway")
        waiting = f"sum({monitored.selector('haproxy_backend_current_queue')})"
        yield Panel(title="Connections of the gateway", lines={"open": sessions, "waiting": waiting})
        idle = monitored.selector("haproxy_process_idle_time_percent")
        yield Panel(title="Gateway, busy", lines={"busy": f"1 - {idle} / 100"}, unit="percentunit")


def _database(monitored: MonitoringScope) -> Iterator[Panel]:
    selector = monitored.selector
    if DATABASE.name in monitored.exporters:
        taken, most = f"sum({selector('pg_stat_activity_count')})", f"max({selector('pg_settings_max_connections')})"
        yield Panel(title="Connections", lines={"taken": taken, "at most": most})
        size = selector("pg_database_size_bytes", 'datname!~"template.*"')
        yield Panel(title="Size", lines={"{{datname}}": size}, unit="bytes")
        rates = {
            name: f"sum(rate({selector(f'pg_stat_database_{series}')}[5m]))"
            for name, series in (
                ("committed", "xact_commit"),
                ("rolled back", "xact_rollback"),
                ("deadlocks", "deadlocks"),
            )
        }
        yield Panel(title="Transactions every second", lines=rates)


def _databases(monitored: MonitoringScope) -> Iterator[Panel]:
    selector = monitored.selector
    if monitored.replicated:
        writes = f"count({selector('cnpg_pg_replication_in_recovery')} == 0)"
        yield Panel(title="Instances", lines={"up": f"sum({selector('cnpg_collector_up')})", "taking writes": writes})
        yield Panel(title="Lag", lines={"{{pod}}": selector("cnpg_pg_replication_lag")}, unit="s", limit=30)
        taken = f"sum by (pod) ({selector('cnpg_backends_total')})"
        most = f"max({selector('cnpg_pg_settings_setting', name='max_connections')})"
        yield Panel(title="Connections", lines={"{{pod}}": taken, "at most": most})
        size = selector("cnpg_pg_database_size_bytes", 'datname!~"template.*"')
        yield Panel(title="Size", lines={"{{datname}}": f"max by (datname) ({size})"}, unit="bytes")
        rates = {
            name: f"sum(rate({selector(f'cnpg_pg_stat_database_{series}')}[5m]))"
            for name, series in (
                ("committed", "xact_commit"),
                ("rolled back", "xact_rollback"),
                ("deadlocks", "deadlocks"),
            )
        }
        yield Panel(title="Transactions every second", lines=rates)


def _backups(monitored: MonitoringScope) -> Iterator[Panel]:
    selector = monitored.selector
    if monitored.backup_jobs:
        run = "{{kind}}" if monitored.backup_jobs == (BACKUP,) else "{{job}} {{kind}}"
        # The metric is 0 until the first backup succeeds, so leave out 0.
        age = f"time() - ({selector('tiers_backup_last_success_timestamp_seconds')} > 0)"
        yield Panel(title="Since the last that went well", lines={run: age}, unit="s")
        proven = {
            "it came back": selector("tiers_backup_verified"),
            "can be read": selector("tiers_backup_repository_readable"),
        }
        yield Panel(title="Last verification", lines=proven, unit="bool_yes_no", kind="stat")
        is_backup = 'kind=~"backup|full"'
        yield Panel(title="Size", lines={run: selector("tiers_backup_last_size_bytes", is_backup)}, unit="bytes")
        yield Panel(title="How long it took", lines={run: selector("tiers_backup_last_duration_seconds")}, unit="s")


def _cache(monitored: MonitoringScope) -> Iterator[Panel]:
    if CACHE.name in monitored.exporters:
        selector, limit = monitored.selector, monitored.environment.tier_settings(CACHE.name).memory
        yield Panel(title="Memory", lines={"used": selector("redis_memory_used_bytes")}, unit="bytes", limit=limit)
        commands = f"sum(rate({selector('redis_commands_processed_total')}[5m]))"
        yield Panel(title="Commands every second", lines={"commands": commands})
        yield Panel(
            title="Clients",
            lines={"connected": selector("redis_connected_clients"), "waiting": selector("redis_blocked_clients")},
        )


def _containers(monitored: MonitoringScope) -> Iterator[Panel]:
    """Yield the panels of containers and volumes. These panels show metrics of kubelets, which Docker lacks."""
    if monitored.on_docker:
        return
    one = 'container!=""'
    used = f"sum by (pod) ({monitored.selector('container_memory_working_set_bytes', one)})"
    yield Panel(title="Memory", lines={"{{pod}}": used}, unit="bytes")
    busy = f"sum by (pod) (rate({monitored.selector('container_cpu_usage_seconds_total', one)}[5m]))"
    yield Panel(title="Processors", lines={"{{pod}}": busy})
    left, size = (monitored.selector(f"kubelet_volume_stats_{name}_bytes") for name in ("available", "capacity"))
    full = {"{{persistentvolumeclaim}}": f"1 - {left} / {size}"}
    yield Panel(title="Volumes, full", lines=full, unit="percentunit", limit=0.85)


def queries(monitored: MonitoringScope) -> list[str]:
    """Return all PromQL queries of the dashboard."""
    return [query for row in panels(monitored).values() for panel in row for query in panel.lines.values()] + [
        _release_changes(monitored)
    ]


def _release_changes(monitored: MonitoringScope) -> str:
    info = monitored.selector("tiers_release_info")
    return f"{info} unless {info} offset 2m"


_SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard(monitored: MonitoringScope) -> dict[str, Any]:
    """Return the dashboard as a JSON model for Grafana 10 and later. Viewers select the Prometheus data source."""
    return {
        "uid": monitored.namespace[:40],
        "title": f"{monitored.app.name}, {monitored.namespace}",
        "tags": ["tiers", monitored.app.name],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "annotations": {
            "list": [
                {
                    "name": "Releases",
                    "datasource": _SOURCE,
                    "enable": True,
                    "expr": _release_changes(monitored),
                    "iconColor": "blue",
                    "step": "60s",
                    "titleFormat": "{{release}} is live",
                    "textFormat": "on {{slot}}",
                }
            ]
        },
        "panels": _layout(panels(monitored)),
    }


def _layout(rows: dict[str, list[Panel]]) -> list[dict[str, Any]]:
    """Return the panels as JSON objects with their positions, row by row."""
    items: list[dict[str, Any]] = []
    y = 0
    for title, row in rows.items():
        items.append({"id": len(items) + 1, "type": "row", "title": title, "gridPos": _grid_position(0, y, 24, 1)})
        y += 1
        for number, panel in enumerate(row):
            position = _grid_position(number % COLUMNS * WIDTH, y + number // COLUMNS * HEIGHT, WIDTH, HEIGHT)
            items.append({"id": len(items) + 1, "gridPos": position, **_panel(panel)})
        y += -(-len(row) // COLUMNS) * HEIGHT
    return items


def _grid_position(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel) -> dict[str, Any]:
    steps: Sequence[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps = [*steps, {"color": "red", "value": panel.limit}]
    defaults: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": list(steps)}}
    if panel.kind == "timeseries" and panel.limit is not None:
        defaults["custom"] = {"thresholdsStyle": {"mode": "line"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.lines.items())
        ],
    }
