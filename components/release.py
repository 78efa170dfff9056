"""Slots and plans: which slot a release goes to and whether traffic moves. Pure; the invariants are in docs/design.md."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any

from pulumi import RunError

from .workload import Workload


class ReleaseError(RunError):
    """The release that was asked for can't be had; the message says why and what to do instead."""


class Slot(StrEnum):
    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> "Slot":
        return Slot.GREEN if self is Slot.BLUE else Slot.BLUE


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a slot runs: the version is what people call it, the digest of its content is what it is."""

    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.version}-{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a slot holds; `proven` if every gate has let it pass."""

    release: Release
    proven: bool


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What is there before an update. `switches` counts the switches so far."""

    live: Slot | None = None
    held: Mapping[Slot, Held] = field(default_factory=dict[Slot, Held])
    switches: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an update does. `render` gets the wanted release, `keep` stay as they are, `live` is live afterwards."""

    live: Slot
    release: Release
    render: Slot | None
    keep: tuple[Slot, ...]
    switches: int
    previous: Slot | None

    @property
    def moves(self) -> bool:
        """Whether traffic moves to another slot."""
        return self.live is not self.previous


def plan(observed: Observed, desired: Release, *, back: bool = False) -> Plan:
    """Where `desired` goes: nowhere if it is live, to its slot if the standby holds it, else to the idle slot.

    With `back`, the release of the standby is wanted, whatever `desired` says.

    Raises:
        ReleaseError: `back`, and there is no standby to go back to.
    """
    live = observed.live
    if live is None:
        if back:
            raise ReleaseError("there is nothing to go back to: nothing is live; run `pulumi up` to deploy a release")
        return Plan(live=Slot.BLUE, release=desired, render=Slot.BLUE, keep=(), switches=1, previous=None)
    standby = observed.held.get(live.other)
    kept = (live.other,) if standby and standby.proven else ()
    current = observed.held.get(live)
    if back:
        if not standby or not kept:
            raise ReleaseError(f"there is nothing to go back to: {live.other} holds no release that was live")
        desired = standby.release
    elif current and current.release.digest == desired.digest:
        return Plan(
            live=live,
            release=current.release,
            render=None,
            keep=(live, *kept),
            switches=observed.switches,
            previous=live,
        )
    if standby and kept and standby.release.digest == desired.digest:
        return Plan(
            live=live.other,
            release=standby.release,
            render=None,
            keep=(live, live.other),
            switches=observed.switches + 1,
            previous=live,
        )
    return Plan(
        live=live.other,
        release=desired,
        render=live.other,
        keep=(live,),
        switches=observed.switches + 1,
        previous=live,
    )


def identify(version: str, workloads: Iterable[Workload]) -> Release:
    """The release these workloads are: its digest is taken over the version and all of them, whatever their order."""
    plain = sorted(json.dumps(_plain(workload), sort_keys=True) for workload in workloads)
    return Release(version=version, digest=hashlib.sha256("\n".join([version, *plain]).encode()).hexdigest()[:12])


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        parts = (part for part in fields(value) if part.metadata.get("released", True))
        return {part.name: _plain(getattr(value, part.name)) for part in parts}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return value
