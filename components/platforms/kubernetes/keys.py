"""Inventory keys of Kubernetes resources (`Service NAMESPACE/NAME`), and the cluster of a stack. All functions are pure."""

from collections.abc import Mapping
from typing import Any

from ...config import App, Environment
from ..base import Location

PROVIDER = "pulumi:providers:kubernetes"


def key(kind: str, identity: str, outputs: Mapping[str, Any]) -> str | None:
    """Return the inventory key of a resource, such as `Service NAMESPACE/NAME`, or None if the resource is no Kubernetes object.

    Args:
        kind: type token of the Pulumi resource.
        identity: id of the Pulumi resource: `NAMESPACE/NAME`.
        outputs: not used on Kubernetes.
    """
    if not kind.startswith("kubernetes:"):
        return None
    return object_key(kind.rpartition(":")[2], *identity.rpartition("/")[::2])


def object_key(kind: str, namespace: str, name: str) -> str:
    """Return the inventory key of a Kubernetes object. `namespace` is empty for an object outside of namespaces."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def deployed_location(app: str, stack: str, provider: Mapping[str, Any], foundation: Mapping[str, Any]) -> Location:
    """Return the cluster and the namespace of a deployed stack.

    Args:
        app: name of the application.
        stack: name of the stack.
        provider: inputs of the provider in the state.
        foundation: outputs of the component `Foundation` in the state.
    """
    namespace = str(foundation.get("namespace") or "")
    return Location(app=app, stack=stack, context=str(provider["context"]), namespace=namespace)


def configured_location(app: App, environment: Environment, stack: str) -> Location:
    """Return the cluster and namespace that the configuration names."""
    settings = environment.cluster
    return Location(
        app=app.name, stack=stack, context=settings.context, namespace=settings.namespace_name(f"{app.name}-{stack}")
    )
