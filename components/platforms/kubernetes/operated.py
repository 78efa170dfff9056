"""Manifests for the cluster's Prometheus: exporters, and objects that prometheus-operator reads. All functions are pure.

Series have the same labels as on Docker, so both platforms use the same rules. Grafana's sidecar (kube-prometheus-stack) finds the
ConfigMap with the dashboard by a label.

Source: prometheus-operator 0.84, API reference (ServiceMonitor, PrometheusRule).
"""

import json
from collections.abc import Mapping
from typing import Any

from pulumi import Input

from ...model.names import DATABASE_CLUSTER, LABEL_DASHBOARD, LABEL_NEEDS
from ...model.workload import Workload
from ...observability.alerts import BACKUP_INTERVAL, BACKUP_PORT, BACKUP_TIMEOUT, MonitoringScope, rule_file
from ...observability.dashboard import dashboard
from ...release.checkpoint import LABEL_ROLE
from .objects import Manifest, Scope, selector
from .policies import policy

GROUP = "monitoring.coreos.com"
INSTANCE_PORT = 9187
"""Number of the port `metrics` of a CloudNativePG instance."""
_SLOT_OF_A_SERVICE = "__meta_kubernetes_service_label_tiers_slot"


def deployment(scope: Scope, exporter: Workload, data: str, spec: Manifest) -> Manifest:
    """Return the Deployment of an exporter. The Deployment has one replica, because two replicas would export every value twice.

    If the replica fails, metrics are missing, but users are not affected.
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


def monitors(scope: Scope, monitored: MonitoringScope, exporters: Mapping[str, Workload]) -> list[Manifest]:
    """Return the ServiceMonitors and PodMonitors: for services that serve metrics, for exporters, for backups and for database instances."""
    tiers = [
        _monitor(scope, monitored, str(tier), str(tier), service.metrics or "")
        for tier, service in monitored.app.measured.items()
    ]
    tiers += [_monitor(scope, monitored, tier, exporter.tier, "/metrics") for tier, exporter in exporters.items()]
    tiers += [_backup(scope, monitored, name) for name in monitored.backup_jobs]
    return tiers + ([_instances(scope, monitored)] if monitored.replicated else [])


def _backup(scope: Scope, monitored: MonitoringScope, name: str) -> Manifest:
    manifest = _monitor(scope, monitored, name, name, "/metrics")
    manifest["spec"]["endpoints"][0] |= {"interval": BACKUP_INTERVAL, "scrapeTimeout": BACKUP_TIMEOUT}
    return manifest


def _monitor(scope: Scope, monitored: MonitoringScope, job: str, name: str, path: str) -> Manifest:
    manifest = scope.object(f"{GROUP}/v1", "ServiceMonitor", name, _labels(scope, monitored, name))
    service_labels = {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/instance": scope.instance,
        LABEL_ROLE: "service",
    }
    manifest["spec"] = {
        "endpoints": [
            {
                "interval": f"{monitored.settings.interval * 1000:.0f}ms",
                "path": path,
                "port": "main",
                "relabelings": [
                    {"replacement": job, "targetLabel": "job"},
                    {"sourceLabels": [_SLOT_OF_A_SERVICE], "targetLabel": "slot"},
                ],
                "scrapeTimeout": f"{min(monitored.settings.interval, 10) * 1000:.0f}ms",
            }
        ],
        "selector": {"matchLabels": service_labels},
    }
    return manifest


def _instances(scope: Scope, monitored: MonitoringScope) -> Manifest:
    """Return the PodMonitor that makes Prometheus scrape each CloudNativePG instance."""
    manifest = scope.object(
        f"{GROUP}/v1", "PodMonitor", "database-instances", _labels(scope, monitored, "database-instances")
    )
    job = {"replacement": "database", "targetLabel": "job"}
    endpoint = {"interval": f"{monitored.settings.interval * 1000:.0f}ms", "port": "metrics", "relabelings": [job]}
    manifest["spec"] = {"podMetricsEndpoints": [endpoint], "selector": {"matchLabels": _instance_labels(scope)}}
    return manifest


def _instance_labels(scope: Scope) -> dict[str, str]:
    """Return labels that select the instances of the deployed database cluster.

    The labels exclude the temporary Cluster of a restore. Prometheus would count its instance as a second primary.
    """
    labels = {"cnpg.io/cluster": DATABASE_CLUSTER, "cnpg.io/podRole": "instance"}
    return labels | {"app.kubernetes.io/instance": scope.instance}


def rules(scope: Scope, monitored: MonitoringScope) -> Manifest:
    """Return the PrometheusRule with the recording rules and alerts."""
    manifest = scope.object(f"{GROUP}/v1", "PrometheusRule", scope.app, _labels(scope, monitored, scope.app))
    return manifest | {"spec": rule_file(monitored)}


def release_rule(scope: Scope, monitored: MonitoringScope, live: Mapping[str, Input[str]]) -> Manifest:
    """Return a PrometheusRule that records the live release as a series."""
    name = f"{scope.app}-release"
    manifest = scope.object(f"{GROUP}/v1", "PrometheusRule", name, _labels(scope, monitored, name))
    rule = {
        "record": "tiers_release_info",
        "expr": "vector(1)",
        "labels": {"namespace": monitored.namespace, **live},
    }
    return manifest | {"spec": {"groups": [{"name": f"{monitored.namespace}-release", "rules": [rule]}]}}


def dashboard_config_map(scope: Scope, monitored: MonitoringScope) -> Manifest:
    """Return the ConfigMap with the dashboard, for Grafana's sidecar."""
    name = f"{scope.app}-dashboard"
    manifest = scope.object("v1", "ConfigMap", name, scope.labels(name, "watch") | {LABEL_DASHBOARD: "1"})
    return manifest | {"data": {f"{monitored.namespace}.json": json.dumps(dashboard(monitored), indent=1)}}


def policies(scope: Scope, monitored: MonitoringScope, exporters: Mapping[str, Workload]) -> list[Manifest]:
    """Return the network policies that allow the cluster's Prometheus to connect to each metrics port."""
    ports = {str(tier): service.port for tier, service in monitored.app.measured.items()}
    ports |= {exporter.tier: exporter.port or 0 for exporter in exporters.values()}
    ports |= dict.fromkeys(monitored.backup_jobs, BACKUP_PORT)
    targets = {
        name: ({"app.kubernetes.io/name": name, "app.kubernetes.io/instance": scope.instance}, port)
        for name, port in ports.items()
    }
    targets |= {"database-instances": (_instance_labels(scope), INSTANCE_PORT)} if monitored.replicated else {}
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": monitored.settings.namespace}}}
    return [
        policy(
            scope,
            f"watch-{name}",
            pods,
            ingress=[{"from": [prometheus], "ports": [{"port": port, "protocol": "TCP"}]}],
        )
        for name, (pods, port) in targets.items()
    ]


def _labels(scope: Scope, monitored: MonitoringScope, name: str) -> dict[str, Any]:
    return dict(monitored.settings.labels) | scope.labels(name, "watch")
