"""Plan of an update: the slot that gets the release, and whether traffic moves.

All functions are pure. docs/blue-green.md lists the invariants of a release.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pulumi import RunError

from ..model import services
from ..model.workload import Route, Workload
from .content import to_state


class ReleaseError(RunError):
    """Error: the update is refused, because the release action is impossible or the live slot is unknown.

    The message gives the reason and the fix. No resource has been changed.

    Example:
        try:
            rollout = plan_rollout(context, application)
        except ReleaseError as error:
            pulumi.log.error(str(error))
            raise
    """


class Slot(StrEnum):
    """Name of a slot. One slot is live; the idle slot gets the next release.

    Example:
        idle = rollout.plan.live.other
    """

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> "Slot":
        """The other of the two slots."""
        return Slot.GREEN if self is Slot.BLUE else Slot.BLUE


class ReleaseAction(StrEnum):
    """Release action of an update. Users request an action by the environment variable TIERS_RELEASE.

    Example:
        plan(observed, desired, ReleaseAction.PREVIOUS)
    """

    CONFIGURED = "configured"
    """Deploy the configured release, and make it live unless promotion is manual. This is the default."""
    PROMOTE = "promote"
    """Make the configured release live. This release must be in the idle slot and have passed its gates."""
    PREVIOUS = "previous"
    """Roll back: make the release in the standby slot live again."""


FORCES = ("contract", "data")
"""Values of TIERS_FORCE: `contract` allows a rollback past a `contract: true` migration, `data` allows the loss of data."""


def parse_release_action(variables: Mapping[str, str]) -> tuple[ReleaseAction, bool]:
    """Return the value of TIERS_RELEASE, and True if TIERS_FORCE is `contract`.

    `guard.allows_data_loss` reads the other value of TIERS_FORCE, `data`.

    Raises:
        ReleaseError: a variable has an unknown value.
    """
    action, force = variables.get("TIERS_RELEASE") or ReleaseAction.CONFIGURED, variables.get("TIERS_FORCE") or ""
    if action not in [*ReleaseAction]:
        raise ReleaseError(f"TIERS_RELEASE: {action!r:.40} is not a release action; use {', '.join(ReleaseAction)}")
    if force not in ("", *FORCES):
        raise ReleaseError(
            f"TIERS_FORCE: {force!r:.40} can't be forced; use {' or '.join(FORCES)}, or unset TIERS_FORCE"
        )
    return ReleaseAction(action), force == "contract"


def declared_live(variables: Mapping[str, str]) -> Slot | bool | None:
    """Return the slot that TIERS_LIVE declares live. Return None for the value `none`, and False if TIERS_LIVE is not set.

    Raises:
        ReleaseError: the value is no slot.
    """
    name = variables.get("TIERS_LIVE") or ""
    if name not in ("", "none", *Slot):
        raise ReleaseError(
            f"TIERS_LIVE: there is no slot {name!r:.40}; use {', '.join(Slot)} or none, or unset TIERS_LIVE"
        )
    return Slot(name) if name in [*Slot] else None if name else False


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release: the content of a slot, identified by a digest of all its workloads and routes.

    Two releases are equal if version and digest are equal. `str(release)` is `VERSION-DIGEST`.

    Example:
        release = application.release
        pulumi.export("release", str(release))  # 1.4.0-3f1b9c0d2e4a
    """

    version: str
    """Configured version (`app.version`)."""
    digest: str
    """Hash of the version, all workloads and all routes: 12 hexadecimal digits."""
    parts: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, hash=False)
    """Name of each service, task (`TIER.TASK`) and route (`TIER.route`) → hash, to find the differences between two releases."""
    routes: tuple[Route, ...] = field(default=(), compare=False)
    """Routes to the services of the release."""
    contract: bool = field(default=False, compare=False)
    """True if the release has a migration with `contract: true`, which breaks the previous release."""

    @property
    def services(self) -> list[str]:
        """Names of the release's services, in the order of `SERVICES`. Services that this version does not know come last."""
        names = [part for part in self.parts if "." not in part]
        return sorted(names, key=services.common_catalogue().position)

    def __str__(self) -> str:
        return f"{self.version}-{self.digest}"


@dataclass(frozen=True, kw_only=True)
class SlotState:
    """State of a slot that has a release.

    Example:
        state = SlotState(release=Release(version="1.4.0", digest="3f1b9c0d2e4a"), proven=True, order=7)
    """

    release: Release
    """Release in the slot."""
    proven: bool
    """True if the release passed all its gates."""
    order: int = 0
    """Number of the switch that was planned when the release was deployed."""
    lost: bool = False
    """True if containers of the release are missing, and can't be recreated because their images are missing too."""


@dataclass(frozen=True, kw_only=True)
class StackState:
    """State of a stack before an update: the live slot, and the release of each slot.

    Example:
        new_stack = StackState()
        live_release = observed.slots[observed.live].release if observed.live else None
    """

    live: Slot | None = None
    """Live slot; None if no slot is live yet."""
    slots: Mapping[Slot, SlotState] = field(default_factory=dict[Slot, SlotState])
    """State of each slot that has a release."""
    switches: int = 0
    """Number of switches of the stack until now."""
    missing: bool = False
    """True if the resource of the last switch is missing from the checkpoint. The next update then restores this resource."""

    @property
    def standby(self) -> SlotState | None:
        """State of the idle slot; None if the slot has no release, or its release did not pass all gates.

        A release that waits for promotion counts too. Use `waiting` to distinguish it from a release that was live.
        """
        state = self.slots.get(self.live.other) if self.live else None
        return state if state and state.proven else None

    @property
    def waiting(self) -> bool:
        """True if the idle slot has a release that waits for promotion: it passed its gates and has never been live."""
        return bool(self.standby and self.standby.order > self.switches)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Planned effect of an update on slots and traffic.

    Example:
        done = plan(observed, application.release)
        is_new_release = done.render is not None
    """

    live: Slot
    """Slot that is live after the update."""
    release: Release
    """Release to deploy. If the update deploys no release, this is the release that is live after the update."""
    render: Slot | None
    """Slot to deploy the release to; None if the update deploys no release."""
    keep: tuple[Slot, ...]
    """Slots that keep their release."""
    switches: int
    """Number of switches of the stack after the update."""
    previous: Slot | None
    """Slot that is live before the update; None if no slot is live."""
    waits: bool = False
    """True if the release in the idle slot waits for promotion after the update."""
    restores: bool = False
    """True if the resource of the last switch is missing. The update then restores this resource first."""

    @property
    def moves(self) -> bool:
        """True if traffic moves to another slot."""
        return self.live is not self.previous

    def is_standby(self, slot: Slot, observed: StackState) -> bool:
        """Return whether a kept slot is the standby after the update: not live, and not waiting for promotion.

        Args:
            slot: the kept slot.
            observed: state of the stack before the update.
        """
        return slot is not self.live and not (observed.waiting and slot is not observed.live)


def plan(
    observed: StackState,
    desired: Release,
    action: ReleaseAction = ReleaseAction.CONFIGURED,
    past_contract: bool = False,
    *,
    manual: bool = False,
) -> Plan:
    """Plan an update of the slots. This function is pure.

    If the desired release is live already, the plan changes nothing. If the standby slot has the desired release, a switch makes
    the release live without a deployment. Otherwise the release is deployed to the idle slot. With manual promotion, traffic
    moves only for the actions `promote` and `previous`. The first release of a stack always goes live without promotion.

    Args:
        observed: state of the stack before the update.
        desired: the configured release.
        action: the requested release action.
        past_contract: True to allow a rollback past a migration that breaks the older release.
        manual: True if a person must promote a release (`environment.release.promote: manual`).

    Returns:
        The slot to deploy to, the slots to keep, and the slot that is live afterwards.

    Raises:
        ReleaseError: no slot has the requested release, or a later migration breaks this release and `past_contract` is false.

    Example:
        first = plan(StackState(), Release(version="1.0.0", digest="3f1b9c0d2e4a"))
        assert first.render is SlotName.BLUE
    """
    update = _plan(observed, desired, action, past_contract, manual=manual)
    return replace(update, restores=observed.missing)


def _plan(observed: StackState, desired: Release, action: ReleaseAction, past_contract: bool, *, manual: bool) -> Plan:
    live, standby = observed.live, observed.standby
    if live is None:
        if action is not ReleaseAction.CONFIGURED:
            raise ReleaseError(
                f"TIERS_RELEASE={action} needs a live release, but nothing is live yet; run `pulumi up` to deploy a release"
            )
        number = observed.switches + 1
        return Plan(live=Slot.BLUE, release=desired, render=Slot.BLUE, keep=(), switches=number, previous=None)
    current, idle = observed.slots.get(live), live.other
    if action is ReleaseAction.PREVIOUS:
        if not standby or observed.waiting:
            waits = f" ({standby.release} waits there to be promoted)" if standby else ""
            raise ReleaseError(
                f"there is nothing to go back to: slot {idle} has no release that was live{waits}; deploy a corrected release instead"
            )
        desired = standby.release
    is_standby = standby is not None and standby.release.digest == desired.digest
    if action is ReleaseAction.PROMOTE and not is_standby:
        raise ReleaseError(
            f"there is nothing to promote: release {desired} has not passed its gates in slot {idle}; run `pulumi up` first"
        )
    if current and current.release.digest == desired.digest and not current.lost:
        keep = (live, idle) if standby else (live,)
        return Plan(
            live=live, release=current.release, render=None, keep=keep, switches=observed.switches, previous=live
        )
    waits = manual and action is ReleaseAction.CONFIGURED
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


def _refuse_past_contract(current: SlotState | None, older: SlotState) -> None:
    if current and current.release.contract and older.order < current.order:
        raise ReleaseError(
            f"can't go back from {current.release} to {older.release}: a migration between the two has `contract: true`, so the "
            "older release may fail on the migrated data; deploy a corrected release, or force the rollback with TIERS_FORCE=contract"
        )


def explain(observed: StackState, update: Plan) -> str:
    """Describe the effect of an update, for the output of `pulumi preview`."""
    again = f"the lost switch to {update.previous} is recreated" if update.restores else ""
    if not update.render and not update.moves:
        waits = f"{update.live.other} waits to be promoted" if update.waits else ""
        return "; ".join(filter(None, ("the release does not change", waits, again)))
    current = observed.slots.get(observed.live) if observed.live else None
    target = update.render or update.live
    lines: list[str] = [again] if again else []
    if update.render:
        replaced = observed.slots.get(target)
        instead = f", in place of {replaced.release}" if replaced else ""
        lines.append(f"{target} gets {update.release}{instead}")
        before: Mapping[str, str] = current.release.parts if current else {}
        lines.append(f"it differs in {', '.join(differences(before, update.release.parts)) or 'its version'}")
        migrations = sorted(part for part in update.release.parts if part.endswith(".migrate"))
        breaks = " (contract: it breaks the release before it)" if update.release.contract else ""
        lines.append(f"migration: {', '.join(migrations) or 'none'}{breaks}")
    if current:
        if current.lost:
            lines.append(f"a part of {observed.live} is lost and can't be restored, so the release is deployed again")
        lines.append(
            f"{observed.live} stays live with {current.release}" + ("" if update.waits else " until the switch")
        )
    lines.append(
        "no traffic moves: the release waits to be promoted"
        if update.waits
        else f"switch {update.switches} moves all traffic to {update.live}, {update.release}"
    )
    return "; ".join(lines)


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Compare the `Release.parts` of two releases. Return the sorted names of the services, tasks and routes that differ."""
    return sorted(part for part in {*first, *second} if first.get(part) != second.get(part))


def identify(version: str, content: Iterable[Workload | Route], *, contract: bool = False) -> Release:
    """Return the release that consists of these workloads and routes.

    The digest depends on the version and the content, but not on the order of the content.

    Args:
        version: configured version.
        content: workloads and routes of the release.
        contract: True if a migration breaks the previous release.
    """
    content = tuple(content)
    states = [to_state(part) for part in content]
    whole = sorted(json.dumps(state, sort_keys=True) for state in states)
    parts = {name: text for state in states for name, text in _parts(state)}
    return Release(
        version=version,
        digest=_digest(version, *whole),
        parts=dict(sorted(parts.items())),
        routes=tuple(part for part in content if isinstance(part, Route)),
        contract=contract,
    )


def _parts(state: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the name and hash of each part of a workload or route.

    The parts of a workload are the workload without its tasks, and each task. A route is one part.
    """
    tier, tasks = state["tier"], state.get("tasks")
    rest = {key: value for key, value in state.items() if key != "tasks"}
    yield tier if tasks is not None else f"{tier}.route", _digest(json.dumps(rest, sort_keys=True))
    for task in tasks or ():
        yield f"{tier}.{task['name']}", _digest(json.dumps(task, sort_keys=True))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]
