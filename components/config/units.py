"""Types of values, with their units and grammars: sizes, times, processors, ports, schedules, names and addresses.

A size is converted to bytes, a time to seconds, a schedule to a cron expression. All other values stay
unchanged.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from ..model import services
from . import grammar, template
from .errors import problem
from .grammar import RefusalError, describe


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Annotation that adds a grammar to a type. `check` validates and converts a value before pydantic checks its type."""

    check: Callable[[Any], object]
    """Function that returns the converted value, or raises `RefusalError`."""
    example: str | float
    """Valid value, for messages, documents and editors."""
    pattern: str = ""
    """Regular expression of valid values, for editors."""
    type: str = "string"
    """Type of values in the JSON Schema."""

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
            raise problem(refusal.wrong, refusal.fix) from None


class _ServiceName:
    """Annotation of a type for names of services.

    The type accepts every name in a valid form, because an application may add services. The modules named `*_checks` refuse names
    of missing services. The JSON Schema lists the names in `SERVICES`.
    """

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{NAME}$", "examples": list(services.common_catalogue().names)}

    @staticmethod
    def _checked(value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch(NAME, value, re.ASCII):
            raise PydanticCustomError("service", "it is not a service")
        return value


_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
_A_SIZE, _A_TIME = r"\d+(\.\d+)?(Ki|Mi|Gi)", r"\d+(\.\d+)?(ms|s|m|h)"
_TEN_YEARS = 10 * 365 * 24 * 3600
"""Longest time in the configuration, in seconds. Some platforms store nanoseconds in 64 bits, which a longer time could
exceed."""


def _quantity(value: object, units: Mapping[str, float], example: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([A-Za-z]+)", value, re.ASCII) if isinstance(value, str) else None
    if not match or match[2] not in units:
        raise RefusalError(f"{describe(value)} is not a number with a unit", f"write it like {example}")
    return float(match[1]) * units[match[2]]


def _bytes(least: int, noun: str, most: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        size = int(_quantity(value, _BYTES, "512Mi (units: Ki, Mi, Gi)"))
        if size < least * 2**20:
            raise RefusalError(f"{describe(value)} is too little {noun}", f"use at least {least}Mi")
        if size > most * 2**30:
            raise RefusalError(f"{describe(value)} is more than any machine has", f"use at most {most}Gi")
        return size

    return check


def _time(least: float, shown: str) -> Callable[[object], float]:
    def check(value: object) -> float:
        seconds = _quantity(value, _SECONDS, "30s (units: ms, s, m, h)")
        if seconds < least:
            raise RefusalError(f"{describe(value)} is too short", f"use at least {shown}")
        if seconds > _TEN_YEARS:
            raise RefusalError(f"{describe(value)} is more than ten years", f"use at most {_TEN_YEARS // 3600}h")
        return seconds

    return check


def _interval(value: object) -> float:
    seconds = _time(1, "1s")(value)
    if seconds > 120:
        raise RefusalError(
            f"the interval {describe(value)} is too long, because a rate over five minutes needs two samples",
            "use at most 2m",
        )
    return seconds


def _cpu(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 256:
        raise RefusalError(
            f"{describe(value)} is not a number of processors", "write it like 0.5 or 2, from 0.01 to 256"
        )
    return float(value)


def _share(value: object) -> object:
    if isinstance(value, bool):
        raise RefusalError(f"{describe(value)} is a boolean", "use a number, such as 0.01")
    return value


_WORDS = {"daily": "17 {hour} * * *", "weekly": "17 {hour} * * sun", "monthly": "17 {hour} 1 * *"}


TimeZone = Annotated[str, Checked(check=grammar.time_zone, example="Europe/Berlin")]


def cron_schedule(hour: int) -> Checked:
    """Return the annotation of a schedule: a cron expression, or `daily`, `weekly` or `monthly`.

    Each of these three words becomes a cron expression for minute 17 of `hour`, such as `17 3 * * *`."""

    def check(value: object) -> str:
        return grammar.cron(_WORDS[value].format(hour=hour) if isinstance(value, str) and value in _WORDS else value)

    return Checked(check=check, example="30 2 * * mon-fri")


def _days(value: object) -> int:
    days = round(_quantity(value, {"d": 1, "w": 7}, "30d (units: d, w)"))
    if days < 1:
        raise RefusalError(f"{describe(value)} is less than a day", "use at least 1d")
    if days > 36500:
        raise RefusalError(f"{describe(value)} is more than a hundred years", "use at most 36500d")
    return days


def _volume_path(value: object) -> str:
    return (
        grammar.container_path(value.removesuffix(":ro")) and value
        if isinstance(value, str)
        else grammar.container_path(value)
    )


def _pattern(pattern: str, example: str, fix: str, noun: str = "a name that every platform accepts") -> Checked:
    def check(value: object) -> str:
        return grammar.matching(value, pattern, noun, fix)

    return Checked(check=check, example=example, pattern=pattern)


NAME = r"[a-z](-?[a-z0-9]){0,29}"
_A_NAME = "use at most 30 lower-case letters, digits and single dashes, and begin with a letter"


def _secret_name(value: object) -> str:
    """Check the name of a secret. Errors don't contain the value, because it may be the secret instead of its name."""
    if not isinstance(value, str) or not re.fullmatch(NAME, value, re.ASCII):
        fix = "write a name of lower-case letters, digits and single dashes, and set the value with `pulumi config set --secret`"
        raise RefusalError("this text is not a valid name of a secret", fix)
    return value


def word(value: object) -> str:
    """Check a text of one line.

    Raises:
        RefusalError: the value is not a text, is empty, or contains control characters.
    """
    text = grammar.text_of(value, "a text", "write it in quotes")
    if not text or any(unicodedata.category(mark) == "Cc" for mark in text):
        raise RefusalError(
            f"{describe(text)} is not a text of one line", "write it in quotes, without control characters"
        )
    return text


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise problem(f"{value} occurs twice", "list it once")
    return values


Distinct = AfterValidator(_distinct)
Memory = Annotated[int, Checked(check=_bytes(6, "to start a container", 2**16), example="512Mi", pattern=_A_SIZE)]
Scratch = Annotated[int, Checked(check=_bytes(6, "for files", 2**16), example="512Mi", pattern=_A_SIZE)]
Storage = Annotated[int, Checked(check=_bytes(6, "for a volume", 2**20), example="10Gi", pattern=_A_SIZE)]
Seconds = Annotated[float, Checked(check=_time(0, "0s"), example="30s", pattern=_A_TIME)]
Wait = Annotated[float, Checked(check=_time(1, "1s"), example="30s", pattern=_A_TIME)]
Latency = Annotated[float, Checked(check=_time(0.001, "1ms"), example="500ms", pattern=_A_TIME)]
Interval = Annotated[float, Checked(check=_interval, example="30s", pattern=_A_TIME)]
Days = Annotated[int, Checked(check=_days, example="30d", pattern=r"\d+[dw]")]
Cpu = Annotated[float, Checked(check=_cpu, example=0.5, type="number")]
Port = Annotated[int, Checked(check=grammar.port, example=8080, type="integer")]
Share = Annotated[float, BeforeValidator(_share), Field(allow_inf_nan=False, strict=True)]
ContainerPath = Annotated[str, Checked(check=grammar.container_path, example="/var/lib/app", pattern=r"/.*")]
VolumePath = Annotated[str, Checked(check=_volume_path, example="/var/lib/app", pattern=r"/.*")]
HostFolder = Annotated[str, Checked(check=grammar.host_folder, example="/srv/backups", pattern=r"/.*")]
RelativePath = Annotated[str, Checked(check=grammar.relative_path, example="sql/schema.sql", pattern=r"[^/].*")]
DockerfilePath = Annotated[
    str, Checked(check=grammar.dockerfile, example="docker/api.Dockerfile", pattern=r"[A-Za-z0-9._][A-Za-z0-9._@+/-]*")
]
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
Name = Annotated[str, _pattern(NAME, "shop", _A_NAME)]
SecretName = Annotated[str, Checked(check=_secret_name, example="api-key", pattern=NAME)]
Host = Annotated[str, Checked(check=grammar.route_host, example="app.example.com")]
ExactHost = Annotated[str, Checked(check=grammar.exact_host, example="admin.example.com")]
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
BuildArgument = Annotated[
    str,
    _pattern(
        r"[A-Za-z_][A-Za-z0-9_]{0,99}",
        "NODE_VERSION",
        "use letters, digits and underscores, as in NODE_VERSION",
        "the name of a build argument",
    ),
]
Version = Annotated[
    str,
    _pattern(
        r"[A-Za-z0-9]([A-Za-z0-9._-]{0,38}[A-Za-z0-9])?",
        "1.4.0",
        'use at most 40 letters, digits, dots, dashes and underscores, begin and end with a letter or digit, and write it in quotes, as in "1.4.0"',
        "a version as text",
    ),
]
StackName = Annotated[
    str,
    _pattern(
        r"[A-Za-z0-9._*-]{1,100}",
        "dev",
        "write it as in Pulumi.<stack>.yaml, like dev, or with a star, like pr-*",
        "the name of a stack",
    ),
]
ServiceName = Annotated[str, _ServiceName()]
Setting = Annotated[str, Field(examples=["info"])]
TemplateText = Annotated[str, Checked(check=template.checked, example=template.EXAMPLE)]
Word = Annotated[str, Checked(check=word, example="text")]
Argument = Annotated[str, Field(min_length=1, examples=["serve"])]
LabelKey = Annotated[str, Checked(check=grammar.label_key, example="release")]
LabelValue = Annotated[str, Checked(check=grammar.label_value, example="prometheus")]
Stage = Annotated[
    str, _pattern(r"[a-z][a-z0-9._-]{0,49}", "dev", "write it as the Dockerfile does, like dev", "a stage")
]
Command = Annotated[tuple[Argument, ...], Field(examples=[["python", "-m", "app"]])]
Page = Annotated[str, Checked(check=grammar.page, example="docs/runbook.md")]
