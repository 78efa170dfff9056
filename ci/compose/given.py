"""Services of a normalised Compose file, from Compose 1 or 2, and the notes about their conversion."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

Plain = dict[str, Any]

_URL = re.compile(r"https?://[^\s/:'\"]+(?::(\d+))?(/[\w./~%-]*)?")
_PORT_IN_COMMAND = re.compile(r"(?:--port[= ]|--bind[= ]\S*:|-b \S*:|-p |runserver \S*:)(\d{4,5})\b")


class Kind(StrEnum):
    """Kind of a note, which is its heading in the list."""

    LEFT = "Not carried: do something about it"
    TAKEN = "Taken for you: look whether it is right"
    IMPLIED = "Not needed: it is so without a word"


@dataclass(frozen=True, kw_only=True)
class Note:
    """Note about the conversion of one part of the file. It never contains a secret's value."""

    kind: Kind
    path: str
    text: str


@dataclass(frozen=True)
class Mounted:
    """Volume of a service. `source` is a path of the host, a volume's name, or empty."""

    source: str
    target: str

    @property
    def of_host(self) -> bool:
        return self.source.startswith("/")

    @property
    def first_sql(self) -> bool:
        """True if the database image runs the mounted file or folder when it initialises the database."""
        return self.target.startswith("/docker-entrypoint-initdb.d")


@dataclass
class Notes:
    """Notes collected so far."""

    said: list[Note] = field(default_factory=list[Note])

    def left(self, path: str, text: str) -> None:
        self.said.append(Note(kind=Kind.LEFT, path=path, text=text))

    def taken(self, path: str, text: str) -> None:
        self.said.append(Note(kind=Kind.TAKEN, path=path, text=text))

    def implied(self, path: str, text: str) -> None:
        self.said.append(Note(kind=Kind.IMPLIED, path=path, text=text))

    def sorted(self) -> tuple[Note, ...]:
        """Return the notes in order."""
        return in_order(self.said)


def in_order(notes: Sequence[Note]) -> tuple[Note, ...]:
    """Return each note once, those that require action first."""
    kinds = list(Kind)
    return tuple(dict.fromkeys(sorted(notes, key=lambda note: (kinds.index(note.kind), note.path))))


class Given:
    """Service of a Compose file. Compose 1 and 2 write commands, ports, volumes and dependencies in different forms."""

    def __init__(self, name: str, raw: Plain) -> None:
        self.name, self.raw, self.path = name, raw, f"services.{name}"
        build: object = raw.get("build")
        self.build: Plain = {"context": build} if isinstance(build, str) else mapping(raw, "build")
        self.image = str(raw.get("image", ""))
        last = self.image.partition("@")[0].rpartition("/")[2]
        self.product, _, self.tag = last.partition(":")
        self.words = set(re.split(r"[^a-z]+", f"{name} {'' if self.build else self.product}".lower()))
        self.command = [*_words(raw.get("entrypoint")), *_words(raw.get("command"))]
        self.env = {key: None if value is None else str(value) for key, value in mapping(raw, "environment").items()}
        self.mounts = [_mounted(volume) for volume in listing(raw, "volumes")]
        self.ports = [_port(port) for port in listing(raw, "ports")]
        self.limits = mapping(mapping(mapping(raw, "deploy"), "resources"), "limits")
        test: Any = mapping(raw, "healthcheck").get("test") or ["NONE"]
        how, *words = ["CMD-SHELL", test] if isinstance(test, str) else cast(list[str], test)
        self.check = {"CMD": words, "CMD-SHELL": ["sh", "-c", *words]}.get(how, [])
        self.asks = _URL.search(" ".join(self.check))

    @property
    def source(self) -> str:
        """Image or build folder. Services with the same source are one image in several roles."""
        return str(self.build.get("context") or self.image)

    @property
    def after(self) -> dict[str, str]:
        """Services that it starts after → the condition they must meet."""
        depends_on: object = self.raw.get("depends_on")
        if isinstance(depends_on, list):
            return dict.fromkeys(cast(list[str], depends_on), "service_started")
        return {
            name: options.get("condition", "service_started")
            for name, options in mapping(self.raw, "depends_on").items()
        }

    @property
    def published(self) -> int | None:
        """First of its ports that the host publishes."""
        return next((published for published, _ in self.ports if published), None)

    @property
    def port(self) -> int | None:
        """Port on which the service listens, from the most reliable source in the file."""
        candidates = [*(target for _, target in self.ports), *listing(self.raw, "expose")]
        candidates += [self.asks[1] if self.asks else None, self.env.get("PORT")]
        for candidate in candidates:
            if (port := str(candidate).partition("/")[0]).isdecimal():
                return int(port)
        match = _PORT_IN_COMMAND.search(" ".join(self.command))
        return int(match[1]) if match else None

    def talks_to(self, other: "Given") -> bool:
        """Tell whether the service refers to another one by dependency, link or variable."""
        linked = [str(link).partition(":")[0] for link in listing(self.raw, "links")]
        return other.name in (*self.after, *linked) or any(names(value, other.name) for value in self.env.values())


def as_host(service: str) -> str:
    """Return an expression for a service's name as a host: alone, before a port or a path, or in a URL."""
    return rf"(^|@|//){re.escape(service)}(?=:\d|/|$)"


def names(value: str | None, service: str) -> bool:
    return bool(value and re.search(as_host(service), value))


def as_name(text: str) -> str:
    """Return a text as a name that the models accept: small letters, digits, single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:30].rstrip("-")


def mapping(given: Plain, key: str) -> Plain:
    return cast(Plain, given.get(key) or {})


def listing(given: Plain, key: str) -> list[Any]:
    value: object = given.get(key) or []
    return [value] if isinstance(value, str) else cast(list[Any], value)


def unescaped(value: object) -> object:
    """Return a value with `$$` replaced by `$`: Compose doubles each dollar for itself to read."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, Mapping):
        return {str(key): unescaped(part) for key, part in cast(Mapping[object, object], value).items()}
    return [unescaped(part) for part in cast(list[object], value)] if isinstance(value, list) else value


def _words(given: object) -> list[str]:
    return shlex.split(given) if isinstance(given, str) else [str(word) for word in cast(list[object], given or [])]


def _mounted(given: object) -> Mounted:
    if isinstance(given, str):
        source, target, *_ = given.split(":") if ":" in given else ("", given)
        return Mounted(source, target)
    mount = cast(Plain, given)
    return Mounted(str(mount.get("source", "")), str(mount["target"]))


def _port(given: object) -> tuple[int | None, int]:
    """Return the published port, or None, and the container's port. Of a range the first is returned."""
    if isinstance(given, Mapping):
        port = cast(Plain, given)
        published, target = str(port.get("published") or ""), str(port["target"]).partition("/")[0].rpartition(":")[2]
    else:
        published, _, target = str(given).partition("/")[0].rpartition(":")
    first = published.rpartition(":")[2].partition("-")[0]
    return int(first) if first.isdecimal() else None, int(target.partition("-")[0])
