"""Texts of configuration errors. Each error is one line, `path: what is wrong; what to do`.

This module replaces pydantic's texts, because they use terms of Python. It takes type, limits and example from the JSON Schema of
the invalid field. No text contains the value of a secret, because the models contain no secrets.
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

from ..model import services
from .grammar import describe, kind

Schema = dict[str, Any]
Path = tuple[str | int, ...]

DEPTH, LINES = 30, 40
"""Maximum nesting of values in the configuration, and maximum number of lines in an error."""
LONGEST = 128 * 1024 - 256
"""Maximum size of a text in bytes. Linux limits each argument of a command, and each variable (name and value), to 128 KiB
(MAX_ARG_STRLEN)."""
_DATE = re.compile(r"(\d{4}-\d\d-\d\d)( \d\d:\d\d:\d\d(?:\.\d+)?) [+-]\d{4} \S+")
"""Pattern of a YAML date in the format in which Pulumi passes dates to the program (Go, time.Time.String)."""


def path_text(root: str, path: Iterable[str | int]) -> str:
    """Return a config path as text for messages."""
    return ".".join([root, *map(legible, path)])


def legible(part: str | int) -> str:
    """Return a part of a path as text for messages: printable, at most 80 characters."""
    text = str(part)
    return (text if text.isprintable() else ascii(text))[:80]


# ---------------------------------------------------------------------- values that no field accepts


@dataclass
class ValueFilter:
    """Filter that removes values that are invalid in every field, such as null, dates, and texts with invalid characters."""

    root: str
    """First part of the config path in errors, `app` or `environment`."""
    problems: list[str] = field(default_factory=list[str])
    """Errors of the removed values."""
    dropped: list[Path] = field(default_factory=list[Path])
    """Paths of the removed values."""

    def remove_invalid(self, value: object, path: Path = ()) -> object:
        """Return a value without its invalid parts. Add an error to `problems` for each removed part."""
        if len(path) > DEPTH:
            return self._drop(path, "it is nested too deeply", "remove the values below it")
        if isinstance(value, Mapping):
            return self._mapping(cast(Mapping[object, object], value), path)
        if isinstance(value, list | tuple):
            return self._list(cast(Sequence[object], value), path)
        fault = _fault(value, path)
        return self._drop(path, *fault) if fault else value

    def covers(self, path: Path) -> bool:
        """Return whether the value at `path`, or a value that contains it, was removed."""
        return any(path[: len(start)] == start for start in self.dropped)

    def _mapping(self, value: Mapping[object, object], path: Path) -> object:
        result: dict[str, object] = {}
        for key, inner in value.items():
            if isinstance(key, str):
                if (sifted := self.remove_invalid(inner, (*path, key))) is not None:
                    result[key] = sifted
            else:
                fix = (
                    f'write it in quotes: "{describe(key)}"' if isinstance(key, bool | int | float) else "write a text"
                )
                self._drop((*path, describe(key)), f"the key is {kind(key)}", fix)
        return result

    def _list(self, value: Sequence[object], path: Path) -> object:
        before = len(self.problems)
        result = [self.remove_invalid(inner, (*path, number)) for number, inner in enumerate(value)]
        if len(self.problems) == before:
            return result
        self.dropped.append(path)
        return None

    def _drop(self, path: Path, wrong: str, fix: str) -> None:
        self.problems.append(f"{path_text(self.root, path)}: {wrong}; {fix}")
        self.dropped.append(path)


def _fault(value: object, path: Path) -> tuple[str, str] | None:
    match value:
        case None:
            return "it has no value", "remove this key, or set a value"
        case str():
            return _fault_of_text(value, path)
        case float() if not math.isfinite(value):
            return f"{value} is not a finite number", "write a number in digits"
        case int() if abs(value) >= 2**63:
            return f"{describe(value)} is too large", "use a smaller number"
        case bool() | int() | float():
            return None
        case datetime.date():
            return "it is a date", f"write it in quotes: {_quoted(path, value.isoformat())}"
        case _:
            return "it is not a YAML value", "write a text, a number, a list or a mapping"


def _fault_of_text(value: str, path: Path) -> tuple[str, str] | None:
    if date := _DATE.fullmatch(value):
        text = date[1] if date[2] == " 00:00:00" else date[1] + date[2]
        return "it is a date", f"write it in quotes: {_quoted(path, text)}"
    if "\0" in value:
        return "it contains the character U+0000, and a process would cut off the text there", "remove the character"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return (
            "it contains a single surrogate (half of a character), which is not valid UTF-8",
            "write the whole character",
        )
    if size > LONGEST:
        return f"it has {size} bytes, but a process accepts {LONGEST} in one text", "move it into a file of the image"
    return None


def _quoted(path: Path, text: str) -> str:
    """Return a line of YAML with the text in quotes, such as `version: "1.0"` or `- "1.0"`."""
    last = path[-1] if path else ""
    return f"{last}: {json.dumps(text)}" if isinstance(last, str) else f"- {json.dumps(text)}"


# ---------------------------------------------------------------------- values that a field accepts


def schema_of(model: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a model. For a mapping, move the pattern of the keys from `patternProperties` to
    `propertyNames`."""
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


def is_service_name(node: Schema) -> bool:
    """Return whether a schema describes the name of a service."""
    # Compare the examples, because pydantic drops the title of a mapping's keys.
    return node.get("examples") == list(services.common_catalogue().names)


def tag_of(node: Schema) -> str:
    """Return the tag of a union of models: the key that selects the model by its value, such as `tier`."""
    return str(cast(Schema, node["discriminator"])["propertyName"])


def tags_of(node: Schema) -> Mapping[str, str]:
    """Return the values of a union's tag: value → reference to the JSON Schema of its model."""
    return cast(Mapping[str, str], cast(Schema, node["discriminator"])["mapping"])


@dataclass(frozen=True)
class Explainer:
    """Converter of pydantic's errors to texts, with facts from the JSON Schemas of the models."""

    schemas: Mapping[str, Schema]
    """JSON Schema of each model, by the first part of its config paths (`app` or `environment`)."""

    def line(self, root: str, detail: ErrorDetails) -> str:
        """Return the text of one error of pydantic."""
        path = self.path(root, detail["loc"])
        if "oneOf" in self.node(root, detail["loc"]):
            return self._tag_error(root, path, detail)
        about = f"{path_text(root, path)}: "
        if detail["type"] == "tiers":
            return about + detail["msg"]
        if detail["type"] == "extra_forbidden":
            return about + self._unknown(root, path, detail)
        node = self.node(root, detail["loc"])
        if detail["type"] == "missing":
            return f"{about}it is not set; add it, as in {path[-1]}: {self.example(root, node)}"
        wrong, fix = self._wrong(node, detail), self.instruction(root, node, path, detail["input"])
        return f"{about}{wrong}; {fix}"

    # -- nodes of the schema

    def resolve(self, root: str, node: Schema) -> Schema:
        """Return the schema that a node refers to (`$ref`). For alternatives (`anyOf`) return the last one that is not null."""
        while "$ref" in node:
            node = cast(Schema, self.schemas[root]["$defs"][str(node["$ref"]).rpartition("/")[2]])
        if "anyOf" in node:
            options = [option for option in cast(list[Schema], node["anyOf"]) if option.get("type") != "null"]
            about = {key: value for key, value in node.items() if key == "examples"}
            return {
                **self.resolve(root, options[-1]),
                **about,
                **({"other": options[0].get("type")} if len(options) > 1 else {}),
            }
        return node

    def path(self, root: str, location: Sequence[str | int]) -> Path:
        """Return the config path of an error: the location from pydantic, without `[key]` and values of tags."""
        return tuple(
            part
            for number, part in enumerate(location)
            if part != "[key]" and not (number and "oneOf" in self.node(root, location[:number]))
        )

    def node(self, root: str, path: Sequence[str | int]) -> Schema:
        """Return the schema of the field at a path, or an empty schema for an unknown field.

        Args:
            root: first part of the config path, `app` or `environment`.
            path: location from an error of pydantic. After a union its next part is the value of the tag, such as `worker`.
        """
        node = parent = self.resolve(root, self.schemas[root])
        for part in path:
            if part == "[key]":
                return self.resolve(root, cast(Schema, parent.get("propertyNames", {"type": "string"})))
            if "oneOf" in node:
                reference = tags_of(node).get(str(part))
                node = self.resolve(root, {"$ref": reference}) if reference else {}
                continue
            parent, inner = node, cast(Schema, node.get("items", {}))
            if isinstance(part, str):
                fields = cast(dict[str, Schema], node.get("properties", {}))
                inner = fields.get(part) or cast(Schema, node.get("additionalProperties") or {})
            node = self.resolve(root, inner)
        return node

    # -- parts of messages

    def _tag_error(self, root: str, path: Path, detail: ErrorDetails) -> str:
        """Return the text of an error for a union: no mapping, or a mapping with a missing or invalid tag, such as `tier`."""
        node = self.node(root, detail["loc"])
        tag, tags = tag_of(node), list(tags_of(node))
        value: object = detail["input"]
        if not isinstance(value, Mapping):
            return f"{path_text(root, path)}: it is {kind(value)}; write a mapping, as in {self.example(root, node)}"
        about = f"{path_text(root, (*path, tag))}: "
        if tag not in value:
            return f"{about}it is not set; add it, as in {tag}: {tags[-1]}"
        tag_value = cast(Mapping[str, object], value)[tag]
        return f"{about}{describe(tag_value)} is not an allowed value; {write_one_of(tags, tag_value)}"

    def example(self, root: str, node: Schema, depth: int = 0) -> str:
        """Return an example of a field's value as YAML on one line."""
        node = self.resolve(root, node)
        if examples := cast(list[object], node.get("examples", [])):
            return _flow(examples[0])
        if values := cast(list[object], node.get("enum", [node["const"]] if "const" in node else [])):
            return _flow(values[0])
        if "oneOf" in node:
            return self.example(root, cast(list[Schema], node["oneOf"])[-1], depth)
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

    def instruction(self, root: str, node: Schema, path: Sequence[str | int], value: object) -> str:
        """Return the second half of an error: what to write instead of `value`."""
        other = {"boolean": "write true or false, or ", "string": "write a text, or "}.get(
            str(node.get("other")), "write "
        )
        names = (
            node["examples"] if is_service_name(node) else node.get("enum", [node["const"]] if "const" in node else [])
        )
        if values := [str(item) for item in names]:
            return write_one_of(values, value)
        match node.get("type"):
            case "array":
                least = "at least one" if value in ([], ()) else "a list"
                return f"write {least}, as in {self.example(root, node)}"
            case "object":
                return f"{other}a mapping, as in {self.example(root, node)}"
            case "boolean":
                return "write true or false, without quotes"
            case "integer" | "number":
                return f"use {_range(node)}, without quotes" if isinstance(value, str) else f"use {_range(node)}"
            case _ if isinstance(value, bool | int | float):
                return f"write it in quotes: {_quoted(tuple(path), describe(value))}"
            case _:
                return f"write one text, as in {self.example(root, node)}"

    @staticmethod
    def _wrong(node: Schema, detail: ErrorDetails) -> str:
        value: object = detail["input"]
        if value == "" or (value in ([], ()) and node.get("type") == "array"):
            return "it is empty"
        if isinstance(value, str) and is_service_name(node):
            return f"{describe(value)} is not a tier"
        if isinstance(value, str | int | float) and ("enum" in node or "const" in node):
            return f"{describe(value)} is not an allowed value"
        if detail["type"] in ("greater_than_equal", "less_than_equal"):
            return f"{describe(value)} is out of range"
        if isinstance(value, float) and node.get("type") == "integer":
            return f"{describe(value)} is not a whole number"
        if isinstance(value, Mapping | list | tuple) or node.get("type") in ("array", "object"):
            return f"it is {kind(cast(object, value))}"
        return f"{describe(value)} is {kind(value)}"

    # -- unknown keys

    def _unknown(self, root: str, path: Path, detail: ErrorDetails) -> str:
        key, value = str(path[-1]), cast(object, detail["input"])
        keys = list(cast(dict[str, Schema], self.node(root, detail["loc"][:-1]).get("properties", {})))
        if root == "environment" and path == ("secrets",):
            fix = "set each secret with `pulumi config set --secret --path secrets.NAME`"
            return f"secrets are not part of `environment`; {fix}"
        other_words = [word for word in _OTHER_WORDS.get(key, ()) if word in keys]
        if not other_words and (tags := self._tags_with(root, detail["loc"])):
            return f"a {detail['loc'][-2]} has no {key}; remove {key}, or write {alternatives(tags)}"
        homes = self._valid_paths(root, path, value)
        close = get_close_matches(key, keys, n=1, cutoff=0.8 if homes else 0.7)
        close = other_words[:1] or close
        if close:
            return f"there is no such key; did you mean {close[0]}?"
        if homes:
            in_file = ", in the stack file" if root == "app" and homes[0].startswith("environment") else ""
            in_file = ", in Pulumi.yaml" if root != "app" and homes[0].startswith("app") else in_file
            return f"this key is in the wrong place; move it to {alternatives(homes[:4])}{in_file}"
        return f"there is no such key; use one of {', '.join(keys[:12])}{' …' if len(keys) > 12 else ''}"

    def _tags_with(self, root: str, location: Sequence[str | int]) -> list[str]:
        """Return the tags with which a union allows the key at `location`, such as `tier: api`."""
        union = self.node(root, location[:-2])
        if len(location) < 2 or "oneOf" not in union:
            return []
        models = {tag: self.resolve(root, {"$ref": reference}) for tag, reference in tags_of(union).items()}
        return [
            f"{tag_of(union)}: {tag}"
            for tag, model in models.items()
            if location[-1] in cast(Schema, model["properties"])
        ]

    def _valid_paths(self, root: str, path: Path, value: object) -> list[str]:
        """Return the config paths of models with the misplaced key, the last part of `path`.

        Prefer models below `root`. Among these, prefer models in which the key accepts a value of the same type as `value`.
        """
        key = str(path[-1])
        if key in ("cpu", "memory", "replicas"):
            return ["environment.tiers.<tier>"]
        if root == "environment" and (path[0] == "tiers" or len(path) == 1):
            # The settings of a tier are split between `app` and `environment`. A key that `environment` lacks may exist in `app`.
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
        """Yield the config path of each model below `root` with the key, and the JSON Schema type of the key."""
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
                        f"{path}.<{'tier' if is_service_name(node.get('propertyNames', {})) else 'name'}>",
                        cast(Schema, inner),
                    )
                )


_OTHER_WORDS = {
    "args": ("command",), "backend": ("api",), "cmd": ("command",), "context": ("build",), "cpus": ("cpu",), "db": ("database",),
    "depends_on": ("needs",), "dockerfile": ("build",), "entrypoint": ("command",), "environment": ("env",), "frontend": ("web",),
    "healthcheck": ("health", "alive"), "ingress": ("gateway",), "links": ("needs",), "mem": ("memory",), "mem_limit": ("memory",),
    "postgres": ("database",), "queue": ("worker",), "redis": ("cache",), "tmpfs": ("writable",), "user": ("uid",), "version": ("image",),
}  # fmt: skip
"""Keys of Compose and Kubernetes → keys with the same meaning in this configuration."""


def write_one_of(values: Sequence[str], value: object) -> str:
    """Return the second half of an error for an invalid value: the allowed `values`, and the most similar one."""
    near = get_close_matches(value, values, n=1) if isinstance(value, str) else []
    return f"write {alternatives(values)}" + (f" (did you mean {near[0]}?)" if near else "")


def alternatives(values: Sequence[str]) -> str:
    """Return words as a list of alternatives: `a, b or c`."""
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


def join_problems(root: str, problems: Iterable[str]) -> str:
    """Return an error with one line for each of the first `LINES` problems. If there are more, a last line counts the rest."""
    lines = list(dict.fromkeys(problems))
    more = len(lines) - LINES
    return "\n".join(
        lines[:LINES] + ([f"{root}: {more} more problems are not shown; first correct those above"] if more > 0 else [])
    )
