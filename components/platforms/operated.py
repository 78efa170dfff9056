"""Monitoring by a cluster's Prometheus: pure functions to prometheus-operator's objects and to exporters.

Source: prometheus-operator 0.84, API reference (ServiceMonitor, PrometheusRule). Grafana's sidecar finds dashboards
in ConfigMaps by a label (kube-prometheus-stack). Series have the same labels as in Docker's Prometheus, so the rules
are the same.
"""

import json
from collections.abc import Mapping
from typing import Any

from pulumi import Input

from ..alerts import BACKUP, BACKUP_INTERVAL, BACKUP_PORT, BACKUP_TIMEOUT, Watched, file
from ..checkpoint import LABEL_ROLE
from ..dashboard import dashboard
from ..names import LABEL_DASHBOARD, LABEL_NEEDS
from ..tier import REPLICATED
from ..workload import Workload
from . import traffic
from .manifests import Manifest, Scope, selector

GROUP = "monitoring.coreos.com"
INSTANCE_PORT = 9187
"""Port of the metrics of a CloudNativePG instance, named `metrics`."""
_SLOT_OF_A_SERVICE = "__meta_kubernetes_service_label_tiers_slot"


def deployment(scope: Scope, exporter: Workload, data: str, spec: Manifest) -> Manifest:
    """Return the Deployment of an exporter, with one replica, because two would count everything twice.

    While it is away metrics are missing, but no user is affected.
    """
    labels = scope.labels(exporter.tier, "exporter")
    manifest = scope.object("apps/v1", "Deployment", exporter.tier, labels)
    manifest["spec"] = {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(scope, exporter, None)},
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": labels | {LABEL_NEEDS.format(name=data): "yes"}}, "spec": spec},
    }
    return manifest


def monitors(scope: Scope, watched: Watched, exporters: Mapping[str, Workload]) -> list[Manifest]:
    """Return the monitors of tiers with metrics (in both slots), exporters, backups and database instances."""
    tiers = [
        _monitor(scope, watched, str(tier), str(tier), service.metrics or "")
        for tier, service in watched.app.measured.items()
    ]
    tiers += [_monitor(scope, watched, tier, exporter.tier, "/metrics") for tier, exporter in exporters.items()]
    tiers += [_backup(scope, watched)] if watched.backed_up else []
    return tiers + ([_instances(scope, watched)] if watched.replicated else [])


def _backup(scope: Scope, watched: Watched) -> Manifest:
    manifest = _monitor(scope, watched, BACKUP, BACKUP, "/metrics")
    manifest["spec"]["endpoints"][0] |= {"interval": BACKUP_INTERVAL, "scrapeTimeout": BACKUP_TIMEOUT}
    return manifest


def _monitor(scope: Scope, watched: Watched, job: str, name: str, path: str) -> Manifest:
    manifest = scope.object(f"{GROUP}/v1", "ServiceMonitor", name, _labels(scope, watched, name))
    service_labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": scope.instance,
        LABEL_ROLE: "service",
    }
    manifest["spec"] = {
        "endpoints": [
            {
                "interval": f"{watched.settings.interval * 1000:.0f}ms",
                "path": path,
                "port": "main",
                "relabelings": [
                    {"replacement": job, "targetLabel": "job"},
                    {"sourceLabels": [_SLOT_OF_A_SERVICE], "targetLabel": "slot"},
                ],
                "scrapeTimeout": f"{min(watched.settings.interval, 10) * 1000:.0f}ms",
            }
        ],
        "selector": {"matchLabels": service_labels},
    }
    return manifest


def _instances(scope: Scope, watched: Watched) -> Manifest:
    """Return the monitor of CloudNativePG's instances, each of which is scraped itself."""
    manifest = scope.object(
        f"{GROUP}/v1", "PodMonitor", "database-instances", _labels(scope, watched, "database-instances")
    )
    job = {"replacement": "database", "targetLabel": "job"}
    endpoint = {"interval": f"{watched.settings.interval * 1000:.0f}ms", "port": "metrics", "relabelings": [job]}
    manifest["spec"] = {"podMetricsEndpoints": [endpoint], "selector": {"matchLabels": _instance(scope)}}
    return manifest


def _instance(scope: Scope) -> dict[str, str]:
    """Return the labels of the instances of the database in use.

    The temporary Cluster of a restore is excluded: it would be counted, and would look like a primary.
    """
    labels = {"cnpg.io/cluster": REPLICATED, "cnpg.io/podRole": "instance"}
    return labels | {"app.kubernetes.io/instance": scope.instance}


def rules(scope: Scope, watched: Watched) -> Manifest:
    """Return the recording rules and alerts."""
    manifest = scope.object(f"{GROUP}/v1", "PrometheusRule", scope.app, _labels(scope, watched, scope.app))
    return manifest | {"spec": file(watched)}


def released(scope: Scope, watched: Watched, live: Mapping[str, Input[str]]) -> Manifest:
    """Return a rule that records the live release as a series."""
    name = f"{scope.app}-release"
    manifest = scope.object(f"{GROUP}/v1", "PrometheusRule", name, _labels(scope, watched, name))
    rule = {
        "record": "tiers_release_info",
        "expr": "vector(1)",
        "labels": {"namespace": watched.namespace, **live},
    }
    return manifest | {"spec": {"groups": [{"name": f"{watched.namespace}-release", "rules": [rule]}]}}


def grafana(scope: Scope, watched: Watched) -> Manifest:
    """Return the ConfigMap in which Grafana's sidecar finds the dashboard."""
    name = f"{scope.app}-dashboard"
    manifest = scope.object("v1", "ConfigMap", name, scope.labels(name, "watch") | {LABEL_DASHBOARD: "1"})
    return manifest | {"data": {f"{watched.namespace}.json": json.dumps(dashboard(watched), indent=1)}}


def policies(scope: Scope, watched: Watched, exporters: Mapping[str, Workload]) -> list[Manifest]:
    """Return policies that let the cluster's Prometheus connect to each metrics port. Exporters reach their tier by label."""
    ports = {str(tier): service.port for tier, service in watched.app.measured.items()}
    ports |= {exporter.tier: exporter.port or 0 for exporter in exporters.values()}
    ports |= {BACKUP: BACKUP_PORT} if watched.backed_up else {}
    targets = {
        name: ({"app.kubernetes.io/name": name, "app.kubernetes.io/instance": scope.instance}, port)
        for name, port in ports.items()
    }
    targets |= {"database-instances": (_instance(scope), INSTANCE_PORT)} if watched.replicated else {}
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": watched.settings.namespace}}}
    return [
        traffic.policy(
            scope,
            f"watch-{name}",
            pods,
            ingress=[{"from": [prometheus], "ports": [{"port": port, "protocol": "TCP"}]}],
        )
        for name, (pods, port) in targets.items()
    ]


def _labels(scope: Scope, watched: Watched, name: str) -> dict[str, Any]:
    return dict(watched.settings.labels) | scope.labels(name, "watch")
