"""Slots, releases and plans: the slot that a release goes to, and whether traffic moves. Pure; docs/blue-green.md has the invariants."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import StrEnum
from typing import Any, cast

from pulumi import RunError

from .workload import Route, Workload


class ReleaseError(RunError):
    """A refused release action. The message says why, and what to do instead."""


class Slot(StrEnum):
    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> "Slot":
        return Slot.GREEN if self is Slot.BLUE else Slot.BLUE


class Ask(StrEnum):
    """The release action of an update (TIERS_RELEASE)."""

    CONFIGURED = "configured"
    """Deploy the release that the configuration describes."""
    PROMOTE = "promote"
    """Deploy the configured release and make it live, after a person has approved it."""
    PREVIOUS = "previous"
    """Make the previous live release live again."""


FORCES = ("contract", "data")
"""Values of TIERS_FORCE: going back past a migration that breaks the release before it, and losing data."""


def asked(variables: Mapping[str, str]) -> tuple[Ask, bool]:
    """Parse the release action (TIERS_RELEASE), and whether TIERS_FORCE names `contract`.

    The other value of TIERS_FORCE, `data`, is read by `guard`.

    Raises:
        ReleaseError: a variable has an unknown value.
    """
    action, force = variables.get("TIERS_RELEASE") or Ask.CONFIGURED, variables.get("TIERS_FORCE") or ""
    if action not in [*Ask]:
        raise ReleaseError(f"TIERS_RELEASE: {action!r:.40} is no release action; use {', '.join(Ask)}")
    if force not in ("", *FORCES):
        raise ReleaseError(f"TIERS_FORCE: {force!r:.40} can't be forced; use {' or '.join(FORCES)}, or leave it out")
    return Ask(action), force == "contract"


def named_live(variables: Mapping[str, str]) -> Slot | bool | None:
    """Return the slot that a person declares live (TIERS_LIVE), None if they declare that none is, False if the variable is not set.

    Raises:
        ReleaseError: the value is no slot.
    """
    name = variables.get("TIERS_LIVE") or ""
    if name not in ("", "none", *Slot):
        raise ReleaseError(f"TIERS_LIVE: there is no slot {name!r:.40}; use {', '.join(Slot)} or none, or leave it out")
    return Slot(name) if name in [*Slot] else None if name else False


@dataclass(frozen=True, kw_only=True)
class Release:
    """The content of a slot. The version is its name for people, the digest of its content identifies it."""

    version: str
    digest: str
    parts: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, hash=False)
    """Digest of each part, to list the differences of two releases."""
    routes: tuple[Route, ...] = field(default=(), compare=False)
    """Routes to the release's tiers."""
    contract: bool = field(default=False, compare=False)
    """True if its migration breaks the release before it."""

    def __str__(self) -> str:
        return f"{self.version}-{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Held:
    """The state of a slot. `proven` is true if its release passed every gate; `order` is the number of the switch it was made for."""

    release: Release
    proven: bool
    order: int = 0
    lost: bool = False
    """True if a part of the release is gone and can't be restored."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The state of a stack before an update.

    `switches` counts the switches so far. `missing` is true if the checkpoint lacks the last one.
    """

    live: Slot | None = None
    held: Mapping[Slot, Held] = field(default_factory=dict[Slot, Held])
    switches: int = 0
    missing: bool = False

    @property
    def standby(self) -> Held | None:
        """The state of the idle slot, if its release passed its gates."""
        state = self.held.get(self.live.other) if self.live else None
        return state if state and state.proven else None

    @property
    def waiting(self) -> bool:
        """True if the standby has never been live: it waits for promotion."""
        return bool(self.standby and self.standby.order > self.switches)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The effect of an update: slot `render` gets `release`, the slots in `keep` stay unchanged, `live` is live afterwards.

    `waits` is true if the release must be promoted before traffic moves to it. `restores` is true if the switch that made the
    previous slot live is lost and recreated first.
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
        """True if traffic moves to another slot."""
        return self.live is not self.previous

    def rests(self, slot: Slot, observed: Observed) -> bool:
        """Tell whether a kept slot is the standby of the live release, and not a release that waits for promotion."""
        return slot is not self.live and not (observed.waiting and slot is not observed.live)


def plan(
    observed: Observed,
    desired: Release,
    ask: Ask = Ask.CONFIGURED,
    past_contract: bool = False,
    *,
    manual: bool = False,
) -> Plan:
    """Return the plan for `desired`: no change if it is live, a switch if the standby has it, else a deployment to the idle slot.

    With `manual`, traffic moves only on request: to the waiting release, or back to the previous one. The first release of a
    stack needs no promotion, because nothing is live.

    Args:
        observed: the state before the update.
        desired: the configured release.
        ask: the release action.
        past_contract: allow going back past a migration that breaks the older release.
        manual: require promotion (`environment.release.promote`).

    Raises:
        ReleaseError: no slot has the requested release, or a later migration breaks it and `past_contract` is false.
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
    is_standby = standby is not None and standby.release.digest == desired.digest
    if ask is Ask.PROMOTE and not is_standby:
        raise ReleaseError(
            f"there is nothing to promote: {idle} has no {desired} that passed its gates; run `pulumi up` first"
        )
    if current and current.release.digest == desired.digest and not current.lost:
        keep = (live, idle) if standby else (live,)
        return Plan(
            live=live, release=current.release, render=None, keep=keep, switches=observed.switches, previous=live
        )
    waits = manual and ask is Ask.CONFIGURED
    target = live if waits else idle
    switches = observed.switches + (target is not live)
    if standby and is_standby:
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
            "release would run on data it does not understand; fix it with a new release, or force it with "
            "TIERS_FORCE=contract"
        )


def explain(observed: Observed, done: Plan) -> str:
    """Return the effect of an update in words, for reviewers."""
    again = f"the switch to {done.previous} is lost and recreated" if done.restores else ""
    if not done.render and not done.moves:
        waits = f"{done.live.other} waits to be promoted" if done.waits else ""
        return "; ".join(filter(None, ("nothing of the release changes", waits, again)))
    current = observed.held.get(observed.live) if observed.live else None
    target = done.render or done.live
    lines: list[str] = [again] if again else []
    if done.render:
        replaced = observed.held.get(target)
        instead = f", in place of {replaced.release}" if replaced else ""
        lines.append(f"{target} gets {done.release}{instead}")
        before: Mapping[str, str] = current.release.parts if current else {}
        lines.append(f"it differs in {', '.join(differences(before, done.release.parts)) or 'its version'}")
        migrations = sorted(part for part in done.release.parts if part.endswith(".migrate"))
        breaks = " (contract: it breaks the release before it)" if done.release.contract else ""
        lines.append(f"migration: {', '.join(migrations) or 'none'}{breaks}")
    if current:
        if current.lost:
            lines.append(f"a part of {observed.live} is lost and can't be restored, so the release is deployed again")
        lines.append(f"{observed.live} stays live with {current.release}" + ("" if done.waits else " until the switch"))
    lines.append(
        "nothing switches: it waits to be promoted"
        if done.waits
        else f"switch {done.switches} moves all traffic to {done.live}, {done.release}"
    )
    return "; ".join(lines)


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return the sorted names of the parts that differ."""
    return sorted(part for part in {*one, *other} if one.get(part) != other.get(part))


def identify(version: str, content: Iterable[Workload | Route], *, contract: bool = False) -> Release:
    """Return the release of this content. Its digest covers the version and all of the content, in any order."""
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
    """Return routes from the checkpoint. Fields that only another version of this program has are dropped."""
    return tuple(Route(**_current_fields(route)) for route in routes)


def _current_fields(route: Mapping[str, Any]) -> dict[str, Any]:
    values = {part.name: route[part.name] for part in fields(Route) if part.name in route}
    return {name: tuple(cast(list[str], value)) if isinstance(value, list) else value for name, value in values.items()}


def _parts(plain: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the digest of a workload, and of each of its tasks; or the digest of a tier's route."""
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
