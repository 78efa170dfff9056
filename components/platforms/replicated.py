"""Manifests of a replicated workload on Kubernetes: pure functions to the objects of its members and its proxy.

Each member is a StatefulSet of one pod over its own claim. A single StatefulSet of all members was not chosen: this
way each claim is made, protected and grown like any other, the first member takes over the claim of a former single
instance, and a change reaches one member after the other, each of them awaited
(docs/adr/018-a-cache-that-survives.md).
"""

from dataclasses import dataclass, replace

from ..names import LABEL_MEMBER
from ..workload import Replicated, Volume, Workload
from . import manifests
from .manifests import Manifest, Scope
from .traffic import member_policies

PROXIES = 2


@dataclass(frozen=True, kw_only=True)
class Member:
    """Member of a replicated workload, with the names of its object and of its resource."""

    name: str
    resource: str
    workload: Workload

    @property
    def volume(self) -> Volume:
        return self.workload.volumes[0]


def members(workload: Replicated) -> list[Member]:
    """Return the members, each with its own volume. The first one's resource has the name of a single instance's."""
    result: list[Member] = []
    for name, volume in zip(workload.names, workload.volumes, strict=True):
        member = replace(workload, volumes=(volume,), env=(*workload.env, ("MEMBER", name)))
        result.append(Member(name=name, resource=name if result else workload.tier, workload=member))
    return result


def around(scope: Scope, workload: Replicated) -> list[Manifest]:
    """Return the objects around the members: policies, Services and disruption budgets, also of the proxy."""
    return [
        *member_policies(scope, workload),
        _entrance(scope, workload),
        manifests.service(scope, workload, None, pods=True),
        *(_address(scope, workload, name) for name in workload.names),
        manifests.disruption_budget(scope, workload, None),
        manifests.disruption_budget(scope, workload.proxy, None),
    ]


def _entrance(scope: Scope, workload: Replicated) -> Manifest:
    """Return the Service that clients connect to. It selects the proxy.

    It is deployed before the members, because the Service of a single instance selects members too. Clients that
    reached a replica through that one kept their connection and could not write.
    """
    manifest = manifests.service(scope, workload, None)
    manifest["spec"]["selector"] = manifests.selector(scope, workload.proxy, None)
    return manifest


def _address(scope: Scope, workload: Replicated, name: str) -> Manifest:
    """Return the Service of one member, which never changes.

    It routes to the member even if that is not ready, because the other members must learn of this.
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
    """Return the StatefulSet of a member and its watcher, placed as far from the other members as possible."""
    [server] = spec["containers"]
    server["lifecycle"] = {"preStop": {"exec": {"command": list(workload.leave)}}}
    additions = {
        "containers": [server, _watcher(workload.watcher, server)],
        "topologySpreadConstraints": manifests.spread(manifests.selector(scope, workload, None)),
    }
    return manifests.stateful_set(scope, workload, spec | additions, member.name)


def _watcher(watcher: Workload, server: Manifest) -> Manifest:
    image, uid = watcher.image.reference, server["securityContext"]["runAsUser"]
    names = {variable["name"] for variable in server["env"]}
    rendered = manifests.container(watcher.tier, image, uid, watcher.resources, {}, watcher.command, names)
    ports = [{"name": watcher.tier, "containerPort": watcher.port, "protocol": "TCP"}]
    return (
        rendered
        | manifests.probes(watcher, names)
        | {name: server[name] for name in ("env", "volumeMounts")}
        | {"ports": ports}
    )


def deployment(scope: Scope, workload: Replicated, spec: Manifest, patience: float) -> Manifest:
    """Return the Deployment of the proxy, updated in place: it holds only connections, and its clients reconnect."""
    proxy = workload.proxy
    pod_labels = manifests.selector(scope, proxy, None)
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
            "spec": spec | {"topologySpreadConstraints": manifests.spread(pod_labels)},
        },
    }
    return manifest
