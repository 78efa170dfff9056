"""Services of the standby slot that are suspended while the other slot is live."""

from ..config.environment import Releases
from ..model.services import Catalogue, Kind


def suspended_services(releases: Releases, catalogue: Catalogue) -> frozenset[str]:
    """Return the names of the services that are suspended in a standby slot.

    Args:
        releases: `environment.release`.
        catalogue: the services of the application.
    """
    if releases.standby == "cold":
        return frozenset(record.name for record in catalogue.in_slots)
    workers = (record.name for record in catalogue.in_slots if record.kind is Kind.WORKER)
    return frozenset(workers if releases.workers == "live" else ())
