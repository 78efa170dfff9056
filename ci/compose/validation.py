"""Validation of a normalised Compose file. Only the keys that the import reads are checked."""

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

from pulumi import RunError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
)


def _none_as_mapping(value: object) -> object:
    """Return an empty mapping for None, and any other value unchanged. Compose reads a key without a value as empty."""
    return {} if value is None else value


def _as_list(value: object) -> object:
    """Return a value as a list. As in Compose, a text becomes a list with one item, and None an empty list."""
    return [] if value is None else [value] if isinstance(value, str) else value


def _check_quotes(value: Any) -> Any:
    """Return a command unchanged, or raise ValueError if it has an unclosed quote."""
    if isinstance(value, str):
        shlex.split(value)
    return value


def _check_number(value: Any) -> Any:
    if value is not None and not 0 <= float(value) < 10**6:
        raise ValueError("it must be between 0 and 999999")
    return value


def _check_whole_number(value: Any) -> Any:
    if value is not None and not 0 <= int(value) < 10**6:
        raise ValueError("it must be between 0 and 999999")
    return value


def _check_port(value: Any) -> Any:
    """Return a port entry unchanged, or raise ValueError if its container port is invalid.

    Entries look like `8000`, `8000/tcp` or `127.0.0.1:80:8000-8010`.
    """
    target = str(value).partition("/")[0].rpartition(":")[2].partition("-")[0]
    if not 1 <= int(target) <= 65535:
        raise ValueError("a port must be between 1 and 65535")
    return value


Scalar = str | int | float | bool | None
Text = str | None
Number = Annotated[str | int | float | None, AfterValidator(_check_number)]
WholeNumber = Annotated[str | int | None, AfterValidator(_check_whole_number)]
Words = Annotated[str | list[str | int | float | bool] | None, AfterValidator(_check_quotes)]
PortNumber = Annotated[StrictStr | StrictInt, AfterValidator(_check_port)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, strict=True)


class _Build(_Part):
    context: Annotated[str, Field(min_length=1)]
    dockerfile: Text = None
    target: Text = None
    args: dict[str, Scalar] | list[str] | None = None


class _Port(_Part):
    target: PortNumber
    published: str | int | None = None


class _Mount(_Part):
    target: str
    source: Text = None


class _SecretReference(_Part):
    source: str


class _Dependency(_Part):
    condition: str = "service_started"


class _Healthcheck(_Part):
    test: str | Annotated[list[str], BeforeValidator(_as_list)] = []


class _Limits(_Part):
    cpus: Number = None
    memory: str | int | None = None


class _Resources(_Part):
    limits: Annotated[_Limits, BeforeValidator(_none_as_mapping)] = _Limits()


class _Deploy(_Part):
    replicas: WholeNumber = None
    resources: Annotated[_Resources, BeforeValidator(_none_as_mapping)] = _Resources()


class _Service(_Part):
    image: Text = None
    build: str | _Build | None = None
    command: Words = None
    entrypoint: Words = None
    environment: Annotated[dict[str, Scalar], BeforeValidator(_none_as_mapping)] = {}
    ports: Annotated[list[PortNumber | _Port], BeforeValidator(_as_list)] = []
    expose: Annotated[list[str | int], BeforeValidator(_as_list)] = []
    volumes: Annotated[list[str | _Mount], BeforeValidator(_as_list)] = []
    depends_on: list[str] | dict[str, _Dependency] | None = None
    links: Annotated[list[str], BeforeValidator(_as_list)] = []
    healthcheck: Annotated[_Healthcheck, BeforeValidator(_none_as_mapping)] = _Healthcheck()
    deploy: Annotated[_Deploy, BeforeValidator(_none_as_mapping)] = _Deploy()
    cpus: Number = None
    mem_limit: str | int | None = None
    scale: WholeNumber = None
    secrets: Annotated[list[str | _SecretReference], BeforeValidator(_as_list)] = []
    profiles: Annotated[list[str], BeforeValidator(_as_list)] = []
    tmpfs: Annotated[list[str], BeforeValidator(_as_list)] = []
    user: str | int | None = None
    restart: Text = None
    stop_grace_period: str | int | None = None


class _Secret(_Part):
    file: Text = None


class _File(_Part):
    name: Text = None
    services: Annotated[dict[str, _Service], BeforeValidator(_none_as_mapping)] = {}
    secrets: Annotated[
        dict[str, Annotated[_Secret, BeforeValidator(_none_as_mapping)]], BeforeValidator(_none_as_mapping)
    ] = {}
    configs: Annotated[dict[str, Any], BeforeValidator(_none_as_mapping)] = {}


def validate(compose: object) -> dict[str, Any]:
    """Check a Compose file and return it unchanged.

    Raises:
        RunError: a value has the wrong type or range. The message contains the path of the value.
    """
    if not isinstance(compose, Mapping):
        raise RunError(
            "the file is not a Compose file, because its content is not a mapping; set COMPOSE to the file that has `services`"
        )
    try:
        _File.model_validate(compose)
    except ValidationError as error:
        # Some values may have one of several types, and pydantic reports an error for each type. The error with the longest
        # path belongs to the type that fits best.
        paths = [[str(key) for key in details["loc"] if not _is_type_name(key)] for details in error.errors()]
        keys = max(paths, key=len)
        raise RunError(
            f"{'.'.join(keys) or 'the file'}: the value has a type that Compose does not accept; correct the value"
        ) from None
    except RecursionError:
        raise RunError(
            "the YAML of this file is nested too deeply for a Compose file; set COMPOSE to the file with the key `services`"
        ) from None
    return dict(compose)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _is_type_name(key: str | int) -> bool:
    """Return True if a part of pydantic's error path is the name of a type, not a key of the file."""
    return isinstance(key, str) and (
        key.startswith(("list[", "dict[", "function-", "_")) or key in ("str", "int", "float", "bool", "[key]")
    )
