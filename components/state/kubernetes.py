"""Reader of the inputs of Kubernetes objects in a stack's state."""

from collections.abc import Mapping
from typing import Any, cast

from ..model.names import JOB as JOB_PREFIX
from ..model.names import LABEL_COMPONENT, LABEL_NAME
from .store import Store, parse_size

CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
CLUSTER = "kubernetes:postgresql.cnpg.io/v1:Cluster"
CRON_JOB = "kubernetes:batch/v1:CronJob"
JOB = "kubernetes:batch/v1:Job"
NAMESPACE = "kubernetes:core/v1:Namespace"
STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
FOUNDATION = "tiers:kubernetes:Ground"


def labels(inputs: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of an object."""
    return cast(Mapping[str, str], inputs["metadata"].get("labels") or {})


def job(inputs: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the name, the cron expression and the time zone of the scheduled job of a CronJob."""
    return (
        labels(inputs)[LABEL_NAME].removeprefix(f"{JOB_PREFIX}-"),
        inputs["spec"]["schedule"],
        inputs["spec"]["timeZone"],
    )


def without_label(inputs: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Return the inputs of an object with the label `label` removed."""
    if label not in labels(inputs):
        return dict(inputs)
    remaining = {name: value for name, value in labels(inputs).items() if name != label}
    return {**inputs, "metadata": {**inputs["metadata"], "labels": remaining}}


def variables(inputs: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the environment variables of an object's containers."""
    containers = _pod(inputs).get("containers", ())
    return {
        variable["name"]: variable.get("value", "") for container in containers for variable in container.get("env", ())
    }


def image(inputs: Mapping[str, Any], names: Mapping[str, str]) -> str:  # noqa: ARG001 (same signature as in `state.docker`)
    """Return the image of an object's first container or of a database cluster, or an empty text for an object without image."""
    containers = _pod(inputs).get("containers", ())
    return str(containers[0]["image"]) if containers else str(inputs.get("spec", {}).get("imageName", ""))


def image_id(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Return None, because pods name their image instead of its id."""


def identifying_outputs(kind: str, outputs: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001 (same signature as in `state.docker`)
    """Return no outputs, because the inputs of an object contain its name."""
    return {}


def command_failed(outputs: Mapping[str, Any]) -> bool:  # noqa: ARG001 (same signature as in `state.docker`)
    """Return False. Pulumi reports a failed command of a Job as a failed creation of the Job."""
    return False


def store(kind: str, inputs: Mapping[str, Any], *, owner: str | None = None, protected: bool = False) -> Store:
    """Return the `Store` of a claim, a database cluster or a namespace, read from the object's inputs."""
    metadata: Mapping[str, Any] = inputs["metadata"]
    spec: Mapping[str, Any] = inputs.get("spec") or {}
    storage: Mapping[str, Any] = spec.get("storage") or {}
    requested = spec["resources"]["requests"]["storage"] if kind == CLAIM else storage.get("size")
    return Store(
        type=kind,
        address="/".join(filter(None, (metadata.get("namespace"), metadata["name"]))),
        size=parse_size(str(requested)) if requested else None,
        storage_class=spec.get("storageClassName") or storage.get("storageClass"),
        modes=tuple(spec.get("accessModes") or ()),
        tier=labels(inputs).get(LABEL_COMPONENT),
        owner=owner,
        protected=protected,
    )


def _pod(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], inputs.get("spec", {}).get("template", {}).get("spec", {}))
