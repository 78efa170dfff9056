"""Leftovers of a run that was killed: the engine and the cluster keep them, and start them again after a restart of the machine.

They take processor time and names from the next run. A run that ends by itself removes its own stacks.
"""

import fcntl
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import kubernetes
from docker.errors import APIError

STACK = re.compile(r"e2e(-[a-z0-9-]+)?")
"""Names of the environments that tests and benchmarks deploy. Other stacks are never removed."""
LABEL = "tiers-e2e"
"""Label of the namespaces that tests create without Pulumi."""
LOCK = Path.home() / ".cache/tiers/e2e.lock"
"""Every run holds a shared lock on this file. A run that gets it exclusively may remove the leftovers."""


@contextmanager
def removed_unless_in_use() -> Generator[None]:
    """Remove all leftovers from the local engine and the lab's cluster, unless another run on this machine uses them."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed = [*_from_engine(docker.from_env()), *_from_cluster()]
            if removed:
                print(f"removed what a killed run has left: {', '.join(removed)}")
        except BlockingIOError:
            pass
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def is_leftover(labels: dict[str, str] | None) -> bool:
    """Tell by the labels of a Docker object or of a namespace whether a test made it."""
    labels = labels or {}
    app, environment = labels.get("app.kubernetes.io/part-of", ""), labels.get("tiers.environment", "")
    instance = labels.get("app.kubernetes.io/instance", "").removeprefix(f"{app}-")
    return LABEL in labels or any(STACK.fullmatch(name) for name in (environment, instance))


def _from_engine(engine: docker.DockerClient) -> Iterator[str]:
    for container in engine.containers.list(all=True, ignore_removed=True):
        if is_leftover(container.labels):
            container.remove(force=True, v=True)
            yield f"container {container.name}"
    for kind, objects in (("volume", engine.volumes.list()), ("network", engine.networks.list())):
        for entry in objects:
            if is_leftover(entry.attrs.get("Labels")):
                try:
                    entry.remove()
                    yield f"{kind} {entry.name}"
                except APIError as error:
                    yield f"{kind} {entry.name}, which stays: {error.explanation}"


def _from_cluster() -> Iterator[str]:
    core: Any = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context="lab"))
    names = [entry.metadata.name for entry in core.list_namespace().items if is_leftover(entry.metadata.labels)]
    for name in names:
        core.delete_namespace(name)
        yield f"namespace {name}"
    deadline = time.monotonic() + 180
    while set(names) & {entry.metadata.name for entry in core.list_namespace().items} and time.monotonic() < deadline:
        time.sleep(1)
