"""Generator of the configuration reference, the JSON Schemas, and the Role for a namespace.

`python -m components.reference` writes the files in `docs/`. `python -m components.reference --check` reports outdated files.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel

from .config import Environment
from .config.app import app_model
from .config.explain import is_service_name, schema_of, tag_of, tags_of
from .platforms.kubernetes.access import role

_ROLE = """\
# The permissions that a deployment into an existing namespace needs (environment.kubernetes.namespace.create: false).
# Generated from the program by `make docs`; don't edit it here. Apply it as the namespace's administrator:
#   kubectl apply --namespace NAMESPACE -f docs/kubernetes-role.yaml
"""
DOCS = Path(__file__).parents[1] / "docs"
Schema = dict[str, Any]

_INTRO = """\
# Configuration

Generated from the models in `components/config/` by `make docs`; don't edit it here.

`app` in `Pulumi.yaml` describes the application, the same in every environment. `environment` in `Pulumi.<stack>.yaml` sets the
platform and the sizes. `secrets` in the stack file are encrypted: set each with `pulumi config set --secret --path secrets.NAME`.
A tier names the secrets that it reads, and gets each as a file.

Write times with a unit (`500ms`, `30s`, `5m`, `1h`), sizes with a unit (`512Mi`, `1Gi`), and processors as numbers (`0.5`).
Write a text in quotes if YAML readers may read it as another type: dates, `on`, `22:30`, `017`, `1_000`, `1e3`, `"true"`, `"8000"`.
Such a text without quotes is an error, and so is a repeated key, a tag or a merge key. An unknown key is an error, and so is a key
without a value. Every error begins with the path of the value, and ends with the text to write.
The stack files name the JSON Schemas next to this page, for completion in an editor.

A tier that needs the database gets the environment variables `DATABASE_HOST`, `DATABASE_PORT`, `DATABASE_NAME`, `DATABASE_USER` and
`DATABASE_PASSWORD_FILE`. A tier that needs the cache gets `CACHE_HOST`, `CACHE_PORT` and `CACHE_PASSWORD_FILE`. A tier that needs the
api gets `API_URL`. A service of `app.services` has the address `NAME_URL`, and a store `NAME_HOST` and `NAME_PORT`. Every tier in a slot gets `RELEASE`, `SLOT` and `PUBLIC_URL` (the address that users open),
and `NAME_PUBLIC_URL` for each service NAME with a `host`.
"""


def page() -> str:
    """Return the configuration reference as Markdown: a section for each model, and a row for each key."""
    sections = [_INTRO]
    for name, model, where in (
        ("app", app_model(), "Pulumi.yaml"),
        ("environment", Environment, "Pulumi.<stack>.yaml"),
    ):
        schema = schema_of(model)
        sections.append(f"## `{name}` (`{where}`)\n\n{_table(schema)}")
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
        kind = _kind(field) + ("" if default.startswith("`") and default != "`[]`" else _example_note(field))
        rows.append(f"| `{key}` | {kind} | {default} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _example_note(field: Schema) -> str:
    """Return the text `, as in EXAMPLE`, or an empty text for a field without an example."""
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
    value = _readable_default(field)
    if value is None or isinstance(value, dict):
        return ""
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _readable_default(field: Schema) -> object:
    """Return the default of a field as users write it: sizes and times have a unit."""
    value = field.get("default", field.get("const"))
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
    for option in cast(list[Schema], [*field.get("anyOf", []), *field.get("oneOf", [])]):
        yield from _kinds(option)
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[1]
        yield f"[{name}](#{name.lower()})"
    elif is_service_name(field):
        yield "tier"
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
"""Column at which comments begin. After a longer line, the comment begins further to the right."""


def commented_yaml(model: type[BaseModel], values: Mapping[str, Any], depth: int = 0) -> str:
    """Return a model as YAML with all keys: keys in `values` are set, all others are comments with their defaults.

    To set a commented key, a user removes the `#` of this key and of its parent keys. A key without a default also needs a value.
    The indentation of a commented key comes after the `#`: when Pulumi rewrites a stack file, it moves each `#` but keeps the
    text behind it.

    Args:
        model: the model to write.
        values: values of the keys to set.
        depth: level of indentation.
    """
    schema = schema_of(model)
    return "".join(f"{line}\n" for line in _options(schema, schema.get("$defs", {}), values, depth, None))


def _options(
    part: Schema, parts: Schema, values: Mapping[str, Any] | None, depth: int, out: int | None
) -> Iterator[str]:
    """Yield the YAML lines of a model. `out` is the indentation level of the `#`, or None if the model is not commented out."""
    required = set(cast(list[str], part.get("required", [])))
    fields = cast(dict[str, Schema], part["properties"])
    if values == {}:  # Write the first key, because a mapping with only comments is null in YAML.
        values = {key: _readable_default(field) for key, field in list(fields.items())[:1]}
    for key, field in fields.items():
        value = (values or {}).get(key)
        inner, several = _inner(field, parts)
        is_set = value is not None if several is None else bool(value)
        here = out if out is not None or is_set else depth
        if inner is None or isinstance(value, str):
            text = _flow(_readable_default(field) if value is None else value)
            yield _line(depth, here, f"{key}: {text}".rstrip(), _about(field, key in required))
        else:
            about = field.get("description") or inner.get("description", "")
            yield _line(depth, here, f"{key}:", f"required: {about}" if key in required else about)
            yield from (several or _options)(inner, parts, value, depth + 1, here)


def _entries(
    inner: Schema, parts: Schema, values: Mapping[str, Any] | None, depth: int, out: int | None, *, name: str
) -> Iterator[str]:
    """Yield the YAML lines of a mapping whose values are models.

    The first entry shows all keys of its model. Every other entry takes one line. For an empty mapping, yield an example entry.
    """
    (first, value), *others = values.items() if values else ((name, None),)
    yield _line(depth, out, f"{first}:", "" if values else "An example.")
    yield from _options(inner, parts, value, depth + 1, out)
    for key, entry in others:
        yield _line(depth, out, f"{key}: {_flow(entry)}", "")


def _tagged_entries(
    inner: Schema, parts: Schema, values: Mapping[str, Any] | None, depth: int, out: int | None
) -> Iterator[str]:
    """Yield the YAML lines of a mapping in which a tag, such as `tier: api`, selects the model of each entry.

    Group the entries by model. For a model without entries, yield an example entry.
    """
    for value, reference in tags_of(inner).items():
        entries = {name: entry for name, entry in (values or {}).items() if entry.get(tag_of(inner)) == value}
        model = cast(Schema, parts[reference.rpartition("/")[2]])
        here = depth if out is None and not entries else out
        yield from _entries(model, parts, entries, depth, here, name=f"{value}2")


def _items(
    inner: Schema, parts: Schema, values: Sequence[Mapping[str, Any]] | None, depth: int, out: int | None
) -> Iterator[str]:
    """Yield the YAML lines of a list of models: one line for each item, then a commented example with all keys."""
    for item in values or ():
        yield _line(depth, out, f"- {_flow(item)}", "")
    out = depth if out is None else out
    first, *others = _options(inner, parts, None, depth + 1, out)
    dash = len(_line(depth, out, "", ""))
    yield f"{first[:dash]}- {first[dash + 2 :]}"
    yield from others


def _inner(field: Schema, parts: Schema) -> tuple[Schema | None, Callable[..., Iterator[str]] | None]:
    """Return the model of a field, and the function that yields the YAML lines of a list or mapping of this model.

    The function is None for a single model. Both results are None for a field without a model.
    """
    for option in [field, *cast(list[Schema], field.get("anyOf", []))]:
        if model := _model(option, parts):
            return model, None
        if model := _model(option.get("items", {}), parts):
            return model, _items
        if model := _model(values := option.get("additionalProperties", {}), parts):
            keys = cast(Schema, option.get("propertyNames", {}))
            names = cast(list[str], keys["examples"]) if is_service_name(keys) else ["name"]
            return model, partial(_entries, name=names[0])
        if isinstance(values, dict) and "discriminator" in values:
            return cast(Schema, values), _tagged_entries
    return None, None


def _model(field: object, parts: Schema) -> Schema | None:
    model = parts.get(str(cast(Schema, field).get("$ref", "")).rpartition("/")[2]) if isinstance(field, dict) else None
    return model if model and "properties" in model else None


def _about(field: Schema, required: bool) -> str:
    kind = re.sub(r"\[\w+\]\(#\w+\)", "mapping", _kind(field)).replace("`", "")
    type_name = kind if required or _readable_default(field) is None or "enum" in field else ""
    facts = ", ".join(word for word in ("required" if required else "", type_name) if word)
    return ": ".join(part for part in (facts, field.get("description", "")) if part)


def _line(depth: int, out: int | None, text: str, about: str) -> str:
    line = f"{'  ' * depth}{text}" if out is None else f"{'  ' * out}# {'  ' * (depth - out)}{text}"
    return f"{line:<{COLUMN}}  # {about}" if about else line


def _flow(value: object) -> str:
    """Return a value as YAML on one line, or an empty text for None."""
    if value is None:
        return ""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def schemas() -> dict[str, str]:
    """Return the JSON Schemas of Pulumi.yaml and of stack files, by file name. The schemas describe only `app` and
    `environment`."""
    app, environment = _for_editors(schema_of(app_model())), _for_editors(schema_of(Environment))
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
    """Return a schema for editors. Remove `null`, because no key accepts null. Add units to defaults of sizes and times."""
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
            plain["default"] = _readable_default(schema)
    [*options] = plain.get("anyOf", [])
    return (
        {**{key: value for key, value in plain.items() if key != "anyOf"}, **options[0]} if len(options) == 1 else plain
    )


def _role() -> str:
    return f"{_ROLE}{yaml.safe_dump(role(), sort_keys=False)}"


def main(arguments: list[str]) -> int:
    """Write the documents. With `--check`, report the outdated documents instead. Return the exit code."""
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
