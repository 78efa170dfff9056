"""Code that all tiers share: the translation from configuration to a workload, and the component around a tier's resources."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulumi import ComponentResource, Resource, ResourceOptions

from . import names, passwords
from .config import (
    App,
    Cache,
    ConfigError,
    Database,
    Environment,
    Listening,
    Service,
    Settings,
    Source,
    TierName,
    Worker,
)
from .context import digest as context_digest
from .context import refuse_own_files
from .named import find_folder, own_path, readable
from .platforms import Dependencies, Place, Platform
from .workload import (
    DatabaseCluster,
    Elsewhere,
    Image,
    Mount,
    Probe,
    Resources,
    Route,
    Scale,
    Secret,
    Task,
    Volume,
    Workload,
    Zone,
)

POSTGRES_PORT, REDIS_PORT = 5432, 6379
DATA_PORTS = {TierName.DATABASE: POSTGRES_PORT, TierName.CACHE: REDIS_PORT}
REPLICATED, POOLED = names.DATABASE_CLUSTER, "database-pooler"
"""Names of a database cluster and of its connection pooler.

They differ from a single instance's name: both are deployed side by side while the data moves.
"""


Data = Workload | DatabaseCluster | Elsewhere
"""A tier that holds data: a single instance, a database cluster or an external service."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """Input of every tier: the application, the environment and the version of each secret."""

    app: App
    environment: Environment
    secrets: Mapping[str, Secret]
    root: Path
    """The folder of Pulumi.yaml. Build contexts and mounts are relative to it."""

    def resources(self, tier: TierName) -> Resources:
        size = self.environment.size(tier)
        return Resources(cpu=size.cpu, memory=size.memory, reserve=size.reserve)

    def scale(self, tier: TierName) -> Scale:
        size = self.environment.size(tier)
        return Scale(replicas=size.replicas, most=size.autoscale.max if size.autoscale else None)

    @property
    def pull_secrets(self) -> tuple[str, ...]:
        cluster = self.environment.kubernetes
        return cluster.pull_secrets if cluster else ()

    def volume(self, tier: TierName, name: str, given: str) -> Volume:
        """Return the volume that a tier mounts on the path `given`; a path with the suffix `:ro` makes it read-only."""
        size, path = self.environment.size(tier), given.removesuffix(":ro")
        read_only = path != given
        return Volume(name=name, path=path, read_only=read_only, size=size.capacity, storage_class=size.storage_class)


@dataclass(frozen=True, kw_only=True)
class TierArgs:
    """Arguments of a tier in a slot: the workload, its replicas, the slot, its provisioned resources and its dependencies."""

    workload: Workload
    scale: Scale
    place: Place
    supplies: Mapping[str, Resource]
    after: Dependencies


class DataTier(ComponentResource):
    """A tier that holds data, outside of the slots. `ready` lists the resources that exist once it takes connections."""

    def __init__(self, kind: str, name: str, platform: Platform, args: Data, opts: ResourceOptions | None) -> None:
        super().__init__(kind, name, None, opts)
        self.ready, host = self._deployed(platform, args)
        self.register_outputs({"host": host, "port": args.port})

    def _deployed(self, platform: Platform, args: Data) -> tuple[Sequence[Resource], str]:
        match args:
            case Elsewhere():
                return platform.reach(self, args), args.host
            case DatabaseCluster():
                single = [resource for one in alone(args) for resource in self._stateful(platform, one)]
                return [*single, *platform.keep_several(self, args)], args.pooled
            case Workload():
                return self._stateful(platform, args), args.tier

    def _stateful(self, platform: Platform, workload: Workload) -> Sequence[Resource]:
        return platform.keep(self, workload, platform.prepare(self, [workload], None))


def alone(data: Data) -> tuple[Workload, ...]:
    """Return the single-instance workloads of a data tier: the tier itself, or the former instance beside a cluster."""
    single = data.beside if isinstance(data, DatabaseCluster) else data
    return (single,) if isinstance(single, Workload) else ()


class SlotTier(ComponentResource):
    """A tier that belongs to a slot. `ready` lists the resources that exist once every replica is healthy."""

    def __init__(self, kind: str, name: str, platform: Platform, args: TierArgs, opts: ResourceOptions) -> None:
        super().__init__(kind, name, None, opts)
        self.ready = platform.run(self, args.workload, args.place, args.scale, args.supplies, args.after)
        self.register_outputs({"release": str(args.place.release), "replicas": args.scale.replicas})


def service(tier: TierName, described: Service, description: Description) -> Workload:
    """Return the workload of a tier in a slot.

    Environment variables of the workload:
        PUBLIC_URL: the address that users open.
        DATABASE_HOST, _PORT, _NAME, _USER, _PASSWORD_FILE: set if the tier needs the database. The host may be a pooler that
            shares connections transaction by transaction.
        DATABASE_DIRECT_HOST: the database without a pooler, for session state and locks.
        DATABASE_READ_HOST: for reading only; it may lag a moment behind.
        CACHE_HOST, _PORT, _PASSWORD_FILE: set if the tier needs the cache.
        API_URL: set by the platform, because it differs by slot.
    """
    size = description.environment.size(tier)
    reload = described.reload if description.environment.reload else None
    names = (*described.secrets, *_needed_secrets(described, description.app))
    return Workload(
        tier=tier,
        image=image(tier, described, description, reload.target if reload else None),
        resources=description.resources(tier),
        command=(reload.command if reload else ()) or described.command,
        env=tuple(sorted((needed_env(described, description) | described.env | size.env).items())),
        secrets=tuple(description.secrets[name] for name in sorted(set(names))),
        writable=tuple(sorted((*described.writable, *(reload.writable if reload else ())))),
        scratch=described.scratch,
        volumes=tuple(description.volume(tier, name, path) for name, path in sorted(described.volumes.items())),
        mounts=_mounts(reload.mounts if reload else {}, f"app.{tier}.reload.mounts", description.root),
        user=described.user,
        start_within=(reload.start_within if reload else None) or described.start_within,
        stop_within=described.stop_within,
        tasks=_tasks(tier, described, description),
        needs=tuple(sorted(described.needs)),
        zones=zones(described, description.environment),
        egress=described.egress,
        autoscaled=size.cpu * size.autoscale.cpu / 100 if size.autoscale else None,
        priority=size.priority_class,
        port=described.port if isinstance(described, Listening) else None,
        probe=_liveness(described),
        ready=Probe(path=described.ready, port=described.port)
        if isinstance(described, Listening) and described.ready
        else None,
    )


def _liveness(described: Service) -> Probe | None:
    if isinstance(described, Listening):
        return Probe(path=described.health, port=described.port)
    if isinstance(described, Worker) and described.alive:
        return Probe(command=described.alive)
    return None


def routes(app: App, environment: Environment) -> tuple[Route, ...]:
    """Return the routes to web and api. `app.api.paths` go to the api and all other paths to web; without web all paths go to the api."""
    result: list[Route] = []
    cluster = environment.kubernetes
    hosts = (cluster.host, *cluster.hostnames) if cluster else ()
    # Docker's gateway is configured with a release, so `monitoring` belongs to the route: it enables the gateway's metrics.
    gateway = cluster.gateway.model_dump_json(exclude={"inside", "within"}) if cluster else ""
    gateway = "watched" if environment.monitoring and not cluster else gateway
    for tier, described in ((TierName.API, app.api), (TierName.WEB, app.web)):
        if described:
            prefixes = app.api.paths if app.api and app.web and tier is TierName.API else ("/",)
            hidden = (described.metrics,) if described.metrics else ()
            result.append(
                Route(
                    tier=tier,
                    prefixes=prefixes,
                    port=described.port,
                    health=described.ready or described.health,
                    hosts=hosts,
                    gateway=gateway,
                    hidden=hidden,
                    sticky=environment.release.standby == "warm",
                )
            )
    return tuple(result)


def needed_env(described: Service, description: Description) -> dict[str, str]:
    """Return PUBLIC_URL and the address of each data tier that a service needs, as environment variables."""
    env = {"PUBLIC_URL": description.environment.url}
    database = description.app.database
    for tier in (TierName.DATABASE, TierName.CACHE):
        if tier in described.needs:
            outside = elsewhere(tier, description.environment)
            env[f"{tier.upper()}_HOST"] = outside.host if outside else tier
            env[f"{tier.upper()}_PORT"] = str(outside.port if outside else DATA_PORTS[tier])
    if TierName.DATABASE in described.needs and database:
        pooled, direct, read = database_hosts(description.environment)
        env |= {"DATABASE_NAME": database_name(database, description.environment), "DATABASE_USER": database.user}
        env |= {"DATABASE_HOST": pooled, "DATABASE_DIRECT_HOST": direct, "DATABASE_READ_HOST": read}
    return env


def database_name(described: Database, environment: Environment) -> str:
    """Return the name of the database that the application uses: the environment's override, else the application's own."""
    return environment.size(TierName.DATABASE).name or described.name


def database_hosts(environment: Environment) -> tuple[str, str, str]:
    """Return three host names of the database: pooled, direct, and read-only."""
    if outside := elsewhere(TierName.DATABASE, environment):
        return outside.host, outside.host, outside.host
    if environment.size(TierName.DATABASE).several:
        return POOLED, f"{REPLICATED}-rw", f"{REPLICATED}-ro"
    return TierName.DATABASE, TierName.DATABASE, TierName.DATABASE


def elsewhere(tier: TierName, environment: Environment) -> Elsewhere | None:
    """Return the address of a data tier that is an external service, or None if the tier runs here."""
    external = environment.size(tier).external
    return Elsewhere(tier=tier, host=external.host, port=external.port or DATA_PORTS[tier]) if external else None


def _needed_secrets(described: Service, app: App) -> list[str]:
    passwords = {TierName.DATABASE: app.database, TierName.CACHE: app.cache}
    return [data.password for tier, data in passwords.items() if data and tier in described.needs]


def zones(described: Service, environment: Environment) -> tuple[Zone, ...]:
    """Return the network zones of a service: the gateway's if it listens or calls the api, its data tiers', and the outside."""
    data = {TierName.DATABASE, TierName.CACHE} & set(described.needs)
    outside = {tier for tier in data if environment.size(tier).external}
    joined = [Zone.EDGE] if isinstance(described, Listening) or TierName.API in described.needs else []
    joined += [Zone.DATA] if data - outside else []
    joined += [Zone.OUTSIDE] if described.egress or outside else []
    return tuple(joined)


def _tasks(tier: TierName, described: Service, description: Description) -> tuple[Task, ...]:
    """Return the tasks that run before a tier starts: migration, other tasks, seed.

    They get the direct address of the database: migrations take locks and change session settings, which a pooler does not keep.
    """
    environment = description.environment
    pooled, direct, _ = database_hosts(environment)
    needs_direct = TierName.DATABASE in described.needs and direct != pooled
    seed = described.seed if environment.seed else None
    steps = {"migrate": described.migrate, **described.tasks, "seed": seed}
    return tuple(
        Task(
            name=name,
            command=step.command,
            timeout=step.timeout,
            env=(("DATABASE_HOST", direct),) if needs_direct else (),
            path=f"app.{tier}.{'tasks.' if name in described.tasks else ''}{name}",
        )
        for name, step in steps.items()
        if step
    )


def _mounts(mounts: Mapping[str, str], path: str, root: Path) -> tuple[Mount, ...]:
    return tuple(
        Mount(source=str(own_path(source, f"{path}.{source}", root)), path=target)
        for source, target in sorted(mounts.items())
    )


def image(tier: TierName, source: Source, description: Description, target: str | None = None) -> Image:
    """Return the image of a tier: pinned by the environment, named by the application, or built and tagged with its context's digest.

    Args:
        tier: the tier.
        source: its description, which names an image or a build context.
        description: the application and its environment.
        target: the stage of the Dockerfile to build instead of the tier's own.

    Raises:
        ConfigError: the build context has no Dockerfile, a file can't be read, or the image would contain files of Pulumi.
    """
    path = f"app.{tier}"
    if pinned := description.environment.images.get(tier):
        return Image(reference=pinned, path=f"environment.images.{tier}", pull_secrets=description.pull_secrets)
    if source.image:
        return Image(reference=source.image, path=f"{path}.image", pull_secrets=description.pull_secrets)
    path, folder = f"{path}.build", source.build or ""
    context = find_folder(folder, path, description.root)
    with readable(path):
        if not (context / "Dockerfile").is_file():
            raise ConfigError(f"{path}: {folder} has no Dockerfile; add one, or name an image instead")
    refuse_own_files(context, path, description.root)
    target = target or source.target
    tag = context_digest(context, path=path, root=description.root) + (f"-{target}" if target else "")
    reference = f"{_repository(tier, context, description)}:{tag}"
    # The provider builds relative to the program's folder, which may differ from the folder of Pulumi.yaml.
    return Image(
        reference=reference,
        context=os.path.relpath(context),
        target=target,
        path=path,
        pull_secrets=description.pull_secrets,
    )


def _repository(tier: TierName, context: Path, description: Description) -> str:
    """Return the repository of a built image: registry, application and folder, in the grammar of Docker."""
    registry = f"{description.environment.registry}/" if description.environment.registry else ""
    begin = f"{registry}{description.app.name}-"
    return begin + (names.as_repository(context.name, names.REPOSITORY - len(begin)) or tier)


def data_image(tier: TierName, described: Database | Cache, description: Description) -> Image:
    """Return the image of a data tier: pinned by the environment, else named by the application."""
    environment = description.environment
    pinned = environment.images.get(tier)
    path = f"environment.images.{tier}" if pinned else f"app.{tier}.image"
    return Image(reference=pinned or environment.data_image(tier, described), path=path)


def secrets_of(settings: Settings, scope: str) -> dict[str, Secret]:
    """Return each secret with its version.

    The version is a slow hash of the value: a release's digest covers it, and nobody can guess the value from it. A secret
    whose value is in the cluster has a version made from its reference.
    """

    def version(name: str, value: str) -> str:
        return hashlib.scrypt(value.encode(), salt=f"{scope}/{name}".encode(), n=2**9, r=8, p=1, dklen=8).hex()

    cluster = settings.environment.kubernetes
    references = {name: str(reference) for name, reference in (cluster.secrets if cluster else {}).items()}
    return {
        name: Secret(
            name=name,
            version=version(name, value),
            plain=name not in references and passwords.plain(value),
            pairable=name in references or passwords.pairable(value),
        )
        for name, value in (settings.secrets | references).items()
    }
