"""Database cluster on Kubernetes as objects of CloudNativePG: pure functions to manifests.

The program relies on these properties of the operator (1.27). It creates and repairs the instances. It promotes the
most advanced replica when the primary is lost. It points the addresses `-rw` and `-ro` at the current primary and
replicas. It reports its state in `status`. Its pods meet Pod Security's `restricted` level.
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
"""Peer of the operator's pods, where its manifests and its chart install it."""
STATUS_PORT = 8000
"""Port at which the operator reads the status of an instance."""
API_SERVER_PORTS = (443, 6443)
"""Ports of API servers, from which each instance reads its configuration. They have no label that a policy could select."""
POOLERS = 2
SWITCHOVER = 40
"""Seconds a primary has to hand over. The operator's default is one hour, during which no instance takes writes."""
STOP = 60
"""Seconds an instance has to stop. After that it is killed and recovers from its write-ahead log."""
QUORUM = {"alpha.cnpg.io/failoverQuorum": "true"}
"""Annotation that allows a failover only if the reachable replicas surely include the last acknowledged write."""
POOL = {
    # Connections to the database for each pooler, shared by all replicas of both slots.
    "default_pool_size": "20",
    "max_client_conn": "1000",
    # PgBouncer prepares the statements of drivers again on whichever connection a transaction gets.
    "max_prepared_statements": "200",
    # Queue clients for up to 10 s during a failover, then return an error they can report.
    "query_wait_timeout": "10",
    # The defaults are 15 s, for which the pooler would not notice a new primary.
    "server_connect_timeout": "2",
    "server_login_retry": "1",
    # Give up the connections of a primary that vanished without closing them.
    "tcp_keepalive": "1",
    "tcp_keepidle": "5",
    "tcp_keepintvl": "2",
    "tcp_keepcnt": "3",
    "tcp_user_timeout": "10000",
}
"""Settings of PgBouncer."""


def cluster(scope: Scope, wanted: DatabaseCluster, protected_by: str) -> Manifest:
    """Return the Cluster of the instances. `protected_by` is the Secret with the owner's name and password.

    A commit is acknowledged once one other instance has it on disk, and waits while there is none (`required`). The
    instance that takes over thus has all acknowledged commits. One of two replicas is enough, so one may be lost or
    slow without delaying writes.
    """
    labels = scope.labels(wanted.name, "tier", tier=wanted.tier)
    annotations = {"pulumi.com/waitFor": "condition=Ready"} | IN_BACKGROUND | QUORUM
    manifest = scope.object(API, "Cluster", wanted.name, labels, annotations)
    spec: Manifest = {
        "affinity": _affinity(wanted),
        "bootstrap": {"initdb": _beginning(wanted, protected_by)},
        "enablePDB": True,
        "enableSuperuserAccess": False,
        "imageName": wanted.image.reference,
        # A failover must not depend on the registry. The policy also applies to the operator's own container.
        "imagePullPolicy": "IfNotPresent",
        "inheritedMetadata": {"labels": labels},
        "instances": wanted.instances,
        "postgresql": {
            "parameters": {"shared_buffers": f"{wanted.resources.memory // 2**22}MB"},
            "synchronous": {"dataDurability": "required", "method": "any", "number": 1},
        },
        "primaryUpdateMethod": "switchover",
        "primaryUpdateStrategy": "unsupervised",
        # With the operator's defaults a hanging primary is noticed after 30 s, and then has `stopDelay` to end. Until
        # then its replicas wait on connections that its kernel keeps open. Short pauses of a busy node do not fail
        # these probes.
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
        # Poolers never disconnect by themselves. Waiting for that would leave new connections without a server.
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
    return manifest | {"spec": spec}


def _affinity(wanted: DatabaseCluster) -> Manifest:
    """Require anti-affinity: leave an instance unscheduled rather than put two in one failure domain."""
    if wanted.apart:
        return {"enablePodAntiAffinity": True, "podAntiAffinityType": "required", "topologyKey": wanted.apart}
    return {
        "enablePodAntiAffinity": True,
        "podAntiAffinityType": "preferred",
        "topologyKey": "kubernetes.io/hostname",
    }


def _beginning(wanted: DatabaseCluster, protected_by: str) -> Manifest:
    """Return the initdb section. It sorts by code points: a newer image's C library can't change this order under an index."""
    initdb: Manifest = {
        "database": wanted.database,
        "owner": wanted.owner,
        "secret": {"name": protected_by},
        "dataChecksums": True,
        "encoding": "UTF8",
        "localeCType": "C.UTF-8",
        "localeCollate": "C.UTF-8",
        # A restore puts the backup into a second database, which the owner creates.
        "postInitSQL": [f'ALTER ROLE "{wanted.owner}" CREATEDB'],
    }
    if wanted.scripts:
        keys = [{"name": scripts_name(wanted), "key": script.name} for script in wanted.scripts]
        initdb["postInitApplicationSQLRefs"] = {"configMapRefs": keys}
    return initdb


def _resources(given: Resources) -> Manifest:
    """Return requests and limits as for other pods, with disk for the operator's program, which is copied into each pod."""
    fixed = {"memory": size(given.memory), "ephemeral-storage": "1Gi"}
    reserved = given.cpu / 4 if given.reserve is None else given.reserve
    return {"requests": {"cpu": _cpu(reserved), **fixed}, "limits": {"cpu": _cpu(given.cpu), **fixed}}


def _cpu(processors: float) -> str:
    """Return processors as the operator writes them back, because any difference would be an update each time."""
    return str(int(processors)) if processors.is_integer() and processors else cpu(processors)


def _without_disk(given: Manifest) -> Manifest:
    return {
        kind: {name: amount for name, amount in values.items() if name in ("cpu", "memory")}
        for kind, values in given.items()
    }


def _storage(wanted: DatabaseCluster) -> Manifest:
    storage_class = {"storageClass": wanted.volume.storage_class} if wanted.volume.storage_class else {}
    return {"size": size(wanted.volume.size), **storage_class}


def scripts_name(wanted: DatabaseCluster) -> str:
    return names.SCRIPTS.of(data=wanted.name)


def scripts(scope: Scope, wanted: DatabaseCluster) -> Manifest:
    """Return the scripts of a new database.

    The operator runs them as its superuser. `SET ROLE` makes the owner own what they create.
    """
    manifest = scope.object(
        "v1", "ConfigMap", scripts_name(wanted), scope.labels(wanted.name, "scripts", tier=wanted.tier)
    )
    data = {script.name: f'SET ROLE "{wanted.owner}";\n{script.text}\n;RESET ROLE;\n' for script in wanted.scripts}
    return manifest | {"data": data}


# ---------------------------------------------------------------------- the owner's password


def owner_name(wanted: DatabaseCluster, reference: SecretReference | None) -> str:
    """Return the name of the Secret with the owner's name and password."""
    if reference and reference.secret:
        return reference.secret
    return brought_name(wanted.name, wanted.password) if reference else secret_name(wanted.name, [wanted.password])


def owner(scope: Scope, wanted: DatabaseCluster, password: Input[str]) -> Manifest:
    """Return the Secret with the owner's name and password in the form that the operator reads."""
    labels = scope.labels(wanted.name, "secrets", tier=wanted.tier)
    manifest = scope.object("v1", "Secret", owner_name(wanted, None), labels)
    values: Mapping[str, Input[str]] = {"password": password, "username": wanted.owner}
    return manifest | {"immutable": True, "stringData": dict(values), "type": "kubernetes.io/basic-auth"}


def owner_brought(made: Manifest, wanted: DatabaseCluster) -> Manifest:
    """Return an ExternalSecret whose Secret has the form that the operator reads."""
    data = {"username": wanted.owner, "password": f'{{{{ index . "{wanted.password.name}" }}}}'}
    target = made["spec"]["target"] | {"template": {"type": "kubernetes.io/basic-auth", "data": data}}
    return made | {"spec": made["spec"] | {"target": target}}


# ---------------------------------------------------------------------- the pooler


def pooler(scope: Scope, wanted: DatabaseCluster) -> Manifest:
    """Return the Pooler that tiers connect to. It shares few database connections among many clients.

    It pools by transaction. In session mode, two slots with many replicas, each with its own pool, would need more
    connections than the database has, and clients would wait for each other forever. DATABASE_DIRECT_HOST is for what
    needs a session.
    """
    labels = scope.labels(wanted.pooled, "pooler", tier=wanted.tier)
    limits = Resources(cpu=0.5, memory=128 * 2**20, reserve=wanted.resources.reserve and 0.02)
    # With foreground deletion the Pooler would wait for its Deployment, which the operator recreates for as long as
    # the Pooler exists.
    annotations = {"pulumi.com/waitFor": f"jsonpath={{.status.instances}}={POOLERS}"} | IN_BACKGROUND
    manifest = scope.object(API, "Pooler", wanted.pooled, labels, annotations)
    manifest["spec"] = {
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
                        "resources": _resources(limits),
                    }
                ],
                # Resources of the operator's own container, which reads them only here.
                "resources": _without_disk(_resources(limits)),
                "topologySpreadConstraints": spread(_pooler_pods(wanted)),
                **({"imagePullSecrets": [{"name": name} for name in scope.pull_secrets]} if scope.pull_secrets else {}),
                **({"priorityClassName": wanted.priority} if wanted.priority else {}),
            },
        },
        "type": "rw",
    }
    return manifest


def _pooler_pods(wanted: DatabaseCluster) -> dict[str, str]:
    return {"cnpg.io/poolerName": wanted.pooled}


def pooler_budget(scope: Scope, wanted: DatabaseCluster) -> Manifest:
    """Return a budget that evicts one pooler at a time; the operator makes those of the instances (`enablePDB`)."""
    labels = scope.labels(wanted.pooled, "budget", tier=wanted.tier)
    manifest = scope.object("policy/v1", "PodDisruptionBudget", wanted.pooled, labels)
    manifest["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": _pooler_pods(wanted)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return manifest


# ---------------------------------------------------------------------- who may connect


def policies(scope: Scope, wanted: DatabaseCluster) -> list[Manifest]:
    """Return the network policies of the instances.

    Ingress is open to tiers that need the database, to other instances and to the operator. Egress is open to other
    instances and to the API server.
    """
    instance_labels, need_label = {"cnpg.io/cluster": wanted.name}, {names.LABEL_NEEDS.format(name=wanted.tier): "yes"}
    instances, clients = (
        [{"podSelector": {"matchLabels": instance_labels}}],
        [{"podSelector": {"matchLabels": need_label}}],
    )
    database_port, peer_ports = _ports(wanted.port), _ports(wanted.port, STATUS_PORT)
    ingress_rules = [
        {"from": clients, "ports": database_port},
        {"from": instances, "ports": peer_ports},
        {"from": [OPERATOR], "ports": _ports(STATUS_PORT)},
    ]
    egress_rules = [{"to": instances, "ports": peer_ports}, {"to": to_world(), "ports": _ports(*API_SERVER_PORTS)}]
    return [
        policy(scope, wanted.name, instance_labels, ingress=ingress_rules, egress=egress_rules),
        policy(scope, f"to-{wanted.name}", need_label, egress=[{"to": instances, "ports": database_port}]),
    ]


def _ports(*numbers: int) -> list[Manifest]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]
