"""The database tier: PostgreSQL, kept outside of the slots."""

from collections.abc import Sequence

from pulumi import ComponentResource, Resource, ResourceOptions

from .config import Database as DatabaseConfig
from .config import TierName
from .platforms import Platform
from .tier import POSTGRES_PORT, Description
from .workload import Image, Probe, Volume, Workload, Zone


def workload(described: DatabaseConfig, description: Description) -> Workload:
    """PostgreSQL with the public image's contract (POSTGRES_*, *_FILE), data checksums on, stopped by SIGINT's fast way."""
    password = description.secrets[described.password]
    return Workload(
        tier=TierName.DATABASE,
        image=Image(reference=described.image, path="app.database.image"),
        resources=description.resources(TierName.DATABASE),
        env=(
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
        writable=("/tmp", "/var/run/postgresql"),
        volumes=(Volume(name="database-data", path="/var/lib/postgresql/data"),),
        user=described.uid,
        start_within=120,
        stop_within=60,
    )


class Database(ComponentResource):
    """The running database. `ready` is what to wait for until it takes connections."""

    def __init__(self, name: str, platform: Platform, args: Workload, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:database:Database", name, None, opts)
        supplies = platform.prepare(self, [args], None)
        self.ready: Sequence[Resource] = platform.keep(self, args, supplies)
        self.register_outputs({"host": args.tier, "port": args.port})
