"""Configuration errors in words: each becomes one line, `path: what is wrong; what to do`.

Pydantic reports problems in terms of Python. The lines here use the JSON Schema of the field instead, as the reference and
editors do: its type, limits and example. No line contains the value of a secret, because models hold no secrets.
"""

import datetime
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from .grammar import describe, kind

Schema = dict[str, Any]
Path = tuple[str | int, ...]

DEPTH, LINES = 30, 40
"""Limits of nesting levels in a configuration, and of lines in an error. No person writes, or reads, more."""
LONGEST = 128 * 1024 - 256
"""Limit of a text in bytes: Linux allows no longer argument or variable of a process (MAX_ARG_STRLEN), including its name."""
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)( \d\d:\d\d:\d\d(?:\.\d+)?) [+-]\d{4} \S+")
"""A YAML date in the form in which Pulumi passes it on (Go: time.Time.String)."""


def shown(root: str, path: Iterable[str | int]) -> str:
    """Return a path as messages show it, on one line."""
    return ".".join([root, *map(legible, path)])


def legible(part: str | int) -> str:
    """Return a part of a path as messages show it: printable, and of at most 80 characters."""
    text = str(part)
    return (text if text.isprintable() else ascii(text))[:80]


# ---------------------------------------------------------------------- values that no field accepts


@dataclass
class Sifted:
    """A filter for values that no field accepts.

    Such values are: nothing, dates, keys that are no text, and characters that no platform accepts.
    """

    root: str
    problems: list[str] = field(default_factory=list[str])
    dropped: list[Path] = field(default_factory=list[Path])

    def sift(self, value: object, path: Path = ()) -> object:
        """Return the value without its faults. Each fault adds a line to `problems`."""
        if len(path) > DEPTH:
            return self._drop(path, "it is nested too deeply", "take out what is below it")
        if isinstance(value, Mapping):
            return self._mapping(cast(Mapping[object, object], value), path)
        if isinstance(value, list | tuple):
            return self._list(cast(Sequence[object], value), path)
        fault = _fault(value, path)
        return self._drop(path, *fault) if fault else value

    def covers(self, path: Path) -> bool:
        """Tell whether a path is a dropped value or below one."""
        return any(path[: len(start)] == start for start in self.dropped)

    def _mapping(self, value: Mapping[object, object], path: Path) -> object:
        result: dict[str, object] = {}
        for key, inner in value.items():
            if isinstance(key, str):
                if (sifted := self.sift(inner, (*path, key))) is not None:
                    result[key] = sifted
            else:
                fix = (
                    f'write it in quotes: "{describe(key)}"' if isinstance(key, bool | int | float) else "write a text"
                )
                self._drop((*path, describe(key)), f"the key is {kind(key)}", fix)
        return result

    def _list(self, value: Sequence[object], path: Path) -> object:
        before = len(self.problems)
        result = [self.sift(inner, (*path, number)) for number, inner in enumerate(value)]
        if len(self.problems) == before:
            return result
        self.dropped.append(path)
        return None

    def _drop(self, path: Path, wrong: str, fix: str) -> None:
        self.problems.append(f"{shown(self.root, path)}: {wrong}; {fix}")
        self.dropped.append(path)


def _fault(value: object, path: Path) -> tuple[str, str] | None:
    match value:
        case None:
            return "nothing stands under it", "take it out or fill it in"
        case str():
            return _fault_of_text(value, path)
        case float() if not math.isfinite(value):
            return f"{value} is not a number", "give one in digits"
        case int() if abs(value) >= 2**63:
            return f"{describe(value)} is too large", "give a smaller number"
        case bool() | int() | float():
            return None
        case datetime.date():
            return "it is a date", f"write it in quotes: {_quoted(path, value.isoformat())}"
        case _:
            return "it is no value of YAML", "write a text, a number, a list or a mapping"


def _fault_of_text(value: str, path: Path) -> tuple[str, str] | None:
    if date := _DATE.fullmatch(value):
        text = date[1] if date[2] == " 00:00:00" else date[1] + date[2]
        return "it is a date", f"write it in quotes: {_quoted(path, text)}"
    if "\0" in value:
        return "it has the character U+0000, which ends a text for a process", "take it out"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return "it has half of a character (a surrogate), which is no UTF-8", "write the whole character"
    if size > LONGEST:
        return f"it has {size} bytes, and a process takes {LONGEST} in one text", "make it a file of the image"
    return None


def _quoted(path: Path, text: str) -> str:
    """Return the line to write for a text that YAML reads as another type."""
    last = path[-1] if path else ""
    return f"{last}: {json.dumps(text)}" if isinstance(last, str) else f"- {json.dumps(text)}"


# ---------------------------------------------------------------------- values that a field accepts


def schema_of(model: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a model. The pattern of a mapping's keys is always in `propertyNames`."""
    return _with_names(model.model_json_schema())


def _with_names(schema: Schema) -> Schema:
    result: Schema = {
        key: _with_names(cast(Schema, value)) if isinstance(value, dict) else value for key, value in schema.items()
    }
    if patterns := cast(dict[str, Schema], result.pop("patternProperties", {})):
        [(pattern, values)] = patterns.items()
        result |= {
            "additionalProperties": values,
            "propertyNames": {**result.get("propertyNames", {}), "pattern": pattern},
        }
    return result


@dataclass(frozen=True)
class Explainer:
    """Wording of errors from the schemas, by root."""

    schemas: Mapping[str, Schema]

    def line(self, root: str, detail: ErrorDetails) -> str:
        """Return the line for one error of pydantic."""
        path = tuple(part for part in detail["loc"] if part != "[key]")
        about = f"{shown(root, path)}: "
        if detail["type"] == "tiers":
            return about + detail["msg"]
        if detail["type"] == "extra_forbidden":
            return about + self._unknown(root, path, detail["input"])
        node = self.node(root, detail["loc"])
        if detail["type"] == "missing":
            return f"{about}it is not set; add it, as in {path[-1]}: {self.example(root, node)}"
        wrong, fix = self._wrong(node, detail), self.wanted(root, node, path, detail["input"])
        return f"{about}{wrong}; {fix}"

    # -- nodes of the schema

    def resolve(self, root: str, node: Schema) -> Schema:
        """Return the schema that a node refers to. Of alternatives, return the last one that is not null."""
        while "$ref" in node:
            node = cast(Schema, self.schemas[root]["$defs"][str(node["$ref"]).rpartition("/")[2]])
        if "anyOf" in node:
            options = [option for option in cast(list[Schema], node["anyOf"]) if option.get("type") != "null"]
            about = {key: value for key, value in node.items() if key == "examples"}
            return {**self.resolve(root, options[-1]), **about, **({"flag": True} if len(options) > 1 else {})}
        return node

    def node(self, root: str, path: Sequence[str | int]) -> Schema:
        """Return the schema of the field at a path, or an empty schema for an unknown field."""
        node = parent = self.resolve(root, self.schemas[root])
        for part in path:
            if part == "[key]":
                return self.resolve(root, cast(Schema, parent.get("propertyNames", {"type": "string"})))
            parent, inner = node, cast(Schema, node.get("items", {}))
            if isinstance(part, str):
                fields = cast(dict[str, Schema], node.get("properties", {}))
                inner = fields.get(part) or cast(Schema, node.get("additionalProperties") or {})
            node = self.resolve(root, inner)
        return node

    # -- words

    def example(self, root: str, node: Schema, depth: int = 0) -> str:
        """Return an example of a field's value as YAML on one line."""
        node = self.resolve(root, node)
        if examples := cast(list[object], node.get("examples", [])):
            return _flow(examples[0])
        if values := cast(list[object], node.get("enum", [node["const"]] if "const" in node else [])):
            return _flow(values[0])
        match node.get("type"):
            case "array":
                return f"[{self.example(root, cast(Schema, node.get('items', {})), depth + 1)}]"
            case "object" if "properties" in node:
                fields = cast(dict[str, Schema], node["properties"])
                names = cast(list[str], node.get("required", [])) or list(fields)[:1]
                return "{" + ", ".join(f"{name}: {self.example(root, fields[name], depth + 1)}" for name in names) + "}"
            case "object":
                name = self.example(root, cast(Schema, node.get("propertyNames", {"examples": ["name"]})), depth + 1)
                return (
                    f"{{{name}: {self.example(root, cast(Schema, node.get('additionalProperties', {})), depth + 1)}}}"
                )
            case "boolean":
                return "true"
            case "integer" | "number":
                return _flow(node.get("minimum", 1))
            case _:
                return "text"

    def wanted(self, root: str, node: Schema, path: Sequence[str | int], value: object) -> str:
        """Return the instruction for what to write instead of a value."""
        flag = "write true or false, or " if node.get("flag") else ""
        if values := [str(item) for item in node.get("enum", [node["const"]] if "const" in node else [])]:
            near = get_close_matches(str(value), values, n=1) if isinstance(value, str) else []
            return f"write {alternatives(values)}" + (f" (did you mean {near[0]}?)" if near else "")
        match node.get("type"):
            case "array":
                least = "at least one" if value in ([], ()) else "a list"
                return f"give {least}, as in {self.example(root, node)}"
            case "object":
                return f"{flag or 'give '}a mapping, as in {self.example(root, node)}"
            case "boolean":
                return "write true or false, without quotes"
            case "integer" | "number":
                return f"give {_range(node)}, without quotes" if isinstance(value, str) else f"give {_range(node)}"
            case _ if isinstance(value, bool | int | float):
                return f"write it in quotes: {_quoted(tuple(path), describe(value))}"
            case _:
                return f"give one text, as in {self.example(root, node)}"

    @staticmethod
    def _wrong(node: Schema, detail: ErrorDetails) -> str:
        value: object = detail["input"]
        if value == "" or (value in ([], ()) and node.get("type") == "array"):
            return "it is empty"
        if isinstance(value, str | int | float) and ("enum" in node or "const" in node):
            return f"{describe(value)} is not {'a tier' if node.get('title') == 'TierName' else 'one of its values'}"
        if detail["type"] in ("greater_than_equal", "less_than_equal"):
            return f"{describe(value)} is out of range"
        if isinstance(value, float) and node.get("type") == "integer":
            return f"{describe(value)} is not a whole number"
        if isinstance(value, Mapping | list | tuple) or node.get("type") in ("array", "object"):
            return f"it is {kind(cast(object, value))}"
        return f"{describe(value)} is {kind(value)}"

    # -- unknown keys

    def _unknown(self, root: str, path: Path, value: object) -> str:
        key = str(path[-1])
        keys = list(cast(dict[str, Schema], self.node(root, path[:-1]).get("properties", {})))
        if root == "environment" and path == ("secrets",):
            fix = "set each with `pulumi config set --secret --path secrets.NAME`"
            return f"there is no such key; secrets are beside it, under a key of their own: {fix}"
        homes = self._homes(root, path, value)
        close = get_close_matches(key, keys, n=1, cutoff=0.8 if homes else 0.7)
        close = [word for word in _OTHER_WORDS.get(key, ()) if word in keys][:1] or close
        if close:
            return f"there is no such key; did you mean {close[0]}?"
        if homes:
            in_file = ", in the stack file" if root == "app" and homes[0].startswith("environment") else ""
            in_file = ", in Pulumi.yaml" if root != "app" and homes[0].startswith("app") else in_file
            return f"there is no such key; it belongs to {alternatives(homes[:4])}{in_file}"
        return f"there is no such key; use one of {', '.join(keys[:12])}{' …' if len(keys) > 12 else ''}"

    def _homes(self, root: str, path: Path, value: object) -> list[str]:
        """Return the paths of models that have a key. Models of the same root, and those that accept the value's type, are preferred."""
        key = str(path[-1])
        if key in ("cpu", "memory", "replicas"):
            return ["environment.tiers.<tier>"]
        if root == "environment" and (path[0] == "tiers" or len(path) == 1):
            # A tier has keys in two places, and so has the application as a whole.
            tier = [str(part) for part in path[1:-1]]
            if key == "image" and tier:
                return [f"environment.images.{tier[0]}"]
            if len(tier) < 2 and key in self.node("app", tier).get("properties", {}):
                return [".".join(["app", *tier])]
        homes = [
            home for start in sorted(self.schemas, key=lambda name: name != root) for home in self._parents(start, key)
        ]
        same_root = [home for home in homes if home[0].partition(".")[0] == root] or (homes if len(path) < 3 else [])
        fitting = [home for home in same_root if (home[1] == "object") == isinstance(value, Mapping)]
        return [path for path, _ in fitting or same_root]

    def _parents(self, root: str, key: str) -> Iterator[tuple[str, str]]:
        """Yield the path of every model in a root that has a key, with the type of the key."""
        todo: list[tuple[str, Schema]] = [(root, self.schemas[root])]
        while todo:
            path, node = todo.pop(0)
            node = self.resolve(root, node)
            fields = cast(dict[str, Schema], node.get("properties", {}))
            if key in fields:
                yield path, str(self.resolve(root, fields[key]).get("type", ""))
            todo += [(f"{path}.{name}", inner) for name, inner in fields.items()]
            if inner := node.get("items"):
                todo.append((path, cast(Schema, inner)))
            if isinstance(inner := node.get("additionalProperties"), dict):
                todo.append(
                    (
                        f"{path}.<{'tier' if 'TierName' in str(node.get('propertyNames')) else 'name'}>",
                        cast(Schema, inner),
                    )
                )


_OTHER_WORDS = {
    "args": ("command",), "backend": ("api",), "cmd": ("command",), "context": ("build",), "cpus": ("cpu",), "db": ("database",),
    "depends_on": ("needs",), "dockerfile": ("build",), "entrypoint": ("command",), "environment": ("env",), "frontend": ("web",),
    "healthcheck": ("health", "alive"), "ingress": ("gateway",), "links": ("needs",), "mem": ("memory",), "mem_limit": ("memory",),
    "postgres": ("database",), "queue": ("worker",), "redis": ("cache",), "tmpfs": ("writable",), "version": ("image",),
}  # fmt: skip
"""Words of Compose and Kubernetes, with the keys that users mean by them."""


def alternatives(values: Sequence[str]) -> str:
    """Return words as a choice: `a, b or c`."""
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def _flow(value: object) -> str:
    """Return a value as YAML on one line, with quotes only where YAML needs them."""
    if isinstance(value, list):
        return f"[{', '.join(_flow(inner) for inner in cast(list[object], value))}]"
    if isinstance(value, str):
        words = ("true", "false", "yes", "no", "on", "off", "null")
        plain = (
            re.fullmatch(r"(-?[A-Za-z]|/)[\w./:@$=-]*|\d+(\.\d+)?(ms|[smhdw]|[KMG]i)", value)
            and not value.endswith(":")
            and value not in words
        )
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _range(node: Schema) -> str:
    noun = "a whole number" if node.get("type") == "integer" else "a number"
    least, most = node.get("minimum"), node.get("maximum")
    if least is None and most is None:
        return f"{noun}, as in 1"
    return f"{noun} of at least {least}" if most is None else f"{noun} from {0 if least is None else least} to {most}"


def bounded(root: str, problems: Iterable[str]) -> str:
    """Return the lines of an error. Beyond the limit only the number of further lines is reported."""
    lines = list(dict.fromkeys(problems))
    more = len(lines) - LINES
    return "\n".join(lines[:LINES] + ([f"{root}: it has {more} more problems; mend these first"] if more > 0 else []))
