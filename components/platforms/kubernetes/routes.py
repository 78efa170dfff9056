"""Manifests of HTTP routes and of the Gateway on Kubernetes. All functions are pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ...config import Kubernetes
from ...model.workload import Route
from ..base import SlotTarget
from ..gateway import COOKIE, SLOT_HEADER, readiness
from .objects import Manifest, Scope

HTTP_ROUTE = "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"
_HIDDEN = "/.hidden"


def slot_rules(
    routes: Sequence[Route], target: SlotTarget, secure: bool, hosts: Mapping[str, Sequence[Manifest]]
) -> list[Manifest]:
    """Return the rules that route a request to a slot: if the header names the slot, or if the cookie names the slot's release.

    The readiness paths of tiers require the header. The cookie does not route requests for pages.

    Args:
        routes: routes of the slot's release.
        target: the slot and its release.
        secure: True if users open the application by https.
        hosts: header matches of each service's host, by name of the service (`host_matches`). Hidden paths are hidden at every host.
    """
    slot_header = [{"name": SLOT_HEADER, "type": "Exact", "value": str(target.slot)}]
    release_cookie = [_header("Cookie", rf"(^|; ?){COOKIE}={re.escape(str(target.release))}(;|$)"), _NO_PAGE]
    cookie = f"{COOKIE}={target.release}; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
    rules = [
        _rule(
            route,
            target,
            [*slot_header, *hosts[route.tier]],
            _paths("Exact", [readiness(route)]),
            rewrite=route.health,
        )
        for route in routes
    ]
    for route in routes:
        if route.hidden:
            hidden = [
                *_paths("PathPrefix", route.hidden),
                *_paths("RegularExpression", map(spellings_pattern, route.hidden)),
            ]
            rules.append(_rule(route, target, slot_header, hidden, rewrite=_HIDDEN))
    for route in routes:
        sticky, prefixes = cookie if route.sticky else None, _paths("PathPrefix", route.prefixes)
        rules.append(_rule(route, target, [*slot_header, *hosts[route.tier]], prefixes, cookie=sticky))
        if route.sticky:
            rules.append(_rule(route, target, [*release_cookie, *hosts[route.tier]], prefixes))
    return rules


def host_matches(
    routes: Sequence[Route], cluster: Kubernetes, others: Sequence[Route] = ()
) -> dict[str, list[Manifest]]:
    """Return the header matches of each route: requests must name the route's own host, or a host of the application.

    An HTTPRoute has one list of host names for all its rules, and the switch must be one object, so the rules compare a header with
    the host (docs/adr/037). Its value may have a port and capitals. Without any route with a host of its own the lists are empty.

    Args:
        routes: routes of a slot's release.
        cluster: the environment.
        others: routes of the other slot's release. If one has a host of its own, `routes` compare the host, too. A Gateway prefers
            the rule with more header matches, so it would otherwise ignore the slot header.
    """
    if not any(route.host for route in (*routes, *others)):
        return {route.tier: [] for route in routes}
    hosts = {route.tier: (route.host,) if route.host else (cluster.host, *cluster.hostnames) for route in routes}
    patterns = {tier: "|".join(map(_host_pattern, names)) for tier, names in hosts.items()}
    name = cluster.gateway.host_header
    return {tier: [_header(name, f"(?i)^({pattern})(:[0-9]+)?$")] for tier, pattern in patterns.items()}


def _host_pattern(host: str) -> str:
    pattern = host.replace(".", r"\.")
    return f"[a-z0-9.-]+{pattern[1:]}" if host.startswith("*.") else pattern


def spellings_pattern(path: str) -> str:
    """Return a regular expression that matches all spellings that an application may read as `path`.

    Before a gateway compares paths, it resolves dot segments and decodes letters. It does not decode `%2F`, but many applications
    read `%2F` as a slash (Traefik 3.5, pkg/muxer/http/mux.go, `reservedCharacters`). The expression also matches every path with
    the segment `..`, because a gateway leaves this segment in a path only next to `%2F`.
    """
    slash = "(/|%2[fF])"
    parts = [part for part in path.split("/") if part]
    gap = rf"{slash}(\.?{slash})*"
    return f"^{''.join(gap + re.escape(part) for part in parts)}({slash}.*)?$|{slash}\\.\\.({slash}|$)"


def _paths(kind: str, values: Iterable[str]) -> list[Manifest]:
    return [{"type": kind, "value": value} for value in values]


def header_rules(rules: Sequence[Manifest]) -> list[Manifest]:
    """Return a slot's rules without the rules for the release cookie."""
    return [rule for rule in rules if rule["matches"][0]["headers"][0]["name"] == SLOT_HEADER]


def live_rules(rules: Sequence[Manifest], *, by_host: bool) -> list[Manifest]:
    """Return a slot's rules as rules for all users: without the condition on the slot header, and without the readiness paths.

    Responses of pages still set the release cookie.

    Args:
        rules: rules of the slot (`slot_rules`).
        by_host: True if a service of the slot's release has a host of its own. Otherwise the rules compare no host, because each
            further header match gives them precedence over rules of the other slot.
    """
    result: list[Manifest] = []
    for rule in header_rules(rules):
        if rule["matches"][0]["path"]["value"].startswith("/.gateway/"):
            continue
        matches = [(match["path"], _without_slot(match["headers"]) if by_host else []) for match in rule["matches"]]
        header_filter, *rewrites = rule["filters"]
        if cookies := header_filter["responseHeaderModifier"].get("add"):
            filters = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": cookies}}]
            pages = [{"headers": [_PAGE, *host], "path": path} for path, host in matches]
            result.append({"backendRefs": rule["backendRefs"], "filters": filters, "matches": pages})
        plain_matches = [({"headers": host} if host else {}) | {"path": path} for path, host in matches]
        plain = {"backendRefs": rule["backendRefs"], "matches": plain_matches}
        result.append(plain | ({"filters": rewrites} if rewrites else {}))
    return result


def _without_slot(headers: Sequence[Manifest]) -> list[Manifest]:
    return [header for header in headers if header["name"] != SLOT_HEADER]


def _header(name: str, expression: str) -> Manifest:
    return {"name": name, "type": "RegularExpression", "value": expression}


_PAGE = _header("Accept", "^text/html")
# Match every value that does not begin with `text/h`. The expression is long, because gateways' expressions have no negation.
_NO_PAGE = _header("Accept", "^([^t]|t[^e]|te[^x]|tex[^t]|text[^/]|text/[^h])")


def _rule(
    route: Route,
    target: SlotTarget,
    headers: Sequence[Manifest],
    paths: Sequence[Manifest],
    cookie: str | None = None,
    rewrite: str | None = None,
) -> Manifest:
    headers_set: Manifest = {"set": [{"name": SLOT_HEADER, "value": str(target.slot)}]}
    headers_set |= {"add": [{"name": "Set-Cookie", "value": cookie}]} if cookie else {}
    filters: list[Manifest] = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": headers_set}]
    if rewrite:
        path = {"type": "ReplaceFullPath", "replaceFullPath": rewrite}
        filters.append({"type": "URLRewrite", "urlRewrite": {"path": path}})
    return {
        "backendRefs": [{"name": f"{route.tier}-{target.slot}", "port": route.port}],
        "filters": filters,
        "matches": [{"headers": list(headers), "path": path} for path in paths],
    }


def http_route(scope: Scope, name: str, labels: Mapping[str, str], spec: Mapping[str, Any]) -> Manifest:
    """Return an HTTPRoute."""
    return scope.object("gateway.networking.k8s.io/v1", "HTTPRoute", name, labels) | {"spec": dict(spec)}


def slot_spec(
    scope: Scope, cluster: Kubernetes, routes: Sequence[Route], target: SlotTarget, others: Sequence[Route] = ()
) -> Manifest:
    """Return the spec of a slot's HTTPRoute, with the Gateway of the environment and the hosts of the environment and of services.

    Args:
        scope: names and labels of the stack.
        cluster: the environment.
        routes: routes of the slot's release.
        target: the slot and its release.
        others: routes of the other slot's release.
    """
    gateway = cluster.gateway
    parent = {"name": gateway.name, "namespace": scope.namespace if gateway.create else gateway.namespace}
    return {
        "hostnames": [cluster.host, *cluster.hostnames, *sorted({route.host for route in routes if route.host})],
        "parentRefs": [parent | ({"sectionName": gateway.listener} if gateway.listener else {})],
        "rules": slot_rules(routes, target, cluster.url.startswith("https:"), host_matches(routes, cluster, others)),
    }


def own_gateway(scope: Scope, cluster: Kubernetes, own_hosts: Iterable[str] = ()) -> Manifest | None:
    """Return the environment's own Gateway with a listener for each host, or None if the environment uses an existing Gateway.

    Args:
        scope: names and labels of the stack.
        cluster: the environment.
        own_hosts: hosts of services with a host of their own.
    """
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
            for number, host in enumerate([cluster.host, *cluster.hostnames, *own_hosts])
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
