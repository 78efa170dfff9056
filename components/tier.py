"""What the five tiers have in common: from configuration to a workload, and the component around its resources."""

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
"""A database of several instances has another name than a single one, so that both can stand side by side while data moves."""


Data = Workload | DatabaseCluster | Elsewhere
"""How a tier that holds data is had: one of it, several, or one that is somewhere else."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """All a tier is made from: what the application is, where it runs, and the version of each secret."""

    app: App
    environment: Environment
    secrets: Mapping[str, Secret]
    root: Path
    """The folder of Pulumi.yaml: build contexts and mounts are relative to it."""

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
        """The volume that is mounted on `given`; only to be read if that ends with `:ro`."""
        size, path = self.environment.size(tier), given.removesuffix(":ro")
        read_only = path != given
        return Volume(name=name, path=path, read_only=read_only, size=size.capacity, storage_class=size.storage_class)


@dataclass(frozen=True, kw_only=True)
class TierArgs:
    """A tier of a slot: its workload, how often it runs, where, and what has to be there first."""

    workload: Workload
    scale: Scale
    place: Place
    supplies: Mapping[str, Resource]
    after: Dependencies


class DataTier(ComponentResource):
    """A tier that holds data, outside of the slots. `ready` is what to wait for until it takes connections."""

    def __init__(self, kind: str, name: str, platform: Platform, args: Data, opts: ResourceOptions | None) -> None:
        super().__init__(kind, name, None, opts)
        self.ready, host = self._made(platform, args)
        self.register_outputs({"host": host, "port": args.port})

    def _made(self, platform: Platform, args: Data) -> tuple[Sequence[Resource], str]:
        match args:
            case Elsewhere():
                return platform.reach(self, args), args.host
            case DatabaseCluster():
                single = [each for one in alone(args) for each in self._kept(platform, one)]
                return [*single, *platform.keep_several(self, args)], args.pooled
            case Workload():
                return self._kept(platform, args), args.tier

    def _kept(self, platform: Platform, workload: Workload) -> Sequence[Resource]:
        return platform.keep(self, workload, platform.prepare(self, [workload], None))


def alone(data: Data) -> tuple[Workload, ...]:
    """The workload that holds data by itself: the tier, or what stands beside its several instances."""
    single = data.beside if isinstance(data, DatabaseCluster) else data
    return (single,) if isinstance(single, Workload) else ()


class SlotTier(ComponentResource):
    """A tier that belongs to a slot. `ready` is what to wait for until all of it is healthy."""

    def __init__(self, kind: str, name: str, platform: Platform, args: TierArgs, opts: ResourceOptions) -> None:
        super().__init__(kind, name, None, opts)
        self.ready = platform.run(self, args.workload, args.place, args.scale, args.supplies, args.after)
        self.register_outputs({"release": str(args.place.release), "replicas": args.scale.replicas})


def service(tier: TierName, described: Service, description: Description) -> Workload:
    """The workload of a tier of a slot.

    A tier is told what users open by PUBLIC_URL, and of what it needs by DATABASE_HOST, _PORT, _NAME, _USER, _PASSWORD_FILE, CACHE_HOST, _PORT,
    _PASSWORD_FILE and (from the platform, for it differs by slot) API_URL. DATABASE_HOST may share its connections among many, transaction
    by transaction; DATABASE_DIRECT_HOST gives each its own; DATABASE_READ_HOST is only to be read, and may be a moment behind.
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
        probe=_alive(described),
        ready=Probe(path=described.ready, port=described.port)
        if isinstance(described, Listening) and described.ready
        else None,
    )


def _alive(described: Service) -> Probe | None:
    if isinstance(described, Listening):
        return Probe(path=described.health, port=described.port)
    if isinstance(described, Worker) and described.alive:
        return Probe(command=described.alive)
    return None


def routes(app: App, environment: Environment) -> tuple[Route, ...]:
    """Which requests go to which tier: the api's paths to the api, all others to the web, or to the api without one."""
    found: list[Route] = []
    cluster = environment.kubernetes
    hosts = (cluster.host, *cluster.hostnames) if cluster else ()
    # What is told to Docker's gateway is told with a release: that it is to say how it is, too.
    gateway = cluster.gateway.model_dump_json(exclude={"inside", "within"}) if cluster else ""
    gateway = "watched" if environment.monitoring and not cluster else gateway
    for tier, described in ((TierName.API, app.api), (TierName.WEB, app.web)):
        if described:
            prefixes = app.api.paths if app.api and app.web and tier is TierName.API else ("/",)
            hidden = (described.metrics,) if described.metrics else ()
            found.append(
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
    return tuple(found)


def needed_env(described: Service, description: Description) -> dict[str, str]:
    """What who needs other tiers is told of them."""
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
    """The one that is used: the application's, or where its data was brought beside that."""
    return environment.size(TierName.DATABASE).name or described.name


def database_hosts(environment: Environment) -> tuple[str, str, str]:
    """Where the database is: to share connections among many, to have one's own, and only to read."""
    if outside := elsewhere(TierName.DATABASE, environment):
        return outside.host, outside.host, outside.host
    if environment.size(TierName.DATABASE).several:
        return POOLED, f"{REPLICATED}-rw", f"{REPLICATED}-ro"
    return TierName.DATABASE, TierName.DATABASE, TierName.DATABASE


def elsewhere(tier: TierName, environment: Environment) -> Elsewhere | None:
    """Where a data tier is if it does not run here."""
    external = environment.size(tier).external
    return Elsewhere(tier=tier, host=external.host, port=external.port or DATA_PORTS[tier]) if external else None


def _needed_secrets(described: Service, app: App) -> list[str]:
    passwords = {TierName.DATABASE: app.database, TierName.CACHE: app.cache}
    return [data.password for tier, data in passwords.items() if data and tier in described.needs]


def zones(described: Service, environment: Environment) -> tuple[Zone, ...]:
    """Where it has to be to reach what it needs."""
    data = {TierName.DATABASE, TierName.CACHE} & set(described.needs)
    outside = {tier for tier in data if environment.size(tier).external}
    found = [Zone.EDGE] if isinstance(described, Listening) or TierName.API in described.needs else []
    found += [Zone.DATA] if data - outside else []
    found += [Zone.OUTSIDE] if described.egress or outside else []
    return tuple(found)


def _tasks(tier: TierName, described: Service, description: Description) -> tuple[Task, ...]:
    """What runs before the tier does. A connection of their own is what migrations take locks and make settings by."""
    environment = description.environment
    pooled, direct, _ = database_hosts(environment)
    own = TierName.DATABASE in described.needs and direct != pooled
    seed = described.seed if environment.seed else None
    steps = {"migrate": described.migrate, **described.tasks, "seed": seed}
    return tuple(
        Task(
            name=name,
            command=step.command,
            timeout=step.timeout,
            env=(("DATABASE_HOST", direct),) if own else (),
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
    """The image a tier runs: the environment's, or as it is named, or built under the digest of its build context.

    `target` is built instead of the stage that the tier names.

    Raises:
        ConfigError: there is no Dockerfile, a file can't be read, or the image would hold files of Pulumi.
    """
    path = f"app.{tier}"
    if pinned := description.environment.images.get(tier):
        return Image(reference=pinned, path=f"environment.images.{tier}", pull_secrets=description.pull_secrets)
    if source.image:
        return Image(reference=source.image, path=f"{path}.image", pull_secrets=description.pull_secrets)
    path, given = f"{path}.build", source.build or ""
    context = find_folder(given, path, description.root)
    with readable(path):
        if not (context / "Dockerfile").is_file():
            raise ConfigError(f"{path}: {given} has no Dockerfile; add one, or name an image instead")
    refuse_own_files(context, path, description.root)
    target = target or source.target
    tag = context_digest(context, path=path, root=description.root) + (f"-{target}" if target else "")
    reference = f"{_repository(tier, context, description)}:{tag}"
    # The provider builds where the program is, which need not be where Pulumi.yaml is.
    return Image(
        reference=reference,
        context=os.path.relpath(context),
        target=target,
        path=path,
        pull_secrets=description.pull_secrets,
    )


def _repository(tier: TierName, context: Path, description: Description) -> str:
    """Return the repository of an image that is built: registry, application and folder, as Docker's grammar takes them."""
    registry = f"{description.environment.registry}/" if description.environment.registry else ""
    begin = f"{registry}{description.app.name}-"
    return begin + (names.as_repository(context.name, names.REPOSITORY - len(begin)) or tier)


def data_image(tier: TierName, described: Database | Cache, description: Description) -> Image:
    """The image of a data tier: the environment's, or as it is named."""
    environment = description.environment
    pinned = environment.images.get(tier)
    path = f"environment.images.{tier}" if pinned else f"app.{tier}.image"
    return Image(reference=pinned or environment.data_image(tier, described), path=path)


def secrets_of(settings: Settings, scope: str) -> dict[str, Secret]:
    """Each secret with its version: a slow hash, so that what a release is named after can't be guessed back.

    One whose value is in the cluster has the version of its reference.
    """

    def version(name: str, value: str) -> str:
        return hashlib.scrypt(value.encode(), salt=f"{scope}/{name}".encode(), n=2**9, r=8, p=1, dklen=8).hex()

    cluster = settings.environment.kubernetes
    references = {name: str(each) for name, each in (cluster.secrets if cluster else {}).items()}
    return {
        name: Secret(name=name, version=version(name, value), plain=name not in references and passwords.plain(value))
        for name, value in (settings.secrets | references).items()
    }
