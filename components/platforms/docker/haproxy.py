"""HAProxy configuration of the gateway on Docker, rendered from routes. All functions are pure.

For each request HAProxy looks up the live slot in a map, so the switch needs no reload. HAProxy is reloaded only when a
release changes the routes of its slot.

Sources: HAProxy 2.6 configuration manual, 2.2 (quoting and escaping), 4.2 (use_backend, server-template, resolvers,
idle-close-on-response), 7.3.1 (converters), 8.2.4 (log-format); management guide, 4 (reload, transfer of listeners), 9.3 (`set
map`) and 9.4 (master CLI).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from ...config import Environment
from ...config.paths import normalise
from ...model import services
from ...model.workload import Probe, Route
from ...release.planner import Slot
from ..gateway import COOKIE, SLOT_HEADER, readiness
from ..process import probe_headers

FOLDER = "/var/lib/haproxy"
"""Folder of the gateway's volume. In the image the user haproxy owns this folder, so a new volume gets the same owner."""
USER = 99
"""UID of the user haproxy in the public image, the owner of `FOLDER`."""
FILE = f"{FOLDER}/haproxy.cfg"
CLAIM_WITHIN = "75"
"""Time limit in seconds for a claim or a switch to change the gateway.

The limit is longer than a minute, because the engine may wait a minute before it restarts a stopped gateway.
"""
MASTER = f"{FOLDER}/master.sock"
MAP = f"{FOLDER}/live.map"
"""Map file of the gateway: `live` → the live slot, and `blue` and `green` → the release of this slot."""
PORT = 8080
METRICS_PORT = 8404
FIRST_OWN_PORT = 8081
"""Gateway port of the first routed service (`own_port`). The second routed service has the next port, and so on."""
REPLICAS = 10
STATE = f"{FOLDER}/servers.state"
"""File with the health of backend servers. After a reload the new process reads the file, and uses healthy servers at once."""
_HOST = "txn.host"
NAMES_SLOT = "{ var(txn.asked) -m found }"
"""HAProxy condition: the request names a slot in its header."""

_LOGGED = {
    "time": '"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]"',
    "request_id": '"%[var(txn.request),json(utf8s)]"',
    "method": '"%HM"',
    "path": '"%[var(txn.path),bytes(0,1024),json(utf8s)]"',
    "status": "%ST",
    "milliseconds": "%Ta",
    "to": '"%b/%s"',
    "ended": '"%tsc"',
    "slot": '"%[var(txn.slot)]"',
    "release": f'"%[var(txn.slot),map({MAP},none)]"',
}
LOG = "{" + ",".join(f'"{name}":{value}' for name, value in _LOGGED.items()) + "}"
"""Log format of requests: JSON, without the URL's query, because a query may be confidential.

Paths are cut to 1024 bytes, so a line stays below 4 KiB. A pipe may split longer lines.
"""

_NORMAL = "txn.normal"
_DOTS = "{ var(txn.normal) -m sub /../ }"
_NORMALISE = [
    "  http-request set-var(txn.path) path",
    f"""  http-request set-var({_NORMAL}) 'path,regsub("%(?![0-9A-Fa-f]{{2}})",!,g),url_dec,concat(/),"""
    """regsub("//+",/,g),regsub("/\\.(?=/)",,g)'""",
    # Each rule removes one level of `NAME/..` everywhere in the path, so the rule is repeated for nested levels.
    *[f"""  http-request set-var({_NORMAL}) 'var({_NORMAL}),regsub("/(?!\\.\\./)[^/]+/\\.\\.(?=/)",,g)' if {_DOTS}"""]
    * 8,
    f"""  http-request set-var({_NORMAL}) 'var({_NORMAL}),regsub("^(?:/\\.\\.(?=/))++",)' if {_DOTS}""",
    f"  http-request deny deny_status 400 if {_DOTS}",
    f"  http-request deny deny_status 400 if {{ path -m found }} !{{ var({_NORMAL}) -m found }}",
]
"""Rules that normalise a request's path as `paths.normalise` does. They store the result in a variable for other rules.

Services get the original path.
"""

_ID = "^[A-Za-z0-9._:/+=@-]{1,128}$"
"""Pattern of valid request ids. The gateway replaces any other id, because services write ids to logs."""

FIRST = f"""\
global
  stats socket {FOLDER}/admin.sock mode 600 level admin expose-fd listeners

defaults
  mode http
  timeout connect 2s
  timeout client 5s
  timeout server 5s

frontend gateway
  bind :{PORT}
  monitor-uri /.gateway/health
  http-request set-var(txn.slot) str(live),map({MAP},none)
  http-request return status 503 content-type text/plain string "No release is live yet.\\n" hdr Retry-After 5
"""
"""Configuration of a new gateway, without routes. Don't change this text without need: a change replaces the gateway of every stack."""

START = (
    f"test -s {MAP} || echo live none > {MAP}; "
    f'test -s {FILE} || printf %s "$CONFIG" > {FILE}; '
    f"exec haproxy -W -db -S {MASTER},mode,600 -f {FILE}"
)
"""Shell command of the gateway's process. Don't change this command without need: a change replaces the gateway of every stack."""

CHECK = f'echo live none > {MAP} && printf %s "$CONFIG" > {FILE} && exec haproxy -c -f {FILE}'
"""Shell command that exits with 0 if HAProxy accepts the configuration in the environment variable CONFIG."""

_HEAD = f"""\
global
  log stdout len 4096 format raw local0
  stats socket {FOLDER}/admin.sock mode 600 level admin expose-fd listeners
  server-state-file {STATE}
  maxconn 4096

defaults
  mode http
  log global
  option httplog
  option dontlognull
  option idle-close-on-response
  option redispatch 1
  retries 3
  retry-on conn-failure
  load-server-state-from-file global
  timeout connect 2s
  timeout check 5s
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


def quote(text: str | bytes) -> str:
    """Quote a text as one HAProxy argument.

    Raises:
        ValueError: the text contains a NUL character, which the configuration can't contain.
    """
    raw = text.encode() if isinstance(text, str) else text
    if 0 in raw:
        raise ValueError(
            f"{text!r:.60} contains a NUL character, which HAProxy's configuration can't contain; remove it"
        )
    return "".join(chr(byte) if _PLAIN.match(chr(byte)) else f"\\x{byte:02x}" for byte in raw) or "''"


_PLAIN = re.compile(r"[A-Za-z0-9._~/:@%+=-]")


def quote_log_format(text: str | bytes) -> str:
    """Quote a text as one HAProxy argument in log-format syntax. `%` is doubled, because a single `%` starts a variable."""
    return quote(text.replace("%", "%%") if isinstance(text, str) else text.replace(b"%", b"%%"))


def _path_condition(path: str) -> str:
    """Return the HAProxy condition that matches a path and all paths below it."""
    return f"{{ var({_NORMAL}) -m beg -- {quote(normalise(path))} }}"


def _host_condition(route: Route, own_hosts: Collection[str]) -> str:
    """Return the HAProxy condition that a request names the host of a route, after a space. Without `own_hosts` the text is empty.

    A service with a host of its own answers this host only. Other services answer all hosts that no service has.
    """
    if route.host:
        return f" {_names_host([route.host])}"
    return f" !{_names_host(own_hosts)}" if own_hosts else ""


def _names_host(hosts: Collection[str]) -> str:
    return f"{{ var({_HOST}) -m str {' '.join(map(quote, hosts))} }}"


def _own_hosts(routes: Iterable[Route]) -> list[str]:
    return sorted({route.host for route in routes if route.host})


def _readiness_condition(route: Route) -> str:
    return f"{{ var(txn.tier) -m str {route.tier} }}"


def own_port(name: str) -> int:
    """Return the gateway port that serves only this service."""
    routed = [record.name for record in services.SERVICES if record.routed]
    return FIRST_OWN_PORT + routed.index(name)


def stack_configuration(slots: Mapping[Slot, Sequence[Route]], environment: Environment) -> str:
    """Render the gateway's configuration file from the routes of both slots and the environment's settings."""
    gateway = environment.gateway
    return configuration(
        slots, gateway.ports, url=environment.url, metrics=bool(gateway.metrics_port or environment.monitoring)
    )


def configuration(
    slots: Mapping[Slot, Sequence[Route]], with_own_port: Collection[str] = (), *, url: str, metrics: bool = False
) -> str:
    """Render the gateway's configuration file from the routes of both slots.

    Args:
        slots: routes of each slot.
        with_own_port: names of services that also have their own gateway port (`own_port`).
        url: address that users open, for the headers of health checks.
        metrics: True to serve HAProxy's Prometheus metrics.
    """
    all_routes = [route for routes in slots.values() for route in routes]
    sticky, own_hosts = any(route.sticky for route in all_routes), _own_hosts(all_routes)
    front = [
        "frontend gateway",
        f"  bind :{PORT}",
        *(f"  bind :{own_port(tier)}" for tier in sorted(with_own_port)),
        "  monitor-uri /.gateway/health",
        f"  http-request set-var(txn.slot) str(live),map({MAP},none)",
        *(_release_cookie_rules() if sticky else ()),
        f"  http-request set-var(txn.slot) req.hdr({SLOT_HEADER}) if {{ req.hdr({SLOT_HEADER}) {' '.join(Slot)} }}",
        f"  http-request set-var(txn.asked) req.hdr({SLOT_HEADER})",
        f"  http-request del-header {SLOT_HEADER}",
        "  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }",
        "  option forwardfor",
        "  unique-id-format %[uuid()]",
        "  http-request set-var(txn.request) req.fhdr(X-Request-Id)",
        f"  http-request set-var(txn.request) unique-id unless {{ var(txn.request) -m reg -- {_ID} }}",
        "  http-request set-header X-Request-Id %[var(txn.request)]",
        *_NORMALISE,
        *([f"  http-request set-var({_HOST}) req.hdr(Host),field(1,:),lower"] if own_hosts else ()),
        f"  log-format '{LOG}'",
    ]
    for slot, routes in sorted(slots.items()):
        front += _rules(routes, f"{{ var(txn.slot) -m str {slot} }}")
    for slot, routes in sorted(slots.items()):
        front += _backend_rules(slot, routes, with_own_port, f"{{ var(txn.slot) -m str {slot} }}")
    blocks = ["\n".join([*front, "  default_backend none"])]
    blocks += ["\n".join(_backend(route, slot, url)) for slot, routes in sorted(slots.items()) for route in routes]
    blocks += [_NONE, *([_NO_PATH] if own_hosts else ())]
    if metrics:
        blocks.append(_METRICS)
    return "\n\n".join([_HEAD.rstrip(), *blocks]) + "\n"


def _rules(routes: Sequence[Route], slot_condition: str) -> list[str]:
    """Return the rules for hidden paths and readiness paths of a slot.

    Requests to hidden paths get status 404 at every host. A tier's readiness path is rewritten to the tier's health path, but only
    in requests that name a slot in a header and the tier's host, such as requests of the smoke test.

    Args:
        routes: routes of a slot.
        slot_condition: HAProxy condition that is true if the request goes to this slot.
    """
    rules = [
        f"  http-request deny deny_status 404 if {_path_condition(path)} {slot_condition}"
        for route in routes
        for path in route.hidden
    ]
    for route in routes:
        conditions = (
            f"{{ path {readiness(route)} }} {NAMES_SLOT} {slot_condition}{_host_condition(route, _own_hosts(routes))}"
        )
        rules.append(f"  http-request set-var(txn.tier) str({route.tier}) if {conditions}")
    return rules + [
        f"  http-request set-path {quote_log_format(route.health)} if {_readiness_condition(route)} {slot_condition}"
        for route in routes
    ]


def _backend_rules(
    slot: Slot, routes: Sequence[Route], with_own_port: Collection[str], slot_condition: str
) -> list[str]:
    rules = [f"  use_backend {route.tier}-{slot} if {_readiness_condition(route)} {slot_condition}" for route in routes]
    own_ports = {route.tier: own_port(route.tier) for route in routes if route.tier in with_own_port}
    rules += [
        f"  use_backend {tier}-{slot} if {{ dst_port {port} }} {slot_condition}" for tier, port in own_ports.items()
    ]
    own_hosts = _own_hosts(routes)
    prefixes = [(prefix, route) for route in routes for prefix in route.prefixes]
    for prefix, route in sorted(prefixes, key=lambda pair: -len(normalise(pair[0]))):
        match = slot_condition + _host_condition(route, own_hosts)
        match = match if normalise(prefix) == b"/" else f"{match} {_path_condition(prefix)}"
        rules.append(f"  use_backend {route.tier}-{slot} if {match}")
    return [*rules, *([f"  use_backend no-path if {slot_condition} {_names_host(own_hosts)}"] if own_hosts else ())]


def _release_cookie_rules() -> list[str]:
    """Return the rules for the release cookie, which keeps the requests of a page on the release of this page.

    A page request goes to the live slot, and its response sets the cookie. Any other request goes to the slot with the
    cookie's release, or to the live slot if no slot has this release. The slot header, read by later rules, has precedence.
    """
    pinned = [
        line
        for slot in Slot
        for line in (
            f"  http-request set-var(txn.{slot}) str({slot}),map({MAP},nobody)",
            f"  http-request set-var(txn.slot) str({slot}) if !{{ var(txn.page) -m found }}"
            f" {{ req.cook({COOKIE}),strcmp(txn.{slot}) eq 0 }}",
        )
    ]
    cookie = f"{COOKIE}=%[var(txn.slot),map({MAP},none)];\\ Path=/;\\ HttpOnly;\\ SameSite=Lax"
    return [
        "  http-request set-var(txn.page) str(yes) if { req.hdr(Accept) -m beg text/html }",
        *pinned,
        f"  http-response add-header Set-Cookie {cookie} if {{ var(txn.page) -m found }}",
    ]


def _backend(route: Route, slot: Slot, url: str) -> list[str]:
    return [
        f"backend {route.tier}-{slot}",
        "  balance leastconn",
        f"  http-response set-header {SLOT_HEADER} {slot}",
        *_health_check(route, url),
        "  default-server resolvers docker resolve-prefer ipv4 init-addr last,none check inter 1s fall 2 rise 1",
        f"  server-template {route.tier} {REPLICAS} {route.tier}-{slot}:{route.port}",
    ]


def _health_check(route: Route, url: str) -> list[str]:
    """Return the health check of a backend. Its request has the headers of a user's request."""
    probe = Probe(path=route.health, port=route.port, host=route.health_host)
    headers = " ".join(f"hdr {name} {quote_log_format(value)}" for name, value in probe_headers(probe, url).items())
    return [
        "  option httpchk",
        f"  http-check send meth GET uri {quote(route.health)} ver HTTP/1.1 {headers}",
    ]


_NONE = """\
backend none
  http-request return status 503 content-type text/plain string "No release is live yet.\\n" hdr Retry-After 5"""

_NO_PATH = """\
backend no-path
  http-request return status 404 content-type text/plain string "No service has this path at this host.\\n\""""

_METRICS = f"""\
frontend metrics
  bind :{METRICS_PORT}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  http-request deny deny_status 404"""
