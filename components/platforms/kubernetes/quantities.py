"""Kubernetes quantities: memory, processors, and the requests and limits of a container. All functions are pure."""

from collections.abc import Callable

from ...model.workload import Resources
from .objects import Manifest

DISK = "256Mi"
"""Disk space of a container outside of its volumes, for its logs."""


def size(count: int) -> str:
    """Return a number of bytes as a Kubernetes quantity."""
    return next(
        (f"{count // unit}{name}" for name, unit in (("Gi", 2**30), ("Mi", 2**20)) if not count % unit), f"{count}"
    )


def cpu(processors: float) -> str:
    """Return a number of processors as a Kubernetes quantity."""
    return f"{max(round(processors * 1000), 1)}m"


def resources(limits: Resources, disk: str = DISK, as_cpu: Callable[[float], str] = cpu) -> Manifest:
    """Return requests and limits of a container.

    Memory and disk requests equal the limits, because a pod without enough memory is killed. The processor request is lower than
    the limit, because a pod without enough processor time only slows down.

    Args:
        limits: limits of the workload.
        disk: disk space outside of the volumes, as a quantity.
        as_cpu: function that writes a number of processors as a quantity.
    """
    memory_and_disk = {"memory": size(limits.memory), "ephemeral-storage": disk}
    reserved = limits.cpu / 4 if limits.reserve is None else limits.reserve
    return {
        "requests": {"cpu": as_cpu(reserved), **memory_and_disk},
        "limits": {"cpu": as_cpu(limits.cpu), **memory_and_disk},
    }
