"""A StatefulSet without pods, while a command writes to its volumes."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from pulumi import RunError

from ...model.names import LABEL_NAME
from ..base import Location
from .client import apps, core, sdk

STOPPED_WITHIN = 300
"""Time limit in seconds for the pods of a StatefulSet to end. Kubernetes kills a pod after its own grace period."""


@contextmanager
def stopped(location: Location, name: str, within: float) -> Generator[None]:
    """Scale a StatefulSet to 0 pods, and back to 1 pod after the `with` block. Wait until the pod is ready.

    Args:
        location: cluster and namespace.
        name: name of the StatefulSet.
        within: time limit in seconds for the pod to become ready.

    Raises:
        RunError: the StatefulSet does not exist, or its pod does not end or does not become ready.
    """
    api, namespace = apps(location.context), location.namespace
    try:
        _scale(api, namespace, name, 0)
    except sdk().client.ApiException as error:
        raise RunError(f"there is no StatefulSet {name} in {namespace} ({error.reason}); run `make up` first") from None
    try:
        pods = core(location.context)
        selector = f"{LABEL_NAME}={name}"
        ended = _wait(
            lambda: not pods.list_namespaced_pod(namespace, label_selector=selector).items, within=STOPPED_WITHIN
        )
        if not ended:
            raise RunError(
                f"the pod of {name} does not end; see `kubectl --namespace {namespace} describe pod {name}-0`"
            )
        yield
    finally:
        _scale(api, namespace, name, 1)
    if not _wait(lambda: api.read_namespaced_stateful_set(name, namespace).status.ready_replicas == 1, within):
        raise RunError(
            f"{name} has started again, but is not ready after {within:g} s; read `make logs SERVICE={name}`"
        )


def _scale(api: Any, namespace: str, name: str, replicas: int) -> None:
    api.patch_namespaced_stateful_set(name, namespace, {"spec": {"replicas": replicas}})


def _wait(condition: Callable[[], bool], within: float) -> bool:
    """Wait until a condition holds. Return False if it does not hold within `within` seconds."""
    deadline = time.monotonic() + within
    while not (holds := condition()) and time.monotonic() < deadline:
        time.sleep(1)
    return holds
