"""Reader of the inputs of Docker resources in a stack's state."""

from collections.abc import Mapping
from typing import Any

from .store import Store

CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
IMAGE = "docker:index/remoteImage:RemoteImage"


def labels(inputs: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of a resource."""
    return {str(label["label"]): str(label["value"]) for label in inputs.get("labels") or ()}


def variables(inputs: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the environment variables of a container."""
    return dict(str(variable).split("=", 1) for variable in inputs.get("envs") or ())


def image(inputs: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the image name of a container, or an empty text if `names` lacks the container's image.

    Args:
        inputs: inputs of the container, which contain only the image's id.
        names: image id → image name.
    """
    return names.get(str(inputs.get("image")), "")


def store(kind: str, inputs: Mapping[str, Any], *, owner: str | None = None, protected: bool = False) -> Store:
    """Return the `Store` of a volume, read from the volume's inputs."""
    return Store(type=kind, address=str(inputs["name"]), owner=owner, protected=protected)
