"""What a replicated workload is on Kubernetes: pure functions from it to the objects of its members and of its proxy.

Each member is a StatefulSet of one over a claim of its own, and not one of a single StatefulSet: so its claim is made,
protected and grown like every other, the first takes over that of the single instance there was, and a change reaches one
member after the other, each waited for (docs/adr/018-a-cache-that-survives.md).
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
    """One of a replicated workload, by its name there and the name of its resource."""

    name: str
    resource: str
    workload: Workload

    @property
    def volume(self) -> Volume:
        return self.workload.volumes[0]


def members(workload: Replicated) -> list[Member]:
    """Each with a volume of its own. The first one's resource has the name of a single one's."""
    found: list[Member] = []
    for name, volume in zip(workload.names, workload.volumes, strict=True):
        own = replace(workload, volumes=(volume,), env=(*workload.env, ("MEMBER", name)))
        found.append(Member(name=name, resource=name if found else workload.tier, workload=own))
    return found


def around(scope: Scope, workload: Replicated) -> list[Manifest]:
    """What stands around the members: their addresses, who may connect, their budget; and the proxy's."""
    return [
        *member_policies(scope, workload),
        _entrance(scope, workload),
        manifests.service(scope, workload, None, pods=True),
        *(_address(scope, workload, name) for name in workload.names),
        manifests.disruption_budget(scope, workload, None),
        manifests.disruption_budget(scope, workload.proxy, None),
    ]


def _entrance(scope: Scope, workload: Replicated) -> Manifest:
    """What those who need the workload connect to: the proxy.

    It stands before the members do. A single one's leads to whatever has its name, and so have they: who came to a replica
    that way stayed there, and could not write.
    """
    made = manifests.service(scope, workload, None)
    made["spec"]["selector"] = manifests.selector(scope, workload.proxy, None)
    return made


def _address(scope: Scope, workload: Replicated, name: str) -> Manifest:
    """One that never changes, and leads to the member also while it is not ready: the others have to hear that."""
    made = manifests.service(scope, workload, None)
    made["metadata"]["name"] = name
    spec = made["spec"]
    spec["publishNotReadyAddresses"] = True
    spec["selector"] = spec["selector"] | {LABEL_MEMBER: name}
    spec["ports"] = [*spec["ports"], _port(workload.watcher)]
    return made


def _port(watcher: Workload) -> Manifest:
    return {"name": watcher.tier, "port": watcher.port, "protocol": "TCP", "targetPort": watcher.tier}


def stateful_set(scope: Scope, workload: Replicated, member: Member, spec: Manifest) -> Manifest:
    """A member, its watcher beside it, as far from the others as there is room."""
    [server] = spec["containers"]
    server["lifecycle"] = {"preStop": {"exec": {"command": list(workload.leave)}}}
    own = {
        "containers": [server, _watcher(workload.watcher, server)],
        "topologySpreadConstraints": manifests.spread(manifests.selector(scope, workload, None)),
    }
    return manifests.stateful_set(scope, workload, spec | own, member.name)


def _watcher(watcher: Workload, server: Manifest) -> Manifest:
    image, uid = watcher.image.reference, server["securityContext"]["runAsUser"]
    names = {each["name"] for each in server["env"]}
    made = manifests.container(watcher.tier, image, uid, watcher.resources, {}, watcher.command, names)
    ports = [{"name": watcher.tier, "containerPort": watcher.port, "protocol": "TCP"}]
    return (
        made
        | manifests.probes(watcher, names)
        | {name: server[name] for name in ("env", "volumeMounts")}
        | {"ports": ports}
    )


def deployment(scope: Scope, workload: Replicated, spec: Manifest, patience: float) -> Manifest:
    """The proxy, changed in place: what it holds are connections, and those who have them connect again."""
    proxy = workload.proxy
    found = manifests.selector(scope, proxy, None)
    labels = scope.labels(proxy.tier, "tier", tier=workload.tier)
    made = scope.object("apps/v1", "Deployment", proxy.tier, labels)
    made["spec"] = {
        "progressDeadlineSeconds": round(patience),
        "replicas": PROXIES,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": found},
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": labels, "annotations": manifests.secret_versions(proxy)},
            "spec": spec | {"topologySpreadConstraints": manifests.spread(found)},
        },
    }
    return made
