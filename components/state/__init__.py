"""Readers of resource inputs in a stack's state: labels, environment variables, images and stored data. All functions are pure.

Only this package and the packages of the platforms depend on the providers' type tokens and on the structure of inputs.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from . import docker, kubernetes


def reader(inputs: Mapping[str, Any]) -> ModuleType:
    """Return the module that reads a resource's inputs. Inputs with the key `metadata` belong to a Kubernetes object."""
    return kubernetes if "metadata" in inputs else docker
