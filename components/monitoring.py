"""What keeps an eye on an environment: exporters beside its data, and whoever asks them and the tiers, in a component of its own."""

from collections.abc import Mapping, Sequence

from pulumi import ComponentResource, Resource

from .alerts import EXPORTER_PORTS, Watched
from .config import TierName
from .platforms import Platform
from .switch import Switch
from .tier import DATA_PORTS, Description, database_name
from .workload import Image, Probe, Resources, Workload, Zone

USER = 65534
"""User nobody of the public images."""
SMALL = Resources(cpu=0.1, memory=64 * 2**20, reserve=0.01)


def exporters(watched: Watched, description: Description) -> dict[TierName, Workload]:
    """Data tier → what asks it how it is, where it runs here and does not say so itself."""
    made = {TierName.DATABASE: _database, TierName.CACHE: _cache}
    return {tier: made[tier](watched, description) for tier in watched.exported}


def _database(watched: Watched, description: Description) -> Workload:
    """postgres_exporter, as the owner of the database, who in each session is no more than pg_monitor and changes nothing."""
    described = watched.app.database
    assert described
    limits = "role=pg_monitor&default_transaction_read_only=on"
    name = database_name(described, description.environment)
    where = f"{TierName.DATABASE}:{DATA_PORTS[TierName.DATABASE]}/{name}?sslmode=disable&{limits}"
    password = description.secrets[described.password]
    told = {"DATA_SOURCE_PASS_FILE": password.path, "DATA_SOURCE_URI": where, "DATA_SOURCE_USER": described.user}
    return _exporter(watched, description, TierName.DATABASE, password.name, told)


def _cache(watched: Watched, description: Description) -> Workload:
    """redis_exporter. It takes no file with just a password in it: the shell that hands it over makes way for it."""
    described = watched.app.cache
    assert described
    password = description.secrets[described.password]
    told = {"REDIS_ADDR": f"redis://{TierName.CACHE}:{DATA_PORTS[TierName.CACHE]}"}
    command = ("sh", "-c", f'REDIS_PASSWORD="$(cat {password.path})" exec /redis_exporter')
    return _exporter(watched, description, TierName.CACHE, password.name, told, command)


def _exporter(
    watched: Watched,
    description: Description,
    tier: TierName,
    password: str,
    told: Mapping[str, str],
    command: tuple[str, ...] = (),
) -> Workload:
    reference = watched.environment.watchers(watched.app)[f"exporters.{tier}"]
    path = f"environment.monitoring.exporters.{tier}"
    return Workload(
        tier=f"{tier}-exporter",
        image=Image(reference=reference, path=path, pull_secrets=description.pull_secrets),
        resources=SMALL,
        command=command,
        env=tuple(sorted(told.items())),
        secrets=(description.secrets[password],),
        port=EXPORTER_PORTS[tier],
        probe=Probe(path="/", port=EXPORTER_PORTS[tier]),
        zones=(Zone.DATA, Zone.WATCH),
        writable=("/tmp",),
        user=USER,
        needs=(str(tier),),
    )


class Monitoring(ComponentResource):
    """What watches an environment. Nothing waits for it; of the switch it waits for nothing but the word that it has moved."""

    def __init__(
        self,
        platform: Platform,
        description: Description,
        shared: Mapping[TierName, Sequence[Resource]],
        switch: Switch,
    ) -> None:
        super().__init__("tiers:monitoring:Monitoring", "monitoring", None, None)
        watched = Watched(app=description.app, environment=description.environment, namespace=platform.namespace)
        asked = exporters(watched, description)
        platform.watch(self, watched, asked, {tier: shared.get(tier, ()) for tier in asked})
        platform.announce(self, watched, switch.said)
        self.register_outputs({})
