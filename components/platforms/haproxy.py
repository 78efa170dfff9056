"""The gateway's configuration on Docker: a pure function from routes to HAProxy's language.

Source: HAProxy 2.6 configuration manual, 4.2 (use_backend, server-template, resolvers) and management guide, 9.3
(`set map`). No reload ever happens: the slot is looked up per request in a map that the switch sets.
"""

from collections.abc import Sequence

from ..release import Slot
from ..workload import Route

FOLDER = "/var/lib/haproxy"
"""Owned by user haproxy in the image, so that a volume mounted on it is, too."""
PORT = 8080
METRICS_PORT = 8404
SLOT_HEADER = "X-Tiers-Slot"
REPLICAS = 10
ASKED = "{ var(txn.asked) -m found }"

_HEAD = f"""\
global
  log stdout format raw local0
  stats socket {FOLDER}/admin.sock mode 600 level admin
  maxconn 4096

defaults
  mode http
  log global
  option httplog
  option dontlognull
  option redispatch 1
  retries 3
  retry-on conn-failure
  timeout connect 2s
  timeout client 75s
  timeout server 75s
  timeout tunnel 1h
  timeout http-request 10s
  timeout http-keep-alive 60s

resolvers docker
  nameserver dns 127.0.0.11:53
  resolve_retries 1
  timeout resolve 250ms
  timeout retry 250ms
  hold valid 500ms
  hold obsolete 2s
"""


def readiness(route: Route) -> str:
    """Where the gateway passes on the question whether a tier is ready, if the request names a slot."""
    return f"/.gateway/{route.tier}"


def _ready_of(route: Route) -> str:
    return f"{{ var(txn.tier) -m str {route.tier} }}"


def configuration(routes: Sequence[Route], metrics: bool) -> str:
    """The whole file for these routes, both slots; `metrics` adds HAProxy's own Prometheus page."""
    ordered = sorted(((prefix, route) for route in routes for prefix in route.prefixes), key=lambda pair: -len(pair[0]))
    front = [
        "frontend gateway",
        f"  bind :{PORT}",
        "  monitor-uri /.gateway/health",
        f"  http-request set-var(txn.slot) str(live),map({FOLDER}/live.map,none)",
        f"  http-request set-var(txn.slot) req.hdr({SLOT_HEADER}) if {{ req.hdr({SLOT_HEADER}) {' '.join(Slot)} }}",
        f"  http-request set-var(txn.asked) req.hdr({SLOT_HEADER})",
        f"  http-request del-header {SLOT_HEADER}",
        "  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }",
        "  option forwardfor",
        "  unique-id-format %[uuid()]",
        "  http-request set-header X-Request-Id %[unique-id] unless { req.hdr(X-Request-Id) -m found }",
    ]
    front += [
        f"  http-request deny deny_status 404 if {{ path -m beg {path} }}" for route in routes for path in route.hidden
    ]
    # A tier's own readiness, asked by the smoke test of the slot it names: its path need not be one users can reach.
    for route in routes:
        front.append(f"  http-request set-var(txn.tier) str({route.tier}) if {{ path {readiness(route)} }} {ASKED}")
    front += [f"  http-request set-path {route.health} if {_ready_of(route)}" for route in routes]
    front += [f"  use_backend {route.tier}-%[var(txn.slot)] if {_ready_of(route)}" for route in routes]
    for prefix, route in ordered:
        # A prefix ends where a path segment does: /api is not /apiary.
        match = "" if prefix == "/" else f" if {{ path {prefix} }} || {{ path_beg {prefix.rstrip('/')}/ }}"
        front.append(f"  use_backend {route.tier}-%[var(txn.slot)]{match}")
    blocks = ["\n".join([*front, "  default_backend none"])]
    blocks += ["\n".join(_backend(route, slot)) for route in routes for slot in Slot]
    blocks.append(_NONE)
    if metrics:
        blocks.append(_METRICS)
    return "\n\n".join([_HEAD.rstrip(), *blocks]) + "\n"


def _backend(route: Route, slot: Slot) -> list[str]:
    return [
        f"backend {route.tier}-{slot}",
        "  balance leastconn",
        f"  http-response set-header {SLOT_HEADER} {slot}",
        f"  option httpchk GET {route.health}",
        "  default-server resolvers docker resolve-prefer ipv4 init-addr none check inter 1s fall 2 rise 1",
        f"  server-template {route.tier} {REPLICAS} {route.tier}-{slot}:{route.port}",
    ]


_NONE = """\
backend none
  http-request return status 503 content-type text/plain string "No release is live yet.\\n" hdr Retry-After 5"""

_METRICS = f"""\
frontend metrics
  bind :{METRICS_PORT}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  http-request deny deny_status 404"""
