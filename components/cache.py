"""The cache tier: Redis, kept outside of the slots, its data on disk so that a restart loses no job."""

from pulumi import ResourceOptions

from . import sentinel
from .config import Cache as CacheConfig
from .config import TierName
from .platforms import Platform
from .tier import REDIS_PORT, Data, DataTier, Description, data_image, elsewhere
from .workload import Elsewhere, Image, Probe, Workload, Zone

SERVER = ("redis-server", "-", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
          "--dir", "/data")  # fmt: skip
PROXY_USER = 99
"""User haproxy of the public image."""


def workload(described: CacheConfig, description: Description) -> Workload | Elsewhere:
    """Redis with every write in its log before the answer, never evicting: it holds a queue, not only a cache.

    The password reaches it on standard input (redis-server reads configuration from `-`), so it is in no command line;
    the shell makes way for it, so that it is told to stop and does.
    """
    if outside := elsewhere(TierName.CACHE, description.environment):
        return outside
    password = description.secrets[described.password]
    login = sentinel.LOGIN.format(password.path)
    single = Workload(
        tier=TierName.CACHE,
        image=data_image(TierName.CACHE, described, description),
        resources=description.resources(TierName.CACHE),
        command=("sh", "-c", f"exec {' '.join(SERVER)} <<EOF\nrequirepass $(cat {password.path})\nEOF"),
        secrets=(password,),
        port=REDIS_PORT,
        probe=Probe(command=("sh", "-c", f"{login} ping | grep -q PONG")),
        zones=(Zone.DATA,),
        priority=description.environment.size(TierName.CACHE).priority_class,
        volumes=(description.volume(TierName.CACHE, "cache-data", "/data"),),
        user=described.uid,
        start_within=described.start_within,
        stop_within=30,
    )
    if not description.environment.size(TierName.CACHE).ha:
        return single
    proxy = Image(
        reference=description.environment.proxy, path="environment.proxy", pull_secrets=description.pull_secrets
    )
    return sentinel.replicated(single, SERVER, password, proxy, PROXY_USER)


class Cache(DataTier):
    """The cache, shared by both slots."""

    def __init__(self, name: str, platform: Platform, args: Data, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:cache:Cache", name, platform, args, opts)
