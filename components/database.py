"""The database tier: PostgreSQL, which both slots share."""

from dataclasses import dataclass
from pathlib import Path

from . import archive
from .config import ConfigError
from .config import Database as DatabaseConfig
from .config.own_files import read_text
from .context import Description
from .model.names import DATABASE_DATA, SUBDOMAIN, as_file_name
from .model.services import DATABASE, POSTGRES_PORT
from .model.workload import DatabaseCluster, Image, Probe, Script, Workload, Zone
from .rendering import POOLED, REPLICATED, Data, data_image, external_service
from .service import DataService, DataServiceArgs

MOUNT_PATH = "/var/lib/postgresql/data"
SCRIPTS_SIZE = 512 * 2**10
"""Maximum size of all SQL files together, in bytes."""


def workload(settings: DatabaseConfig, description: Description) -> Data:
    """Return the configured database: an external service, a cluster or a single instance."""
    if outside := external_service(DATABASE.name, description.environment):
        return outside
    if description.environment.tier_settings(DATABASE.name).ha:
        return _replicated(settings, description)
    return _single(settings, description, data_image(DATABASE.name, settings, description))


def _replicated(settings: DatabaseConfig, description: Description) -> DatabaseCluster:
    environment, pull_secrets = description.environment, description.pull_secrets
    size = environment.tier_settings(DATABASE.name)
    pooler = Image(reference=environment.pooler, path="environment.pooler", pull_secrets=pull_secrets)
    return DatabaseCluster(
        tier=DATABASE.name,
        name=REPLICATED,
        pooled=POOLED,
        image=data_image(DATABASE.name, settings, description),
        pooler=pooler,
        resources=description.resources(DATABASE.name),
        database=settings.name,
        owner=settings.user,
        password=description.secrets[settings.password],
        port=POSTGRES_PORT,
        volume=description.volume(DATABASE.name, REPLICATED, MOUNT_PATH),
        scripts=_scripts(settings, description),
        priority=size.priority_class,
        start_within=settings.start_within,
        apart=environment.cluster.apart,
        archive=archive.render(description),
        single_instance=_former_instance(settings, description) if size.single else None,
    )


def _former_instance(settings: DatabaseConfig, description: Description) -> Workload:
    """Return the single instance that the cluster replaces. Both run during migration.

    The image is `app.database.image`, because `environment.images.database` is the image of the cluster.
    """
    return _single(settings, description, Image(reference=settings.image, path="app.database.image"))


def _single(settings: DatabaseConfig, description: Description, image: Image) -> Workload:
    """Return a single PostgreSQL instance with data checksums. The image must read the POSTGRES_* variables, as the
    public image does."""
    password = description.secrets[settings.password]
    return Workload(
        tier=DATABASE.name,
        image=image,
        resources=description.resources(DATABASE.name),
        env=(
            # PGDATA is a folder below the mount path, because initdb must own PGDATA. The mount itself may have another owner.
            ("PGDATA", f"{MOUNT_PATH}/pgdata"),
            ("POSTGRES_DB", settings.name),
            ("POSTGRES_INITDB_ARGS", "--data-checksums"),
            ("POSTGRES_PASSWORD_FILE", password.path),
            ("POSTGRES_USER", settings.user),
        ),
        secrets=(password,),
        port=POSTGRES_PORT,
        probe=Probe(command=readiness_command(settings)),
        zones=(Zone.DATA,),
        priority=description.environment.tier_settings(DATABASE.name).priority_class,
        writable=("/tmp", "/var/run/postgresql"),
        scripts=_scripts(settings, description),
        volumes=(description.volume(DATABASE.name, DATABASE_DATA, MOUNT_PATH),),
        user=settings.uid,
        start_within=settings.start_within,
        stop_within=60,
    )


def _scripts(settings: DatabaseConfig, description: Description) -> tuple[Script, ...]:
    """Return the files that run once in a new database.

    Each file name gets a number as prefix, because images run the files in the order of their names. On Kubernetes one
    ConfigMap contains all files, so `SCRIPTS_SIZE` is below the maximum size of a ConfigMap, 1 MiB.

    Raises:
        ConfigError: a file is not UTF-8 text, or all files together exceed `SCRIPTS_SIZE`.
    """
    seed = settings.seed if description.environment.seed else ()
    files = [(f"app.database.init.{number}", name) for number, name in enumerate(settings.init)]
    files += [(f"app.database.seed.{number}", name) for number, name in enumerate(seed)]
    digits = max(len(str(len(files) - 1)), 2)
    scripts = [
        Script(
            name=f"{position:0{digits}}-{as_file_name(Path(name).name, SUBDOMAIN - digits - 1)}",
            text=read_text(name, path, description.root),
        )
        for position, (path, name) in enumerate(files)
    ]
    for path, name in files:
        _refuse_other_types(name, path, is_cluster=description.environment.tier_settings(DATABASE.name).ha)
    if sum(len(script.text.encode()) for script in scripts) > SCRIPTS_SIZE:
        path = files[-1][0].rpartition(".")[0]
        raise ConfigError(
            f"{path}: all files together exceed {SCRIPTS_SIZE // 2**10} KiB; load the data with a task of the api"
        )
    return tuple(scripts)


def _refuse_other_types(name: str, path: str, *, is_cluster: bool) -> None:
    """Refuse a file type that the image would skip or misread.

    The public image runs only `.sql` and `.sh` files (docker-library/postgres, docker-entrypoint.sh). CloudNativePG runs every
    file as SQL.
    """
    if is_cluster and name.endswith(".sh"):
        raise ConfigError(
            f"{path}: {name} is a shell script, but with `ha` only SQL files run; rewrite the script in SQL"
        )
    if not is_cluster and not name.endswith((".sql", ".sh")):
        raise ConfigError(
            f"{path}: {name} does not end with .sql or .sh, so the image would skip the file; rename the file"
        )


def readiness_command(settings: DatabaseConfig) -> tuple[str, ...]:
    """Return the health check command, which exits with 0 if the database accepts connections.

    The command connects over TCP. During initialisation, PostgreSQL listens only on a Unix socket, and the check fails.
    """
    return ("pg_isready", "-q", "-h", "127.0.0.1", "-U", settings.user, "-d", settings.name)


@dataclass(frozen=True, kw_only=True)
class DatabaseArgs(DataServiceArgs):
    """Arguments of `Database`, the same as those of `DataService`."""


class Database(DataService):
    """Deploy PostgreSQL, which both slots share.

    Deploying a release changes no resource of the database. The type of `args.data` selects a single instance (`Workload`), a
    cluster (`DatabaseCluster`) or an external service (`ExternalService`).

    Args:
        name: resource name, which is part of the state.
        args: see `DatabaseArgs`.
        opts: options of the component. `protect` applies to every child; `environment.protect_data` protects the volumes only.

    Raises:
        ConfigError: `args.data` is a database cluster, but the platform has none (Docker).

    Example:
        database = Database("database", DatabaseArgs(platform=platform, data=application.data["database"]))
        pulumi.export("database", Output.concat(database.host, ":", database.port.apply(str)))
    """
