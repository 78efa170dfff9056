"""Backups of the database and of the tiers' volumes: the workload, its schedule and its target (docs/adr/016-backups.md)."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pulumi
from pulumi import ComponentResource, Output, Resource, ResourceOptions

from .alerts import BACKUP, BACKUP_PORT
from .checkpoint import DATABASE
from .config import App, Environment, Service, Target, TierName
from .config import Backup as BackupConfig
from .context import digest as context_digest
from .names import BACKUPS
from .platforms import Platform
from .tier import Description, data_image, needed_env, zones
from .workload import Image, Mount, Probe, Resources, Timed, Volume, Workload, Zone

NAME, PORT = BACKUP, BACKUP_PORT
PATH = "environment.tiers.database.backup"
_IN_PACKAGE = Path(__file__).parent / "images" / "backup"
CONTEXT = _IN_PACKAGE if _IN_PACKAGE.is_dir() else Path(__file__).parents[1] / "images" / "backup"
"""Build context of the backup image. In a wheel it is in the package, in the repository next to it."""
FOLDER, VOLUMES = "/var/lib/backup", "/volumes"
WITHIN = 6 * 3600
"""Limit of one run, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """The backup workload and its schedule."""

    workload: Workload
    times: tuple[Timed, ...]

    def of(self, live: Mapping[str, str]) -> "Args":
        """Return the backups of the database that `live`, the variables of the live slot, names. Empty `live` keeps the configured one."""
        if not live:
            return self
        env = {name: value for name, value in self.workload.env if name not in DATABASE}
        return replace(self, workload=replace(self.workload, env=tuple(sorted((env | dict(live)).items()))))

    @property
    def holder(self) -> Workload:
        """The workload without the tiers' read-only volumes: the data that belongs to the backups themselves."""
        return replace(self.workload, volumes=tuple(volume for volume in self.workload.volumes if not volume.read_only))


def described(description: Description) -> Args | None:
    """Return the backups that the environment describes, or None."""
    config = description.environment.size(TierName.DATABASE).backup
    if not config or not description.app.database:
        return None
    due = {"backup": config.schedule, "full": config.full, "verify": config.verify, "prune": "17 6 * * *"}
    times = tuple(
        Timed(name=name, at=at, command=(NAME, name), timeout=WITHIN + 60, path=PATH) for name, at in due.items()
    )
    return Args(workload=_workload(config, due, description), times=times)


def _workload(config: BackupConfig, due: dict[str, str], description: Description) -> Workload:
    """Return the backup workload. It runs as the user who owns the tiers' volumes, to read them."""
    app, target = description.app, config.target
    client = Service(image=image(config, description).reference, needs=(TierName.DATABASE,), egress=bool(target.s3))
    assert app.database
    env = {name: value for name, value in needed_env(client, description).items() if name.startswith("DATABASE_")}
    password = description.secrets[app.database.password]
    key = description.secrets[config.key]
    env |= {
        "BACKUP_RETENTION": str(config.retention),
        "BACKUP_TIMES": json.dumps(due),
        "BACKUP_WITHIN": str(WITHIN),
        "DATABASE_PASSWORD_FILE": password.path,
        "RESTIC_PASSWORD_FILE": key.path,
        "RESTIC_REPOSITORY": repository(target, app, pulumi.get_stack()),
    }
    if room := _room(description.environment):
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
        zones=zones(client, description.environment) + ((Zone.WATCH,) if description.environment.monitoring else ()),
        egress=client.egress,
        needs=client.needs,
        writable=("/tmp",),
        volumes=_volumes(target, description),
        mounts=(Mount(source=target.directory, path=FOLDER, writable=True),) if target.directory else (),
        user=next((service.user for service in app.services.values() if service.volumes), 10_001),
        start_within=60,
        stop_within=60,
        path=PATH,
    )


def _room(environment: Environment) -> int:
    """Return the size of the database's volume in bytes: a restored copy must fit next to the data.

    The size is 0 for a disk that is shared with other data, and for an external service.
    """
    size = environment.size(TierName.DATABASE)
    return size.capacity if environment.kubernetes and not size.external else 0


def _volumes(target: Target, description: Description) -> tuple[Volume, ...]:
    room = target.storage or 2 * description.environment.size(TierName.DATABASE).capacity
    repository_volume = Volume(name=BACKUPS, path=FOLDER, size=room, storage_class=target.storage_class)
    paths = {name: f"{VOLUMES}/{name}" for name in sorted(description.app.volumes)}
    return (
        *((repository_volume,) if target.volume else ()),
        *(Volume(name=name, path=path, read_only=True) for name, path in paths.items()),
    )


def repository(target: Target, app: App, stack: str) -> str:
    """Return the repository of a stack's backups, in the syntax of restic."""
    if not target.s3:
        return FOLDER
    return f"s3:{target.s3.endpoint}/{target.s3.bucket}/{target.s3.begins(f'{app.name}-{stack}')}"


def image(wanted: BackupConfig, description: Description) -> Image:
    """Return the backup image: pinned, or built on the image of the running database, because client and server versions must match."""
    app, environment = description.app, description.environment
    assert app.database
    if wanted.image:
        return Image(reference=wanted.image, path=f"{PATH}.image", pull_secrets=description.pull_secrets)
    base = data_image(TierName.DATABASE, app.database, description).reference
    registry = f"{environment.registry}/" if environment.registry else ""
    return Image(
        reference=f"{registry}{app.name}-{NAME}:{context_digest(CONTEXT, base)}",
        # The provider builds relative to the program's folder, which may differ from the folder of Pulumi.yaml.
        context=os.path.relpath(CONTEXT),
        base=base,
        path=PATH,
        pull_secrets=description.pull_secrets,
    )


class Backup(ComponentResource):
    """Backups of the database, outside of the slots. They depend on `after`, the resource that makes their database the live one."""

    def __init__(self, name: str, platform: Platform, args: Args, after: Output[Resource]) -> None:
        super().__init__("tiers:backup:Backup", name, None, ResourceOptions(depends_on=[after]))
        supplies = platform.prepare(self, [args.workload], None)
        self.ready = platform.schedule(self, args.workload, args.times, supplies)
        self.register_outputs({timed.name: timed.at for timed in args.times})
