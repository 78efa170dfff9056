"""Removal of the containers, volumes, networks and namespaces that a killed run has left.

A run removes its own stacks unless it is killed. Leftovers use processor time, and occupy names that the next run needs. They
survive a restart of the machine.
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
"""Regular expression that matches the environment names of tests and benchmarks. Stacks of other environments are never removed."""
RECREATED = re.compile(r"board-e2e-[a-z0-9-]+")
"""Regular expression that matches the names of volumes without labels.

If a test removes the volume of a container, the engine creates such a volume at the next start of the container.
"""
LABEL = "tiers-e2e"
"""Label of the Docker objects and namespaces that tests create without Pulumi."""
LOCK = Path.home() / ".cache/tiers/e2e.lock"
"""Lock file that shows whether a test run is active.

Each run first tries to get an exclusive lock. The run gets this lock only if no other run is active, and then removes leftovers.
In both cases the run then holds a shared lock until it ends.
"""


@contextmanager
def cleanup() -> Generator[None]:
    """Remove all leftovers from the local engine and the lab's cluster, unless another run is active on this machine.

    Hold the shared lock of `LOCK` while the `with` block runs.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            removed = [*_remove_from_engine(docker.from_env()), *_remove_from_cluster()]
            if removed:
                print(f"removed leftovers of a killed run: {', '.join(removed)}")
        except BlockingIOError:
            pass
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def is_leftover(labels: dict[str, str] | None) -> bool:
    """Return whether these labels belong to a Docker object or a namespace that a test has created."""
    labels = labels or {}
    app, environment = labels.get("app.kubernetes.io/part-of", ""), labels.get("tiers.environment", "")
    instance = labels.get("app.kubernetes.io/instance", "").removeprefix(f"{app}-")
    return LABEL in labels or any(STACK.fullmatch(name) for name in (environment, instance))


def is_recreated(volume: Any) -> bool:
    """Return whether the engine has created this volume for a container of a test (`RECREATED`)."""
    return not volume.attrs.get("Labels") and RECREATED.fullmatch(volume.name) is not None


def _remove_from_engine(engine: docker.DockerClient) -> Iterator[str]:
    """Remove the leftovers from the engine, and yield a description of each leftover."""
    for container in engine.containers.list(all=True, ignore_removed=True):
        if is_leftover(container.labels):
            container.remove(force=True, v=True)
            yield f"container {container.name}"
    for kind, objects in (("volume", engine.volumes.list()), ("network", engine.networks.list())):
        for entry in objects:
            if is_leftover(entry.attrs.get("Labels")) or (kind == "volume" and is_recreated(entry)):
                try:
                    entry.remove()
                    yield f"{kind} {entry.name}"
                except APIError as error:
                    yield f"{kind} {entry.name}, which could not be removed: {error.explanation}"


def _remove_from_cluster() -> Iterator[str]:
    """Delete the leftover namespaces, and yield a description of each namespace. Wait up to 180 s for the deletion."""
    core: Any = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(context="lab"))
    names = [entry.metadata.name for entry in core.list_namespace().items if is_leftover(entry.metadata.labels)]
    for name in names:
        core.delete_namespace(name)
        yield f"namespace {name}"
    deadline = time.monotonic() + 180
    while set(names) & {entry.metadata.name for entry in core.list_namespace().items} and time.monotonic() < deadline:
        time.sleep(1)
