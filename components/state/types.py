"""Predicates on type tokens of resources. Other packages call them instead of comparing tokens. All functions are pure."""

from . import docker, kubernetes


def is_volume(type_: str) -> bool:
    """Return whether the type is a Docker volume."""
    return type_ == docker.VOLUME


def is_claim(type_: str) -> bool:
    """Return whether the type is a Kubernetes PersistentVolumeClaim."""
    return type_ == kubernetes.CLAIM


def is_database_cluster(type_: str) -> bool:
    """Return whether the type is a database cluster (CloudNativePG)."""
    return type_ == kubernetes.CLUSTER


def is_namespace(type_: str) -> bool:
    """Return whether the type is a Kubernetes namespace."""
    return type_ == kubernetes.NAMESPACE


def may_hold_data(type_: str) -> bool:
    """Return whether a resource of this type may hold data. Deleting a namespace or a database cluster also deletes its claims."""
    return is_volume(type_) or is_claim(type_) or is_database_cluster(type_) or is_namespace(type_)


def is_image(type_: str) -> bool:
    """Return whether the type is an image that the program pulls or builds. Only Docker has such a type."""
    return type_ == docker.IMAGE


def is_job(type_: str) -> bool:
    """Return whether the type is a Kubernetes Job, which runs once and ends."""
    return type_ == kubernetes.JOB


def is_foundation(type_: str) -> bool:
    """Return whether the type is the component `Foundation`, which has the provider and the volumes from the configuration."""
    return type_ in (docker.FOUNDATION, kubernetes.FOUNDATION)
