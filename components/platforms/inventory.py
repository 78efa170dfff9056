"""Inventory of a stack: the objects that exist on its platform, and the containers that are stopped.

Only this module builds the keys that match resources of the state with objects of the platform.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..checkpoint import Entry

CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
IMAGE = "docker:index/remoteImage:RemoteImage"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
CLUSTER = "kubernetes:postgresql.cnpg.io/v1:Cluster"
NAMESPACE = "kubernetes:core/v1:Namespace"
STATEFUL = frozenset({VOLUME, CLAIM, CLUSTER, NAMESPACE})
"""Resource types that may hold data."""
_DOCKER = {CONTAINER: "container", NETWORK: "network", VOLUME: "volume"}


@dataclass(frozen=True, kw_only=True)
class Location:
    """Address of the platform that a stack is deployed to. An engine has a host, a cluster a context and a namespace."""

    app: str
    stack: str
    host: str = ""
    context: str = ""
    namespace: str = ""

    @property
    def name(self) -> str:
        """Name of the platform for error messages."""
        return f"the cluster of context {self.context}" if self.context else f"the engine at {self.host}"


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Objects of a stack on its platform, by key."""

    keys: frozenset[str] = frozenset()
    stopped: Mapping[str, str] = field(default_factory=dict[str, str])
    """Key of each container that is not running, or Deployment scaled to 0 by hand → its state in the platform's words."""
    unhealthy: Mapping[str, str] = field(default_factory=dict[str, str])
    """Key of each container that runs but does not serve → its state."""
    kinds: frozenset[str] | None = None
    """Kinds that were listed, or None for all. Objects of a kind that was not listed count as existing."""


def resources_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the resources of a state in the form of `pulumi stack export`."""
    deployment = cast(Mapping[str, Any], state.get("deployment") or {})
    return cast(list[dict[str, Any]], deployment.get("resources") or [])


def inputs_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a resource of a state."""
    return cast(dict[str, Any], resource.get("inputs") or {})


def key_of(resource: Mapping[str, Any]) -> str | None:
    """Return the key of a resource in the form of `pulumi stack export`.

    Returns None for a resource that the inventory does not cover.
    """
    kind, identity = str(resource["type"]), str(resource.get("id") or "")
    outputs = cast(Mapping[str, Any], resource.get("outputs") or {})
    if not resource.get("custom") or not identity:
        return None
    if kind in _DOCKER:
        return f"{_DOCKER[kind]} {identity}"
    if kind == IMAGE:
        return f"image {outputs['imageId']}" if outputs.get("imageId") else None
    if kind.startswith("kubernetes:"):
        return object_key(kind.rpartition(":")[2], *identity.rpartition("/")[::2])
    return None


def object_key(kind: str, namespace: str, name: str) -> str:
    """Return the key of a Kubernetes object; `namespace` is empty for a cluster-wide object."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def locate(state: Mapping[str, Any], stack: str) -> Location | None:
    """Return the platform that a stack is deployed to, read from its state alone; None if the state names none.

    The configuration files are not read: they may be invalid today, or name another platform than the deployed one.
    """
    resources = resources_of(state)
    app = next((name for resource in resources if (name := _app(resource))), "")
    if not app:
        return None
    for resource in resources:
        inputs = inputs_of(resource)
        if resource["type"] == "pulumi:providers:docker":
            return Location(app=app, stack=stack, host=engine_host(inputs.get("host")))
        if resource["type"] == "pulumi:providers:kubernetes":
            return Location(app=app, stack=stack, context=str(inputs["context"]), namespace=_namespace(resources))
    return None


def engine_host(named: str | None) -> str:
    """Return the engine's address: `named` if set, else DOCKER_HOST, else the local socket."""
    return named or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def _app(resource: Mapping[str, Any]) -> str:
    labels = Entry(urn="", type="", parent="", custom=True, inputs=inputs_of(resource)).labels
    return str(labels.get("tiers.app") or "")


def _namespace(resources: list[dict[str, Any]]) -> str:
    grounds = (resource for resource in resources if resource["type"] == "tiers:kubernetes:Ground")
    return next((str(ground["outputs"]["namespace"]) for ground in grounds if ground.get("outputs")), "")
