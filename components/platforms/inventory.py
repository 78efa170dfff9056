"""Functions that read a stack's state: the inventory key of each resource, and the platform that the stack is deployed to.

An inventory key, such as `volume NAME`, identifies an object on its platform. The module `keys` of each platform builds the keys.
"""

from collections.abc import Mapping
from typing import Any, cast

from ..config import App, Environment
from ..release.checkpoint import Entry
from .base import Inventory, Location
from .docker import keys as docker
from .docker.cpus import with_provider_cpus
from .docker.keys import CONTAINER, IMAGE, NETWORK, VOLUME
from .kubernetes import keys as kubernetes

__all__ = ["CONTAINER", "IMAGE", "NETWORK", "VOLUME", "Inventory", "Location", "inputs_of", "key_of", "locate",
           "locate_configured", "resources_of", "with_provider_cpus"]  # fmt: skip

_PLATFORMS = {"docker": docker, "kubernetes": kubernetes}


def resources_of(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the resources in a state. The state is the output of `pulumi stack export`."""
    deployment = cast(Mapping[str, Any], state.get("deployment") or {})
    return cast(list[dict[str, Any]], deployment.get("resources") or [])


def inputs_of(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a resource in a state."""
    return cast(dict[str, Any], resource.get("inputs") or {})


def key_of(resource: Mapping[str, Any]) -> str | None:
    """Return the inventory key of a resource in a state, or None if the resource has no key."""
    kind, identity = str(resource["type"]), str(resource.get("id") or "")
    if not resource.get("custom") or not identity:
        return None
    outputs = cast(Mapping[str, Any], resource.get("outputs") or {})
    return next((key for keys in _PLATFORMS.values() if (key := keys.key(kind, identity, outputs))), None)


def locate(state: Mapping[str, Any], stack: str) -> Location | None:
    """Return the platform that a stack is deployed to, or None if the state names no platform.

    Read only the state, because the configuration files may be invalid or name another platform.
    """
    resources = resources_of(state)
    app = next((name for resource in resources if (name := _app(resource))), "")
    if not app:
        return None
    providers = {keys.PROVIDER: (name, keys) for name, keys in _PLATFORMS.items()}
    for resource in resources:
        if resource["type"] in providers:
            name, keys = providers[resource["type"]]
            return keys.deployed_location(app, stack, inputs_of(resource), _foundation(resources, name))
    return None


def locate_configured(app: App, environment: Environment, stack: str) -> Location:
    """Return the platform that the configuration files name for a stack."""
    return _PLATFORMS[environment.platform].configured_location(app, environment, stack)


def _app(resource: Mapping[str, Any]) -> str:
    labels = Entry(urn="", type="", parent="", custom=True, inputs=inputs_of(resource)).labels
    return str(labels.get("tiers.app") or "")


def _foundation(resources: list[dict[str, Any]], platform: str) -> Mapping[str, Any]:
    """Return the outputs of the component `Foundation`; empty if the component was never completed."""
    foundations = (resource for resource in resources if resource["type"] == f"tiers:{platform}:Ground")
    outputs = (cast(dict[str, Any], resource["outputs"]) for resource in foundations if resource.get("outputs"))
    return next(outputs, dict[str, Any]())
