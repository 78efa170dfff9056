"""Validation of the parts of a normalised Compose file that the import reads. An error names the invalid part by its path."""

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


def _mapping_or_nothing(value: object) -> object:
    return {} if value is None else value


def _listed(value: object) -> object:
    """Return a text as a list of one and None as an empty list, as Compose does."""
    return [] if value is None else [value] if isinstance(value, str) else value


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        shlex.split(value)
    return value


def _number(value: Any) -> Any:
    if value is not None and not 0 <= float(value) < 10**6:
        raise ValueError("it is out of range")
    return value


def _whole(value: Any) -> Any:
    if value is not None and not 0 <= int(value) < 10**6:
        raise ValueError("it is out of range")
    return value


def _port(value: Any) -> Any:
    """Check the container's port: `8000`, `8000/tcp`, `127.0.0.1:80:8000-8010`."""
    target = str(value).partition("/")[0].rpartition(":")[2].partition("-")[0]
    if not 1 <= int(target) <= 65535:
        raise ValueError("a port is 1 to 65535")
    return value


Scalar = str | int | float | bool | None
Text = str | None
Number = Annotated[str | int | float | None, AfterValidator(_number)]
Whole = Annotated[str | int | None, AfterValidator(_whole)]
Words = Annotated[str | list[str | int | float | bool] | None, AfterValidator(_readable)]
PortNumber = Annotated[StrictStr | StrictInt, AfterValidator(_port)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, strict=True)


class _Build(_Part):
    context: Annotated[str, Field(min_length=1)]
    dockerfile: Text = None
    target: Text = None


class _Port(_Part):
    target: PortNumber
    published: str | int | None = None


class _Mount(_Part):
    target: str
    source: Text = None


class _Named(_Part):
    source: str


class _Condition(_Part):
    condition: str = "service_started"


class _Healthcheck(_Part):
    test: str | Annotated[list[str], BeforeValidator(_listed)] = []


class _Limits(_Part):
    cpus: Number = None
    memory: str | int | None = None


class _Resources(_Part):
    limits: Annotated[_Limits, BeforeValidator(_mapping_or_nothing)] = _Limits()


class _Deploy(_Part):
    replicas: Whole = None
    resources: Annotated[_Resources, BeforeValidator(_mapping_or_nothing)] = _Resources()


class _Service(_Part):
    image: Text = None
    build: str | _Build | None = None
    command: Words = None
    entrypoint: Words = None
    environment: Annotated[dict[str, Scalar], BeforeValidator(_mapping_or_nothing)] = {}
    ports: Annotated[list[PortNumber | _Port], BeforeValidator(_listed)] = []
    expose: Annotated[list[str | int], BeforeValidator(_listed)] = []
    volumes: Annotated[list[str | _Mount], BeforeValidator(_listed)] = []
    depends_on: list[str] | dict[str, _Condition] | None = None
    links: Annotated[list[str], BeforeValidator(_listed)] = []
    healthcheck: Annotated[_Healthcheck, BeforeValidator(_mapping_or_nothing)] = _Healthcheck()
    deploy: Annotated[_Deploy, BeforeValidator(_mapping_or_nothing)] = _Deploy()
    cpus: Number = None
    mem_limit: str | int | None = None
    scale: Whole = None
    secrets: Annotated[list[str | _Named], BeforeValidator(_listed)] = []
    profiles: Annotated[list[str], BeforeValidator(_listed)] = []
    tmpfs: Annotated[list[str], BeforeValidator(_listed)] = []
    user: str | int | None = None
    restart: Text = None
    stop_grace_period: str | int | None = None


class _Secret(_Part):
    file: Text = None


class _File(_Part):
    name: Text = None
    services: Annotated[dict[str, _Service], BeforeValidator(_mapping_or_nothing)] = {}
    secrets: Annotated[
        dict[str, Annotated[_Secret, BeforeValidator(_mapping_or_nothing)]], BeforeValidator(_mapping_or_nothing)
    ] = {}
    configs: Annotated[dict[str, Any], BeforeValidator(_mapping_or_nothing)] = {}


def checked(compose: object) -> dict[str, Any]:
    """Return a Compose file after checking the parts that are read.

    Raises:
        RunError: a part is invalid; the message names it by its path.
    """
    if not isinstance(compose, Mapping):
        raise RunError("it is no Compose file, for it is no mapping; name the file that has `services`")
    try:
        _File.model_validate(compose)
    except ValidationError as error:
        # A value may have several forms. The one whose error lies deepest fits best, so that error is reported.
        places = [[str(key) for key in details["loc"] if not _is_form(key)] for details in error.errors()]
        keys = max(places, key=len)
        raise RunError(f"{'.'.join(keys) or 'the file'}: this is not what Compose has there; mend it") from None
    except RecursionError:
        raise RunError("it is nested too deeply; name the file that has `services`") from None
    return dict(compose)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _is_form(key: str | int) -> bool:
    """Tell whether a part of pydantic's path is the name of a type, not a key of the file."""
    return isinstance(key, str) and (
        key.startswith(("list[", "dict[", "function-", "_")) or key in ("str", "int", "float", "bool", "[key]")
    )
