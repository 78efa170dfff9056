"""Backups of the database and of the tiers' volumes: what takes them, when, and where to (docs/adr/016-backups.md)."""

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
"""The folder that the backup image is built from: a wheel has it in the package, the repository beside it."""
FOLDER, VOLUMES = "/var/lib/backup", "/volumes"
WITHIN = 6 * 3600
"""Seconds that a run may take."""


@dataclass(frozen=True, kw_only=True)
class Args:
    """What takes backups, and when."""

    workload: Workload
    times: tuple[Timed, ...]

    def of(self, live: Mapping[str, str]) -> "Args":
        """Backups of the database that is live: what a slot that is kept was `told` of it, which the files need not say any more."""
        if not live:
            return self
        env = {name: value for name, value in self.workload.env if name not in DATABASE}
        return replace(self, workload=replace(self.workload, env=tuple(sorted((env | dict(live)).items()))))

    @property
    def holder(self) -> Workload:
        """The same as who holds data: the tiers' volumes are theirs."""
        return replace(self.workload, volumes=tuple(each for each in self.workload.volumes if not each.read_only))


def described(description: Description) -> Args | None:
    """What the environment wants backed up, and how; None where it says nothing of it."""
    wanted = description.environment.size(TierName.DATABASE).backup
    if not wanted or not description.app.database:
        return None
    due = {"backup": wanted.schedule, "full": wanted.full, "verify": wanted.verify, "prune": "17 6 * * *"}
    times = tuple(
        Timed(name=name, at=at, command=(NAME, name), timeout=WITHIN + 60, path=PATH) for name, at in due.items()
    )
    return Args(workload=_workload(wanted, due, description), times=times)


def _workload(wanted: BackupConfig, due: dict[str, str], description: Description) -> Workload:
    """What answers for the repository. It reads the tiers' volumes as the user whose they are."""
    app, target = description.app, wanted.target
    reached = Service(image=image(wanted, description).reference, needs=(TierName.DATABASE,), egress=bool(target.s3))
    assert app.database
    told = {name: value for name, value in needed_env(reached, description).items() if name.startswith("DATABASE_")}
    password = description.secrets[app.database.password]
    key = description.secrets[wanted.key]
    told |= {
        "BACKUP_RETENTION": str(wanted.retention),
        "BACKUP_TIMES": json.dumps(due),
        "BACKUP_WITHIN": str(WITHIN),
        "DATABASE_PASSWORD_FILE": password.path,
        "RESTIC_PASSWORD_FILE": key.path,
        "RESTIC_REPOSITORY": repository(target, app, pulumi.get_stack()),
    }
    if room := _room(description.environment):
        told |= {"BACKUP_ROOM": str(room)}
    secrets = {each.name: each for each in (password, key)}
    if target.s3:
        access, secret = description.secrets[target.s3.access_key], description.secrets[target.s3.secret_key]
        secrets |= {access.name: access, secret.name: secret}
        told |= {"BACKUP_S3_ACCESS_KEY_FILE": access.path, "BACKUP_S3_SECRET_KEY_FILE": secret.path}
        told |= {"AWS_DEFAULT_REGION": target.s3.region}
    return Workload(
        tier=NAME,
        image=image(wanted, description),
        resources=Resources(cpu=wanted.cpu, memory=wanted.memory, reserve=0.01),
        command=(NAME, "serve"),
        env=tuple(sorted(told.items())),
        secrets=tuple(secrets[name] for name in sorted(secrets)),
        port=PORT,
        probe=Probe(path="/health", port=PORT),
        zones=zones(reached, description.environment) + ((Zone.WATCH,) if description.environment.monitoring else ()),
        egress=reached.egress,
        needs=reached.needs,
        writable=("/tmp",),
        volumes=_volumes(target, description),
        mounts=(Mount(source=target.directory, path=FOLDER, writable=True),) if target.directory else (),
        user=next((each.user for each in app.services.values() if each.volumes), 10_001),
        start_within=60,
        stop_within=60,
        path=PATH,
    )


def _room(environment: Environment) -> int:
    """Bytes of the volume that what comes back has to fit in, too; 0 where a disk is shared, or somebody else's."""
    size = environment.size(TierName.DATABASE)
    return size.capacity if environment.kubernetes and not size.external else 0


def _volumes(target: Target, description: Description) -> tuple[Volume, ...]:
    room = target.storage or 2 * description.environment.size(TierName.DATABASE).capacity
    own = Volume(name=BACKUPS, path=FOLDER, size=room, storage_class=target.storage_class)
    read = {name: f"{VOLUMES}/{name}" for name in sorted(description.app.volumes)}
    return (
        *((own,) if target.volume else ()),
        *(Volume(name=name, path=path, read_only=True) for name, path in read.items()),
    )


def repository(target: Target, app: App, stack: str) -> str:
    """Where the backups of a stack are, as restic names it."""
    if not target.s3:
        return FOLDER
    return f"s3:{target.s3.endpoint}/{target.s3.bucket}/{target.s3.begins(f'{app.name}-{stack}')}"


def image(wanted: BackupConfig, description: Description) -> Image:
    """What takes backups: pinned, or built on the image of the database that runs here, so that its clients fit the server."""
    app, environment = description.app, description.environment
    assert app.database
    if wanted.image:
        return Image(reference=wanted.image, path=f"{PATH}.image", pull_secrets=description.pull_secrets)
    base = data_image(TierName.DATABASE, app.database, description).reference
    place = f"{environment.registry}/" if environment.registry else ""
    return Image(
        reference=f"{place}{app.name}-{NAME}:{context_digest(CONTEXT, base)}",
        # The provider builds where the program is, which need not be where Pulumi.yaml is.
        context=os.path.relpath(CONTEXT),
        base=base,
        path=PATH,
        pull_secrets=description.pull_secrets,
    )


class Backup(ComponentResource):
    """What takes backups of the database, outside of the slots. It comes `after` what makes that database the live one."""

    def __init__(self, name: str, platform: Platform, args: Args, after: Output[Resource]) -> None:
        super().__init__("tiers:backup:Backup", name, None, ResourceOptions(depends_on=[after]))
        supplies = platform.prepare(self, [args.workload], None)
        self.ready = platform.schedule(self, args.workload, args.times, supplies)
        self.register_outputs({each.name: each.at for each in args.times})
