"""Test that no function has more than six parameters. A function that needs more values takes an object instead.

The limit applies to `__init__` too, but not to the fields of a dataclass, because a call names each field.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 6
"""Maximum number of parameters of a function. `self`, `cls`, `*args` and `**options` don't count."""


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def functions(folder: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield each function and method of the modules in a folder, with its file and line."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(ROOT)}:{node.lineno}: {node.name}", node


@pytest.mark.parametrize("folder", ["ci", "components"])
def test_no_function_takes_seven_or_more_parameters(folder: str) -> None:
    counts = {location: len(parameters(function)) for location, function in functions(folder)}
    assert counts
    assert not {location: count for location, count in counts.items() if count > MOST}
