"""Redis as one primary and two replicas with Sentinel: how each process starts, and how a proxy finds the primary.

docs/adr/018-a-cache-that-survives.md has the reasons and the writes that can be lost. Every member has a name with a
fixed address: Sentinel keeps the address it resolved first, and takes no part in a failover while a name has no address.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from .names import MEMBER_DATA
from .workload import Image, Probe, Replicated, Resources, Secret, Workload

SCRIPT = Path(__file__).with_suffix(".sh").read_text()
MEMBERS = 3
REDIS_PORT, SENTINEL_PORT, PROXY_PORT = 6379, 26379, 8404
LOGIN = 'REDISCLI_AUTH="$(cat {0})" redis-cli'
QUOTE = r"""quoted=$(printf %s "$(cat {0})" | od -An -v -tx1 | tr -d ' \n' | sed 's/../\\x&/g')
[ -n "$quoted" ] || {{ echo "the password of the cache can't be read" >&2; exit 1; }}"""
"""Shell code that sets `quoted` to the password in a file, each byte as \\xHH. Redis reads any byte so between double quotes (sdssplitargs)."""
SMALL = Resources(cpu=0.2, memory=64 * 2**20, reserve=0.01)


def quoting() -> str:
    """Return the script with the password in quotes where Redis reads it. The bytes of `SCRIPT` are state of deployed stacks."""
    lines = "requirepass $password\nmasterauth $password\n"
    head, marker, tail = SCRIPT.partition(lines)
    assert marker, "sentinel.sh no longer has the lines that are quoted here"
    quoted = lines.replace("$password", '"$quoted"')
    return "\n".join([QUOTE.format('"$1"'), head + quoted + tail])


def replicated(single: Workload, server: tuple[str, ...], password: Secret, proxy: Image, user: int) -> Replicated:
    """Return the single instance as three members, each with the same data and limits."""
    names = tuple(f"{single.tier}-{number}" for number in range(MEMBERS))
    [volume] = single.volumes
    others = (replace(volume, name=MEMBER_DATA.of(data=volume.name, number=number)) for number in range(1, MEMBERS))

    def script(role: str, *command: str, text: str = SCRIPT) -> tuple[str, ...]:
        return "sh", "-euc", text, role, password.path, " ".join(names), *command

    login = LOGIN.format(password.path)
    more: dict[str, Any] = {
        "command": script("server", *server, text=SCRIPT if password.plain else quoting()),
        "former": () if password.plain else script("server", *server),
        # A replica without a link to its primary misses new writes.
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
            env=(("CONFIG", configuration(names)),),
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


def configuration(names: tuple[str, ...]) -> str:
    """Return the configuration of HAProxy. Connections go to the member that is primary and takes writes, and are cut when it stops.

    A primary takes writes while it has a replica (`min-replicas-to-write`); one without may have been replaced. Checks must
    pass twice in a row: a member that was frozen reports its old role until it has read what happened meanwhile.
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
