"""Tests of the development container: deploy from the container, edit a file, and run `make test` in the container.

The dev container CLI builds the container, because editors use the same CLI.
"""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
import requests
import yaml

from .stack import ROOT, eventually, free_port

pytestmark = pytest.mark.long


@dataclass(frozen=True)
class Shell:
    """A running development container. The clone in `folder` has the same path inside and outside the container."""

    cli: Path
    folder: Path

    def run_cli(self, verb: str, *words: str) -> str:
        """Run a command of the dev container CLI, and return its output."""
        process = subprocess.run(
            [self.cli, verb, "--workspace-folder", self.folder, *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500,
        )  # fmt: skip
        assert process.returncode == 0, process.stdout
        return process.stdout

    def make(self, *words: str) -> str:
        """Run make in the container, and return its output."""
        state = ("PULUMI_CONFIG_PASSPHRASE=dev", f"PULUMI_BACKEND_URL=file://{self.folder}/.state")
        return self.run_cli("exec", *(word for name in state for word in ("--remote-env", name)), "make", *words)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("shell")
    shutil.copytree(Path(__file__).with_name("devcontainer"), folder / "cli")
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder / "cli", check=True, capture_output=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
    (folder / "clone/.state").mkdir()
    container = Shell(folder / "cli/node_modules/.bin/devcontainer", folder / "clone")
    engine = docker.from_env()
    try:
        # Turn off BuildKit, because Debian's engine does not have it.
        container.run_cli("up", "--buildkit", "never")
        yield container
    finally:
        for entry in engine.containers.list(
            all=True, filters={"label": f"devcontainer.local_folder={container.folder}"}
        ):
            volumes = [mount["Name"] for mount in entry.attrs["Mounts"] if mount["Type"] == "volume"]
            entry.remove(force=True)
            for name in volumes:
                engine.volumes.get(name).remove()
            engine.images.remove(entry.attrs["Image"], force=True)


def test_make_doctor_finds_every_tool_in_the_dev_container(shell: Shell) -> None:
    assert "Nothing is missing." in shell.make("doctor")


def test_environment_deployed_from_the_dev_container_reloads_an_edited_file(shell: Shell) -> None:
    port, page = free_port(), shell.folder / "examples/board/web/src/index.html"
    settings = yaml.safe_load((shell.folder / "Pulumi.dev.yaml").read_text())
    settings["config"]["board:environment"]["gateway"]["port"] = port
    (shell.folder / "Pulumi.dev-shell.yaml").write_text(yaml.safe_dump(settings))
    try:
        assert "answers 200" in shell.make("up", "ENV=dev-shell")
        # The development container uses this machine's engine, so the gateway's port is open on this machine.
        assert requests.get(f"http://127.0.0.1:{port}/", timeout=10).status_code == 200
        page.write_text(page.read_text().replace("<h1>board</h1>", "<h1>edited board</h1>"))
        eventually(lambda: "edited board" in requests.get(f"http://127.0.0.1:{port}/", timeout=10).text)
    finally:
        shell.make("down", "ENV=dev-shell")
    assert not [
        container
        for container in docker.from_env().containers.list(all=True)
        if str(container.name).startswith("board-dev-shell-")
    ]


def test_make_test_passes_in_the_dev_container(shell: Shell) -> None:
    assert " passed" in shell.make("test")
