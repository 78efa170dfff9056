"""What a tier asks of a platform, in words every platform understands. No Pulumi, no platform.

Sizes are bytes, times are seconds, cpu is processors, paths are absolute in the container. `release.digest` is taken
over these values, so whatever they hold is part of a release; replica counts are kept outside of them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

SECRETS = "/run/secrets"
"""Where secret files are found, on both platforms."""
SCRATCH = 64 * 2**20
"""Bytes that fit into a path that may be written to, in memory, where nothing else is said."""
SCRIPTS = "/docker-entrypoint-initdb.d"
"""Where the public image of PostgreSQL looks for what to do with a new database."""


class Zone(StrEnum):
    """Who can talk to whom: two workloads reach each other only if they share a zone."""

    EDGE = "edge"
    """The gateway, web and api."""
    DATA = "data"
    """Database, cache and the tiers that need them."""
    WATCH = "watch"
    """What asks how the others are, where an environment has `monitoring`."""
    OUTSIDE = "outside"
    """The world: the gateway's published port, and tiers with `egress`."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image by reference; one built from a folder carries the digest of that folder in its tag."""

    reference: str
    context: str | None = field(default=None, metadata={"released": False})
    target: str | None = field(default=None, metadata={"released": False})
    """The stage of its Dockerfile that is built, if not the last; the tag says it, too."""
    base: str | None = field(default=None, metadata={"released": False})
    """What its Dockerfile is built on where it says BASE; the tag says it, too."""
    path: str = field(default="", metadata={"released": False})
    """The config path that names it, for errors."""
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Healthy when the URL path answers 200, or the command ends with 0."""

    path: str = ""
    port: int = 0
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What it may use; `reserve` is how much of `cpu` is kept for it, on platforms that schedule."""

    cpu: float
    memory: int
    reserve: float | None = None


@dataclass(frozen=True, kw_only=True)
class Secret:
    """One secret as a file. `version` changes when its value does and does not tell the value."""

    name: str
    version: str
    plain: bool = field(default=True, metadata={"released": False})
    """True if Redis' configuration takes its value without quotes; False if not, or if only the cluster knows the value."""

    @property
    def path(self) -> str:
        return f"{SECRETS}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Data that outlives every release. How big it is and what offers it is not part of one."""

    name: str
    path: str
    read_only: bool = False
    size: int = field(default=2**30, metadata={"released": False})
    storage_class: str | None = field(default=None, metadata={"released": False})


@dataclass(frozen=True, kw_only=True)
class Script:
    """A file that is read once, when the data of a workload is made."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the engine's host: the developer's sources, read-only, or where somebody wants data to be kept."""

    source: str
    path: str
    writable: bool = field(default=False, metadata={"released": False})


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command that runs to its end; failing it fails the release."""

    name: str
    command: tuple[str, ...]
    timeout: float
    env: tuple[tuple[str, str], ...] = ()
    """What it is told otherwise than its tier."""
    path: str = field(default="", metadata={"released": False})
    """The config path that describes it, for errors."""


@dataclass(frozen=True, kw_only=True)
class Timed(Task):
    """A command that runs again and again; one that fails is tried again at the next of its times."""

    at: str
    """Its times as cron writes them, in UTC."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How often a workload runs; not part of a release. `most` counts where the workload is `autoscaled`."""

    replicas: int = 1
    most: int | None = None


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
    egress: bool = False
    """It may connect to the world outside."""
    autoscaled: float | None = None
    """Processors one is to use on average: with more there are more of it. None: as many as are asked for."""
    priority: str | None = None
    """Its priority class, on platforms that schedule."""
    writable: tuple[str, ...] = ()
    scratch: int = SCRATCH
    """Bytes that fit into each of the `writable` paths."""
    volumes: tuple[Volume, ...] = ()
    mounts: tuple[Mount, ...] = ()
    scripts: tuple[Script, ...] = ()
    """In the order in which they are read, from `SCRIPTS`. What they say is not part of what runs."""
    user: int = 10001
    """UID and GID."""
    start_within: float = 60
    stop_within: float = 30
    tasks: tuple[Task, ...] = ()
    needs: tuple[str, ...] = ()
    path: str = field(default="", metadata={"released": False})
    """The config path that describes it, for errors, where it is not that of a tier."""
    former: tuple[str, ...] = field(default=(), metadata={"released": False})
    """The command of an earlier version, equal in effect: a running workload keeps it, so that it is not restarted."""


@dataclass(frozen=True, kw_only=True)
class Replicated(Workload):
    """A workload that holds data, kept several times, each with one of `volumes`; one of them, the primary, is written to.

    Each is told its name in MEMBER, and reaches the others by theirs.
    """

    names: tuple[str, ...]
    """Of the members, in DNS too, in the order of the volumes; the first has the one that a single one would have."""
    watcher: Workload
    """Beside each member, over the same data: they agree on who is primary."""
    proxy: Workload
    """Has the workload's own name, and leads to the primary."""
    leave: tuple[str, ...]
    """Is run in a member before it is stopped."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """A data tier that runs somewhere else: only the way to it is ours."""

    tier: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Where every change of a database goes, and at its times the whole of it, so that it can be had as it was at any moment."""

    vault: Workload
    """What encrypts it on its way out, and is asked for it in turn: by S3, with these keys."""
    access: Secret
    secret: Secret
    schedule: str
    """When the whole of it goes there, as cron writes it, in UTC."""
    days: int
    """How far back it goes."""


@dataclass(frozen=True, kw_only=True)
class DatabaseCluster:
    """A database of several instances: where the one that writes is lost, another takes over with all that was acknowledged."""

    tier: str
    name: str
    """Begins the names of its addresses."""
    pooled: str
    """The address of what shares its connections among many."""
    image: Image
    pooler: Image
    resources: Resources
    database: str
    owner: str
    password: Secret
    port: int
    volume: Volume
    """One for each instance."""
    instances: int = 3
    scripts: tuple[Script, ...] = ()
    """In the order in which they are read, as the owner."""
    priority: str | None = None
    start_within: float = 120
    apart: str | None = None
    """The label of nodes in which no two instances may agree; None: they may be anywhere."""
    archive: Archive | None = None
    beside: Workload | None = None
    """The single one that was there before it, for as long as its data is moved."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """Requests whose path begins with one of `prefixes` go to `tier`; the longest prefix wins."""

    tier: str
    prefixes: tuple[str, ...]
    port: int
    health: str
    hosts: tuple[str, ...] = ()
    gateway: str = ""
    """What users connect to, and as which hosts, where the platform does not say so itself."""
    hidden: tuple[str, ...] = ()
    """Paths of the tier that are not for users (metrics)."""
    sticky: bool = True
    """What a page asks for goes to the slot that the page came from, for as long as that stands."""
