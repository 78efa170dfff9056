"""A stack of the repository's own program in a copy of its files, deployed by the real Pulumi on a real engine."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests
import yaml

ROOT = Path(__file__).parents[2]
SECRETS = {"database-password": "e2e-database-7c1f", "cache-password": "e2e-cache-93ab"}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a Pulumi command ended."""

    code: int
    text: str

    @property
    def changed(self) -> dict[str, int]:
        """The counts under "Resources:", as in {"created": 41, "unchanged": 3}."""
        tail = self.text.rpartition("Resources:")[2]
        return {
            what: int(count) for count, what in re.findall(r"(\d+) (created|updated|deleted|replaced|unchanged)", tail)
        }


class Stack:
    """One stack. `app` and `environment` are written before each command, so a test changes them and runs `up`."""

    def __init__(self, folder: Path, name: str, host: str | None = None) -> None:
        self.folder, self.name = folder, name
        folder.mkdir(exist_ok=True)
        _copy(folder)
        self.project: dict[str, Any] = yaml.safe_load((folder / "Pulumi.yaml").read_text())
        self.app: dict[str, Any] = self.project["config"]["app"]["value"]
        self.environment: dict[str, Any] = yaml.safe_load((folder / "Pulumi.dev.yaml").read_text())["config"][
            "board:environment"
        ]
        self.environment |= {"gateway": {"port": free_port()}}
        if host:
            self.environment["docker"] = {"host": host}
        (folder / ".state").mkdir()
        self.variables = os.environ | {
            "PULUMI_BACKEND_URL": f"file://{folder / '.state'}",
            "PULUMI_CONFIG_PASSPHRASE": "e2e",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        self.engine = docker.DockerClient(base_url=host) if host else docker.from_env()
        self.pulumi("stack", "init", name, check=True)
        for secret, value in SECRETS.items():
            self.pulumi("config", "set", "--secret", "--path", f"secrets.{secret}", value, check=True)
        self.settings = folder / f"Pulumi.{name}.yaml"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['gateway']['port']}"

    def pulumi(self, *words: str, check: bool = False, variables: Mapping[str, str] | None = None) -> Result:
        done = subprocess.run(
            ["pulumi", *words, "--non-interactive"], cwd=self.folder, env=self.variables | dict(variables or {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=540,
        )  # fmt: skip
        result = Result(code=done.returncode, text=done.stdout)
        assert not check or not result.code, result.text
        return result

    def write(self) -> None:
        (self.folder / "Pulumi.yaml").write_text(yaml.safe_dump(self.project))
        given = yaml.safe_load(self.settings.read_text())
        given["config"]["board:environment"] = self.environment
        self.settings.write_text(yaml.safe_dump(given))

    def up(self, check: bool = True, **variables: str) -> Result:
        self.write()
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", self.name, check=check, variables=variables)

    def destroy(self, check: bool = True) -> Result:
        return self.pulumi("destroy", "--yes", "--refresh", "--stack", self.name, check=check)

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.pulumi("stack", "output", "--json", check=True).text)

    def containers(self) -> list[Any]:
        return [
            each for each in self.engine.containers.list(all=True) if str(each.name).startswith(f"board-{self.name}-")
        ]

    def left(self) -> list[str]:
        """All that the engine still holds of the stack."""
        prefix = f"board-{self.name}-"
        found = [*self.engine.containers.list(all=True), *self.engine.volumes.list(), *self.engine.networks.list()]
        return [name for each in found if (name := str(each.name)).startswith(prefix)]

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=10, **more)

    def post(self, body: str, work_seconds: float = 0) -> dict[str, Any]:
        message = {"author": "e2e", "body": body, "work_seconds": work_seconds}
        answer = requests.post(f"{self.url}/api/messages", json=message, timeout=10)
        assert answer.status_code == 201, answer.text
        return answer.json()


def eventually(what: Callable[[], object], seconds: float = 30) -> None:
    """Wait until it is true; the last failure is the error."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            assert what()
            return
        except (AssertionError, requests.RequestException, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _copy(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
