"""Writes the configuration reference, the JSON Schemas and the Role for a cluster from the program: `python -m components.reference [--check]`."""

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
# What it takes to deploy into a namespace that is there (environment.kubernetes.namespace.create: false), and no more.
# Made from what the program makes by `make docs`; don't edit it here. Apply it as the namespace's administrator:
#   kubectl apply --namespace NAMESPACE -f docs/kubernetes-role.yaml
"""
DOCS = Path(__file__).parents[1] / "docs"
Schema = dict[str, Any]

_INTRO = """\
# Configuration

Made from the models in `components/config.py` by `make docs`; don't edit it here.

`app`, in `Pulumi.yaml`, says what the application is, the same in every environment. `environment`, in
`Pulumi.<stack>.yaml`, says where it runs and how big. `secrets`, in the stack file too, are encrypted and set by
`pulumi config set --secret --path secrets.NAME`; each is used by name and delivered as a file.

Times are written with a unit (`500ms`, `30s`, `5m`, `1h`), sizes too (`512Mi`, `1Gi`), processors are numbers (`0.5`).
Write in quotes what readers of YAML take for something else: dates, `on`, `22:30`, `017`, `1_000`, `1e3`. Such text, a key that is there
twice, a tag or a merge key is an error with its line. So is a text without quotes that is `true` or a number (`"true"`, `"8000"`). An unknown key is
an error, and so is one with nothing under it: take it out or fill it in. Every error begins with the path of the value and ends with what to write.
For completion in an editor the stack files name the schemas beside this page.

A tier that needs the database is given `DATABASE_HOST`, `DATABASE_PORT`, `DATABASE_NAME`, `DATABASE_USER` and
`DATABASE_PASSWORD_FILE`; one that needs the cache `CACHE_HOST`, `CACHE_PORT` and `CACHE_PASSWORD_FILE`; one that needs
the api `API_URL`. Every tier of a slot has `RELEASE`, `SLOT`, and `PUBLIC_URL`: what users open.
"""


def page() -> str:
    """The reference as Markdown: one section a model, one row a key."""
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
    """Return the example of a field that has no default to show."""
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
    """The default of a field as one writes it: with its unit."""
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
"""Where explanations begin, if the line before them is not longer."""


def commented(model: type[BaseModel], given: Mapping[str, Any], depth: int = 0) -> str:
    """A model as YAML in which every option stands: what is `given` as it is, the rest commented out with its default.

    Taking the `#` away from an option, and from those it belongs to, gives what is valid and changes nothing; one without a
    default has to be given a value first. What is out has its indent behind the `#`: Pulumi, which writes a stack file anew when
    something is set in it, moves the `#` and leaves what follows alone.
    """
    schema = schema_of(model)
    return "".join(f"{line}\n" for line in _options(schema, schema.get("$defs", {}), given, depth, None))


def _options(
    part: Schema, parts: Schema, given: Mapping[str, Any] | None, depth: int, out: int | None
) -> Iterator[str]:
    """The lines of one model; `out` is the depth from which all is commented out."""
    required = set(cast(list[str], part.get("required", [])))
    fields = cast(dict[str, Schema], part["properties"])
    if given == {}:  # To YAML, a block with nothing but comments in it is no mapping.
        given = {key: _written(field) for key, field in list(fields.items())[:1]}
    for key, field in fields.items():
        value = (given or {}).get(key)
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
    inner: Schema, parts: Schema, given: Mapping[str, Any] | None, depth: int, out: int | None, *, name: str
) -> Iterator[str]:
    """A mapping to models: the options of the first entry, the others as they are; an example where there is none."""
    (first, value), *others = given.items() if given else ((name, None),)
    yield _line(depth, out, f"{first}:", "" if given else "An example.")
    yield from _options(inner, parts, value, depth + 1, out)
    for key, each in others:
        yield _line(depth, out, f"{key}: {_flow(each)}", "")


def _items(
    inner: Schema, parts: Schema, given: Sequence[Mapping[str, Any]] | None, depth: int, out: int | None
) -> Iterator[str]:
    """A list of models: as it is, and below it an example with all that one may say."""
    for each in given or ():
        yield _line(depth, out, f"- {_flow(each)}", "")
    out = depth if out is None else out
    first, *others = _options(inner, parts, None, depth + 1, out)
    dash = len(_line(depth, out, "", ""))
    yield f"{first[:dash]}- {first[dash + 2 :]}"
    yield from others


def _inner(field: Schema, parts: Schema) -> tuple[Schema | None, Callable[..., Iterator[str]] | None]:
    """The model a field is of, if it is of one, and how to write it where the field holds several."""
    for option in [field, *cast(list[Schema], field.get("anyOf", []))]:
        if found := _model(option, parts):
            return found, None
        if found := _model(option.get("items", {}), parts):
            return found, _items
        if found := _model(option.get("additionalProperties", {}), parts):
            keys = cast(Schema, option.get("propertyNames", {}))
            names = parts.get(str(keys.get("$ref", "")).rpartition("/")[2], {}).get("enum", ["name"])
            return found, partial(_entries, name=names[0])
    return None, None


def _model(field: object, parts: Schema) -> Schema | None:
    found = parts.get(str(cast(Schema, field).get("$ref", "")).rpartition("/")[2]) if isinstance(field, dict) else None
    return found if found and "properties" in found else None


def _about(field: Schema, required: bool) -> str:
    kind = _kind(field).replace("`", "")
    shown = kind if required or _written(field) is None or "enum" in field else ""
    said = ", ".join(word for word in ("required" if required else "", shown) if word)
    return ": ".join(part for part in (said, field.get("description", "")) if part)


def _line(depth: int, out: int | None, text: str, about: str) -> str:
    line = f"{'  ' * depth}{text}" if out is None else f"{'  ' * out}# {'  ' * (depth - out)}{text}"
    return f"{line:<{COLUMN}}  # {about}" if about else line


def _flow(value: object) -> str:
    """A value on one line; to YAML nothing is null, the default of what has no other."""
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def schemas() -> dict[str, str]:
    """The JSON Schemas of Pulumi.yaml and of a stack file: only our own part of them is described."""
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
    """Return a schema without `null`, which is refused everywhere, and with defaults as one writes them."""
    found: Schema = {}
    for key, value in schema.items():
        if isinstance(value, dict):
            found[key] = _for_editors(cast(Schema, value))
        elif key == "anyOf":
            found[key] = [_for_editors(option) for option in cast(list[Schema], value) if option.get("type") != "null"]
        else:
            found[key] = value
    if "default" in found:
        default = found.pop("default")
        if default is not None and not isinstance(default, dict) and "$ref" not in found:
            found["default"] = _written(schema)
    [*options] = found.get("anyOf", [])
    return (
        {**{key: value for key, value in found.items() if key != "anyOf"}, **options[0]} if len(options) == 1 else found
    )


def _role() -> str:
    return f"{_ROLE}{yaml.safe_dump(role(), sort_keys=False)}"


def main(arguments: list[str]) -> int:
    """Write the documents, or with --check say which are not what the models say now."""
    stale = 0
    for name, text in {"configuration.md": page(), "kubernetes-role.yaml": _role(), **schemas()}.items():
        file = DOCS / name
        if arguments == ["--check"]:
            if not file.exists() or file.read_text() != text:
                print(f"docs/{name}: it is not what the program says; run `make docs`", file=sys.stderr)
                stale = 1
        else:
            file.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
