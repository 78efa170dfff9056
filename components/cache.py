"""The cache tier: Redis, which both slots share. Redis stores every write on disk, so a restart loses no job."""

from dataclasses import dataclass

from . import sentinel
from .config import Cache as CacheConfig
from .context import Description
from .model import names
from .model.services import CACHE, REDIS_PORT
from .model.workload import ExternalService, Image, Probe, Secret, Workload, Zone
from .rendering import data_image, external_service
from .service import DataService, DataServiceArgs

SERVER = ("redis-server", "-", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
          "--dir", "/data")  # fmt: skip
PROXY_USER = 99
"""UID of the user `haproxy` in the public HAProxy image."""


def workload(settings: CacheConfig, description: Description) -> Workload | ExternalService:
    """Return the configured cache: an external service, replicated Redis (`ha`) or a single Redis instance.

    Redis is configured as a durable queue: it stores each write on disk before it acknowledges the write, and evicts no key.

    The command passes the password on standard input (`redis-server -`), so no command line contains the password. The shell
    starts Redis with `exec`, so Redis receives SIGTERM.
    """
    if outside := external_service(CACHE.name, description.environment):
        return outside
    password = description.secrets[settings.password]
    login = sentinel.LOGIN.format(password.path)
    command, former = _commands(password)
    single = Workload(
        tier=CACHE.name,
        image=data_image(CACHE.name, settings, description),
        resources=description.resources(CACHE.name),
        command=command,
        secrets=(password,),
        port=REDIS_PORT,
        probe=Probe(command=("sh", "-c", f"{login} ping | grep -q PONG")),
        zones=(Zone.DATA,),
        priority=description.environment.tier_settings(CACHE.name).priority_class,
        volumes=(description.volume(CACHE.name, names.CACHE_DATA, "/data"),),
        user=settings.uid,
        start_within=settings.start_within,
        stop_within=30,
        former=former,
    )
    if not description.environment.tier_settings(CACHE.name).ha:
        return single
    proxy = Image(
        reference=description.environment.proxy, path="environment.proxy", pull_secrets=description.pull_secrets
    )
    return sentinel.replicated_redis(single, SERVER, password, proxy, PROXY_USER)


def _commands(password: Secret) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the command that starts Redis, and the command of earlier versions of Tiers (`Workload.former`).

    The second command is () if both are equal. The commands differ if the password may contain white space or quotes.
    Redis can't parse such a password in plain form, and logs the line with the password. The current command passes the
    password in hexadecimal form.
    """
    start = f"exec {' '.join(SERVER)} <<EOF\nrequirepass"
    unquoted = ("sh", "-c", f"{start} $(cat {password.path})\nEOF")
    if password.plain:
        return unquoted, ()
    return ("sh", "-c", f'{sentinel.QUOTE.format(password.path)}\n{start} "$quoted"\nEOF'), unquoted


@dataclass(frozen=True, kw_only=True)
class CacheArgs(DataServiceArgs):
    """Arguments of `Cache`, the same as those of `DataService`."""


class Cache(DataService):
    """Deploy Redis, which both slots share.

    Deploying a release changes no resource of the cache. The type of `args.data` selects a single instance (`Workload`), three
    members with Sentinel (`Replicated`) or an external service (`ExternalService`).

    Args:
        name: resource name, which is part of the state.
        args: see `CacheArgs`.
        opts: options of the component. `protect` applies to every child; `environment.protect_data` protects the volumes only.

    Example:
        cache = Cache("cache", CacheArgs(platform=platform, data=application.data["cache"]))
        pulumi.export("cache", Output.concat(cache.host, ":", cache.port.apply(str)))
    """
