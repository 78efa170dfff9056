"""Tests of the layers of the program.

- `__main__.py` is short.
- A layer imports lower layers only. Imports have no cycle.
- Commands import no package of a platform.
- Some practices are allowed only in listed places, each with a reason: imports in functions, imports by name, imports
  of a platform's SDK in a command, and reads of global state.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY, COMMANDS = ROOT / "components", ROOT / "ci"

IN_FUNCTIONS = {
    (
        "components.build_context",
        "docker.utils.build",
    ): "only a built tier needs the engine's SDK, whose import takes 0.1 s",
    ("components.config.app", "components.config.promql"): "only an application with business metrics needs the parser",
}
"""Allowed imports in functions: (module, imported module) → reason why the import is not at the top of the module."""
IN_FUNCTIONS_OF_COMMANDS = {
    "ci.commands": (
        23,
        "the table of all targets: a target imports only its own module, because importing all modules takes 0.7 s",
    ),
    "ci.pulumi_environment": (1, "targets such as `make lab` read no configuration, whose import takes 0.3 s"),
}
"""Module of `ci` → number of imports in its functions, and reason why these imports are not at the top of the module."""
SDKS_IN_COMMANDS = {
    ("ci.heal", "docker"): "an engine that does not answer raises an error of its SDK, from any operation",
    ("ci.heal", "kubernetes"): "a cluster that does not answer raises an error of its SDK, from any operation",
    ("ci.images", "docker"): "an engine builds and pushes images, also for Kubernetes",
}
"""Allowed imports of a platform's SDK in `ci`: (module, SDK) → reason. No module of `ci` imports a platform's package."""
PLATFORMS = ("docker", "kubernetes")
IMPORTS_BY_NAME = {
    "components.platforms": "the registry: the package of a platform imports the SDK of its provider",
    "ci.site.conf": "the package `tiers` exists only in the folder from which Sphinx builds the site",
    "components.platforms.docker.client": "the import of the engine's SDK takes 0.1 s",
    "components.platforms.kubernetes.client": "the import of the Kubernetes client takes 0.5 s",
}
"""Module that may import other modules by name (with `import_module`) → reason."""
GLOBAL_STATE = frozenset({"environ", "get_project", "get_root_directory", "get_stack", "getenv"})
"""Functions and attributes that read the current stack or the environment variables of the process."""
READERS_OF_GLOBAL_STATE = {
    "components.context": "it creates the `Context`, which carries these values to all components",
    "components.config.loading": "it reads the configuration of the current stack, for the `Context`",
    "components.platforms.docker.keys": "DOCKER_HOST: the provider and the engine's client read it from the process too",
    "components.platforms.kubernetes.kubeconfig": "KUBECONFIG: the provider and kubectl read it from the process too",
}
"""Module that may read global state → reason."""

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
def files(package: Path = LIBRARY) -> dict[str, Path]:
    return {module_of(file): file for file in sorted(package.rglob("*.py"))}


@cache
def all_files() -> dict[str, Path]:
    return files(LIBRARY) | files(COMMANDS)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(all_files()[module].read_text())


def modules_of_import(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the modules that an import statement loads.

    `from a import b` loads `a.b` if `a.b` is a module of this repository, and otherwise `a`.
    """
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    name = node.module or ""
    if node.level:
        parts = module.split(".")
        package = parts if all_files()[module].name == "__init__.py" else parts[:-1]
        name = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    for alias in node.names:
        yield f"{name}.{alias.name}" if f"{name}.{alias.name}" in all_files() else name


def imports(module: str) -> Iterator[str]:
    """Yield the modules of `components` and `ci` that a module imports, including imports in functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name in modules_of_import(module, node) if name in all_files())


def imports_in_functions(module: str) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the import statements in the functions of a module."""
    functions = (node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    statements = (node for function in functions for node in ast.walk(function))
    yield from {node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)}


def layer(module: str) -> str:
    """Return the layer of a module: a key of `ALLOWED_IMPORTS`, or `services` for a module of the top layer."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED_IMPORTS else "services"


def test_imports_have_no_cycle() -> None:
    graph = {module: set(imports(module)) - {module} for module in all_files()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' → '.join(error.args[1])}")


def test_every_import_in_a_function_is_listed_with_a_reason() -> None:
    exceptions = {
        (module, name)
        for module in files()
        for node in imports_in_functions(module)
        for name in modules_of_import(module, node)
    }
    assert exceptions == IN_FUNCTIONS.keys()


def test_commands_have_the_listed_number_of_imports_in_functions() -> None:
    counts = {module: len([*imports_in_functions(module)]) for module in files(COMMANDS)}
    listed = {module: count for module, (count, _) in IN_FUNCTIONS_OF_COMMANDS.items()}
    assert {module: count for module, count in counts.items() if count} == listed


def test_command_imports_no_platform_package_and_imports_an_sdk_only_with_a_listed_reason() -> None:
    imported = {
        (module, name)
        for module in files(COMMANDS)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in modules_of_import(module, node)
    }
    packages = [f"components.platforms.{platform}." for platform in PLATFORMS]
    assert not {(module, name) for module, name in imported if any(f"{name}.".startswith(part) for part in packages)}
    sdks = {(module, name.partition(".")[0]) for module, name in imported} & {
        (module, platform) for module in files(COMMANDS) for platform in PLATFORMS
    }
    assert sdks == SDKS_IN_COMMANDS.keys()


def test_library_imports_no_command() -> None:
    assert not {(module, name) for module in files() for name in imports(module) if name in files(COMMANDS)}


@pytest.mark.parametrize("attribute", ["kubernetes", "docker", "platform"])
def test_command_does_not_branch_on_the_platform_of_an_environment(attribute: str) -> None:
    """Check that no condition reads `environment.kubernetes`, `.docker` or `.platform`; commands ask the inspector instead."""
    branches = {
        f"{module}: {ast.unparse(node.test)}"
        for module in files(COMMANDS)
        for node in ast.walk(tree(module))
        if isinstance(node, ast.If | ast.IfExp)
        for part in ast.walk(node.test)
        if isinstance(part, ast.Attribute) and part.attr == attribute
    }
    assert not branches


def test_every_module_that_imports_modules_by_name_is_listed_with_a_reason() -> None:
    exceptions = {
        module
        for module in all_files()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in ("import_module", "__import__")
    }
    assert exceptions == IMPORTS_BY_NAME.keys()


def test_only_listed_modules_read_the_current_stack_or_the_environment_of_the_process() -> None:
    readers = {
        module
        for module in files()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in GLOBAL_STATE
    }
    assert readers == READERS_OF_GLOBAL_STATE.keys()


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
    """Check that a layer contains no type tokens, input names or output names of a platform.

    The layer uses the package `state` to read resources.
    """

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


@pytest.mark.parametrize("platform", PLATFORMS)
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


def test_program_has_fewer_than_60_lines() -> None:
    assert len((ROOT / "__main__.py").read_text().splitlines()) < 60


def test_every_listed_import_exception_names_an_existing_module() -> None:
    exceptions = {module for module, _ in IN_FUNCTIONS} | IMPORTS_BY_NAME.keys() | READERS_OF_GLOBAL_STATE.keys()
    assert exceptions <= all_files().keys()
    assert IN_FUNCTIONS_OF_COMMANDS.keys() <= files(COMMANDS).keys()
