"""The environment's Grafana dashboard, as a pure function. Its queries use the series that the rules of `alerts` record."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .alerts import Watched
from .config import TierName

WIDTH, HEIGHT = 8, 7
COLUMNS = 24 // WIDTH


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph: its lines as legend → query, and the limit they should stay below."""

    title: str
    lines: dict[str, str]
    unit: str = "short"
    limit: float | None = None
    about: str = ""
    kind: str = "timeseries"


def panels(watched: Watched) -> dict[str, list[Panel]]:
    """Return the panels of each row, by the row's title."""
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
    return {title: row for title, build in rows.items() if (row := list(build(watched)))}


def _promises(watched: Watched) -> Iterator[Panel]:
    slo, selector = watched.environment.slo, watched.of
    if watched.counted:
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
    if watched.app.measured:
        for name, limit in (("p95", slo.p95), ("p99", slo.p99)):
            lines = {name: selector(f"tiers:latency:{name}_5m")}
            yield Panel(title=f"{name.upper()} of answers", lines=lines, unit="s", limit=limit)


def _figures(watched: Watched) -> Iterator[Panel]:
    for name, figure in watched.app.figures.items():
        lines = {name: watched.of("tiers_figure", figure=name)}
        yield Panel(title=literal(figure.help or name), lines=lines, unit=figure.unit, limit=figure.above)


def literal(text: str) -> str:
    """Return a title in which Grafana replaces no variable (`$source`, `${__from}`, `[[source]]`). Grafana has no escape for them.

    An invisible word joiner separates the sign from the name.
    """
    return re.sub(r"\$(?=\{?(source|__))|\[(?=\[(source|__))", "\\g<0>\u2060", text)


def _tiers(watched: Watched) -> Iterator[Panel]:
    yield Panel(title="What says how it is", lines={"{{job}} {{slot}}": f"sum by (job, slot) ({watched.of('up')})"})
    if watched.app.measured:
        answers = f"sum by (slot) (rate({watched.answers('count')}[5m]))"
        yield Panel(title="Requests by slot", lines={"{{slot}}": answers}, unit="reqps")
    if watched.on_docker:
        sessions = watched.of("haproxy_frontend_current_sessions", proxy="gateway")
        waiting = f"sum({watched.of('haproxy_backend_current_queue')})"
        yield Panel(title="Connections of the gateway", lines={"open": sessions, "waiting": waiting})
        idle = watched.of("haproxy_process_idle_time_percent")
        yield Panel(title="Gateway, busy", lines={"busy": f"1 - {idle} / 100"}, unit="percentunit")


def _database(watched: Watched) -> Iterator[Panel]:
    selector = watched.of
    if TierName.DATABASE in watched.exported:
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


def _databases(watched: Watched) -> Iterator[Panel]:
    selector = watched.of
    if watched.replicated:
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


def _backups(watched: Watched) -> Iterator[Panel]:
    selector = watched.of
    if watched.backed_up:
        # Zero means that no backup has succeeded yet.
        age = f"time() - ({selector('tiers_backup_last_success_timestamp_seconds')} > 0)"
        yield Panel(title="Since the last that went well", lines={"{{kind}}": age}, unit="s")
        proven = {
            "it came back": selector("tiers_backup_verified"),
            "can be read": selector("tiers_backup_repository_readable"),
        }
        yield Panel(title="Last verification", lines=proven, unit="bool_yes_no", kind="stat")
        made = 'kind=~"backup|full"'
        yield Panel(title="Size", lines={"{{kind}}": selector("tiers_backup_last_size_bytes", made)}, unit="bytes")
        yield Panel(
            title="How long it took", lines={"{{kind}}": selector("tiers_backup_last_duration_seconds")}, unit="s"
        )


def _cache(watched: Watched) -> Iterator[Panel]:
    if TierName.CACHE in watched.exported:
        selector, limit = watched.of, watched.environment.size(TierName.CACHE).memory
        yield Panel(title="Memory", lines={"used": selector("redis_memory_used_bytes")}, unit="bytes", limit=limit)
        commands = f"sum(rate({selector('redis_commands_processed_total')}[5m]))"
        yield Panel(title="Commands every second", lines={"commands": commands})
        yield Panel(
            title="Clients",
            lines={"connected": selector("redis_connected_clients"), "waiting": selector("redis_blocked_clients")},
        )


def _containers(watched: Watched) -> Iterator[Panel]:
    """Yield panels of containers, from the kubelets of a cluster. A Docker engine records no such series."""
    if watched.on_docker:
        return
    one = 'container!=""'
    used = f"sum by (pod) ({watched.of('container_memory_working_set_bytes', one)})"
    yield Panel(title="Memory", lines={"{{pod}}": used}, unit="bytes")
    busy = f"sum by (pod) (rate({watched.of('container_cpu_usage_seconds_total', one)}[5m]))"
    yield Panel(title="Processors", lines={"{{pod}}": busy})
    left, size = (watched.of(f"kubelet_volume_stats_{name}_bytes") for name in ("available", "capacity"))
    full = {"{{persistentvolumeclaim}}": f"1 - {left} / {size}"}
    yield Panel(title="Volumes, full", lines=full, unit="percentunit", limit=0.85)


def queries(watched: Watched) -> list[str]:
    """Return every query of the dashboard."""
    return [query for row in panels(watched).values() for panel in row for query in panel.lines.values()] + [
        _released(watched)
    ]


def _released(watched: Watched) -> str:
    info = watched.of("tiers_release_info")
    return f"{info} unless {info} offset 2m"


_SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard(watched: Watched) -> dict[str, Any]:
    """Return the dashboard in the JSON model of Grafana 10 and later. Its viewers choose the Prometheus to query."""
    return {
        "uid": watched.namespace[:40],
        "title": f"{watched.app.name}, {watched.namespace}",
        "tags": ["tiers", watched.app.name],
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
                    "expr": _released(watched),
                    "iconColor": "blue",
                    "step": "60s",
                    "titleFormat": "{{release}} is live",
                    "textFormat": "on {{slot}}",
                }
            ]
        },
        "panels": _placed(panels(watched)),
    }


def _placed(rows: dict[str, list[Panel]]) -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = []
    y = 0
    for title, row in rows.items():
        placed.append({"id": len(placed) + 1, "type": "row", "title": title, "gridPos": _at(0, y, 24, 1)})
        y += 1
        for number, panel in enumerate(row):
            position = _at(number % COLUMNS * WIDTH, y + number // COLUMNS * HEIGHT, WIDTH, HEIGHT)
            placed.append({"id": len(placed) + 1, "gridPos": position, **_panel(panel)})
        y += -(-len(row) // COLUMNS) * HEIGHT
    return placed


def _at(x: int, y: int, w: int, h: int) -> dict[str, int]:
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
