"""Writes the configuration reference, the JSON Schemas and the Role for a cluster from the program: `python -m components.reference [--check]`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from .config import App, Environment
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
An unknown key is an error. For completion in an editor the stack files name the schemas beside this page.

A tier that needs the database is given `DATABASE_HOST`, `DATABASE_PORT`, `DATABASE_NAME`, `DATABASE_USER` and
`DATABASE_PASSWORD_FILE`; one that needs the cache `CACHE_HOST`, `CACHE_PORT` and `CACHE_PASSWORD_FILE`; one that needs
the api `API_URL`. Every tier of a slot has `RELEASE` and `SLOT`.
"""


def page() -> str:
    """The reference as Markdown: one section a model, one row a key."""
    sections = [_INTRO]
    for name, model, where in (("app", App, "Pulumi.yaml"), ("environment", Environment, "Pulumi.<stack>.yaml")):
        schema = model.model_json_schema()
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
        rows.append(f"| `{key}` | {_kind(field)} | {default} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _default(field: Schema) -> str:
    value = field.get("default")
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        pattern = field.get("pattern", "")
        if "Mi" in pattern:
            return f"`{value // 2**20}Mi`"
        if "ms" in pattern:
            return f"`{value:g}s`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


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


def schemas() -> dict[str, str]:
    """The JSON Schemas of Pulumi.yaml and of a stack file: only our own part of them is described."""
    app, environment = App.model_json_schema(), Environment.model_json_schema()
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
