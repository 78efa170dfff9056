"""Monitoring of an environment: metrics exporters for its data tiers, Prometheus' targets and rules, in a component of its own."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pulumi import ComponentResource, Resource

from .alerts import EXPORTER_PORTS, Watched
from .config import TierName
from .platforms import Platform
from .switch import Switch
from .tier import DATA_PORTS, Description, database_name
from .workload import Image, Probe, Resources, Workload, Zone

USER = 65534
"""User id of nobody in the public images."""
SMALL = Resources(cpu=0.1, memory=64 * 2**20, reserve=0.01)


def exporters(watched: Watched, description: Description) -> dict[TierName, Workload]:
    """Return a metrics exporter for each data tier that runs here and has no metrics of its own."""
    factories = {TierName.DATABASE: _database, TierName.CACHE: _cache}
    return {tier: factories[tier](watched, description) for tier in watched.exported}


def _database(watched: Watched, description: Description) -> Workload:
    """Return postgres_exporter. It logs in as the database's owner, limited in each session to pg_monitor and read-only transactions.

    postgres_exporter 0.11 splits its connection string at spaces and equals signs, fails on a password that has one, and logs it.
    Such a password reaches the driver in PGPASSWORD instead, which a shell sets before it replaces itself.
    """
    described = watched.app.database
    assert described
    limits = "role=pg_monitor&default_transaction_read_only=on"
    name = database_name(described, description.environment)
    uri = f"{TierName.DATABASE}:{DATA_PORTS[TierName.DATABASE]}/{name}?sslmode=disable&{limits}"
    password = description.secrets[described.password]
    if password.pairable:
        env = {"DATA_SOURCE_PASS_FILE": password.path, "DATA_SOURCE_URI": uri, "DATA_SOURCE_USER": described.user}
        return _exporter(watched, description, TierName.DATABASE, password.name, env)
    env = {"DATA_SOURCE_NAME": f"postgresql://{quote(described.user)}@{uri}"}
    command = ("sh", "-c", f'PGPASSWORD="$(cat {password.path})" exec /bin/postgres_exporter')
    return _exporter(watched, description, TierName.DATABASE, password.name, env, command)


def _cache(watched: Watched, description: Description) -> Workload:
    """Return redis_exporter. It can't read a bare password from a file, so a shell exports the password and then replaces itself."""
    described = watched.app.cache
    assert described
    password = description.secrets[described.password]
    env = {"REDIS_ADDR": f"redis://{TierName.CACHE}:{DATA_PORTS[TierName.CACHE]}"}
    command = ("sh", "-c", f'REDIS_PASSWORD="$(cat {password.path})" exec /redis_exporter')
    return _exporter(watched, description, TierName.CACHE, password.name, env, command)


def _exporter(
    watched: Watched,
    description: Description,
    tier: TierName,
    password: str,
    env: Mapping[str, str],
    command: tuple[str, ...] = (),
) -> Workload:
    reference = watched.environment.watchers(watched.app)[f"exporters.{tier}"]
    path = f"environment.monitoring.exporters.{tier}"
    return Workload(
        tier=f"{tier}-exporter",
        image=Image(reference=reference, path=path, pull_secrets=description.pull_secrets),
        resources=SMALL,
        command=command,
        env=tuple(sorted(env.items())),
        secrets=(description.secrets[password],),
        port=EXPORTER_PORTS[tier],
        probe=Probe(path="/", port=EXPORTER_PORTS[tier]),
        zones=(Zone.DATA, Zone.WATCH),
        writable=("/tmp",),
        user=USER,
        needs=(str(tier),),
    )


class Monitoring(ComponentResource):
    """Monitoring of an environment. Nothing depends on it. Only the target with the live release depends on the switch."""

    def __init__(
        self,
        platform: Platform,
        description: Description,
        shared: Mapping[TierName, Sequence[Resource]],
        switch: Switch,
    ) -> None:
        super().__init__("tiers:monitoring:Monitoring", "monitoring", None, None)
        watched = Watched(app=description.app, environment=description.environment, namespace=platform.namespace)
        workloads = exporters(watched, description)
        platform.watch(self, watched, workloads, {tier: shared.get(tier, ()) for tier in workloads})
        platform.announce(self, watched, switch.said)
        self.register_outputs({})
