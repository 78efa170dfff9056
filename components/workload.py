"""What a tier asks of a platform, in words every platform understands. No Pulumi, no platform.

Sizes are bytes, times are seconds, cpu is processors, paths are absolute in the container. `release.digest` is taken
over these values, so whatever they hold is part of a release; replica counts are kept outside of them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

SECRETS = "/run/secrets"
"""Where secret files are found, on both platforms."""


class Zone(StrEnum):
    """Who can talk to whom: two workloads reach each other only if they share a zone."""

    EDGE = "edge"
    """The gateway, web and api."""
    DATA = "data"
    """Database, cache and the tiers that need them."""
    OUTSIDE = "outside"
    """The world: the gateway's published port, and tiers with `egress`."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image by reference; one built from a folder carries the digest of that folder in its tag."""

    reference: str
    context: str | None = field(default=None, metadata={"released": False})
    path: str = field(default="", metadata={"released": False})
    """The config path that names it, for errors."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Healthy when the URL path answers 200, or the command ends with 0."""

    path: str = ""
    port: int = 0
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resources:
    cpu: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One secret as a file. `version` changes when its value does and does not tell the value."""

    name: str
    version: str

    @property
    def path(self) -> str:
        return f"{SECRETS}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Data that outlives every release."""

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the developer's machine, read-only."""

    source: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command that runs to its end; failing it fails the release."""

    name: str
    command: tuple[str, ...]
    timeout: float


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One process kept running: how a tier is expressed."""

    tier: str
    image: Image
    resources: Resources
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[Secret, ...] = ()
    port: int | None = None
    probe: Probe | None = None
    ready: Probe | None = None
    zones: tuple[Zone, ...] = ()
    writable: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    mounts: tuple[Mount, ...] = ()
    user: int = 10001
    """UID and GID."""
    start_within: float = 60
    stop_within: float = 30
    tasks: tuple[Task, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Route:
    """Requests whose path begins with one of `prefixes` go to `tier`; the longest prefix wins."""

    tier: str
    prefixes: tuple[str, ...]
    port: int
    health: str
    hidden: tuple[str, ...] = ()
    """Paths of the tier that are not for users (metrics)."""
