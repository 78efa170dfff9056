"""Tests of imports in `components`: a layer imports lower layers only, and modules don't import each other.

Each import inside a function and each import by name needs a reason.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "components"

IN_FUNCTIONS = {
    (
        "components.build_context",
        "docker.utils.build",
    ): "only a built tier needs the engine's SDK, whose import takes 0.1 s",
    ("components.config.app", "components.config.promql"): "only an application with business metrics needs the parser",
}
"""Allowed imports in functions: (module, imported module) → reason why the import is not at the top of the module."""
IMPORTS_BY_NAME = {
    "components.platforms": "the registry: the package of a platform imports the SDK of its provider",
    "components.platforms.docker.client": "the import of the engine's SDK takes 0.1 s",
    "components.platforms.kubernetes.client": "the import of the Kubernetes client takes 0.5 s",
}
"""Module that may import other modules by name (with `import_module`) → reason."""

ALLOWED_IMPORTS: dict[str, frozenset[str]] = {
    "model": frozenset(),
    "options": frozenset(),
    "config": frozenset({"model"}),
    "state": frozenset({"model"}),
    "release": frozenset({"config", "model", "state"}),
    "safety": frozenset({"config", "model", "release", "state"}),
    "observability": frozenset({"config", "model"}),
    "context": frozenset({"config", "model", "options", "release"}),
    "platforms": frozenset({"config", "context", "model", "observability", "options", "release", "safety", "state"}),
}
"""Layer → other layers that the layer may import. Modules outside of these layers form the top layer, `services`."""


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files() -> dict[str, Path]:
    return {module_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(files()[module].read_text())


def modules_of_import(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the modules that an import statement loads: for `from a import b`, the module `a.b`, or `a` if `a.b` is no module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    name = node.module or ""
    if node.level:
        parts = module.split(".")
        package = parts if files()[module].name == "__init__.py" else parts[:-1]
        name = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    for alias in node.names:
        yield f"{name}.{alias.name}" if f"{name}.{alias.name}" in files() else name


def imports(module: str) -> Iterator[str]:
    """Yield the modules of `components` that a module imports, including imports in functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name in modules_of_import(module, node) if name in files())


def layer(module: str) -> str:
    """Return the layer of a module: a key of `ALLOWED_IMPORTS`, or `services` for a module of the top layer."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED_IMPORTS else "services"


def test_imports_have_no_cycle() -> None:
    graph = {module: set(imports(module)) - {module} for module in files()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' → '.join(error.args[1])}")


def test_every_import_in_a_function_is_listed_with_a_reason() -> None:
    exceptions = {
        (module, name)
        for module in files()
        for function in ast.walk(tree(module))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in modules_of_import(module, node)
    }
    assert exceptions == IN_FUNCTIONS.keys()


def test_every_module_that_imports_modules_by_name_is_listed_with_a_reason() -> None:
    exceptions = {
        module
        for module in files()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in ("import_module", "__import__")
    }
    assert exceptions == IMPORTS_BY_NAME.keys()


@pytest.mark.parametrize("name", ALLOWED_IMPORTS)
def test_layer_imports_lower_layers_only(name: str) -> None:
    upward = {
        f"{module} imports {other}"
        for module in files()
        if layer(module) == name
        for other in imports(module)
        if layer(other) not in ALLOWED_IMPORTS[name] | {name}
    }
    assert not upward


@pytest.mark.parametrize("name", ["release", "safety"])
class TestLayersWithoutPlatform:
    """Check that a layer uses neither type tokens nor names of inputs and outputs of a platform. The package `state` reads them."""

    def test_layer_imports_no_module_of_a_platform(self, name: str) -> None:
        platforms = {"components.state.docker", "components.state.kubernetes"}
        assert not [
            f"{module} imports {other}"
            for module in files()
            if layer(module) == name
            for other in platforms.intersection(imports(module))
        ]

    def test_layer_contains_no_type_token_and_no_input_name_of_a_platform(self, name: str) -> None:
        names = re.compile(r"((tiers|pulumi:providers):)?(docker|kubernetes)(:.+)?|imageId|exitCode|metadata|spec")
        assert not [
            f"{module}:{node.lineno} contains {node.value}"
            for module in files()
            if layer(module) == name
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and names.fullmatch(node.value)
        ]


@pytest.mark.parametrize("platform", ["docker", "kubernetes"])
def test_platform_package_imports_neither_the_other_platform_nor_the_list_of_platforms(platform: str) -> None:
    package = f"components.platforms.{platform}"
    shared = {f"components.platforms.{name}" for name in ("base", "gateway", "impact", "process")}
    foreign = {
        f"{module} imports {other}"
        for module in files()
        if module.startswith(package)
        for other in imports(module)
        if other.startswith("components.platforms") and not other.startswith(package) and other not in shared
    }
    assert not foreign


def test_every_listed_import_exception_names_an_existing_module() -> None:
    assert {module for module, _ in IN_FUNCTIONS} | IMPORTS_BY_NAME.keys() <= files().keys()
