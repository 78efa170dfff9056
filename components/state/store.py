"""Data store: a resource that holds data."""

import re
from dataclasses import dataclass

_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class Store:
    """A resource that holds data: its type, address, size, owner and protection."""

    type: str
    """Type token of the resource."""
    address: str
    """Name of the object on its platform, with its namespace."""
    size: int | None = None
    """Size in bytes; None if the platform sets no size."""
    storage_class: str | None = None
    modes: tuple[str, ...] = ()
    """Access modes of a claim."""
    tier: str | None = None
    """Name of the service in the resource's labels."""
    owner: str | None = None
    """Service whose component registered the resource. None for backups, the namespace, and volumes of services in a slot."""
    of_store: bool = False
    """True if the owner is a store (`app.services`)."""
    backup: str | None = None
    """Name of the backup workload that stores backups in the resource, such as `backup` or `mysql-backup`; None for other data."""
    protected: bool = False
    """True if Pulumi refuses to delete the resource."""

    @property
    def platform(self) -> str:
        """Name of the platform, as in the configuration."""
        return self.type.partition(":")[0]


def parse_size(text: str) -> int | None:
    """Return the number of bytes of a size such as `10Gi`, or None if the text is not a size."""
    match = re.fullmatch(r"(\d+)([KMGT]i)?", text)
    return int(match[1]) * _UNITS[match[2] or ""] if match else None


def format_size(size: int) -> str:
    """Return a number of bytes as text with the largest unit that divides the number, such as `10Gi`."""
    unit = next(unit for unit in reversed(_UNITS) if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}"
