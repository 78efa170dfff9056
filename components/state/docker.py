"""Reader of the inputs of Docker resources in a stack's state."""

from collections.abc import Mapping
from typing import Any

from ..model.names import LABEL_JOB, LABEL_SCHEDULE
from .store import Store

CONTAINER = "docker:index/container:Container"
NETWORK = "docker:index/network:Network"
VOLUME = "docker:index/volume:Volume"
IMAGE = "docker:index/remoteImage:RemoteImage"
FOUNDATION = "tiers:docker:Ground"


def labels(inputs: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of a resource."""
    return {str(label["label"]): str(label["value"]) for label in inputs.get("labels") or ()}


def job(inputs: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the name, the cron expression and the time zone of the scheduled job that a container runs."""
    cron, _, zone = labels(inputs)[LABEL_SCHEDULE].rpartition(" ")
    return labels(inputs)[LABEL_JOB], cron, zone


def without_label(inputs: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Return the inputs of a resource with the label `label` removed."""
    if not inputs.get("labels"):
        return dict(inputs)
    return {**inputs, "labels": [item for item in inputs["labels"] if item["label"] != label]}


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


def image_id(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str | None:
    """Return the id of the image that a resource pulls, builds or runs, or None if the resource has no image."""
    return outputs.get("imageId") or inputs.get("image")


def identifying_outputs(kind: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs that identify an object: the id of an image, or none for other objects."""
    return {"imageId": outputs.get("imageId")} if kind == IMAGE else {}


def command_failed(outputs: Mapping[str, Any]) -> bool:
    """Return whether the command of a container ended with an exit code other than 0."""
    return outputs.get("exitCode") not in (None, 0)


def store(kind: str, inputs: Mapping[str, Any], *, owner: str | None = None, protected: bool = False) -> Store:
    """Return the `Store` of a volume, read from the volume's inputs."""
    return Store(type=kind, address=str(inputs["name"]), owner=owner, protected=protected)
