"""What a plan would do to data: found before anything is touched, from what the checkpoint holds and what is wanted now.

Losing data takes three words from a person, for three things stand in the way: this, which knows why; `protect`, by which the
engine deletes it for nobody; `retain_on_delete`, by which it stays where it is even when the state forgets it
(docs/adr/020-what-stops-a-plan.md).
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
"""What TIERS_FORCE says where data is to go."""
VOLUME, CLAIM, NAMESPACE = (
    "docker:index/volume:Volume",
    "kubernetes:core/v1:PersistentVolumeClaim",
    "kubernetes:core/v1:Namespace",
)
SEVERAL = "kubernetes:postgresql.cnpg.io/v1:Cluster"
"""A database of several instances: their claims go with it."""
BACKUP = "environment.tiers.database.backup"
"""The volume of backups, and what says of it where it is."""
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, kw_only=True)
class Store:
    """Something that holds data, as its resource's inputs say: `place` is what the platform knows it by."""

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
    """Why an update is not begun. `store` is what it would delete; None if it would break what there is."""

    wrong: str
    fix: str
    store: Store | None = None
    forced: bool = True
    """Whether a person may have it so all the same."""

    def said(self) -> str:
        if not self.forced:
            return f"{self.wrong}; {self.fix}"
        first = "set environment.protect_data: false, `make up`, then " if self.store and self.store.protected else ""
        return f"{self.wrong}; {self.fix}. To have it so all the same: {first}`make up FORCE={FORCE}` (TIERS_FORCE={FORCE})"


def forced(variables: Mapping[str, str]) -> bool:
    """Whether TIERS_FORCE says that data may go."""
    return variables.get("TIERS_FORCE") == FORCE


def refuse(
    known: Checkpoint,
    app: App,
    environment: Environment,
    wanted: Mapping[str, tuple[str, Mapping[str, Any]]],
    holding: Sequence[Workload | DatabaseCluster],
    forced: bool,
) -> None:
    """Stop a plan that would lose data. `wanted` are the type and inputs of whatever `holding` will hold it in, by name.

    Raises:
        ConfigError: it would, and nobody has said that it may (`forced`), or has said it of data that is protected.
    """
    # Several instances have files of their own, and data is moved into them: these may be of another version than the single one's.
    databases = [each for each in holding if each.tier == TierName.DATABASE]
    single = next((each.image.reference for each in databases if isinstance(each, Workload)), None)
    several = next((each.image.reference for each in databases if isinstance(each, DatabaseCluster)), None)
    found = [
        *losses(held(known), {name: Store.of(*each) for name, each in wanted.items()}, app, environment),
        *another_major(major_held(known), single),
        *another_major_of_several(major_of_several(known), several),
    ]
    standing = [loss for loss in found if not (forced and loss.forced and not (loss.store and loss.store.protected))]
    if standing:
        raise ConfigError("\n".join(loss.said() for loss in standing))


def held(known: Checkpoint) -> dict[str, Store]:
    """What holds data now, by name. A namespace does: all in it goes with it."""
    return {
        entry.name if entry.type != NAMESPACE else "namespace": Store.of(
            entry.type, entry.inputs, protected=entry.protect
        )
        for entry in known.entries
        if entry.type in (CLAIM, NAMESPACE, SEVERAL, VOLUME) and not _replaceable(entry)
    }


def _replaceable(entry: Entry) -> bool:
    """What an update fills itself, as the volumes of secrets and scripts, and what was only observed: no data of the application."""
    component = entry.parent.rpartition("::")[0].rpartition(":")[2]
    files = component != "Ground" and re.search(r"-secrets-|-scripts$", entry.name)
    return bool(files) or component in ("Gateway", "Monitoring")


def losses(
    there: Mapping[str, Store], wanted: Mapping[str, Store], app: App, environment: Environment
) -> Iterator[Loss]:
    """What would be deleted, made anew, or can't be had, of what holds data."""
    for name, store in sorted(there.items()):
        if store.platform != environment.platform:
            wrong = f"environment.platform: {environment.platform} has none of this data, and {_deleted(store)}"
            yield Loss(wrong=wrong, fix=f"keep {store.platform}, or make it another stack", store=store)
        elif name not in wanted:
            yield _gone(name, store, app, environment)
        else:
            yield from _changed(name, store, wanted[name])


def _deleted(store: Store) -> str:
    return f"{store.place} would be deleted with all that it holds"


def _gone(name: str, store: Store, app: App, environment: Environment) -> Loss:
    deleted = _deleted(store)
    if store.type == NAMESPACE:
        wrong = f"environment.kubernetes.namespace.create: false leaves it to somebody else, and {deleted}"
        return Loss(wrong=wrong, fix="keep it true", store=store)
    tier = next((each for each in (TierName.DATABASE, TierName.CACHE) if name.startswith(f"{each}-")), None)
    if tier and tier not in app.names:
        return Loss(wrong=f"app.{tier}: it is not described any more, and {deleted}", fix="describe it", store=store)
    if tier and environment.size(tier).external:
        wrong = f"environment.tiers.{tier}.external: what is there does not go along, and {deleted}"
        return Loss(wrong=wrong, fix="take it out, or bring the data there first", store=store)
    if tier is TierName.DATABASE and store.type == CLAIM and environment.size(tier).ha:
        wrong = f"environment.tiers.{tier}.single: what the single one holds does not come into the three by itself, and {deleted}"
        return Loss(wrong=wrong, fix="set it to live, and `make move` (docs/data.md#from-one-to-three)", store=store)
    if tier and name.startswith(f"{tier}-data-") and not environment.size(tier).ha:
        wrong = (
            f"environment.tiers.{tier}.ha: one alone has the data of the first, which may lack the last, and {deleted}"
        )
        return Loss(wrong=wrong, fix="keep it true (docs/data.md#cache)", store=store)
    if tier:
        wrong = f"environment.tiers.{tier}.ha: as it is now {name} is not used any more, and {deleted}"
        return Loss(wrong=wrong, fix="put it back, or see that its data is where it is wanted", store=store)
    if name == BACKUPS:
        wrong = f"{BACKUP}.target: it is no volume any more, and {deleted}"
        return Loss(wrong=wrong, fix="keep {volume: true} until nobody wants any of these back", store=store)
    wrong = f"app: no tier has the volume {name} any more, and {deleted}"
    return Loss(wrong=wrong, fix="give it back its name, on the tier that writes to it", store=store)


def _changed(name: str, old: Store, new: Store) -> Iterator[Loss]:
    path = f"{BACKUP}.target" if name == BACKUPS else f"environment.tiers.{old.tier}"
    if old.place != new.place:
        named = "the stack" if old.type == VOLUME else "the stack, or environment.kubernetes.namespace.name"
        wrong = f"{name}: its data is in {old.place}, and would be looked for in {new.place}; {_deleted(old)}"
        yield Loss(wrong=wrong, fix=f"call {named} as before", store=old)
    if old.storage_class != new.storage_class:
        change = f"{old.storage_class or 'the default'} becomes {new.storage_class or 'the default'}"
        wrong = f"{path}.storage_class: {change}, which no claim can, so {_deleted(old)}"
        yield Loss(wrong=wrong, fix="keep it", store=old)
    if old.modes != new.modes:
        wrong = f"{path}: {', '.join(old.modes)} becomes {', '.join(new.modes)}, which no claim can, so {_deleted(old)}"
        yield Loss(wrong=wrong, fix="keep the version of this program that made it", store=old)
    if old.size and new.size and new.size < old.size:
        wrong = (
            f"{path}.storage: it is {_written(old.size)} and can't become {_written(new.size)}, for no claim shrinks"
        )
        fix = f"give at least {_written(old.size)} (docs/data.md#storage)"
        yield Loss(wrong=wrong, fix=fix, forced=False)


# ---------------------------------------------------------------------- another PostgreSQL


def major(image: str | None) -> int | None:
    """The major version that a reference names: of postgres:15-bookworm 15; None where its tag does not say it."""
    tag = (image or "").partition("@")[0].rpartition("/")[2].partition(":")[2]
    found = re.match(r"v?(\d{1,3})(?!\d)", tag)
    return int(found[1]) if found else None


def major_held(known: Checkpoint) -> int | None:
    """That of the database that runs; on Docker a container has only its image's id."""
    names = {entry.outputs.get("imageId"): str(entry.inputs.get("name")) for entry in known.entries}
    for entry in known.entries:
        if entry.runs and entry.tier == TierName.DATABASE and entry.type != SEVERAL:
            template = entry.inputs.get("spec", {}).get("template")
            image = template["spec"]["containers"][0]["image"] if template else names.get(entry.inputs.get("image"))
            return major(image)
    return None


def another_major(old: int | None, wanted: str | None) -> Iterator[Loss]:
    """No PostgreSQL starts over the files of another major version: it would stop what is live, and not come up."""
    new = major(wanted)
    if old and new and old != new:
        wrong = f"app.database.image: PostgreSQL {new} can't read the files of {old}, and would not start"
        yield Loss(wrong=wrong, fix=f"keep {old}, or bring the data over (docs/data.md#another-postgresql)")


def major_of_several(known: Checkpoint) -> int | None:
    """That of the database of several instances that runs."""
    images = (entry.inputs.get("spec", {}).get("imageName") for entry in known.entries if entry.type == SEVERAL)
    return next((major(image) for image in images), None)


def another_major_of_several(old: int | None, wanted: str | None) -> Iterator[Loss]:
    """CloudNativePG does it all the same: nobody is answered meanwhile, and there is nothing left to go back to."""
    new = major(wanted)
    if old and new and old != new:
        wrong = f"app.database.ha_image: for PostgreSQL {new} all instances are stopped, the files of {old} converted where they are, and replicas' deleted"
        yield Loss(wrong=wrong, fix=f"keep {old} (docs/data.md#another-postgresql)")


# ---------------------------------------------------------------------- sizes


def _bytes(written: str) -> int | None:
    match = re.fullmatch(r"(\d+)([KMGT]i)?", written)
    return int(match[1]) * _UNITS[match[2] or ""] if match else None


def _written(size: int) -> str:
    unit = next(unit for unit in reversed(_UNITS) if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}"
