"""What both slots share: database, cache and what backs them up; described once, so that what is checked is what is made."""

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
    """The tiers that hold data, as the environment has them, and what takes their backups."""

    tiers: Mapping[TierName, Data]
    backups: backup.Args | None

    @property
    def holding(self) -> list[Workload | DatabaseCluster]:
        """All of it that may hold data here: a guard asks of these what would become of it."""
        found: list[Workload | DatabaseCluster] = [each for data in self.tiers.values() for each in alone(data)]
        found += [data for data in self.tiers.values() if isinstance(data, DatabaseCluster)]
        return [*found, self.backups.holder] if self.backups else found

    def make(self, platform: Platform) -> dict[TierName, Sequence[Resource]]:
        """Tier → what to wait for until it takes connections."""
        return {name: _COMPONENTS[name](name, platform, data).ready for name, data in self.tiers.items()}

    def back_up(self, platform: Platform, live: Mapping[str, str], after: Output[Resource]) -> None:
        """Have backups taken of the database that is live, `after` traffic has moved to what uses it: a gate that fails leaves them alone."""
        if self.backups:
            Backup("backup", platform, self.backups.of(live), after)


def described(description: Description) -> Shared:
    """What of it the application has."""
    app, tiers = description.app, dict[TierName, Data]()
    if app.database:
        tiers[TierName.DATABASE] = database.workload(app.database, description)
    if app.cache:
        tiers[TierName.CACHE] = cache.workload(app.cache, description)
    return Shared(tiers=tiers, backups=backup.described(description))
