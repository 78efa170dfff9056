"""Compare releases with Tiers and with other tools, one after the other, under load.

On Kubernetes, all tools deploy the same pods to the same cluster behind the same Gateway. On Docker, Tiers is compared with
Docker Compose. The application has one tier, `web`, so no database influences the result. A release changes the version,
and each response contains the version.
"""

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import requests

from tests.e2e.stack import ClusterStack, DockerStack, Stack, eventually, free_port

from .who_serves import Run, measure_release

FILES = Path(__file__).parent / "peers"
ROUNDS = 5
FIRST = "1.0.0"
OURS, NOTHING, BACK = "ours on {}", "ours on {}, an `up` that finds nothing to do", "ours on {}, going back"
GATED = "Argo Rollouts, the same smoke test as prePromotionAnalysis"
GATES = {"spec": {"strategy": {"blueGreen": {"prePromotionAnalysis": {"templates": [{"templateName": "smoke"}]}}}}}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Kind of release to measure under load. Each kind is a row of the table."""

    name: str
    url: str
    host: str
    release: Callable[[str], object]
    """Function that releases a version."""
    to: Callable[[int], str] = "1.0.{}".format
    """Function that returns the version to release in a round. Its argument is the number of the round."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Deployment of the same application by another tool, in its own namespace."""

    namespace: str
    kind: str
    values: Mapping[str, Any]
    """Values for the templates of the manifests."""

    @property
    def host(self) -> str:
        return f"{self.namespace}.localhost"

    def kubectl(self, *words: str, text: str | None = None) -> None:
        command = ["kubectl", "--context", "lab", "--namespace", self.namespace, *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def apply(self, file: str) -> None:
        values = {name: json.dumps(value) for name, value in {**self.values, "host": self.host}.items()}
        self.kubectl("apply", "--server-side", "-f", "-", text=Template((FILES / file).read_text()).substitute(values))

    def release(self, version: str) -> None:
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/env/0/value", "value": version}]
        self.kubectl("patch", self.kind, "web", "--type=json", "--patch", json.dumps(patch))

    def row(self, name: str, to: Callable[[int], str] = "1.0.{}".format) -> Row:
        return Row(name=name, url="http://127.0.0.1:8000", host=self.host, release=self.release, to=to)


def table(folder: Path) -> str:
    """Run all measurements, and return a table with a row for each kind of release."""
    with ExitStack() as after:
        rows = [*_on_kubernetes(folder / "cluster", after), *_on_docker(folder / "engine", after)]
        runs: dict[str, list[Run]] = defaultdict(list)
        for number in range(1, ROUNDS + 1):
            for row in rows:
                version = row.to(number)
                run = measure_release(row.url, row.host, version, lambda row=row, version=version: row.release(version))
                runs[row.name].append(run)
                lost = f"{len(run.lost)} of {run.requests} lost {run.lost[:3] or ''}"
                print(f"  {row.name}: {run.seconds:.1f} s, the command {run.command:.1f} s, {lost}", file=sys.stderr)
    head = "| release | time until it has all traffic | requests lost | requests in a run |\n|---|---|---|---|"
    return "\n".join([head, *(_line(name, row_runs) for name, row_runs in runs.items()), "", _difference_line(runs)])


def _line(name: str, runs: list[Run]) -> str:
    seconds, lost = [run.seconds for run in runs], [len(run.lost) for run in runs]
    times = f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
    losses = f"{statistics.median(lost):.0f} ({min(lost)} to {max(lost)})"
    return f"| {name} | {times} | {losses} | {statistics.median(run.requests for run in runs):.0f} |"


def _difference_line(runs: Mapping[str, list[Run]]) -> str:
    """Return a line that compares our release with Argo's release plus our update without changes, in seconds."""
    names = OURS.format("Kubernetes"), GATED, NOTHING.format("Kubernetes")
    rounds = zip(*(runs[name] for name in names), strict=True)
    differences = [ours.seconds - argo.seconds - floor.seconds for ours, argo, floor in rounds]
    spread = f"{statistics.median(differences):.1f} s ({min(differences):.1f} to {max(differences):.1f})"
    return f"Our release minus (Argo with the same gate + an `up` that finds nothing to do): {spread}; target: at most 1 s."


def _ours(stack: Stack, name: str, host: str) -> list[Row]:
    """Return rows for a release, an update without changes, and going back to the first release."""

    def release(version: str) -> None:
        stack.app["version"] = version
        stack.up()

    def back(_: str) -> None:
        stack.up(TIERS_RELEASE="previous")

    return [
        Row(name=OURS.format(name), url=stack.url, host=host, release=release),
        Row(name=NOTHING.format(name), url=stack.url, host=host, release=release),
        Row(name=BACK.format(name), url=stack.url, host=host, release=back, to=lambda _: FIRST),
    ]


def _web_only(stack: Stack, **size: object) -> None:
    for tier in ("api", "worker", "database", "cache"):
        del stack.app[tier]
    stack.app["version"] = FIRST
    stack.environment["tiers"] = {"web": size}


# ---------------------------------------------------------------------- on Kubernetes


def _on_kubernetes(folder: Path, after: ExitStack) -> list[Row]:
    stack = ClusterStack(folder, "e2e-peers")
    _web_only(stack, **stack.environment["tiers"]["web"])
    stack.build_images()
    after.callback(stack.destroy)
    stack.up()
    objects = json.loads(stack.kubectl("get", "deployments,jobs,httproutes", "--output=json"))["items"]
    by_role = {item["metadata"]["labels"]["tiers.role"]: item["spec"] for item in objects}
    pod = _pod(by_role["tier"])
    hurried = pod | {"containers": [_without(pod["containers"][0], "lifecycle")]}

    def peer(name: str, kind: str, pod: dict[str, Any]) -> Peer:
        values = {
            "replicas": by_role["tier"]["replicas"],
            "pod": pod,
            "smoke": _smoke(by_role["smoke"], {stack.host: f"peers-{name}.localhost", "blue": "preview"}),
            "gateway": _without(by_role["switch"]["parentRefs"][0], "group", "kind"),
        }
        deployed = Peer(namespace=f"peers-{name}", kind=kind, values=values)
        deployed.kubectl("create", "namespace", deployed.namespace)
        after.callback(deployed.kubectl, "delete", "namespace", deployed.namespace)
        deployed.apply("around.yaml")
        deployed.apply(f"{kind}.yaml")
        return deployed

    plain = peer("plain", "deployment", hurried)
    drained = peer("drained", "deployment", pod)
    argo = peer("argo", "rollout", pod)
    gated = peer("gated", "rollout", pod)
    gated.apply("gate.yaml")
    gated.kubectl("patch", "rollout", "web", "--type=merge", "--patch", json.dumps(GATES))
    rows = [
        *_ours(stack, "Kubernetes", stack.host),
        gated.row(GATED),
        gated.row("Argo Rollouts, going back while the old pods still run", to=lambda _: FIRST),
        argo.row("Argo Rollouts, without gates"),
        plain.row("Deployment, rolling update as people write it: no preStop"),
        drained.row("Deployment, rolling update with our preStop of 5 s"),
    ]
    for row in rows:
        eventually(lambda row=row: _serves(row, FIRST), 60)
    return rows


def _pod(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pod spec of our Deployment, changed for other tools.

    The service account and the topology spread constraints are removed. The readiness probe runs every second. The only
    environment variable is RELEASE.
    """
    spec = _without(deployment["template"]["spec"], "serviceAccount", "serviceAccountName", "topologySpreadConstraints")
    [container] = spec["containers"]
    probe = container["readinessProbe"] | {"periodSeconds": 1}
    return spec | {
        "containers": [container | {"env": [{"name": "RELEASE", "value": FIRST}], "readinessProbe": probe}],
    }


def _smoke(job: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the pod spec of our smoke test for another tool. `names` has the words of the command to replace."""
    spec = job["template"]["spec"]
    [container] = spec["containers"]
    return spec | {"containers": [container | {"command": [names.get(word, word) for word in container["command"]]}]}


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _serves(row: Row, version: str) -> bool:
    answer = requests.get(f"{row.url}/release.json", headers={"Host": row.host}, timeout=5)
    return answer.ok and answer.json()["release"].partition("-")[0] == version


# ---------------------------------------------------------------------- on Docker


def _on_docker(folder: Path, after: ExitStack) -> list[Row]:
    stack = DockerStack(folder, "e2e-peers")
    _web_only(stack)
    stack.environment |= {"reload": False, "seed": False}
    after.callback(stack.destroy)
    stack.up()
    [web] = [container for container in stack.containers() if container.name.endswith("-web-1")]
    port = free_port()

    def compose(*words: str, release: str = FIRST) -> None:
        variables = os.environ | {"IMAGE": web.image.tags[0], "PORT": str(port), "RELEASE": release}
        command = ["docker-compose", "-p", "tierspeers", "-f", str(FILES / "compose.yml"), *words]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    after.callback(compose, "down")
    compose("up", "-d")
    compose_row = Row(
        name="`docker-compose up -d`", url=f"http://127.0.0.1:{port}", host=f"127.0.0.1:{port}",
        release=lambda version: compose("up", "-d", release=version),
    )  # fmt: skip
    eventually(lambda: _serves(compose_row, FIRST), 60)
    return [*_ours(stack, "Docker", f"127.0.0.1:{stack.environment['gateway']['port']}"), compose_row]
