"""Render the configuration as workloads and routes, independent of the platform.

The functions read only the configuration and the files that it names.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from .build_context import BuildOptions, check_dockerfile, refuse_project_files
from .build_context import digest as context_digest
from .config import (
    DOCKERFILE,
    App,
    Build,
    Database,
    DataSettings,
    Environment,
    Listening,
    ServiceSettings,
    Source,
    Worker,
    grammar,
)
from .config.own_files import find_folder, find_in_repository
from .context import Description
from .model import names, services
from .model.services import DATABASE
from .model.workload import (
    SEED,
    DatabaseCluster,
    ExternalService,
    Image,
    Job,
    Mount,
    Probe,
    Route,
    Secret,
    Task,
    Workload,
    Zone,
)
from .secret_templates import secret_env, secret_files

REPLICATED, POOLED = names.DATABASE_CLUSTER, "database-pooler"
"""Names of a database cluster and of its connection pooler.

Both names differ from the name of a single instance, because cluster and single instance exist together during migration.
"""


Data = Workload | DatabaseCluster | ExternalService
"""A data service: a single instance (`Workload`), replicated Redis (`Replicated`), a database cluster or an external service."""


def single_instances(data: Data) -> tuple[Workload, ...]:
    """Return the workload of a data service in a tuple, or () for a service without a workload.

    An external service has none. A database cluster has one only during migration: the single instance that the cluster
    replaces.
    """
    single = data.single_instance if isinstance(data, DatabaseCluster) else data
    return (single,) if isinstance(single, Workload) else ()


def render_service(tier: str, settings: ServiceSettings, description: Description) -> Workload:
    """Return the workload of a service in a slot.

    Environment variables of the workload:
        PUBLIC_URL: address that users open.
        NAME_PUBLIC_URL: address at which users open the service NAME, set for each service with a host of its own.
        DATABASE_HOST, _PORT, _NAME, _USER, _PASSWORD_FILE: set if the service needs the database. The host may be a connection
            pooler in transaction mode.
        DATABASE_DIRECT_HOST: host of the database without the pooler, for clients that use session state or session locks.
        DATABASE_READ_HOST: host of the replicas, for read-only queries. Data of a replica may be slightly older.
        CACHE_HOST, _PORT, _PASSWORD_FILE: set if the service needs the cache.
        NAME_HOST, _PORT: set if the service needs the store NAME.
        API_URL: address of the api. The platform sets this variable, because the address differs by slot.

    Args:
        tier: name of the service.
        settings: settings of the service in `app`.
        description: the application and its environment.

    Raises:
        ConfigError: a file that the settings name can't be read or used.
    """
    if description.environment.egress:
        settings = settings.model_copy(update={"egress": True})
    size = description.environment.tier_settings(tier)
    reload = settings.reload if description.environment.reload else None
    names = (*settings.secrets, *description.app.passwords(settings.needs))
    secrets = [description.secrets[name] for name in sorted(set(names))]
    needed = needed_env(settings, description)
    path, further = description.app.path(tier), description.app.services.get(tier)
    return Workload(
        tier=tier,
        belongs_to=further.tier if further else "",
        path=path if further else "",
        image=image(tier, settings, description, reload.target if reload else None),
        resources=description.resources(tier),
        command=(reload.command if reload else ()) or settings.command,
        entrypoint=settings.entrypoint,
        env=tuple(sorted((needed | settings.env | size.env).items())),
        secrets=(*secrets, *secret_files(settings, description, needed)),
        secret_env=secret_env(settings, description, needed),
        writable=tuple(sorted((*settings.writable, *(reload.writable if reload else ())))),
        scratch=settings.scratch,
        volumes=tuple(description.volume(tier, name, path) for name, path in sorted(settings.volumes.items())),
        mounts=_mounts(reload.mounts if reload else {}, f"{path}.reload.mounts", description.root),
        user=settings.user,
        start_within=(reload.start_within if reload else None) or settings.start_within,
        stop_within=settings.stop_within,
        tasks=_tasks(tier, settings, description),
        needs=tuple(sorted(settings.needs)),
        zones=zones(settings, description),
        egress=settings.egress,
        autoscaled=size.cpu * size.autoscale.cpu / 100 if size.autoscale else None,
        priority=size.priority_class,
        port=settings.port if isinstance(settings, Listening) else None,
        jobs=_jobs(tier, description),
        single=isinstance(settings, Worker) and settings.single,
        probe=_liveness(tier, settings, description),
        ready=Probe(
            path=settings.ready,
            port=settings.port,
            host=health_host(tier, settings, description.app, description.environment),
        )
        if isinstance(settings, Listening) and settings.ready
        else None,
    )


def _liveness(tier: str, settings: ServiceSettings, description: Description) -> Probe | None:
    if isinstance(settings, Listening):
        host = health_host(tier, settings, description.app, description.environment)
        return Probe(path=settings.health, port=settings.port, host=host)
    if isinstance(settings, Worker) and settings.alive:
        return Probe(command=settings.alive)
    return None


def health_host(name: str, settings: Listening, app: App, environment: Environment) -> str:
    """Return the value of the header Host in a service's health checks; empty for the host that users open."""
    if settings.health_host or name not in app.hosts:
        return settings.health_host or ""
    return urlsplit(environment.url_of(app.hosts[name])).netloc


def render_routes(app: App, environment: Environment) -> tuple[Route, ...]:
    """Return the routes to the services that users reach.

    Requests for `app.api.paths` go to the api, all others to web. If the application has only web or only api, that service
    gets all requests. A further service gets the requests for its own `paths`.
    """
    result: list[Route] = []
    cluster = environment.kubernetes
    hosts = (cluster.host, *cluster.hostnames) if cluster else ()
    own_hosts = environment.own_hosts(app)
    # On Docker `monitoring` enables metrics of the gateway, which changes the gateway's configuration. This change needs a new
    # release, so the setting is part of the routes.
    unused = {"inside", "within"} if own_hosts else {"inside", "within", "host_header"}
    gateway = cluster.gateway.model_dump_json(exclude=unused) if cluster else ""
    gateway = "watched" if environment.monitoring and not cluster else gateway
    for name, prefixes in app.routes.items():
        settings, host_name = app.listening[name], app.host_name(name)
        result.append(
            Route(
                tier=name,
                prefixes=prefixes,
                port=settings.port,
                health=settings.ready or settings.health,
                health_host=health_host(name, settings, app, environment),
                hosts=() if host_name else hosts,
                host=own_hosts[host_name] if host_name else "",
                gateway=gateway,
                hidden=(settings.metrics,) if settings.metrics else (),
                sticky=environment.release.standby == "warm",
            )
        )
    return tuple(result)


def needed_env(settings: ServiceSettings, description: Description) -> dict[str, str]:
    """Return the public addresses, and the environment variables of the data services in `needs`, such as DATABASE_HOST."""
    env = {"PUBLIC_URL": description.environment.url}
    addresses = description.environment.urls(description.app)
    env |= {services.public_variable(name): url for name, url in addresses.items()}
    database = description.app.database
    for record in description.app.catalogue.data:
        if record.name in settings.needs:
            outside = external_service(record.name, description.environment)
            env[f"{record.prefix}_HOST"] = outside.host if outside else record.name
            env[f"{record.prefix}_PORT"] = str(outside.port if outside else record.port)
    if DATABASE.name in settings.needs and database:
        pooled, direct, read = database_hosts(description.environment)
        env |= {"DATABASE_NAME": database_name(database, description.environment), "DATABASE_USER": database.user}
        env |= {"DATABASE_HOST": pooled, "DATABASE_DIRECT_HOST": direct, "DATABASE_READ_HOST": read}
    return env


def database_name(settings: Database, environment: Environment) -> str:
    """Return the name of the database: `environment.tiers.database.name` if set, else `app.database.name`."""
    return environment.tier_settings(DATABASE.name).name or settings.name


def database_hosts(environment: Environment) -> tuple[str, str, str]:
    """Return three host names of the database: for the pooler, for the primary, and for the replicas (read-only queries).

    For an external database or a single instance, the three host names are equal.
    """
    if outside := external_service(DATABASE.name, environment):
        return outside.host, outside.host, outside.host
    if environment.tier_settings(DATABASE.name).uses_cluster:
        return POOLED, f"{REPLICATED}-rw", f"{REPLICATED}-ro"
    return DATABASE.name, DATABASE.name, DATABASE.name


def external_service(tier: str, environment: Environment) -> ExternalService | None:
    """Return the address of an external data service, or None if the program deploys the service itself."""
    external = environment.tier_settings(tier).external
    return (
        ExternalService(tier=tier, host=external.host, port=external.port or services.port_of(tier))
        if external
        else None
    )


def zones(settings: ServiceSettings, description: Description) -> tuple[Zone, ...]:
    """Return the network zones that a service joins.

    A service joins EDGE if it answers HTTP requests, or if it needs a service that does, such as the api. A service joins DATA
    if it needs a data service that the program deploys. A service joins OUTSIDE if it has `egress` or needs an external data
    service.
    """
    data = {record.name for record in description.app.catalogue.data} & set(settings.needs)
    outside = {name for name in data if description.environment.tier_settings(name).external}
    calls = set(settings.needs) - data
    joined = [Zone.EDGE] if isinstance(settings, Listening) or calls else []
    joined += [Zone.DATA] if data - outside else []
    joined += [Zone.OUTSIDE] if settings.egress or outside else []
    return tuple(joined)


def _tasks(tier: str, settings: ServiceSettings, description: Description) -> tuple[Task, ...]:
    """Return the tasks that run before a service starts: migration, other tasks, seed.

    Tasks connect to the database without the pooler: their DATABASE_HOST is the host of the primary. Migrations use session
    locks and session settings, which a pooler in transaction mode would lose.
    """
    environment = description.environment
    pooled, direct, _ = database_hosts(environment)
    needs_direct = DATABASE.name in settings.needs and direct != pooled
    seed = settings.seed if environment.seed else None
    steps = {"migrate": settings.migrate, **settings.tasks, SEED: seed}
    changed_env = _direct_env(settings, description, direct) if needs_direct else ()
    return tuple(
        Task(
            name=name,
            command=step.command,
            timeout=step.timeout,
            env=(("DATABASE_HOST", direct),) if needs_direct else (),
            secret_env=changed_env,
            path=f"{description.app.path(tier)}.{'tasks.' if name in settings.tasks else ''}{name}",
        )
        for name, step in steps.items()
        if step
    )


def _jobs(service: str, description: Description) -> tuple[Job, ...]:
    """Return the scheduled jobs that run in the image of a service, sorted by name."""
    return tuple(
        Job(
            name=name,
            command=job.command,
            timeout=job.timeout,
            path=f"app.jobs.{name}",
            cron=job.schedule,
            schedule=grammar.schedule(job.schedule, job.timezone),
            overlaps=job.overlap == "allow",
            retries=job.retries,
            makes_up=job.missed == "once",
        )
        for name, job in sorted(description.app.jobs_of(service).items())
    )


def _direct_env(settings: ServiceSettings, description: Description, direct: str) -> tuple[tuple[str, Secret], ...]:
    """Return the variables with secrets that differ in tasks, because tasks connect to the database without the pooler."""
    env = needed_env(settings, description)
    variables = dict(secret_env(settings, description, env))
    in_tasks = secret_env(settings, description, env | {"DATABASE_HOST": direct}, prefix="task")
    return tuple((name, secret) for name, secret in in_tasks if secret.version != variables[name].version)


def _mounts(mounts: Mapping[str, str], path: str, root: Path) -> tuple[Mount, ...]:
    return tuple(
        Mount(source=str(find_in_repository(source, f"{path}.{source}", root)), path=target)
        for source, target in sorted(mounts.items())
    )


def image(tier: str, source: Source, description: Description, target: str | None = None) -> Image:
    """Return the image of a service: the pinned image (`environment.images`), the named image, or an image to build.

    The tag of an image to build is the digest of its build context.

    Args:
        tier: name of the service.
        source: settings of the service, which name an image or a build context.
        description: the application and its environment.
        target: stage of the Dockerfile to build instead of the configured stage.

    Raises:
        ConfigError: the build context has no Dockerfile, a file can't be read, or the image would contain files of Pulumi.
    """
    path = description.app.path(tier)
    if pinned := description.environment.images.get(tier):
        return Image(reference=pinned, path=f"environment.images.{tier}", pull_secrets=description.pull_secrets)
    if source.image:
        return Image(reference=source.image, path=f"{path}.image", pull_secrets=description.pull_secrets)
    assert source.build
    return _image_to_build(tier, source.build, target or source.stage, description)


def _image_to_build(tier: str, build: Build, target: str | None, description: Description) -> Image:
    path = f"{description.app.path(tier)}.build"
    context = find_folder(build.context, path, description.root)
    check_dockerfile(context, build.context, build.dockerfile, path)
    refuse_project_files(context, path, description.root)
    dockerfile = build.dockerfile if build.dockerfile != DOCKERFILE else None
    options = BuildOptions(dockerfile=dockerfile, args=build.args)
    tag = context_digest(context, options, path, description.root) + (f"-{target}" if target else "")
    # The provider resolves the context in the program's folder, which may differ from the folder of Pulumi.yaml.
    return Image(
        reference=f"{_repository(tier, context, description)}:{tag}",
        context=os.path.relpath(context),
        dockerfile=dockerfile,
        target=target,
        args=tuple(sorted(build.args.items())),
        path=path,
        pull_secrets=description.pull_secrets,
    )


def _repository(tier: str, context: Path, description: Description) -> str:
    """Return the name of an image to build, `REGISTRY/APP-FOLDER`. Characters that Docker would refuse are replaced."""
    registry = f"{description.environment.registry}/" if description.environment.registry else ""
    begin = f"{registry}{description.app.name}-"
    return begin + (names.as_repository(context.name, names.REPOSITORY - len(begin)) or tier)


def data_image(tier: str, settings: DataSettings, description: Description) -> Image:
    """Return the image of a data service: the pinned image (`environment.images`), else the image in `app`."""
    environment = description.environment
    pinned = environment.images.get(tier)
    path = f"environment.images.{tier}" if pinned else f"{description.app.path(tier)}.image"
    return Image(reference=pinned or environment.data_image(tier, settings), path=path)
