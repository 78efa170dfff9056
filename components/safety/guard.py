"""Refuse an update that would lose data. The guard compares checkpoint and configuration before any resource changes.

The guard is the first of three barriers against the loss of data. The second is `protect`: Pulumi refuses to delete the
resource. The third is `retain_on_delete`: the object stays on its platform when Pulumi deletes the resource. To lose data, a
person must disable all three (docs/adr/020-what-stops-a-plan.md).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config import App, ConfigError, Environment
from ..model import services
from ..model.names import MEMBER_DATA
from ..model.services import DATABASE
from ..model.workload import DatabaseCluster, Workload
from ..release.checkpoint import Checkpoint, image_names
from ..state import reader
from ..state.store import Store, format_size
from ..state.types import is_claim, is_database_cluster, is_namespace, is_volume
from .data import backup_workload, holds_data, is_store, owner

FORCE = "data"
"""Value of TIERS_FORCE that allows the loss of data."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Reason to refuse an update: the update would lose data, or make a change that is impossible."""

    wrong: str
    fix: str
    store: Store | None = None
    can_be_forced: bool = True
    """True if TIERS_FORCE can allow the update."""

    def message(self) -> str:
        if not self.can_be_forced:
            return f"{self.wrong}; {self.fix}"
        first = "set environment.protect_data: false, `make up`, then " if self.store and self.store.protected else ""
        return f"{self.wrong}; {self.fix}. To update anyway: {first}`make up FORCE={FORCE}` (TIERS_FORCE={FORCE})"


def allows_data_loss(variables: Mapping[str, str]) -> bool:
    """Return whether TIERS_FORCE allows the loss of data."""
    return variables.get("TIERS_FORCE") == FORCE


def refuse(
    checkpoint: Checkpoint,
    app: App,
    environment: Environment,
    desired: Mapping[str, tuple[str, Mapping[str, Any]]],
    holding: Sequence[Workload | DatabaseCluster],
    force: bool,
) -> None:
    """Refuse an update that would lose data.

    Args:
        checkpoint: the stack's checkpoint.
        app: the application.
        environment: the environment.
        desired: resources that hold data after the update: name → type and inputs.
        holding: workloads and database clusters that store their data in these resources.
        force: True if TIERS_FORCE allows the loss.

    Raises:
        ConfigError: the update would lose data, change the major version of PostgreSQL, or shrink a claim. `force` allows the
            first two, except the loss of protected data.
    """
    # Single instance and cluster may have different versions, because `make move` copies data, not files. So compare each with
    # its own deployed version.
    databases = [data for data in holding if data.tier == DATABASE.name]
    single = next((data.image.reference for data in databases if isinstance(data, Workload)), None)
    cluster = next((data.image.reference for data in databases if isinstance(data, DatabaseCluster)), None)
    risks = [
        *losses(stored_data(checkpoint), _desired_data(desired, holding), app, environment),
        *major_change(deployed_major(checkpoint), single),
        *cluster_major_change(deployed_cluster_major(checkpoint), cluster),
    ]
    blocking = [
        loss for loss in risks if not (force and loss.can_be_forced and not (loss.store and loss.store.protected))
    ]
    if blocking:
        raise ConfigError("\n".join(loss.message() for loss in blocking))


def stored_data(checkpoint: Checkpoint) -> dict[str, Store]:
    """Return the deployed resources that hold data, by resource name.

    A namespace holds data, because its deletion deletes all objects in it. Its key in the result is always `namespace`.
    """
    return {
        "namespace" if is_namespace(entry.type) else entry.name: replace(
            _store(entry.type, entry.inputs, owner=owner(entry.parent), protected=entry.protect),
            of_store=is_store(entry.parent),
            backup=backup_workload(entry.parent),
        )
        for entry in checkpoint.entries
        if holds_data(entry.urn, entry.labels)
    }


def _desired_data(
    desired: Mapping[str, tuple[str, Mapping[str, Any]]], holding: Sequence[Workload | DatabaseCluster]
) -> dict[str, Store]:
    """Return the resources that hold data after the update, by resource name. Only volumes of stores have an owner."""
    stores = (data for data in holding if isinstance(data, Workload) and data.belongs_to == services.STORE.tier)
    owners = {volume.name: store.tier for store in stores for volume in store.volumes}
    return {
        name: replace(_store(*resource), owner=owners.get(name), of_store=name in owners)
        for name, resource in desired.items()
    }


def losses(
    stored: Mapping[str, Store], desired: Mapping[str, Store], app: App, environment: Environment
) -> Iterator[Loss]:
    """Yield a `Loss` for each resource with data that an update would delete or replace, and for each claim that would shrink."""
    for name, store in sorted(stored.items()):
        if store.platform != environment.platform:
            wrong = (
                f"environment.platform: this update does not copy data to {environment.platform}, and {_deleted(store)}"
            )
            yield Loss(wrong=wrong, fix=f"keep {store.platform}, or use another stack", store=store)
        elif name not in desired:
            yield _gone(name, store, app, environment)
        elif (store.of_store or desired[name].of_store) and store.owner != desired[name].owner:
            # The parent of the resource changes, so Pulumi would delete the resource and create another one.
            yield _moved(name, store, desired[name])
        else:
            yield from _changed(name, store, desired[name])


def _store(kind: str, inputs: Mapping[str, Any], *, owner: str | None = None, protected: bool = False) -> Store:
    return reader(inputs).store(kind, inputs, owner=owner, protected=protected)


def _deleted(store: Store) -> str:
    return f"{store.address} would be deleted with all its data"


def _gone(name: str, store: Store, app: App, environment: Environment) -> Loss:
    deleted = _deleted(store)
    if is_namespace(store.type):
        wrong = f"environment.kubernetes.namespace.create: false removes the namespace from this stack, and {deleted}"
        return Loss(wrong=wrong, fix="keep create: true", store=store)
    tier = store.owner
    if tier and store.of_store:
        return _gone_from_store(name, store, app)
    if tier and services.common_catalogue().find(tier) is None:
        wrong = f"app.{tier}: this version of the program has no service {tier}, and {deleted}"
        return Loss(wrong=wrong, fix=f"use a version that has {tier} until this data is no longer needed", store=store)
    if tier and tier not in app.names:
        return Loss(wrong=f"app.{tier}: this tier was removed, and {deleted}", fix=f"restore app.{tier}", store=store)
    if tier and environment.tier_settings(tier).external:
        wrong = f"environment.tiers.{tier}.external: data is not copied to the external service, and {deleted}"
        return Loss(wrong=wrong, fix="remove `external`, or copy the data first", store=store)
    if tier and tier == DATABASE.name and is_claim(store.type) and environment.tier_settings(tier).ha:
        wrong = f"environment.tiers.{tier}.single: data of the single instance is not copied into the cluster, and {deleted}"
        return Loss(
            wrong=wrong, fix="set single: live, then run `make move` (docs/data.md#from-one-to-three)", store=store
        )
    if tier and MEMBER_DATA.matches(name) and not environment.tier_settings(tier).ha:
        wrong = f"environment.tiers.{tier}.ha: without `ha` only the volume of member 0 is kept, which may lack the latest writes, and {deleted}"
        return Loss(wrong=wrong, fix="keep ha: true (docs/data.md#cache)", store=store)
    if tier:
        wrong = f"environment.tiers.{tier}.ha: with this value {name} is no longer used, and {deleted}"
        return Loss(wrong=wrong, fix="restore the former value, or move the data first", store=store)
    if store.backup:
        wrong = f"{_backup_path(store.backup)}.target: the target is no longer a volume, and {deleted}"
        return Loss(wrong=wrong, fix="keep {volume: true} until these backups are no longer needed", store=store)
    wrong = f"app: no tier has the volume {name} any longer, and {deleted}"
    return Loss(wrong=wrong, fix=f"restore {name} in `volumes` of the tier that writes to this volume", store=store)


def _backup_path(workload: str) -> str:
    """Return the config path of the settings of a backup workload, such as `mysql-backup`."""
    store = workload.removesuffix("backup").removesuffix("-")
    return f"environment.tiers.{store or DATABASE.name}.backup"


def _gone_from_store(name: str, store: Store, app: App) -> Loss:
    path, deleted = f"app.services.{store.owner}", _deleted(store)
    if store.owner in app.stores:
        wrong = f"{path}.volumes: the store no longer has the volume {name}, and {deleted}"
        return Loss(wrong=wrong, fix=f"restore {name} in {path}.volumes", store=store)
    wrong = f"{path}: this stack no longer has the store, and {deleted}"
    fix = f"restore {path}, and list this stack in its `environments` if it has them"
    return Loss(wrong=wrong, fix=fix, store=store)


def _moved(name: str, old: Store, new: Store) -> Loss:
    path = f"app.services.{new.owner or old.owner}"
    owners = f"from {old.owner or 'another service'} to {new.owner or 'another service'}"
    wrong = f"{path}: the volume {name} can't move {owners}, because {_deleted(old)}"
    return Loss(
        wrong=wrong, fix="restore the former name of the service, or use a new volume and copy the data", store=old
    )


def _changed(name: str, old: Store, new: Store) -> Iterator[Loss]:
    path = f"{_backup_path(old.backup)}.target" if old.backup else f"environment.tiers.{old.tier}"
    if old.address != new.address:
        setting = (
            "the name of the stack"
            if is_volume(old.type)
            else "the name of the stack or environment.kubernetes.namespace.name"
        )
        wrong = f"{name}: the data is in {old.address}, but this update would use {new.address}, and {_deleted(old)}"
        yield Loss(wrong=wrong, fix=f"restore {setting}", store=old)
    if old.storage_class != new.storage_class:
        change = f"{old.storage_class or 'the default'} becomes {new.storage_class or 'the default'}"
        wrong = f"{path}.storage_class: {change}, and a claim can't change its class, so {_deleted(old)}"
        yield Loss(wrong=wrong, fix="restore the former storage_class", store=old)
    if old.modes != new.modes:
        wrong = f"{path}: {', '.join(old.modes)} becomes {', '.join(new.modes)}, and a claim can't change its access modes, so {_deleted(old)}"
        yield Loss(wrong=wrong, fix="keep the version of this program that created the claim", store=old)
    if old.size and new.size and new.size < old.size:
        wrong = f"{path}.storage: the claim has {format_size(old.size)} and can't shrink to {format_size(new.size)}"
        fix = f"use at least {format_size(old.size)} (docs/data.md#storage)"
        yield Loss(wrong=wrong, fix=fix, can_be_forced=False)


# ---------------------------------------------------------------------- another PostgreSQL version


def major_version(image: str | None) -> int | None:
    """Return the PostgreSQL major version in an image tag, such as 15 for `postgres:15-bookworm`, or None without a version."""
    tag = (image or "").partition("@")[0].rpartition("/")[2].partition(":")[2]
    match = re.match(r"v?(\d{1,3})(?!\d)", tag)
    return int(match[1]) if match else None


def deployed_major(checkpoint: Checkpoint) -> int | None:
    """Return the PostgreSQL major version of the deployed single instance, or None without an instance or a version."""
    names = image_names(checkpoint.entries)
    for entry in checkpoint.entries:
        if entry.runs and entry.tier == DATABASE.name and not is_database_cluster(entry.type):
            return major_version(reader(entry.inputs).image(entry.inputs, names))
    return None


def major_change(old: int | None, desired: str | None) -> Iterator[Loss]:
    """Yield a `Loss` if the single instance's major version changes: PostgreSQL can't read the files of another major version."""
    new = major_version(desired)
    if old and new and old != new:
        wrong = f"app.database.image: PostgreSQL {new} can't read the files of {old}, and would not start"
        yield Loss(wrong=wrong, fix=f"keep {old}, or migrate the data (docs/data.md#another-postgresql)")


def deployed_cluster_major(checkpoint: Checkpoint) -> int | None:
    """Return the PostgreSQL major version of the deployed database cluster, or None without a cluster or a version."""
    clusters = (entry for entry in checkpoint.entries if is_database_cluster(entry.type))
    images = (reader(entry.inputs).image(entry.inputs, {}) for entry in clusters)
    return next((major_version(image) for image in images), None)


def cluster_major_change(old: int | None, desired: str | None) -> Iterator[Loss]:
    """Yield a `Loss` if the major version of a database cluster changes.

    After such a change CloudNativePG stops all instances. It then converts the files of the primary in place, and deletes the
    files of the replicas.
    """
    new = major_version(desired)
    if old and new and old != new:
        wrong = f"app.database.ha_image: PostgreSQL {new} would stop all instances, convert the files of {old} in place and delete the files of the replicas"
        yield Loss(wrong=wrong, fix=f"keep {old} (docs/data.md#another-postgresql)")
