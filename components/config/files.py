"""Read Pulumi.yaml and stack files for the commands of `make`. A Pulumi program gets its values from Pulumi, and uses this module
only to check the files.

Pulumi reads the files with a Go library (YAML 1.2, gopkg.in/yaml.v3). This module uses PyYAML (YAML 1.1). The libraries
disagree about values such as `on`, `22:30`, `017` and dates. This module accepts only values that both libraries read alike,
and reports the line of every other value. This module does not import Pulumi, because commands must start fast.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import yaml
from yaml.resolver import Resolver

from .explain import legible

LIMIT = 2 * 2**20
"""Maximum size of a file in bytes. A stack file with many encrypted certificates has a few hundred thousand bytes."""
DEPTH = 50
"""Maximum nesting of values. The models need only nine levels."""
VALUES = 50_000
"""Maximum number of values in a file, with aliases expanded."""
SHOWN = 20
"""Maximum number of problems in a message."""

Keys = tuple[str | int, ...]
"""Path of a value in a file: keys of mappings, and positions in lists."""


class FileError(Exception):
    """An invalid file. The message has one line for each problem: `file:line: path: what is wrong; what to do`."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """Values of Pulumi.yaml that commands use."""

    name: str
    """Name of the project."""
    app: object
    """Unchecked value of `app`, for `config.load_app`."""


@dataclass(frozen=True, kw_only=True)
class StackFile:
    """Values of a stack file that commands use. None of these values is encrypted."""

    environment: dict[str, Any]
    """Unchecked value of `environment`, for `config.load_environment`."""
    secretsprovider: str
    """Provider that encrypts the secrets of the stack; empty for a passphrase."""
    salt: str
    """Salt of the passphrase; empty with a provider."""


def read_project(folder: Path) -> Project:
    """Return the values of Pulumi.yaml in a folder.

    Raises:
        FileError: the file is missing, can't be read, or does not describe an application.
    """
    document = _Document(folder / "Pulumi.yaml", "set APP to the folder of an application")
    top = document.mapping()
    name = top.get("name")
    if not isinstance(name, str) or not name:
        raise document.error(("name",), "the project has no name; add one, as in name: shop")
    document.refuse_ambiguous()
    config = document.mapping_at("config")
    for key in config:
        if key.removeprefix(f"{name}:") in ("environment", "secrets"):
            raise document.error(("config", key), "an environment belongs to a stack file; move it to Pulumi.dev.yaml")
    if f"{name}:app" in config:
        raise document.error(
            ("config", f"{name}:app"), "the key must be app, without the project's name; rename it to app"
        )
    app = config.get("app")
    if not isinstance(app, dict) or "value" not in app:
        raise document.error(("config", "app"), "it has no value; describe the application under config.app.value")
    document.refuse_encrypted(("config", "app", "value"))
    return Project(name=name, app=cast(object, app["value"]))


def has_backend(folder: Path) -> bool:
    """Return whether Pulumi.yaml sets a backend for the state, even if the rest of the file is invalid."""
    file = folder / "Pulumi.yaml"
    try:
        return bool(_Document(file, "").mapping().get("backend"))
    except FileError:
        try:
            return bool(re.search(rb"^backend:", file.read_bytes()[:LIMIT], re.MULTILINE))
        except OSError:
            return False


def read_stack(folder: Path, stack: str, project: str) -> StackFile:
    """Return the values of a stack file in a folder.

    Raises:
        FileError: the file is missing, can't be read, or has no environment of this project.
    """
    document = _Document(
        folder / f"Pulumi.{stack}.yaml", "set ENV to the name of a stack, as in ENV=dev for Pulumi.dev.yaml"
    )
    top = document.mapping()
    document.refuse_ambiguous(project)
    config = document.mapping_at("config")
    if f"{project}:app" in config:
        raise document.error(
            ("config", f"{project}:app"),
            "the application is the same in every environment; move this key to Pulumi.yaml",
        )
    key = f"{project}:environment"
    environment = config.get(key)
    if environment is None:
        others = [name for name in config if name.rpartition(":")[2] == "environment" and name != key]
        if others:
            wrong = f"the key is {others[0]}, but the project is {project}; rename the key to {key}"
            raise document.error(("config", others[0]), wrong, named=False)
        raise document.error(("config",), f"the key {key} is missing; add this key under config", named=False)
    if not isinstance(environment, dict):
        raise document.error(
            ("config", key), "it is not a mapping; begin with the line `platform: docker` under this key"
        )
    document.refuse_encrypted(("config", key))
    texts = {name: top.get(name) or "" for name in ("secretsprovider", "encryptionsalt")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise document.error((name,), "it is not a text; write it in quotes")
    return StackFile(
        environment=cast(dict[str, Any], environment),
        secretsprovider=str(texts["secretsprovider"]),
        salt=str(texts["encryptionsalt"]),
    )


def read(file: Path, purpose: str = "") -> dict[str, Any]:
    """Return the mapping that a YAML file contains.

    Args:
        file: the file.
        purpose: hint for the error if the file is missing.

    Raises:
        FileError: the file is missing, can't be read, or is not a mapping.
    """
    document = _Document(file, purpose)
    document.refuse_ambiguous()
    return document.mapping()


def problems(folder: Path, stack: str) -> str:
    """Return the problems of Pulumi.yaml and of a stack file, one on each line; an empty text if the files are valid.

    The check ensures that Pulumi and the commands of `make` read the same values from the files. A missing file is no problem,
    because Pulumi may use another file (`--config-file`).
    """
    try:
        if (folder / "Pulumi.yaml").exists():
            project = read_project(folder)
            if (folder / f"Pulumi.{stack}.yaml").exists():
                read_stack(folder, stack, project.name)
    except FileError as error:
        return str(error)
    return ""


# ---------------------------------------------------------------------- one document


class _Document:
    """A parsed file: its value, the line of each path, and the values that Pulumi would read differently."""

    def __init__(self, file: Path, purpose: str) -> None:
        self.name = file.name
        text = _text(file, purpose)
        builder = _Builder(self.name)
        try:
            self.value: object = builder.document(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f":{mark.line + 1}" if mark else ""
            wrong = " ".join(str(error.problem or error.context).split())
            raise FileError(f"{self.name}{line}: it is not YAML ({wrong}); correct that line") from None
        except yaml.YAMLError as error:
            wrong = str(error).splitlines()[0]
            raise FileError(
                f"{self.name}: the file has characters that YAML does not allow ({wrong}); save it as UTF-8 text"
            ) from None
        self.lines, self.ambiguous = builder.lines, builder.ambiguous

    def mapping(self) -> dict[str, Any]:
        """Return the value of the whole file, which must be a mapping."""
        value = self.value
        if value is None:
            raise FileError(f"{self.name}: the file is empty; write the keys that docs/configuration.md describes")
        if not isinstance(value, dict):
            raise FileError(f"{self.name}: the file is not a mapping of keys to values; begin the file with `config:`")
        return cast(dict[str, Any], value)

    def mapping_at(self, key: str) -> dict[str, Any]:
        """Return the mapping of a top-level key, or an empty mapping if the key is missing."""
        value = self.mapping().get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.error((key,), "it is not a mapping of keys to values; indent the keys below it")
        return cast(dict[str, Any], value)

    def refuse_ambiguous(self, project: str | None = None) -> None:
        """Raise an error for values that Pulumi would read differently.

        Args:
            project: name of the project, to skip keys of other projects and of providers; None to check all values.
        """
        errors = [
            self.error(path, wrong)
            for path, wrong in self.ambiguous
            if not project or path[:1] != ("config",) or len(path) < 2 or _is_own(str(path[1]), project)
        ]
        if errors:
            raise FileError("\n".join(str(error) for error in errors[:SHOWN]))

    def refuse_encrypted(self, path: Keys) -> None:
        """Raise an error for an encrypted value below a path, because commands can't decrypt values."""
        for inner in _encrypted(_at(self.mapping(), path)):
            wrong = "it is an encrypted value (a mapping with the single key `secure`); write plain text here, or move the secret below the key `secrets`"
            raise self.error((*path, *inner), wrong)

    def error(self, path: Keys, wrong: str, *, named: bool = True) -> FileError:
        """Return an error with the file and the line of a value. With `named`, the error also contains the path of the value."""
        line = next((self.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.lines), 0)
        where = self.name + (f":{line}" if line else "")
        return FileError(f"{where}: {_shown(path)}: {wrong}" if named else f"{where}: {wrong}")


def _text(file: Path, purpose: str) -> str:
    name = file.name
    try:
        if not file.exists():
            raise FileError(f"there is no {name}" + (f"; {purpose}" if purpose else ""))
        if not file.is_file():
            raise FileError(f"{name}: it is not a file; replace it with a text file")
        with file.open("rb") as opened:
            content = opened.read(LIMIT + 1)
    except OSError as error:
        raise FileError(f"{name}: the file can't be read ({error.strerror or error}); make the file readable") from None
    if len(content) > LIMIT:
        raise FileError(f"{name}: the file has more than {LIMIT // 2**20} MiB; move large values into other files")
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise FileError(
            f"{name}:1: the file begins with a byte order mark; save the file as UTF-8 without this mark (BOM)"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"{name}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None


def _is_own(key: str, project: str) -> bool:
    return ":" not in key or key.partition(":")[0] == project


def _shown(path: Keys) -> str:
    """Return the config path of a value as text: `app.web.port` for the key `config.app.value.web.port`."""
    parts = [*map(legible, path)]
    if parts[:3] == ["config", "app", "value"]:
        parts = ["app", *parts[3:]]
    elif parts[:1] == ["config"] and len(parts) > 1:
        parts = [parts[1].rpartition(":")[2], *parts[2:]]
    return ".".join(parts)


def _at(value: Any, path: Keys) -> Any:
    return _at(value[path[0]], path[1:]) if path else value


def _encrypted(value: object) -> Iterator[Keys]:
    if isinstance(value, dict):
        mapping = cast(dict[str, object], value)
        if [*mapping] == ["secure"] and isinstance(mapping["secure"], str):
            yield ()
            return
        items: Sequence[tuple[str | int, object]] = [*mapping.items()]
    else:
        items = [*enumerate(cast(list[object], value))] if isinstance(value, list) else []
    for key, inner in items:
        for path in _encrypted(inner):
            yield (key, *path)


# ---------------------------------------------------------------------- values


class _Builder:
    """Builder of values from PyYAML's events. Each event is checked against the limits of nesting (`DEPTH`) and size (`VALUES`)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Keys, int] = {}
        self.ambiguous: list[tuple[Keys, str]] = []
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._count = 0

    def document(self, text: str) -> Any:
        # PyYAML has no type hints for its events.
        self._events = cast(Iterator[Any], cast(Any, yaml).parse(text, Loader=yaml.SafeLoader))
        value: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise FileError(
                        f"{self.name}:{event.start_mark.line + 1}: a second YAML document begins here; remove it"
                    )
                value = self._value(next(self._events), (), 0)
        return value

    def _value(self, event: Any, path: Keys, depth: int) -> Any:
        line = event.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._grow(1, line)
        if isinstance(event, yaml.ScalarEvent) and _SURROGATE.search(str(event.value)):
            raise FileError(
                f"{self.name}:{line}: {_shown(path)}: the escape \\ud… is only half of a character; write the character itself"
            )
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, line)
        if depth > DEPTH:
            raise FileError(
                f"{self.name}:{line}: this value is nested more than {DEPTH} levels deep; reduce the nesting"
            )
        if event.tag is not None:
            raise FileError(f"{self.name}:{line}: YAML readers treat the tag {event.tag} differently; remove the tag")
        if event.anchor:
            self._anchors[event.anchor] = None
        before = self._count
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path, depth)
        else:
            value = self._mapping(path, depth)
        if event.anchor:
            self._anchors[event.anchor] = value, self._count - before + 1
        return value

    def _alias(self, anchor: str, line: int) -> Any:
        if anchor not in self._anchors:
            raise FileError(
                f"{self.name}:{line}: *{anchor} refers to a missing anchor; write &{anchor} before the value to reuse"
            )
        anchored = self._anchors[anchor]
        if anchored is None:
            raise FileError(
                f"{self.name}:{line}: the alias *{anchor} is inside its own anchor &{anchor}, so the value would contain itself; replace the alias"
            )
        self._grow(anchored[1], line)
        return anchored[0]

    def _grow(self, count: int, line: int) -> None:
        self._count += count
        if self._count > VALUES:
            raise FileError(
                f"{self.name}:{line}: the file has more than {VALUES} values after its aliases are expanded; remove some values"
            )

    def _sequence(self, path: Keys, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items)), depth + 1))
        return items

    def _mapping(self, path: Keys, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            key = self._key(event, path, line)
            if _SURROGATE.search(key):
                raise FileError(
                    f"{self.name}:{line}: a key contains \\ud…, which is only half of a character; write the character itself"
                )
            if key in values:
                where = _shown((*path, key))
                raise FileError(
                    f"{self.name}:{line}: {where}: line {first[key]} already has this key; remove one of the two"
                )
            first[key] = self.lines[(*path, key)] = line
            values[key] = self._value(next(self._events), (*path, key), depth + 1)
        return values

    def _key(self, event: Any, path: Keys, line: int) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
            raise FileError(
                f"{self.name}:{line}: {_shown(path) or 'the file'}: a key is not a plain text; write the key as one word"
            )
        text = str(event.value)
        if _is_plain(event):
            kind, value = _read(text)
            if text == "<<":
                raise FileError(
                    f"{self.name}:{line}: {_shown(path)}: YAML readers treat the merge key << differently; replace << by the keys that it would copy"
                )
            if kind or not isinstance(value, str):
                kind = kind or f"{'no value' if value is None else 'a number or a boolean'} to YAML"
                wrong = f"the key {text or '~'} is {kind}; write it in quotes: {json.dumps(text, ensure_ascii=False)}"
                raise FileError(f"{self.name}:{line}: {_shown((*path, text))}: {wrong}")
        return text

    def _scalar(self, event: Any, path: Keys) -> Any:
        if not _is_plain(event):
            return str(event.value)
        kind, value = _read(str(event.value))
        if kind:
            self.ambiguous.append((path, f"{value:.60} is {kind}; {_fix(str(value), path)}"))
        return value


def _is_plain(event: Any) -> bool:
    return not event.style and bool(event.implicit[0])


def _fix(text: str, path: Keys) -> str:
    key = path[-1] if path else ""
    key = key if isinstance(key, int) or (key.isprintable() and len(key) < 80) else "KEY"
    quoted = json.dumps(text, ensure_ascii=False)
    line = f"- {quoted}" if isinstance(key, int) else f"{key}: {quoted}"
    if text.lower() in _FLAGS:
        return f"write {_FLAGS[text.lower()]}, or in quotes: {line}"
    return f"write it in quotes: {line}"


_FLAGS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_SAME = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_DECIMAL = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)", re.ASCII)
_KINDS = (
    ("a date to YAML", re.compile(r"\d{4}-\d{1,2}-\d{1,2}([Tt\s]+\d.*)?", re.ASCII)),
    ("a number in base 60 to some readers of YAML", re.compile(r"[-+]?[\d_]+(:\d{1,2})+(\.[\d_]*)?", re.ASCII)),
    ("a number in octal to some readers of YAML", re.compile(r"[-+]?0o?[\d_]+", re.ASCII)),
    ("a number in hexadecimal or binary to YAML", re.compile(r"[-+]?0([xX][0-9a-fA-F_]+|[bB][01_]+|[oO][0-7_]+)", re.ASCII)),
    ("a number with underscores to YAML", re.compile(r"[-+]?[\d.][\d_.]*_[\d_.]*([eE][-+]?\d+)?", re.ASCII)),
    ("a number with an exponent to some readers of YAML", re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+", re.ASCII)),
    ("an infinite or undefined number to YAML", re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")),
)  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Halves of characters (surrogates), which UTF-8 can't encode. PyYAML reads escapes of surrogates, but Pulumi refuses them."""
_RESOLVER = Resolver()
_STRING = "tag:yaml.org,2002:str"


def _read(text: str) -> tuple[str, Any]:
    """Read a scalar without quotes.

    Returns:
        `("", value)` if both YAML libraries read the same value. Otherwise `(reason, text)` with the unchanged scalar as `text`.
        The reason is for messages, such as `a date to YAML`.
    """
    if text in _SAME:
        return "", _SAME[text]
    if _INTEGER.fullmatch(text):
        # Pulumi stores values as JSON, and rounds numbers from 2**53 (tested with 3.256).
        return ("", int(text)) if len(text) < 20 and abs(int(text)) < 2**53 else ("too large a number", text)
    if _DECIMAL.fullmatch(text) and not (text.lstrip("-+").startswith("0") and text.lstrip("-+")[1:2].isdecimal()):
        number = float(text)
        # Pulumi passes the configuration as JSON, in which 1.0 becomes 1.
        return (
            ("", int(number) if number.is_integer() else number) if abs(number) < 1e15 else ("too large a number", text)
        )
    for kind, pattern in _KINDS:
        if pattern.fullmatch(text):
            return kind, text
    tag = _tag(text)
    if tag != _STRING:
        return f"{'true or false' if tag.endswith('bool') else 'a special value'} to some readers of YAML", text
    return "", text


def _tag(text: str) -> str:
    """Return the tag that PyYAML gives a scalar without quotes."""
    # PyYAML has no type hints for this method.
    return cast(str, cast(Any, _RESOLVER).resolve(yaml.ScalarNode, text, (True, False)))


# ---------------------------------------------------------------------- writing


class Dumper(yaml.SafeDumper):
    """Writer of YAML that PyYAML and Pulumi read alike: `yaml.dump(value, Dumper=Dumper)`."""


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    # Write these texts in quotes. Otherwise Pulumi would read 1e3, 08 and -.5 as numbers, and PyYAML would fold Unicode line breaks.
    odd = re.search("[\x85\u2028\u2029\ufeff]", text) or (_tag(text) == _STRING and _read(text) != ("", text))
    return cast(Any, dumper).represent_scalar(_STRING, text, style='"' if odd else None)


def _represent_number(dumper: Dumper, number: float) -> yaml.ScalarNode:
    return cast(Any, dumper).represent_scalar("tag:yaml.org,2002:float", _digits(repr(number)))


Dumper.add_representer(str, _represent_text)
Dumper.add_representer(float, _represent_number)


def _digits(number: str) -> str:
    """Return a number as text without an exponent."""
    text = f"{Decimal(number):f}" if "e" in number else number
    return text if "." in text else f"{text}.0"


def as_json(value: object) -> str:
    """Return JSON that is also valid YAML.

    JSON escapes a character above U+FFFF as two surrogates, but YAML needs one code point. Numbers are
    written without exponent, because YAML libraries read exponents differently.
    """

    def token(match: re.Match[str]) -> str:
        return _digits(match[0]) if match[1] else _ESCAPE.sub(_join_surrogates, match[0]).replace("\x7f", "\\u007f")

    return _TOKEN.sub(token, json.dumps(value, indent=1))


def _join_surrogates(match: re.Match[str]) -> str:
    """Return one YAML escape (`\\U…`) for the JSON escapes of two surrogates. Return any other escape unchanged."""
    if not match[1]:
        return match[0]
    high, low = int(match[1], 16), int(match[2], 16)
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|(-?\d[\d.]*e[-+]?\d+)')
# The pattern matches every escape. Otherwise the second backslash of an escaped backslash could begin a match.
_ESCAPE = re.compile(r"\\u(d[89ab]..)\\u(d[c-f]..)|\\.")
