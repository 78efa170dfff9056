"""Monitoring component: metrics exporters of data services, Prometheus with its targets and rules, and the dashboard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from .context import Description
from .model.services import CACHE, DATABASE
from .model.workload import Image, Probe, Resources, Workload, Zone
from .observability.alerts import EXPORTER_PORTS, MonitoringScope
from .platforms import Deployer
from .rendering import database_name

USER = 65534
"""UID of the user `nobody` in the public images."""
EXPORTER_RESOURCES = Resources(cpu=0.1, memory=64 * 2**20, reserve=0.01)


def exporters(monitored: MonitoringScope, description: Description) -> dict[str, Workload]:
    """Return the workloads of the metrics exporters, by name of the data service. A service that serves metrics itself gets
    none."""
    factories = {DATABASE.name: _database, CACHE.name: _cache}
    return {tier: factories[tier](monitored, description) for tier in monitored.exported}


def _database(monitored: MonitoringScope, description: Description) -> Workload:
    """Return the workload of postgres_exporter. It logs in as the owner of the database, and then uses the role pg_monitor and
    read-only transactions.

    postgres_exporter 0.11 fails on a password with a space or an equals sign, and logs the password. A shell therefore passes
    such a password in the variable PGPASSWORD.
    """
    settings = monitored.app.database
    assert settings
    limits = "role=pg_monitor&default_transaction_read_only=on"
    name = database_name(settings, description.environment)
    uri = f"{DATABASE.name}:{DATABASE.port}/{name}?sslmode=disable&{limits}"
    password = description.secrets[settings.password]
    if password.pairable:
        env = {"DATA_SOURCE_PASS_FILE": password.path, "DATA_SOURCE_URI": uri, "DATA_SOURCE_USER": settings.user}
        return _exporter(monitored, description, DATABASE.name, password.name, env)
    env = {"DATA_SOURCE_NAME": f"postgresql://{quote(settings.user)}@{uri}"}
    command = ("sh", "-c", f'PGPASSWORD="$(cat {password.path})" exec /bin/postgres_exporter')
    return _exporter(monitored, description, DATABASE.name, password.name, env, command)


def _cache(monitored: MonitoringScope, description: Description) -> Workload:
    """Return the workload of redis_exporter. A shell copies the password from its file to an environment variable, because
    redis_exporter can't read a password from a plain text file."""
    settings = monitored.app.cache
    assert settings
    password = description.secrets[settings.password]
    env = {"REDIS_ADDR": f"redis://{CACHE.name}:{CACHE.port}"}
    command = ("sh", "-c", f'REDIS_PASSWORD="$(cat {password.path})" exec /redis_exporter')
    return _exporter(monitored, description, CACHE.name, password.name, env, command)


def _exporter(
    monitored: MonitoringScope,
    description: Description,
    tier: str,
    password: str,
    env: Mapping[str, str],
    command: tuple[str, ...] = (),
) -> Workload:
    reference = monitored.environment.monitoring_images(monitored.app)[f"exporters.{tier}"]
    path = f"environment.monitoring.exporters.{tier}"
    return Workload(
        tier=f"{tier}-exporter",
        image=Image(reference=reference, path=path, pull_secrets=description.pull_secrets),
        resources=EXPORTER_RESOURCES,
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


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """Arguments of `Monitoring`."""

    platform: Deployer
    """The platform to deploy to (`connect`)."""
    description: Description
    """Configuration of the application and its environment (`Context.description`). `environment.monitoring` must be set."""
    data: Mapping[str, Sequence[Resource]]
    """Resources of each data service by its name (`DataService.ready`). The exporter of a service starts after
    these resources."""
    live: Output[Mapping[str, str]]
    """Live release and its slot (`Switch.live`). The metric `tiers_release_info` shows both."""


class Monitoring(ComponentResource):
    """Deploy metrics exporters, scrape targets, recording rules, alerts and the dashboard.

    On Docker the component also deploys Prometheus. On Kubernetes the component creates objects for the cluster's
    prometheus-operator. No other component depends on monitoring.

    Args:
        name: resource name, which is part of the state.
        args: see `MonitoringArgs`.
        opts: options of the component.

    Example:
        Monitoring("monitoring", MonitoringArgs(platform=platform, description=context.description, data=data, live=switch.live))
    """

    def __init__(self, name: str, args: MonitoringArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("tiers:monitoring:Monitoring", name, None, opts)
        platform, description = args.platform, args.description
        monitored = MonitoringScope(
            app=description.app, environment=description.environment, namespace=platform.namespace
        )
        workloads = exporters(monitored, description)
        platform.deploy_monitoring(self, monitored, workloads, {name: args.data.get(name, ()) for name in workloads})
        platform.publish_release(self, monitored, args.live)
        self.register_outputs({})
