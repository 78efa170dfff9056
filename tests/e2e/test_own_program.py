"""Tests of examples/own_program, a Pulumi program that uses only the wheel of the components from this repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from .stack import Result, eventually, free_port, repeat_requests

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/own_program"
PASSWORD = "e2e-own-program-61f0"
STACK = "e2e-own"
CLIENTS, PAUSE = 4, 0.02
"""Number of connections that send requests at the same time, and seconds between two requests of a connection."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A copy of examples/own_program. The wheel of the components is installed in the virtual environment of the copy."""

    folder: Path
    port: int
    status_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/visits"

    def pulumi(self, *words: str, check: bool = True, release: str = "") -> Result:
        action = {"TIERS_RELEASE": release} if release else {}
        state_variables = {"PULUMI_BACKEND_URL": f"file://{self.folder / '.state'}", "PULUMI_CONFIG_PASSPHRASE": "e2e"}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.run(
            ["pulumi", *words, "--non-interactive", "--stack", STACK], cwd=self.folder, env=environment | state_variables | action,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=540,
        )  # fmt: skip
        assert not check or not process.returncode, process.stdout
        return Result(code=process.returncode, text=process.stdout)

    def up(self, release: str = "") -> Result:
        return self.pulumi("up", "--yes", "--skip-preview", release=release)

    def answer(self) -> dict[str, Any]:
        return requests.get(self.url, timeout=10).json()

    def live(self) -> str:
        """Wait until the status page shows the release that users get, and return the version of this release."""
        release = str(self.answer()["release"])
        eventually(lambda: requests.get(f"http://127.0.0.1:{self.status_port}", timeout=5).text.strip() == release)
        return release.partition("-")[0]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("own") / "visits"
    shutil.copytree(EXAMPLE, folder)
    (folder / ".state").mkdir()
    _install_wheel(folder)
    program = Program(folder=folder, port=free_port(), status_port=free_port())
    program.pulumi("stack", "init")
    program.pulumi("config", "set", "--secret", "cache-password", PASSWORD)
    program.pulumi("config", "set", "port", str(program.port))
    program.pulumi("config", "set", "status-port", str(program.status_port))
    try:
        program.up()
        yield program
    finally:
        program.pulumi("destroy", "--yes", "--skip-preview", check=False)


def _install_wheel(folder: Path) -> None:
    """Build the wheel and install it into the virtual environment of the example."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    (wheel,) = (folder / "dist").glob("tiers-*.whl")
    # Install the pinned versions of the dependencies, because pip has these versions in its cache.
    pins = ["--constraint", str(folder / "pins.txt")]
    text = (ROOT / "requirements/requirements.txt").read_text()
    (folder / "pins.txt").write_text("\n".join(re.findall(r"^[\w.-]+==[^\s\\]+", text, re.MULTILINE)))
    subprocess.run([str(folder / "venv/bin/pip"), "install", "--quiet", *pins, str(wheel)], check=True)


def test_first_release_answers_and_keeps_data_between_requests(program: Program) -> None:
    assert program.live() == "1.0.0"
    first, second = program.answer()["visits"], program.answer()["visits"]
    assert second == first + 1


def test_second_update_changes_nothing(program: Program) -> None:
    assert program.up().changes.keys() == {"unchanged"}


def test_release_and_rollback_under_load_lose_no_request(program: Program) -> None:
    before = program.answer()["visits"]
    program.pulumi("config", "set", "version", "2.0.0")
    program.pulumi("config", "set", "greeting", "Good day")
    with ExitStack() as stack:
        sessions = [stack.enter_context(requests.Session()) for _ in range(CLIENTS)]
        status_counts = [
            stack.enter_context(
                repeat_requests(lambda _, session=session: session.get(program.url, timeout=10).status_code, PAUSE)
            )
            for session in sessions
        ]
        program.up()
        assert (program.live(), program.answer()["greeting"]) == ("2.0.0", "Good day")
        program.up(release="previous")
        assert program.live() == "1.0.0"
    answer_count = sum(sum(count.values()) for count in status_counts)
    assert answer_count > 100
    assert {status for count in status_counts for status in count} == {"200"}
    assert program.answer()["visits"] > before + answer_count, "each answered request must have been counted"


def test_password_is_not_in_the_state(program: Program) -> None:
    exported = program.pulumi("stack", "export").text
    assert json.loads(exported)["deployment"]["resources"]
    assert PASSWORD not in exported


def test_destroy_leaves_no_object(program: Program) -> None:
    program.pulumi("destroy", "--yes", "--skip-preview")
    engine = docker.from_env()
    remaining = [*engine.containers.list(all=True), *engine.networks.list(), *engine.volumes.list()]
    assert not [entry.name for entry in remaining if f"visits-{STACK}" in str(entry.name)]
