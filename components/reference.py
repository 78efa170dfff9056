"""Generator of the configuration reference, the JSON Schemas and the Role for a cluster.

Run `python -m components.reference [--check]`.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel

from .config import App, Environment
from .explain import schema_of
from .platforms.access import role

_ROLE = """\
# The permissions that a deployment into an existing namespace needs (environment.kubernetes.namespace.create: false).
# Generated from the program by `make docs`; don't edit it here. Apply it as the namespace's administrator:
#   kubectl apply --namespace NAMESPACE -f docs/kubernetes-role.yaml
"""
DOCS = Path(__file__).parents[1] / "docs"
Schema = dict[str, Any]

_INTRO = """\
# Configuration

Generated from the models in `components/config.py` by `make docs`; don't edit it here.

`app`, in `Pulumi.yaml`, says what the application is, the same in every environment. `environment`, in
`Pulumi.<stack>.yaml`, says where it runs and how big. `secrets`, in the stack file too, are encrypted and set by
`pulumi config set --secret --path secrets.NAME`; each is used by name and delivered as a file.

Times are written with a unit (`500ms`, `30s`, `5m`, `1h`), sizes too (`512Mi`, `1Gi`), processors are numbers (`0.5`).
Write a text in quotes if readers of YAML may take it for another type: dates, `on`, `22:30`, `017`, `1_000`, `1e3`, `"true"`, `"8000"`.
Such a text without quotes, a repeated key, a tag or a merge key is an error with its line. An unknown key is an error, and so is a key
without a value: remove it or fill it in. Every error begins with the path of the value and ends with the text to write.
For completion in an editor the stack files name the schemas beside this page.

A tier that needs the database gets the environment variables `DATABASE_HOST`, `DATABASE_PORT`, `DATABASE_NAME`, `DATABASE_USER` and
`DATABASE_PASSWORD_FILE`; one that needs the cache `CACHE_HOST`, `CACHE_PORT` and `CACHE_PASSWORD_FILE`; one that needs
the api `API_URL`. Every tier of a slot has `RELEASE`, `SLOT`, and `PUBLIC_URL`: what users open.
"""


def page() -> str:
    """Return the configuration reference as Markdown: one section for each model, one row for each key."""
    sections = [_INTRO]
    for name, model, where in (("app", App, "Pulumi.yaml"), ("environment", Environment, "Pulumi.<stack>.yaml")):
        schema = schema_of(model)
        sections.append(f"## `{name}` ({where})\n\n{_table(schema)}")
        sections += [
            f"### {title}\n\n{part['description']}\n\n{_table(part)}"
            for title, part in sorted(schema.get("$defs", {}).items())
            if "properties" in part
        ]
    return "\n".join(sections)


def _table(schema: Schema) -> str:
    required = set(cast(list[str], schema.get("required", [])))
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for key, field in cast(dict[str, Schema], schema["properties"]).items():
        default = "**required**" if key in required else _default(field)
        kind = _kind(field) + ("" if default.startswith("`") and default != "`[]`" else _as_in(field))
        rows.append(f"| `{key}` | {kind} | {default} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _as_in(field: Schema) -> str:
    """Return the example of a field without a default to show."""
    for option in [field, *cast(list[Schema], field.get("anyOf", []))]:
        for part in (option, cast(Schema, option.get("items", {}))):
            if examples := cast(list[object], part.get("examples", [])):
                return (
                    f", as in `{examples[0]}`"
                    if not isinstance(examples[0], list)
                    else f", as in `{_flow(cast(list[object], examples[0]))}`"
                )
    return ""


def _default(field: Schema) -> str:
    value = _written(field)
    if value is None or isinstance(value, dict):
        return ""
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _written(field: Schema) -> object:
    """Return the default of a field in the notation of configuration files: with its unit."""
    value = field.get("default")
    if isinstance(value, int | float) and not isinstance(value, bool):
        pattern = field.get("pattern", "")
        if "Mi" in pattern:
            return f"{value // 2**20}Mi"
        if "ms" in pattern:
            return f"{value:.12g}s"
        if "[dw]" in pattern:
            return f"{value}d"
    return value


def _kind(field: Schema) -> str:
    return " or ".join(dict.fromkeys(_kinds(field)))


_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false"}


def _kinds(field: Schema) -> Iterator[str]:
    for option in cast(list[Schema], field.get("anyOf", [])):
        yield from _kinds(option)
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[1]
        yield "tier" if name == "TierName" else f"[{name}](#{name.lower()})"
    elif "enum" in field or "const" in field:
        yield " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    elif field.get("type") == "array":
        yield f"list of {_kind(field.get('items', {})) or 'text'}"
    elif "additionalProperties" in field:
        yield f"mapping to {_kind(cast(Schema, field['additionalProperties']))}"
    elif "Mi" in field.get("pattern", ""):
        yield "size"
    elif "ms" in field.get("pattern", ""):
        yield "time"
    elif field.get("type") not in (None, "null"):
        yield _TYPES.get(field["type"], str(field["type"]))


COLUMN = 48
"""Column at which comments begin, if the line before them is not longer."""


def commented(model: type[BaseModel], given: Mapping[str, Any], depth: int = 0) -> str:
    """Return a model as YAML with every option: those in `given` as they are, the others commented out with their defaults.

    Removing the `#` from an option and from the options above it gives valid YAML that changes nothing. An option without a
    default needs a value first. The indent of a commented line follows its `#`: when Pulumi rewrites a stack file to set a
    value, it moves the `#` and keeps the text behind it.

    Args:
        model: the model to write.
        given: the values of the options that are set.
        depth: the level of indentation.
    """
    schema = schema_of(model)
    return "".join(f"{line}\n" for line in _options(schema, schema.get("$defs", {}), given, depth, None))


def _options(
    part: Schema, parts: Schema, values: Mapping[str, Any] | None, depth: int, out: int | None
) -> Iterator[str]:
    """Yield the lines of one model. From the depth `out` on, lines are commented out."""
    required = set(cast(list[str], part.get("required", [])))
    fields = cast(dict[str, Schema], part["properties"])
    if values == {}:  # YAML reads a block that has only comments as null, not as a mapping.
        values = {key: _written(field) for key, field in list(fields.items())[:1]}
    for key, field in fields.items():
        value = (values or {}).get(key)
        inner, several = _inner(field, parts)
        is_set = value is not None if several is None else bool(value)
        here = out if out is not None or is_set else depth
        if inner is None:
            text = _flow(_written(field) if value is None else value)
            yield _line(depth, here, f"{key}: {text}".rstrip(), _about(field, key in required))
        else:
            about = field.get("description") or inner.get("description", "")
            yield _line(depth, here, f"{key}:", f"required: {about}" if key in required else about)
            yield from (several or _options)(inner, parts, value, depth + 1, here)


def _entries(
    inner: Schema, parts: Schema, values: Mapping[str, Any] | None, depth: int, out: int | None, *, name: str
) -> Iterator[str]:
    """Yield the lines of a mapping to models: all options of the first entry, the other entries as they are; an example if it is empty."""
    (first, value), *others = values.items() if values else ((name, None),)
    yield _line(depth, out, f"{first}:", "" if values else "An example.")
    yield from _options(inner, parts, value, depth + 1, out)
    for key, entry in others:
        yield _line(depth, out, f"{key}: {_flow(entry)}", "")


def _items(
    inner: Schema, parts: Schema, values: Sequence[Mapping[str, Any]] | None, depth: int, out: int | None
) -> Iterator[str]:
    """Yield the lines of a list of models: the given items, and below them an example with all options."""
    for item in values or ():
        yield _line(depth, out, f"- {_flow(item)}", "")
    out = depth if out is None else out
    first, *others = _options(inner, parts, None, depth + 1, out)
    dash = len(_line(depth, out, "", ""))
    yield f"{first[:dash]}- {first[dash + 2 :]}"
    yield from others


def _inner(field: Schema, parts: Schema) -> tuple[Schema | None, Callable[..., Iterator[str]] | None]:
    """Return the model of a field, if it has one, and the function that writes it if the field is a list or a mapping."""
    for option in [field, *cast(list[Schema], field.get("anyOf", []))]:
        if model := _model(option, parts):
            return model, None
        if model := _model(option.get("items", {}), parts):
            return model, _items
        if model := _model(option.get("additionalProperties", {}), parts):
            keys = cast(Schema, option.get("propertyNames", {}))
            names = parts.get(str(keys.get("$ref", "")).rpartition("/")[2], {}).get("enum", ["name"])
            return model, partial(_entries, name=names[0])
    return None, None


def _model(field: object, parts: Schema) -> Schema | None:
    model = parts.get(str(cast(Schema, field).get("$ref", "")).rpartition("/")[2]) if isinstance(field, dict) else None
    return model if model and "properties" in model else None


def _about(field: Schema, required: bool) -> str:
    kind = _kind(field).replace("`", "")
    type_name = kind if required or _written(field) is None or "enum" in field else ""
    facts = ", ".join(word for word in ("required" if required else "", type_name) if word)
    return ": ".join(part for part in (facts, field.get("description", "")) if part)


def _line(depth: int, out: int | None, text: str, about: str) -> str:
    line = f"{'  ' * depth}{text}" if out is None else f"{'  ' * out}# {'  ' * (depth - out)}{text}"
    return f"{line:<{COLUMN}}  # {about}" if about else line


def _flow(value: object) -> str:
    """Return a value as YAML on one line. None, the default of a field without one, is empty text."""
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def schemas() -> dict[str, str]:
    """Return the JSON Schemas of Pulumi.yaml and of a stack file. They describe only the keys of this program."""
    app, environment = _for_editors(schema_of(App)), _for_editors(schema_of(Environment))
    definitions = {"app": app.pop("$defs"), "environment": environment.pop("$defs")}
    project = {"config": {"properties": {"app": {"properties": {"value": app}}}}}
    stack = {"config": {"patternProperties": {":environment$": environment}}}
    return {
        name: json.dumps(
            {"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": body, "$defs": definitions[key]},
            indent=1,
        )
        + "\n"
        for name, body, key in (
            ("project.schema.json", project, "app"),
            ("stack.schema.json", stack, "environment"),
        )
    }


def _for_editors(schema: Schema) -> Schema:
    """Return a schema without `null`, which is refused everywhere, and with defaults in the notation of configuration files."""
    plain: Schema = {}
    for key, value in schema.items():
        if isinstance(value, dict):
            plain[key] = _for_editors(cast(Schema, value))
        elif key == "anyOf":
            plain[key] = [_for_editors(option) for option in cast(list[Schema], value) if option.get("type") != "null"]
        else:
            plain[key] = value
    if "default" in plain:
        default = plain.pop("default")
        if default is not None and not isinstance(default, dict) and "$ref" not in plain:
            plain["default"] = _written(schema)
    [*options] = plain.get("anyOf", [])
    return (
        {**{key: value for key, value in plain.items() if key != "anyOf"}, **options[0]} if len(options) == 1 else plain
    )


def _role() -> str:
    return f"{_ROLE}{yaml.safe_dump(role(), sort_keys=False)}"


def main(arguments: list[str]) -> int:
    """Write the documents. With --check, report those that differ from the models."""
    stale = 0
    for name, text in {"configuration.md": page(), "kubernetes-role.yaml": _role(), **schemas()}.items():
        file = DOCS / name
        if arguments == ["--check"]:
            if not file.exists() or file.read_text() != text:
                print(f"docs/{name}: it differs from the models; run `make docs`", file=sys.stderr)
                stale = 1
        else:
            file.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
