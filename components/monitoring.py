"""Monitoring component: metrics exporters of data services, Prometheus with its targets and rules, and the dashboard."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from . import config
from .config import ConfigError
from .context import Description
from .model.services import CACHE, DATABASE, Service
from .model.workload import Image, Probe, Resources, Secret, Workload, Zone
from .observability.alerts import MonitoringScope
from .platforms import Deployer
from .rendering import database_name

USER = 65534
"""UID of the user `nobody` in the public images."""
EXPORTER_RESOURCES = Resources(cpu=0.1, memory=64 * 2**20, reserve=0.01)


def _database(settings: config.Database, description: Description) -> Workload:
    """Return the workload of postgres_exporter, which logs in as the owner of the database.

    After the login, postgres_exporter uses the role pg_monitor and read-only transactions.

    postgres_exporter 0.11 fails on a password with a space or an equals sign, and logs the password. A shell therefore passes
    such a password in the variable PGPASSWORD.
    """
    limits = "role=pg_monitor&default_transaction_read_only=on"
    name = database_name(settings, description.environment)
    uri = f"{DATABASE.name}:{DATABASE.port}/{name}?sslmode=disable&{limits}"
    password = description.secrets[settings.password]
    if password.pairable:
        env = {"DATA_SOURCE_PASS_FILE": password.path, "DATA_SOURCE_URI": uri, "DATA_SOURCE_USER": settings.user}
        return exporter_workload(DATABASE, description, env, secrets=(password,))
    env = {"DATA_SOURCE_NAME": f"postgresql://{quote(settings.user)}@{uri}"}
    command = ("sh", "-c", f'PGPASSWORD="$(cat {password.path})" exec /bin/postgres_exporter')
    return exporter_workload(DATABASE, description, env, secrets=(password,), command=command)


def _cache(settings: config.Cache, description: Description) -> Workload:
    """Return the workload of redis_exporter. A shell copies the password from its file to an environment variable, because
    redis_exporter can't read a password from a plain text file."""
    password = description.secrets[settings.password]
    env = {"REDIS_ADDR": f"redis://{CACHE.name}:{CACHE.port}"}
    command = ("sh", "-c", f'REDIS_PASSWORD="$(cat {password.path})" exec /redis_exporter')
    return exporter_workload(CACHE, description, env, secrets=(password,), command=command)


EXPORTERS: dict[str, Callable[[Any, Description], Workload]] = {DATABASE.name: _database, CACHE.name: _cache}
"""Functions that render the metrics exporters, by name of the data service. Each function gets the settings of the service in
`app`."""


def exporters(description: Description) -> dict[str, Workload]:
    """Return the workload of each metrics exporter, by name of the data service.

    A service that serves metrics itself has no exporter.
    """
    app = description.app
    return {name: EXPORTERS[name](app.data[name], description) for name in description.environment.exporters(app)}


def exporter_workload(
    record: Service,
    description: Description,
    env: Mapping[str, str],
    *,
    secrets: tuple[Secret, ...] = (),
    command: tuple[str, ...] = (),
) -> Workload:
    """Return the workload of a data service's metrics exporter, with the image and port from the service's record.

    Args:
        record: record of the data service. Its field `exporter` must be set.
        description: configuration of the application and its environment. `environment.monitoring` must be set.
        env: environment variables of the exporter.
        secrets: secrets that the exporter reads as files.
        command: command that replaces the image's command.
    """
    assert record.exporter, "the record of the service has an exporter"
    key = f"exporters.{record.name}"
    reference = description.environment.monitoring_images(description.app)[key]
    return Workload(
        tier=f"{record.name}-exporter",
        image=Image(reference=reference, path=f"environment.monitoring.{key}", pull_secrets=description.pull_secrets),
        resources=EXPORTER_RESOURCES,
        command=command,
        env=tuple(sorted(env.items())),
        secrets=secrets,
        port=record.exporter.port,
        probe=Probe(path="/", port=record.exporter.port),
        zones=(Zone.DATA, Zone.WATCH),
        writable=("/tmp",),
        user=USER,
        needs=(record.name,),
    )


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    """Arguments of `Monitoring`."""

    platform: Deployer
    """The platform to deploy to (`Rollout.platform`)."""
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

    Raises:
        ConfigError: `environment.monitoring` is not set.

    Example:
        args = MonitoringArgs(platform=platform, description=context.description, data=data, live=switch.live)
        monitoring = Monitoring("monitoring", args)
        query = monitoring.scope.selector("up", job="api")  # for a rule or dashboard of the program itself
    """

    scope: MonitoringScope
    """Monitored environment. Its methods return PromQL for a program's own rules and dashboards."""

    def __init__(self, name: str, args: MonitoringArgs, opts: ResourceOptions | None = None) -> None:
        platform, description = args.platform, args.description
        if not description.environment.monitoring:
            raise ConfigError("environment.monitoring: it is not set; set it, or leave out the component Monitoring")
        super().__init__("tiers:monitoring:Monitoring", name, None, opts)
        self.scope = MonitoringScope(
            app=description.app, environment=description.environment, namespace=platform.namespace
        )
        workloads = exporters(description)
        platform.deploy_monitoring(self, self.scope, workloads, {name: args.data.get(name, ()) for name in workloads})
        platform.publish_release(self, self.scope, args.live)
        self.register_outputs({})
