"""A database of several instances on Kubernetes, as CloudNativePG's objects: pure functions to manifests.

What the operator (1.27) is relied on for: it makes and heals the instances, promotes the one that has most when the
primary is lost, keeps the addresses `-rw` and `-ro` on whoever is what, and says how it is in `status`. Its own pods are
as Pod Security's `restricted` asks for.
"""

from collections.abc import Mapping

from pulumi import Input

from .. import names
from ..config import SecretReference
from ..workload import DatabaseCluster, Resources
from . import barman
from .manifests import IN_BACKGROUND, Manifest, Scope, brought_name, cpu, secret_name, size, spread
from .traffic import policy, to_world

GROUP = "postgresql.cnpg.io"
API = f"{GROUP}/v1"
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "cnpg-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "cloudnative-pg"}},
}
"""Where its manifests and its chart put it."""
STATUS_PORT = 8000
"""Where the operator asks an instance how it is."""
API_SERVER_PORTS = (443, 6443)
"""Where API servers listen: each instance reads there what it is to be. They have no label a policy could name."""
POOLERS = 2
SWITCHOVER = 40
"""Seconds a primary has to give over in order. The operator's default is an hour without anybody who writes."""
STOP = 60
"""Seconds an instance has to stop; then it is killed, and the log it wrote is what it starts from."""
QUORUM = {"alpha.cnpg.io/failoverQuorum": "true"}
"""Nobody is promoted unless whoever has the last acknowledged write is among those that are asked."""
POOL = {
    # All replicas of both slots share these connections; each of the poolers has as many.
    "default_pool_size": "20",
    "max_client_conn": "1000",
    # What drivers prepare behind one's back is prepared again on whichever connection a transaction gets.
    "max_prepared_statements": "200",
    # A failover is waited for, as a slow answer; what takes longer is told, so that it can be told on.
    "query_wait_timeout": "10",
    # The defaults are 15 s: that long nobody would notice that there is a new primary.
    "server_connect_timeout": "2",
    "server_login_retry": "1",
    # A primary that is gone without a word: its connections are given up, not waited for.
    "tcp_keepalive": "1",
    "tcp_keepidle": "5",
    "tcp_keepintvl": "2",
    "tcp_keepcnt": "3",
    "tcp_user_timeout": "10000",
}


def cluster(scope: Scope, wanted: DatabaseCluster, protected_by: str) -> Manifest:
    """The instances. `protected_by` is the Secret with the owner's name and password.

    A commit is acknowledged once one more instance has it on disk, and not at all while there is none (`required`): who
    takes over has all that was acknowledged. One of two is enough, so that one may be lost, or be slow, unnoticed.
    """
    labels = scope.labels(wanted.name, "tier", tier=wanted.tier)
    notes = {"pulumi.com/waitFor": "condition=Ready"} | IN_BACKGROUND | QUORUM
    made = scope.object(API, "Cluster", wanted.name, labels, notes)
    spec: Manifest = {
        "affinity": _affinity(wanted),
        "bootstrap": {"initdb": _beginning(wanted, protected_by)},
        "enablePDB": True,
        "enableSuperuserAccess": False,
        "imageName": wanted.image.reference,
        # The registry is no part of what a failover depends on. It counts for the operator's own container, too.
        "imagePullPolicy": "IfNotPresent",
        "inheritedMetadata": {"labels": labels},
        "instances": wanted.instances,
        "postgresql": {
            "parameters": {"shared_buffers": f"{wanted.resources.memory // 2**22}MB"},
            "synchronous": {"dataDurability": "required", "method": "any", "number": 1},
        },
        "primaryUpdateMethod": "switchover",
        "primaryUpdateStrategy": "unsupervised",
        # The operator's own take 30 s to notice a primary that hangs, and as long as `stopDelay` to end it; until then its
        # replicas wait for it on connections that its kernel keeps open. A busy node's short pauses are none.
        "probes": {
            "liveness": {
                "failureThreshold": 4,
                "periodSeconds": 5,
                "terminationGracePeriodSeconds": 5,
                "timeoutSeconds": 5,
            },
            "readiness": {"failureThreshold": 3, "periodSeconds": 2, "timeoutSeconds": 3},
            "startup": {"periodSeconds": 2, "timeoutSeconds": 5},
        },
        "resources": _resources(wanted.resources),
        "seccompProfile": {"type": "RuntimeDefault"},
        # Poolers never leave by themselves: to wait until they do is to have nobody who takes a new connection.
        "smartShutdownTimeout": 1,
        "startDelay": max(round(wanted.start_within), 30),
        "stopDelay": STOP,
        "storage": _storage(wanted),
        "switchoverDelay": SWITCHOVER,
    }
    if wanted.priority:
        spec["priorityClassName"] = wanted.priority
    if scope.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in scope.pull_secrets]
    if wanted.archive:
        spec["inheritedMetadata"] = {
            "labels": labels | {names.LABEL_NEEDS.format(name=wanted.archive.vault.tier): "yes"}
        }
        spec["plugins"] = [barman.used(wanted.name)]
    return made | {"spec": spec}


def _affinity(wanted: DatabaseCluster) -> Manifest:
    """No two of them in one place, and rather one too few than two that are lost together."""
    if wanted.apart:
        return {"enablePodAntiAffinity": True, "podAntiAffinityType": "required", "topologyKey": wanted.apart}
    return {
        "enablePodAntiAffinity": True,
        "podAntiAffinityType": "preferred",
        "topologyKey": "kubernetes.io/hostname",
    }


def _beginning(wanted: DatabaseCluster, protected_by: str) -> Manifest:
    """Sorted by code points: an order that no newer image's library changes under an index."""
    made: Manifest = {
        "database": wanted.database,
        "owner": wanted.owner,
        "secret": {"name": protected_by},
        "dataChecksums": True,
        "encoding": "UTF8",
        "localeCType": "C.UTF-8",
        "localeCollate": "C.UTF-8",
        # A backup is restored beside what it is of, into a database that the owner makes.
        "postInitSQL": [f'ALTER ROLE "{wanted.owner}" CREATEDB'],
    }
    if wanted.scripts:
        keys = [{"name": scripts_name(wanted), "key": script.name} for script in wanted.scripts]
        made["postInitApplicationSQLRefs"] = {"configMapRefs": keys}
    return made


def _resources(given: Resources) -> Manifest:
    """As for other pods, with room for the operator's program, which is copied into each."""
    fixed = {"memory": size(given.memory), "ephemeral-storage": "1Gi"}
    reserved = given.cpu / 4 if given.reserve is None else given.reserve
    return {"requests": {"cpu": _cpu(reserved), **fixed}, "limits": {"cpu": _cpu(given.cpu), **fixed}}


def _cpu(processors: float) -> str:
    """As the operator writes it back: what differs would be changed again by each update."""
    return str(int(processors)) if processors.is_integer() and processors else cpu(processors)


def _without_disk(given: Manifest) -> Manifest:
    return {
        kind: {name: each for name, each in values.items() if name in ("cpu", "memory")}
        for kind, values in given.items()
    }


def _storage(wanted: DatabaseCluster) -> Manifest:
    storage_class = {"storageClass": wanted.volume.storage_class} if wanted.volume.storage_class else {}
    return {"size": size(wanted.volume.size), **storage_class}


def scripts_name(wanted: DatabaseCluster) -> str:
    return names.SCRIPTS.of(data=wanted.name)


def scripts(scope: Scope, wanted: DatabaseCluster) -> Manifest:
    """What a new database begins with. The operator runs it as its superuser; what it makes is to be the owner's."""
    made = scope.object("v1", "ConfigMap", scripts_name(wanted), scope.labels(wanted.name, "scripts", tier=wanted.tier))
    data = {each.name: f'SET ROLE "{wanted.owner}";\n{each.text}\n;RESET ROLE;\n' for each in wanted.scripts}
    return made | {"data": data}


# ---------------------------------------------------------------------- the owner's password


def owner_name(wanted: DatabaseCluster, reference: SecretReference | None) -> str:
    """The Secret with the owner's name and password."""
    if reference and reference.secret:
        return reference.secret
    return brought_name(wanted.name, wanted.password) if reference else secret_name(wanted.name, [wanted.password])


def owner(scope: Scope, wanted: DatabaseCluster, password: Input[str]) -> Manifest:
    """As the operator reads it."""
    labels = scope.labels(wanted.name, "secrets", tier=wanted.tier)
    made = scope.object("v1", "Secret", owner_name(wanted, None), labels)
    values: Mapping[str, Input[str]] = {"password": password, "username": wanted.owner}
    return made | {"immutable": True, "stringData": dict(values), "type": "kubernetes.io/basic-auth"}


def owner_brought(made: Manifest, wanted: DatabaseCluster) -> Manifest:
    """An ExternalSecret, whose Secret is made as the operator reads it."""
    data = {"username": wanted.owner, "password": f'{{{{ index . "{wanted.password.name}" }}}}'}
    target = made["spec"]["target"] | {"template": {"type": "kubernetes.io/basic-auth", "data": data}}
    return made | {"spec": made["spec"] | {"target": target}}


# ---------------------------------------------------------------------- the pooler


def pooler(scope: Scope, wanted: DatabaseCluster) -> Manifest:
    """What tiers connect to: many connections of theirs on few of the database's.

    By transaction: two slots of many replicas, each with a pool of its own, are more connections than a database has; by
    session they would wait for one another for ever. What needs a session has DATABASE_DIRECT_HOST.
    """
    labels = scope.labels(wanted.pooled, "pooler", tier=wanted.tier)
    given = Resources(cpu=0.5, memory=128 * 2**20, reserve=wanted.resources.reserve and 0.02)
    # Deleted from the foreground it would wait for a Deployment that its operator makes again for as long as it waits.
    settled = {"pulumi.com/waitFor": f"jsonpath={{.status.instances}}={POOLERS}"} | IN_BACKGROUND
    made = scope.object(API, "Pooler", wanted.pooled, labels, settled)
    made["spec"] = {
        "cluster": {"name": wanted.name},
        "instances": POOLERS,
        "pgbouncer": {"parameters": dict(POOL), "poolMode": "transaction"},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "containers": [
                    {
                        "name": "pgbouncer",
                        "image": wanted.pooler.reference,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": _resources(given),
                    }
                ],
                # What the operator's own container may take; it looks only here.
                "resources": _without_disk(_resources(given)),
                "topologySpreadConstraints": spread(_pooler_pods(wanted)),
                **({"imagePullSecrets": [{"name": name} for name in scope.pull_secrets]} if scope.pull_secrets else {}),
                **({"priorityClassName": wanted.priority} if wanted.priority else {}),
            },
        },
        "type": "rw",
    }
    return made


def _pooler_pods(wanted: DatabaseCluster) -> dict[str, str]:
    return {"cnpg.io/poolerName": wanted.pooled}


def pooler_budget(scope: Scope, wanted: DatabaseCluster) -> Manifest:
    """One at a time; the instances' budgets are the operator's (`enablePDB`)."""
    labels = scope.labels(wanted.pooled, "budget", tier=wanted.tier)
    made = scope.object("policy/v1", "PodDisruptionBudget", wanted.pooled, labels)
    made["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": _pooler_pods(wanted)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return made


# ---------------------------------------------------------------------- who may connect


def policies(scope: Scope, wanted: DatabaseCluster) -> list[Manifest]:
    """Who needs the database may connect to its instances and poolers; these to each other, and to what runs the cluster."""
    own, need = {"cnpg.io/cluster": wanted.name}, {names.LABEL_NEEDS.format(name=wanted.tier): "yes"}
    they, those = [{"podSelector": {"matchLabels": own}}], [{"podSelector": {"matchLabels": need}}]
    database, among = _ports(wanted.port), _ports(wanted.port, STATUS_PORT)
    into = [
        {"from": those, "ports": database},
        {"from": they, "ports": among},
        {"from": [OPERATOR], "ports": _ports(STATUS_PORT)},
    ]
    out = [{"to": they, "ports": among}, {"to": to_world(), "ports": _ports(*API_SERVER_PORTS)}]
    return [
        policy(scope, wanted.name, own, ingress=into, egress=out),
        policy(scope, f"to-{wanted.name}", need, egress=[{"to": they, "ports": database}]),
    ]


def _ports(*numbers: int) -> list[Manifest]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]
