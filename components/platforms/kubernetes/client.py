"""Clients of the Kubernetes API. Only this module imports the package `kubernetes`."""

from importlib import import_module
from threading import Thread
from typing import Any


def sdk() -> Any:
    """Import the package `kubernetes` on the first call, and return it. The import takes half a second."""
    return import_module("kubernetes")


def prefetch() -> None:
    """Import the package `kubernetes` in the background, while Pulumi's engine is busy."""
    Thread(target=sdk, daemon=True).start()


def connect(context: str) -> Any:
    """Return a client of the API server in a kubeconfig context."""
    return sdk().config.new_client_from_config(context=context)


def core(context: str) -> Any:
    """Return the API of pods, their logs and events."""
    return sdk().client.CoreV1Api(connect(context))


def apps(context: str) -> Any:
    """Return the API of Deployments and StatefulSets."""
    return sdk().client.AppsV1Api(connect(context))


def custom(context: str) -> Any:
    """Return the API of custom objects, such as the objects of operators."""
    return sdk().client.CustomObjectsApi(connect(context))


def dynamic(context: str) -> Any:
    """Return the API of objects of any kind."""
    return sdk().dynamic.DynamicClient(connect(context))
