"""HAProxy configuration of the gateway on Docker: a pure function from routes to text.

Source: HAProxy 2.6 configuration manual, 2.2 (quoting and escaping), 4.2 (use_backend, server-template, resolvers,
idle-close-on-response), 7.3.1 (converters), 8.2.4 (log-format) and management guide, 4 (reload, listeners handed on),
9.3 (`set map`) and 9.4 (master CLI). The switch does not reload HAProxy: each request looks up the slot in a map.
HAProxy is reloaded only for a release with other routes, when the release claims its slot.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from ..config import Environment, TierName
from ..paths import normalise
from ..release import Slot
from ..workload import Route
from . import COOKIE, SLOT_HEADER, readiness

FOLDER = "/var/lib/haproxy"
"""Folder of the gateway's volume. The image gives it to user haproxy, and a volume mounted on it inherits this owner."""
USER = 99
"""Uid of user haproxy in the public image, who owns the folder."""
FILE = f"{FOLDER}/haproxy.cfg"
MASTER = f"{FOLDER}/master.sock"
MAP = f"{FOLDER}/live.map"
"""Map file: the value of `live` is the live slot, the value of a slot is its release."""
PORT = 8080
METRICS_PORT = 8404
PORTS = {TierName.WEB: 8081, TierName.API: 8082}
"""Tier → port of the gateway that serves only this tier."""
REPLICAS = 10
STATE = f"{FOLDER}/servers.state"
"""File with the server states of the previous process. After a reload the new process starts with its healthy servers."""
ASKED = "{ var(txn.asked) -m found }"
"""Condition: the request names a slot in its header."""

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
"""Format of a request's log line: JSON like that of the tiers, without the query, which may be confidential.

A line is at most 4 KiB, which a pipe writes as a whole, so a path is cut to its first 1024 bytes.
"""

_NORMAL = "txn.normal"
_DOTS = "{ var(txn.normal) -m sub /../ }"
_NORMALISE = [
    "  http-request set-var(txn.path) path",
    f"""  http-request set-var({_NORMAL}) 'path,regsub("%(?![0-9A-Fa-f]{{2}})",!,g),url_dec,concat(/),"""
    """regsub("//+",/,g),regsub("/\\.(?=/)",,g)'""",
    # Each rule removes one level of names followed by `..` everywhere in the path, so it is repeated for nested ones.
    *[f"""  http-request set-var({_NORMAL}) 'var({_NORMAL}),regsub("/(?!\\.\\./)[^/]+/\\.\\.(?=/)",,g)' if {_DOTS}"""]
    * 8,
    f"""  http-request set-var({_NORMAL}) 'var({_NORMAL}),regsub("^(?:/\\.\\.(?=/))++",)' if {_DOTS}""",
    f"  http-request deny deny_status 400 if {_DOTS}",
    f"  http-request deny deny_status 400 if {{ path -m found }} !{{ var({_NORMAL}) -m found }}",
]
"""Rules that compute a request's path as `paths.normalise` does, for comparing only. The tier gets the client's path."""

_ID = "^[A-Za-z0-9._:/+=@-]{1,128}$"
"""Request ids that are passed on. Any other id is replaced, because tiers write it into their logs."""

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
"""Configuration of the gateway before a slot is claimed. Changing it replaces the gateway, so it seldom changes."""

START = (
    f"test -s {MAP} || echo live none > {MAP}; "
    f'test -s {FILE} || printf %s "$CONFIG" > {FILE}; '
    f"exec haproxy -W -db -S {MASTER},mode,600 -f {FILE}"
)
"""Shell command of the gateway's process. It is an input of the container, so changing it replaces the gateway."""

CHECK = f'echo live none > {MAP} && printf %s "$CONFIG" > {FILE} && exec haproxy -c -f {FILE}'
"""Shell command that checks the configuration in CONFIG with the gateway's image. It exits with 0 if HAProxy accepts it."""

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


def word(text: str | bytes) -> str:
    """Return a value as one HAProxy argument that is read back byte by byte.

    Raises:
        ValueError: the value contains a NUL, which no argument can contain.
    """
    raw = text.encode() if isinstance(text, str) else text
    if 0 in raw:
        raise ValueError(f"{text!r:.60} holds a NUL, which HAProxy's language can't say")
    return "".join(chr(byte) if _PLAIN.match(chr(byte)) else f"\\x{byte:02x}" for byte in raw) or "''"


_PLAIN = re.compile(r"[A-Za-z0-9._~/:@%+=-]")


def log_format(text: str | bytes) -> str:
    """Return a value as one HAProxy argument for a log-format, in which `%` begins a variable."""
    return word(text.replace("%", "%%") if isinstance(text, str) else text.replace(b"%", b"%%"))


def _below(path: str) -> str:
    """Return a condition that matches `path` and all paths below it."""
    return f"{{ var({_NORMAL}) -m beg -- {word(normalise(path))} }}"


def _ready_of(route: Route) -> str:
    return f"{{ var(txn.tier) -m str {route.tier} }}"


def of_stack(slots: Mapping[Slot, Sequence[Route]], environment: Environment) -> str:
    """Return the configuration of an environment's gateway."""
    gateway = environment.gateway
    return configuration(slots, gateway.ports, metrics=bool(gateway.metrics_port or environment.monitoring))


def configuration(
    slots: Mapping[Slot, Sequence[Route]], alone: Collection[TierName] = (), *, metrics: bool = False
) -> str:
    """Return the whole file, in which each slot has the routes of its own release.

    Tiers in `alone` are also served at their own port of `PORTS`. `metrics` adds HAProxy's Prometheus page.
    """
    sticky = any(route.sticky for routes in slots.values() for route in routes)
    front = [
        "frontend gateway",
        f"  bind :{PORT}",
        *(f"  bind :{PORTS[tier]}" for tier in sorted(alone)),
        "  monitor-uri /.gateway/health",
        f"  http-request set-var(txn.slot) str(live),map({MAP},none)",
        *(_sticky() if sticky else ()),
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
        f"  log-format '{LOG}'",
    ]
    for slot, routes in sorted(slots.items()):
        front += _rules(routes, f"{{ var(txn.slot) -m str {slot} }}")
    for slot, routes in sorted(slots.items()):
        front += _ways(slot, routes, alone, f"{{ var(txn.slot) -m str {slot} }}")
    blocks = ["\n".join([*front, "  default_backend none"])]
    blocks += ["\n".join(_backend(route, slot)) for slot, routes in sorted(slots.items()) for route in routes]
    blocks.append(_NONE)
    if metrics:
        blocks.append(_METRICS)
    return "\n\n".join([_HEAD.rstrip(), *blocks]) + "\n"


def _rules(routes: Sequence[Route], here: str) -> list[str]:
    """Return the rules for hidden paths and for the readiness of each tier.

    The smoke test requests a tier's readiness by a path that users can't reach.
    """
    rules = [
        f"  http-request deny deny_status 404 if {_below(path)} {here}" for route in routes for path in route.hidden
    ]
    for route in routes:
        rules.append(
            f"  http-request set-var(txn.tier) str({route.tier}) if {{ path {readiness(route)} }} {ASKED} {here}"
        )
    return rules + [
        f"  http-request set-path {log_format(route.health)} if {_ready_of(route)} {here}" for route in routes
    ]


def _ways(slot: Slot, routes: Sequence[Route], alone: Collection[TierName], here: str) -> list[str]:
    rules = [f"  use_backend {route.tier}-{slot} if {_ready_of(route)} {here}" for route in routes]
    own_ports = {route.tier: PORTS[TierName(route.tier)] for route in routes if route.tier in alone}
    rules += [f"  use_backend {tier}-{slot} if {{ dst_port {port} }} {here}" for tier, port in own_ports.items()]
    prefixes = [(prefix, route) for route in routes for prefix in route.prefixes]
    for prefix, route in sorted(prefixes, key=lambda pair: -len(normalise(pair[0]))):
        match = here if normalise(prefix) == b"/" else f"{here} {_below(prefix)}"
        rules.append(f"  use_backend {route.tier}-{slot} if {match}")
    return rules


def _sticky() -> list[str]:
    """Return the rules for the release cookie, which a page's response sets.

    Other requests with the cookie go to the slot that holds the release, else to the live slot.
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


def _backend(route: Route, slot: Slot) -> list[str]:
    return [
        f"backend {route.tier}-{slot}",
        "  balance leastconn",
        f"  http-response set-header {SLOT_HEADER} {slot}",
        f"  option httpchk GET {word(route.health)}",
        "  default-server resolvers docker resolve-prefer ipv4 init-addr last,none check inter 1s fall 2 rise 1",
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
