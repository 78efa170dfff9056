"""Manifests of network policies on Kubernetes. All functions are pure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ...config import Kubernetes
from ...model.names import LABEL_NEEDS, LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT
from ...model.workload import ExternalService, Replicated, Workload
from ..base import SlotTarget
from .objects import Manifest, Scope, object_name, selector

METADATA_SERVICES = ("169.254.169.254/32", "fd00:ec2::254/128")
"""Addresses of cloud metadata services. Such a service gives the credentials of a node to any client on the node."""
_WORLD = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": [METADATA_SERVICES[0]]}},
    {"ipBlock": {"cidr": "::/0", "except": [METADATA_SERVICES[1]]}},
]


def policy(
    scope: Scope, name: str, pods: Mapping[str, str], target: SlotTarget | None = None, **rules: Any
) -> Manifest:
    """Return a NetworkPolicy for the pods with the labels `pods`. `rules` has the fields `ingress` and `egress`, or one of them."""
    manifest = scope.object("networking.k8s.io/v1", "NetworkPolicy", name, scope.labels(name, "policy", target))
    types = [kind.capitalize() for kind in ("ingress", "egress") if kind in rules]
    manifest["spec"] = {"podSelector": {"matchLabels": dict(pods)} if pods else {}, "policyTypes": types, **rules}
    return manifest


def to_world() -> list[Manifest]:
    """Return egress peers for all addresses except those of cloud metadata services."""
    return list(_WORLD)


def base_policies(scope: Scope) -> list[Manifest]:
    """Return the base policies. They deny all connections of all pods except to DNS, unless other policies allow them."""
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    # Also allow the usual address of a DNS cache on the node.
    local = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [
        policy(scope, "deny-all", {}, ingress=[], egress=[]),
        policy(scope, "to-dns", {}, egress=[{"to": [dns, local], "ports": ports}]),
    ]


def gateway_policy(scope: Scope, cluster: Kubernetes) -> Manifest:
    """Return the policy that allows the smoke test to connect to the gateway."""
    return policy(scope, "to-gateway", {LABEL_ROLE: "smoke"}, egress=_to_gateway(cluster))


def _to_gateway(cluster: Kubernetes) -> list[Manifest]:
    """Return egress rules that allow connections to all ports of the gateway's pods.

    If the gateway's address (`gateway.inside`) is outside of the cluster, another rule allows the gateway's port at any address.
    """
    inside = urlsplit(cluster.gateway.inside)
    rules: list[Manifest] = [{"to": _from_gateway(cluster)}]
    if (inside.hostname or "").split(".")[1:2] in ([cluster.gateway.namespace], [cluster.gateway.pods_in]):
        return rules
    port = inside.port or (443 if inside.scheme == "https" else 80)
    return [*rules, {"to": _WORLD, "ports": [{"port": port, "protocol": "TCP"}]}]


def _from_gateway(cluster: Kubernetes) -> list[Manifest]:
    gateway = cluster.gateway
    name = {"kubernetes.io/metadata.name": gateway.pods_in or gateway.namespace}
    return [{"namespaceSelector": {"matchLabels": name}}, *({"ipBlock": {"cidr": cidr}} for cidr in gateway.cidrs)]


def workload_policies(
    scope: Scope, workload: Workload, target: SlotTarget | None, cluster: Kubernetes, *, routed: bool, needed: bool
) -> list[Manifest]:
    """Return the network policies of a workload.

    Ingress is allowed from tiers that need the workload. If the workload has `egress`, its pods and the pods of its tasks may
    connect to any address, except addresses of cloud metadata services.

    Args:
        scope: names and settings of the environment.
        workload: the workload.
        target: slot and release; None for a workload that both slots share.
        cluster: settings of the cluster.
        routed: True to allow ingress from the gateway.
        needed: True if another tier may need the workload.
    """
    name = object_name(workload, target)
    need = {LABEL_NEEDS.format(name=name): "yes"}
    ports = [{"port": workload.port, "protocol": "TCP"}]
    sources = [{"podSelector": {"matchLabels": need}}] if needed else []
    sources += _from_gateway(cluster) if routed else []
    # The policy selects the pods of all releases, because pods of the previous release still answer requests while they stop.
    pod_labels = {key: value for key, value in selector(scope, workload, target).items() if key != LABEL_RELEASE}
    manifests: list[Manifest] = []
    if sources and workload.port:
        manifests.append(policy(scope, name, pod_labels, target, ingress=[{"from": sources, "ports": ports}]))
    if needed and workload.port:
        to = [{"podSelector": {"matchLabels": pod_labels}}]
        manifests.append(policy(scope, f"to-{name}", need, target, egress=[{"to": to, "ports": ports}]))
    if workload.egress:
        out = {"app.kubernetes.io/component": workload.tier} | ({LABEL_SLOT: str(target.slot)} if target else {})
        manifests.append(policy(scope, f"{name}-to-world", out, target, egress=[{"to": _WORLD}]))
    return manifests


def member_policies(scope: Scope, workload: Replicated) -> list[Manifest]:
    """Return the network policies of a replicated workload.

    Members may connect to each other and to the watcher (Sentinel) of each member. The proxy may connect to members. Clients may
    connect only to the proxy.
    """
    proxy, need = workload.proxy, {LABEL_NEEDS.format(name=workload.tier): "yes"}
    member_labels, proxy_labels = selector(scope, workload, None), selector(scope, proxy, None)
    peer_ports = [{"port": port, "protocol": "TCP"} for port in (workload.port, workload.watcher.port)]
    client_port = peer_ports[:1]

    def pods(labels: Mapping[str, str]) -> list[Manifest]:
        return [{"podSelector": {"matchLabels": dict(labels)}}]

    from_members = {"from": pods(member_labels), "ports": peer_ports}
    return [
        policy(
            scope, workload.tier, member_labels,
            ingress=[from_members, {"from": pods(proxy_labels), "ports": client_port}],
            egress=[{"to": pods(member_labels), "ports": peer_ports}],
        ),
        policy(
            scope, proxy.tier, proxy_labels,
            ingress=[{"from": pods(need), "ports": client_port}],
            egress=[{"to": pods(member_labels), "ports": client_port}],
        ),
        policy(scope, f"to-{workload.tier}", need, egress=[{"to": pods(proxy_labels), "ports": client_port}]),
    ]  # fmt: skip


def external_policy(scope: Scope, service: ExternalService) -> Manifest:
    """Return the egress policy of an external data service.

    Tiers that need the service may connect to its port at any address.
    """
    ports = [{"port": service.port, "protocol": "TCP"}]
    return policy(
        scope,
        f"to-{service.tier}",
        {LABEL_NEEDS.format(name=service.tier): "yes"},
        egress=[{"to": _WORLD, "ports": ports}],
    )
