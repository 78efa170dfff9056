"""Models of the application: `app` in Pulumi.yaml, which is the same in every environment."""

from collections.abc import Iterable
from itertools import combinations
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import BeforeValidator, Field, create_model, model_validator

from ..model import services
from ..model.names import secret_variable
from ..model.services import Catalogue
from . import grammar, template
from .base import Model
from .errors import problem
from .grammar import RefusalError, describe
from .template import Placeholder
from .units import (
    Argument,
    BuildArgument,
    Checked,
    Command,
    ContainerPath,
    DatabaseName,
    Distinct,
    DockerfilePath,
    Flag,
    Header,
    HeaderValue,
    Identifier,
    ImageReference,
    Name,
    Port,
    RelativePath,
    Role,
    RoutePath,
    Scratch,
    Seconds,
    SecretName,
    ServiceName,
    Setting,
    Share,
    StackName,
    Stage,
    TemplateText,
    TimeZone,
    Uid,
    UrlPath,
    Variable,
    Version,
    VolumePath,
    Wait,
    Word,
    cron_schedule,
    word,
)

RESERVED = frozenset({"PUBLIC_URL", "RELEASE", "SLOT"})
"""Environment variables that the program sets for every service in a slot."""
SECRETS = "/run/secrets"
"""Folder of the secret files in a container."""


class Step(Model):
    """A command that runs to its end, in the image of its tier, before the tier starts."""

    command: Command = Field(min_length=1, description="Command and arguments. The command must be safe to run twice.")
    timeout: Wait = Field(default=120, description="Time limit of the command.", validate_default=False)


class Migration(Step):
    """A command that changes the schema or the data of the database, which both slots share."""

    contract: Flag = Field(
        default=False,
        description="true: the migration breaks the previous release, so a rollback past it is refused. Remove the key in the next release.",
    )
    check: Command = Field(
        default=(),
        description="Command that ends with 0 if the database has the schema of this release. `make check` runs it.",
    )


class Reload(Model):
    """Live reload of edited source code, only in environments with `reload: true`."""

    target: Stage | None = Field(
        default=None,
        description="Stage of the Dockerfile to build instead of `target` or `build.target`, for example one with a development server.",
    )
    command: Command = Field(
        default=(), description="Command that replaces the tier's command; empty to keep the tier's."
    )
    mounts: dict[RelativePath, ContainerPath] = Field(
        description="Folders to mount read-only: path relative to Pulumi.yaml → path in the container."
    )
    writable: tuple[ContainerPath, ...] = Field(default=(), description="Further writable paths in memory.")
    start_within: Wait | None = Field(
        default=None, description="Time limit to become healthy; default is the tier's `start_within`."
    )


DOCKERFILE = "Dockerfile"
"""Default path of the Dockerfile in a build context."""


class Build(Model):
    """A build of an image from a Dockerfile."""

    context: Word = Field(
        examples=["api"], description="Build context: folder whose files the build can read, relative to Pulumi.yaml."
    )
    dockerfile: DockerfilePath = Field(
        default=DOCKERFILE, description="Path of the Dockerfile, in the build context and relative to it."
    )
    target: Stage | None = Field(
        default=None, description="Stage of the Dockerfile to build; default is the last stage."
    )
    args: dict[BuildArgument, Setting] = Field(
        default={},
        description="Build arguments (`ARG` in the Dockerfile): name → value. Never use a secret: everyone who can pull the image can read "
        "the arguments in its history.",
    )


def _build(value: object) -> object:
    """Convert the short form of `build`, a folder, to a mapping."""
    if not isinstance(value, str):
        return value
    try:
        return {"context": word(value)}
    except RefusalError as refusal:
        raise problem(refusal.wrong, refusal.fix) from None


def _allow_text(schema: dict[str, Any]) -> None:
    schema["anyOf"].insert(0, {"type": "string"})


class Source(Model):
    """Source of an image. Exactly one of `image` and `build` must be set."""

    image: ImageReference | None = Field(default=None, description="Image to pull, with a tag or digest.")
    build: Annotated[Build | None, BeforeValidator(_build)] = Field(
        examples=["api"],
        default=None,
        description="Folder with a Dockerfile to build, relative to Pulumi.yaml, or a mapping with further options.",
        json_schema_extra=_allow_text,
    )
    target: Stage | None = Field(
        default=None, description="With `build`: stage of the Dockerfile to build; default is the last stage."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.image is None) == (self.build is None):
            raise problem("either `image` or `build` is required, but not both", "set one of them")
        if self.target and not self.build:
            raise problem(
                "`target` names a stage of a Dockerfile, but `build` is not set", "set `build`, or remove `target`"
            )
        if self.target and self.build and self.build.target:
            raise problem("`target` and `build.target` both name a stage of the Dockerfile", "remove `target`")
        return self

    @property
    def stage(self) -> str | None:
        """Stage of the Dockerfile to build (`target` or `build.target`), or None for the last stage."""
        return self.target or (self.build.target if self.build else None)


class ProcessSettings(Model):
    """Settings that services in a slot and stores have: process, secrets, volumes."""

    command: Command = Field(
        default=(),
        description="Command and arguments that replace the image's command (CMD). The image's entrypoint stays, on every platform.",
    )
    entrypoint: Command = Field(
        default=(),
        examples=[["/usr/bin/tini", "--"]],
        description="Command and arguments that replace the image's entrypoint, also for tasks. The image's command then has no effect.",
    )
    env: dict[Variable, Setting] = Field(
        default={}, description="Environment variables, the same in every environment."
    )
    secrets: tuple[SecretName, ...] = Field(
        default=(),
        description="Names of `secrets` that the tier reads. Each is a file /run/secrets/NAME; the environment variable NAME_FILE has its path.",
    )
    secret_env: dict[Variable, TemplateText] = Field(
        default={},
        examples=[{"DATABASE_URL": template.EXAMPLE}],
        description="Environment variables with secrets: name → text with placeholders. `${SERVICE.FIELD}` is a value of a service in `needs`, such as "
        "`${database.password}` or `${api.url}`; `${secrets.NAME}` is a secret; `${public.url}` and `${public.host}` are the address that users open. "
        "In a URL the values are percent-encoded.",
    )
    secret_files: dict[SecretName, TemplateText] = Field(
        default={},
        examples=[{"database-url": template.EXAMPLE}],
        description="Files with secrets: name → text with the placeholders of `secret_env`. Each is a file /run/secrets/NAME; the environment variable "
        "NAME_FILE has its path.",
    )
    writable: tuple[ContainerPath, ...] = Field(
        default=("/tmp",), description="Writable paths in memory. Other paths, except `volumes`, are read-only."
    )
    scratch: Scratch = Field(default=64 * 2**20, validate_default=False, description="Size of each `writable` path.")
    volumes: dict[Name, VolumePath] = Field(
        default={},
        description="Volumes for data that outlives a release: name → path. `user` must own the path in the image. Tiers that name the same "
        "volume share it. `PATH:ro` mounts the volume read-only.",
    )
    egress: Flag = Field(default=False, description="true: the tier may connect to the outside.")
    stop_within: Seconds = Field(
        default=30, description="Time limit to finish open work before the process is killed.", validate_default=False
    )

    @property
    def templates(self) -> dict[str, str]:
        """Texts of all templates, by config key below the service, such as `secret_env.DATABASE_URL`."""
        variables = {f"secret_env.{name}": text for name, text in self.secret_env.items()}
        return variables | {f"secret_files.{name}": text for name, text in self.secret_files.items()}

    @property
    def mounted(self) -> tuple[tuple[str, str], ...]:
        """Config key and container path of each volume and writable path."""
        return (
            *(("writable", path) for path in self.writable),
            *((f"volumes.{name}", path.removesuffix(":ro")) for name, path in self.volumes.items()),
        )

    @model_validator(mode="after")
    def _paths_apart(self) -> Self:
        for (_, path), (_, other_path) in combinations(self.mounted, 2):
            if grammar.normal_path(path) == grammar.normal_path(other_path):
                raise problem(f"{path} occurs twice in `writable`, `volumes` and `reload` together", "list it once")
        return self

    @model_validator(mode="after")
    def _secrets_apart(self) -> Self:
        if twice := sorted(set(self.env) & set(self.secret_env)):
            raise problem(f"{twice[0]} is in `env` and in `secret_env`", "set it only once")
        if twice := sorted(set(self.secrets) & set(self.secret_files)):
            raise problem(f"{twice[0]} is in `secrets` and in `secret_files`", "list it only once")
        return self


class ServiceSettings(ProcessSettings, Source):
    """Settings that every tier in a slot has."""

    needs: Annotated[tuple[ServiceName, ...], Distinct] = Field(
        default=(),
        examples=[["database"]],
        description="Tiers that this tier connects to. It may connect to them, gets their addresses as environment variables, and starts after them.",
    )
    user: Uid = Field(default=10001, description="UID and GID of the process; root is refused.")
    start_within: Wait = Field(default=60, description="Time limit to become healthy.", validate_default=False)
    migrate: Migration | None = Field(
        default=None, description="Migration that runs before the tier starts, in every release."
    )
    tasks: dict[Name, Step] = Field(
        default={},
        description="Further commands that run before the tier starts, in every release: after `migrate`, in this order.",
    )
    seed: Step | None = Field(
        default=None,
        description="Command that inserts sample data, after `migrate` and `tasks`, in environments with `seed: true`.",
    )
    reload: Reload | None = Field(default=None, description="Live reload while the source code is edited.")
    console: Command = Field(
        default=("sh",),
        description="Command that `make console` runs in a container of the tier, such as the application's own console.",
    )

    @property
    def mounted(self) -> tuple[tuple[str, str], ...]:
        if not self.reload:
            return super().mounted
        mounts = ((f"reload.mounts.{name}", path) for name, path in self.reload.mounts.items())
        return (*super().mounted, *mounts, *(("reload.writable", path) for path in self.reload.writable))

    @model_validator(mode="after")
    def _names_apart(self) -> Self:
        if reserved := sorted({"migrate", "seed"} & set(self.tasks)):
            raise problem(f"`tasks` can't contain {reserved[0]}", f"move this task to the key `{reserved[0]}`")
        return self

    @model_validator(mode="after")
    def _target_needs_build(self) -> Self:
        if self.reload and self.reload.target and not self.build:
            raise problem(
                "reload.target names a stage of a Dockerfile, but `build` is not set",
                "set `build`, or remove reload.target",
            )
        return self


L = TypeVar("L", "Listening", "Store")


def _without_root(settings: L) -> L:
    if settings.port < 1024:
        raise problem(f"only root can open port {settings.port}", "use a port above 1023, such as 8080")
    return settings


class Listening(ServiceSettings):
    """A tier that answers HTTP requests."""

    port: Port = Field(description="Port that the tier listens on, above 1023, because it does not run as root.")
    health: UrlPath = Field(default="/health", description="Path that answers 200 while the process is alive.")
    ready: UrlPath | None = Field(
        default=None, description="Path that answers 200 while the tier can serve requests; default is `health`."
    )
    health_host: HeaderValue | None = Field(
        examples=["shop.example.com"],
        default=None,
        description="Host that the requests of health checks name; default is the host that users open.",
    )
    metrics: RoutePath | None = Field(
        examples=["/metrics"],
        default=None,
        description="Path of Prometheus metrics. The gateway answers 404 to this path and all paths below it, in any spelling.",
    )

    @model_validator(mode="after")
    def _port_without_root(self) -> Self:
        return _without_root(self)


_PATHS = "Path prefixes that the gateway routes to the service. Empty: users can't reach the service, only services that need it can."


class Web(Listening):
    """Tier that serves pages and static assets. The gateway routes a request to web if no `paths` of another service match."""


class RoutedSettings(Listening):
    """Service to which the gateway routes the requests for `paths`."""

    paths: Annotated[tuple[RoutePath, ...], Distinct] = Field(
        min_length=1, description="Path prefixes that the gateway routes to the service."
    )
    host: Name | None = Field(
        default=None,
        examples=["admin"],
        description="Name of a host of its own, at which users reach the service instead of the application's host: with `admin` at "
        "admin.shop.example.com if the application is at shop.example.com. `environment.hosts` sets another host. Without `paths` the service then gets all "
        "requests for the host.",
    )

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Path prefixes that the gateway routes to the service: `paths`, or `/` for a service with a `host` and no `paths`."""
        return self.paths if "paths" in self.model_fields_set or not self.host else ("/",)

    @model_validator(mode="after")
    def _host_needs_paths(self) -> Self:
        if self.host and not self.prefixes:
            raise problem("`host` has no effect with `paths: []`", "remove `paths`, or remove `host`")
        return self


class Api(RoutedSettings):
    """The application's HTTP API. The gateway routes the requests for `paths` to it."""

    paths: Annotated[tuple[RoutePath, ...], Distinct] = Field(
        default=("/api",), min_length=1, description="Path prefixes that the gateway routes to the api."
    )


class FurtherWeb(RoutedSettings):
    """A further service of the tier web, such as a second frontend."""

    tier: Literal["web"] = Field(description="Tier of the service.")
    paths: Annotated[tuple[RoutePath, ...], Distinct] = Field(default=(), description=_PATHS)


class FurtherApi(RoutedSettings):
    """A further service of the tier api, such as a separate API for uploads, or an internal service."""

    tier: Literal["api"] = Field(description="Tier of the service.")
    paths: Annotated[tuple[RoutePath, ...], Distinct] = Field(default=(), description=_PATHS)


class Worker(ServiceSettings):
    """Tier that processes jobs from a queue. A worker has no port."""

    alive: Command = Field(
        default=(),
        description="Health check command that ends with 0 while the worker is healthy; empty: a running worker is healthy.",
    )
    single: Flag = Field(
        default=False,
        description="true: the process must never run twice, such as a scheduler or a bot. Only the live release runs it, and at a switch the old "
        "process ends before the new one starts.",
    )


class FurtherWorker(Worker):
    """A further service of the tier worker, such as a worker for another queue."""

    tier: Literal["worker"] = Field(description="Tier of the service.")


_DATA_UID = "UID that owns the data files: 999 in Debian images. On Kubernetes 10000 is added, because the UID must not be a user of the node."


class DataSettings(Model):
    """Settings of a data service, which both slots share."""

    image: ImageReference = Field(description="Image of the service.", examples=["getmeili/meilisearch:v1.8"])
    uid: Uid = Field(default=999, description=_DATA_UID)
    start_within: Wait = Field(default=60, description="Time limit to accept connections.", validate_default=False)

    @property
    def password_secret(self) -> str | None:
        """Name of the secret with the service's password; None for a service without a password."""
        return None

    @property
    def console(self) -> tuple[str, ...]:
        """Command that `make console` runs in a container of the service."""
        return ("sh",)


class Database(DataSettings):
    """PostgreSQL, which both slots share."""

    image: ImageReference = Field(
        default="postgres:15-bookworm", description="Image with the interface of the public postgres image."
    )
    ha_image: ImageReference = Field(
        default="ghcr.io/cloudnative-pg/postgresql:15-standard-bookworm",
        description="Image for environments with `ha`, with the interface of CloudNativePG's images.",
    )
    name: DatabaseName = Field(default="app", description="Name of the database to create.")
    user: Role = Field(default="app", description="Owner of the database.")
    password: SecretName = Field(
        default="database-password",
        description="Name of the secret with the owner's password. To change the password later, also run ALTER ROLE.",
    )
    init: tuple[RelativePath, ...] = Field(
        default=(),
        description="SQL files, relative to Pulumi.yaml, that run once in a new database, in this order.",
    )
    seed: tuple[RelativePath, ...] = Field(
        default=(), description="SQL files that run after `init` in a new database, in environments with `seed: true`."
    )
    uid: Uid = Field(default=999, description=_DATA_UID)
    start_within: Wait = Field(default=120, description="Time limit to accept connections.", validate_default=False)
    anonymise: tuple[RelativePath, ...] = Field(
        examples=[["sql/anonymise.sql"]],
        default=(),
        description="SQL files, relative to Pulumi.yaml, that anonymise personal data. `make refresh` runs each file in one transaction "
        "on the copied data, before tiers can use the database.",
    )

    @property
    def password_secret(self) -> str | None:
        return self.password

    @property
    def console(self) -> tuple[str, ...]:
        return ("psql", "--username", self.user, "--dbname", self.name)


class Cache(DataSettings):
    """Redis, which both slots share. Redis keeps its data across restarts."""

    image: ImageReference = Field(
        default="redis:7-bookworm", description="Image with the interface of the public redis image."
    )
    password: SecretName = Field(
        default="cache-password",
        description="Name of the secret with the password. After a change the live slot can't connect until the switch.",
    )
    uid: Uid = Field(default=999, description=_DATA_UID)
    start_within: Wait = Field(default=60, description="Time limit to accept connections.", validate_default=False)

    @property
    def password_secret(self) -> str | None:
        return self.password


class Store(ProcessSettings, DataSettings):
    """A further service that both slots share, with any image, such as MySQL, RabbitMQ, MinIO or Mailpit."""

    tier: Literal["store"] = Field(description="Tier of the service.")
    port: Port = Field(description="Port that services connect to, above 1023, because the store does not run as root.")
    health: UrlPath | None = Field(
        default=None, examples=["/health"], description="Path that answers 200 while the store accepts connections."
    )
    alive: Command = Field(
        default=(),
        examples=[["mysqladmin", "ping"]],
        description="Health check command that ends with 0 while the store accepts connections. Set either `alive` or `health`.",
    )
    environments: Annotated[tuple[StackName, ...], Distinct] = Field(
        default=(),
        examples=[["dev"]],
        description="Names of the stacks that have the store, such as dev or pr-*; empty for all. In other stacks no service needs the store.",
    )
    entrypoint: Command = Field(
        default=(),
        examples=[["/usr/bin/tini", "--"]],
        description="Command and arguments that replace the image's entrypoint. The image's command then has no effect.",
    )
    secret_env: dict[Variable, TemplateText] = Field(
        default={},
        examples=[{"MYSQL_PASSWORD": "${secrets.mysql-password}"}],
        description="Environment variables with secrets: name → text with placeholders. `${secrets.NAME}` is a secret; `${public.url}` and "
        "`${public.host}` are the address that users open. In a URL the values are percent-encoded.",
    )
    secret_files: dict[SecretName, TemplateText] = Field(
        default={},
        examples=[{"mysql-password": "${secrets.mysql-password}"}],
        description="Files with secrets: name → text with the placeholders of `secret_env`. Each is a file /run/secrets/NAME; the environment variable "
        "NAME_FILE has its path.",
    )
    volumes: dict[Name, VolumePath] = Field(
        default={},
        examples=[{"mysql-data": "/var/lib/mysql"}],
        description="Volumes for data that outlives the container: name → path. `uid` must own the path in the image. No other service can mount them.",
    )
    egress: Flag = Field(default=False, description="true: the store may connect to the outside.")

    @model_validator(mode="after")
    def _port_without_root(self) -> Self:
        return _without_root(self)

    @model_validator(mode="after")
    def _one_health_check(self) -> Self:
        if (self.health is None) == (not self.alive):
            raise problem(
                "exactly one of `health` and `alive` is required, because services start after a healthy store",
                "set health: /health if the store answers HTTP requests, or else alive, as in alive: [mysqladmin, ping]",
            )
        return self


FurtherService = Annotated[FurtherWeb | FurtherApi | FurtherWorker | Store, Field(discriminator="tier")]


class Job(Model):
    """A command that runs on a schedule, in the image and with the settings of a service. Only the live release runs it."""

    service: ServiceName = Field(
        examples=["api"],
        description="Service in a slot whose image, variables, secrets, volumes and limits the job has.",
    )
    command: Command = Field(min_length=1, description="Command and arguments that replace the image's command (CMD).")
    schedule: Annotated[str, cron_schedule(3)] = Field(
        examples=["*/15 * * * *"],
        description="Due times: `daily` (03:17), `weekly`, `monthly` or a cron expression.",
    )
    timezone: TimeZone = Field(
        default="UTC",
        examples=["Europe/Berlin"],
        description="Time zone of `schedule`, by its name in the IANA database.",
    )
    timeout: Wait = Field(default=3600, description="Time limit of a run.", validate_default=False)
    overlap: Literal["forbid", "allow"] = Field(
        default="forbid",
        description="`forbid`: a run does not start while another run of the job has not ended. `allow`: it does.",
    )
    retries: int = Field(
        default=0, ge=0, le=10, strict=True, description="Number of times that a failed run is repeated."
    )
    missed: Literal["skip", "once"] = Field(
        default="skip",
        description="Due times that passed while nothing could run. `skip`: they are lost. `once`: one run makes up for those of the last day.",
    )


class Check(Model):
    """A request and its expected response. A release that responds differently does not go live. `make check` sends the request
    to the live release."""

    path: UrlPath = Field(description="Path of the request (GET). Redirections are not followed.")
    status: int = Field(default=200, ge=200, le=599, strict=True, description="Expected status of the response.")
    headers: dict[Header, HeaderValue] = Field(
        default={}, description="Expected headers: name, in any case, → exact value."
    )
    contains: Argument | None = Field(
        examples=["<title>Shop"], default=None, description="Text that the first MiB of the response must contain."
    )

    @model_validator(mode="after")
    def _answer_has_it(self) -> Self:
        if self.contains and self.status in (204, 205, 304):
            raise problem(
                f"a response of status {self.status} has no content", "remove `contains`, or change the status"
            )
        names = [name.lower() for name in self.headers]
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise problem(f"header {twice[0]} is listed twice, in different case", "list it once")
        return self


def checks_as_json(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Return the checks as JSON objects for the smoke test. Each object contains the config path of its check, for errors."""
    return [
        {"name": f"app.checks.{number}: {check.path}", **check.model_dump(exclude_none=True)}
        for number, check in enumerate(checks)
    ]


HERE = "$here"
"""Placeholder in the query of a business metric. The program replaces it by the labels of the environment."""


def _query(value: object) -> str:
    if not isinstance(value, str) or HERE not in value:
        raise RefusalError(
            f"the query {describe(value, 80)} has no {HERE}, so it reads the metrics of all environments",
            f"add {HERE}, which stands for the labels of an environment, as in sum(shop_orders_total{{{HERE}}})",
        )
    # Imported here because the parser is slow to import, and only applications with business metrics need it.
    from . import promql

    if wrong := promql.problem(value, HERE):
        raise RefusalError(wrong, f"write it like sum(rate(shop_orders_total{{{HERE}}}[5m]))")
    return value


class BusinessMetric(Model):
    """A business metric. In environments with `monitoring` Prometheus records the metric, and the dashboard shows it."""

    query: Annotated[str, Checked(check=_query, example=f"sum(shop_orders_total{{{HERE}}})")] = Field(
        description="PromQL over the application's metrics. `$here` in each selector stands for the environment's labels."
    )
    help: str = Field(default="", description="Title in the dashboard and in alerts; default is the name.")
    unit: Literal["short", "s", "bytes", "percentunit", "reqps"] = Field(
        default="short", description="Unit of the value, by its name in Grafana."
    )
    above: Share | None = Field(
        examples=[100], default=None, description="Limit: an alert fires if the value is above it for ten minutes."
    )


class App(Model):
    """Settings of the application, the same in every environment (`app` in Pulumi.yaml)."""

    name: Name = Field(description="Name of the application, the prefix of all resource names.")
    version: Version = Field(description="Version of the application. The name of a release is `VERSION-DIGEST`.")
    visits: tuple[UrlPath, ...] = Field(
        default=("/",),
        min_length=1,
        description="Paths that users request most (GET). `make perf` measures `environment.slo` with them.",
    )
    checks: tuple[Check, ...] = Field(
        default=(),
        description="Requests with expected responses. The smoke test sends them to every release before it goes live.",
    )
    figures: dict[Identifier, BusinessMetric] = Field(
        default={}, description="Business metrics by name, computed from the metrics of web and api."
    )
    web: Web | None = None
    api: Api | None = None
    worker: Worker | None = None
    database: Database | None = None
    cache: Cache | None = None
    services: dict[Name, FurtherService] = Field(
        default={},
        description="Further services by name, each of the tier web, api, worker or store. Those of the tiers web, api and worker belong to the slot of "
        "each release. Both slots share a store, as they share database and cache.",
    )
    jobs: dict[Name, Job] = Field(
        default={}, description="Scheduled jobs by name: commands that the live release runs at due times."
    )

    @property
    def catalogue(self) -> Catalogue:
        """Records of all services: first each record in `SERVICES`, whether configured or not, then a record for each service in `app.services`."""
        return Catalogue(
            (
                *services.SERVICES,
                *(
                    services.further_service(
                        name,
                        settings.tier,
                        routed=isinstance(settings, RoutedSettings) and bool(settings.prefixes),
                        port=settings.port if isinstance(settings, Store) else None,
                    )
                    for name, settings in sorted(self.services.items())
                ),
            )
        )

    @property
    def described(self) -> dict[str, ServiceSettings | DataSettings]:
        """Settings of all configured services by name, in the order of the catalogue."""
        settings = {record.name: getattr(self, record.name, None) for record in services.SERVICES}
        settings |= dict(sorted(self.services.items()))
        return {name: value for name, value in settings.items() if isinstance(value, ServiceSettings | DataSettings)}

    def jobs_of(self, service: str) -> dict[str, Job]:
        """Return the scheduled jobs that run in the image of a service, by name."""
        return {name: job for name, job in self.jobs.items() if job.service == service}

    def path(self, name: str) -> str:
        """Return the config path of a service, such as `app.api` or `app.services.mailer`."""
        return f"app.services.{name}" if name in self.services else f"app.{name}"

    @property
    def names(self) -> frozenset[str]:
        """Names of all configured services."""
        return frozenset(self.described)

    @property
    def single_processes(self) -> tuple[str, ...]:
        """Names of the services whose process must never run twice (`single`)."""
        return tuple(name for name, value in self.described.items() if isinstance(value, Worker) and value.single)

    @property
    def slot_services(self) -> dict[str, ServiceSettings]:
        """Settings of the services in a slot, by name."""
        return {name: value for name, value in self.described.items() if isinstance(value, ServiceSettings)}

    @property
    def data(self) -> dict[str, DataSettings]:
        """Settings of the data services, which both slots share, by name."""
        return {name: value for name, value in self.described.items() if isinstance(value, DataSettings)}

    @property
    def stores(self) -> dict[str, Store]:
        """Settings of the stores, by name."""
        return {name: value for name, value in self.data.items() if isinstance(value, Store)}

    @property
    def processes(self) -> dict[str, ProcessSettings]:
        """Settings of the services in a slot and of the stores, by name. The configuration describes their processes."""
        return {name: value for name, value in self.described.items() if isinstance(value, ProcessSettings)}

    @property
    def listening(self) -> dict[str, Listening]:
        """Settings of the services that answer HTTP requests, by name."""
        return {name: value for name, value in self.slot_services.items() if isinstance(value, Listening)}

    @property
    def routes(self) -> dict[str, tuple[str, ...]]:
        """Path prefixes that the gateway routes: name of the service → prefixes.

        Web has the prefix `/`, and gets all requests that match no other prefix. Without web, the api has the prefix `/` instead
        of its `paths`, unless another service has this prefix, or the api has a `host`. The prefixes of a service with a `host`
        apply to this host only.
        """
        prefixes = {
            record.name: settings.prefixes if isinstance(settings, RoutedSettings) else ("/",)
            for record in self.catalogue.routed
            if (settings := self.listening.get(record.name))
        }
        others = [name for name in prefixes if name != services.API.name and not self.host_name(name)]
        has_root = any("/" in prefixes[name] for name in others)
        gets_rest = self.api and not self.api.host and not has_root
        return prefixes | {services.API.name: ("/",)} if gets_rest else prefixes

    def host_name(self, name: str) -> str | None:
        """Return the name of a service's own host, or None for a service on the application's host."""
        settings = self.listening.get(name)
        return settings.host if isinstance(settings, RoutedSettings) else None

    @property
    def hosts(self) -> dict[str, str]:
        """Services with a host of their own: name of the service → name of the host."""
        return {name: host for name in self.listening if (host := self.host_name(name))}

    @property
    def ports(self) -> dict[str, int]:
        """Port of each service that answers HTTP requests."""
        return {name: value.port for name, value in self.listening.items()}

    @property
    def measured(self) -> dict[str, Listening]:
        """Settings of the services that serve metrics, by name."""
        return {name: value for name, value in self.listening.items() if value.metrics}

    @property
    def volumes(self) -> frozenset[str]:
        """Names of the volumes of all services in a slot."""
        return frozenset(name for service in self.slot_services.values() for name in service.volumes)

    @property
    def contract(self) -> bool:
        """True if a migration breaks the previous release (`contract: true`)."""
        return any(service.migrate and service.migrate.contract for service in self.slot_services.values())

    @property
    def secrets(self) -> dict[str, str]:
        """Secrets of the application: name → config path of the setting that names the secret."""
        used = {
            placeholder.field: f"{self.path(tier)}.{key}"
            for tier, service in self.processes.items()
            for key, text in service.templates.items()
            for placeholder in template.placeholders(text)
            if placeholder.owner == template.SECRETS
        }
        used |= {
            name: f"{self.path(tier)}.secrets" for tier, service in self.processes.items() for name in service.secrets
        }
        return used | {
            data.password_secret: f"app.{name}.password" for name, data in self.data.items() if data.password_secret
        }

    def template_fields(self, name: str) -> tuple[str, ...]:
        """Return the fields that a template may read from a service, such as `host` and `password`."""
        record = self.catalogue.find(name)
        variables = record.variables if record else ()
        fields = [variable.removeprefix(f"{services.prefix(name)}_").lower() for variable in variables]
        has_password = name in self.data and self.data[name].password_secret
        own_address = template.OWN_ADDRESS_FIELDS if name in self.hosts else ()
        return (*fields, *([template.PASSWORD] if has_password else []), *own_address)

    def secret_of(self, placeholder: Placeholder) -> str | None:
        """Return the name of the secret whose value a placeholder stands for, or None if the value is no secret."""
        if placeholder.owner == template.SECRETS:
            return placeholder.field
        owner = self.data.get(placeholder.owner)
        return owner.password_secret if owner and placeholder.field == template.PASSWORD else None

    def passwords(self, needs: Iterable[str]) -> list[str]:
        """Return the names of the password secrets of the data services in `needs`. Skip services without a password."""
        return [data.password_secret for name, data in self.data.items() if name in needs and data.password_secret]


def app_model() -> type[App]:
    """Return the model of the application: `App`, plus a field for each service in `SERVICES` that `App` lacks."""
    further = [record for record in services.SERVICES if record.name not in App.model_fields]
    fields: dict[str, Any] = {record.name: (_settings_of(record) | None, None) for record in further}
    return create_model("App", __base__=App, __doc__=App.__doc__, **fields) if fields else App


def _settings_of(record: services.Service) -> type[ServiceSettings] | type[DataSettings]:
    if record.settings:
        return cast(type[DataSettings], record.settings)
    return RoutedSettings if record.routed else _MODELS[record.kind]


_MODELS: dict[services.Kind, type[ServiceSettings] | type[DataSettings]] = {
    services.Kind.HTTP: Listening,
    services.Kind.WORKER: Worker,
    services.Kind.DATA: DataSettings,
}
"""Default model of a service's settings, by kind of the service. A routed service has the model `RoutedSettings` instead.
`Service.settings` takes precedence over both."""


def program_variables(app: App, settings: ProcessSettings) -> frozenset[str]:
    """Return the names of the environment variables that the program sets for a service. `env` must not contain these names."""
    files = frozenset(secret_variable(name) for name in (*settings.secrets, *settings.secret_files))
    if not isinstance(settings, ServiceSettings):
        return files
    files |= {secret_variable(name) for name in app.passwords(settings.needs)}
    needed = (record for record in app.catalogue.records if record.name in settings.needs)
    addresses = {services.public_variable(name) for name in app.hosts}
    return RESERVED | files | addresses | {variable for record in needed for variable in record.variables}
