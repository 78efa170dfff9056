"""The database tier: PostgreSQL, outside of the slots."""

from pathlib import Path

from pulumi import ResourceOptions

from . import archive
from .config import ConfigError, TierName
from .config import Database as DatabaseConfig
from .named import read_text
from .names import DATABASE_DATA, SUBDOMAIN, as_file_name
from .platforms import Platform
from .tier import POOLED, POSTGRES_PORT, REPLICATED, Data, DataTier, Description, data_image, elsewhere
from .workload import DatabaseCluster, Image, Probe, Script, Workload, Zone

FOLDER = "/var/lib/postgresql/data"
LARGEST = 512 * 2**10
"""Limit of all SQL files together, in bytes."""


APART = {"zones": "topology.kubernetes.io/zone", "hosts": "kubernetes.io/hostname", "anywhere": None}


def workload(described: DatabaseConfig, description: Description) -> Data:
    """Return the database of this environment: an external service, a cluster or a single instance."""
    if outside := elsewhere(TierName.DATABASE, description.environment):
        return outside
    if description.environment.size(TierName.DATABASE).ha:
        return _replicated(described, description)
    return _single(described, description, data_image(TierName.DATABASE, described, description))


def _replicated(described: DatabaseConfig, description: Description) -> DatabaseCluster:
    environment, pull_secrets = description.environment, description.pull_secrets
    size = environment.size(TierName.DATABASE)
    pooler = Image(reference=environment.pooler, path="environment.pooler", pull_secrets=pull_secrets)
    return DatabaseCluster(
        tier=TierName.DATABASE,
        name=REPLICATED,
        pooled=POOLED,
        image=data_image(TierName.DATABASE, described, description),
        pooler=pooler,
        resources=description.resources(TierName.DATABASE),
        database=described.name,
        owner=described.user,
        password=description.secrets[described.password],
        port=POSTGRES_PORT,
        volume=description.volume(TierName.DATABASE, REPLICATED, FOLDER),
        scripts=_scripts(described, description),
        priority=size.priority_class,
        start_within=described.start_within,
        apart=APART[environment.cluster.apart],
        archive=archive.described(description),
        beside=_before(described, description) if size.single else None,
    )


def _before(described: DatabaseConfig, description: Description) -> Workload:
    """Return the former single instance beside the cluster. The environment's pinned image is the cluster's, so it uses the application's."""
    return _single(described, description, Image(reference=described.image, path="app.database.image"))


def _single(described: DatabaseConfig, description: Description, image: Image) -> Workload:
    """Return PostgreSQL with the public image's interface (POSTGRES_*, *_FILE) and data checksums. SIGINT stops it in fast mode."""
    password = description.secrets[described.password]
    return Workload(
        tier=TierName.DATABASE,
        image=image,
        resources=description.resources(TierName.DATABASE),
        env=(
            # A folder below the mount: initdb must own its folder, and the mount may have another owner.
            ("PGDATA", f"{FOLDER}/pgdata"),
            ("POSTGRES_DB", described.name),
            ("POSTGRES_INITDB_ARGS", "--data-checksums"),
            ("POSTGRES_PASSWORD_FILE", password.path),
            ("POSTGRES_USER", described.user),
        ),
        secrets=(password,),
        port=POSTGRES_PORT,
        probe=Probe(command=takes_connections(described)),
        zones=(Zone.DATA,),
        priority=description.environment.size(TierName.DATABASE).priority_class,
        writable=("/tmp", "/var/run/postgresql"),
        scripts=_scripts(described, description),
        volumes=(description.volume(TierName.DATABASE, DATABASE_DATA, FOLDER),),
        user=described.uid,
        start_within=described.start_within,
        stop_within=60,
    )


def _scripts(described: DatabaseConfig, description: Description) -> tuple[Script, ...]:
    """Return the SQL files of a new database. Their names begin with a number, because the image runs them in sorted order.

    Raises:
        ConfigError: a file is not UTF-8 text, or the files are too large together: a ConfigMap takes a megabyte.
    """
    seed = described.seed if description.environment.seed else ()
    files = [(f"app.database.init.{number}", name) for number, name in enumerate(described.init)]
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
        _refuse_unread(name, path, several=description.environment.size(TierName.DATABASE).ha)
    if sum(len(script.text.encode()) for script in scripts) > LARGEST:
        path = files[-1][0].rpartition(".")[0]
        raise ConfigError(f"{path}: these files are too large together; load them with a task of the api")
    return tuple(scripts)


def _refuse_unread(name: str, path: str, *, several: bool) -> None:
    """Refuse a file that would not run as its name suggests.

    The public image skips other endings (docker-library/postgres, docker-entrypoint.sh). CloudNativePG runs every file as SQL.
    """
    if several and name.endswith(".sh"):
        raise ConfigError(f"{path}: {name} is a shell script, and with `ha` only SQL runs; write it in SQL")
    if not several and not name.endswith((".sql", ".sh")):
        raise ConfigError(f"{path}: {name} does not end with .sql, and the image runs no other file; rename it")


def takes_connections(described: DatabaseConfig) -> tuple[str, ...]:
    """Return a command that ends with 0 if the database takes connections.

    It connects over TCP: during initialisation the image runs a temporary server that listens on the socket only.
    """
    return ("pg_isready", "-q", "-h", "127.0.0.1", "-U", described.user, "-d", described.name)


class Database(DataTier):
    """The database, shared by both slots."""

    def __init__(self, name: str, platform: Platform, args: Data, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:database:Database", name, platform, args, opts)
