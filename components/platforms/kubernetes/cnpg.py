"""Manifests of a database cluster on Kubernetes, with CloudNativePG. All functions are pure.

The program relies on these properties of the operator (1.27):

- The operator creates and repairs the instances.
- If the primary is lost, the operator promotes the replica with the latest data.
- The host name `CLUSTER-rw` always leads to the current primary, and `CLUSTER-ro` to the replicas.
- The operator reports the state of the cluster in `status`.
- All pods meet the `restricted` Pod Security Standard.
"""

from collections.abc import Mapping

from pulumi import Input

from ...config import SecretReference
from ...model import names
from ...model.workload import DatabaseCluster, Resources
from . import barman
from .manifests import IN_BACKGROUND
from .objects import Manifest, Scope, external_secret_name, secret_name
from .pod_spec import spread
from .policies import policy, to_world
from .quantities import cpu, resources, size

GROUP = "postgresql.cnpg.io"
API = f"{GROUP}/v1"
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "cnpg-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/name": "cloudnative-pg"}},
}
"""Network policy peer that matches the operator's pods, whether the operator was installed from manifests or from the Helm chart."""
STATUS_PORT = 8000
"""Port at which the operator reads the status of an instance."""
API_SERVER_PORTS = (443, 6443)
"""Ports of API servers. Instances must connect to an API server, and a network policy can't select API servers by label."""
POOLERS = 2
SWITCHOVER = 40
"""Time limit in seconds of a planned switchover, during which no instance accepts writes. The operator's default is one hour."""
STOP = 60
"""Time limit in seconds for an instance to stop. An instance that exceeds the limit is killed, and recovers from its WAL."""
QUORUM = {"alpha.cnpg.io/failoverQuorum": "true"}
"""Annotation of a Cluster. With it, a failover happens only if the reachable replicas certainly have all acknowledged writes."""
POOL = {
    # Maximum number of database connections of each pooler. The services of both slots share these connections.
    "default_pool_size": "20",
    "max_client_conn": "1000",
    # Support prepared statements: PgBouncer prepares a client's statement on each database connection that the client gets.
    "max_prepared_statements": "200",
    # Queue clients for up to 10 s during a failover, then return an error that the clients can report.
    "query_wait_timeout": "10",
    # With the defaults of 15 s the pooler would detect a new primary too late.
    "server_connect_timeout": "2",
    "server_login_retry": "1",
    # Drop connections to a primary that disappeared without closing them.
    "tcp_keepalive": "1",
    "tcp_keepidle": "5",
    "tcp_keepintvl": "2",
    "tcp_keepcnt": "3",
    "tcp_user_timeout": "10000",
}
"""Settings of PgBouncer."""
_TOPOLOGY_KEYS = {"zones": "topology.kubernetes.io/zone", "hosts": "kubernetes.io/hostname"}
"""Kind of failure domain (`apart` in the configuration) → node label with the name of the domain."""


def cluster(scope: Scope, database: DatabaseCluster, protected_by: str) -> Manifest:
    """Return the Cluster object. `protected_by` is the name of the Secret with the owner's name and password.

    Replication is synchronous and `required`: a commit is acknowledged once one replica has written it to disk. After a failover
    the new primary therefore has all acknowledged commits. A commit needs only one of the two replicas, so a lost or slow replica
    delays no commit. If both replicas are lost, commits wait.
    """
    labels = scope.labels(database.name, "tier", tier=database.tier)
    annotations = {"pulumi.com/waitFor": "condition=Ready"} | IN_BACKGROUND | QUORUM
    manifest = scope.object(API, "Cluster", database.name, labels, annotations)
    spec: Manifest = {
        "affinity": _affinity(database),
        "bootstrap": {"initdb": _initdb(database, protected_by)},
        "enablePDB": True,
        "enableSuperuserAccess": False,
        "imageName": database.image.reference,
        # Pull only missing images, so a failover does not depend on the registry. This also applies to the container that the
        # operator adds to each pod.
        "imagePullPolicy": "IfNotPresent",
        "inheritedMetadata": {"labels": labels},
        "instances": database.instances,
        "postgresql": {
            "parameters": {"shared_buffers": f"{database.resources.memory // 2**22}MB"},
            "synchronous": {"dataDurability": "required", "method": "any", "number": 1},
        },
        "primaryUpdateMethod": "switchover",
        "primaryUpdateStrategy": "unsupervised",
        # Detect a hanging primary earlier than after the default of 30 s, but tolerate short pauses of a busy node. Until the
        # primary is killed (`stopDelay`), the replicas wait, because the primary's kernel keeps their connections open.
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
        "resources": _resources(database.resources),
        "seccompProfile": {"type": "RuntimeDefault"},
        # Don't wait long for clients to disconnect: poolers never do, and while PostgreSQL waits it accepts no new connection.
        "smartShutdownTimeout": 1,
        "startDelay": max(round(database.start_within), 30),
        "stopDelay": STOP,
        "storage": _storage(database),
        "switchoverDelay": SWITCHOVER,
    }
    if database.priority:
        spec["priorityClassName"] = database.priority
    if scope.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in scope.pull_secrets]
    if database.archive:
        spec["inheritedMetadata"] = {
            "labels": labels | {names.LABEL_NEEDS.format(name=database.archive.proxy.tier): "yes"}
        }
        spec["plugins"] = [barman.plugin_entry(database.name)]
    return manifest | {"spec": spec}


def _affinity(database: DatabaseCluster) -> Manifest:
    """Return the anti-affinity of instances.

    With `apart: zones` or `apart: hosts` an instance stays unscheduled if it would share a zone or host with another one.
    """
    if key := _TOPOLOGY_KEYS.get(database.apart):
        return {"enablePodAntiAffinity": True, "podAntiAffinityType": "required", "topologyKey": key}
    return {
        "enablePodAntiAffinity": True,
        "podAntiAffinityType": "preferred",
        "topologyKey": "kubernetes.io/hostname",
    }


def _initdb(database: DatabaseCluster, protected_by: str) -> Manifest:
    """Return a Cluster's `initdb` section.

    Text is sorted by code points, because newer C libraries don't change this order.
    """
    initdb: Manifest = {
        "database": database.database,
        "owner": database.owner,
        "secret": {"name": protected_by},
        "dataChecksums": True,
        "encoding": "UTF8",
        "localeCType": "C.UTF-8",
        "localeCollate": "C.UTF-8",
        # The owner may create databases, because `make restore` restores a backup into a new database.
        "postInitSQL": [f'ALTER ROLE "{database.owner}" CREATEDB'],
    }
    if database.scripts:
        keys = [{"name": scripts_name(database), "key": script.name} for script in database.scripts]
        initdb["postInitApplicationSQLRefs"] = {"configMapRefs": keys}
    return initdb


def _resources(limits: Resources) -> Manifest:
    """Return requests and limits of a container. The disk limit includes space for the operator's program in the pod."""
    return resources(limits, "1Gi", _cpu)


def _cpu(processors: float) -> str:
    """Return a number of processors as the operator writes it; otherwise every update would show a change."""
    return str(int(processors)) if processors.is_integer() and processors else cpu(processors)


def _cpu_and_memory(rendered: Manifest) -> Manifest:
    return {
        kind: {name: amount for name, amount in values.items() if name in ("cpu", "memory")}
        for kind, values in rendered.items()
    }


def _storage(database: DatabaseCluster) -> Manifest:
    storage_class = {"storageClass": database.volume.storage_class} if database.volume.storage_class else {}
    return {"size": size(database.volume.size), **storage_class}


def scripts_name(database: DatabaseCluster) -> str:
    return names.SCRIPTS.format(data=database.name)


def scripts(scope: Scope, database: DatabaseCluster) -> Manifest:
    """Return the ConfigMap with the scripts that set up a new database.

    The operator runs the scripts as superuser. `SET ROLE` makes the database's owner the owner of all created objects.
    """
    manifest = scope.object(
        "v1", "ConfigMap", scripts_name(database), scope.labels(database.name, "scripts", tier=database.tier)
    )
    data = {script.name: f'SET ROLE "{database.owner}";\n{script.text}\n;RESET ROLE;\n' for script in database.scripts}
    return manifest | {"data": data}


# ---------------------------------------------------------------------- the owner's password


def owner_name(database: DatabaseCluster, reference: SecretReference | None) -> str:
    """Return the name of the Secret with the database owner's name and password."""
    if reference and reference.secret:
        return reference.secret
    return (
        external_secret_name(database.name, database.password)
        if reference
        else secret_name(database.name, [database.password])
    )


def owner_secret(scope: Scope, database: DatabaseCluster, password: Input[str]) -> Manifest:
    """Return the Secret with the database owner's name and password, in the form that the operator requires."""
    labels = scope.labels(database.name, "secrets", tier=database.tier)
    manifest = scope.object("v1", "Secret", owner_name(database, None), labels)
    values: Mapping[str, Input[str]] = {"password": password, "username": database.owner}
    return manifest | {"immutable": True, "stringData": dict(values), "type": "kubernetes.io/basic-auth"}


def owner_external_secret(external_secret: Manifest, database: DatabaseCluster) -> Manifest:
    """Return the ExternalSecret from which the operator External Secrets creates the database owner's Secret."""
    data = {"username": database.owner, "password": f'{{{{ index . "{database.password.name}" }}}}'}
    target = external_secret["spec"]["target"] | {"template": {"type": "kubernetes.io/basic-auth", "data": data}}
    return external_secret | {"spec": external_secret["spec"] | {"target": target}}


# ---------------------------------------------------------------------- the pooler


def pooler(scope: Scope, database: DatabaseCluster) -> Manifest:
    """Return the Pooler that tiers connect to. The Pooler shares few database connections among many clients.

    The mode is transaction pooling. In session mode the connection pools of all replicas in both slots would need too many
    database connections, and clients would wait forever. Clients that need a session use DATABASE_DIRECT_HOST.
    """
    labels = scope.labels(database.pooled, "pooler", tier=database.tier)
    limits = Resources(cpu=0.5, memory=128 * 2**20, reserve=database.resources.reserve and 0.02)
    # Delete in the background. With foreground deletion the Pooler would wait for the deletion of its Deployment, but the operator
    # recreates this Deployment while the Pooler exists.
    annotations = {"pulumi.com/waitFor": f"jsonpath={{.status.instances}}={POOLERS}"} | IN_BACKGROUND
    manifest = scope.object(API, "Pooler", database.pooled, labels, annotations)
    manifest["spec"] = {
        "cluster": {"name": database.name},
        "instances": POOLERS,
        "pgbouncer": {"parameters": dict(POOL), "poolMode": "transaction"},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "containers": [
                    {
                        "name": "pgbouncer",
                        "image": database.pooler.reference,
                        "imagePullPolicy": "IfNotPresent",
                        "resources": _resources(limits),
                    }
                ],
                # Set the resources of the container that the operator adds. The operator reads them only from this field.
                "resources": _cpu_and_memory(_resources(limits)),
                "topologySpreadConstraints": spread(_pooler_pods(database)),
                **({"imagePullSecrets": [{"name": name} for name in scope.pull_secrets]} if scope.pull_secrets else {}),
                **({"priorityClassName": database.priority} if database.priority else {}),
            },
        },
        "type": "rw",
    }
    return manifest


def _pooler_pods(database: DatabaseCluster) -> dict[str, str]:
    return {"cnpg.io/poolerName": database.pooled}


def pooler_budget(scope: Scope, database: DatabaseCluster) -> Manifest:
    """Return the disruption budget of the pooler. The operator itself creates the budgets of the instances (`enablePDB`)."""
    labels = scope.labels(database.pooled, "budget", tier=database.tier)
    manifest = scope.object("policy/v1", "PodDisruptionBudget", database.pooled, labels)
    manifest["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": _pooler_pods(database)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return manifest


# ---------------------------------------------------------------------- network policies


def policies(scope: Scope, database: DatabaseCluster) -> list[Manifest]:
    """Return the network policies of the instances.

    Ingress is allowed from tiers that need the database, from other instances and from the operator. Egress is allowed to other
    instances and to the API server.
    """
    instance_labels, need_label = (
        {"cnpg.io/cluster": database.name},
        {names.LABEL_NEEDS.format(name=database.tier): "yes"},
    )
    instances, clients = (
        [{"podSelector": {"matchLabels": instance_labels}}],
        [{"podSelector": {"matchLabels": need_label}}],
    )
    database_port, peer_ports = _ports(database.port), _ports(database.port, STATUS_PORT)
    ingress_rules = [
        {"from": clients, "ports": database_port},
        {"from": instances, "ports": peer_ports},
        {"from": [OPERATOR], "ports": _ports(STATUS_PORT)},
    ]
    egress_rules = [{"to": instances, "ports": peer_ports}, {"to": to_world(), "ports": _ports(*API_SERVER_PORTS)}]
    return [
        policy(scope, database.name, instance_labels, ingress=ingress_rules, egress=egress_rules),
        policy(scope, f"to-{database.name}", need_label, egress=[{"to": instances, "ports": database_port}]),
    ]


def _ports(*numbers: int) -> list[Manifest]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]
