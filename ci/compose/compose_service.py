"""Services of a normalised Compose file (Compose 1 or 2), and the notes about their conversion."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from components.model.names import short_hash

Plain = dict[str, Any]

_URL = re.compile(r"https?://[^\s/:'\"]+(?::(\d+))?(/[\w./~%-]*)?")
_PORT_IN_COMMAND = re.compile(r"(?:--port[= ]|--bind[= ]\S*:|-b \S*:|-p |runserver \S*:)(\d{4,5})\b")


class Kind(StrEnum):
    """Kind of a note. The value is the heading in the list of notes."""

    UNCONVERTED = "Not converted: do this by hand"
    ASSUMED = "Assumed: check that this is right"
    UNNECESSARY = "Not needed: this is the default here"


@dataclass(frozen=True, kw_only=True)
class Note:
    """Note about the conversion of one part of the Compose file. A note never contains the value of a secret."""

    kind: Kind
    path: str
    text: str


@dataclass(frozen=True)
class Mount:
    """Mount of a service. `source` is a path of the host, the name of a volume, or empty for an anonymous volume."""

    source: str
    target: str
    read_only: bool = False
    in_memory: bool = False
    """True for a `tmpfs` mount."""

    @property
    def is_host_path(self) -> bool:
        return self.source.startswith("/")

    @property
    def is_init_script(self) -> bool:
        """True if the database image runs the mounted file when it creates the database."""
        return self.target.startswith("/docker-entrypoint-initdb.d")


@dataclass
class Notes:
    """Notes that a conversion collects."""

    notes: list[Note] = field(default_factory=list[Note])

    def add_unconverted(self, path: str, text: str) -> None:
        self.notes.append(Note(kind=Kind.UNCONVERTED, path=path, text=text))

    def add_assumption(self, path: str, text: str) -> None:
        self.notes.append(Note(kind=Kind.ASSUMED, path=path, text=text))

    def add_unnecessary(self, path: str, text: str) -> None:
        self.notes.append(Note(kind=Kind.UNNECESSARY, path=path, text=text))

    def sorted(self) -> tuple[Note, ...]:
        """Return the notes, sorted and without duplicates (see `in_order`)."""
        return in_order(self.notes)


def in_order(notes: Sequence[Note]) -> tuple[Note, ...]:
    """Sort notes by kind and path, and remove duplicates. Notes that require an action come first."""
    kinds = list(Kind)
    return tuple(dict.fromkeys(sorted(notes, key=lambda note: (kinds.index(note.kind), note.path))))


class ComposeService:
    """Service of a Compose file, with the same attributes for the formats of Compose 1 and 2."""

    def __init__(self, name: str, raw: Plain) -> None:
        self.name, self.raw, self.path = name, raw, f"services.{name}"
        build: object = raw.get("build")
        self.build: Plain = {"context": build} if isinstance(build, str) else mapping(raw, "build")
        self.image = str(raw.get("image", ""))
        without_digest, _, self.digest = self.image.partition("@")
        self.product, _, self.tag = without_digest.rpartition("/")[2].partition(":")
        # Ignore the words of the image's name, because an image such as `clickhouse-server` is not a server of the application.
        self.words = set(re.split(r"[^a-z]+", name.lower()))
        self.entrypoint, self.arguments = _words(raw.get("entrypoint")), _words(raw.get("command"))
        if self.removes_entrypoint:
            # Without the image's entrypoint, the first word of the command is the program that runs.
            self.entrypoint, self.arguments = self.arguments, []
        self.env = {key: None if value is None else str(value) for key, value in mapping(raw, "environment").items()}
        self.mounts = [_mount(volume) for volume in listing(raw, "volumes")]
        self.ports = [_port(port) for port in listing(raw, "ports")]
        self.limits = mapping(mapping(mapping(raw, "deploy"), "resources"), "limits")
        test: Any = mapping(raw, "healthcheck").get("test") or ["NONE"]
        test_type, *words = ["CMD-SHELL", test] if isinstance(test, str) else cast(list[str], test)
        self.healthcheck = {"CMD": words, "CMD-SHELL": ["sh", "-c", *words]}.get(test_type, [])
        self.health_url = _URL.search(" ".join(self.healthcheck))

    @property
    def removes_entrypoint(self) -> bool:
        """True if the service removes the entrypoint of its image (`entrypoint: []`)."""
        return self.raw.get("entrypoint") in ([], "")

    @property
    def command(self) -> list[str]:
        """Words of the whole command line: the entrypoint, if the service replaces the image's entrypoint, and the command."""
        return [*self.entrypoint, *self.arguments]

    @property
    def source(self) -> str:
        """Image, or build folder with its options. Services with the same source run the same image."""
        if not self.build:
            return self.image
        options = " ".join(str(self.build.get(key) or "") for key in ("context", "dockerfile", "target"))
        return options + (f" {sorted(self.build_args.items(), key=str)}" if self.build_args else "")

    @property
    def build_args(self) -> dict[str, str | None]:
        """Build arguments: name → value, or None for a value that Compose reads from its own environment."""
        args: object = self.build.get("args")
        if isinstance(args, list):
            pairs = [str(arg).partition("=") for arg in cast(list[object], args)]
            return {name: value if equals else None for name, equals, value in pairs}
        return {name: None if value is None else str(value) for name, value in mapping(self.build, "args").items()}

    @property
    def dependencies(self) -> dict[str, str]:
        """Services that must start before this service: name → condition to wait for, such as `service_healthy`."""
        depends_on: object = self.raw.get("depends_on")
        if isinstance(depends_on, list):
            return dict.fromkeys(cast(list[str], depends_on), "service_started")
        return {
            name: options.get("condition", "service_started")
            for name, options in mapping(self.raw, "depends_on").items()
        }

    @property
    def published(self) -> int | None:
        """First host port that the service publishes, or None."""
        return next((published for published, _ in self.ports if published), None)

    @property
    def port(self) -> int | None:
        """Port on which the service listens, or None if it is unknown.

        The port is read from `ports`, `expose`, the healthcheck's URL, the variable PORT or the command, in this order.
        """
        candidates = [*(target for _, target in self.ports), *listing(self.raw, "expose")]
        candidates += [self.health_url[1] if self.health_url else None, self.env.get("PORT")]
        for candidate in candidates:
            if (port := str(candidate).partition("/")[0]).isdecimal():
                return int(port)
        match = _PORT_IN_COMMAND.search(" ".join(self.command))
        return int(match[1]) if match else None

    def talks_to(self, other: "ComposeService") -> bool:
        """Return True if the service refers to `other` by a dependency, a link or a host name in a variable."""
        linked = [str(link).partition(":")[0] for link in listing(self.raw, "links")]
        return other.name in (*self.dependencies, *linked) or any(
            names_host(key, value, other.name) for key, value in self.env.items()
        )

    @property
    def internet_variable(self) -> str | None:
        """Name of the first variable with a host on the internet, such as `smtp.example.com`, or None."""
        for key, value in self.env.items():
            for host in (match[1] for match in hosts(key, value or "")):
                if _OUTSIDE.fullmatch(host) and not host.endswith(_INSIDE):
                    return key
        return None


_HOST_VARIABLE = re.compile(r"(^|_)(HOST|HOSTS|HOSTNAME|ADDRESS|ADDR|SERVER|SERVERS|NODE|NODES|ENDPOINT)$")
_OUTSIDE = re.compile(r"([a-z0-9-]+\.)+[a-z]{2,}", re.IGNORECASE)
_INSIDE = (".local", ".localhost", ".internal")


_HOSTS = (
    re.compile(r"[A-Za-z][\w+.-]*://(?:[^/?#\s,]*@)?([^:/?#\s,@]+)"),
    re.compile(r"(?:^|(?<=[,\s]))([\w.-]+)(?=:\d+(?:[/,\s]|$))"),
    re.compile(r"\bhost=([\w.-]+)"),
)
"""Patterns of a host name: in a URL, before a port, and after `host=`."""


def hosts(key: str, value: str) -> list[re.Match[str]]:
    """Find the host names in the value of the variable `key`. Group 1 of each match is the host name.

    Hosts in URLs, before a port and after `host=` are found in every variable. A plain word, or each word of a
    comma-separated list, counts only in a variable such as DB_HOST. In other variables it may be a user or a driver.
    """
    patterns = (*_HOSTS, re.compile(r"(?:^|(?<=,))\s*([\w.-]+)\s*(?=,|$)")) if _HOST_VARIABLE.search(key) else _HOSTS
    return [match for pattern in patterns for match in pattern.finditer(value)]


def names_host(key: str, value: str | None, service: str) -> bool:
    """Return True if the value of a variable contains the host name `service`."""
    return any(match[1] == service for match in hosts(key, value or ""))


def with_host(key: str, value: str, service: str, host: str) -> str:
    """Replace the host name `service` by `host` in the value of a variable. Other uses of the word stay unchanged."""
    for begin, end in sorted({match.span(1) for match in hosts(key, value) if match[1] == service}, reverse=True):
        value = value[:begin] + host + value[end:]
    return value


MAX_NAME = 30
"""Maximum length of a name in the configuration."""


def as_name(text: str) -> str:
    """Convert a text to a name that the configuration accepts: at most 30 lower-case letters, digits and single dashes.

    A longer name is cut, and ends with a hash of the full name, so that two long names stay different.
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 7].rstrip('-')}-{short_hash(name, 6)}"


def mapping(section: Plain, key: str) -> Plain:
    """Return the mapping at `key`, or an empty mapping."""
    return cast(Plain, section.get(key) or {})


def listing(section: Plain, key: str) -> list[Any]:
    """Return the list at `key`, or an empty list. A text becomes a list with one item."""
    value: object = section.get(key) or []
    return [value] if isinstance(value, str) else cast(list[Any], value)


def unescape(value: object) -> object:
    """Replace `$$` by `$` in all texts of a value, because `docker compose config` writes each dollar sign twice."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, Mapping):
        return {str(key): unescape(part) for key, part in cast(Mapping[object, object], value).items()}
    return [unescape(part) for part in cast(list[object], value)] if isinstance(value, list) else value


def _words(command: object) -> list[str]:
    if isinstance(command, str):
        return shlex.split(command)
    return [str(word) for word in cast(list[object], command or [])]


def _mount(volume: object) -> Mount:
    if isinstance(volume, str):
        source, target, *options = volume.split(":") if ":" in volume else ("", volume)
        return Mount(source, target, read_only="ro" in ",".join(options).split(","))
    mount = cast(Plain, volume)
    return Mount(
        str(mount.get("source", "")),
        str(mount["target"]),
        read_only=bool(mount.get("read_only")),
        in_memory=mount.get("type") == "tmpfs",
    )


def _port(entry: object) -> tuple[int | None, int]:
    """Return the published port (or None) and the container port of an entry of `ports`. A range counts as its first port."""
    if isinstance(entry, Mapping):
        port = cast(Plain, entry)
        published, target = str(port.get("published") or ""), str(port["target"]).partition("/")[0].rpartition(":")[2]
    else:
        published, _, target = str(entry).partition("/")[0].rpartition(":")
    published_port = published.rpartition(":")[2].partition("-")[0]
    return int(published_port) if published_port.isdecimal() else None, int(target.partition("-")[0])
