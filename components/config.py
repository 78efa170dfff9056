"""Configuration: models of the application (`app`) and of its environment (`environment`), and their checks.

No other module reads configuration. It is read once, checked as a whole, and passed on as frozen models. Every error names
the path of the value, the problem and the text to write instead. `python -m components.reference` generates
`docs/configuration.md` and the JSON Schema for editors from these models.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import combinations
from typing import Annotated, Any, Literal, Self, TypeVar, cast

import pulumi
from pulumi import Config, ConfigTypeError, Output, RunError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from . import explain, grammar, names, passwords
from .grammar import RefusalError, describe, kind
from .paths import covers


class ConfigError(RunError):
    """Invalid configuration. The message has one line for each problem: `path: what is wrong; what to do`."""


class TierName(StrEnum):
    WEB = "web"
    API = "api"
    WORKER = "worker"
    DATABASE = "database"
    CACHE = "cache"


def _problem(wrong: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("tiers", "{wrong}; {fix}", {"wrong": wrong, "fix": fix})


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Annotation of a type whose values are checked by a grammar before pydantic. Editors and messages show its example."""

    check: Callable[[Any], object]
    example: str | float
    pattern: str = ""
    type: str = "string"

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        limits = {key: value for key, value in handler(schema).items() if key in ("minimum", "maximum")}
        pattern = {"pattern": f"^{self.pattern}$"} if self.pattern else {}
        return {"type": self.type, **limits, **pattern, "examples": [self.example]}

    def _checked(self, value: object) -> object:
        try:
            return self.check(value)
        except RefusalError as refusal:
            raise _problem(refusal.wrong, refusal.fix) from None


_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_A_SIZE, _A_TIME = r"\d+(\.\d+)?(Ki|Mi|Gi)", r"\d+(\.\d+)?(ms|s|m|h)"
_YEARS = 10 * 365 * 24 * 3600
"""Limit of any time in seconds. Some platforms count nanoseconds in 64 bits."""


def _quantity(value: object, units: Mapping[str, float], example: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([A-Za-z]+)", value, re.ASCII) if isinstance(value, str) else None
    if not match or match[2] not in units:
        raise RefusalError(f"{describe(value)} is not a number with a unit", f"write it like {example}")
    return float(match[1]) * units[match[2]]


def _bytes(least: int, noun: str, most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        size = int(_quantity(value, _BYTES, "512Mi (units: Ki, Mi, Gi)"))
        if size < least * 2**20:
            raise RefusalError(f"{describe(value)} is too little {noun}", f"give at least {least}Mi")
        if size > most * 2**30:
            raise RefusalError(f"{describe(value)} is more than any machine has", f"give at most {most}Gi")
        return size

    return check


def _time(least: float, shown: str) -> Callable[[object], float]:
    def check(value: object) -> float:
        seconds = _quantity(value, _SECONDS, "30s (units: ms, s, m, h)")
        if seconds < least:
            raise RefusalError(f"{describe(value)} is too short", f"give at least {shown}")
        if seconds > _YEARS:
            raise RefusalError(f"{describe(value)} is more than ten years", f"give at most {_YEARS // 3600}h")
        return seconds

    return check


def _interval(value: object) -> float:
    seconds = _time(1, "1s")(value)
    if seconds > 120:
        raise RefusalError(
            f"{describe(value)} is too long for rates over five minutes, which need two samples", "give at most 2m"
        )
    return seconds


def _cpu(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 256:
        raise RefusalError(
            f"{describe(value)} is not a number of processors", "write it like 0.5 or 2, from 0.01 to 256"
        )
    return float(value)


def _port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise RefusalError(f"{describe(value)} is not a port", "give a whole number from 1 to 65535, without quotes")
    return value


def _share(value: object) -> object:
    if isinstance(value, bool):
        raise RefusalError(f"{describe(value)} is a boolean", "give a number, as in 0.01")
    return value


_WORDS = {"daily": "17 {hour} * * *", "weekly": "17 {hour} * * sun", "monthly": "17 {hour} 1 * *"}


def _times(hour: int) -> Checked:
    """Return the type of a schedule: a cron expression in UTC, or `daily`, `weekly` or `monthly` at `hour`:17."""

    def check(value: object) -> str:
        return grammar.cron(_WORDS[value].format(hour=hour) if isinstance(value, str) and value in _WORDS else value)

    return Checked(check=check, example="30 2 * * mon-fri")


def _days(value: object) -> int:
    days = round(_quantity(value, {"d": 1, "w": 7}, "30d (units: d, w)"))
    if days < 1:
        raise RefusalError(f"{describe(value)} is less than a day", "give at least 1d")
    if days > 36500:
        raise RefusalError(f"{describe(value)} is more than a hundred years", "give at most 36500d")
    return days


def _volume_path(value: object) -> str:
    return (
        grammar.container_path(value.removesuffix(":ro")) and value
        if isinstance(value, str)
        else grammar.container_path(value)
    )


def _pattern(pattern: str, example: str, fix: str, noun: str = "a name that every platform takes") -> Checked:
    def check(value: object) -> str:
        return grammar.matching(value, pattern, noun, fix)

    return Checked(check=check, example=example, pattern=pattern)


_NAME = r"[a-z](-?[a-z0-9]){0,29}"
_A_NAME = "use lower-case letters, digits and single dashes, at most 30, a letter first"


def _secret_name(value: object) -> str:
    """Check a secret's name. The message never shows the value, because a user may have written the secret itself."""
    if not isinstance(value, str) or not re.fullmatch(_NAME, value, re.ASCII):
        fix = "write a name of lower-case letters, digits and single dashes, and give its value to `pulumi config set --secret`"
        raise RefusalError("it is not the name of one of `secrets`", fix)
    return value


def _word(value: object) -> str:
    text = grammar.text_of(value, "a text", "write it in quotes")
    if not text or any(unicodedata.category(mark) == "Cc" for mark in text):
        raise RefusalError(
            f"{describe(text)} is not a text of one line", "write it in quotes, without control characters"
        )
    return text


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise _problem(f"{value} is given twice", "give it once")
    return values


Distinct = AfterValidator(_distinct)
Memory = Annotated[int, Checked(check=_bytes(6, "to start a container", 2**16), example="512Mi", pattern=_A_SIZE)]
Scratch = Annotated[int, Checked(check=_bytes(6, "for files", 2**16), example="512Mi", pattern=_A_SIZE)]
Storage = Annotated[int, Checked(check=_bytes(6, "for a volume", 2**20), example="10Gi", pattern=_A_SIZE)]
Seconds = Annotated[float, Checked(check=_time(0, "0s"), example="30s", pattern=_A_TIME)]
Wait = Annotated[float, Checked(check=_time(1, "1s"), example="30s", pattern=_A_TIME)]
Latency = Annotated[float, Checked(check=_time(0.001, "1ms"), example="500ms", pattern=_A_TIME)]
Cpu = Annotated[float, Checked(check=_cpu, example=0.5, type="number")]
Port = Annotated[int, Checked(check=_port, example=8080, type="integer")]
Share = Annotated[float, BeforeValidator(_share), Field(allow_inf_nan=False, strict=True)]
ContainerPath = Annotated[str, Checked(check=grammar.container_path, example="/var/lib/app", pattern=r"/.*")]
VolumePath = Annotated[str, Checked(check=_volume_path, example="/var/lib/app", pattern=r"/.*")]
HostFolder = Annotated[str, Checked(check=grammar.host_folder, example="/srv/backups", pattern=r"/.*")]
RelativePath = Annotated[str, Checked(check=grammar.relative_path, example="sql/schema.sql", pattern=r"[^/].*")]
UrlPath = Annotated[
    str, Checked(check=grammar.url_path, example="/health", pattern=r"/([A-Za-z0-9._~/-]|%[0-9A-Fa-f]{2})*")
]
RoutePath = Annotated[
    str, Checked(check=grammar.route_path, example="/api", pattern=r"/([A-Za-z0-9._~/-]|%[0-9A-Fa-f]{2})*")
]
Address = Annotated[
    str, Checked(check=grammar.address, example="https://example.com", pattern=r"https?://[a-z0-9.-]+(:\d+)?")
]
PublicAddress = Annotated[
    str,
    Checked(check=grammar.public_address, example="https://app.example.com", pattern=r"https?://[a-z0-9.-]+(:\d+)?"),
]
ImageReference = Annotated[str, Checked(check=grammar.image, example="nginx:1.27", pattern=r"[^:@\s]+([:@/][^:@\s]+)+")]
ImageRepository = Annotated[str, Checked(check=grammar.repository, example="ghcr.io/team")]
Uid = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True, examples=[10001])]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, _pattern(_NAME, "shop", _A_NAME)]
SecretName = Annotated[str, Checked(check=_secret_name, example="api-key", pattern=_NAME)]
Host = Annotated[str, Checked(check=grammar.route_host, example="app.example.com")]
Server = Annotated[str, Checked(check=grammar.host, example="db.example.com")]
Engine = Annotated[
    str, Checked(check=grammar.docker_host, example="ssh://deploy@server", pattern="(unix|ssh|tcp)://.+")
]
Cidr = Annotated[str, Checked(check=grammar.cidr, example="10.0.0.0/8")]
Object = Annotated[str, Checked(check=grammar.subdomain, example="public", pattern=r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")]
Bucket = Annotated[str, Checked(check=grammar.bucket, example="shop-backups", pattern=r"[a-z0-9][a-z0-9.-]*[a-z0-9]")]
Header = Annotated[
    str,
    _pattern(r"[A-Za-z][A-Za-z0-9-]{0,99}", "X-Frame-Options", "write it like X-Frame-Options", "the name of a header"),
]
HeaderValue = Annotated[str, Checked(check=grammar.header_value, example="DENY")]
Identifier = Annotated[str, Checked(check=grammar.identifier, example="app", pattern=r"[a-z_][a-z0-9_]{0,62}")]
Role = Annotated[str, Checked(check=grammar.role, example="app", pattern=r"[a-z_][a-z0-9_]{0,62}")]
DatabaseName = Annotated[str, Checked(check=grammar.database, example="app", pattern=r"[a-z_][a-z0-9_]{0,62}")]
Variable = Annotated[
    str, _pattern(r"[A-Z_][A-Z0-9_]{0,99}", "LOG_LEVEL", "use capitals, digits and underscores, as in LOG_LEVEL")
]
Version = Annotated[
    str,
    _pattern(
        r"[A-Za-z0-9]([A-Za-z0-9._-]{0,38}[A-Za-z0-9])?",
        "1.4.0",
        'use at most 40 letters, digits, dots, dashes and underscores, a letter or digit first and last; in quotes, as in "1.4.0"',
        "a version as text",
    ),
]
Setting = Annotated[str, Field(examples=["info"])]
Word = Annotated[str, Checked(check=_word, example="text")]
Argument = Annotated[str, Field(min_length=1, examples=["serve"])]
LabelKey = Annotated[str, Checked(check=grammar.label_key, example="release")]
LabelValue = Annotated[str, Checked(check=grammar.label_value, example="prometheus")]
Stage = Annotated[
    str, _pattern(r"[a-z][a-z0-9._-]{0,49}", "dev", "write it as the Dockerfile does, like dev", "a stage")
]
Command = Annotated[tuple[Argument, ...], Field(examples=[["python", "-m", "app"]])]

RESERVED = frozenset({"PUBLIC_URL", "RELEASE", "SLOT"})
"""Environment variables that the program sets for every tier of a slot."""
SECRETS = "/run/secrets"
"""The folder of secret files in a container."""
_OF_TIERS = {
    "database": tuple(f"DATABASE_{part}" for part in ("HOST", "DIRECT_HOST", "READ_HOST", "PORT", "NAME", "USER")),
    "cache": ("CACHE_HOST", "CACHE_PORT"),
    "api": ("API_URL",),
}
"""Environment variables that the program sets for a tier, by the tier that it needs."""


class Model(BaseModel):
    # Types are not coerced: a port written as "8000" is reported as an error.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


M = TypeVar("M", bound=Model)


class Step(Model):
    """A command that runs to its end, in the tier's image, before the slot starts."""

    command: Command = Field(min_length=1, description="The command. It must be safe to run twice.")
    timeout: Wait = Field(default=120, description="Time limit.", validate_default=False)


class Migration(Step):
    """A command that changes data which both slots share."""

    contract: Flag = Field(
        default=False,
        description="It breaks the previous release, so going back past it is refused. Remove the key again in the next release.",
    )
    check: Command = Field(
        default=(),
        description="A command that ends with 0 if the database has the schema of this release. `make check` runs it.",
    )


class Reload(Model):
    """Live reload while the source code is edited. It applies only with `environment.reload: true`."""

    target: Stage | None = Field(
        default=None, description="Stage of the Dockerfile to build instead, for example one with a dev server."
    )
    command: Command = Field(default=(), description="Replaces the tier's command; empty keeps it.")
    mounts: dict[RelativePath, ContainerPath] = Field(
        description="Folder beside Pulumi.yaml → path in the container, read-only."
    )
    writable: tuple[ContainerPath, ...] = Field(default=(), description="Further writable paths, in memory.")
    start_within: Wait | None = Field(default=None, description="Time limit to become healthy; default is the tier's.")


class Source(Model):
    """Source of an image: exactly one of `image` and `build`."""

    image: ImageReference | None = Field(default=None, description="An image with a tag or digest.")
    build: Word | None = Field(
        examples=["api"], default=None, description="A folder with a Dockerfile, relative to Pulumi.yaml."
    )
    target: Stage | None = Field(
        default=None, description="With `build`: the stage of the Dockerfile; default is the last."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.image is None) == (self.build is None):
            raise _problem("it needs exactly one of `image` and `build`", "keep the one you mean")
        if self.target and not self.build:
            raise _problem("`target` is a stage of a Dockerfile, and there is no `build`", "take it out")
        return self


class Service(Source):
    """Settings of every tier in a slot."""

    command: Command = Field(default=(), description="Replaces the image's command.")
    env: dict[Variable, Setting] = Field(
        default={}, description="Environment variables, the same in every environment."
    )
    secrets: tuple[SecretName, ...] = Field(
        default=(),
        description="Names of `secrets`. Each is mounted as /run/secrets/NAME; the variable NAME_FILE has its path.",
    )
    needs: Annotated[tuple[TierName, ...], Distinct] = Field(
        default=(),
        examples=[["database"]],
        description="Tiers it connects to. It may reach them, gets their addresses as variables, and starts after them.",
    )
    writable: tuple[ContainerPath, ...] = Field(default=("/tmp",), description="Writable paths, in memory.")
    scratch: Scratch = Field(default=64 * 2**20, validate_default=False, description="Size of each `writable` path.")
    volumes: dict[Name, VolumePath] = Field(
        default={},
        description="Data kept across releases: name → path. `user` must own the path in the image. Tiers that name the same "
        "volume share it; `PATH:ro` mounts it read-only.",
    )
    user: Uid = Field(default=10001, description="UID and GID; never root.")
    egress: Flag = Field(default=False, description="true: it may connect to the outside.")
    start_within: Wait = Field(
        default=60, description="How long it may take to become healthy.", validate_default=False
    )
    stop_within: Seconds = Field(
        default=30, description="Time limit to finish open work when it is stopped.", validate_default=False
    )
    migrate: Migration | None = Field(default=None, description="Runs before the slot starts, in every release.")
    tasks: dict[Name, Step] = Field(
        default={},
        description="Further commands before the slot starts, in every release: after `migrate`, in this order.",
    )
    seed: Step | None = Field(default=None, description="Runs after the migration where `environment.seed` is true.")
    reload: Reload | None = Field(default=None, description="How it runs while its source code is edited.")

    @model_validator(mode="after")
    def _paths_apart(self) -> Self:
        reload = [*self.reload.mounts.values(), *self.reload.writable] if self.reload else []
        volumes = [path.removesuffix(":ro") for path in self.volumes.values()]
        paths = [*self.writable, *volumes, *reload]
        for one, other in combinations(paths, 2):
            if grammar.place(one) == grammar.place(other):
                raise _problem(
                    f"{one} is given twice among writable, volumes and those of reload", "give each path once"
                )
        return self

    @model_validator(mode="after")
    def _names_apart(self) -> Self:
        if taken := sorted({"migrate", "seed"} & set(self.tasks)):
            raise _problem(f"tasks.{taken[0]} has the name of a step of its own", f"describe it under {taken[0]}")
        return self

    @model_validator(mode="after")
    def _target_needs_build(self) -> Self:
        if self.reload and self.reload.target and not self.build:
            raise _problem("reload.target is a stage of a Dockerfile, and there is no `build`", "take it out")
        return self


class Listening(Service):
    """A tier that answers HTTP requests."""

    port: Port = Field(description="The port it listens on, above 1023 (it does not run as root).")
    health: UrlPath = Field(default="/health", description="Path that answers 200 while the process is alive.")
    ready: UrlPath | None = Field(
        default=None, description="Path that answers 200 while it can serve requests; default is `health`."
    )
    metrics: RoutePath | None = Field(
        examples=["/metrics"],
        default=None,
        description="Path of Prometheus metrics. The gateway never serves it, nor any path below it, in any spelling.",
    )

    @model_validator(mode="after")
    def _port_without_root(self) -> Self:
        if self.port < 1024:
            raise _problem(f"port {self.port} can be opened by root only", "listen above 1023, as in 8080")
        return self


class Web(Listening):
    """Pages and static assets. It gets every path that is not the api's."""


class Api(Listening):
    """The application's HTTP interface."""

    paths: Annotated[tuple[RoutePath, ...], Distinct] = Field(
        default=("/api",), min_length=1, description="Path prefixes that are routed to the api."
    )


class Worker(Service):
    """Takes jobs from a queue. It has no port."""

    alive: Command = Field(
        default=(),
        description="Liveness command: ends with 0 while the worker is healthy. Empty: it is healthy while it runs.",
    )


_OWN_UID = "Owner of the data files: user 999 in Debian images. On Kubernetes 10000 is added, so that it is no user of the node."


class Database(Model):
    """PostgreSQL, shared by both slots."""

    image: ImageReference = Field(
        default="postgres:15-bookworm", description="An image with the interface of the public postgres image."
    )
    ha_image: ImageReference = Field(
        default="ghcr.io/cloudnative-pg/postgresql:15-standard-bookworm",
        description="The image for environments with `ha`: one with the interface of CloudNativePG's images.",
    )
    name: DatabaseName = Field(default="app", description="Name of the database to create.")
    user: Role = Field(default="app", description="Owner of the database.")
    password: SecretName = Field(
        default="database-password",
        description="Name of the secret with the owner's password. A later change also needs ALTER ROLE.",
    )
    init: tuple[RelativePath, ...] = Field(
        default=(),
        description="SQL files, relative to Pulumi.yaml, that run once and in this order in a new database.",
    )
    seed: tuple[RelativePath, ...] = Field(
        default=(), description="Further such files, after `init`, in environments with `seed: true`."
    )
    uid: Uid = Field(default=999, description=_OWN_UID)
    start_within: Wait = Field(default=120, description="Time limit to accept connections.", validate_default=False)
    anonymise: tuple[RelativePath, ...] = Field(
        examples=[["sql/anonymise.sql"]],
        default=(),
        description="SQL files, relative to Pulumi.yaml, that anonymise personal data. `make refresh` runs each on the copied data "
        "in one transaction, before tiers can use the database.",
    )


class Cache(Model):
    """Redis, shared by both slots. Its queue survives a restart."""

    image: ImageReference = Field(
        default="redis:7-bookworm", description="An image with the interface of the public redis image."
    )
    password: SecretName = Field(
        default="cache-password",
        description="Name of the secret with the password. A change cuts off the live slot until the switch.",
    )
    uid: Uid = Field(default=999, description=_OWN_UID)
    start_within: Wait = Field(default=60, description="Time limit to accept connections.", validate_default=False)


class Check(Model):
    """A request and its expected response. A release that answers otherwise does not go live; `make check` reports a live one."""

    path: UrlPath = Field(description="Path of the request (GET). Redirections are not followed.")
    status: int = Field(default=200, ge=200, le=599, strict=True, description="Expected status of the response.")
    headers: dict[Header, HeaderValue] = Field(
        default={}, description="Expected headers, with exactly these values. Case of names does not matter."
    )
    contains: Argument | None = Field(
        examples=["<title>Shop"], default=None, description="Text that the first MiB of the response must contain."
    )

    @model_validator(mode="after")
    def _answer_has_it(self) -> Self:
        if self.contains and self.status in (204, 205, 304):
            raise _problem(
                f"an answer of status {self.status} has no content", "remove `contains`, or change the status"
            )
        names = [name.lower() for name in self.headers]
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise _problem(f"headers has {twice[0]} twice, in lower case and capitals", "give each header once")
        return self


def questions(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Return `app.checks` in the form that the smoke test reads. Each has its config path, for errors."""
    return [
        {"name": f"app.checks.{number}: {check.path}", **check.model_dump(exclude_none=True)}
        for number, check in enumerate(checks)
    ]


HERE = "$here"
"""Placeholder in the query of a business metric, replaced by the labels of the environment."""


def _query(value: object) -> str:
    if not isinstance(value, str) or HERE not in value:
        raise RefusalError(
            f"{describe(value, 80)} does not select an environment's series",
            f"write it like sum(shop_orders_total{{{HERE}}}): {HERE} stands for the labels of an environment",
        )
    # Only applications with business metrics import the parser.
    from . import promql

    if wrong := promql.problem(value, HERE):
        raise RefusalError(wrong, f"write it like sum(rate(shop_orders_total{{{HERE}}}[5m]))")
    return value


class Figure(Model):
    """A business metric: recorded and shown in environments with `monitoring`."""

    query: Annotated[str, Checked(check=_query, example=f"sum(shop_orders_total{{{HERE}}})")] = Field(
        description="PromQL over the application's own metrics; `$here` in each selector stands for the environment's labels."
    )
    help: str = Field(default="", description="Title for dashboard and alerts.")
    unit: Literal["short", "s", "bytes", "percentunit", "reqps"] = Field(
        default="short", description="Unit, in Grafana's names."
    )
    above: Share | None = Field(
        examples=[100], default=None, description="Alert if the value is above this for ten minutes."
    )


class App(Model):
    """The application, the same in every environment (`app` in Pulumi.yaml)."""

    name: Name = Field(description="Prefix of the names of all resources.")
    version: Version = Field(
        description="Version of this release. Version and digest of the content make the release's name."
    )
    visits: tuple[UrlPath, ...] = Field(
        default=("/",),
        min_length=1,
        description="Paths that users request most (GET), for measuring `slo`.",
    )
    checks: tuple[Check, ...] = Field(
        default=(), description="Requests with expected responses, sent to every release before it goes live."
    )
    figures: dict[Identifier, Figure] = Field(
        default={}, description="Business metrics, from the metrics of web and api."
    )
    web: Web | None = None
    api: Api | None = None
    worker: Worker | None = None
    database: Database | None = None
    cache: Cache | None = None

    @property
    def services(self) -> dict[TierName, Service]:
        """The tiers of a slot that this application has."""
        tiers = {TierName.WEB: self.web, TierName.API: self.api, TierName.WORKER: self.worker}
        return {name: tier for name, tier in tiers.items() if tier is not None}

    @property
    def names(self) -> frozenset[TierName]:
        """All tiers of this application."""
        data = {TierName.DATABASE: self.database, TierName.CACHE: self.cache}
        return frozenset(self.services) | {name for name, tier in data.items() if tier is not None}

    @property
    def measured(self) -> dict[TierName, Listening]:
        """The tiers with metrics."""
        tiers: dict[TierName, Listening | None] = {TierName.WEB: self.web, TierName.API: self.api}
        return {name: tier for name, tier in tiers.items() if tier and tier.metrics}

    @property
    def volumes(self) -> frozenset[str]:
        """Names of the volumes of all tiers in a slot."""
        return frozenset(name for service in self.services.values() for name in service.volumes)

    @property
    def contract(self) -> bool:
        """True if a migration of this release breaks the previous release."""
        return any(service.migrate and service.migrate.contract for service in self.services.values())

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret of the application, with the config path that names it."""
        used = {name: f"app.{tier}.secrets" for tier, service in self.services.items() for name in service.secrets}
        if self.database:
            used[self.database.password] = "app.database.password"
        if self.cache:
            used[self.cache.password] = "app.cache.password"
        return used


class Autoscale(Model):
    """Autoscaling: more replicas under load, never fewer than `replicas`."""

    max: int = Field(ge=2, le=500, strict=True, description="Maximum number of replicas.")
    cpu: int = Field(default=70, ge=10, le=100, strict=True, description="Target average use of `cpu`, in percent.")


class S3(Model):
    """A bucket on a server that speaks S3."""

    endpoint: Address = Field(
        examples=["https://s3.eu-central-1.amazonaws.com"],
        description="Address of the server, as in https://s3.eu-central-1.amazonaws.com.",
    )
    bucket: Bucket = Field(description="An existing bucket.")
    prefix: Object | None = Field(
        examples=["shop-prod"], default=None, description="Prefix of all object names; default is `APP-STACK`."
    )
    region: Object = Field(default="us-east-1", description="Region of the bucket.")
    access_key: SecretName = Field(
        examples=["s3-access-key"], description="Name of the secret with the access key's id."
    )
    secret_key: SecretName = Field(
        examples=["s3-secret-key"], description="Name of the secret with the access key itself."
    )

    def begins(self, instance: str) -> str:
        """Return the prefix of all object names of the instance `APP-STACK`."""
        return self.prefix or instance


class Target(Model):
    """Target of backups: exactly one of `volume`, `directory` and `s3`."""

    volume: Flag = Field(default=False, description="A volume next to the database's. It is lost with the machine.")
    storage: Storage | None = Field(
        default=None, description="Kubernetes, with `volume`: its size; default is twice the database's."
    )
    storage_class: Object | None = Field(
        examples=["fast"], default=None, description="Kubernetes, with `volume`: its StorageClass."
    )
    directory: HostFolder | None = Field(
        examples=["/srv/backups"],
        default=None,
        description="Docker: a folder of the engine's host, for example a mounted network share.",
    )
    s3: S3 | None = Field(default=None, description="A bucket.")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(map(bool, (self.volume, self.directory, self.s3))) != 1:
            raise _problem("it needs exactly one of `volume: true`, `directory` and `s3`", "keep the one you mean")
        if not self.volume and (self.storage or self.storage_class):
            raise _problem("`storage` and `storage_class` are of a `volume`", "take them out")
        return self


class Backup(Model):
    """Schedule, target and verification of the database's backups. All times are UTC."""

    schedule: Annotated[str, _times(3)] = Field(
        default="daily",
        validate_default=True,
        description="Backup of the database: `daily` (03:17), `weekly`, `monthly` or a cron expression.",
    )
    full: Annotated[str, _times(4)] = Field(
        default="weekly", validate_default=True, description="Backup of the database and the tiers' volumes."
    )
    verify: Annotated[str, _times(5)] = Field(
        default="monthly",
        validate_default=True,
        description="Verification: all backups are read, and the last one is restored into a scratch database and compared.",
    )
    retention: Annotated[int, Checked(check=_days, example="30d", pattern=r"\d+[dw]")] = Field(
        default=30, validate_default=False, description="Retention, counted from the last successful backup."
    )
    key: SecretName = Field(
        default="backup-key", description="Name of the secret that encrypts backups. Store a copy in another place."
    )
    target: Target = Field(description="Target of backups.")
    cpu: Cpu = Field(default=1, validate_default=False, description="Limit of processors.")
    memory: Memory = Field(default=512 * 2**20, validate_default=False, description="Limit of memory.")
    image: ImageReference | None = Field(
        default=None, description="The backup image, by digest. `make images` writes it."
    )

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret of the backups, with the key that names it."""
        s3 = self.target.s3
        keys = {s3.access_key: "target.s3.access_key", s3.secret_key: "target.s3.secret_key"} if s3 else {}
        return {self.key: "key", **keys}


class External(Model):
    """An external data tier, such as a managed service. The program deploys nothing for it."""

    host: Server = Field(description="Host name of the server.")
    port: Port | None = Field(
        examples=[5432],
        default=None,
        description="Port of the server; default is 5432 for the database and 6379 for the cache.",
    )


class Size(Model):
    """Settings of a tier in this environment."""

    replicas: int = Field(
        default=1, ge=1, le=100, strict=True, description="Number of replicas; 1 for database and cache."
    )
    cpu: Cpu = Field(default=0.5, description="Limit of processors.", validate_default=False)
    memory: Memory = Field(default=512 * 2**20, description="Limit of memory.", validate_default=False)
    reserve: Cpu | None = Field(
        default=None, description="Kubernetes: request of processors; default is a quarter of `cpu`."
    )
    env: dict[Variable, Setting] = Field(default={}, description="Environment variables of this environment.")
    autoscale: Autoscale | None = Field(default=None, description="Kubernetes: more replicas under load.")
    priority_class: Object | None = Field(examples=["high"], default=None, description="Kubernetes: its PriorityClass.")
    storage: Storage | None = Field(
        default=None, description="Kubernetes: size of each of its volumes; default is 1Gi. It can only grow."
    )
    storage_class: Object | None = Field(
        examples=["fast"],
        default=None,
        description="Kubernetes: StorageClass of its volumes. Volumes of web, api and worker need one with ReadWriteMany.",
    )
    external: External | None = Field(default=None, description="Database and cache: use an external service.")
    ha: Flag = Field(
        default=False,
        description="Database and cache, on Kubernetes: three instances, each with its own `storage`. When the primary fails, a replica takes over.",
    )
    single: Literal["live", "kept"] | None = Field(
        default=None,
        description="Database, with `ha`: the former single instance stays deployed beside the cluster. `live`: tiers still use the "
        "single instance. `kept`: they use the cluster; `make move` writes this value.",
    )
    name: DatabaseName | None = Field(
        default=None, description="An existing database to use instead of `app.database.name`."
    )
    backup: Backup | None = Field(default=None, description="Database: schedule and target of backups.")
    copy_of: Name | None = Field(
        examples=["prod"],
        default=None,
        description="Database: the environment whose data `make refresh` may copy here, anonymised. Refused where data is protected, and "
        "where every change is archived (`ha` and backups to a bucket).",
    )

    @property
    def capacity(self) -> int:
        """Size of each of its volumes, in bytes."""
        return self.storage or 2**30

    @property
    def several(self) -> bool:
        """True if the application uses the database cluster."""
        return self.ha and self.single != "live"


class Gateway(Model):
    """The gateway that users connect to. Nothing else publishes a port."""

    address: Literal["127.0.0.1", "0.0.0.0"] = Field(
        default="127.0.0.1", description="Address it listens on; 0.0.0.0 opens it to the network."
    )
    port: Port = Field(default=8080, description="Port on the engine's host.")
    ports: dict[TierName, Port] = Field(
        default={}, description="Further ports for web or api alone: all requests to such a port go to that tier."
    )
    metrics_port: Port | None = Field(
        examples=[8404], default=None, description="Port of its own Prometheus metrics, on 127.0.0.1."
    )
    image: ImageReference = Field(default="haproxy:2.6-bookworm", description="HAProxy.")
    cpu: Cpu = Field(default=0.5, validate_default=False, description="Limit of processors.")
    memory: Memory = Field(default=128 * 2**20, validate_default=False, description="Limit of memory.")

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        for (one, first), (other, second) in combinations(self.published.items(), 2):
            if first == second:
                raise _problem(f"port {first} is given twice, as {one} and as {other}", "give each its own")
        return self

    @property
    def published(self) -> dict[str, int]:
        """Every port that is published on the engine's host, by config key."""
        ports = {f"ports.{tier}": port for tier, port in sorted(self.ports.items())}
        metrics = {"metrics_port": self.metrics_port} if self.metrics_port else {}
        return {"port": self.port, **metrics, **ports}


class Docker(Model):
    """The Docker engine."""

    host: Engine | None = Field(
        default=None,
        description="unix:///…, ssh://user@host or tcp://host:port; default is DOCKER_HOST, then the local socket.",
    )


class Quota(Model):
    """Limits of the whole namespace (ResourceQuota)."""

    cpu: Cpu | None = Field(default=None, description="Sum of the limits of processors.")
    memory: Memory | None = Field(default=None, description="Sum of the limits of memory.")
    storage: Storage | None = Field(default=None, description="Sum of the volumes' sizes.")
    pods: int | None = Field(
        examples=[50],
        default=None,
        ge=1,
        le=100_000,
        strict=True,
        description="Number of pods; both slots and tasks count.",
    )


class Limits(Model):
    """Defaults for containers without limits (LimitRange). All containers of this program set their own."""

    cpu: Cpu = Field(default=0.5, validate_default=False, description="Processors.")
    memory: Memory = Field(default=256 * 2**20, validate_default=False, description="Memory.")


class Namespace(Model):
    """The namespace, which contains only this environment of this application."""

    name: Name | None = Field(default=None, description="Name; default is `APP-STACK`.")
    create: Flag = Field(
        default=True,
        description="false: use an existing namespace; then a Role in it is enough (docs/kubernetes-role.yaml).",
    )
    quota: Quota | None = Field(default=None, description="Limits of the whole namespace.")
    limits: Limits | None = Field(default=None, description="Defaults for containers without limits.")

    @model_validator(mode="after")
    def _not_of_the_cluster(self) -> Self:
        if self.name and (self.name.startswith("kube-") or (self.create and self.name == "default")):
            raise _problem(f"namespace {self.name} is the cluster's own", "give another, or leave `name` out")
        return self


class OwnGateway(Model):
    """A Gateway object of this application, in its own namespace. Its listener serves `url`."""

    gateway_class: Object = Field(examples=["traefik"], description="GatewayClass that serves it.")
    certificate: Object | None = Field(
        examples=["shop-certificate"], default=None, description="https: the Secret with the certificate."
    )
    issuer: Object | None = Field(
        examples=["letsencrypt"],
        default=None,
        description="https: the ClusterIssuer of cert-manager that writes the certificate into that Secret.",
    )


class ClusterGateway(Model):
    """The Gateway (gateway.networking.k8s.io) that requests come through."""

    name: Object = Field(examples=["public"], description="Name of the Gateway.")
    namespace: Name = Field(
        examples=["gateway"], description="Namespace of the Gateway. Only its pods may connect to web and api."
    )
    listener: Object | None = Field(
        examples=["https"], default=None, description="Name of its listener; default is every listener that matches."
    )
    inside: Address = Field(
        examples=["http://traefik.gateway:80"],
        description="Address at which pods reach it, for the smoke test, as in http://traefik.gateway:80. An address outside of "
        "the cluster works too.",
    )
    pods_in: Name | None = Field(
        examples=["traefik"], default=None, description="Namespace of its pods, if not `namespace`."
    )
    cidrs: tuple[Cidr, ...] = Field(
        default=(), description="Address ranges of requests, if it has no pods or none that policies can select."
    )
    within: Wait = Field(default=30, description="Time limit to apply a new route.", validate_default=False)
    create: OwnGateway | None = Field(
        default=None, description="Create the Gateway, instead of using an existing one in `namespace`."
    )

    @model_validator(mode="after")
    def _listener_is_its_own(self) -> Self:
        if self.create and self.listener:
            raise _problem("a Gateway that is made here has a listener for each host", "take out `listener`")
        return self


class SecretReference(Model):
    """A secret whose value is not in the stack file: an existing Secret, or one that External Secrets creates."""

    secret: Object | None = Field(
        examples=["shop-secrets"], default=None, description="Name of a Secret in the namespace."
    )
    store: Object | None = Field(
        examples=["vault"], default=None, description="Name of a ClusterSecretStore of External Secrets."
    )
    key: Word = Field(examples=["password"], description="The key in the Secret, or in the store.")
    property: Word | None = Field(examples=["password"], default=None, description="With `store`: property of the key.")
    version: Word = Field(
        default="1", description="Change this when the value has changed: the new value is deployed as a release."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.secret is None) == (self.store is None):
            raise _problem("it needs exactly one of `secret` and `store`", "keep the one you mean")
        if self.property and not self.store:
            raise _problem("`property` is of a `store`", "take it out")
        return self


class Kubernetes(Model):
    """The cluster and its settings."""

    context: Word = Field(
        examples=["production"], description="Context of the kubeconfig (KUBECONFIG, or ~/.kube/config) to use."
    )
    url: PublicAddress = Field(
        examples=["https://shop.example.com"],
        description="Address that users open, as in https://shop.example.com. The route gets its host.",
    )
    hostnames: tuple[Host, ...] = Field(default=(), description="Further hosts of the route.")
    gateway: ClusterGateway = Field(description="The Gateway that requests come through.")
    namespace: Namespace = Field(default=Namespace(), description="Namespace of all resources.")
    apart: Literal["zones", "hosts", "anywhere"] = Field(
        default="hosts",
        description="Placement of a database's instances with `ha`: each in its own zone, each on its own host, or, in a "
        "cluster of one node, anywhere.",
    )
    schedule_within: Seconds = Field(
        default=60,
        description="Time limit for a pod to be scheduled and to pull its image. `start_within` counts from then on.",
        validate_default=False,
    )
    pull_secrets: Annotated[tuple[Object, ...], Distinct] = Field(
        examples=[["registry"]], default=(), description="Secrets to pull images with."
    )
    secrets: dict[SecretName, SecretReference] = Field(
        default={}, description="Secrets with values from the cluster instead of the stack file, by name."
    )

    @model_validator(mode="after")
    def _quota_needs_own_namespace(self) -> Self:
        if not self.namespace.create and (self.namespace.quota or self.namespace.limits):
            raise _problem(
                "namespace.create is false, and its quota and limits are its administrator's", "take them out"
            )
        return self

    @model_validator(mode="after")
    def _hosts_differ(self) -> Self:
        hosts = [self.host, *self.hostnames]
        if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
            raise _problem(f"{twice[0]} is given twice, in url and hostnames", "give each host once")
        return self

    @property
    def host(self) -> str:
        """The host of `url`."""
        return self.url.partition("://")[2].partition(":")[0]

    def home(self, instance: str) -> str:
        """Return the namespace of the instance `APP-STACK`, which is also its default name."""
        return self.namespace.name or instance

    @model_validator(mode="after")
    def _certificate_fits(self) -> Self:
        created = self.gateway.create
        if created and self.url.startswith("https:") and not created.certificate:
            raise _problem("url is https and gateway.create has no certificate", "name its Secret there")
        if created and self.url.startswith("http:") and (created.certificate or created.issuer):
            raise _problem("url is http and gateway.create has a certificate", "make the url https, or take it out")
        return self


class Releases(Model):
    """Promotion of a release, and the standby that it leaves."""

    promote: Literal["auto", "manual"] = Field(
        default="auto",
        description="`manual`: a release that passed its gates waits until somebody tests it and runs `make promote`.",
    )
    standby: Literal["warm", "cold"] = Field(
        default="warm",
        description="The slot that was live before. `warm`: web and api keep running. `cold`: nothing in it runs.",
    )
    workers: Literal["live", "both"] = Field(
        default="live",
        description="Workers that take jobs. `live`: the standby's workers finish their jobs and stop. `both`: they keep running, and going back is quicker.",
    )

    @property
    def resting(self) -> frozenset[TierName]:
        """The tiers of a standby that are suspended."""
        if self.standby == "cold":
            return frozenset({TierName.WEB, TierName.API, TierName.WORKER})
        return frozenset({TierName.WORKER} if self.workers == "live" else ())


class Slo(Model):
    """Service level objectives for requests to `app.visits`."""

    errors: Share = Field(
        default=0.01, ge=0, le=1, description="Share of requests that may fail (a status other than 2xx or 3xx)."
    )
    p95: Latency = Field(default=0.5, validate_default=False, description="95th percentile of response times.")
    p99: Latency = Field(default=1, validate_default=False, description="99th percentile of response times.")
    rate: int = Field(default=20, ge=1, le=10_000, strict=True, description="Requests per second of the measurement.")
    window: Wait = Field(
        default=300,
        validate_default=False,
        description="Duration of the measurement by `make perf`, and by `make watch` after a release has gone live.",
    )

    @model_validator(mode="after")
    def _percentiles_rise(self) -> Self:
        if {"p95", "p99"} <= self.model_fields_set and self.p95 > self.p99:
            raise _problem(
                "p95 is more than p99, which no measurement can be",
                "exchange them, or remove one",
            )
        return self


class Exporters(Model):
    """Metrics exporters of data tiers that run here and have no metrics of their own."""

    database: ImageReference = Field(
        default="prometheuscommunity/postgres-exporter:v0.11.1", description="postgres_exporter."
    )
    cache: ImageReference = Field(
        default="oliver006/redis_exporter:v1.45.0-alpine", description="redis_exporter, with a shell."
    )


class Monitoring(Model):
    """Metrics that are kept over time, alerts and a dashboard. `monitoring: true` enables all of it with these defaults.

    On Docker the environment has its own Prometheus. On Kubernetes the cluster's Prometheus (prometheus-operator) is configured.
    """

    interval: Annotated[float, Checked(check=_interval, example="30s", pattern=_A_TIME)] = Field(
        default=15, validate_default=False, description="Scrape interval, at most 2m."
    )
    runbook: Annotated[str, Checked(check=grammar.page, example="docs/runbook.md")] = Field(
        default="docs/runbook.md", description="Page that alerts link to."
    )
    exporters: Exporters = Field(default=Exporters(), description="Metrics exporters of database and cache.")
    image: ImageReference = Field(default="prom/prometheus:v2.42.0", description="Docker: Prometheus.")
    port: Port = Field(default=9090, description="Docker: port of Prometheus, on 127.0.0.1.")
    retention: Wait = Field(default=15 * 24 * 3600, validate_default=False, description="Docker: retention of metrics.")
    alertmanager: Address | None = Field(
        examples=["http://alertmanager:9093"], default=None, description="Docker: Alertmanager that receives alerts."
    )
    cpu: Cpu = Field(default=0.5, validate_default=False, description="Docker: limit of Prometheus' processors.")
    memory: Memory = Field(
        default=512 * 2**20, validate_default=False, description="Docker: limit of Prometheus' memory."
    )
    namespace: Name = Field(
        default="monitoring", description="Kubernetes: namespace of Prometheus. Only its pods may read metrics."
    )
    labels: dict[LabelKey, LabelValue] = Field(
        default={},
        description="Kubernetes: labels by which the cluster's Prometheus selects monitors and rules, as in {release: prometheus}.",
    )

    @property
    def foreign(self) -> Mapping[str, tuple[str, ...]]:
        """The keys that don't apply to a platform, by platform."""
        docker = ("image", "port", "retention", "alertmanager", "cpu", "memory")
        return {"docker": ("namespace", "labels"), "kubernetes": docker}


def _monitoring(value: object) -> object:
    return ({} if value else None) if isinstance(value, bool) else value


def _allow_flag(schema: dict[str, Any]) -> None:
    schema["anyOf"].insert(0, {"type": "boolean"})


class Environment(Model):
    """The environment: platform, sizes and releases (`environment` in Pulumi.<stack>.yaml)."""

    platform: Literal["docker", "kubernetes"] = Field(description="Platform that runs the containers.")
    docker: Docker = Field(default=Docker(), description="With `platform: docker`: the engine.")
    gateway: Gateway = Field(
        default=Gateway(), description="With `platform: docker`: the gateway that users connect to."
    )
    kubernetes: Kubernetes | None = Field(default=None, description="With `platform: kubernetes`: the cluster.")
    release: Releases = Field(default=Releases(), description="How a release goes live.")
    slo: Slo = Field(default=Slo(), description="Service level objectives. A release that misses them is rolled back.")
    registry: ImageRepository | None = Field(
        examples=["registry.example.com/team"],
        default=None,
        description="Registry of images that are built from a folder, as in registry.example.com/team.",
    )
    images: dict[TierName, ImageReference] = Field(
        default={}, description="Images by digest that replace those of `app`. `make images` writes them."
    )
    pinned: Flag = Field(default=False, description="Refuse every image that is not named by its digest.")
    toolbox: ImageReference = Field(
        default="python:3.11-slim-bookworm", description="Image with Python 3 that runs the smoke test and the switch."
    )
    proxy: ImageReference = Field(
        default="haproxy:2.6-bookworm", description="HAProxy image that routes to the primary of a cache with `ha`."
    )
    pooler: ImageReference = Field(
        default="ghcr.io/cloudnative-pg/pgbouncer:1.24.1",
        description="Connection pooler of a database with `ha`: PgBouncer 1.21 or newer, with the interface of CloudNativePG's image.",
    )
    vault: ImageReference = Field(
        default="rclone/rclone:1.71.0",
        description="Archive proxy of a database with `ha` and a bucket: an image of rclone with a shell. It encrypts everything it stores.",
    )
    reload: Flag = Field(default=False, description="Run tiers with `reload` from the source code in this repository.")
    seed: Flag = Field(default=False, description="Run the tiers' `seed` steps.")
    monitoring: Annotated[Monitoring | None, BeforeValidator(_monitoring)] = Field(
        default=None,
        description="Metrics, alerts and a dashboard: true, or their settings.",
        json_schema_extra=_allow_flag,
    )
    protect_data: Flag = Field(
        default=True,
        description="Neither an update nor `pulumi destroy` deletes data, and data that the state drops stays on the platform.",
    )
    tiers: dict[TierName, Size] = Field(default={}, description="Settings by tier; other tiers have the defaults.")

    @model_validator(mode="after")
    def _reload_is_local(self) -> Self:
        if self.reload and self.docker.host and not self.docker.host.startswith("unix://"):
            raise _problem(
                f"source can't be mounted into {self.docker.host}", "set reload: false, or use a local engine"
            )
        return self

    @model_validator(mode="after")
    def _platform_is_described(self) -> Self:
        if self.platform == "kubernetes" and self.kubernetes is None:
            raise _problem("platform is kubernetes and no cluster is described", "add environment.kubernetes")
        foreign = ("docker", "gateway") if self.platform == "kubernetes" else ("kubernetes",)
        if refused := [name for name in foreign if name in self.model_fields_set]:
            raise _problem(f"platform is {self.platform} and {refused[0]} is given", "take out the one you don't mean")
        if self.platform == "kubernetes" and self.reload:
            raise _problem("source can't be mounted into a cluster", "set reload: false")
        return self

    @property
    def cluster(self) -> Kubernetes:
        """The cluster's settings. Only valid with `platform: kubernetes`."""
        assert self.kubernetes
        return self.kubernetes

    @property
    def url(self) -> str:
        """The address that users open."""
        if self.kubernetes:
            return self.kubernetes.url
        return f"http://{self.gateway.address.replace('0.0.0.0', '127.0.0.1')}:{self.gateway.port}"

    def size(self, tier: TierName) -> Size:
        """Return the settings of a tier in this environment."""
        return self.tiers.get(tier, Size())

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret that only this environment uses, with the config path that names it."""
        backup = self.size(TierName.DATABASE).backup
        return (
            {name: f"environment.tiers.database.backup.{key}" for name, key in backup.secrets.items()} if backup else {}
        )

    def pooled(self, app: App) -> bool:
        """Tell whether a database cluster with a pooler runs here."""
        return app.database is not None and self.size(TierName.DATABASE).ha

    @property
    def archived(self) -> bool:
        """True if every change of the database is archived: a cluster with backups to a bucket."""
        size = self.size(TierName.DATABASE)
        return size.ha and size.backup is not None and size.backup.target.s3 is not None

    def data_image(self, tier: TierName, described: Database | Cache) -> str:
        """Return the image that `app` names for a data tier, as it runs here."""
        return described.ha_image if isinstance(described, Database) and self.size(tier).ha else described.image

    def data(self, app: App) -> dict[TierName, Database | Cache]:
        """Return the data tiers that run here, without external services."""
        tiers: dict[TierName, Database | Cache | None] = {TierName.DATABASE: app.database, TierName.CACHE: app.cache}
        return {name: tier for name, tier in tiers.items() if tier and not self.size(name).external}

    def exported(self, app: App) -> tuple[TierName, ...]:
        """Return the data tiers with an exporter. Instances of a database cluster have their own metrics."""
        several = self.size(TierName.DATABASE).several
        return tuple(tier for tier in self.data(app) if not (tier is TierName.DATABASE and several))

    def watchers(self, app: App) -> dict[str, str]:
        """Return every image of `monitoring` that runs here, by its key."""
        if not self.monitoring:
            return {}
        exporters = {
            TierName.DATABASE: self.monitoring.exporters.database,
            TierName.CACHE: self.monitoring.exporters.cache,
        }
        images = {f"exporters.{tier}": exporters[tier] for tier in self.exported(app)}
        return images | ({} if self.kubernetes else {"image": self.monitoring.image})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration of a stack. `secrets` are the values; they go into files of containers and nowhere else."""

    app: App
    environment: Environment
    secrets: dict[str, str] = field(repr=False)
    sealed: Output[Mapping[str, str]] = field(repr=False)
    """Values of `secrets` as an output that Pulumi encrypts in the state."""
    plain: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    """The values of `app` and `environment` before they were checked."""


def load() -> Settings:
    """Return the configuration of the current stack.

    Raises:
        ConfigError: the configuration is invalid. Nothing has been changed yet.
    """
    config = Config()
    value = _object(config, "environment")
    if value is None:
        _refuse(_of_another_project(pulumi.runtime.config.CONFIG.get(), pulumi.get_project()))
    return settings_of(_object(config, "app"), value)


def settings_of(app_value: object, environment_value: object) -> Settings:
    """Return the configuration from these plain values, with the secrets of the current stack.

    Raises:
        ConfigError: a value is invalid, or a secret is not set.
    """
    app = load_app(app_value)
    environment = load_environment(environment_value, app)
    check_stack(pulumi.get_stack(), app, environment)
    elsewhere = environment.kubernetes.secrets if environment.kubernetes else {}
    secrets = check_secrets(_object(Config(), "secrets"), app, elsewhere, environment.secrets)
    if environment.kubernetes:
        _refuse(_too_large(app, secrets))
    plain = {"app": app_value, "environment": environment_value}
    return Settings(app=app, environment=environment, secrets=secrets, sealed=Output.secret(secrets), plain=plain)


def _object(config: Config, key: str) -> object:
    try:
        return cast(object, config.get_object(key))
    except ConfigTypeError:
        raise ConfigError(f"{key}: it is a text; give a mapping, with keys below it") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{key}: it can't be read; give a mapping of texts, numbers, lists and mappings") from None


def _of_another_project(keys: Iterable[str], project: str) -> Iterator[str]:
    """Yield an error for each `environment` key that belongs to another project."""
    for key in sorted(keys):
        if key.endswith(":environment") and key != f"{project}:environment":
            yield f"environment: the key is {key}, and the project is {project}; rename it to {project}:environment"


def check_stack(stack: str, app: App, environment: Environment) -> None:
    """Check the name of a stack, which is part of names and labels of resources.

    Raises:
        ConfigError: a platform refuses one of these names or labels.
    """
    _refuse(_misfits_of_a_name(stack, app, environment))
    if environment.size(TierName.DATABASE).copy_of == stack:
        raise ConfigError(f"environment.tiers.database.copy_of: {stack} is this environment; name another, as in prod")


_STACK_CHARACTERS = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"


def _misfits_of_a_name(stack: str, app: App, environment: Environment) -> Iterator[str]:
    if not environment.kubernetes:
        return
    instance, most = f"{app.name}-{stack}", 63
    if len(instance) > most:
        yield f"stack: {describe(instance, 120)} has {len(instance)} characters, and a label takes {most}; give the stack a shorter name"
    elif not re.fullmatch(_STACK_CHARACTERS, instance, re.ASCII):
        yield f"stack: {describe(instance)} is not the value of a label; end its name with a letter or digit"
    elif environment.kubernetes.namespace.name is None and not re.fullmatch(r"[a-z0-9-]+", instance, re.ASCII):
        fix = "use lower-case letters, digits and dashes, or set environment.kubernetes.namespace.name"
        yield f"stack: {describe(instance)} is not the name of a namespace; {fix}"
    elif environment.kubernetes.home(instance).startswith("kube-"):
        fix = "give another, or set environment.kubernetes.namespace.name"
        yield f"app.name: namespace {instance} is the cluster's own; {fix}"


def load_app(value: object) -> App:
    """Return the application from the plain value of `app`.

    Raises:
        ConfigError: a value is unknown, missing, of another type, out of range or contradicts another.
    """
    app = _validated(App, value, "app")
    _refuse(_contradictions(app))
    return app


def load_environment(value: object, app: App) -> Environment:
    """Return the environment from the plain value of `environment`, checked against its application.

    Raises:
        ConfigError: as `load_app`.
    """
    environment = _validated(Environment, value, "environment")
    _refuse(_misfits(app, environment))
    return environment


SECRET_SIZE = 2**20
"""Limit of a Kubernetes Secret in bytes, both for one value and for all values of a tier."""


def check_secrets(
    value: object, app: App, elsewhere: Collection[str] = (), of_environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the value of each secret that the application uses, from the plain value of `secrets`. Never log the result.

    Args:
        value: the plain value of `secrets`.
        app: the application.
        elsewhere: names of secrets whose values are in the cluster; they are skipped.
        of_environment: further secrets of the environment, with the config path that names each.

    Raises:
        ConfigError: a secret is not set, empty, not text, too large or refused by its reader's rule. The message never shows
            the value.
    """
    if value is not None and not isinstance(value, Mapping):
        fix = "set each by its name, as in `pulumi config set --secret --path secrets.NAME`"
        raise ConfigError(f"secrets: it is {kind(value)}; {fix}")
    entries = cast(Mapping[object, object], value or {})
    used = {name: path for name, path in {**(of_environment or {}), **app.secrets}.items() if name not in elsewhere}
    _refuse(
        f"secrets.{name}: {path} uses it and it is not set to a text; "
        f"set it with `pulumi config set --secret --path secrets.{name}`"
        for name, path in sorted(used.items())
        if not isinstance(entries.get(name), str) or not entries.get(name)
    )
    values = {name: str(entries[name]) for name in used}
    uses = [*(of_environment or {}).items(), *app.secrets.items()]
    _refuse(
        f"secrets.{name}: {path} uses it, and {problem}; set another with `pulumi config set --secret --path secrets.{name}`"
        for name, path in sorted(uses)
        if name in values and (problem := passwords.problem(path, values[name]) or _unfit(values[name]))
    )
    return values


def _unfit(value: str) -> str:
    """Return the reason why a Secret can't hold this value, or an empty text."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which is no character of UTF-8"
    return f"it has {size} bytes, and a Secret takes {SECRET_SIZE}" if size > SECRET_SIZE else ""


def _too_large(app: App, secrets: Mapping[str, str]) -> Iterator[str]:
    for tier, service in app.services.items():
        size = sum(len(secrets[name].encode()) for name in service.secrets if name in secrets)
        if size > SECRET_SIZE:
            yield f"app.{tier}.secrets: they have {size} bytes together, and a Secret takes {SECRET_SIZE}; take some out"


@cache
def _explainer() -> explain.Explainer:
    return explain.Explainer({"app": explain.schema_of(App), "environment": explain.schema_of(Environment)})


_BEGINNINGS = {
    "app": "describe the application in Pulumi.yaml, below config.app.value",
    "environment": "describe it in the stack file, as in PROJECT:environment: {platform: docker}",
}


def _validated(model: type[M], value: object, root: str) -> M:
    if value is None or value == {}:
        raise ConfigError(f"{root}: it is not set; {_BEGINNINGS[root]}")
    if not isinstance(value, Mapping):
        raise ConfigError(f"{root}: it is {kind(value)}; give a mapping, with keys below it")
    sifted = explain.Sifted(root)
    try:
        validated = model.model_validate(sifted.sift(cast(object, value)))
    except ValidationError as error:
        # Pydantic counts valid items only: a list whose one item is invalid is not also too short.
        details = [item for item in error.errors() if item["type"] != "too_short" or not item["input"]]
        details = [item for item in details if not sifted.covers(item["loc"])]
        lines = [*sifted.problems, *(_explainer().line(root, detail) for detail in details)]
        raise ConfigError(explain.bounded(root, lines)) from None
    _refuse(iter(sifted.problems), root)
    return validated


def _refuse(problems: Iterator[str], root: str = "configuration") -> None:
    if lines := explain.bounded(root, problems):
        raise ConfigError(lines)


def set_by_the_program(app: App, service: Service) -> frozenset[str]:
    """Return the environment variables that the program sets for a service, in every environment."""
    passwords = {TierName.DATABASE: app.database, TierName.CACHE: app.cache}
    secrets = {*service.secrets, *(data.password for tier, data in passwords.items() if data and tier in service.needs)}
    files = {f"{name.upper().replace('-', '_')}_FILE" for name in secrets}
    return RESERVED | files | {name for tier in service.needs for name in _OF_TIERS.get(tier, ())}


def _mounted(service: Service) -> Iterator[tuple[str, str]]:
    """Yield the config key and the path of everything that a service mounts."""
    yield from (("writable", path) for path in service.writable)
    yield from ((f"volumes.{name}", path.removesuffix(":ro")) for name, path in service.volumes.items())
    if service.reload:
        yield from ((f"reload.mounts.{name}", path) for name, path in service.reload.mounts.items())
        yield from (("reload.writable", path) for path in service.reload.writable)


CHECKS_SIZE = 120_000
"""Limit of all `checks`, or of all `visits`, as JSON, in bytes: the smoke test gets them as one argument."""
FIGURES_SIZE = 256 * 1024
"""Limit of all `figures` as JSON, in bytes: the dashboard repeats each, and is a ConfigMap, which takes 1 MiB."""
GATEWAY_PATHS = "/.gateway"
"""Prefix of paths that the gateway answers itself, or by a readiness check of a tier."""


def _contradictions(app: App) -> Iterator[str]:
    if not (app.web or app.api):
        yield "app: it has neither web nor api, so nothing could be reached; add one"
    data = {TierName.DATABASE, TierName.CACHE}
    allowed = {TierName.WEB: data | {TierName.API}, TierName.API: data, TierName.WORKER: data | {TierName.API}}
    for tier, service in app.services.items():
        for need in service.needs:
            if need not in allowed[tier]:
                yield f"app.{tier}.needs: {tier} can't need {need}; it may need {', '.join(sorted(allowed[tier]))}"
            elif need not in app.names:
                yield f"app.{tier}.needs: {need} is not described; add app.{need} or take it out of needs"
        for variable in sorted(set(service.env) & set_by_the_program(app, service)):
            yield f"app.{tier}.env.{variable}: the program sets it; take it out"
        yield from _long_commands(tier, service)
        for key, path in _mounted(service) if service.secrets or data & set(service.needs) else ():
            if grammar.within(path, SECRETS) or grammar.within(path, f"/var{SECRETS}"):  # /var/run is a link to /run
                yield f"app.{tier}.{key}: {path} is where the program mounts secrets; give a path outside of {SECRETS}"
    for key, requests in (("checks", questions(app.checks)), ("visits", app.visits)):
        if (size := len(json.dumps(requests).encode())) > CHECKS_SIZE:
            yield f"app.{key}: they have {size} bytes together, and the smoke test takes {CHECKS_SIZE}; make them shorter"
    yield from _differing_answers(app)
    yield from _of_the_gateway(app)
    size = len(json.dumps([figure.model_dump() for figure in app.figures.values()]).encode())
    if size > FIGURES_SIZE:
        fix = "take some out, or make their texts shorter"
        yield f"app.figures: they have {size} bytes together, and a dashboard takes {FIGURES_SIZE}; {fix}"
    if app.figures and not app.measured:
        yield "app.figures: no tier has metrics to compute them from; set `metrics` of web or api"
    yield from _hidden_but_needed(app)
    volumes = [(name, tier) for tier, service in app.services.items() for name in service.volumes]
    for name, tier in volumes:
        if names.is_volume(name):
            yield f"app.{tier}.volumes.{name}: the program has a volume of that name; give it another"
    for tier, service in app.services.items():
        for name in filter(names.is_task, service.tasks):
            yield f"app.{tier}.tasks.{name}: the program has a container of that name; give it another"


def _differing_answers(app: App) -> Iterator[str]:
    """Yield checks that no release could pass, because another check or a visit of the same path contradicts them."""
    first: dict[str, tuple[str, int]] = {}
    for number, check in enumerate(app.checks):
        name, status = first.setdefault(check.path, (f"app.checks.{number}", check.status))
        if status != check.status:
            yield f"app.checks.{number}.status: {name} wants {status} of {check.path}; keep one of the two"
        if check.status >= 400 and check.path in app.visits:
            yield (
                f"app.checks.{number}.status: {check.status} is an error, and app.visits has {check.path}, too; "
                "visits are paths that are answered well: take it out of one of the two"
            )


def _of_the_gateway(app: App) -> Iterator[str]:
    """Yield paths that never reach a tier, because the gateway answers them, and api paths that leave none to the web."""
    paths = {f"app.visits.{number}": path for number, path in enumerate(app.visits)}
    paths |= {f"app.checks.{number}.path": check.path for number, check in enumerate(app.checks)}
    paths |= {f"app.api.paths.{number}": path for number, path in enumerate(app.api.paths if app.api else ())}
    paths |= {f"app.{tier}.metrics": service.metrics or "" for tier, service in app.measured.items()}
    if app.api and app.web:
        for number, path in enumerate(app.api.paths):
            if covers(path, "/"):
                yield f"app.api.paths.{number}: {path} leaves nothing to web; name what is the api's, as in /api, or take web out"
    for name, path in paths.items():
        if covers(GATEWAY_PATHS, path):
            yield f"{name}: the gateway answers {GATEWAY_PATHS} and all below it; give another path"


def _hidden_but_needed(app: App) -> Iterator[str]:
    """Yield paths that the gateway must serve but hides: a tier's `metrics` path is hidden for the whole slot."""
    needed = {f"app.visits.{number}": path for number, path in enumerate(app.visits)}
    needed |= {
        f"app.checks.{number}.path": check.path for number, check in enumerate(app.checks) if check.status != 404
    }
    if app.api and app.web:
        needed |= {f"app.api.paths.{number}": path for number, path in enumerate(app.api.paths)}
    listening = {TierName.WEB: app.web, TierName.API: app.api}
    for tier, service in listening.items():
        if service:
            probes = {f"app.{tier}.health": service.health, f"app.{tier}.ready": service.ready}
            needed |= {name: path for name, path in probes.items() if path}
    for tier, service in app.measured.items():
        hidden = service.metrics or "/"
        for name, path in needed.items():
            if covers(hidden, path):
                yield (
                    f"app.{tier}.metrics: the gateway answers 404 to {hidden} and all below it, so to {path} of {name}, too; "
                    "serve the metrics at a path of their own, as in /metrics"
                )


def _misfits(app: App, environment: Environment) -> Iterator[str]:
    for tier, size in environment.tiers.items():
        path = f"environment.tiers.{tier}"
        if size.reserve and size.reserve > size.cpu:
            yield f"{path}.reserve: {size.reserve} is more than it may use; give at most {size.cpu}"
        if size.single and not (size.ha and tier is TierName.DATABASE):
            yield f"{path}.single: it is for a database that moves into a cluster; set ha: true, too, or remove it"
        if size.name and tier is not TierName.DATABASE:
            yield f"{path}.name: it is for the database; take it out"
        if tier not in app.names:
            yield f"{path}: the application has no {tier}; take it out or describe app.{tier}"
        elif tier not in app.services:
            for key in ("replicas", "autoscale", "env"):
                if key in size.model_fields_set:
                    yield f"{path}.{key}: database and cache have no replicas, autoscaling or variables; remove it"
            if size.external and size.model_fields_set - {"external", "name"}:
                yield f"{path}.external: {tier} is an external service, so other keys have no effect; keep one of the two"
        else:
            if size.external:
                yield f"{path}.external: it is for database and cache; take it out"
            if size.ha:
                yield f"{path}.ha: it is for database and cache; give it replicas instead"
            for key in ("storage", "storage_class"):
                if key in size.model_fields_set and not app.services[tier].volumes:
                    yield f"{path}.{key}: {tier} has no volumes; take it out"
            service = app.services[tier]
            for variable in sorted(set(size.env) & (set(service.env) | set_by_the_program(app, service))):
                yield f"{path}.env.{variable}: it is set by app.{tier}.env or the program; set it in one place"
            if size.autoscale and size.autoscale.max < size.replicas:
                yield f"{path}.autoscale.max: it is less than replicas; give at least {size.replicas}"
    yield from _misfits_of_backups(app, environment)
    if environment.registry and len(environment.registry) > (most := grammar.NAME_LENGTH - len(f"/{app.name}-backup")):
        yield f"environment.registry: {describe(environment.registry)} is too long; give at most {most} characters"
    for tier in environment.images:
        if tier not in app.names:
            yield f"environment.images.{tier}: the application has no {tier}; take it out"
    if monitoring := environment.monitoring:
        for key in sorted(monitoring.model_fields_set & set(monitoring.foreign[environment.platform])):
            yield f"environment.monitoring.{key}: platform is {environment.platform}, which has no use for it; take it out"
        for label in filter(names.is_label, monitoring.labels):
            yield f"environment.monitoring.labels.{label}: it is the program's own label; take it out"
    yield from _misfits_of_copies(environment)
    yield from _misfits_of_variables(app, environment)
    yield from (
        _misfits_of_a_cluster(app, environment) if environment.kubernetes else _misfits_of_an_engine(app, environment)
    )
    if environment.pinned:
        yield from _unpinned(app, environment)


def _misfits_of_backups(app: App, environment: Environment) -> Iterator[str]:
    path = "environment.tiers.database.backup"
    for tier, size in environment.tiers.items():
        if size.backup and tier is not TierName.DATABASE:
            yield f"environment.tiers.{tier}.backup: it is for the database; take it out"
    backup = environment.size(TierName.DATABASE).backup
    if not backup:
        return
    users = {tier: service.user for tier, service in app.services.items() if service.volumes}
    if len(set(users.values())) > 1:
        owners = ", ".join(f"{tier}'s of {user}" for tier, user in users.items())
        yield f"{path}.full: the backup reads all volumes as one user, and they have several ({owners}); give these tiers the same user"
    if environment.kubernetes and backup.target.directory:
        yield f"{path}.target.directory: pods see no folder of their node; use volume or s3"
    if environment.kubernetes and not backup.image and not environment.registry:
        yield f"{path}: a cluster pulls its image; say in environment.registry where it is"
    if not environment.kubernetes:
        for key in ("storage", "storage_class"):
            if key in backup.target.model_fields_set:
                yield f"{path}.target.{key}: a Docker engine has no such thing; take it out"


VARIABLES_SIZE = 2**20
"""Limit in bytes of all variables of a process, and of its command.

Linux allows 2 MiB for both together (a quarter of the stack), and a pod's object 1.5 MiB.
"""


def _misfits_of_variables(app: App, environment: Environment) -> Iterator[str]:
    for tier, service in app.services.items():
        variables = service.env | environment.size(tier).env
        size = sum(len(text.encode()) for pair in variables.items() for text in pair)
        if size > VARIABLES_SIZE:
            yield (
                f"app.{tier}.env: they have {size} bytes together, and a process takes {VARIABLES_SIZE}; "
                "put the longest into files of the image"
            )


def _long_commands(tier: TierName, service: Service) -> Iterator[str]:
    steps = {"migrate": service.migrate, "seed": service.seed}
    steps |= {f"tasks.{name}": step for name, step in service.tasks.items()}
    commands = {"command": service.command} | {f"{key}.command": step.command for key, step in steps.items() if step}
    for key, command in commands.items():
        if (size := sum(len(word.encode()) for word in command)) > VARIABLES_SIZE:
            yield (
                f"app.{tier}.{key}: it has {size} bytes, and a process takes {VARIABLES_SIZE}; put it into a file of the image"
            )


def _misfits_of_copies(environment: Environment) -> Iterator[str]:
    for tier, size in environment.tiers.items():
        path = f"environment.tiers.{tier}.copy_of"
        if not size.copy_of:
            continue
        if tier is not TierName.DATABASE:
            yield f"{path}: it is for the database; take it out"
        elif environment.protect_data:
            yield f"{path}: copy_of requires protect_data: false; remove one of them"
        elif not size.backup:
            yield f"{path}: the backup workload restores the copy; set environment.tiers.database.backup, too"
        elif environment.archived:
            yield (
                f"{path}: every change is archived here, also personal data before it is anonymised; back up to a volume "
                "(environment.tiers.database.backup.target), or remove copy_of"
            )


def _misfits_of_an_engine(app: App, environment: Environment) -> Iterator[str]:
    monitoring, gateway = environment.monitoring, environment.gateway
    if monitoring and monitoring.port in gateway.published.values():
        yield f"environment.monitoring.port: {monitoring.port} is the gateway's, too; give each its own"
    for tier in environment.gateway.ports:
        if tier not in {TierName.WEB, TierName.API} & app.names:
            yield f"environment.gateway.ports.{tier}: it is for web and api, where the application has them; take it out"
    for tier, size in environment.tiers.items():
        for key in ("autoscale", "ha", "priority_class", "reserve", "single", "storage", "storage_class"):
            if key in size.model_fields_set:
                yield f"environment.tiers.{tier}.{key}: a Docker engine has no such thing; take it out"
        if size.replicas > 10:
            yield f"environment.tiers.{tier}.replicas: {size.replicas} are too many for one engine; give at most 10"


def _misfits_of_a_cluster(app: App, environment: Environment) -> Iterator[str]:
    cluster = environment.cluster
    yield from _misfits_of_routes(app, environment)
    yield from _misfits_of_data(app, environment)
    shared: dict[str, tuple[TierName, Size]] = {}
    for tier, service in app.services.items():
        within = round(service.start_within + cluster.schedule_within)
        if isinstance(service, Worker) and not service.alive and within <= STEADY:
            fix = f"give more than {STEADY}s in all, or set a liveness command (app.{tier}.alive)"
            yield (
                f"app.{tier}.start_within: with kubernetes.schedule_within it is {within}s, and a worker without a probe counts as "
                f"started after {STEADY}s; {fix}"
            )
        if service.build and tier not in environment.images and not environment.registry:
            yield f"app.{tier}.build: a cluster pulls its images; say in environment.registry where they are"
        if service.user <= 10_000:
            yield f"app.{tier}.user: {service.user} may be a user of the node; build the image for one above 10000"
        if service.volumes and not environment.size(tier).storage_class:
            yield (
                f"environment.tiers.{tier}.storage_class: both slots write to its volumes, from any node; "
                "name a StorageClass with ReadWriteMany"
            )
        for name in service.volumes:
            size = environment.size(tier)
            first, other = shared.setdefault(name, (tier, size))
            if (size.storage, size.storage_class) != (other.storage, other.storage_class):
                yield f"environment.tiers.{tier}: it shares volume {name} with {first}; give both one storage and storage_class"
    if app.database and environment.pooled(app):
        reference = cluster.secrets.get(app.database.password)
        if reference and reference.secret and reference.key != "password":
            yield (
                f"environment.kubernetes.secrets.{app.database.password}.key: CloudNativePG reads `username` and `password` of a "
                "Secret of type kubernetes.io/basic-auth; name one, and key: password"
            )
    for name, reference in cluster.secrets.items():
        if reference.secret:
            try:
                grammar.secret_key(reference.key)
            except RefusalError as refusal:
                yield f"environment.kubernetes.secrets.{name}.key: {refusal}"
    for name in cluster.secrets:
        if name not in app.secrets | environment.secrets:
            yield f"environment.kubernetes.secrets.{name}: nothing uses it; take it out"


HOSTNAMES, MATCHES_OF_A_RULE, MATCHES = 16, 64, 128
"""Limits of an HTTPRoute (Gateway API v1, httproute_types.go)."""
STEADY = 10
"""Seconds that a worker without a probe must run before it counts as started (`minReadySeconds`)."""
LEAST_STORAGE = 64 * 2**20
"""Bytes that the files of an empty database and its first WAL file need."""


def _misfits_of_routes(app: App, environment: Environment) -> Iterator[str]:
    """Yield values that an HTTPRoute refuses."""
    cluster, api = environment.cluster, app.api
    compared = {f"app.{tier}.metrics": service.metrics for tier, service in app.measured.items()}
    if api and app.web:
        compared |= {f"app.api.paths.{number}": path for number, path in enumerate(api.paths)}
    for name, path in compared.items():
        if path and "%" in path:
            yield f"{name}: a Gateway compares {path} as it is written; write it without codes, like /api"
    if (hosts := 1 + len(cluster.hostnames)) > HOSTNAMES:
        fix = f"give at most {HOSTNAMES - 1}"
        yield f"environment.kubernetes.hostnames: an HTTPRoute takes {HOSTNAMES}, that of url among them, and these make {hosts}; {fix}"
    if api and app.web:
        hidden = 2 * sum(bool(tier.metrics) for tier in (api, app.web))
        per_path = 2 if environment.release.standby == "warm" else 1
        most = min(MATCHES_OF_A_RULE, (MATCHES - 2 - hidden) // per_path - 1)
        if len(api.paths) > most:
            yield f"app.api.paths: {len(api.paths)} are more than an HTTPRoute takes; give at most {most}, as the beginnings of others"


def _misfits_of_data(app: App, environment: Environment) -> Iterator[str]:
    """Yield values of database and cache that a cluster refuses."""
    for tier in environment.data(app):
        storage = environment.size(tier).storage
        if tier is TierName.DATABASE and storage and storage < LEAST_STORAGE:
            yield f"environment.tiers.{tier}.storage: an empty database needs more; give at least {LEAST_STORAGE // 2**20}Mi"
    if app.database and environment.pooled(app):
        used = {
            "app.database.name": app.database.name,
            "environment.tiers.database.name": environment.size(TierName.DATABASE).name,
        }
        for path in (path for path, name in used.items() if name == "pgbouncer"):
            yield f"{path}: pgbouncer is PgBouncer's own database, which leads to its console; give another, as in app"
    if (
        app.database
        and environment.pooled(app)
        and app.database.user in ("postgres", "streaming_replica", "cnpg_pooler_pgbouncer")
    ):
        yield f"app.database.user: {app.database.user} is a role of CloudNativePG's own; give another, as in app"


def _unpinned(app: App, environment: Environment) -> Iterator[str]:
    images = {tier: service.image for tier, service in app.services.items()}
    images |= {tier: environment.data_image(tier, described) for tier, described in environment.data(app).items()}
    for tier, image in images.items():
        reference = environment.images.get(tier) or image or "an image that is built"
        if "@sha256:" not in reference:
            yield f"environment.images.{tier}: {reference} is not named by its digest; `make images` writes it here"
    if app.database and environment.size(TierName.DATABASE).single and "@sha256:" not in app.database.image:
        fix = "name it by its digest here; environment.images.database is the image of the cluster"
        yield f"app.database.image: {app.database.image} is not named by its digest; {fix}"
    for path, image in environment.watchers(app).items():
        if "@sha256:" not in image:
            yield f"environment.monitoring.{path}: {image} is not named by its digest; add it, as in name:1.4@sha256:…"
    backup = environment.size(TierName.DATABASE).backup
    if backup and "@sha256:" not in (backup.image or ""):
        named = backup.image or "an image that is built"
        yield f"environment.tiers.database.backup.image: {named} is not named by its digest; `make images` writes it here"
    tools = {"toolbox": environment.toolbox}
    tools |= {"proxy": environment.proxy} if environment.size(TierName.CACHE).ha else {}
    tools |= {"pooler": environment.pooler} if environment.pooled(app) else {}
    tools |= {"vault": environment.vault} if environment.archived else {}
    for name, image in tools.items():
        if "@sha256:" not in image:
            yield f"environment.{name}: {image} is not named by its digest; `make images` writes it here"
