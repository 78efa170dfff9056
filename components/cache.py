"""The cache tier: Redis, outside of the slots. Its data is on disk, so a restart loses no job."""

from pulumi import ResourceOptions

from . import names, sentinel
from .config import Cache as CacheConfig
from .config import TierName
from .platforms import Platform
from .tier import REDIS_PORT, Data, DataTier, Description, data_image, elsewhere
from .workload import Elsewhere, Image, Probe, Secret, Workload, Zone

SERVER = ("redis-server", "-", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
          "--dir", "/data")  # fmt: skip
PROXY_USER = 99
"""User id of haproxy in the public image."""


def workload(described: CacheConfig, description: Description) -> Workload | Elsewhere:
    """Return Redis, which logs every write before it answers and never evicts a key: it is a queue as well as a cache.

    The password reaches Redis on standard input (redis-server reads configuration from `-`), so no command line contains it.
    The shell replaces itself with Redis, so Redis receives SIGTERM.
    """
    if outside := elsewhere(TierName.CACHE, description.environment):
        return outside
    password = description.secrets[described.password]
    login = sentinel.LOGIN.format(password.path)
    command, former = _commands(password)
    single = Workload(
        tier=TierName.CACHE,
        image=data_image(TierName.CACHE, described, description),
        resources=description.resources(TierName.CACHE),
        command=command,
        secrets=(password,),
        port=REDIS_PORT,
        probe=Probe(command=("sh", "-c", f"{login} ping | grep -q PONG")),
        zones=(Zone.DATA,),
        priority=description.environment.size(TierName.CACHE).priority_class,
        volumes=(description.volume(TierName.CACHE, names.CACHE_DATA, "/data"),),
        user=described.uid,
        start_within=described.start_within,
        stop_within=30,
        former=former,
    )
    if not description.environment.size(TierName.CACHE).ha:
        return single
    proxy = Image(
        reference=description.environment.proxy, path="environment.proxy", pull_secrets=description.pull_secrets
    )
    return sentinel.replicated(single, SERVER, password, proxy, PROXY_USER)


def _commands(password: Secret) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the command that starts Redis, and the command of earlier versions if a workload with this password may run it.

    A password that needs no quotes keeps the earlier command. Redis logs a line that it can't parse, with the password in
    it; the quoted form has no byte that Redis could misread.
    """
    start = f"exec {' '.join(SERVER)} <<EOF\nrequirepass"
    unquoted = ("sh", "-c", f"{start} $(cat {password.path})\nEOF")
    if password.plain:
        return unquoted, ()
    return ("sh", "-c", f'{sentinel.QUOTE.format(password.path)}\n{start} "$quoted"\nEOF'), unquoted


class Cache(DataTier):
    """The cache, shared by both slots."""

    def __init__(self, name: str, platform: Platform, args: Data, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:cache:Cache", name, platform, args, opts)
