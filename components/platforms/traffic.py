"""HTTP routes and network policies on Kubernetes: pure functions to manifests."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..checkpoint import LABEL_RELEASE, LABEL_ROLE, LABEL_SLOT
from ..config import Kubernetes
from ..names import LABEL_NEEDS
from ..workload import Elsewhere, Replicated, Route, Workload
from . import COOKIE, SLOT_HEADER, Place, readiness
from .manifests import Manifest, Scope, selector, target

HTTP_ROUTE = "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"
METADATA_SERVICES = ("169.254.169.254/32", "fd00:ec2::254/128")
"""Addresses at which clouds give a node's credentials to any client."""
_WORLD = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": [METADATA_SERVICES[0]]}},
    {"ipBlock": {"cidr": "::/0", "except": [METADATA_SERVICES[1]]}},
]
_HIDDEN = "/.hidden"


# ---------------------------------------------------------------------- routes


def slot_rules(routes: Sequence[Route], place: Place, secure: bool) -> list[Manifest]:
    """Return the rules of a slot for requests whose header names it: its routes and the readiness of its tiers.

    Requests whose cookie names the slot's release are routed too, except for pages.
    """
    slot_header = [{"name": SLOT_HEADER, "type": "Exact", "value": str(place.slot)}]
    release_cookie = [_header("Cookie", rf"(^|; ?){COOKIE}={re.escape(str(place.release))}(;|$)"), _NO_PAGE]
    cookie = f"{COOKIE}={place.release}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
    rules = [
        _rule(route, place, slot_header, _paths("Exact", [readiness(route)]), rewrite=route.health) for route in routes
    ]
    for route in routes:
        if route.hidden:
            hidden = [*_paths("PathPrefix", route.hidden), *_paths("RegularExpression", map(spellings, route.hidden))]
            rules.append(_rule(route, place, slot_header, hidden, rewrite=_HIDDEN))
    for route in routes:
        sticky, prefixes = cookie if route.sticky else None, _paths("PathPrefix", route.prefixes)
        rules.append(_rule(route, place, slot_header, prefixes, cookie=sticky))
        if route.sticky:
            rules.append(_rule(route, place, release_cookie, prefixes))
    return rules


def spellings(path: str) -> str:
    """Return an expression for the spellings of a path that a gateway passes on and an application reads as that path.

    A gateway resolves dot segments and decodes letters before it compares, but keeps `%2F`. For the gateway this is
    no slash, for many applications it is (Traefik 3.5, pkg/muxer/http/mux.go, `reservedCharacters`). A `..` that a
    gateway keeps is next to one.
    """
    slash = "(/|%2[fF])"
    parts = [part for part in path.split("/") if part]
    gap = rf"{slash}(\.?{slash})*"
    return f"^{''.join(gap + re.escape(part) for part in parts)}({slash}.*)?$|{slash}\\.\\.({slash}|$)"


def _paths(kind: str, values: Iterable[str]) -> list[Manifest]:
    return [{"type": kind, "value": value} for value in values]


def asked_rules(rules: Sequence[Manifest]) -> list[Manifest]:
    """Return a slot's rules without those for the release cookie."""
    return [rule for rule in rules if len(rule["matches"][0]["headers"]) == 1]


def live_rules(rules: Sequence[Manifest]) -> list[Manifest]:
    """Return a slot's rules for all users: without its header and without the readiness of tiers.

    A page sets the release cookie.
    """
    result: list[Manifest] = []
    for rule in asked_rules(rules):
        paths = [match["path"] for match in rule["matches"]]
        if paths[0]["value"].startswith("/.gateway/"):
            continue
        header_filter, *rewrites = rule["filters"]
        if cookies := header_filter["responseHeaderModifier"].get("add"):
            filters = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": cookies}}]
            pages = [{"headers": [_PAGE], "path": path} for path in paths]
            result.append({"backendRefs": rule["backendRefs"], "filters": filters, "matches": pages})
        plain = {"backendRefs": rule["backendRefs"], "matches": [{"path": path} for path in paths]}
        result.append(plain | ({"filters": rewrites} if rewrites else {}))
    return result


def _header(name: str, expression: str) -> Manifest:
    return {"name": name, "type": "RegularExpression", "value": expression}


_PAGE = _header("Accept", "^text/html")
# Gateways' expressions have no negation, so this matches all that does not begin like a page's.
_NO_PAGE = _header("Accept", "^([^t]|t[^e]|te[^x]|tex[^t]|text[^/]|text/[^h])")


def _rule(
    route: Route,
    place: Place,
    headers: Sequence[Manifest],
    paths: Sequence[Manifest],
    cookie: str | None = None,
    rewrite: str | None = None,
) -> Manifest:
    headers_set: Manifest = {"set": [{"name": SLOT_HEADER, "value": str(place.slot)}]}
    headers_set |= {"add": [{"name": "Set-Cookie", "value": cookie}]} if cookie else {}
    filters: list[Manifest] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": headers_set}]
    if rewrite:
        path = {"type": "ReplaceFullPath", "replaceFullPath": rewrite}
        filters.append({"type": "URLRewrite", "urlRewrite": {"path": path}})
    return {
        "backendRefs": [{"name": f"{route.tier}-{place.slot}", "port": route.port}],
        "filters": filters,
        "matches": [{"headers": list(headers), "path": path} for path in paths],
    }


def http_route(scope: Scope, name: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> Manifest:
    """Return an HTTPRoute."""
    return scope.object("gateway.networking.k8s.io/v1", "HTTPRoute", name, labels) | {"spec": dict(spec)}


def slot_spec(scope: Scope, cluster: Kubernetes, routes: Sequence[Route], place: Place) -> Manifest:
    """Return the spec of a slot's route: the environment's hosts on its Gateway."""
    gateway = cluster.gateway
    parent = {"name": gateway.name, "namespace": scope.namespace if gateway.create else gateway.namespace}
    return {
        "hostnames": [cluster.host, *cluster.hostnames],
        "parentRefs": [parent | ({"sectionName": gateway.listener} if gateway.listener else {})],
        "rules": slot_rules(routes, place, cluster.url.startswith("https:")),
    }


def own_gateway(scope: Scope, cluster: Kubernetes) -> Manifest | None:
    """Return the environment's own Gateway, with a listener for each host, or None if it uses an existing one."""
    create = cluster.gateway.create
    if not create:
        return None
    annotations = {"cert-manager.io/cluster-issuer": create.issuer} if create.issuer else None
    labels = scope.labels("gateway", "gateway")
    manifest = scope.object("gateway.networking.k8s.io/v1", "Gateway", cluster.gateway.name, labels, annotations)
    manifest["spec"] = {
        "gatewayClassName": create.gateway_class,
        "listeners": [
            _listener(number, host, cluster.url, create.certificate)
            for number, host in enumerate([cluster.host, *cluster.hostnames])
        ],
    }
    return manifest


def _listener(number: int, hostname: str, url: str, certificate: str | None) -> Manifest:
    secure = url.startswith("https:")
    listener: Manifest = {
        "allowedRoutes": {"namespaces": {"from": "Same"}},
        "hostname": hostname,
        "name": f"{'https' if secure else 'http'}-{number}",
        "port": urlsplit(url).port or (443 if secure else 80),
        "protocol": "HTTPS" if secure else "HTTP",
    }
    if secure:
        listener["tls"] = {"certificateRefs": [{"kind": "Secret", "name": certificate}], "mode": "Terminate"}
    return listener


# ---------------------------------------------------------------------- policies


def policy(scope: Scope, name: str, pods: Mapping[str, str], place: Place | None = None, **rules: Any) -> Manifest:
    """Return a NetworkPolicy for pods with these labels; `rules` are its `ingress` and `egress`."""
    manifest = scope.object("networking.k8s.io/v1", "NetworkPolicy", name, scope.labels(name, "policy", place))
    types = [kind.capitalize() for kind in ("ingress", "egress") if kind in rules]
    manifest["spec"] = {"podSelector": {"matchLabels": dict(pods)} if pods else {}, "policyTypes": types, **rules}
    return manifest


def to_world() -> list[Manifest]:
    """Return egress peers for any address except those that give away a node's credentials."""
    return list(_WORLD)


def ground_policies(scope: Scope) -> list[Manifest]:
    """Return policies that deny all pods any connection except DNS. Other policies allow more."""
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    # With a DNS cache on each node, pods query its conventional address.
    local = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [
        policy(scope, "deny-all", {}, ingress=[], egress=[]),
        policy(scope, "to-dns", {}, egress=[{"to": [dns, local], "ports": ports}]),
    ]


def gateway_policy(scope: Scope, cluster: Kubernetes) -> Manifest:
    """Return the policy that lets the smoke test connect to the gateway."""
    return policy(scope, "to-gateway", {LABEL_ROLE: "smoke"}, egress=_to_gateway(cluster))


def _to_gateway(cluster: Kubernetes) -> list[Manifest]:
    """Return egress rules to the gateway's pods at any port, and to its address if that is outside of the cluster."""
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
    scope: Scope, workload: Workload, place: Place | None, cluster: Kubernetes, *, routed: bool, needed: bool
) -> list[Manifest]:
    """Return the policies of a workload: ingress for tiers that need it and, if routed, for the gateway.

    With `egress` the workload's pods and those of its tasks may connect to any address.
    """
    name = target(workload, place)
    need = {LABEL_NEEDS.format(name=name): "yes"}
    ports = [{"port": workload.port, "protocol": "TCP"}]
    sources = [{"podSelector": {"matchLabels": need}}] if needed else []
    sources += _from_gateway(cluster) if routed else []
    # The policy covers all releases: pods that are stopping finish their requests.
    pod_labels = {key: value for key, value in selector(scope, workload, place).items() if key != LABEL_RELEASE}
    manifests: list[Manifest] = []
    if sources and workload.port:
        manifests.append(policy(scope, name, pod_labels, place, ingress=[{"from": sources, "ports": ports}]))
    if needed and workload.port:
        to = [{"podSelector": {"matchLabels": pod_labels}}]
        manifests.append(policy(scope, f"to-{name}", need, place, egress=[{"to": to, "ports": ports}]))
    if workload.egress:
        out = {"app.kubernetes.io/component": workload.tier} | ({LABEL_SLOT: str(place.slot)} if place else {})
        manifests.append(policy(scope, f"{name}-to-world", out, place, egress=[{"to": _WORLD}]))
    return manifests


def member_policies(scope: Scope, workload: Replicated) -> list[Manifest]:
    """Return the policies of a replicated workload.

    Members connect to each other and to their watchers. The proxy connects to members. Clients connect to the proxy
    only.
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


def elsewhere_policy(scope: Scope, elsewhere: Elsewhere) -> Manifest:
    """Return the policy that lets tiers connect to the port of an external data service they need, at any address."""
    ports = [{"port": elsewhere.port, "protocol": "TCP"}]
    return policy(
        scope,
        f"to-{elsewhere.tier}",
        {LABEL_NEEDS.format(name=elsewhere.tier): "yes"},
        egress=[{"to": _WORLD, "ports": ports}],
    )
