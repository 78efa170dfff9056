"""Backups of the database, of the services' volumes and of stores: workload, schedule and target.

Decision records: docs/adr/016-backups.md, docs/adr/042-backups-of-stores.md.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from .build_context import BuildOptions
from .build_context import digest as context_digest
from .config import App, Environment, ServiceSettings, Target
from .config import Backup as BackupConfig
from .context import Description
from .model.names import BACKUPS, store_backup
from .model.services import DATABASE, AccessMode
from .model.workload import Image, Mount, Probe, Resources, ScheduledCommand, Secret, Volume, Workload, Zone
from .observability.alerts import BACKUP, BACKUP_PORT
from .options import with_dependency
from .platforms import Deployer
from .rendering import data_image, needed_env, zones

NAME, PORT = BACKUP, BACKUP_PORT
PATH = "environment.tiers.database.backup"
FOLDER, VOLUMES = "/var/lib/backup", "/volumes"
PRUNE = "17 6 * * *"
"""Schedule of the command that deletes expired backups."""
RUN_TIMEOUT = 6 * 3600
"""Time limit of one run of a backup command, in seconds."""


@dataclass(frozen=True, kw_only=True)
class BackupPlan:
    """Backup workload, and the schedule of its commands.

    Deploy the plan `Rollout.live_backups`: it backs up the database of the live slot. The plan in an `Application` backs up
    the configured database. The two databases may differ. The plans of stores are in `Rollout.store_backups`.

    Example:
        plan = rollout.live_backups
        if plan:
            Backup("backup", BackupArgs(platform=rollout.platform, plan=plan, after=switch.moved))
    """

    workload: Workload
    """Long-running process that takes and verifies backups, and serves metrics about the backups."""
    commands: tuple[ScheduledCommand, ...]
    """Scheduled commands of the workload: `backup`, `full` (not for a store), `verify` and `prune`. Schedules are cron expressions
    in UTC."""

    def with_database(self, variables: Mapping[str, str]) -> "BackupPlan":
        """Return a plan that backs up the database in `variables`.

        Args:
            variables: environment variables that identify the database (DATABASE_*); empty to keep the configured database.
        """
        if not variables:
            return self
        env = {name: value for name, value in self.workload.env if name not in DATABASE.variables}
        return replace(self, workload=replace(self.workload, env=tuple(sorted((env | dict(variables)).items()))))

    @property
    def holder(self) -> Workload:
        """Backup workload with only the volume that stores the backups, for the guard (components/safety). The guard finds the
        volumes of services in the workloads of these services."""
        return replace(self.workload, volumes=tuple(volume for volume in self.workload.volumes if not volume.read_only))


def render(description: Description) -> BackupPlan | None:
    """Return the backups of the database that the environment configures, or None if no such backups are configured."""
    config = description.environment.tier_settings(DATABASE.name).backup
    if not config or not description.app.database:
        return None
    due = {"backup": config.schedule, "full": config.full, "verify": config.verify, "prune": PRUNE}
    return _plan(_database_source(config, description), config, due, description)


def render_stores(description: Description) -> dict[str, BackupPlan]:
    """Return the backups of stores that the environment configures, by name of the backup workload, such as `mysql-backup`."""
    plans: dict[str, BackupPlan] = {}
    for store in description.app.stores:
        if config := description.environment.tier_settings(store).backup:
            due = {"backup": config.schedule, "verify": config.verify, "prune": PRUNE}
            plans[store_backup(store)] = _plan(_store_source(store, config, description), config, due, description)
    return plans


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Data that a backup workload saves, and the access of the workload to this data."""

    workload: str
    """Name of the backup workload."""
    path: str
    """Config path of the backup settings."""
    volumes: tuple[Volume, ...]
    """Volumes to save, read-only."""
    repository_volume: Volume
    """Volume for the backups, used if the target is a volume."""
    user: int
    """UID that can read the files in the volumes."""
    zones: tuple[Zone, ...]
    egress: bool
    env: Mapping[str, str]
    """Environment variables that describe the data."""
    secrets: tuple[Secret, ...] = ()
    needs: tuple[str, ...] = ()
    store: str = ""
    """Store whose volumes are saved; empty for the database."""


def _database_source(config: BackupConfig, description: Description) -> _Source:
    """Return the database and the volumes of tiers. The workload runs as the user of the first service with volumes."""
    app, environment = description.app, description.environment
    assert app.database
    egress = bool(config.target.s3)
    client = ServiceSettings(image=image(config, description).reference, needs=(DATABASE.name,), egress=egress)
    env = {name: value for name, value in needed_env(client, description).items() if name.startswith("DATABASE_")}
    password = description.secrets[app.database.password]
    env |= {"DATABASE_PASSWORD_FILE": password.path}
    if room := _volume_size(environment):
        env |= {"BACKUP_ROOM": str(room)}
    return _Source(
        workload=NAME,
        path=PATH,
        volumes=tuple(Volume(name=name, path=f"{VOLUMES}/{name}", read_only=True) for name in sorted(app.volumes)),
        repository_volume=_repository_volume(
            BACKUPS, 2 * environment.tier_settings(DATABASE.name).capacity, config.target
        ),
        user=next((service.user for service in app.slot_services.values() if service.volumes), 10_001),
        zones=zones(client, description),
        egress=egress,
        env=env,
        secrets=(password,),
        needs=client.needs,
    )


def _store_source(store: str, config: BackupConfig, description: Description) -> _Source:
    """Return the volumes of a store. The workload runs as the user of the store, who owns the files, and can't connect to the store."""
    settings, name = description.app.stores[store], store_backup(store)
    room = 2 * len(settings.volumes) * description.environment.tier_settings(store).capacity
    return _Source(
        workload=name,
        path=f"environment.tiers.{store}.backup",
        volumes=tuple(
            Volume(name=volume, path=f"{VOLUMES}/{volume}", read_only=True, access=AccessMode.ONE_NODE)
            for volume in sorted(settings.volumes)
        ),
        repository_volume=_repository_volume(f"{name}s", room, config.target),
        user=settings.uid,
        zones=(Zone.DATA, Zone.OUTSIDE) if config.target.s3 else (Zone.DATA,),
        egress=bool(config.target.s3),
        env={"BACKUP_LIVE": "yes"} if config.live else {},
        store=store,
    )


def _repository_volume(name: str, room: int, target: Target) -> Volume:
    return Volume(
        name=name,
        path=FOLDER,
        size=target.storage or room,
        storage_class=target.storage_class,
        access=AccessMode.ONE_NODE,
    )


def _plan(source: _Source, config: BackupConfig, due: Mapping[str, str], description: Description) -> BackupPlan:
    commands = tuple(
        ScheduledCommand(
            name=name,
            schedule=schedule,
            command=(NAME, name),
            timeout=RUN_TIMEOUT + 60,
            path=source.path,
            reads_volumes=not source.store or name == "backup",
        )
        for name, schedule in due.items()
    )
    return BackupPlan(workload=_workload(source, config, due, description), commands=commands)


def _workload(source: _Source, config: BackupConfig, due: Mapping[str, str], description: Description) -> Workload:
    target, key = config.target, description.secrets[config.key]
    env = {
        **source.env,
        "BACKUP_RETENTION": str(config.retention),
        "BACKUP_TIMES": json.dumps(due),
        "BACKUP_WITHIN": str(RUN_TIMEOUT),
        "RESTIC_PASSWORD_FILE": key.path,
        "RESTIC_REPOSITORY": repository(target, description.app, description.stack, source.store),
    }
    secrets = {secret.name: secret for secret in (*source.secrets, key)}
    if target.s3:
        access, secret = description.secrets[target.s3.access_key], description.secrets[target.s3.secret_key]
        secrets |= {access.name: access, secret.name: secret}
        env |= {"BACKUP_S3_ACCESS_KEY_FILE": access.path, "BACKUP_S3_SECRET_KEY_FILE": secret.path}
        env |= {"AWS_DEFAULT_REGION": target.s3.region}
    return Workload(
        tier=source.workload,
        image=image(config, description, source.path),
        resources=Resources(cpu=config.cpu, memory=config.memory, reserve=0.01),
        command=(NAME, "serve"),
        env=tuple(sorted(env.items())),
        secrets=tuple(secrets[name] for name in sorted(secrets)),
        port=PORT,
        probe=Probe(path="/health", port=PORT),
        zones=source.zones + ((Zone.WATCH,) if description.environment.monitoring else ()),
        egress=source.egress,
        needs=source.needs,
        writable=("/tmp",),
        volumes=(*((source.repository_volume,) if target.volume else ()), *source.volumes),
        mounts=(Mount(source=target.directory, path=FOLDER, writable=True),) if target.directory else (),
        user=source.user,
        start_within=60,
        stop_within=60,
        reads_store=source.store,
        path=source.path,
    )


def _volume_size(environment: Environment) -> int:
    """Return the size of the database's volume in bytes, or 0 if the size is unknown (Docker, external service).

    The backup workload refuses to restore a copy that does not fit into this volume next to the data.
    """
    size = environment.tier_settings(DATABASE.name)
    return size.capacity if environment.kubernetes and not size.external else 0


def repository(target: Target, app: App, stack: str, store: str = "") -> str:
    """Return the address of the restic repository that stores a stack's backups of the database, or of a store.

    Each store has its own repository. In a bucket it is below the prefix of the database's repository, in a folder `stores`, which
    restic does not use.
    """
    if not target.s3:
        return FOLDER
    prefix = target.s3.object_prefix(f"{app.name}-{stack}")
    return f"s3:{target.s3.endpoint}/{target.s3.bucket}/{prefix}{f'/stores/{store}' if store else ''}"


def image_context() -> Path:
    """Return the build context of the backup image: `images/backup` in the installed package, else in this repository."""
    in_package = Path(__file__).parent / "images" / "backup"
    return in_package if in_package.is_dir() else Path(__file__).parents[1] / "images" / "backup"


def image(config: BackupConfig, description: Description, path: str = PATH) -> Image:
    """Return the configured backup image, or an image to build.

    An image to build has the database's image as base, so its PostgreSQL client has the version of the server. Without a database
    it has the default base of its Dockerfile.

    Args:
        config: settings of the backups.
        description: the application and its environment.
        path: config path of these settings.
    """
    app, environment = description.app, description.environment
    if config.image:
        return Image(reference=config.image, path=f"{path}.image", pull_secrets=description.pull_secrets)
    base = data_image(DATABASE.name, app.database, description).reference if app.database else None
    registry = f"{environment.registry}/" if environment.registry else ""
    return Image(
        reference=f"{registry}{app.name}-{NAME}:{context_digest(image_context(), BuildOptions(base=base or ''))}",
        # The provider resolves this path in the program's folder, which may differ from the folder of Pulumi.yaml.
        context=os.path.relpath(image_context()),
        base=base,
        path=path,
        pull_secrets=description.pull_secrets,
    )


@dataclass(frozen=True, kw_only=True)
class BackupArgs:
    """Arguments of `Backup`."""

    platform: Deployer
    """The platform to deploy to (`Rollout.platform`)."""
    plan: BackupPlan
    """The backup workload and its schedule (`Rollout.live_backups`, or one of `Rollout.store_backups`)."""
    after: Output[Resource] | None = None
    """Resource that moves traffic to the live slot (`Switch.moved`). Backups change only after this resource, so a failed gate
    leaves the backups unchanged."""


class Backup(ComponentResource):
    """Deploy the backups of the database and of the services' volumes, or those of a store. Both slots share the backups.

    The backup workload runs each command on its schedule, and stores encrypted backups in the configured target.

    Args:
        name: resource name, which is part of the state.
        args: see `BackupArgs`.
        opts: options of the component.

    Example:
        backup = Backup("backup", BackupArgs(platform=platform, plan=plan, after=switch.moved))
    """

    ready: Sequence[Resource]
    """Resources that exist once the backup workload is healthy."""

    def __init__(self, name: str, args: BackupArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:backup:Backup", name, None, with_dependency(opts, args.after))
        workload, commands = args.plan.workload, args.plan.commands
        provisioned = args.platform.provision(self, [workload], None)
        self.ready = args.platform.deploy_scheduled(self, workload, commands, provisioned)
        self.register_outputs({command.name: command.schedule for command in commands})
