"""Resources that both slots share: database, cache and their backups. The guard checks the same description that is deployed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pulumi import Output, Resource

from . import backup, cache, database
from .backup import Backup
from .cache import Cache
from .config import TierName
from .database import Database
from .platforms import Platform
from .tier import Data, Description, alone
from .workload import DatabaseCluster, Workload

_COMPONENTS = {TierName.DATABASE: Database, TierName.CACHE: Cache}


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The data tiers of the environment, and their backups."""

    tiers: Mapping[TierName, Data]
    backups: backup.Args | None

    @property
    def holding(self) -> list[Workload | DatabaseCluster]:
        """Return every workload that may hold data on this platform. The guard checks the effect of a plan on each."""
        stateful: list[Workload | DatabaseCluster] = [single for data in self.tiers.values() for single in alone(data)]
        stateful += [data for data in self.tiers.values() if isinstance(data, DatabaseCluster)]
        return [*stateful, self.backups.holder] if self.backups else stateful

    def make(self, platform: Platform) -> dict[TierName, Sequence[Resource]]:
        """Deploy the data tiers. Return, for each tier, the resources that exist once it takes connections."""
        return {name: _COMPONENTS[name](name, platform, data).ready for name, data in self.tiers.items()}

    def back_up(self, platform: Platform, live: Mapping[str, str], after: Output[Resource]) -> None:
        """Deploy the backups of the database that the live slot uses.

        Args:
            platform: the platform to deploy to.
            live: the database variables of the live slot; empty to take them from the configuration.
            after: the switch. The backups change after traffic has moved, so a failing gate leaves them unchanged.
        """
        if self.backups:
            Backup("backup", platform, self.backups.of(live), after)


def described(description: Description) -> Shared:
    """Return the shared tiers that the application describes."""
    app, tiers = description.app, dict[TierName, Data]()
    if app.database:
        tiers[TierName.DATABASE] = database.workload(app.database, description)
    if app.cache:
        tiers[TierName.CACHE] = cache.workload(app.cache, description)
    return Shared(tiers=tiers, backups=backup.described(description))
