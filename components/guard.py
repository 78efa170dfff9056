"""Protection of data: a plan that would lose data is refused before anything changes, by comparing checkpoint and configuration.

Three barriers prevent the loss of data, so a person has to confirm it three times. This module refuses the plan with a
reason. `protect` makes Pulumi refuse to delete a resource. `retain_on_delete` keeps the object on its platform even when
the state drops it (docs/adr/020-what-stops-a-plan.md).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint, Entry
from .config import App, ConfigError, Environment, TierName
from .names import BACKUPS
from .workload import DatabaseCluster, Workload

FORCE = "data"
"""Value of TIERS_FORCE that permits the loss of data."""
VOLUME, CLAIM, NAMESPACE = (
    "docker:index/volume:Volume",
    "kubernetes:core/v1:PersistentVolumeClaim",
    "kubernetes:core/v1:Namespace",
)
SEVERAL = "kubernetes:postgresql.cnpg.io/v1:Cluster"
"""Resource type of a database cluster. Its claims are deleted with it."""
BACKUP = "environment.tiers.database.backup"
"""Config path of the backups, whose `target` says where they are."""
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class Store:
    """A resource that holds data, by its inputs. `place` is its name on the platform."""

    type: str
    place: str
    size: int | None = None
    storage_class: str | None = None
    modes: tuple[str, ...] = ()
    tier: str | None = None
    protected: bool = False

    @property
    def platform(self) -> str:
        return self.type.partition(":")[0]

    @classmethod
    def of(cls, kind: str, inputs: Mapping[str, Any], *, protected: bool = False) -> "Store":
        if kind == VOLUME:
            return cls(type=kind, place=str(inputs["name"]), protected=protected)
        metadata: Mapping[str, Any] = inputs["metadata"]
        spec: Mapping[str, Any] = inputs.get("spec") or {}
        labels: Mapping[str, str] = metadata.get("labels") or {}
        storage: Mapping[str, Any] = spec.get("storage") or {}
        requested = spec["resources"]["requests"]["storage"] if kind == CLAIM else storage.get("size")
        return cls(
            type=kind,
            place="/".join(filter(None, (metadata.get("namespace"), metadata["name"]))),
            size=_bytes(str(requested)) if requested else None,
            storage_class=spec.get("storageClassName") or storage.get("storageClass"),
            modes=tuple(spec.get("accessModes") or ()),
            tier=labels.get("app.kubernetes.io/component"),
            protected=protected,
        )


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The reason to refuse an update. `store` is the data it would delete, or None if it would break a running database."""

    wrong: str
    fix: str
    store: Store | None = None
    forced: bool = True
    """True if a person may force the update."""

    def said(self) -> str:
        if not self.forced:
            return f"{self.wrong}; {self.fix}"
        first = "set environment.protect_data: false, `make up`, then " if self.store and self.store.protected else ""
        return f"{self.wrong}; {self.fix}. To force it: {first}`make up FORCE={FORCE}` (TIERS_FORCE={FORCE})"


def forced(variables: Mapping[str, str]) -> bool:
    """Tell whether TIERS_FORCE permits the loss of data."""
    return variables.get("TIERS_FORCE") == FORCE


def refuse(
    known: Checkpoint,
    app: App,
    environment: Environment,
    wanted: Mapping[str, tuple[str, Mapping[str, Any]]],
    holding: Sequence[Workload | DatabaseCluster],
    forced: bool,
) -> None:
    """Refuse a plan that would lose data.

    Args:
        known: the stack's checkpoint.
        app: the application.
        environment: the environment.
        wanted: name → type and inputs of each resource that will hold data.
        holding: the workloads that hold data.
        forced: True if TIERS_FORCE permits the loss.

    Raises:
        ConfigError: the plan would lose data, and `forced` is false or the data is protected.
    """
    # A cluster has its own files and data is copied into it, so its major version may differ from the single instance's.
    databases = [data for data in holding if data.tier == TierName.DATABASE]
    single = next((data.image.reference for data in databases if isinstance(data, Workload)), None)
    cluster = next((data.image.reference for data in databases if isinstance(data, DatabaseCluster)), None)
    risks = [
        *losses(held(known), {name: Store.of(*resource) for name, resource in wanted.items()}, app, environment),
        *another_major(major_held(known), single),
        *another_major_of_several(major_of_several(known), cluster),
    ]
    blocking = [loss for loss in risks if not (forced and loss.forced and not (loss.store and loss.store.protected))]
    if blocking:
        raise ConfigError("\n".join(loss.said() for loss in blocking))


def held(known: Checkpoint) -> dict[str, Store]:
    """Return the resources that hold data now, by name. A namespace is one: everything in it is deleted with it."""
    return {
        entry.name if entry.type != NAMESPACE else "namespace": Store.of(
            entry.type, entry.inputs, protected=entry.protect
        )
        for entry in known.entries
        if entry.type in (CLAIM, NAMESPACE, SEVERAL, VOLUME) and not _replaceable(entry)
    }


def _replaceable(entry: Entry) -> bool:
    """Tell whether a volume holds no data of the application.

    Such volumes are filled by an update (secrets, scripts), or belong to the gateway or to monitoring.
    """
    component = entry.parent.rpartition("::")[0].rpartition(":")[2]
    files = component != "Ground" and re.search(r"-secrets-|-scripts$", entry.name)
    return bool(files) or component in ("Gateway", "Monitoring")


def losses(
    stored: Mapping[str, Store], wanted: Mapping[str, Store], app: App, environment: Environment
) -> Iterator[Loss]:
    """Yield the data that an update would delete or replace, and the changes that a claim can't take."""
    for name, store in sorted(stored.items()):
        if store.platform != environment.platform:
            wrong = f"environment.platform: {environment.platform} has none of this data, and {_deleted(store)}"
            yield Loss(wrong=wrong, fix=f"keep {store.platform}, or use another stack", store=store)
        elif name not in wanted:
            yield _gone(name, store, app, environment)
        else:
            yield from _changed(name, store, wanted[name])


def _deleted(store: Store) -> str:
    return f"{store.place} would be deleted with all that it holds"


def _gone(name: str, store: Store, app: App, environment: Environment) -> Loss:
    deleted = _deleted(store)
    if store.type == NAMESPACE:
        wrong = f"environment.kubernetes.namespace.create: false removes the namespace from this stack, and {deleted}"
        return Loss(wrong=wrong, fix="keep create: true", store=store)
    tier = next((data for data in (TierName.DATABASE, TierName.CACHE) if name.startswith(f"{data}-")), None)
    if tier and tier not in app.names:
        return Loss(wrong=f"app.{tier}: it is not described any more, and {deleted}", fix="describe it", store=store)
    if tier and environment.size(tier).external:
        wrong = f"environment.tiers.{tier}.external: data is not copied to the external service, and {deleted}"
        return Loss(wrong=wrong, fix="remove it, or copy the data first", store=store)
    if tier is TierName.DATABASE and store.type == CLAIM and environment.size(tier).ha:
        wrong = f"environment.tiers.{tier}.single: data of the single instance is not copied into the cluster, and {deleted}"
        return Loss(
            wrong=wrong, fix="set single: live, then run `make move` (docs/data.md#from-one-to-three)", store=store
        )
    if tier and name.startswith(f"{tier}-data-") and not environment.size(tier).ha:
        wrong = f"environment.tiers.{tier}.ha: without it only member 0's volume is kept; it may miss the latest writes, and {deleted}"
        return Loss(wrong=wrong, fix="keep ha: true (docs/data.md#cache)", store=store)
    if tier:
        wrong = f"environment.tiers.{tier}.ha: {name} is no longer used, and {deleted}"
        return Loss(wrong=wrong, fix="restore the former value, or move the data first", store=store)
    if name == BACKUPS:
        wrong = f"{BACKUP}.target: it is no volume any more, and {deleted}"
        return Loss(wrong=wrong, fix="keep {volume: true} until these backups are no longer needed", store=store)
    wrong = f"app: no tier has the volume {name} any more, and {deleted}"
    return Loss(wrong=wrong, fix="restore its name on the tier that writes to it", store=store)


def _changed(name: str, old: Store, new: Store) -> Iterator[Loss]:
    path = f"{BACKUP}.target" if name == BACKUPS else f"environment.tiers.{old.tier}"
    if old.place != new.place:
        setting = (
            "the name of the stack"
            if old.type == VOLUME
            else "the name of the stack or environment.kubernetes.namespace.name"
        )
        wrong = f"{name}: its data is in {old.place}, and would be looked for in {new.place}; {_deleted(old)}"
        yield Loss(wrong=wrong, fix=f"restore {setting}", store=old)
    if old.storage_class != new.storage_class:
        change = f"{old.storage_class or 'the default'} becomes {new.storage_class or 'the default'}"
        wrong = f"{path}.storage_class: {change}, and a claim can't change its class, so {_deleted(old)}"
        yield Loss(wrong=wrong, fix="keep the former class", store=old)
    if old.modes != new.modes:
        wrong = f"{path}: {', '.join(old.modes)} becomes {', '.join(new.modes)}, and a claim can't change its access modes, so {_deleted(old)}"
        yield Loss(wrong=wrong, fix="keep the version of this program that created the claim", store=old)
    if old.size and new.size and new.size < old.size:
        wrong = f"{path}.storage: it is {_written(old.size)} and can't become {_written(new.size)}, because a claim can't shrink"
        fix = f"give at least {_written(old.size)} (docs/data.md#storage)"
        yield Loss(wrong=wrong, fix=fix, forced=False)


# ---------------------------------------------------------------------- another PostgreSQL


def major(image: str | None) -> int | None:
    """Return the major version in an image reference, as 15 for postgres:15-bookworm; None if the tag has none."""
    tag = (image or "").partition("@")[0].rpartition("/")[2].partition(":")[2]
    match = re.match(r"v?(\d{1,3})(?!\d)", tag)
    return int(match[1]) if match else None


def major_held(known: Checkpoint) -> int | None:
    """Return the major version of the running single instance. On Docker a container only has its image's id."""
    names = {entry.outputs.get("imageId"): str(entry.inputs.get("name")) for entry in known.entries}
    for entry in known.entries:
        if entry.runs and entry.tier == TierName.DATABASE and entry.type != SEVERAL:
            template = entry.inputs.get("spec", {}).get("template")
            image = template["spec"]["containers"][0]["image"] if template else names.get(entry.inputs.get("image"))
            return major(image)
    return None


def another_major(old: int | None, wanted: str | None) -> Iterator[Loss]:
    """Yield a loss if the major version changes: PostgreSQL can't start on files of another major version."""
    new = major(wanted)
    if old and new and old != new:
        wrong = f"app.database.image: PostgreSQL {new} can't read the files of {old}, and would not start"
        yield Loss(wrong=wrong, fix=f"keep {old}, or migrate the data (docs/data.md#another-postgresql)")


def major_of_several(known: Checkpoint) -> int | None:
    """Return the major version of the running database cluster."""
    images = (entry.inputs.get("spec", {}).get("imageName") for entry in known.entries if entry.type == SEVERAL)
    return next((major(image) for image in images), None)


def another_major_of_several(old: int | None, wanted: str | None) -> Iterator[Loss]:
    """Yield a loss if the major version of a cluster changes.

    CloudNativePG converts the files in place: the database is down meanwhile, and the old files are gone afterwards.
    """
    new = major(wanted)
    if old and new and old != new:
        wrong = f"app.database.ha_image: PostgreSQL {new} would stop all instances, convert the files of {old} in place and delete those of the replicas"
        yield Loss(wrong=wrong, fix=f"keep {old} (docs/data.md#another-postgresql)")


# ---------------------------------------------------------------------- sizes


def _bytes(written: str) -> int | None:
    match = re.fullmatch(r"(\d+)([KMGT]i)?", written)
    return int(match[1]) * _UNITS[match[2] or ""] if match else None


def _written(size: int) -> str:
    unit = next(unit for unit in reversed(_UNITS) if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}"
