"""The development container, built by the CLI that editors use: an environment comes up in it, an edit is visible, and tests pass."""

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
    """A container of `.devcontainer` over a clone of the repository, at the same path inside."""

    cli: Path
    folder: Path

    def cli_says(self, verb: str, *words: str) -> str:
        done = subprocess.run(
            [self.cli, verb, "--workspace-folder", self.folder, *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1500,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def make(self, *words: str) -> str:
        state = ("PULUMI_CONFIG_PASSPHRASE=dev", f"PULUMI_BACKEND_URL=file://{self.folder}/.state")
        return self.cli_says("exec", *(word for name in state for word in ("--remote-env", name)), "make", *words)


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
        # Debian's engine has no BuildKit.
        container.cli_says("up", "--buildkit", "never")
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


def test_doctor_finds_everything_in_the_container(shell: Shell) -> None:
    assert "Everything is there." in shell.make("doctor")


def test_environment_comes_up_from_the_container_and_reloads(shell: Shell) -> None:
    port, page = free_port(), shell.folder / "examples/board/web/src/index.html"
    settings = yaml.safe_load((shell.folder / "Pulumi.dev.yaml").read_text())
    settings["config"]["board:environment"]["gateway"]["port"] = port
    (shell.folder / "Pulumi.dev-shell.yaml").write_text(yaml.safe_dump(settings))
    try:
        assert "answers 200" in shell.make("up", "ENV=dev-shell")
        # The container uses this machine's engine, so the port is this machine's, too.
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


def test_make_test_passes_in_the_container(shell: Shell) -> None:
    assert " passed" in shell.make("test")
