"""Inventory keys of Docker resources, such as `volume NAME`, and labels and location of a stack."""

import os
from collections.abc import Mapping
from typing import Any

from ...config import App, Environment
from ...model.names import LABEL_APP, LABEL_ENVIRONMENT
from ...state.docker import CONTAINER, IMAGE, NETWORK, VOLUME
from ..base import Location

PROVIDER = "pulumi:providers:docker"
_KINDS = {CONTAINER: "container", NETWORK: "network", VOLUME: "volume"}


def stack_labels(app: str, stack: str) -> dict[str, str]:
    """Return the labels that all objects of a stack on an engine have."""
    return {LABEL_APP: app, LABEL_ENVIRONMENT: stack}


def key(kind: str, identity: str, outputs: Mapping[str, Any]) -> str | None:
    """Return the inventory key of a resource, such as `volume NAME`, or None for a resource that inventories don't list.

    Args:
        kind: type token of the Pulumi resource.
        identity: id of the Pulumi resource.
        outputs: outputs of the Pulumi resource.
    """
    if kind in _KINDS:
        return f"{_KINDS[kind]} {identity}"
    return f"image {outputs['imageId']}" if kind == IMAGE and outputs.get("imageId") else None


def engine_host(named: str | None) -> str:
    """Return the engine's address: `named` if set, else DOCKER_HOST, else the local socket."""
    return named or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def deployed_location(app: str, stack: str, provider: Mapping[str, Any], foundation: Mapping[str, Any]) -> Location:
    """Return the location of a deployed stack, from the inputs of its Pulumi provider."""
    return Location(app=app, stack=stack, host=engine_host(provider.get("host")))


def configured_location(app: App, environment: Environment, stack: str) -> Location:
    """Return the location of a stack, from its configuration."""
    return Location(app=app.name, stack=stack, host=engine_host(environment.docker.host))
