"""The model of a workload: everything a tier needs from a platform, without Pulumi and without any platform's own terms.

Sizes are bytes, times are seconds, cpu is processors, paths are absolute in the container. `release.digest` covers these
values, so each of them is part of a release. Replica counts are not among them.
"""

from dataclasses import dataclass, field
from enum import StrEnum

SECRETS = "/run/secrets"
"""Folder of secret files in a container, on both platforms."""
SCRATCH = 64 * 2**20
"""Default size of a writable path in memory, in bytes."""
SCRIPTS = "/docker-entrypoint-initdb.d"
"""Folder from which the public image of PostgreSQL runs scripts in a new database."""


class Zone(StrEnum):
    """A network zone. Two workloads reach each other only if they share one."""

    EDGE = "edge"
    """The gateway, web and api."""
    DATA = "data"
    """Database, cache and the tiers that need them."""
    WATCH = "watch"
    """Prometheus and every workload with metrics, where an environment has `monitoring`."""
    OUTSIDE = "outside"
    """The outside network: the gateway's published port, and tiers with `egress`."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image by reference. If the program builds it, its tag has the digest of the build context."""

    reference: str
    context: str | None = field(default=None, metadata={"released": False})
    target: str | None = field(default=None, metadata={"released": False})
    """The stage of the Dockerfile that is built, if not its last. It is part of the tag."""
    base: str | None = field(default=None, metadata={"released": False})
    """The base image, for a Dockerfile with the argument BASE. It is part of the tag."""
    path: str = field(default="", metadata={"released": False})
    """The config path of the image, for errors."""
    pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A health check. It passes when the URL path answers 200, or the command ends with 0."""

    path: str = ""
    port: int = 0
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of a container. `reserve` is the share of `cpu` that a scheduling platform reserves for it."""

    cpu: float
    memory: int
    reserve: float | None = None


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A secret, mounted as a file. `version` changes with the value and does not reveal it."""

    name: str
    version: str
    plain: bool = field(default=True, metadata={"released": False})
    """True if Redis' configuration takes the value without quotes. False if not, or if only the cluster knows the value."""
    pairable: bool = field(default=True, metadata={"released": False})
    """False if a list of `key=value` pairs can't hold the value. True if it can, or if only the cluster knows the value."""

    @property
    def path(self) -> str:
        return f"{SECRETS}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Data that outlives every release. Its size and storage class are not part of a release."""

    name: str
    path: str
    read_only: bool = False
    size: int = field(default=2**30, metadata={"released": False})
    storage_class: str | None = field(default=None, metadata={"released": False})


@dataclass(frozen=True, kw_only=True)
class Script:
    """A file that runs once, when a workload's data volume is initialised."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder of the engine's host that is mounted: a developer's source code (read-only), or the target of backups."""

    source: str
    path: str
    writable: bool = field(default=False, metadata={"released": False})


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command that runs to its end. If it fails, the release fails."""

    name: str
    command: tuple[str, ...]
    timeout: float
    env: tuple[tuple[str, str], ...] = ()
    """Variables that differ from those of its tier."""
    path: str = field(default="", metadata={"released": False})
    """The config path of the task, for errors."""


@dataclass(frozen=True, kw_only=True)
class Timed(Task):
    """A scheduled command. After a failure it runs again at its next time."""

    at: str
    """Schedule as a cron expression, in UTC."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The number of replicas, which is not part of a release. `most` is their limit where the workload is `autoscaled`."""

    replicas: int = 1
    most: int | None = None


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A process that the platform keeps running: the form in which a tier is deployed."""

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
    """True if it may connect to the outside."""
    autoscaled: float | None = None
    """Processors that one replica may use on average before another is started. None: the number of replicas is fixed."""
    priority: str | None = None
    """Name of a priority class, on platforms that schedule."""
    writable: tuple[str, ...] = ()
    scratch: int = SCRATCH
    """Size of each of the `writable` paths, in bytes."""
    volumes: tuple[Volume, ...] = ()
    mounts: tuple[Mount, ...] = ()
    scripts: tuple[Script, ...] = ()
    """Scripts in the order in which they run, from `SCRIPTS`. Their text is not part of the running workload."""
    user: int = 10001
    """UID and GID of the process."""
    start_within: float = 60
    stop_within: float = 30
    tasks: tuple[Task, ...] = ()
    needs: tuple[str, ...] = ()
    path: str = field(default="", metadata={"released": False})
    """The config path of the workload, for errors, if it is not a tier's."""
    former: tuple[str, ...] = field(default=(), metadata={"released": False})
    """The command of an earlier version, equal in effect. A running workload keeps it and is not restarted."""


@dataclass(frozen=True, kw_only=True)
class Replicated(Workload):
    """A stateful workload with several members, each with one of `volumes`. One member, the primary, takes writes.

    Each member gets its name in the environment variable MEMBER, and reaches the others by their names.
    """

    names: tuple[str, ...]
    """Names of the members, also in DNS, in the order of the volumes. The first member has the volume of a single instance."""
    watcher: Workload
    """A process beside each member, over the same data. The watchers agree on the primary."""
    proxy: Workload
    """A proxy with the workload's own name that routes to the primary."""
    leave: tuple[str, ...]
    """The command that runs in a member before it is stopped."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """An external data tier, such as a managed service. The program only allows access to it."""

    tier: str
    host: str
    port: int


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Continuous archive of a database cluster: every change and scheduled base backups, for recovery to any moment."""

    vault: Workload
    """The archive proxy. It encrypts what is stored and decrypts what is read, and speaks S3 with these keys."""
    access: Secret
    secret: Secret
    schedule: str
    """Schedule of base backups as a cron expression, in UTC."""
    days: int
    """Retention in days."""


@dataclass(frozen=True, kw_only=True)
class DatabaseCluster:
    """A PostgreSQL cluster. When the primary is lost, a replica takes over without losing an acknowledged write."""

    tier: str
    name: str
    """Prefix of the names of its addresses."""
    pooled: str
    """Address of the connection pooler."""
    image: Image
    pooler: Image
    resources: Resources
    database: str
    owner: str
    password: Secret
    port: int
    volume: Volume
    """One volume of this description for each instance."""
    instances: int = 3
    scripts: tuple[Script, ...] = ()
    """SQL in the order in which it runs, as the owner."""
    priority: str | None = None
    start_within: float = 120
    apart: str | None = None
    """Label of nodes that no two instances may share (topology key). None: instances may share a node."""
    archive: Archive | None = None
    beside: Workload | None = None
    """The former single instance, which stays deployed while its data moves."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """Routing of requests whose path begins with one of `prefixes` to `tier`. The longest prefix wins."""

    tier: str
    prefixes: tuple[str, ...]
    port: int
    health: str
    hosts: tuple[str, ...] = ()
    gateway: str = ""
    """The gateway and its settings, on platforms where they are part of a release."""
    hidden: tuple[str, ...] = ()
    """Paths of the tier that users must not reach (metrics)."""
    sticky: bool = True
    """True if requests of a page go to the slot that served the page, while that slot exists."""
