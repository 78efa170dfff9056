"""Backups of the database and of the services' volumes: workload, schedule and target (docs/adr/016-backups.md)."""

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
from .model.names import BACKUPS
from .model.services import DATABASE, AccessMode
from .model.workload import Image, Mount, Probe, Resources, ScheduledCommand, Volume, Workload, Zone
from .observability.alerts import BACKUP, BACKUP_PORT
from .options import with_dependency
from .platforms import Deployer
from .rendering import data_image, needed_env, zones

NAME, PORT = BACKUP, BACKUP_PORT
PATH = "environment.tiers.database.backup"
FOLDER, VOLUMES = "/var/lib/backup", "/volumes"
RUN_TIMEOUT = 6 * 3600
"""Time limit of one run of a backup command, in seconds."""


@dataclass(frozen=True, kw_only=True)
class BackupPlan:
    """Backup workload, and the schedule of its commands.

    Deploy the plan `Rollout.live_backups`: it backs up the database of the live slot. The plan in an `Application` backs up
    the configured database. The two databases may differ.

    Example:
        plan = rollout.live_backups
        if plan:
            Backup("backup", BackupArgs(platform=rollout.platform, plan=plan, after=switch.moved))
    """

    workload: Workload
    """Long-running process that takes and verifies backups, and serves metrics about the backups."""
    commands: tuple[ScheduledCommand, ...]
    """Scheduled commands of the workload: `backup`, `full`, `verify` and `prune`. Schedules are cron expressions in UTC."""

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
    """Return the backups that the environment configures, or None if no backups are configured."""
    config = description.environment.tier_settings(DATABASE.name).backup
    if not config or not description.app.database:
        return None
    due = {"backup": config.schedule, "full": config.full, "verify": config.verify, "prune": "17 6 * * *"}
    commands = tuple(
        ScheduledCommand(name=name, schedule=schedule, command=(NAME, name), timeout=RUN_TIMEOUT + 60, path=PATH)
        for name, schedule in due.items()
    )
    return BackupPlan(workload=_workload(config, due, description), commands=commands)


def _workload(config: BackupConfig, due: dict[str, str], description: Description) -> Workload:
    """Return the backup workload. It runs as the user of the first service with volumes, to read the files in the volumes."""
    app, target = description.app, config.target
    client = ServiceSettings(image=image(config, description).reference, needs=(DATABASE.name,), egress=bool(target.s3))
    assert app.database
    env = {name: value for name, value in needed_env(client, description).items() if name.startswith("DATABASE_")}
    password = description.secrets[app.database.password]
    key = description.secrets[config.key]
    env |= {
        "BACKUP_RETENTION": str(config.retention),
        "BACKUP_TIMES": json.dumps(due),
        "BACKUP_WITHIN": str(RUN_TIMEOUT),
        "DATABASE_PASSWORD_FILE": password.path,
        "RESTIC_PASSWORD_FILE": key.path,
        "RESTIC_REPOSITORY": repository(target, app, description.stack),
    }
    if room := _volume_size(description.environment):
        env |= {"BACKUP_ROOM": str(room)}
    secrets = {secret.name: secret for secret in (password, key)}
    if target.s3:
        access, secret = description.secrets[target.s3.access_key], description.secrets[target.s3.secret_key]
        secrets |= {access.name: access, secret.name: secret}
        env |= {"BACKUP_S3_ACCESS_KEY_FILE": access.path, "BACKUP_S3_SECRET_KEY_FILE": secret.path}
        env |= {"AWS_DEFAULT_REGION": target.s3.region}
    return Workload(
        tier=NAME,
        image=image(config, description),
        resources=Resources(cpu=config.cpu, memory=config.memory, reserve=0.01),
        command=(NAME, "serve"),
        env=tuple(sorted(env.items())),
        secrets=tuple(secrets[name] for name in sorted(secrets)),
        port=PORT,
        probe=Probe(path="/health", port=PORT),
        zones=zones(client, description) + ((Zone.WATCH,) if description.environment.monitoring else ()),
        egress=client.egress,
        needs=client.needs,
        writable=("/tmp",),
        volumes=_volumes(target, description),
        mounts=(Mount(source=target.directory, path=FOLDER, writable=True),) if target.directory else (),
        user=next((service.user for service in app.slot_services.values() if service.volumes), 10_001),
        start_within=60,
        stop_within=60,
        path=PATH,
    )


def _volume_size(environment: Environment) -> int:
    """Return the size of the database's volume in bytes, or 0 if the size is unknown (Docker, external service).

    The backup workload refuses to restore a copy that does not fit into this volume next to the data.
    """
    size = environment.tier_settings(DATABASE.name)
    return size.capacity if environment.kubernetes and not size.external else 0


def _volumes(target: Target, description: Description) -> tuple[Volume, ...]:
    room = target.storage or 2 * description.environment.tier_settings(DATABASE.name).capacity
    repository_volume = Volume(
        name=BACKUPS, path=FOLDER, size=room, storage_class=target.storage_class, access=AccessMode.ONE_NODE
    )
    paths = {name: f"{VOLUMES}/{name}" for name in sorted(description.app.volumes)}
    return (
        *((repository_volume,) if target.volume else ()),
        *(Volume(name=name, path=path, read_only=True) for name, path in paths.items()),
    )


def repository(target: Target, app: App, stack: str) -> str:
    """Return the address of the restic repository that stores a stack's backups."""
    if not target.s3:
        return FOLDER
    return f"s3:{target.s3.endpoint}/{target.s3.bucket}/{target.s3.object_prefix(f'{app.name}-{stack}')}"


def image_context() -> Path:
    """Return the build context of the backup image: `images/backup` in the installed package, else in this repository."""
    in_package = Path(__file__).parent / "images" / "backup"
    return in_package if in_package.is_dir() else Path(__file__).parents[1] / "images" / "backup"


def image(config: BackupConfig, description: Description) -> Image:
    """Return the configured backup image, or an image to build.

    An image to build has the database's image as base, so its PostgreSQL client has the version of the server.
    """
    app, environment = description.app, description.environment
    assert app.database
    if config.image:
        return Image(reference=config.image, path=f"{PATH}.image", pull_secrets=description.pull_secrets)
    base = data_image(DATABASE.name, app.database, description).reference
    registry = f"{environment.registry}/" if environment.registry else ""
    return Image(
        reference=f"{registry}{app.name}-{NAME}:{context_digest(image_context(), BuildOptions(base=base))}",
        # The provider resolves this path in the program's folder, which may differ from the folder of Pulumi.yaml.
        context=os.path.relpath(image_context()),
        base=base,
        path=PATH,
        pull_secrets=description.pull_secrets,
    )


@dataclass(frozen=True, kw_only=True)
class BackupArgs:
    """Arguments of `Backup`."""

    platform: Deployer
    """The platform to deploy to (`Rollout.platform`)."""
    plan: BackupPlan
    """The backup workload and its schedule (`Rollout.live_backups`)."""
    after: Output[Resource] | None = None
    """Resource that moves traffic to the live slot (`Switch.moved`). Backups change only after this resource, so a failed gate
    leaves the backups unchanged."""


class Backup(ComponentResource):
    """Deploy the backups of the database and of the services' volumes. Both slots share the backups.

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
