"""The Role that is enough to deploy into a namespace that is there: what the renderers make, and what explains a failure."""

from collections.abc import Iterable, Mapping
from typing import Any

KINDS: Mapping[str, tuple[str, str]] = {
    "Cluster": ("postgresql.cnpg.io", "clusters"),
    "ConfigMap": ("", "configmaps"),
    "CronJob": ("batch", "cronjobs"),
    "Deployment": ("apps", "deployments"),
    "ExternalSecret": ("external-secrets.io", "externalsecrets"),
    "Gateway": ("gateway.networking.k8s.io", "gateways"),
    "HTTPRoute": ("gateway.networking.k8s.io", "httproutes"),
    "HorizontalPodAutoscaler": ("autoscaling", "horizontalpodautoscalers"),
    "Job": ("batch", "jobs"),
    "NetworkPolicy": ("networking.k8s.io", "networkpolicies"),
    "ObjectStore": ("barmancloud.cnpg.io", "objectstores"),
    "PersistentVolumeClaim": ("", "persistentvolumeclaims"),
    "Pooler": ("postgresql.cnpg.io", "poolers"),
    "PodDisruptionBudget": ("policy", "poddisruptionbudgets"),
    "PodMonitor": ("monitoring.coreos.com", "podmonitors"),
    "PrometheusRule": ("monitoring.coreos.com", "prometheusrules"),
    "ScheduledBackup": ("postgresql.cnpg.io", "scheduledbackups"),
    "Secret": ("", "secrets"),
    "Service": ("", "services"),
    "ServiceAccount": ("", "serviceaccounts"),
    "ServiceMonitor": ("monitoring.coreos.com", "servicemonitors"),
    "StatefulSet": ("apps", "statefulsets"),
}
"""Kind → API group and resource, of all that is made in a namespace by who does not own it."""
HOLD_DATA = frozenset({"Cluster", "PersistentVolumeClaim"})
"""Kinds that are never removed as strays: a database of several instances goes with its object."""
READ = (("", "events"), ("", "pods"), ("", "pods/log"), ("apps", "replicasets"))
"""What the provider watches while it waits, and what an error is explained from."""


def role() -> dict[str, Any]:
    """The Role, without a namespace: `kubectl apply --namespace NAME` gives it one."""
    made = [_rule(group, KINDS.values(), _WRITE) for group in sorted({group for group, _ in KINDS.values()})]
    seen = [_rule(group, READ, _READ) for group in sorted({group for group, _ in READ})]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "tiers-deployer", "labels": {"app.kubernetes.io/managed-by": "administrator"}},
        "rules": made + seen,
    }


_READ = ("get", "list", "watch")
_WRITE = (*_READ, "create", "update", "patch", "delete")


def _rule(group: str, resources: Iterable[tuple[str, str]], verbs: tuple[str, ...]) -> dict[str, Any]:
    names = sorted(resource for of_group, resource in resources if of_group == group)
    return {"apiGroups": [group], "resources": names, "verbs": list(verbs)}
