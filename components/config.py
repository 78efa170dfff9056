"""What the application is (`app`) and where it runs (`environment`): the only place that reads configuration.

Both are read once, checked whole, and handed on as frozen models. Every error names the path of the value, what
was wrong and what to write instead. The reference in `docs/configuration.md` and the JSON Schema that completes
stack files in an editor are generated from these models (`python -m components.reference`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from itertools import combinations
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self, TypeVar, cast

from pulumi import Config, ConfigTypeError, Output, RunError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError


class ConfigError(RunError):
    """Configuration that can't be used. The message has one line a problem: `path: what is wrong; the fix`."""


class TierName(StrEnum):
    WEB = "web"
    API = "api"
    WORKER = "worker"
    DATABASE = "database"
    CACHE = "cache"


def _problem(wrong: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("tiers", "{wrong}; {fix}", {"wrong": wrong, "fix": fix})


_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def _quantity(value: object, units: Mapping[str, float], example: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([A-Za-z]+)", value) if isinstance(value, str) else None
    if not match or match[2] not in units:
        raise _problem(f"{value!r:.60} is not a number with a unit", f"write it like {example}")
    return float(match[1]) * units[match[2]]


def _memory(value: object) -> int:
    size = int(_quantity(value, _BYTES, "512Mi (units: Ki, Mi, Gi)"))
    if size < 6 * 2**20:
        raise _problem(f"{value!r:.60} is too little to start a container", "give at least 6Mi")
    return size


def _seconds(value: object) -> float:
    return _quantity(value, _SECONDS, "30s (units: ms, s, m, h)")


def _cpu(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 256:
        raise _problem(f"{value!r:.60} is not a number of processors", "write it like 0.5 or 2")
    return float(value)


def _port(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise _problem(f"{value!r:.60} is not a port", "give a whole number from 1 to 65535")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or ".." in PurePosixPath(value).parts or len(value) < 2:
        raise _problem(f"{value!r:.60} is not an absolute path in the container", "write it like /var/lib/app")
    return value


def _url_path(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[A-Za-z0-9._~/%-]*", value):
        raise _problem(f"{value!r:.60} is not a URL path", "write it like /health")
    return value


def _image(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][\w.:/-]*[:@][\w.:-]+", value):
        raise _problem(
            f"{value!r:.80} is not an image with a tag or digest", "write it like nginx:1.27 or name@sha256:…"
        )
    if value.endswith(":latest"):
        raise _problem(f"{value!r:.80} names whatever is newest today", "name the version you tested")
    return value


def _name(pattern: str, fix: str, noun: str = "a name that every platform takes") -> BeforeValidator:
    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
            raise _problem(f"{value!r:.60} is not {noun}", fix)
        return value

    return BeforeValidator(check)


Memory = Annotated[
    int, BeforeValidator(_memory), WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(Ki|Mi|Gi)$"})
]
Seconds = Annotated[
    float, BeforeValidator(_seconds), WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h)$"})
]
Cpu = Annotated[float, BeforeValidator(_cpu)]
Port = Annotated[int, BeforeValidator(_port)]
ContainerPath = Annotated[str, BeforeValidator(_path)]
UrlPath = Annotated[str, BeforeValidator(_url_path)]
ImageReference = Annotated[str, BeforeValidator(_image)]
Uid = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, _name(r"[a-z](-?[a-z0-9]){0,29}", "use lower-case letters, digits and single dashes, at most 30")]
Identifier = Annotated[str, _name(r"[a-z_][a-z0-9_]{0,62}", "use lower-case letters, digits and underscores")]
Variable = Annotated[str, _name(r"[A-Z_][A-Z0-9_]{0,99}", "use capitals, digits and underscores, as in LOG_LEVEL")]
Version = Annotated[
    str, _name(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", 'write it in quotes, like "1.4.0"', "a version as text")
]
Word = Annotated[str, Field(min_length=1)]
Command = tuple[Word, ...]

RESERVED = frozenset({"RELEASE", "SLOT"})


class Model(BaseModel):
    # Types are not coerced: a port written as "8000" is a mistake to point out, not one to guess around.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


M = TypeVar("M", bound=Model)


class Step(Model):
    """A command that runs to its end, in the tier's image, before the slot starts."""

    command: Command = Field(min_length=1, description="What to run; it must be safe to run twice.")
    timeout: Seconds = Field(default=120, description="How long it may take.", validate_default=False)


class Reload(Model):
    """How the tier runs while its source is being edited (only where `environment.reload` is true)."""

    command: Command = Field(default=(), description="Replaces the tier's command; empty keeps it.")
    mounts: dict[Word, ContainerPath] = Field(
        description="Folder of this repository → path in the container, read-only."
    )


class Source(Model):
    """Where an image comes from: exactly one of `image` and `build`."""

    image: ImageReference | None = Field(default=None, description="An image with its tag or digest.")
    build: Word | None = Field(default=None, description="A folder with a Dockerfile, relative to Pulumi.yaml.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.image is None) == (self.build is None):
            raise _problem("it needs exactly one of `image` and `build`", "keep the one you mean")
        return self


class Service(Source):
    """What every tier of a slot may say."""

    command: Command = Field(default=(), description="Replaces the image's command.")
    env: dict[Variable, str] = Field(default={}, description="Plain settings, the same everywhere.")
    secrets: tuple[Name, ...] = Field(
        default=(), description="Names of `secrets`; each is a file /run/secrets/NAME, its path in NAME_FILE."
    )
    needs: tuple[TierName, ...] = Field(
        default=(), description="Tiers it talks to: it may reach them, is told their address, and starts after them."
    )
    writable: tuple[ContainerPath, ...] = Field(default=("/tmp",), description="Paths it may write to, in memory.")
    volumes: dict[Name, ContainerPath] = Field(
        default={}, description="Data kept across releases: name → path; `user` must own the path in the image."
    )
    user: Uid = Field(default=10001, description="UID and GID; never root.")
    egress: Flag = Field(default=False, description="It may open connections to the world outside.")
    start_within: Seconds = Field(
        default=60, description="How long it may take to become healthy.", validate_default=False
    )
    stop_within: Seconds = Field(
        default=30, description="How long it may take to finish what it holds.", validate_default=False
    )
    migrate: Step | None = Field(default=None, description="Runs before the slot starts, in every release.")
    seed: Step | None = Field(default=None, description="Runs after the migration where `environment.seed` is true.")
    reload: Reload | None = Field(default=None, description="How it runs while its source is edited.")

    @model_validator(mode="after")
    def _paths_apart(self) -> Self:
        paths = [*self.writable, *self.volumes.values(), *(self.reload.mounts.values() if self.reload else ())]
        for one, other in combinations(paths, 2):
            if one == other:
                raise _problem(f"{one} is given twice among writable, volumes and reload.mounts", "give each path once")
        return self


class Listening(Service):
    """A tier that answers HTTP requests."""

    port: Port = Field(description="Where it listens, above 1023 (it is not root).")
    health: UrlPath = Field(default="/health", description="Answers 200 while the process lives.")
    ready: UrlPath | None = Field(default=None, description="Answers 200 while it can serve; `health` if not given.")
    metrics: UrlPath | None = Field(default=None, description="Prometheus metrics; never served through the gateway.")

    @model_validator(mode="after")
    def _port_without_root(self) -> Self:
        if self.port < 1024:
            raise _problem(f"port {self.port} can be opened by root only", "listen above 1023, as in 8080")
        return self


class Web(Listening):
    """Pages and assets; gets every path the api does not."""


class Api(Listening):
    """The HTTP interface."""

    paths: tuple[UrlPath, ...] = Field(default=("/api",), min_length=1, description="Path prefixes that are the api's.")


class Worker(Service):
    """Takes jobs from a queue; no port."""

    alive: Command = Field(
        default=(), description="A command that ends with 0 while it lives; empty: it is up while it runs."
    )


class Database(Model):
    """PostgreSQL, shared by both slots."""

    image: ImageReference = Field(
        default="postgres:15-bookworm", description="An image with the public one's contract."
    )
    name: Identifier = Field(default="app", description="The database that is created.")
    user: Identifier = Field(default="app", description="Its owner.")
    password: Name = Field(
        default="database-password",
        description="Which of `secrets` is the owner's password; later changes need ALTER ROLE, too.",
    )
    uid: Uid = Field(default=999, description="The image's own user, who owns its data: 999 in Debian images.")


class Cache(Model):
    """Redis, shared by both slots; its queue survives a restart."""

    image: ImageReference = Field(default="redis:7-bookworm", description="An image with the public one's contract.")
    password: Name = Field(
        default="cache-password",
        description="Which of `secrets` is the password; a change cuts off the live slot until the switch.",
    )
    uid: Uid = Field(default=999, description="The image's own user, who owns its data: 999 in Debian images.")


class App(Model):
    """What the application is: the same in every environment (`app` in Pulumi.yaml)."""

    name: Name = Field(description="Begins the name of everything the program makes.")
    version: Version = Field(
        description="What people call this release; with the digest of its content it is its name."
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
        """All the tiers it has."""
        data = {TierName.DATABASE: self.database, TierName.CACHE: self.cache}
        return frozenset(self.services) | {name for name, tier in data.items() if tier is not None}

    @property
    def secrets(self) -> dict[str, str]:
        """Every secret it uses → the config path that names it."""
        used = {name: f"app.{tier}.secrets" for tier, service in self.services.items() for name in service.secrets}
        if self.database:
            used[self.database.password] = "app.database.password"
        if self.cache:
            used[self.cache.password] = "app.cache.password"
        return used


class Size(Model):
    """How big a tier is here."""

    replicas: int = Field(default=1, ge=1, le=10, strict=True, description="How many of it run; database and cache: 1.")
    cpu: Cpu = Field(default=0.5, description="Processors it may use.", validate_default=False)
    memory: Memory = Field(default=512 * 2**20, description="Memory it may use.", validate_default=False)
    env: dict[Variable, str] = Field(default={}, description="Plain settings of this environment.")


class Gateway(Model):
    """What users connect to: the only thing with a published port."""

    address: Literal["127.0.0.1", "0.0.0.0"] = Field(
        default="127.0.0.1", description="Where it listens; 0.0.0.0 opens it to the network."
    )
    port: Port = Field(default=8080, description="Its port on the engine's host.")
    metrics_port: Port | None = Field(default=None, description="Its own Prometheus metrics, on 127.0.0.1.")
    image: ImageReference = Field(default="haproxy:2.6-bookworm", description="HAProxy.")
    cpu: Cpu = Field(default=0.5, validate_default=False, description="Processors it may use.")
    memory: Memory = Field(default=128 * 2**20, validate_default=False, description="Memory it may use.")

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        if self.port == self.metrics_port:
            raise _problem(f"port {self.port} is given twice, as port and as metrics_port", "give each its own")
        return self


class Docker(Model):
    """The Docker engine."""

    host: Annotated[str, Field(pattern=r"^(unix:///.+|ssh://.+|tcp://.+)$")] | None = Field(
        default=None,
        description="unix:///…, ssh://user@host or tcp://host:port; if absent DOCKER_HOST, then the local socket.",
    )
    toolbox: ImageReference = Field(
        default="python:3.11-slim-bookworm", description="Any image with Python 3: runs the smoke test and the switch."
    )


class Environment(Model):
    """Where the application runs, how big, how it is released (`environment` in Pulumi.<stack>.yaml)."""

    platform: Literal["docker"] = Field(description="What runs the containers.")
    docker: Docker = Field(default=Docker(), description="Where `platform` is docker: which engine.")
    gateway: Gateway = Field(default=Gateway(), description="What users connect to.")
    reload: Flag = Field(default=False, description="Run tiers with `reload` from the source in this repository.")
    seed: Flag = Field(default=False, description="Run the tiers' `seed` steps.")
    protect_data: Flag = Field(default=True, description="`pulumi destroy` refuses to delete data volumes.")
    tiers: dict[TierName, Size] = Field(default={}, description="Size by tier; a tier not named has the defaults.")

    @model_validator(mode="after")
    def _reload_is_local(self) -> Self:
        if self.reload and self.docker.host and not self.docker.host.startswith("unix://"):
            raise _problem(
                f"source can't be mounted into {self.docker.host}", "set reload: false, or use a local engine"
            )
        return self

    def size(self, tier: TierName) -> Size:
        """How big `tier` is in this environment."""
        return self.tiers.get(tier, Size())


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All the configuration of a stack. `secrets` are their values: they go to files of containers and nowhere else."""

    app: App
    environment: Environment
    secrets: dict[str, str] = field(repr=False)
    sealed: Output[Mapping[str, str]] = field(repr=False)
    """The same values as an output that the engine keeps encrypted."""


def load() -> Settings:
    """The configuration of the stack that runs.

    Raises:
        ConfigError: it can't be used; nothing has been touched yet.
    """
    config = Config()
    app = load_app(_object(config, "app"))
    environment = load_environment(_object(config, "environment"), app)
    secrets = check_secrets(_object(config, "secrets"), app)
    return Settings(app=app, environment=environment, secrets=secrets, sealed=Output.secret(secrets))


def _object(config: Config, key: str) -> object:
    try:
        return cast(object, config.get_object(key))
    except ConfigTypeError:
        raise ConfigError(f"{key}: it is a plain text; make it a mapping, see docs/configuration.md") from None


def load_app(value: object) -> App:
    """The application from the plain value of `app`.

    Raises:
        ConfigError: anything is unknown, missing, of another type, out of range or contradicts the rest.
    """
    app = _validated(App, value, "app")
    _refuse(_contradictions(app))
    return app


def load_environment(value: object, app: App) -> Environment:
    """The environment from the plain value of `environment`, checked against the application it runs.

    Raises:
        ConfigError: as `load_app`.
    """
    environment = _validated(Environment, value, "environment")
    _refuse(_misfits(app, environment))
    return environment


def check_secrets(value: object, app: App) -> dict[str, str]:
    """The value of each secret the application uses, from the plain value of `secrets`. Never log what it returns.

    Raises:
        ConfigError: one is not set, empty or not text. Its value is never in the message.
    """
    given = cast(Mapping[object, object], value if isinstance(value, Mapping) else {})
    fix = "set it with `pulumi config set --secret --path secrets.{0}`"
    _refuse(
        f"secrets.{name}: {path} uses it and it is not set to a text; {fix.format(name)}"
        for name, path in sorted(app.secrets.items())
        if not isinstance(given.get(name), str) or not given.get(name)
    )
    return {name: str(given[name]) for name in app.secrets}


def _validated(model: type[M], value: object, root: str) -> M:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{root}: it is {'not set' if value is None else 'not a mapping'}; see docs/configuration.md")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError("\n".join(_line(root, detail) for detail in error.errors())) from None
    except RecursionError:
        raise ConfigError(f"{root}: it is nested too deeply; see docs/configuration.md") from None


_FIXES = {
    "missing": "it is not set; add it",
    "enum": "it is not a tier; use web, api, worker, database or cache",
}


def _unknown(key: str) -> str:
    models = (App, Environment, Web, Api, Worker, Database, Cache, Size, Gateway, Docker, Step, Reload)
    known = sorted({field for model in models for field in model.model_fields})
    if key in ("cpu", "memory", "replicas"):
        return f"there is no such key; how big a tier is stands in environment.tiers.<tier>.{key}"
    close = get_close_matches(key, known, n=1)
    return "there is no such key; " + (f"did you mean {close[0]}?" if close else "see docs/configuration.md")


def _line(root: str, detail: ErrorDetails) -> str:
    path = ".".join([root, *(str(part) for part in detail["loc"] if part != "[key]")])
    message = detail["msg"]
    fallback = f"{message[0].lower()}{message[1:]}" + (
        "" if detail["type"] == "tiers" else "; see docs/configuration.md"
    )
    if detail["type"] == "extra_forbidden":
        return f"{path}: {_unknown(str(detail['loc'][-1]))}"
    return f"{path}: {_FIXES.get(detail['type'], fallback)}"


def _refuse(problems: Iterator[str]) -> None:
    if lines := "\n".join(problems):
        raise ConfigError(lines)


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
        for variable in service.env:
            if variable in RESERVED:
                yield f"app.{tier}.env.{variable}: the program sets it; take it out"
    volumes = [(name, tier) for tier, service in app.services.items() for name in service.volumes]
    for (one, first), (other, second) in combinations(volumes, 2):
        if one == other:
            yield f"app.{second}.volumes.{other}: app.{first} has a volume of that name; give it another"


def _misfits(app: App, environment: Environment) -> Iterator[str]:
    for tier, size in environment.tiers.items():
        path = f"environment.tiers.{tier}"
        if tier not in app.names:
            yield f"{path}: the application has no {tier}; take it out or describe app.{tier}"
        elif tier not in app.services:
            if size.replicas != 1:
                yield f"{path}.replicas: {tier} runs once here; take it out"
            if size.env:
                yield f"{path}.env: {tier} takes no settings; take it out"
        else:
            for variable in sorted(set(size.env) & (set(app.services[tier].env) | RESERVED)):
                yield f"{path}.env.{variable}: it is set by app.{tier}.env or the program; set it in one place"
