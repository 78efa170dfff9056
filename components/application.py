"""Application: workloads, routes and data services, rendered from the configuration for any platform."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import shared
from .context import Context
from .model.workload import DatabaseCluster, Route, Scale, Workload
from .release import planner
from .release.planner import Release
from .rendering import Data, render_routes, render_service
from .shared import SharedServices


@dataclass(frozen=True, kw_only=True)
class Application:
    """Desired content of a stack, independent of the platform: services, routes, data services and backups.

    Creating an `Application` registers no resource. `plan_rollout` compares the application with the state of the stack.

    Example:
        application = Application.from_context(Context.load())
        pulumi.export("version", application.version)
    """

    version: str
    """Configured version (`app.version`). The name of a release is `VERSION-DIGEST`."""
    workloads: Mapping[str, Workload]
    """Workload of each service in a slot, by the service's name."""
    scales: Mapping[str, Scale]
    """Number of replicas of each service in a slot, by the service's name. A new number makes no new release."""
    routes: Sequence[Route]
    """Routes from the gateway to the services."""
    shared: SharedServices
    """Data services that both slots share, and their backups."""
    contract: bool = False
    """True if a migration of this release breaks the previous release. A rollback past this migration is then refused."""

    @classmethod
    def from_context(cls, context: Context) -> "Application":
        """Return the application that the configuration describes.

        Read the configured SQL scripts, and compute the digest of each build context.

        Args:
            context: the stack and its configuration.

        Raises:
            ConfigError: a file that the configuration names can't be read or used.
        """
        app, description = context.app, context.description
        return cls(
            version=app.version,
            workloads={
                name: render_service(name, settings, description) for name, settings in app.slot_services.items()
            },
            scales={name: description.scale(name) for name in app.slot_services},
            routes=render_routes(app, context.environment),
            shared=shared.render(description),
            contract=app.contract,
        )

    @property
    def data(self) -> Mapping[str, Data]:
        """Data services by name. Each service is a single instance, replicated Redis, a database cluster or an external
        service."""
        return self.shared.data

    @property
    def release(self) -> Release:
        """Release of this application: the version, and a digest of all workloads and routes."""
        return planner.identify(self.version, [*self.workloads.values(), *self.routes], contract=self.contract)

    @property
    def stateful(self) -> list[Workload | DatabaseCluster]:
        """Workloads that may have data volumes. The guard (components/safety) refuses to delete these volumes."""
        return [*self.workloads.values(), *self.shared.stateful]
