"""Services that both slots share: database, cache, stores and backups."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import backup, cache, database, store
from .config import DataSettings, Store
from .context import Description
from .model.services import CACHE, DATABASE
from .model.workload import DatabaseCluster, Workload
from .rendering import Data, single_instances

RENDERERS: dict[str, Callable[[Any, Description], Data]] = {
    DATABASE.name: database.workload,
    CACHE.name: cache.workload,
}
"""Functions that render the data services, by name of the service. Each function gets the settings of the service in `app`. All other
data services are stores (`store.workload`)."""


@dataclass(frozen=True, kw_only=True)
class SharedServices:
    """Data services of the environment, and their backups.

    Example:
        services = application.shared
        has_backups = services.backups is not None
    """

    data: Mapping[str, Data]
    """Data services by name."""
    backups: backup.BackupPlan | None
    """Backups of the database, or None if the environment configures none."""
    store_backups: Mapping[str, backup.BackupPlan]
    """Backups of stores, by name of the backup workload, such as `mysql-backup`."""

    @property
    def stateful(self) -> list[Workload | DatabaseCluster]:
        """Shared workloads that may have data volumes. The guard (components/safety) refuses an update that would delete a volume."""
        stateful: list[Workload | DatabaseCluster] = [
            single for data in self.data.values() for single in single_instances(data)
        ]
        stateful += [data for data in self.data.values() if isinstance(data, DatabaseCluster)]
        plans = [*([self.backups] if self.backups else []), *self.store_backups.values()]
        return [*stateful, *(plan.holder for plan in plans)]


def render(description: Description) -> SharedServices:
    """Return the configured data services and backups."""
    data = {name: _render(name, settings, description) for name, settings in description.app.data.items()}
    store_backups = backup.render_stores(description)
    return SharedServices(data=data, backups=backup.render(description), store_backups=store_backups)


def _render(name: str, settings: DataSettings, description: Description) -> Data:
    if isinstance(settings, Store):
        return store.workload(name, settings, description)
    return RENDERERS[name](settings, description)
