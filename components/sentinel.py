"""Redis with Sentinel: one primary, two replicas, and a proxy that connects clients to the primary.

docs/adr/018-a-cache-that-survives.md gives the reasons for this design, and lists the writes that a failover can lose. The host
name of each member must always resolve to the same address, because Sentinel resolves a name only once. While a name has no
address, Sentinel takes no part in a failover.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from .model.names import MEMBER_DATA
from .model.workload import Image, Probe, Replicated, Resources, Secret, Workload

MEMBERS = 3
REDIS_PORT, SENTINEL_PORT, PROXY_PORT = 6379, 26379, 8404
LOGIN = 'REDISCLI_AUTH="$(cat {0})" redis-cli'
QUOTE = r"""quoted=$(printf %s "$(cat {0})" | od -An -v -tx1 | tr -d ' \n' | sed 's/../\\x&/g')
[ -n "$quoted" ] || {{ echo "the password of the cache can't be read" >&2; exit 1; }}"""
"""Shell code that reads a password from a file and writes each byte as \\xHH into the variable `quoted`. Redis decodes \\xHH in
double quotes (sdssplitargs)."""
SMALL = Resources(cpu=0.2, memory=64 * 2**20, reserve=0.01)


@cache
def plain_script() -> str:
    """Return the text of sentinel.sh. Never change this text, because its bytes are part of the state of deployed stacks."""
    return Path(__file__).with_suffix(".sh").read_text()


def quoting_script() -> str:
    """Return a variant of sentinel.sh, for a password with white space or quotes.

    The variant writes the password into Redis' configuration in hexadecimal form, because Redis could not parse the plain form."""
    lines = "requirepass $password\nmasterauth $password\n"
    head, marker, tail = plain_script().partition(lines)
    assert marker, "sentinel.sh no longer has the lines that are quoted here"
    quoted = lines.replace("$password", '"$quoted"')
    return "\n".join([QUOTE.format('"$1"'), head + quoted + tail])


def replicated_redis(
    single: Workload, server: tuple[str, ...], password: Secret, proxy: Image, user: int
) -> Replicated:
    """Return Redis with three members. Each member has the command and resource limits of `single`, and a volume of the same size."""
    names = tuple(f"{single.tier}-{number}" for number in range(MEMBERS))
    [volume] = single.volumes
    others = (replace(volume, name=MEMBER_DATA.format(data=volume.name, number=number)) for number in range(1, MEMBERS))

    def script(role: str, *command: str, text: str = plain_script()) -> tuple[str, ...]:
        return "sh", "-euc", text, role, password.path, " ".join(names), *command

    login = LOGIN.format(password.path)
    more: dict[str, Any] = {
        "command": script("server", *server, text=plain_script() if password.plain else quoting_script()),
        "former": () if password.plain else script("server", *server),
        # A replica without a connection to the primary is not ready, because it misses new writes.
        "ready": _shell_probe(f"{login} info replication | grep -Eq 'role:master|master_link_status:up'"),
        "leave": script("leave"),
        "names": names,
        "volumes": (volume, *others),
        "watcher": Workload(
            tier="watcher",
            image=single.image,
            resources=SMALL,
            command=script("watcher", "redis-server", "/data/sentinel.conf", "--sentinel"),
            port=SENTINEL_PORT,
            probe=_shell_probe(f"redis-cli -p {SENTINEL_PORT} ping | grep -Eq 'PONG|NOAUTH'"),
            user=single.user,
            start_within=single.start_within,
        ),
        "proxy": Workload(
            tier=f"{single.tier}-proxy",
            image=proxy,
            resources=SMALL,
            command=script("proxy", "haproxy", "-db", "-f", "/dev/stdin"),
            env=(("CONFIG", proxy_configuration(names)),),
            secrets=(password,),
            port=REDIS_PORT,
            probe=Probe(path="/primary", port=PROXY_PORT),
            zones=single.zones,
            priority=single.priority,
            user=user,
            start_within=single.start_within,
        ),
    }
    return Replicated(**vars(single) | more)


def _shell_probe(command: str) -> Probe:
    return Probe(command=("sh", "-c", command))


def proxy_configuration(names: tuple[str, ...]) -> str:
    """Return HAProxy's configuration: route connections to the primary, and close them when another member becomes the primary.

    HAProxy's health check passes only on a primary with a replica. A primary without a replica accepts no writes
    (`min-replicas-to-write`), and another member may be the primary already. The check must pass twice in a row: after a
    freeze, a member reports its old role until it has processed its queued messages.
    """
    servers = "\n".join(f"  server {name} {name}:{REDIS_PORT}" for name in names)
    return _PROXY.format(servers=servers, port=REDIS_PORT, own=PROXY_PORT)


_PROXY = """\
global
  log stdout format raw local0
  maxconn 2000

defaults
  log global
  option dontlognull
  timeout connect 2s
  timeout check 2s
  timeout client 24h
  timeout server 24h
  timeout client-fin 10s

frontend cache
  mode tcp
  option tcplog
  bind :{port}
  option clitcpka
  default_backend primary

backend primary
  mode tcp
  balance first
  option srvtcpka
  option tcp-check
  tcp-check connect
  tcp-check send "AUTH watcher ${{WATCHER}}\\r\\n"
  tcp-check expect string +OK
  tcp-check send "INFO replication\\r\\n"
  tcp-check expect rstring "role:master\\r\\nconnected_slaves:\\d+\\r\\nmin_slaves_good_slaves:[1-9]"
  tcp-check send "QUIT\\r\\n"
  tcp-check expect string +OK
  default-server check inter 1s fastinter 250ms fall 2 rise 2 on-marked-down shutdown-sessions
{servers}

frontend own
  mode http
  no log
  bind :{own}
  timeout client 5s
  http-request use-service prometheus-exporter if {{ path /metrics }}
  http-request return status 200 if {{ path /primary }} {{ nbsrv(primary) ge 1 }}
  http-request return status 503
"""
