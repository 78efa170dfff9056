"""Who may talk to whom on Kubernetes, and which requests go where: pure functions to routes and policies."""

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
"""Where clouds give a node's credentials to whoever asks."""
_WORLD = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": [METADATA_SERVICES[0]]}},
    {"ipBlock": {"cidr": "::/0", "except": [METADATA_SERVICES[1]]}},
]
_HIDDEN = "/.hidden"


# ---------------------------------------------------------------------- routes


def slot_rules(routes: Sequence[Route], place: Place, secure: bool) -> list[Manifest]:
    """The rules of a slot, for requests whose header names it: its routes, and how each of its tiers is.

    And for what its pages ask for: a cookie says which release they came from.
    """
    asked = [{"name": SLOT_HEADER, "type": "Exact", "value": str(place.slot)}]
    held = [_header("Cookie", rf"(^|; ?){COOKIE}={re.escape(str(place.release))}(;|$)"), _NO_PAGE]
    cookie = f"{COOKIE}={place.release}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
    rules = [_rule(route, place, asked, _paths("Exact", [readiness(route)]), rewrite=route.health) for route in routes]
    for route in routes:
        if route.hidden:
            every = [*_paths("PathPrefix", route.hidden), *_paths("RegularExpression", map(spellings, route.hidden))]
            rules.append(_rule(route, place, asked, every, rewrite=_HIDDEN))
    for route in routes:
        sticky, prefixes = cookie if route.sticky else None, _paths("PathPrefix", route.prefixes)
        rules.append(_rule(route, place, asked, prefixes, cookie=sticky))
        if route.sticky:
            rules.append(_rule(route, place, held, prefixes))
    return rules


def spellings(path: str) -> str:
    """Return an expression for the spellings of a path that gateways leave as they are and applications read as that path.

    A gateway resolves dot segments and decodes letters before it compares, but keeps `%2F`: it is no slash to it, and one to
    many applications (Traefik 3.5, pkg/muxer/http/mux.go, `reservedCharacters`). What it has left of `..` is next to one.
    """
    slash = "(/|%2[fF])"
    parts = [part for part in path.split("/") if part]
    gap = rf"{slash}(\.?{slash})*"
    return f"^{''.join(gap + re.escape(part) for part in parts)}({slash}.*)?$|{slash}\\.\\.({slash}|$)"


def _paths(kind: str, values: Iterable[str]) -> list[Manifest]:
    return [{"type": kind, "value": value} for value in values]


def asked_rules(rules: Sequence[Manifest]) -> list[Manifest]:
    """The rules of a slot without those for what its pages ask for."""
    return [rule for rule in rules if len(rule["matches"][0]["headers"]) == 1]


def live_rules(rules: Sequence[Manifest]) -> list[Manifest]:
    """The rules of a slot as they are for everybody: without its header, and without the way to see how its tiers are.

    A page brings its cookie with it.
    """
    found: list[Manifest] = []
    for rule in asked_rules(rules):
        paths = [match["path"] for match in rule["matches"]]
        if paths[0]["value"].startswith("/.gateway/"):
            continue
        told, *rewrites = rule["filters"]
        if cookies := told["responseHeaderModifier"].get("add"):
            filters = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": cookies}}]
            pages = [{"headers": [_PAGE], "path": path} for path in paths]
            found.append({"backendRefs": rule["backendRefs"], "filters": filters, "matches": pages})
        plain = {"backendRefs": rule["backendRefs"], "matches": [{"path": path} for path in paths]}
        found.append(plain | ({"filters": rewrites} if rewrites else {}))
    return found


def _header(name: str, expression: str) -> Manifest:
    return {"name": name, "type": "RegularExpression", "value": expression}


_PAGE = _header("Accept", "^text/html")
# The expressions of gateways know no "not": what does not begin like a page.
_NO_PAGE = _header("Accept", "^([^t]|t[^e]|te[^x]|tex[^t]|text[^/]|text/[^h])")


def _rule(
    route: Route,
    place: Place,
    headers: Sequence[Manifest],
    paths: Sequence[Manifest],
    cookie: str | None = None,
    rewrite: str | None = None,
) -> Manifest:
    told: Manifest = {"set": [{"name": SLOT_HEADER, "value": str(place.slot)}]}
    told |= {"add": [{"name": "Set-Cookie", "value": cookie}]} if cookie else {}
    filters: list[Manifest] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": told}]
    if rewrite:
        path = {"type": "ReplaceFullPath", "replaceFullPath": rewrite}
        filters.append({"type": "URLRewrite", "urlRewrite": {"path": path}})
    return {
        "backendRefs": [{"name": f"{route.tier}-{place.slot}", "port": route.port}],
        "filters": filters,
        "matches": [{"headers": list(headers), "path": path} for path in paths],
    }


def http_route(scope: Scope, name: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> Manifest:
    """An HTTPRoute."""
    return scope.object("gateway.networking.k8s.io/v1", "HTTPRoute", name, labels) | {"spec": dict(spec)}


def slot_spec(scope: Scope, cluster: Kubernetes, routes: Sequence[Route], place: Place) -> Manifest:
    """The way into a slot: the environment's hosts, on its Gateway."""
    gateway = cluster.gateway
    parent = {"name": gateway.name, "namespace": scope.namespace if gateway.create else gateway.namespace}
    return {
        "hostnames": [cluster.host, *cluster.hostnames],
        "parentRefs": [parent | ({"sectionName": gateway.listener} if gateway.listener else {})],
        "rules": slot_rules(routes, place, cluster.url.startswith("https:")),
    }


def own_gateway(scope: Scope, cluster: Kubernetes) -> Manifest | None:
    """The environment's own Gateway, where it asks for one: a listener for each of its hosts."""
    create = cluster.gateway.create
    if not create:
        return None
    notes = {"cert-manager.io/cluster-issuer": create.issuer} if create.issuer else None
    labels = scope.labels("gateway", "gateway")
    made = scope.object("gateway.networking.k8s.io/v1", "Gateway", cluster.gateway.name, labels, notes)
    made["spec"] = {
        "gatewayClassName": create.gateway_class,
        "listeners": [
            _listener(number, each, cluster.url, create.certificate)
            for number, each in enumerate([cluster.host, *cluster.hostnames])
        ],
    }
    return made


def _listener(number: int, hostname: str, url: str, certificate: str | None) -> Manifest:
    secure = url.startswith("https:")
    made: Manifest = {
        "allowedRoutes": {"namespaces": {"from": "Same"}},
        "hostname": hostname,
        "name": f"{'https' if secure else 'http'}-{number}",
        "port": urlsplit(url).port or (443 if secure else 80),
        "protocol": "HTTPS" if secure else "HTTP",
    }
    if secure:
        made["tls"] = {"certificateRefs": [{"kind": "Secret", "name": certificate}], "mode": "Terminate"}
    return made


# ---------------------------------------------------------------------- policies


def policy(scope: Scope, name: str, pods: Mapping[str, str], place: Place | None = None, **rules: Any) -> Manifest:
    """Which pods it is about, and what they may do."""
    made = scope.object("networking.k8s.io/v1", "NetworkPolicy", name, scope.labels(name, "policy", place))
    types = [kind.capitalize() for kind in ("ingress", "egress") if kind in rules]
    made["spec"] = {"podSelector": {"matchLabels": dict(pods)} if pods else {}, "policyTypes": types, **rules}
    return made


def to_world() -> list[Manifest]:
    """Any address but those that give away a node's credentials."""
    return list(_WORLD)


def ground_policies(scope: Scope) -> list[Manifest]:
    """Nothing but names may be asked for, by no pod; what may be more stands in the others."""
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    # Where every node answers for itself, pods ask that: by the address it has by convention.
    local = {"ipBlock": {"cidr": "169.254.20.10/32"}}
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [
        policy(scope, "deny-all", {}, ingress=[], egress=[]),
        policy(scope, "to-dns", {}, egress=[{"to": [dns, local], "ports": ports}]),
    ]


def gateway_policy(scope: Scope, cluster: Kubernetes) -> Manifest:
    """The smoke test may connect to the gateway."""
    return policy(scope, "to-gateway", {LABEL_ROLE: "smoke"}, egress=_to_gateway(cluster))


def _to_gateway(cluster: Kubernetes) -> list[Manifest]:
    """The gateway's pods at any port; and the address itself where it lies outside of the cluster."""
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
    """Who needs a workload may connect to it, and so may the gateway where it routes to it; nobody else.

    If it has a way out, so has what belongs to it: its pods and those of its tasks.
    """
    name = target(workload, place)
    need = {LABEL_NEEDS.format(name=name): "yes"}
    ports = [{"port": workload.port, "protocol": "TCP"}]
    sources = [{"podSelector": {"matchLabels": need}}] if needed else []
    sources += _from_gateway(cluster) if routed else []
    # Of whichever release: those on their way out finish what they hold.
    own = {key: value for key, value in selector(scope, workload, place).items() if key != LABEL_RELEASE}
    made: list[Manifest] = []
    if sources and workload.port:
        made.append(policy(scope, name, own, place, ingress=[{"from": sources, "ports": ports}]))
    if needed and workload.port:
        to = [{"podSelector": {"matchLabels": own}}]
        made.append(policy(scope, f"to-{name}", need, place, egress=[{"to": to, "ports": ports}]))
    if workload.egress:
        out = {"app.kubernetes.io/component": workload.tier} | ({LABEL_SLOT: str(place.slot)} if place else {})
        made.append(policy(scope, f"{name}-to-world", out, place, egress=[{"to": _WORLD}]))
    return made


def member_policies(scope: Scope, workload: Replicated) -> list[Manifest]:
    """Members may connect to each other and to their watchers, the proxy to members, and who needs them to the proxy only."""
    proxy, need = workload.proxy, {LABEL_NEEDS.format(name=workload.tier): "yes"}
    inside, before = selector(scope, workload, None), selector(scope, proxy, None)
    own = [{"port": port, "protocol": "TCP"} for port in (workload.port, workload.watcher.port)]
    first = own[:1]

    def pods(labels: Mapping[str, str]) -> list[Manifest]:
        return [{"podSelector": {"matchLabels": dict(labels)}}]

    among = {"from": pods(inside), "ports": own}
    return [
        policy(
            scope, workload.tier, inside,
            ingress=[among, {"from": pods(before), "ports": first}],
            egress=[{"to": pods(inside), "ports": own}],
        ),
        policy(
            scope, proxy.tier, before,
            ingress=[{"from": pods(need), "ports": first}],
            egress=[{"to": pods(inside), "ports": first}],
        ),
        policy(scope, f"to-{workload.tier}", need, egress=[{"to": pods(before), "ports": first}]),
    ]  # fmt: skip


def elsewhere_policy(scope: Scope, elsewhere: Elsewhere) -> Manifest:
    """Who needs a data tier that runs somewhere else may connect to its port, wherever that is."""
    ports = [{"port": elsewhere.port, "protocol": "TCP"}]
    return policy(
        scope,
        f"to-{elsewhere.tier}",
        {LABEL_NEEDS.format(name=elsewhere.tier): "yes"},
        egress=[{"to": _WORLD, "ports": ports}],
    )
