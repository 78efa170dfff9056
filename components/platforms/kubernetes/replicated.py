"""Manifests of a replicated workload on Kubernetes: objects of its members and its proxy. All functions are pure.

Each member is a StatefulSet with one pod and its own claim. One StatefulSet for all members would have these disadvantages
(docs/adr/018-a-cache-that-survives.md):

- The claims could not be protected and resized like other claims.
- If a single instance becomes replicated, the first member could not take over the claim of the single instance.
- An update could not wait for one member after the other.
"""

from dataclasses import dataclass, replace

from ...model.names import LABEL_MEMBER
from ...model.workload import Replicated, Volume, Workload
from ..process import Process
from . import manifests, objects, pod_spec
from .objects import Manifest, Scope
from .policies import member_policies

PROXIES = 2


@dataclass(frozen=True, kw_only=True)
class Member:
    """Member of a replicated workload, with the names of its Kubernetes object and its Pulumi resource."""

    name: str
    resource: str
    workload: Workload

    @property
    def volume(self) -> Volume:
        return self.workload.volumes[0]


def members(workload: Replicated) -> list[Member]:
    """Return the members. Each member has its own volume.

    The first member's Pulumi resource has the same name as the resource of a single instance.
    """
    result: list[Member] = []
    for name, volume in zip(workload.names, workload.volumes, strict=True):
        member = replace(workload, volumes=(volume,), env=(*workload.env, ("MEMBER", name)))
        result.append(Member(name=name, resource=name if result else workload.tier, workload=member))
    return result


def network_objects(scope: Scope, workload: Replicated) -> list[Manifest]:
    """Return the network policies, Services and disruption budgets of the members and the proxy."""
    return [
        *member_policies(scope, workload),
        _client_service(scope, workload),
        manifests.service(scope, workload, None, pods=True),
        *(_member_service(scope, workload, name) for name in workload.names),
        manifests.disruption_budget(scope, workload, None),
        manifests.disruption_budget(scope, workload.proxy, None),
    ]


def _client_service(scope: Scope, workload: Replicated) -> Manifest:
    """Return the Service that clients connect to. The Service selects the pods of the proxy.

    Deploy this Service before the members. The Service of a former single instance has the same name, and would also select the
    members. Clients could then connect to a replica, keep this connection, and fail to write.
    """
    manifest = manifests.service(scope, workload, None)
    manifest["spec"]["selector"] = objects.selector(scope, workload.proxy, None)
    return manifest


def _member_service(scope: Scope, workload: Replicated, name: str) -> Manifest:
    """Return the Service of one member, which gives the member a fixed host name.

    The Service also routes to a member that is not ready, because the other members must detect the member's state.
    """
    manifest = manifests.service(scope, workload, None)
    manifest["metadata"]["name"] = name
    spec = manifest["spec"]
    spec["publishNotReadyAddresses"] = True
    spec["selector"] = spec["selector"] | {LABEL_MEMBER: name}
    spec["ports"] = [*spec["ports"], _port(workload.watcher)]
    return manifest


def _port(watcher: Workload) -> Manifest:
    return {"name": watcher.tier, "port": watcher.port, "protocol": "TCP", "targetPort": watcher.tier}


def stateful_set(scope: Scope, workload: Replicated, member: Member, spec: Manifest) -> Manifest:
    """Return the StatefulSet of a member, with the watcher (Sentinel) as a sidecar. If possible, members run on different nodes."""
    [server] = spec["containers"]
    server["lifecycle"] = {"preStop": {"exec": {"command": list(workload.leave)}}}
    additions = {
        "containers": [server, _watcher(workload.watcher, server)],
        "topologySpreadConstraints": pod_spec.spread(objects.selector(scope, workload, None)),
    }
    return manifests.stateful_set(scope, workload, spec | additions, member.name)


def _watcher(watcher: Workload, server: Manifest) -> Manifest:
    process = replace(Process.from_workload(watcher), user=server["securityContext"]["runAsUser"])
    names = {variable["name"] for variable in server["env"]}
    rendered = pod_spec.container(watcher.tier, watcher.image.reference, process, {}, names)
    ports = [{"name": watcher.tier, "containerPort": watcher.port, "protocol": "TCP"}]
    return (
        rendered
        | pod_spec.probes(watcher, names)
        | {name: server[name] for name in ("env", "volumeMounts")}
        | {"ports": ports}
    )


def deployment(scope: Scope, workload: Replicated, spec: Manifest, patience: float) -> Manifest:
    """Return the Deployment of the proxy. Updates happen in place, because the proxy has no data and clients reconnect."""
    proxy = workload.proxy
    pod_labels = objects.selector(scope, proxy, None)
    labels = scope.labels(proxy.tier, "tier", tier=workload.tier)
    manifest = scope.object("apps/v1", "Deployment", proxy.tier, labels)
    manifest["spec"] = {
        "progressDeadlineSeconds": round(patience),
        "replicas": PROXIES,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": pod_labels},
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": labels, "annotations": manifests.secret_versions(proxy)},
            "spec": spec | {"topologySpreadConstraints": pod_spec.spread(pod_labels)},
        },
    }
    return manifest
