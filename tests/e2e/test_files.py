"""Two readers of one file: ours refuses a text, or reads the same value as the real Pulumi."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from components import files

SCALARS = [
    "2024-01-01", "2024-1-1", "2024-01-01T10:00:00Z", "on", "off", "yes", "no", "On", "y", "n", "true", "True", "FALSE", "null", "~", "",
    "22:30", "1:2", "190:20:30.15", "017", "0o17", "08", "00", "0x1F", "0b11", "1_000", "1_0.5", "1e3", "1.5e3", "1.5e+3", ".5", "5.", "+5", "-0",
    "0", "-5", "1.0", "0.1", "1.50", "123456789012345", "9007199254740993", "9223372036854775807", "9223372036854775808", "99999999999999999999",
    ".inf", "-.inf", ".NaN", "=", "<<", "1.2.3", "v1", "30s", "512Mi", "127.0.0.1:5005/board", "a:b", "a b", "'on'", '"2024-01-01"', '"1e3"',
    "'~'", '""', '"a\\tb"', '"\\u00e9"', "é", "x#y", "|\n        a\n        b\n", ">-\n        a\n        b\n", "[on, 1]", "[1, a, 'b']", "{a: 1}",
    "{a: on}", "!!str 5", "!x y", "&a 1", "2024-01-01-a", "nanny", "0.0", "-1.0", "100000000000000000000.0", "1e400", "0.1e-7", "0.0000001",
]  # fmt: skip
"""Values in a file, below a key in column six."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.yaml").write_text("name: x\nruntime: python\nconfig: {app: {value: {name: x}}}\n")
    return tmp_path


def by_pulumi(folder: Path, variables: dict[str, str]) -> object:
    """Return the environment that Pulumi's own reader finds, or None if it refuses the file."""
    words = ["pulumi", "config", "--json", "--stack", "t", "--non-interactive"]
    done = subprocess.run(words, cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)["x:environment"]["objectValue"] if not done.returncode else None


def ours(folder: Path) -> object:
    """Return the environment that our reader finds, or None if it refuses the file."""
    try:
        return files.read_stack(folder, "t", "x").environment
    except files.FileError:
        return None


def test_value_is_refused_or_read_as_pulumi_reads_it(folder: Path) -> None:
    """Pulumi reads all texts that we accept in one run; each value that differs is listed."""
    (folder / "state").mkdir()
    variables = {"PULUMI_BACKEND_URL": (folder / "state").as_uri(), "PULUMI_CONFIG_PASSPHRASE": "x"}
    init = ["pulumi", "stack", "init", "t", "--non-interactive"]
    subprocess.run(init, cwd=folder, env=os.environ | variables, check=True, capture_output=True, timeout=120)
    file = folder / "Pulumi.t.yaml"
    salt = file.read_text()
    accepted = {}
    for number, text in enumerate(SCALARS):
        file.write_text(f"{salt}config:\n  x:environment:\n    list:\n      key: {text}\n")
        if ours(folder) is not None:
            accepted[f"key{number}"] = text
    assert len(accepted) > 40
    lines = "".join(f"      {key}: {text}\n" for key, text in accepted.items())
    file.write_text(f"{salt}config:\n  x:environment:\n    list:\n{lines}")
    read, expected = by_pulumi(folder, variables), ours(folder)
    assert isinstance(read, dict)
    assert isinstance(expected, dict)
    differing = {accepted[key]: (read["list"].get(key), value) for key, value in expected["list"].items() if read["list"].get(key) != value or type(read["list"].get(key)) is not type(value)}  # fmt: skip
    assert not differing, differing
