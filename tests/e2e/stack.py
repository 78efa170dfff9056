"""Stacks for the end-to-end tests: the board or an application in examples/, deployed by Pulumi to an engine or a cluster.

Each stack has its own copy of the repository, so a test can edit its files.
"""

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
"""Headers that a browser sends when it requests a page."""


def free_port() -> int:
    """Return a TCP port of this machine that no process uses."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def assign_free_ports(gateway: dict[str, Any]) -> None:
    """Replace all ports in the gateway's settings by free ports."""
    gateway["port"] = free_port()
    if "ports" in gateway:
        gateway["ports"] = {tier: free_port() for tier in gateway["ports"]}


@dataclass(frozen=True, kw_only=True)
class Result:
    """Exit code and output of a Pulumi command."""

    code: int
    text: str

    @property
    def changes(self) -> dict[str, int]:
        """Return the counts that Pulumi prints under "Resources:", such as {"created": 41, "unchanged": 3}."""
        tail = self.text.rpartition("Resources:")[2]
        return {
            verb: int(count) for count, verb in re.findall(r"(\d+) (created|updated|deleted|replaced|unchanged)", tail)
        }


class Stack:
    """A stack of one application.

    A test changes `app` or `environment` and then calls `up`. `up` writes both to the files of the stack before it runs Pulumi.
    """

    headers: Mapping[str, str] = {}
    """Headers that every request needs. If several stacks share a gateway, the gateway finds this stack by these headers."""

    secrets_provider = "passphrase"
    """Secrets provider with which Pulumi creates the stack."""

    def __init__(
        self, folder: Path, name: str, template: str, variables: Mapping[str, str], app_path: str = "."
    ) -> None:
        """Copy the repository to `folder`, and create the stack with its secrets. Nothing is deployed yet.

        Args:
            folder: folder for the copy of the repository and for the state.
            name: name of the stack; it begins with `e2e`.
            template: name of an existing stack, such as `dev`. The new stack gets the environment from the file of `template`.
            variables: environment variables for Pulumi. Without PULUMI_BACKEND_URL the state is in `folder`.
            app_path: folder of the application, relative to the repository.
        """
        assert STACK.fullmatch(name), (
            f"{name}: the name of a test stack must begin with e2e-; the next run removes leftovers by this name"
        )
        self.folder, self.name, self.app_folder = folder, name, folder / app_path
        folder.mkdir(exist_ok=True)
        copy_repository(folder)
        self.project: dict[str, Any] = yaml.safe_load((self.app_folder / "Pulumi.yaml").read_text())
        self.key = f"{self.project['name']}:environment"
        self.app: dict[str, Any] = self.project["config"]["app"]["value"]
        self.prefix = f"{self.app['name']}-{name}"
        settings = yaml.safe_load((self.app_folder / f"Pulumi.{template}.yaml").read_text())
        self.environment: dict[str, Any] = settings["config"][self.key]
        (folder / ".state").mkdir()
        self.variables = os.environ | {
            "PULUMI_BACKEND_URL": f"file://{folder / '.state'}",
            "PULUMI_CONFIG_PASSPHRASE": "e2e",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PYTHONPATH": str(folder),
            **variables,
        }
        self.settings = self.app_folder / f"Pulumi.{name}.yaml"
        self.settings.unlink(missing_ok=True)
        self.pulumi("stack", "init", name, "--secrets-provider", self.secrets_provider, check=True)
        for secret in sorted(self._secrets()):
            value = SECRETS.get(secret, f"e2e-{secret}-5d20")
            self.pulumi("config", "set", "--secret", "--path", f"secrets.{secret}", value, check=True)

    def _secrets(self) -> set[str]:
        """Return the names of the secrets that the application needs."""
        tier_secrets = {
            secret for tier in self.app.values() if isinstance(tier, dict) for secret in tier.get("secrets", ())
        }
        return tier_secrets | {secret for secret in SECRETS if secret.removesuffix("-password") in self.app}

    @property
    def url(self) -> str:
        """Return the URL for requests of the tests. Each request also needs `headers`."""
        raise NotImplementedError

    @property
    def address(self) -> str:
        """Return the URL that users open."""
        return self.url

    def pulumi(self, *words: str, check: bool = False, variables: Mapping[str, str] | None = None) -> Result:
        """Run a Pulumi command in the folder of the application. With `check` raise AssertionError if the command fails."""
        process = subprocess.run(
            ["pulumi", *words, "--non-interactive"], cwd=self.app_folder, env=self.variables | dict(variables or {}),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=540,
        )  # fmt: skip
        result = Result(code=process.returncode, text=process.stdout)
        assert not check or not result.code, result.text
        return result

    def write(self) -> None:
        """Write `app` and `environment` to the project file and the stack file."""
        (self.app_folder / "Pulumi.yaml").write_text(yaml.safe_dump(self.project))
        settings = yaml.safe_load(self.settings.read_text())
        settings.setdefault("config", {})[self.key] = self.environment
        self.settings.write_text(yaml.safe_dump(settings))

    def up(self, check: bool = True, **variables: str) -> Result:
        """Write the project file and the stack file, and run `pulumi up`. `variables` are added to Pulumi's environment variables."""
        self.write()
        return self.pulumi("up", "--yes", "--skip-preview", "--stack", self.name, check=check, variables=variables)

    def preview(self) -> Result:
        """Write the project file and the stack file, and run `pulumi preview`."""
        self.write()
        return self.pulumi("preview", "--stack", self.name, check=True)

    def destroy(self, check: bool = True) -> Result:
        """Run `pulumi destroy` after a refresh of the state."""
        return self.pulumi("destroy", "--yes", "--refresh", "--stack", self.name, check=check)

    def outputs(self) -> dict[str, Any]:
        """Return the stack outputs."""
        return json.loads(self.pulumi("stack", "output", "--json", check=True).text)

    def get(self, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> requests.Response:
        """Send a GET request through the gateway; `options` are those of `requests.get`."""
        return requests.get(
            f"{self.url}{path}", headers={**self.headers, **(headers or {})}, timeout=10, verify=False, **options
        )

    def ids(self, tier: str, slot: str) -> set[str]:
        """Return the ids of the running containers of a tier in a slot. A replaced or restarted container gets another id."""
        raise NotImplementedError

    def generations(self, slot: str) -> dict[str, Any]:
        """Return object name → identifier for each object of a slot. A changed or recreated object gets another identifier."""
        raise NotImplementedError

    def stop_tier(self, tier: str, slot: str) -> None:
        """Stop every container of a tier in a slot."""
        raise NotImplementedError

    def live(self) -> dict[str, str]:
        """Return `release` and `slot` of the live slot, as the api reports them through the gateway."""
        return self.get("/api/release").json()

    def serving_release(self) -> str:
        """Return the live release, read from the cookie that the gateway sets with a page.

        Unlike `live`, this method works for any application.
        """
        return str(self.get("/", headers=PAGE).cookies[COOKIE])

    def run_ci(self, module: str, *words: str) -> str:
        """Write the project file and the stack file, run a module of `ci` on this stack, and return the output.

        Raises:
            subprocess.CalledProcessError: the module ended with an error.
        """
        self.write()
        process = subprocess.run(
            [sys.executable, "-m", f"ci.{module}", self.name, *words],
            cwd=self.app_folder, env=self.variables, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        if process.returncode:
            error = subprocess.CalledProcessError(process.returncode, module, process.stdout, process.stderr)
            # The error's own text does not contain the output.
            error.add_note(process.stdout + process.stderr)
            raise error
        return process.stdout

    def build_images(self) -> None:
        """Build and push the images of the stack. On Docker this method does nothing, because `up` builds the images."""

    def remove(self) -> None:
        """Remove the stack, also after a failed or interrupted update."""
        self.run_ci("heal")
        self.destroy(check=False)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove the objects that remain after a failed `destroy`."""

    def post(self, body: str, work_seconds: float = 0) -> dict[str, Any]:
        """Post a message to the board, and return the stored message. The worker needs `work_seconds` for the job of the message."""
        message = {"author": "e2e", "body": body, "work_seconds": work_seconds}
        answer = requests.post(f"{self.url}/api/messages", json=message, headers=self.headers, timeout=10, verify=False)
        assert answer.status_code == 201, answer.text
        return answer.json()


class DockerStack(Stack):
    """A stack on a Docker engine. Its gateway listens on a free port of this machine."""

    def __init__(self, folder: Path, name: str, host: str | None = None, app_path: str = ".", **variables: str) -> None:
        super().__init__(folder, name, "dev", variables, app_path)
        assign_free_ports(self.environment["gateway"])
        if host:
            self.environment["docker"] = {"host": host}
        self.engine = docker.DockerClient(base_url=host) if host else docker.from_env()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['gateway']['port']}"

    def containers(self) -> list[Any]:
        """Return all containers of the stack, including stopped ones."""
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

    def stop_tier(self, tier: str, slot: str) -> None:
        for container in self.containers():
            if (
                container.name.startswith(f"{self.prefix}-{slot}-{tier}-")
                and container.labels.get("tiers.role") == "tier"
            ):
                container.stop(timeout=1)

    def leftovers(self) -> list[str]:
        """Return the names of all containers, volumes and networks of the stack."""
        prefix = f"{self.prefix}-"
        objects = [
            *self.engine.containers.list(all=True, ignore_removed=True),
            *self.engine.volumes.list(),
            *self.engine.networks.list(),
        ]
        return [name for entry in objects if (name := str(entry.name)).startswith(prefix)]


class ClusterStack(Stack):
    """A stack in its own namespace of the lab's cluster. The stack uses the lab's Gateway object."""

    def __init__(self, folder: Path, name: str, template: str = "staging", app_path: str = ".") -> None:
        super().__init__(folder, name, template, {}, app_path)
        url = urlsplit(self.environment["kubernetes"]["url"])
        self.host = f"{self.prefix}.localhost"
        # Replace the host in all settings, because environment variables of tiers also contain the host.
        self.environment = json.loads(json.dumps(self.environment).replace(str(url.hostname), self.host))
        self.local_url = f"{url.scheme}://127.0.0.1:{url.port}"
        self.namespace: str = self.environment["kubernetes"]["namespace"].setdefault("name", self.prefix)
        self.headers = {"Host": self.host}
        self.core: Any = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context="lab"))

    @property
    def url(self) -> str:
        return self.local_url

    @property
    def address(self) -> str:
        return self.environment["kubernetes"]["url"]

    def live(self) -> dict[str, str]:
        # Wait, because the gateway applies a switch with a short delay. benchmarks/switching.py measures this delay.
        switched = self.outputs().get("live")
        eventually(lambda: switched in (None, super(ClusterStack, self).live()["slot"]), 10)
        return super().live()

    def build_images(self) -> None:
        self.run_ci("images")
        self.environment |= yaml.safe_load(self.settings.read_text())["config"][self.key]

    def kubectl(self, *words: str, check: bool = True) -> str:
        """Run kubectl in the namespace, and return its output. Without `check` the command may fail, and the output includes errors."""
        process = subprocess.run(
            ["kubectl", "--context", "lab", "--namespace", self.namespace, *words],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert not check or process.returncode == 0, process.stderr
        return process.stdout if check else process.stdout + process.stderr

    def pods(self, tier: str, slot: str | None = None) -> list[Any]:
        """Return the pods of a tier that are not being deleted, sorted by creation time."""
        label = f"app.kubernetes.io/name={tier}" + (f",tiers.slot={slot}" if slot else "")
        pods = self.core.list_namespaced_pod(self.namespace, label_selector=label).items
        alive = [pod for pod in pods if not pod.metadata.deletion_timestamp]
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

    def stop_tier(self, tier: str, slot: str) -> None:
        self.kubectl("scale", f"deployment/{tier}-{slot}", "--replicas=0")
        eventually(lambda: not self.pods(tier, slot))

    def remove_leftovers(self) -> None:
        subprocess.run(
            ["kubectl", "--context", "lab", "delete", "namespace", self.namespace, "--ignore-not-found"],
            check=True, capture_output=True, timeout=180,
        )  # fmt: skip

    def leftovers(self) -> list[str]:
        """Return the names of all objects in the namespace, except events, metrics and the objects that every namespace has."""
        kinds = self.kubectl("api-resources", "--verbs=list", "--namespaced", "--output=name").split()
        kinds = [kind for kind in kinds if not kind.startswith("events") and "metrics.k8s.io" not in kind]
        objects = self.kubectl("get", ",".join(kinds), "--ignore-not-found", "--output=name").split()
        return [name for name in objects if name not in ("configmap/kube-root-ca.crt", "serviceaccount/default")]


def run_kubectl(*words: str, stdin: str | None = None) -> str:
    """Run kubectl as administrator of the lab's cluster, and return its output."""
    process = subprocess.run(
        ["kubectl", "--context", "lab", *words], input=stdin, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def create_board(platform: str, folder: Path, name: str) -> Stack:
    """Return a stack of the board without hot reload and seed data. The stack is not deployed yet."""
    stack = DockerStack(folder, name) if platform == "docker" else ClusterStack(folder, name)
    stack.environment |= {"reload": False, "seed": False}
    return stack


@contextmanager
def deployment(stack: Stack) -> Generator[Stack]:
    """Build the images of a stack, deploy the stack, and remove it after the `with` block.

    The stack is removed even if the update or the block fails.
    """
    try:
        stack.build_images()
        stack.up()
        yield stack
    finally:
        stack.remove()


def destroy_without_leftovers(stack: Stack) -> None:
    """Destroy a stack, and assert that the engine or the namespace has no object of the stack."""
    if stack.environment.get("protect_data"):
        stack.environment["protect_data"] = False
        stack.up()
    assert stack.destroy().code == 0
    assert isinstance(stack, DockerStack | ClusterStack)
    assert stack.leftovers() == []


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait up to `seconds` until a condition is true.

    An AssertionError, a failed request or a ValueError in the condition counts as false. After `seconds` the last error is raised.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            assert condition()
            return
        except (AssertionError, requests.RequestException, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextmanager
def repeat_requests(request: Callable[[int], int], pause: float) -> Generator[Counter[str]]:
    """Call `request` repeatedly while the `with` block runs, at most 30,000 times, and count the answers by status or error.

    Args:
        request: function that gets the number of the call and returns the status of the answer.
        pause: seconds between two calls.
    """
    statuses: Counter[str] = Counter()
    stop = threading.Event()

    def send_requests() -> None:
        for number in range(30_000):
            if stop.wait(pause):
                return
            try:
                statuses[str(request(number))] += 1
            except requests.RequestException as error:
                statuses[type(error).__name__] += 1

    thread = threading.Thread(target=send_requests)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


@contextmanager
def steady_requests(stack: Stack, *, writes: bool = True) -> Generator[Counter[str]]:
    """Send requests to the board while the `with` block runs, and count the answers by status.

    All requests use one connection. With `writes` every tenth request writes a message. All other requests read.
    """
    session = requests.Session()
    session.headers.update(stack.headers)
    session.verify = False

    def request(number: int) -> int:
        if number % 10 or not writes:
            return session.get(f"{stack.url}/api/messages?limit=5", timeout=10).status_code
        message = {"author": "flow", "body": f"message {number}"}
        return session.post(f"{stack.url}/api/messages", json=message, timeout=10).status_code

    with session, repeat_requests(request, 0.02) as statuses:
        yield statuses


def copy_repository(folder: Path) -> None:
    """Copy the repository without the files that git ignores, and link the virtual environment."""
    git_files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in git_files.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
