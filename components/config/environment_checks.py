"""Check an environment: refuse values that do not match the application or the platform."""

from collections.abc import Iterator

from ..model import names, services
from ..model.services import DATABASE
from . import explain, grammar
from .app import App, Worker, program_variables
from .app_checks import VARIABLES_SIZE, unknown_service
from .backups import Backup
from .cluster_checks import cluster_errors
from .engine_checks import engine_errors
from .environment import Environment, TierSettings
from .grammar import describe
from .host_checks import host_errors
from .image_checks import image_errors


def environment_errors(app: App, environment: Environment) -> Iterator[str]:
    """Yield an error for each value of the environment that does not match the application or the platform."""
    shared = " and ".join(record.name for record in services.common_catalogue().data)
    replicated = " and ".join(record.name for record in services.common_catalogue().data if record.ha)
    for tier, size in environment.tiers.items():
        path = f"environment.tiers.{tier}"
        if size.reserve and size.reserve > size.cpu:
            yield f"{path}.reserve: {size.reserve} is above the limit `cpu`; use at most {size.cpu}"
        if size.single and not (size.ha and tier == DATABASE.name):
            yield f"{path}.single: `single` is only for the migration to a database cluster; set ha: true, or remove `single`"
        if size.name and tier != DATABASE.name:
            yield f"{path}.name: only the database has this key; remove `name`"
        if tier not in app.catalogue.names:
            yield f"{path}: {unknown_service(app, tier)}"
        elif tier not in app.names:
            yield f"{path}: the application has no {tier}; remove this key, or add app.{tier}"
        elif tier not in app.slot_services:
            yield from _store_errors(app, tier, size)
            for key in ("replicas", "autoscale", "env") if tier not in app.stores else ():
                if key in size.model_fields_set:
                    yield f"{path}.{key}: {shared} have no replicas, autoscaling or variables; remove {key}"
            if size.ha and (record := app.catalogue.find(tier)) and not record.ha:
                yield f"{path}.ha: {tier} always runs as one instance; remove `ha`"
            if size.external and tier not in app.stores and size.model_fields_set - {"external", "name"}:
                yield f"{path}.external: {tier} is an external service, so other keys have no effect; remove external or the other keys"
        else:
            if size.external:
                yield f"{path}.external: only {shared} can be external; remove `external`"
            if size.ha:
                yield f"{path}.ha: only {replicated} have this key; replace it by `replicas`"
            for key in ("storage", "storage_class"):
                if key in size.model_fields_set and not app.slot_services[tier].volumes:
                    yield f"{path}.{key}: {tier} has no volumes; remove {key}"
            service = app.slot_services[tier]
            taken = {*service.env, *service.secret_env, *program_variables(app, service)}
            for variable in sorted(set(size.env) & taken):
                yield f"{path}.env.{variable}: {app.path(tier)} or the program sets this variable too; remove the variable here or from {app.path(tier)}"
            yield from _single_errors(app, tier, size)
            if size.autoscale and size.autoscale.max < size.replicas:
                yield f"{path}.autoscale.max: {size.autoscale.max} is less than `replicas`; use at least {size.replicas}"
    yield from host_errors(app, environment)
    yield from _backup_errors(app, environment)
    if environment.registry and len(environment.registry) > (most := grammar.NAME_LENGTH - len(f"/{app.name}-backup")):
        yield f"environment.registry: {describe(environment.registry)} is too long; use at most {most} characters"
    for tier in environment.images:
        if tier not in app.catalogue.names:
            yield f"environment.images.{tier}: {unknown_service(app, tier)}"
        elif tier not in app.names:
            yield f"environment.images.{tier}: the application has no {tier}; remove this image"
    if monitoring := environment.monitoring:
        for key in sorted(monitoring.model_fields_set & set(monitoring.inapplicable[environment.platform])):
            yield f"environment.monitoring.{key}: it has no effect on the platform {environment.platform}; remove it"
        exporting = [record.name for record in app.catalogue.data if record.exporter]
        for name in monitoring.exporters:
            if name not in exporting:
                yield f"environment.monitoring.exporters.{name}: {describe(name)} has no exporter; {explain.write_one_of(exporting, name)}"
        for label in filter(names.is_reserved_label, monitoring.labels):
            yield f"environment.monitoring.labels.{label}: the program reserves this label; remove it"
    yield from _copy_errors(environment)
    yield from _variable_errors(app, environment)
    yield from (cluster_errors(app, environment) if environment.kubernetes else engine_errors(app, environment))
    if environment.pinned:
        yield from image_errors(app, environment)


def _single_errors(app: App, tier: str, size: TierSettings) -> Iterator[str]:
    """Yield an error for each setting that would start a process twice, although `single` forbids it."""
    service = app.slot_services[tier]
    if not (isinstance(service, Worker) and service.single):
        return
    for key in ("replicas", "autoscale"):
        if key in size.model_fields_set and (key == "autoscale" or size.replicas > 1):
            yield f"environment.tiers.{tier}.{key}: {app.path(tier)}.single allows one process; remove {key}"


def _store_errors(app: App, tier: str, size: TierSettings) -> Iterator[str]:
    """Yield an error for each setting that a store does not have. Yield none for another service."""
    if tier not in app.stores:
        return
    path = f"environment.tiers.{tier}"
    for key in ("replicas", "autoscale"):
        if key in size.model_fields_set:
            yield f"{path}.{key}: a store always runs as one instance; remove {key}"
    if "env" in size.model_fields_set:
        yield f"{path}.env: a store has the same variables in every environment; move them to app.services.{tier}.env"
    if size.external:
        yield (
            f"{path}.external: a store can't be external; list the stacks that have it in app.services.{tier}.environments, and set the address "
            "of the external server in environment.tiers.<tier>.env of the services that use it"
        )
    for key in ("storage", "storage_class"):
        if key in size.model_fields_set and not app.stores[tier].volumes:
            yield f"{path}.{key}: {tier} has no volumes; remove {key}"


def _backup_errors(app: App, environment: Environment) -> Iterator[str]:
    for tier, backup in environment.backups.items():
        path = f"environment.tiers.{tier}.backup"
        if tier == DATABASE.name:
            yield from _database_backup_errors(app, backup, path)
        elif tier in app.stores:
            yield from _store_backup_errors(app, tier, backup, path)
        else:
            yield f"{path}: only the database and stores have this key; remove `backup`"
            continue
        yield from _target_errors(environment, backup, path)
    yield from _shared_folder_errors(environment)


def _database_backup_errors(app: App, backup: Backup, path: str) -> Iterator[str]:
    users = {tier: service.user for tier, service in app.slot_services.items() if service.volumes}
    if len(set(users.values())) > 1:
        owners = ", ".join(f"{tier}: user {user}" for tier, user in users.items())
        yield f"{path}.full: the backup reads all volumes as one user, but their tiers have different users ({owners}); set the same user for these tiers"
    if "live" in backup.model_fields_set:
        yield f"{path}.live: a backup of the database never needs this key, because it is a dump; remove live"


def _store_backup_errors(app: App, tier: str, backup: Backup, path: str) -> Iterator[str]:
    if not app.stores[tier].volumes:
        yield f"{path}: {tier} has no volumes; remove backup"
    if "full" in backup.model_fields_set:
        yield f"{path}.full: every backup of a store has all its volumes; remove full, and set schedule"
    prefix = names.store_backup(tier)
    volumes = {volume for store in app.stores.values() for volume in store.volumes}
    for name in sorted({*app.services, *app.volumes, *volumes}):
        if name in (prefix, f"{prefix}s") or name.startswith(f"{prefix}-"):
            yield f"{path}: the backups of {tier} need names that begin with {prefix}, but the application uses {name}; rename {name}"


def _target_errors(environment: Environment, backup: Backup, path: str) -> Iterator[str]:
    if environment.kubernetes and backup.target.directory:
        yield f"{path}.target.directory: pods can't use a folder of their node; replace `directory` by `volume` or `s3`"
    if environment.kubernetes and not backup.image and not environment.registry:
        yield f"{path}: the cluster must pull the backup image from a registry; set environment.registry"
    if not environment.kubernetes:
        for key in ("storage", "storage_class"):
            if key in backup.target.model_fields_set:
                yield f"{path}.target.{key}: it has no effect on Docker; remove it"


def _shared_folder_errors(environment: Environment) -> Iterator[str]:
    """Yield an error for each backup whose folder another backup uses, because their repositories would be one."""
    folders: dict[str, str] = {}
    for tier, backup in environment.backups.items():
        folder = (backup.target.directory or "").rstrip("/")
        if folder and (other := folders.setdefault(folder, tier)) != tier:
            yield f"environment.tiers.{tier}.backup.target.directory: the backups of {other} are in this folder; use another folder"


def _variable_errors(app: App, environment: Environment) -> Iterator[str]:
    for tier, service in app.processes.items():
        variables = service.env | environment.tier_settings(tier).env
        size = sum(len(text.encode()) for pair in variables.items() for text in pair)
        if size > VARIABLES_SIZE:
            yield (
                f"{app.path(tier)}.env: all variables together have {size} bytes, but a process accepts {VARIABLES_SIZE}; "
                "move the longest values into files of the image"
            )


def _copy_errors(environment: Environment) -> Iterator[str]:
    for tier, size in environment.tiers.items():
        path = f"environment.tiers.{tier}.copy_of"
        if not size.copy_of:
            continue
        if tier != DATABASE.name:
            yield f"{path}: only the database has this key; remove `copy_of`"
        elif environment.protect_data:
            yield f"{path}: copy_of requires protect_data: false; remove one of them"
        elif not size.backup:
            yield f"{path}: the backup workload restores the copy, but backups are not set; set environment.tiers.database.backup"
        elif environment.archived:
            yield (
                f"{path}: the continuous archive would store personal data before it is anonymised; back up to a volume "
                "(environment.tiers.database.backup.target), or remove copy_of"
            )
