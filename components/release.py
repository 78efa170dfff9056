"""Slots and plans: which slot a release goes to and whether traffic moves. Pure; docs/blue-green.md has the invariants."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, cast

from pulumi import RunError

from .workload import Route, Workload


class ReleaseError(RunError):
    """The release that was asked for can't be had; the message says why and what to do instead."""


class Slot(StrEnum):
    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> "Slot":
        return Slot.GREEN if self is Slot.BLUE else Slot.BLUE


class Ask(StrEnum):
    """What an update is asked for (TIERS_RELEASE)."""

    CONFIGURED = "configured"
    """The release that the configuration describes."""
    PROMOTE = "promote"
    """The same, and that it goes live now that somebody has looked at it."""
    PREVIOUS = "previous"
    """The release that was live before."""


FORCES = ("contract", "data")
"""What TIERS_FORCE may name: going back past a migration that breaks the release before it; losing data."""


def asked(variables: Mapping[str, str]) -> tuple[Ask, bool]:
    """What the variables of the environment ask for: TIERS_RELEASE; and whether TIERS_FORCE names `contract`.

    What else it may name, `data`, is asked where data is looked after (`guard`).

    Raises:
        ReleaseError: they ask for something else.
    """
    given, force = variables.get("TIERS_RELEASE") or Ask.CONFIGURED, variables.get("TIERS_FORCE") or ""
    if given not in [*Ask]:
        raise ReleaseError(f"TIERS_RELEASE: there is no {given!r:.40}; use {', '.join(Ask)}")
    if force not in ("", *FORCES):
        raise ReleaseError(f"TIERS_FORCE: {force!r:.40} can't be forced; use {' or '.join(FORCES)}, or leave it out")
    return Ask(given), force == "contract"


def named_live(variables: Mapping[str, str]) -> Slot | bool | None:
    """Return the slot that a person says is live (TIERS_LIVE), None if nothing is; False if the variable is not set.

    Raises:
        ReleaseError: it is no slot.
    """
    name = variables.get("TIERS_LIVE") or ""
    if name not in ("", "none", *Slot):
        raise ReleaseError(f"TIERS_LIVE: there is no slot {name!r:.40}; use {', '.join(Slot)} or none, or leave it out")
    return Slot(name) if name in [*Slot] else None if name else False


@dataclass(frozen=True, kw_only=True)
class Release:
    """What a slot runs: the version is what people call it, the digest of its content is what it is."""

    version: str
    digest: str
    parts: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, hash=False)
    """The digest of each of its parts: what two releases differ in."""
    routes: tuple[Route, ...] = field(default=(), compare=False)
    """Which requests go to which of its tiers."""
    contract: bool = field(default=False, compare=False)
    """Whether its migration breaks the release before it."""

    def __str__(self) -> str:
        return f"{self.version}-{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a slot holds: `proven` if every gate has let it pass, `order` the number of the switch it was made for."""

    release: Release
    proven: bool
    order: int = 0
    lost: bool = False
    """True if a part of the release is gone and can't be made again."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The state before an update. `switches` counts the switches so far; `missing` is true if the checkpoint lacks the last."""

    live: Slot | None = None
    held: Mapping[Slot, Held] = field(default_factory=dict[Slot, Held])
    switches: int = 0
    missing: bool = False

    @property
    def standby(self) -> Held | None:
        """What the slot that is not live holds, if it may go live."""
        found = self.held.get(self.live.other) if self.live else None
        return found if found and found.proven else None

    @property
    def waiting(self) -> bool:
        """Whether the standby has never been live: it waits for somebody's word."""
        return bool(self.standby and self.standby.order > self.switches)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an update does: `render` gets `release`, `keep` stay as they are, `live` is live afterwards.

    `waits` if the release has to be promoted before traffic moves to it. `restores` if the switch that made the previous
    slot live is lost and made again, before anything else.
    """

    live: Slot
    release: Release
    render: Slot | None
    keep: tuple[Slot, ...]
    switches: int
    previous: Slot | None
    waits: bool = False
    restores: bool = False

    @property
    def moves(self) -> bool:
        """Whether traffic moves to another slot."""
        return self.live is not self.previous

    def rests(self, slot: Slot, observed: Observed) -> bool:
        """Whether a slot that is kept is the standby of what is live, and not one that waits to be promoted."""
        return slot is not self.live and not (observed.waiting and slot is not observed.live)


def plan(
    observed: Observed,
    desired: Release,
    ask: Ask = Ask.CONFIGURED,
    past_contract: bool = False,
    *,
    manual: bool = False,
) -> Plan:
    """Return where `desired` goes: nowhere if it is live, to its slot if the standby holds it, else to the idle slot.

    With `manual`, traffic moves only when it is asked to: to the release that waits, or back to the previous one. The
    first release of all waits for nobody, for nothing is live.

    Raises:
        ReleaseError: what is asked for is not there, or going back would be past a migration that breaks it and
            `past_contract` does not allow it.
    """
    done = _plan(observed, desired, ask, past_contract, manual=manual)
    return replace(done, restores=observed.missing)


def _plan(observed: Observed, desired: Release, ask: Ask, past_contract: bool, *, manual: bool) -> Plan:
    live, standby = observed.live, observed.standby
    if live is None:
        if ask is not Ask.CONFIGURED:
            raise ReleaseError(f"{ask}: nothing is live yet; run `pulumi up` to deploy a release")
        number = observed.switches + 1
        return Plan(live=Slot.BLUE, release=desired, render=Slot.BLUE, keep=(), switches=number, previous=None)
    current, idle = observed.held.get(live), live.other
    if ask is Ask.PREVIOUS:
        if not standby or observed.waiting:
            waits = f" ({standby.release} waits there to be promoted)" if standby else ""
            raise ReleaseError(f"there is nothing to go back to: {idle} holds no release that was live{waits}")
        desired = standby.release
    held = standby is not None and standby.release.digest == desired.digest
    if ask is Ask.PROMOTE and not held:
        raise ReleaseError(
            f"there is nothing to promote: {idle} does not hold {desired}, proven; run `pulumi up` first"
        )
    if current and current.release.digest == desired.digest and not current.lost:
        keep = (live, idle) if standby else (live,)
        return Plan(
            live=live, release=current.release, render=None, keep=keep, switches=observed.switches, previous=live
        )
    waits = manual and ask is Ask.CONFIGURED
    target = live if waits else idle
    switches = observed.switches + (target is not live)
    if standby and held:
        if not waits and not past_contract:
            _refuse_past_contract(current, standby)
        release = current.release if waits and current else standby.release
        return Plan(
            live=target,
            release=release,
            render=None,
            keep=(live, idle),
            switches=switches,
            previous=live,
            waits=waits,
        )
    return Plan(live=target, release=desired, render=idle, keep=(live,), switches=switches, previous=live, waits=waits)


def _refuse_past_contract(current: Held | None, older: Held) -> None:
    if current and current.release.contract and older.order < current.order:
        raise ReleaseError(
            f"going back from {current.release} to {older.release} is past a migration that says `contract: true`: the older "
            "release would run on data it does not understand; mend it with a new release, or force it by "
            "TIERS_FORCE=contract"
        )


def explain(observed: Observed, done: Plan) -> str:
    """What an update is going to do, in words for a reviewer."""
    again = f"the switch to {done.previous} is lost and made again" if done.restores else ""
    if not done.render and not done.moves:
        waits = f"{done.live.other} waits to be promoted" if done.waits else ""
        return "; ".join(filter(None, ("nothing of the release changes", waits, again)))
    current = observed.held.get(observed.live) if observed.live else None
    target = done.render or done.live
    said: list[str] = [again] if again else []
    if done.render:
        gone = observed.held.get(target)
        instead = f", in place of {gone.release}" if gone else ""
        said.append(f"{target} gets {done.release}{instead}")
        before: Mapping[str, str] = current.release.parts if current else {}
        said.append(f"it differs in {', '.join(differences(before, done.release.parts)) or 'its version'}")
        migrations = sorted(part for part in done.release.parts if part.endswith(".migrate"))
        breaks = " (contract: it breaks the release before it)" if done.release.contract else ""
        said.append(f"migration: {', '.join(migrations) or 'none'}{breaks}")
    if current:
        if current.lost:
            said.append(f"something of {observed.live} is gone and can't be made again, so the release is made anew")
        said.append(f"{observed.live} stays live with {current.release}" + ("" if done.waits else " until the switch"))
    said.append(
        "nothing switches: it waits to be promoted"
        if done.waits
        else f"switch {done.switches} moves all traffic to {done.live}, {done.release}"
    )
    return "; ".join(said)


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The parts that are not the same in both."""
    return sorted(part for part in {*one, *other} if one.get(part) != other.get(part))


def identify(version: str, content: Iterable[Workload | Route], *, contract: bool = False) -> Release:
    """The release of this content: its digest is taken over the version and all of it, whatever its order."""
    content = tuple(content)
    plain = [_plain(part) for part in content]
    whole = sorted(json.dumps(part, sort_keys=True) for part in plain)
    parts = {name: text for part in plain for name, text in _parts(part)}
    return Release(
        version=version,
        digest=_digest(version, *whole),
        parts=dict(sorted(parts.items())),
        routes=tuple(part for part in content if isinstance(part, Route)),
        contract=contract,
    )


def recalled(routes: Iterable[Mapping[str, Any]]) -> tuple[Route, ...]:
    """Routes as the checkpoint has them; what another version of this program knew of them besides is left out."""
    return tuple(Route(**_known(route)) for route in routes)


def _known(route: Mapping[str, Any]) -> dict[str, Any]:
    values = {each.name: route[each.name] for each in fields(Route) if each.name in route}
    return {name: tuple(cast(list[str], value)) if isinstance(value, list) else value for name, value in values.items()}


def _parts(plain: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """A workload and each of its tasks for itself; what is routed to a tier."""
    tier, tasks = plain["tier"], plain.get("tasks")
    rest = {key: value for key, value in plain.items() if key != "tasks"}
    yield tier if tasks is not None else f"{tier}.route", _digest(json.dumps(rest, sort_keys=True))
    for task in tasks or ():
        yield f"{tier}.{task['name']}", _digest(json.dumps(task, sort_keys=True))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        parts = (part for part in fields(value) if part.metadata.get("released", True))
        return {part.name: _plain(getattr(value, part.name)) for part in parts}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return value
