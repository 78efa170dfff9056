"""Test that the program reads each value in a stack file as Pulumi does, or refuses the value."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from components.config import files

SCALARS = [
    "2024-01-01", "2024-1-1", "2024-01-01T10:00:00Z", "on", "off", "yes", "no", "On", "y", "n", "true", "True", "FALSE", "null", "~", "",
    "22:30", "1:2", "190:20:30.15", "017", "0o17", "08", "00", "0x1F", "0b11", "1_000", "1_0.5", "1e3", "1.5e3", "1.5e+3", ".5", "5.", "+5", "-0",
    "0", "-5", "1.0", "0.1", "1.50", "123456789012345", "9007199254740993", "9223372036854775807", "9223372036854775808", "99999999999999999999",
    ".inf", "-.inf", ".NaN", "=", "<<", "1.2.3", "v1", "30s", "512Mi", "127.0.0.1:5005/board", "a:b", "a b", "'on'", '"2024-01-01"', '"1e3"',
    "'~'", '""', '"a\\tb"', '"\\u00e9"', "é", "x#y", "|\n        a\n        b\n", ">-\n        a\n        b\n", "[on, 1]", "[1, a, 'b']", "{a: 1}",
    "{a: on}", "!!str 5", "!x y", "&a 1", "2024-01-01-a", "nanny", "0.0", "-1.0", "100000000000000000000.0", "1e400", "0.1e-7", "0.0000001",
]  # fmt: skip
"""Values in YAML syntax. The test writes each value after a key.

The key is indented by six spaces. Therefore the lines of a multi-line value are indented by eight spaces.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: x\nruntime: python\nconfig: {app: {value: {name: x}}}\n")
    return tmp_path


def read_by_pulumi(folder: Path, variables: dict[str, str]) -> object:
    """Return the environment in the stack file as Pulumi reads it, or None if Pulumi refuses the file."""
    words = ["pulumi", "config", "--json", "--stack", "t", "--non-interactive"]
    process = subprocess.run(words, cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=120)
    return json.loads(process.stdout)["x:environment"]["objectValue"] if not process.returncode else None


def read_by_program(folder: Path) -> object:
    """Return the environment in the stack file as the program reads it, or None if the program refuses the file."""
    try:
        return files.read_stack(folder, "t", "x").environment
    except files.FileError:
        return None


def test_stack_file_value_is_refused_or_equals_the_value_that_pulumi_reads(folder: Path) -> None:
    """Write all values that the program accepts to one file, read this file with Pulumi and with the program, and compare the results."""
    (folder / "state").mkdir()
    variables = {"PULUMI_BACKEND_URL": (folder / "state").as_uri(), "PULUMI_CONFIG_PASSPHRASE": "x"}
    init = ["pulumi", "stack", "init", "t", "--non-interactive"]
    subprocess.run(init, cwd=folder, env=os.environ | variables, check=True, capture_output=True, timeout=120)
    file = folder / "Pulumi.t.yaml"
    salt = file.read_text()
    accepted = {}
    for number, text in enumerate(SCALARS):
        file.write_text(f"{salt}config:\n  x:environment:\n    list:\n      key: {text}\n")
        if read_by_program(folder) is not None:
            accepted[f"key{number}"] = text
    assert len(accepted) > 40
    lines = "".join(f"      {key}: {text}\n" for key, text in accepted.items())
    file.write_text(f"{salt}config:\n  x:environment:\n    list:\n{lines}")
    values_of_pulumi, values_of_program = read_by_pulumi(folder, variables), read_by_program(folder)
    assert isinstance(values_of_pulumi, dict)
    assert isinstance(values_of_program, dict)
    pairs = {key: (values_of_pulumi["list"].get(key), value) for key, value in values_of_program["list"].items()}
    differing = {
        accepted[key]: pair for key, pair in pairs.items() if pair[0] != pair[1] or type(pair[0]) is not type(pair[1])
    }
    assert not differing, differing
