"""The cache tier: Redis, kept outside of the slots, its data on disk so that a restart loses no job."""

from collections.abc import Sequence

from pulumi import ComponentResource, Resource, ResourceOptions

from .config import Cache as CacheConfig
from .config import TierName
from .platforms import Platform
from .tier import REDIS_PORT, Description
from .workload import Image, Probe, Volume, Workload, Zone


def workload(described: CacheConfig, description: Description) -> Workload:
    """Redis with every write in its log before the answer, never evicting: it holds a queue, not only a cache.

    The password reaches it on standard input (redis-server reads configuration from `-`), so it is in no command line.
    """
    password = description.secrets[described.password]
    server = "redis-server - --appendonly yes --appendfsync always --maxmemory-policy noeviction --dir /data"
    login = f'REDISCLI_AUTH="$(cat {password.path})"'
    return Workload(
        tier=TierName.CACHE,
        image=Image(reference=described.image, path="app.cache.image"),
        resources=description.resources(TierName.CACHE),
        command=("sh", "-c", f'printf "requirepass %s\\n" "$(cat {password.path})" | exec {server}'),
        secrets=(password,),
        port=REDIS_PORT,
        probe=Probe(command=("sh", "-c", f"{login} redis-cli ping | grep -q PONG")),
        zones=(Zone.DATA,),
        volumes=(Volume(name="cache-data", path="/data"),),
        user=described.uid,
        start_within=60,
        stop_within=30,
    )


class Cache(ComponentResource):
    """The running cache. `ready` is what to wait for until it takes connections."""

    def __init__(self, name: str, platform: Platform, args: Workload, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:cache:Cache", name, None, opts)
        supplies = platform.prepare(self, [args], None)
        self.ready: Sequence[Resource] = platform.keep(self, args, supplies)
        self.register_outputs({"host": args.tier, "port": args.port})
