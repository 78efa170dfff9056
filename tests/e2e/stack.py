"""A stack of the board, or of an application in examples/, in a copy of the repository, deployed by the real Pulumi on a real engine."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import kubernetes
import requests
import yaml

from components.platforms import COOKIE

from .leftovers import STACK

ROOT = Path(__file__).parents[2]
SECRETS = {"database-password": "e2e-database-7c1f", "cache-password": "e2e-cache-93ab"}
PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
"""Headers of a browser that requests a page."""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def free_ports(gateway: dict[str, Any]) -> None:
    """Replace the ports of the stack file by free ones."""
    gateway["port"] = free_port()
    if "ports" in gateway:
        gateway["ports"] = {tier: free_port() for tier in gateway["ports"]}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Exit code and output of a Pulumi command."""

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
    """One stack. `app` and `environment` are written before each command: a test changes them and calls `up`."""

    headers: Mapping[str, str] = {}
    """Headers that select this stack at a shared gateway."""

    keeper = "passphrase"
    """Secrets provider of the stack."""

    def __init__(self, folder: Path, name: str, template: str, variables: Mapping[str, str], at: str = ".") -> None:
        """Create the stack `name` of the application in the folder `at` of the repository, which is copied to `folder`.

        Its environment is that of the stack file of `template`. Its state is in a file unless `variables` set another backend.
        """
        assert STACK.fullmatch(name), f"{name}: begin it with e2e-; the next run knows by it what a killed one has left"
        self.folder, self.name, self.here = folder, name, folder / at
        folder.mkdir(exist_ok=True)
        _copy(folder)
        self.project: dict[str, Any] = yaml.safe_load((self.here / "Pulumi.yaml").read_text())
        self.key = f"{self.project['name']}:environment"
        self.app: dict[str, Any] = self.project["config"]["app"]["value"]
        self.prefix = f"{self.app['name']}-{name}"
        settings = yaml.safe_load((self.here / f"Pulumi.{template}.yaml").read_text())
        self.environment: dict[str, Any] = settings["config"][self.key]
        (folder / ".state").mkdir()
        self.variables = os.environ | {
            "PULUMI_BACKEND_URL": f"file://{folder / '.state'}",
            "PULUMI_CONFIG_PASSPHRASE": "e2e",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PYTHONPATH": str(folder),
            **variables,
        }
        self.settings = self.here / f"Pulumi.{name}.yaml"
        self.settings.unlink(missing_ok=True)
        self.pulumi("stack", "init", name, "--secrets-provider", self.keeper, check=True)
        for secret in sorted(self._secrets()):
            value = SECRETS.get(secret, f"e2e-{secret}-5d20")
            self.pulumi("config", "set", "--secret", "--path", f"secrets.{secret}", value, check=True)

    def _secrets(self) -> set[str]:
        """Return the names of the secrets that the application needs."""
        listed = {secret for tier in self.app.values() if isinstance(tier, dict) for secret in tier.get("secrets", ())}
        return listed | {secret for secret in SECRETS if secret.removesuffix("-password") in self.app}

    @property
    def url(self) -> str:
        """Address for requests with `headers`."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """Address that users know."""
        return self.url

    def pulumi(self, *words: str, check: bool = False, variables: Mapping[str, str] | None = None) -> Result:
        done = subprocess.run(
            ["pulumi", *words, "--non-interactive"], cwd=self.here, env=self.variables | dict(variables or {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=540,
        )  # fmt: skip
        result = Result(code=done.returncode, text=done.stdout)
        assert not check or not result.code, result.text
        return result

    def write(self) -> None:
        (self.here / "Pulumi.yaml").write_text(yaml.safe_dump(self.project))
        settings = yaml.safe_load(self.settings.read_text())
        settings.setdefault("config", {})[self.key] = self.environment
        self.settings.write_text(yaml.safe_dump(settings))

    def up(self, check: bool = True, **variables: str) -> Result:
        self.write()
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", self.name, check=check, variables=variables)

    def preview(self) -> Result:
        self.write()
        return self.pulumi("preview", "--stack", self.name, check=True)

    def destroy(self, check: bool = True) -> Result:
        return self.pulumi("destroy", "--yes", "--refresh", "--stack", self.name, check=check)

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.pulumi("stack", "output", "--json", check=True).text)

    def get(self, path: str, headers: Mapping[str, str] | None = None, **more: Any) -> requests.Response:
        return requests.get(
            f"{self.url}{path}", headers={**self.headers, **(headers or {})}, timeout=10, verify=False, **more
        )

    def ids(self, tier: str, slot: str) -> set[str]:
        """Return ids of the running containers of a tier in a slot; an id changes when its container is touched."""
        raise NotImplementedError

    def generations(self, slot: str) -> dict[str, Any]:
        """Return all objects of a slot, each with an id or generation that changes with the object."""
        raise NotImplementedError

    def break_down(self, tier: str, slot: str) -> None:
        """Stop every container of a tier in a slot."""
        raise NotImplementedError

    def live(self) -> dict[str, str]:
        """Return the release and the slot that answer users."""
        return self.get("/api/release").json()

    def answers(self) -> str:
        """Return the release that answers a page request, read from the gateway's cookie; works for any application."""
        return str(self.get("/", headers=PAGE).cookies[COOKIE])

    def ci(self, module: str, *words: str) -> str:
        """Run a module of `ci` on this stack, and return its output.

        Raises:
            subprocess.CalledProcessError: it ends with an error.
        """
        self.write()
        done = subprocess.run(
            [sys.executable, "-m", f"ci.{module}", self.name, *words],
            cwd=self.here, env=self.variables, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, module, done.stdout, done.stderr)
        return done.stdout

    def images(self) -> None:
        """Build or push the images of the stack if its platform needs that."""

    def remove(self) -> None:
        """Remove the stack in any condition."""
        self.ci("heal")
        self.destroy(check=False)
        self.clear()

    def clear(self) -> None:
        """Remove leftovers of a stack that could not be destroyed."""

    def post(self, body: str, work_seconds: float = 0) -> dict[str, Any]:
        message = {"author": "e2e", "body": body, "work_seconds": work_seconds}
        answer = requests.post(f"{self.url}/api/messages", json=message, headers=self.headers, timeout=10, verify=False)
        assert answer.status_code == 201, answer.text
        return answer.json()


class DockerStack(Stack):
    """A stack on a Docker engine, with its gateway on a free port."""

    def __init__(self, folder: Path, name: str, host: str | None = None, at: str = ".", **variables: str) -> None:
        super().__init__(folder, name, "dev", variables, at)
        free_ports(self.environment["gateway"])
        if host:
            self.environment["docker"] = {"host": host}
        self.engine = docker.DockerClient(base_url=host) if host else docker.from_env()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['gateway']['port']}"

    def containers(self) -> list[Any]:
        """Return all containers of the stack, also those that have ended."""
        labels = [f"tiers.app={self.app['name']}", f"tiers.environment={self.name}"]
        return self.engine.containers.list(all=True, ignore_removed=True, filters={"label": labels})

    def ids(self, tier: str, slot: str) -> set[str]:
        labels = [f"tiers.environment={self.name}", f"tiers.tier={tier}", f"tiers.slot={slot}", "tiers.role=tier"]
        return {
            f"{container.id} {container.attrs['State']['StartedAt']}"
            for container in self.engine.containers.list(filters={"label": labels})
        }

    def generations(self, slot: str) -> dict[str, Any]:
        labels = [f"tiers.environment={self.name}", f"tiers.slot={slot}"]
        return {
            str(container.name): container.id
            for container in self.engine.containers.list(all=True, filters={"label": labels})
        }

    def break_down(self, tier: str, slot: str) -> None:
        for container in self.containers():
            if (
                container.name.startswith(f"{self.prefix}-{slot}-{tier}-")
                and container.labels.get("tiers.role") == "tier"
            ):
                container.stop(timeout=1)

    def left(self) -> list[str]:
        """Return the names of all objects of the stack on the engine."""
        prefix = f"{self.prefix}-"
        objects = [
            *self.engine.containers.list(all=True, ignore_removed=True),
            *self.engine.volumes.list(),
            *self.engine.networks.list(),
        ]
        return [name for entry in objects if (name := str(entry.name)).startswith(prefix)]


class ClusterStack(Stack):
    """A stack in a namespace of the lab's cluster, behind the lab's Gateway."""

    def __init__(self, folder: Path, name: str, template: str = "staging", at: str = ".") -> None:
        super().__init__(folder, name, template, {}, at)
        url = urlsplit(self.environment["kubernetes"]["url"])
        self.host = f"{self.prefix}.localhost"
        # Environment variables of tiers may contain the host, too.
        self.environment = json.loads(json.dumps(self.environment).replace(str(url.hostname), self.host))
        self.url_here = f"{url.scheme}://127.0.0.1:{url.port}"
        self.namespace: str = self.environment["kubernetes"]["namespace"].setdefault("name", self.prefix)
        self.headers = {"Host": self.host}
        self.core: Any = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context="lab"))

    @property
    def url(self) -> str:
        return self.url_here

    @property
    def address(self) -> str:
        return self.environment["kubernetes"]["url"]

    def live(self) -> dict[str, str]:
        # The gateway receives a switch with a small delay, which benchmarks/switching.py measures.
        switched = self.outputs().get("live")
        eventually(lambda: switched in (None, super(ClusterStack, self).live()["slot"]), 10)
        return super().live()

    def images(self) -> None:
        self.ci("images")
        self.environment |= yaml.safe_load(self.settings.read_text())["config"][self.key]

    def kubectl(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", "--context", "lab", "--namespace", self.namespace, *words],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done.stdout + done.stderr

    def pods(self, tier: str, slot: str | None = None) -> list[Any]:
        """Return the running pods of a tier, the youngest last."""
        label = f"app.kubernetes.io/name={tier}" + (f",tiers.slot={slot}" if slot else "")
        listed = self.core.list_namespaced_pod(self.namespace, label_selector=label).items
        alive = [pod for pod in listed if not pod.metadata.deletion_timestamp]
        return sorted(alive, key=lambda pod: pod.metadata.creation_timestamp)

    def ids(self, tier: str, slot: str) -> set[str]:
        return {f"{pod.metadata.uid} {pod.status.container_statuses[0].restart_count}" for pod in self.pods(tier, slot)}

    def generations(self, slot: str) -> dict[str, Any]:
        kinds = "deployments,services,networkpolicies,poddisruptionbudgets,secrets,serviceaccounts,jobs,httproutes"
        labels = f"tiers.slot={slot},tiers.role!=switch"
        objects = json.loads(self.kubectl("get", kinds, "--selector", labels, "--output=json"))["items"]
        return {
            f"{entry['kind']} {entry['metadata']['name']}": (
                entry["metadata"]["uid"],
                entry["metadata"].get("generation"),
            )
            for entry in objects
        }

    def break_down(self, tier: str, slot: str) -> None:
        self.kubectl("scale", f"deployment/{tier}-{slot}", "--replicas=0")
        eventually(lambda: not self.pods(tier, slot))

    def clear(self) -> None:
        subprocess.run(
            ["kubectl", "--context", "lab", "delete", "namespace", self.namespace, "--ignore-not-found"],
            check=True, capture_output=True, timeout=180,
        )  # fmt: skip

    def left(self) -> list[str]:
        """Return all objects in the namespace, without those that every namespace has."""
        kinds = self.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
        kinds = [kind for kind in kinds if not kind.startswith("events") and "metrics.k8s.io" not in kind]
        objects = self.kubectl("get", ",".join(kinds), "--ignore-not-found", "--output=name").split()
        return [name for name in objects if name not in ("configmap/kube-root-ca.crt", "serviceaccount/default")]


def admin(*words: str, stdin: str | None = None) -> str:
    """Run kubectl as administrator of the lab's cluster, and return its output."""
    done = subprocess.run(
        ["kubectl", "--context", "lab", *words], input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def on(platform: str, folder: Path, name: str) -> Stack:
    """Create the smallest possible stack of the board on a platform, not deployed yet."""
    stack = DockerStack(folder, name) if platform == "docker" else ClusterStack(folder, name)
    stack.environment |= {"reload": False, "seed": False}
    return stack


@contextmanager
def deployed(stack: Stack) -> Generator[Stack]:
    """Deploy a stack for the length of the block, and remove it afterwards in any condition."""
    try:
        stack.images()
        stack.up()
        yield stack
    finally:
        stack.remove()


def eventually(what: Callable[[], object], seconds: float = 30) -> None:
    """Wait until a condition is true, and raise its last failure after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            assert what()
            return
        except (AssertionError, requests.RequestException, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def flowing(request: Callable[[int], int], pause: float) -> Generator[Counter[str]]:
    """Call `request` repeatedly while the block runs, at most 30,000 times, and count its answers.

    Args:
        request: takes the number of the call and returns the status of the answer.
        pause: seconds between two calls.
    """
    seen: Counter[str] = Counter()
    done = threading.Event()

    def flow() -> None:
        for number in range(30_000):
            if done.wait(pause):
                return
            try:
                seen[str(request(number))] += 1
            except requests.RequestException as error:
                seen[type(error).__name__] += 1

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@contextmanager
def requests_flowing(stack: Stack, *, writes: bool = True) -> Generator[Counter[str]]:
    """Read messages and write every tenth time, over one connection while the block runs; count the answers by status."""
    session = requests.Session()
    session.headers.update(stack.headers)
    session.verify = False

    def request(number: int) -> int:
        if number % 10 or not writes:
            return session.get(f"{stack.url}/api/messages?limit=5", timeout=10).status_code
        message = {"author": "flow", "body": f"message {number}"}
        return session.post(f"{stack.url}/api/messages", json=message, timeout=10).status_code

    with session, flowing(request, 0.02) as seen:
        yield seen


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
