"""The database tier: PostgreSQL, kept outside of the slots."""

from pulumi import ResourceOptions

from .config import Database as DatabaseConfig
from .config import TierName
from .platforms import Platform
from .tier import POSTGRES_PORT, DataTier, Description, data_image, elsewhere
from .workload import Elsewhere, Probe, Workload, Zone

FOLDER = "/var/lib/postgresql/data"


def workload(described: DatabaseConfig, description: Description) -> Workload | Elsewhere:
    """PostgreSQL with the public image's contract (POSTGRES_*, *_FILE), data checksums on, stopped by SIGINT's fast way."""
    if outside := elsewhere(TierName.DATABASE, description.environment):
        return outside
    password = description.secrets[described.password]
    return Workload(
        tier=TierName.DATABASE,
        image=data_image(TierName.DATABASE, described.image, description),
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
        # Over TCP: while the image initialises, its temporary server answers on the socket only.
        probe=Probe(command=("pg_isready", "-q", "-h", "127.0.0.1", "-U", described.user, "-d", described.name)),
        zones=(Zone.DATA,),
        priority=description.environment.size(TierName.DATABASE).priority_class,
        writable=("/tmp", "/var/run/postgresql"),
        volumes=(description.volume(TierName.DATABASE, "database-data", FOLDER),),
        user=described.uid,
        start_within=described.start_within,
        stop_within=60,
    )


class Database(DataTier):
    """The database, shared by both slots."""

    def __init__(
        self, name: str, platform: Platform, args: Workload | Elsewhere, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("tiers:database:Database", name, platform, args, opts)
