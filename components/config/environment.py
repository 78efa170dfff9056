"""Models of the environment: `environment` in the stack file, with the platform, sizes and release settings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ..model.services import DATABASE, Exporter
from .app import App, Database, DataSettings
from .backups import Backup
from .base import Model
from .cluster import Kubernetes, SecretReference
from .engine import Docker, Gateway
from .errors import problem
from .hosts import at_host
from .monitoring import Monitoring
from .units import (
    Cpu,
    DatabaseName,
    ExactHost,
    Flag,
    ImageReference,
    ImageRepository,
    Latency,
    Memory,
    Name,
    Object,
    Port,
    Server,
    ServiceName,
    Setting,
    Share,
    Storage,
    Variable,
    Wait,
)


class Autoscale(Model):
    """Autoscaling (HorizontalPodAutoscaler). The minimum number of replicas is the tier's `replicas`."""

    max: int = Field(ge=2, le=500, strict=True, description="Maximum number of replicas.")
    cpu: int = Field(
        default=70,
        ge=10,
        le=100,
        strict=True,
        description="Average processor use above which replicas are added, in percent of `cpu`.",
    )


class External(Model):
    """An external data service, such as a managed database. The program does not deploy the service. Tiers may connect to its
    server."""

    host: Server = Field(description="Host name of the server.")
    port: Port | None = Field(
        examples=[5432],
        default=None,
        description="Port of the server; default is 5432 for the database and 6379 for the cache.",
    )


class TierSettings(Model):
    """Settings of one tier in this environment: size, volumes, backups."""

    replicas: int = Field(
        default=1, ge=1, le=100, strict=True, description="Number of replicas; 1 for database, cache and stores."
    )
    cpu: Cpu = Field(
        default=0.5, description="Limit of processor time of each replica, in processors.", validate_default=False
    )
    memory: Memory = Field(default=512 * 2**20, description="Limit of memory of each replica.", validate_default=False)
    reserve: Cpu | None = Field(
        default=None,
        description="Kubernetes: processors reserved for each replica (request); default is a quarter of `cpu`.",
    )
    env: dict[Variable, Setting] = Field(
        default={}, description="Environment variables that apply only in this environment."
    )
    autoscale: Autoscale | None = Field(default=None, description="Kubernetes: add replicas under load.")
    priority_class: Object | None = Field(
        examples=["high"], default=None, description="Kubernetes: PriorityClass of the tier's pods."
    )
    storage: Storage | None = Field(
        default=None, description="Kubernetes: size of each volume; default is 1Gi. It can be increased, not reduced."
    )
    storage_class: Object | None = Field(
        examples=["fast"],
        default=None,
        description="Kubernetes: StorageClass of the volumes. Volumes of web, api and worker need a class with ReadWriteMany.",
    )
    external: External | None = Field(
        default=None, description="Database and cache: use an external service instead of deploying one."
    )
    ha: Flag = Field(
        default=False,
        description="Kubernetes, database and cache: three instances, each with its own volume. If the primary fails, a replica takes over.",
    )
    single: Literal["live", "kept"] | None = Field(
        default=None,
        description="Database, with `ha`, during migration: the former single instance stays deployed. `live`: tiers use the single "
        "instance. `kept`: tiers use the cluster. `make move` writes this value.",
    )
    name: DatabaseName | None = Field(
        default=None, description="Database: name of an existing database to use instead of `app.database.name`."
    )
    backup: Backup | None = Field(default=None, description="Database and stores: schedule and target of backups.")
    copy_of: Name | None = Field(
        examples=["prod"],
        default=None,
        description="Database: environment whose data `make refresh` copies here, anonymised. Refused with `protect_data: true`, and with a "
        "continuous archive (`ha` and backups to a bucket).",
    )

    @property
    def capacity(self) -> int:
        """Size of each volume of the tier, in bytes."""
        return self.storage or 2**30

    @property
    def uses_cluster(self) -> bool:
        """True if services connect to the database cluster: with `ha`, except while `single` is `live`."""
        return self.ha and self.single != "live"


class Releases(Model):
    """Promotion of releases, and the state of the standby slot."""

    promote: Literal["auto", "manual"] = Field(
        default="auto",
        description="`auto`: a release goes live after its gates. `manual`: it waits in the idle slot until somebody runs `make promote`.",
    )
    standby: Literal["warm", "cold"] = Field(
        default="warm",
        description="Slot that was live before. `warm`: its web and api keep running. `cold`: all its tiers are suspended.",
    )
    workers: Literal["live", "both"] = Field(
        default="live",
        description="Slots whose workers take jobs. `live`: workers of the standby finish their jobs and stop. `both`: they keep running, so a rollback is faster.",
    )


class Slo(Model):
    """Service level objectives (SLO) for alerts and the dashboard. `make perf` measures the objectives with requests to the
    paths in `app.visits`."""

    errors: Share = Field(
        default=0.01, ge=0, le=1, description="Share of requests that may fail (a status other than 2xx or 3xx)."
    )
    p95: Latency = Field(
        default=0.5, validate_default=False, description="Limit of the 95th percentile of response times."
    )
    p99: Latency = Field(
        default=1, validate_default=False, description="Limit of the 99th percentile of response times."
    )
    rate: int = Field(
        default=20, ge=1, le=10_000, strict=True, description="Requests per second that the measurement sends."
    )
    window: Wait = Field(
        default=300,
        validate_default=False,
        description="Duration of a measurement by `make perf`, or by `make watch` after a switch.",
    )

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Self:
        if {"p95", "p99"} <= self.model_fields_set and self.p95 > self.p99:
            raise problem(
                "p95 is above p99, which is impossible",
                "swap the values, or remove one",
            )
        return self


def _monitoring(value: object) -> object:
    return ({} if value else None) if isinstance(value, bool) else value


def _allow_flag(schema: dict[str, Any]) -> None:
    schema["anyOf"].insert(0, {"type": "boolean"})


class Environment(Model):
    """Settings of one environment: platform, sizes and releases (`environment` in Pulumi.<stack>.yaml)."""

    platform: Literal["docker", "kubernetes"] = Field(description="Platform to deploy to.")
    docker: Docker = Field(default=Docker(), description="With `platform: docker`: the Docker engine.")
    gateway: Gateway = Field(
        default=Gateway(), description="With `platform: docker`: the gateway that users connect to."
    )
    kubernetes: Kubernetes | None = Field(default=None, description="With `platform: kubernetes`: the cluster.")
    hosts: dict[Name, ExactHost] = Field(
        default={},
        examples=[{"admin": "admin.example.com"}],
        description="Hosts of services with a host of their own (`host`): name → host. By default the name comes before the host of `url`, or "
        "before `localhost` on Docker: admin.shop.example.com, admin.localhost.",
    )
    release: Releases = Field(default=Releases(), description="Promotion of releases, and the standby slot.")
    slo: Slo = Field(
        default=Slo(), description="Service level objectives. `make watch` rolls back a release that misses them."
    )
    registry: ImageRepository | None = Field(
        examples=["registry.example.com/team"],
        default=None,
        description="Registry of the images that the program builds, as in registry.example.com/team.",
    )
    images: dict[ServiceName, ImageReference] = Field(
        default={},
        description="Images by digest that replace the images of `app`: tier → image. `make images` writes them.",
    )
    pinned: Flag = Field(default=False, description="true: refuse images that are not named by their digest.")
    toolbox: ImageReference = Field(
        default="python:3.11-slim-bookworm",
        description="Image with Python 3, for the smoke test and other tasks of the program.",
    )
    proxy: ImageReference = Field(
        default="haproxy:2.6-bookworm", description="HAProxy image, for the proxy of a cache with `ha`."
    )
    pooler: ImageReference = Field(
        default="ghcr.io/cloudnative-pg/pgbouncer:1.24.1",
        description="PgBouncer image, 1.21 or newer, with the interface of CloudNativePG's image, for the connection pooler of a database with `ha`.",
    )
    vault: ImageReference = Field(
        default="rclone/rclone:1.71.0",
        description="rclone image with a shell, for the archive proxy of a database with `ha` and backups to a bucket. The proxy encrypts all objects.",
    )
    reload: Flag = Field(
        default=False, description="true: mount the source code of this repository into the tiers that have `reload`."
    )
    seed: Flag = Field(
        default=False, description="true: insert sample data with the `seed` settings of tiers and database."
    )
    monitoring: Annotated[Monitoring | None, BeforeValidator(_monitoring)] = Field(
        default=None,
        description="Metrics, alerts and a dashboard: true for the defaults, or a mapping.",
        json_schema_extra=_allow_flag,
    )
    egress: Flag = Field(
        default=False,
        description="true: every tier in a slot may connect to the outside, as with `egress: true` of the tier. For development only.",
    )
    protect_data: Flag = Field(
        default=True,
        description="true: no update and no `pulumi destroy` deletes volumes. Volumes that the state drops stay on the platform.",
    )
    tiers: dict[ServiceName, TierSettings] = Field(
        default={}, description="Settings of tiers by name. Tiers without settings have the defaults."
    )

    @model_validator(mode="after")
    def _reload_is_local(self) -> Self:
        if self.reload and self.docker.host and not self.docker.host.startswith("unix://"):
            raise problem(
                f"source code can't be mounted into containers on {self.docker.host}",
                "set reload: false, or use a local engine",
            )
        return self

    @model_validator(mode="after")
    def _platform_is_described(self) -> Self:
        if self.platform == "kubernetes" and self.kubernetes is None:
            raise problem("platform is kubernetes, but no cluster is set", "add environment.kubernetes")
        foreign = ("docker", "gateway") if self.platform == "kubernetes" else ("kubernetes",)
        if refused := [name for name in foreign if name in self.model_fields_set]:
            raise problem(
                f"platform is {self.platform}, but {refused[0]} is set", f"remove {refused[0]}, or change platform"
            )
        if self.platform == "kubernetes" and self.reload:
            raise problem("source code can't be mounted into a cluster", "set reload: false")
        return self

    @property
    def cluster(self) -> Kubernetes:
        """Settings of the cluster. Use this property only with `platform: kubernetes`."""
        assert self.kubernetes
        return self.kubernetes

    @property
    def url(self) -> str:
        """Address that users open."""
        if self.kubernetes:
            return self.kubernetes.url
        return f"http://{self.gateway.address.replace('0.0.0.0', '127.0.0.1')}:{self.gateway.port}"

    def host_of(self, name: str) -> str:
        """Return the host with a name (`host` of a service): the host in `hosts`, or `NAME.` and the host of the application.

        On Docker the default is `NAME.localhost`, which browsers resolve to this machine without DNS (RFC 6761).
        """
        return self.hosts.get(name) or f"{name}.{self.kubernetes.host if self.kubernetes else 'localhost'}"

    def url_of(self, name: str) -> str:
        """Return the address at which users open the host with a name. Scheme and port are those of `url`."""
        return at_host(self.url, self.host_of(name))

    def own_hosts(self, app: App) -> dict[str, str]:
        """Return the hosts of services with a host of their own: name of the host → host."""
        return {name: self.host_of(name) for name in sorted({*app.hosts.values()})}

    def urls(self, app: App) -> dict[str, str]:
        """Return the addresses of services with a host of their own: name of the service → address."""
        return {service: self.url_of(name) for service, name in app.hosts.items()}

    def tier_settings(self, tier: str) -> TierSettings:
        """Return the settings of a tier in this environment, or the defaults."""
        return self.tiers.get(tier, TierSettings())

    @property
    def secrets(self) -> dict[str, str]:
        """Secrets that only the environment uses: name → config path of the setting that names the secret."""
        paths: dict[str, str] = {}
        for tier, backup in self.backups.items():
            for name, key in backup.secrets.items():
                paths.setdefault(name, f"environment.tiers.{tier}.backup.{key}")
        return paths

    @property
    def backups(self) -> dict[str, Backup]:
        """Settings of all backups by tier: those of the database, then those of the stores."""
        tiers = sorted(self.tiers, key=lambda tier: (tier != DATABASE.name, tier))
        return {tier: backup for tier in tiers if (backup := self.tiers[tier].backup)}

    @property
    def secrets_in_cluster(self) -> Mapping[str, SecretReference]:
        """References to the secrets with values in the cluster, by name of the secret; empty on Docker."""
        return self.kubernetes.secrets if self.kubernetes else {}

    def pooled(self, app: App) -> bool:
        """Return whether this environment deploys a database cluster with a connection pooler."""
        return app.database is not None and self.tier_settings(DATABASE.name).ha

    @property
    def archived(self) -> bool:
        """True if the database has a continuous archive: with `ha` and backups to a bucket."""
        size = self.tier_settings(DATABASE.name)
        return size.ha and size.backup is not None and size.backup.target.s3 is not None

    def data_image(self, tier: str, settings: DataSettings) -> str:
        """Return the image of a data service from its settings in `app`: `ha_image` for a database cluster, else `image`."""
        return settings.ha_image if isinstance(settings, Database) and self.tier_settings(tier).ha else settings.image

    def data(self, app: App) -> dict[str, DataSettings]:
        """Return the settings of the data services that this environment deploys, without external services."""
        return {name: settings for name, settings in app.data.items() if not self.tier_settings(name).external}

    def exporters(self, app: App) -> dict[str, Exporter]:
        """Return the metrics exporters that monitoring deploys, by name of the data service.

        A database cluster needs no exporter, because its instances serve metrics.
        """
        exporters = {record.name: record.exporter for record in app.catalogue.data if record.exporter}
        if self.tier_settings(DATABASE.name).uses_cluster:
            exporters.pop(DATABASE.name, None)
        return {name: exporters[name] for name in self.data(app) if name in exporters}

    def monitoring_images(self, app: App) -> dict[str, str]:
        """Return the images that monitoring deploys, by config key below `environment.monitoring`."""
        if not self.monitoring:
            return {}
        images = {
            f"exporters.{tier}": self.monitoring.exporters.get(tier, exporter.image)
            for tier, exporter in self.exporters(app).items()
        }
        return images | ({} if self.kubernetes else {"image": self.monitoring.image})
