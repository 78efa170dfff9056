"""Kubernetes Role with the permissions to deploy into an existing namespace and to explain failures."""

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
"""Kinds that the program creates in an existing namespace: kind → API group and resource."""
HOLD_DATA = frozenset({"Cluster", "PersistentVolumeClaim"})
"""Kinds of objects that `remove_strays` never deletes, because Kubernetes would delete their data too."""
READ = (("", "events"), ("", "pods"), ("", "pods/log"), ("apps", "replicasets"))
"""API group and resource of objects that the program only reads, to wait for other objects and to explain errors."""


def role() -> dict[str, Any]:
    """Return the manifest of the Role. `kubectl apply --namespace NAME` sets the namespace."""
    write_rules = [_rule(group, KINDS.values(), _WRITE) for group in sorted({group for group, _ in KINDS.values()})]
    read_rules = [_rule(group, READ, _READ) for group in sorted({group for group, _ in READ})]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "tiers-deployer", "labels": {"app.kubernetes.io/managed-by": "administrator"}},
        "rules": write_rules + read_rules,
    }


_READ = ("get", "list", "watch")
_WRITE = (*_READ, "create", "update", "patch", "delete")


def _rule(group: str, resources: Iterable[tuple[str, str]], verbs: tuple[str, ...]) -> dict[str, Any]:
    names = sorted(resource for resource_group, resource in resources if resource_group == group)
    return {"apiGroups": [group], "resources": names, "verbs": list(verbs)}
