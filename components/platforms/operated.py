"""What a cluster's Prometheus is asked to watch: pure functions to the objects of prometheus-operator, and what exporters need.

Source: prometheus-operator 0.84, API reference (ServiceMonitor, PrometheusRule). Grafana's sidecar finds dashboards in ConfigMaps
by a label (kube-prometheus-stack). Labels of series are those that Docker's Prometheus gives, so that rules are the same.
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
"""Where an instance of CloudNativePG has its metrics, as its port `metrics`."""
_SLOT_OF_A_SERVICE = "__meta_kubernetes_service_label_tiers_slot"


def deployment(scope: Scope, exporter: Workload, data: str, spec: Manifest) -> Manifest:
    """An exporter: one, for two would count everything twice, and while it is away figures are missing and no user is."""
    labels = scope.labels(exporter.tier, "exporter")
    made = scope.object("apps/v1", "Deployment", exporter.tier, labels)
    made["spec"] = {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(scope, exporter, None)},
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": labels | {LABEL_NEEDS.format(name=data): "yes"}}, "spec": spec},
    }
    return made


def monitors(scope: Scope, watched: Watched, exporters: Mapping[str, Workload]) -> list[Manifest]:
    """Who is asked: each tier with metrics, in both slots, each exporter, and what takes backups."""
    tiers = [
        _monitor(scope, watched, str(tier), str(tier), each.metrics or "")
        for tier, each in watched.app.measured.items()
    ]
    tiers += [_monitor(scope, watched, tier, each.tier, "/metrics") for tier, each in exporters.items()]
    tiers += [_backup(scope, watched)] if watched.backed_up else []
    return tiers + ([_instances(scope, watched)] if watched.replicated else [])


def _backup(scope: Scope, watched: Watched) -> Manifest:
    made = _monitor(scope, watched, BACKUP, BACKUP, "/metrics")
    made["spec"]["endpoints"][0] |= {"interval": BACKUP_INTERVAL, "scrapeTimeout": BACKUP_TIMEOUT}
    return made


def _monitor(scope: Scope, watched: Watched, job: str, name: str, path: str) -> Manifest:
    made = scope.object(f"{GROUP}/v1", "ServiceMonitor", name, _labels(scope, watched, name))
    mine = {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": scope.instance, LABEL_ROLE: "service"}
    made["spec"] = {
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
        "selector": {"matchLabels": mine},
    }
    return made


def _instances(scope: Scope, watched: Watched) -> Manifest:
    """The instances of a database that are CloudNativePG's: each is asked itself."""
    made = scope.object(
        f"{GROUP}/v1", "PodMonitor", "database-instances", _labels(scope, watched, "database-instances")
    )
    job = {"replacement": "database", "targetLabel": "job"}
    asked = {"interval": f"{watched.settings.interval * 1000:.0f}ms", "port": "metrics", "relabelings": [job]}
    made["spec"] = {"podMetricsEndpoints": [asked], "selector": {"matchLabels": _instance(scope)}}
    return made


def _instance(scope: Scope) -> dict[str, str]:
    """Of the database that is used: what a restore has beside it for a while would be counted, and be what takes writes."""
    mine = {"cnpg.io/cluster": REPLICATED, "cnpg.io/podRole": "instance"}
    return mine | {"app.kubernetes.io/instance": scope.instance}


def rules(scope: Scope, watched: Watched) -> Manifest:
    """What is recorded, and what is an alert."""
    made = scope.object(f"{GROUP}/v1", "PrometheusRule", scope.app, _labels(scope, watched, scope.app))
    return made | {"spec": file(watched)}


def released(scope: Scope, watched: Watched, live: Mapping[str, Input[str]]) -> Manifest:
    """Which release is live, as a series of its own."""
    name = f"{scope.app}-release"
    made = scope.object(f"{GROUP}/v1", "PrometheusRule", name, _labels(scope, watched, name))
    rule = {
        "record": "tiers_release_info",
        "expr": "vector(1)",
        "labels": {"namespace": watched.namespace, **live},
    }
    return made | {"spec": {"groups": [{"name": f"{watched.namespace}-release", "rules": [rule]}]}}


def grafana(scope: Scope, watched: Watched) -> Manifest:
    """The dashboard, where Grafana's sidecar finds it."""
    name = f"{scope.app}-dashboard"
    made = scope.object("v1", "ConfigMap", name, scope.labels(name, "watch") | {LABEL_DASHBOARD: "1"})
    return made | {"data": {f"{watched.namespace}.json": json.dumps(dashboard(watched), indent=1)}}


def policies(scope: Scope, watched: Watched, exporters: Mapping[str, Workload]) -> list[Manifest]:
    """The cluster's Prometheus may ask what has metrics, at the port that has them, and connect to nothing else; an exporter its tier."""
    ports = {str(tier): each.port for tier, each in watched.app.measured.items()}
    ports |= {each.tier: each.port or 0 for each in exporters.values()}
    ports |= {BACKUP: BACKUP_PORT} if watched.backed_up else {}
    asked = {
        name: ({"app.kubernetes.io/name": name, "app.kubernetes.io/instance": scope.instance}, port)
        for name, port in ports.items()
    }
    asked |= {"database-instances": (_instance(scope), INSTANCE_PORT)} if watched.replicated else {}
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": watched.settings.namespace}}}
    return [
        traffic.policy(
            scope,
            f"watch-{name}",
            pods,
            ingress=[{"from": [prometheus], "ports": [{"port": port, "protocol": "TCP"}]}],
        )
        for name, (pods, port) in asked.items()
    ]


def _labels(scope: Scope, watched: Watched, name: str) -> dict[str, Any]:
    return dict(watched.settings.labels) | scope.labels(name, "watch")
