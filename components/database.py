"""The database tier: PostgreSQL, kept outside of the slots."""

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
"""Bytes of all SQL files together."""


APART = {"zones": "topology.kubernetes.io/zone", "hosts": "kubernetes.io/hostname", "anywhere": None}


def workload(described: DatabaseConfig, description: Description) -> Data:
    """The database as this environment has it: somewhere else, of several instances, or one."""
    if outside := elsewhere(TierName.DATABASE, description.environment):
        return outside
    if description.environment.size(TierName.DATABASE).ha:
        return _replicated(described, description)
    return _single(described, description, data_image(TierName.DATABASE, described, description))


def _replicated(described: DatabaseConfig, description: Description) -> DatabaseCluster:
    environment, pulled_by = description.environment, description.pull_secrets
    size = environment.size(TierName.DATABASE)
    pooler = Image(reference=environment.pooler, path="environment.pooler", pull_secrets=pulled_by)
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
    """The single one beside the three: what the environment names an image of is these."""
    return _single(described, description, Image(reference=described.image, path="app.database.image"))


def _single(described: DatabaseConfig, description: Description, image: Image) -> Workload:
    """PostgreSQL with the public image's contract (POSTGRES_*, *_FILE), data checksums on, stopped by SIGINT's fast way."""
    password = description.secrets[described.password]
    return Workload(
        tier=TierName.DATABASE,
        image=image,
        resources=description.resources(TierName.DATABASE),
        env=(
            # Below the volume: its own folder belongs to whoever made it, and initdb wants to own what it fills.
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
    """The SQL that a new database begins with; each file's place in the order begins its name, for the image sorts them.

    Raises:
        ConfigError: one is no file of UTF-8 text, or they are too large: a ConfigMap takes a megabyte.
    """
    seed = described.seed if description.environment.seed else ()
    files = [(f"app.database.init.{number}", name) for number, name in enumerate(described.init)]
    files += [(f"app.database.seed.{number}", name) for number, name in enumerate(seed)]
    digits = max(len(str(len(files) - 1)), 2)
    found = [
        Script(
            name=f"{place:0{digits}}-{as_file_name(Path(name).name, SUBDOMAIN - digits - 1)}",
            text=read_text(name, path, description.root),
        )
        for place, (path, name) in enumerate(files)
    ]
    for path, name in files:
        _refuse_unread(name, path, several=description.environment.size(TierName.DATABASE).ha)
    if sum(len(script.text.encode()) for script in found) > LARGEST:
        path = files[-1][0].rpartition(".")[0]
        raise ConfigError(f"{path}: these files are too large to begin with; load them by a task of the api")
    return tuple(found)


def _refuse_unread(name: str, path: str, *, several: bool) -> None:
    """Refuse a file that is not run as its name says.

    The public image passes over other endings (docker-library/postgres, docker-entrypoint.sh); CloudNativePG runs all as SQL.
    """
    if several and name.endswith(".sh"):
        raise ConfigError(f"{path}: {name} is a script of a shell, and with `ha` only SQL is run; write it in SQL")
    if not several and not name.endswith((".sql", ".sh")):
        raise ConfigError(f"{path}: {name} does not end with .sql, and the image runs no other file; rename it")


def takes_connections(described: DatabaseConfig) -> tuple[str, ...]:
    """Ends with 0 if it does. Over TCP: while the image initialises, its temporary server answers on the socket only."""
    return ("pg_isready", "-q", "-h", "127.0.0.1", "-U", described.user, "-d", described.name)


class Database(DataTier):
    """The database, shared by both slots."""

    def __init__(self, name: str, platform: Platform, args: Data, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:database:Database", name, platform, args, opts)
