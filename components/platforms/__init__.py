"""Platforms on which the services of an application run. Each platform is a package with a `Deployer` and an `Inspector`.

To add a platform, add its name to the configuration and a package here.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from pulumi import ResourceOptions

from ..config import App, ConfigError, Environment
from ..context import Context
from ..model.names import LABEL_APP
from ..model.workload import DatabaseCluster, Route, Workload
from ..release.checkpoint import Checkpoint
from ..release.planner import Slot
from .base import (
    SHARED,
    Dependencies,
    Deployer,
    DeploysClusters,
    DesiredState,
    Inspector,
    InspectsClusters,
    Inventory,
    JobRun,
    Line,
    LiveObject,
    Location,
    OneOff,
    SlotTarget,
    VolumeRestore,
)
from .gateway import COOKIE, SLOT_HEADER, readiness, route_url
from .inventory import locate_configured

__all__ = ["COOKIE", "SHARED", "SLOT_HEADER", "Dependencies", "Deployer", "DeploysClusters", "DesiredState", "Inspector", "InspectsClusters",
           "Inventory", "JobRun", "Line", "LiveObject", "Location", "OneOff", "SlotTarget", "VolumeRestore", "check", "cluster_inspector", "connect", "data_resources", "inspector", "inspector_at", "locate_configured",
           "readiness", "route_url"]  # fmt: skip

DataResources = Mapping[str, tuple[str, Mapping[str, Any]]]
"""Resources that hold data: resource name → type token and inputs."""
_PACKAGES = {"docker": ".docker", "kubernetes": ".kubernetes"}
"""Name of the platform in the configuration → package."""


class _Deploying(Protocol):
    """Functions of the module `deploy`, which each platform has."""

    def connect(self, context: Context, live: Slot | None, opts: ResourceOptions | None) -> Deployer:
        """Register the foundation of the environment, and return its deployer."""
        ...

    def data_resources(self, context: Context, workloads: Sequence[Workload | DatabaseCluster]) -> DataResources:
        """Return the resources that will hold the data of `workloads`: resource name → type token and inputs."""
        ...


class _Inspecting(Protocol):
    """Functions of the module `inspect`, which each platform has."""

    def inspector(self, location: Location) -> Inspector:
        """Return an inspector of the environment at `location`."""
        ...


def _module(platform: str, name: str) -> Any:
    """Import a module of a platform's package.

    Call this only when the module is needed: a program needs only one platform, and the import of an SDK takes half a second.
    """
    return import_module(f"{_PACKAGES[platform]}.{name}", __name__)


def connect(context: Context, live: Slot | None, opts: ResourceOptions | None = None) -> Deployer:
    """Register the foundation of the environment (provider, networks, volumes), and return the platform's deployer.

    Args:
        context: configuration, secrets and checkpoint of the stack.
        live: the live slot; None if no slot is live. Error messages report the state of this slot.
        opts: options of the foundation's component.
    """
    return _deploying(context).connect(context, live, opts)


def data_resources(context: Context, workloads: Sequence[Workload | DatabaseCluster]) -> DataResources:
    """Return the resources that will hold the data of `workloads`: resource name → type token and inputs."""
    return _deploying(context).data_resources(context, workloads)


def _deploying(context: Context) -> _Deploying:
    return cast(_Deploying, _module(context.environment.platform, "deploy"))


def inspector(app: App, environment: Environment, stack: str) -> Inspector:
    """Return the inspector of the environment that the configuration files describe."""
    return inspector_at(locate_configured(app, environment, stack))


def cluster_inspector(app: App, environment: Environment, stack: str) -> InspectsClusters:
    """Return the inspector of an environment whose platform has database clusters.

    Raises:
        ConfigError: the platform has no database clusters.
    """
    cluster_inspector = inspector(app, environment, stack)
    if not isinstance(cluster_inspector, InspectsClusters):
        raise ConfigError(
            f"environment.platform: the platform {environment.platform} has no database clusters; deploy to Kubernetes"
        )
    return cluster_inspector


def inspector_at(location: Location) -> Inspector:
    """Return an inspector of the environment at `location`."""
    return cast(_Inspecting, _module(location.platform, "inspect")).inspector(location)


def check(context: Context, checkpoint: Checkpoint, routes: Sequence[Route]) -> None:
    """Check before any change that the platform is available and that the stack contains no other application.

    Raises:
        RunError: the platform is not available.
        ConfigError: the stack contains another application.
    """
    _refuse_another(context.app.name, checkpoint)
    inspector(context.app, context.environment, context.stack).check(context, checkpoint, routes)


def _refuse_another(app: str, checkpoint: Checkpoint) -> None:
    """Raise a ConfigError if the stack contains an application with another name."""
    names = {entry.labels[LABEL_APP] for entry in checkpoint.entries if LABEL_APP in entry.labels}
    if names - {app}:
        raise ConfigError(
            f"app.name: this stack contains the application {', '.join(sorted(names))}, and an application with another name would start without its data; "
            f"keep the name, or remove the stack first (`pulumi destroy`)"
        )
