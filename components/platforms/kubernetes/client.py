"""Client of a cluster. Only this module imports the Kubernetes client."""

from importlib import import_module
from threading import Thread
from typing import Any


def sdk() -> Any:
    """Import and return the package `kubernetes`. The import happens on the first call, because importing takes half a second."""
    return import_module("kubernetes")


def prefetch() -> None:
    """Start to import the client in the background, while Pulumi's engine is busy."""
    Thread(target=sdk, daemon=True).start()


def connect(context: str) -> Any:
    """Return a client of the API server that a kubeconfig context names."""
    return sdk().config.new_client_from_config(context=context)


def core(context: str) -> Any:
    """Return the API of pods, their logs and events."""
    return sdk().client.CoreV1Api(connect(context))


def apps(context: str) -> Any:
    """Return the API of Deployments and StatefulSets."""
    return sdk().client.AppsV1Api(connect(context))


def custom(context: str) -> Any:
    """Return the API of custom objects, whose kinds operators define."""
    return sdk().client.CustomObjectsApi(connect(context))


def dynamic(context: str) -> Any:
    """Return the API of objects of any kind."""
    return sdk().dynamic.DynamicClient(connect(context))
