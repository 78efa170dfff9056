"""Workloads: dataclasses of the processes to deploy, independent of Pulumi and of the platform.

Sizes are in bytes, times in seconds, `cpu` in processors. Paths are absolute paths in the container. The digest of a release
covers the fields that components/release/content.py stores. A change of such a field makes a new release.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import quote

from .schedules import Schedule
from .services import AccessMode

SECRETS = "/run/secrets"
"""Folder of the secret files in a container, on every platform."""
SCRATCH = 64 * 2**20
"""Default size in bytes of each writable path. Writable paths are in memory."""
SCRIPTS = "/docker-entrypoint-initdb.d"
"""Folder of the scripts that the public PostgreSQL image runs in a new database."""


class Zone(StrEnum):
    """Network zone. Two workloads can connect to each other only if they share a zone.

    Example:
        zones = (Zone.EDGE, Zone.DATA)  # an api that uses the database
    """

    EDGE = "edge"
    """Zone of the gateway, of the services that answer HTTP requests, and of their clients."""
    DATA = "data"
    """Zone of the data services and of their clients."""
    WATCH = "watch"
    """Zone of Prometheus and of the workloads with metrics, in environments with `monitoring`."""
    OUTSIDE = "outside"
    """The only zone with access to the outside network. It contains the published gateway, Prometheus on Docker, the archive
    proxy, and workloads with `egress` or an external data service."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image to pull, or an image to build if `context` is set.

    The tag of an image to build is the digest of its build context. A changed file therefore makes a new release.

    Example:
        image = Image(reference="nginx:1.27")
    """

    reference: str
    """Name of the image with its tag or digest."""
    context: str | None = None
    """Folder of the build context, relative to the program's folder; None to pull the image."""
    dockerfile: str | None = None
    """Path of the Dockerfile in the build context; None for `Dockerfile`. The path is part of the digest in the tag."""
    target: str | None = None
    """Stage of the Dockerfile to build; None for the last stage. The tag includes the stage."""
    args: tuple[tuple[str, str], ...] = ()
    """Build arguments: name and value. They are part of the digest in the tag."""
    base: str | None = None
    """Base image, for a Dockerfile with the argument BASE. Its name is part of the digest in the tag."""
    path: str = ""
    """Config path of the image, for errors."""
    pull_secrets: tuple[str, ...] = ()
    """Names of the Kubernetes Secrets to pull the image with."""

    @property
    def build_args(self) -> dict[str, str]:
        """Arguments of the build: `args`, and BASE if the image has a base."""
        return dict(self.args) | ({"BASE": self.base} if self.base else {})


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A health check, by an HTTP request or by a command in the container.

    A request passes if the response has the status 200. A command passes if it ends with 0.

    Example:
        probe = Probe(path="/health", port=8000)
        probe = Probe(command=("pg_isready", "-q"))
    """

    path: str = ""
    """Path of the HTTP request; empty if the probe is a command."""
    port: int = 0
    """Port of the HTTP request."""
    command: tuple[str, ...] = ()
    """Command to run in the container; empty if the probe is an HTTP request."""
    host: str = ""
    """Value of the request's header Host; empty for the host that users open."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Resource limits of a container. The processor time is limited to `cpu`. A container that exceeds `memory` is killed.

    Example:
        resources = Resources(cpu=0.5, memory=512 * 2**20)
    """

    cpu: float
    """Limit of processor time, in processors."""
    memory: int
    """Limit of memory, in bytes."""
    reserve: float | None = None
    """Processors that Kubernetes reserves for the container (request); None for a quarter of `cpu`."""


@dataclass(frozen=True, kw_only=True)
class SecretPart:
    """A part of a text with secrets: the value of a secret, or the address of a service.

    Example:
        password = SecretPart(secret="database-password", encoded=True)
    """

    secret: str = ""
    """Name of the secret in the configuration; empty for an address."""
    service: str = ""
    """Name of a service of the same slot, whose URL is inserted; empty for a secret."""
    encoded: bool = False
    """True to percent-encode the value, because the text is a URL."""


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A secret that a container reads from a file or an environment variable. The value is not part of this object.

    Example:
        secret = Secret(name="api-key", version="4be1a0c2")
        variables = {"API_KEY_FILE": secret.path}  # /run/secrets/api-key
    """

    name: str
    """Name of the secret in the configuration, and of its file."""
    version: str
    """Hash of the value, or of the reference to a value in the cluster. A new version makes a new release."""
    plain: bool = True
    """True if Redis' configuration can contain the value without quotes. False for a value in the cluster, because the program
    can't read that value."""
    pairable: bool = True
    """True if the value can be part of a list of `key=value` pairs. Also True for a value in the cluster, because the program
    can't read that value."""

    parts: tuple[str | SecretPart, ...] = ()
    """Parts of a text that contains other secrets, such as a URL with a password. Empty: the value of the secret `name`."""

    @property
    def path(self) -> str:
        """Path of the file with the value, in the container."""
        return f"{SECRETS}/{self.name}"

    @property
    def source(self) -> str:
        """Name of the secret in the configuration with exactly this value. For a text with further parts, the name of the text."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return only.secret if isinstance(only, SecretPart) and only.secret else self.name

    def value(self, values: Mapping[str, str], urls: Mapping[str, str]) -> str:
        """Return the value of the secret.

        Args:
            values: values of the secrets in the configuration, by name.
            urls: URLs of the services of the same slot, by name.
        """
        if not self.parts:
            return values[self.name]
        return "".join(part if isinstance(part, str) else _filled(part, values, urls) for part in self.parts)


def _filled(part: SecretPart, values: Mapping[str, str], urls: Mapping[str, str]) -> str:
    value = values[part.secret] if part.secret else urls[part.service]
    return quote(value, safe="") if part.encoded else value


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume for data that outlives every release. A new size or storage class makes no new release.

    Example:
        volume = Volume(name="uploads", path="/var/lib/app", size=10 * 2**30)
    """

    name: str
    """Name of the volume. Services that name the same volume share it."""
    path: str
    """Path at which the container mounts the volume."""
    read_only: bool = False
    """True to mount the volume read-only."""
    size: int = 2**30
    """Size in bytes on Kubernetes. On Docker the volume has no limit."""
    storage_class: str | None = None
    """StorageClass on Kubernetes; None for the cluster's default."""
    access: AccessMode = AccessMode.ANY_NODE
    """Access mode on Kubernetes: one node, or any number of nodes."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """A script that runs once, when a data service initialises its empty volume.

    Example:
        script = Script(name="00-schema.sql", text="create table notes (id int primary key);")
    """

    name: str
    """File name. Scripts run in the order of their names."""
    text: str
    """Content of the file."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A folder on the host of the Docker engine that a container mounts: source code for live reload, or the target of backups.

    Example:
        mount = Mount(source="/srv/backups", path="/var/lib/backup", writable=True)
    """

    source: str
    """Absolute path of the folder on the host."""
    path: str
    """Path at which the container mounts the folder."""
    writable: bool = False
    """True if the container may write to the folder."""


SEED = "seed"
"""Name of the task that inserts sample data. No service waits for this task."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command that runs to its end before a service starts, in the image and environment of the service.

    If the command fails or exceeds its time limit, the release fails and the live slot stays unchanged.

    Example:
        task = Task(name="migrate", command=("alembic", "upgrade", "head"), timeout=120)
    """

    name: str
    """Name of the task, such as `migrate`."""
    command: tuple[str, ...]
    """Command and arguments. The command must be safe to run twice."""
    timeout: float
    """Time limit, in seconds."""
    env: tuple[tuple[str, str], ...] = ()
    """Environment variables as pairs of name and value. These variables replace the service's variables of the same name."""
    secret_env: tuple[tuple[str, Secret], ...] = ()
    """Environment variables with secrets, as pairs of name and secret. They replace the service's variables of the same name."""
    path: str = ""
    """Config path of the task, for errors."""


@dataclass(frozen=True, kw_only=True)
class ScheduledCommand(Task):
    """A command that runs on a schedule. After a failure the command runs again at the next time of the schedule.

    Example:
        command = ScheduledCommand(name="verify", schedule="0 4 * * 0", command=("backup", "verify"), timeout=3600)
    """

    schedule: str
    """Schedule as a cron expression, in UTC."""
    reads_volumes: bool = True
    """False for a command that does not need the read-only volumes of its workload. On Kubernetes its pod does not mount the volumes
    of a store."""


@dataclass(frozen=True, kw_only=True)
class Job(Task):
    """A command that the live release runs at due times, in the image and with the settings of a service.

    Example:
        schedule = grammar.schedule("*/15 * * * *", "UTC")
        job = Job(name="digest", command=("digest",), timeout=600, cron="*/15 * * * *", schedule=schedule)
    """

    cron: str
    """Schedule as a cron expression."""
    schedule: Schedule
    """The same schedule as lists of times, in its time zone."""
    overlaps: bool = False
    """True if a run may start while another run has not ended. False: its due time is skipped."""
    retries: int = 0
    """Number of times that a failed run is repeated."""
    makes_up: bool = False
    """True if one run makes up for missed due times. False: they are lost."""

    @property
    def late(self) -> int:
        """Time in seconds after a due time within which the run may still start.

        A handover at a switch and the restart of a node or an engine take less than the shorter time.
        """
        return 86_400 if self.makes_up else 100


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Number of replicas of a service. It is not part of a release, so a change scales the live slot without a switch.

    Example:
        scale = Scale(replicas=2, most=10)
    """

    replicas: int = 1
    """Number of replicas; with autoscaling the minimum."""
    most: int | None = None
    """Maximum number of replicas with autoscaling; None without autoscaling."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A process that a platform keeps running, with everything that it needs: image, limits, environment, volumes, network.

    A workload is the same on every platform. The release's digest covers the fields that components/release/content.py stores.

    Example:
        workload = Workload(
            tier="api",
            image=Image(reference="shop-api:1.4.0"),
            resources=Resources(cpu=0.5, memory=512 * 2**20),
            port=8000,
            probe=Probe(path="/health", port=8000),
            zones=(Zone.EDGE,),
        )
    """

    tier: str
    """Name of the service, such as `api`."""
    image: Image
    """Image of the container."""
    resources: Resources
    """Processor and memory limits of each replica."""
    command: tuple[str, ...] = ()
    """Command and arguments; empty for the image's command. In a slot and in a store the image's entrypoint stays."""
    entrypoint: tuple[str, ...] = ()
    """Command and arguments that replace the image's entrypoint, also for tasks; empty for the image's entrypoint."""
    env: tuple[tuple[str, str], ...] = ()
    """Environment variables as pairs of name and value, sorted."""
    secrets: tuple[Secret, ...] = ()
    """Secrets that the container mounts as files."""
    secret_env: tuple[tuple[str, Secret], ...] = ()
    """Environment variables with secrets, as pairs of name and secret, sorted by name."""
    port: int | None = None
    """Port that the process listens on; None if it accepts no connections."""
    probe: Probe | None = None
    """Health check. Kubernetes restarts a replica that fails the check. None: a replica is healthy while its process runs."""
    ready: Probe | None = None
    """Readiness probe. A replica that fails this probe gets no requests. None: `probe` is used instead."""
    zones: tuple[Zone, ...] = ()
    """Network zones that the workload joins."""
    egress: bool = False
    """True if the workload may connect to the outside."""
    autoscaled: float | None = None
    """Target of autoscaling: average use of a replica, in processors. Higher use adds replicas. None: no autoscaling."""
    priority: str | None = None
    """PriorityClass on Kubernetes; None for the cluster's default."""
    writable: tuple[str, ...] = ()
    """Writable paths in memory. All other paths of the container, except volumes, are read-only."""
    scratch: int = SCRATCH
    """Size of each `writable` path, in bytes."""
    volumes: tuple[Volume, ...] = ()
    """Data volumes, which outlive every release."""
    mounts: tuple[Mount, ...] = ()
    """Folders on the host of the Docker engine that the container mounts. Docker only."""
    scripts: tuple[Script, ...] = ()
    """Scripts that run in a new database, sorted by name. A changed script does not restart the workload."""
    user: int = 10001
    """UID and GID of the process."""
    start_within: float = 60
    """Time limit in seconds to become healthy."""
    stop_within: float = 30
    """Time limit in seconds to finish open work before the process is killed."""
    tasks: tuple[Task, ...] = ()
    """Tasks that run before the workload starts, in this order."""
    needs: tuple[str, ...] = ()
    """Names of the services that the workload connects to."""
    belongs_to: str = ""
    """Tier of a further service (`app.services`): web, api, worker or store. Empty if the service is named after its tier."""
    path: str = ""
    """Config path of the workload, for errors; empty if the path is `app.TIER`."""
    jobs: tuple[Job, ...] = ()
    """Scheduled jobs that run in the image of the workload, while its slot is live."""
    single: bool = False
    """True if the process must never run twice: only the live release runs it, and the old process ends before the new one starts."""
    reads_store: str = ""
    """Name of the store whose volumes the scheduled commands of the workload read; empty for none. These volumes are the read-only
    `volumes` of the workload."""
    former: tuple[str, ...] = ()
    """Command of an earlier version of the program, with the same effect as `command`. On Kubernetes, a stateful workload that
    already runs this command keeps it, so an upgrade of the program causes no restart."""

    @property
    def all_secrets(self) -> tuple[Secret, ...]:
        """All secrets of the workload and of its tasks: those in files, then those in environment variables."""
        variables = [*self.secret_env, *(entry for task in self.tasks for entry in task.secret_env)]
        return (*self.secrets, *dict.fromkeys(secret for _, secret in variables))


@dataclass(frozen=True, kw_only=True)
class Replicated(Workload):
    """A stateful workload with several members, such as Redis with Sentinel. One member, the primary, accepts writes.

    Each member mounts one of the `volumes`, and gets its own name in the environment variable MEMBER. Members connect to each
    other by name.

    Example:
        is_replicated = isinstance(application.data["cache"], Replicated)  # environment.tiers.cache.ha
    """

    names: tuple[str, ...]
    """Host names of the members, in the order of `volumes`. The first volume is also the volume of a single instance."""
    watcher: Workload
    """Process that runs next to each member and mounts the volume of the member. The watchers elect the primary."""
    proxy: Workload
    """Proxy that connects clients to the primary. Clients reach the proxy by the name of the service."""
    leave: tuple[str, ...]
    """Command that runs in a member before the member stops. The command hands the primary role to another member."""


@dataclass(frozen=True, kw_only=True)
class ExternalService:
    """A data service that the program does not deploy, such as a managed database. Workloads may connect to its server.

    Example:
        database = ExternalService(tier="database", host="db.example.com", port=5432)
    """

    tier: str
    """Name of the service, `database` or `cache`."""
    host: str
    """Host name of the server."""
    port: int
    """Port of the server."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Continuous archive of a database cluster, for point-in-time recovery: WAL files and scheduled base backups.

    Example:
        database = application.data["database"]
        archive = database.archive if isinstance(database, DatabaseCluster) else None
        retention_days = archive.days if archive else 0
    """

    proxy: Workload
    """Archive proxy: an S3 server that encrypts objects and stores them in the bucket."""
    access: Secret
    """Id of the access key. The database uses the key for the archive proxy, and the proxy uses the same key for
    the bucket."""
    secret: Secret
    """Secret part of the access key."""
    schedule: str
    """Schedule of base backups as a cron expression, in UTC."""
    days: int
    """Retention of base backups and WAL files, in days."""


@dataclass(frozen=True, kw_only=True)
class DatabaseCluster:
    """A PostgreSQL cluster (CloudNativePG): one primary, synchronous replicas and a connection pooler. Kubernetes only.

    If the primary fails, a replica becomes the primary, and no acknowledged write is lost.

    Example:
        is_cluster = isinstance(application.data["database"], DatabaseCluster)  # environment.tiers.database.ha
    """

    tier: str
    """Name of the service, `database`."""
    name: str
    """Prefix of the cluster's host names: `NAME-rw` is the primary, `NAME-ro` are the replicas."""
    pooled: str
    """Host name of the connection pooler."""
    image: Image
    """Image of the instances."""
    pooler: Image
    """Image of the connection pooler."""
    resources: Resources
    """Processor and memory limits of each instance."""
    database: str
    """Name of the database to create."""
    owner: str
    """Role that owns the database."""
    password: Secret
    """Password of the owner."""
    port: int
    """Port of the instances and of the pooler."""
    volume: Volume
    """Size and storage class of the volume that each instance gets."""
    instances: int = 3
    """Number of instances, including the primary."""
    scripts: tuple[Script, ...] = ()
    """SQL files that run once in a new database, as the owner of the database, sorted by name."""
    priority: str | None = None
    """PriorityClass of the instances; None for the cluster's default."""
    start_within: float = 120
    """Time limit in seconds to become ready."""
    apart: Literal["zones", "hosts", "anywhere"] = "hosts"
    """Placement of the instances. `zones`: at most one in each zone. `hosts`: at most one on each host. `anywhere`: on
    different hosts if possible."""
    archive: Archive | None = None
    """Continuous archive of the cluster; None without backups to a bucket."""
    single_instance: Workload | None = None
    """Single instance that the cluster replaces, which stays deployed during migration; None otherwise."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route from the gateway to a service of the live slot, by path prefix. The longest matching prefix wins.

    Example:
        route = Route(tier="api", prefixes=("/api",), port=8000, health="/health")
    """

    tier: str
    """Name of the service."""
    prefixes: tuple[str, ...]
    """Path prefixes of the requests to route."""
    port: int
    """Port of the service."""
    health: str
    """Path of the request by which the gateway and the smoke test check the service."""
    hosts: tuple[str, ...] = ()
    """Host names of the application, on Kubernetes; empty on Docker, and for a service with a `host` of its own."""
    gateway: str = ""
    """Settings of the gateway, as text. A change makes a new release. On Kubernetes the text is JSON. On Docker the text is
    `watched` if the gateway serves metrics, otherwise empty."""
    hidden: tuple[str, ...] = ()
    """Paths for which the gateway answers 404, such as the path of metrics."""
    health_host: str = ""
    """Value of the header Host in the gateway's health checks; empty for the host that users open."""
    host: str = ""
    """Host name that only this service, and services with the same `host`, answer; empty for a service on the application's hosts."""
    sticky: bool = True
    """True to pin a loaded page to its slot: a cookie routes the page's requests to the slot that served the page, while the slot
    runs."""
