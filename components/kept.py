"""Slots that stay unchanged: registered again from the checkpoint, so that the current program can't change them.

Each resource is registered by type, name and parent, without inputs and with all changes ignored. Pulumi then reports
"unchanged" and keeps the stored inputs (tested with pulumi 3.256 and both providers).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pulumi
from pulumi import ComponentResource, CustomResource, Output, Resource

from . import checkpoint
from .checkpoint import Checkpoint, Entry
from .config import TierName
from .memory import MADE, can_be_put_back, images, ordered, recall, remember, suspended
from .options import below
from .platforms import Place, Platform, Wanted
from .recorded import RECORDED, text
from .release import Held, Observed, Plan, ReleaseError, Slot
from .slot import facts, identity
from .workload import Scale, Workload


def unavailable(platform: Platform, known: Checkpoint, slot: Slot) -> Sequence[str]:
    """Return the images that a slot needs to serve again and that its platform no longer has."""
    needed = images(suspended(known, slot), known, slot)
    absent = platform.absent_images(needed) if needed else ()
    return [needed[image] for image in absent]


def observe(platform: Platform, known: Checkpoint, observed: Observed) -> Observed:
    """Return `observed`, with the live slot marked as lost if one of its images is gone. Its release must then be deployed again."""
    if not observed.live or observed.live not in observed.held or not unavailable(platform, known, observed.live):
        return observed
    slot_state = replace(observed.held[observed.live], lost=True)
    return replace(observed, held={**observed.held, observed.live: slot_state})


def refuse_unavailable(platform: Platform, plan: Plan, known: Checkpoint) -> None:
    """Refuse to go back to a release that can't run any more.

    Raises:
        ReleaseError: one of its images is gone. Nothing has been changed yet.
    """
    absent = unavailable(platform, known, plan.live) if plan.moves and not plan.render else ()
    if absent:
        raise ReleaseError(
            f"{plan.release} can't go live again: {' and '.join(absent)} is gone from the engine, and nothing was changed; "
            "release that commit again (check it out, and `make up`)"
        )


class KeptSlot(ComponentResource):
    """A slot that stays unchanged, except for two things that are not part of a release: its scale, and whether its tiers run.

    Args:
        scales: the current scale of each tier; empty to keep the stored ones.
        resting: the tiers to suspend. The inputs of this component remember their resources, which are recreated when
            traffic returns. If all tiers are suspended, cookie-pinned requests go to the live slot instead.
    """

    def __init__(
        self,
        platform: Platform,
        slot: Slot,
        held: Held,
        known: Checkpoint,
        shared: Sequence[Resource],
        scales: Mapping[TierName, Scale],
        resting: Collection[str],
        workloads: Mapping[TierName, Workload],
    ) -> None:
        present = {entry.urn: entry for entry in known.below(slot, checkpoint.SLOT)}
        memory = {entry.urn: entry for entry in checkpoint.rested(known, slot)}
        remembered = {entry.urn: entry for entry in recall(known, slot)}
        missing = {urn: entry for urn, entry in remembered.items() if urn not in present and urn not in memory}
        linked = [_linked(entry, remembered) for entry in (*present.values(), *missing.values())]
        whole = {entry.urn: entry for entry in ordered(linked)}
        slot_state = _SlotState(whole=whole, there=present, memory=memory)
        stay, memory = _resting(slot_state, resting, platform) if resting else _back(slot_state, scales, platform)
        target = Place(slot=slot, release=held.release)
        sources = images(missing.values(), known, slot)
        absent = frozenset(platform.absent_images(sources) if sources else ())
        inputs = identity(slot, held.release, held.order)
        inputs |= {"rested": [checkpoint.remembered(entry) for entry in memory.values()]} if memory else {}
        super().__init__(checkpoint.SLOT, slot, inputs, None)
        resources: dict[str, Resource] = {}
        self.gates: dict[str, Output[Resource]] = {}
        """Resources that change scale, run again or change routes. Each must be ready before traffic moves."""
        for entry, wanted in stay:
            if entry.urn in missing and entry.custom:
                wanted = wanted or _put_back(entry, scales, platform, target, workloads)
                if str(entry.inputs.get("image")) in absent:
                    wanted = None
                if entry.runs and not wanted:
                    pulumi.log.warn(
                        f"{entry.name} is lost, and so is {sources[entry.inputs['image']]}; deploy its release again"
                    )
                if not wanted:
                    continue
            # The slot depends on every shared resource: URNs outside of the slot can't be resolved here. Without
            # dependencies `pulumi destroy` would delete networks and volumes before the containers that use them.
            opened = wanted and not entry.runs and not resting and entry.urn not in missing
            needed = list(resources) if opened else entry.dependencies
            after = [*shared, *(resources[urn] for urn in needed if urn in resources)]
            resources[entry.urn] = resource = replay(entry, platform, resources.get(entry.parent, self), after, wanted)
            if wanted:
                self.gates[entry.name] = passed(resource) if (passed := wanted.passed) else _exists(resource)
        observed = checkpoint.observe(known)
        outputs: dict[str, Any] = {checkpoint.SWITCHES: observed.switches if slot is observed.live else None}
        # A failing update removes the outputs of the switch's component, so a slot keeps copies.
        outputs |= {RECORDED: text(known), MADE: remember(whole.values())}
        self.register_outputs(facts(inputs, proven=str(held.release) if held.proven else None, **outputs))


_Stay = Sequence[tuple[Entry, Wanted | None]]
_Entries = Mapping[str, Entry]


@dataclass(frozen=True, kw_only=True)
class _SlotState:
    """Resources of a slot by URN. `there` are in the checkpoint; `whole` also has those that are gone but remembered.

    `memory` has the resources that ran before the slot was suspended.
    """

    whole: _Entries
    there: _Entries
    memory: _Entries

    def unless_done(self, wanted: Wanted | None, entry: Entry) -> Wanted | None:
        """Return the desired state of a resource, or None if the checkpoint has it already."""
        stored = self.there.get(entry.urn)
        return None if wanted and stored and not stored.failed and stored.inputs == wanted.inputs else wanted


def _resting(slot: _SlotState, resting: Collection[str], platform: Platform) -> tuple[_Stay, _Entries]:
    """Return the resources of a suspended slot that stay, and those that its memory keeps.

    If every tier is suspended, the slot's routes for pinned requests are closed as well.
    """
    running = {urn: entry for urn, entry in slot.whole.items() if entry.runs}
    stopped = {urn: entry for urn, entry in running.items() if entry.tier in resting}
    whole = stopped.keys() == running.keys()
    # A route is in memory only if an update was interrupted while closing it.
    routes = {urn: entry for urn, entry in slot.memory.items() if not entry.runs}
    all_of_it = routes | dict(slot.whole) if whole else slot.whole
    stay = [(entry, slot.unless_done(platform.closed(entry) if whole else None, entry)) for entry in all_of_it.values()]
    shut = {entry.urn: entry for entry, wanted in stay if wanted}
    return [item for item in stay if item[0].urn not in stopped], {**shut, **slot.memory, **stopped}


def _back(slot: _SlotState, scales: Mapping[TierName, Scale], platform: Platform) -> tuple[_Stay, _Entries]:
    """Return the resources of a slot that runs, and those that its memory keeps.

    Suspended resources are recreated first; routes for pinned requests are opened last.
    """
    again = {urn: entry for urn, entry in slot.memory.items() if entry.runs and urn not in slot.there}
    routes = {urn: entry for urn, entry in slot.memory.items() if not entry.runs}
    # A lost resource gets its scale when it is recreated: an update registers each hook once.
    stay = [
        (entry, platform.rescaled(entry, scales) if urn in slot.there else None)
        for urn, entry in slot.whole.items()
        if urn not in routes
    ]
    stay += [(entry, platform.revived(entry, scales)) for entry in again.values()]
    stay += [(entry, slot.unless_done(platform.opened(entry), entry)) for entry in routes.values()]
    return stay, slot.memory


def _put_back(
    entry: Entry,
    scales: Mapping[TierName, Scale],
    platform: Platform,
    place: Place,
    workloads: Mapping[TierName, Workload],
) -> Wanted | None:
    """Return the inputs of a lost resource from its slot's memory, or None if it can't be recreated.

    Secrets are not remembered. Current values are used if their version is the same.
    """
    if entry.sealed:
        holders = (platform.resealed(entry, workload, place) for workload in workloads.values())
        return next((wanted for wanted in holders if wanted), None)
    if not can_be_put_back(entry):
        return None
    if entry.runs:
        return platform.revived(entry, scales)
    leads_to_slot = platform.closed(entry) is not None
    return platform.opened(entry) if leads_to_slot else Wanted(inputs=entry.inputs)


def _linked(entry: Entry, remembered: _Entries) -> Entry:
    """Return an entry with its original dependencies: dependencies on lost resources have left the checkpoint."""
    before = remembered[entry.urn].dependencies if entry.urn in remembered else ()
    return replace(entry, dependencies=tuple(dict.fromkeys((*entry.dependencies, *before))))


def _exists(resource: Resource) -> Output[Resource]:
    return resource.urn.apply(lambda _: resource)


def replay(
    entry: Entry, platform: Platform, parent: Resource, after: Sequence[Resource], wanted: Wanted | None = None
) -> Resource:
    """Register a resource unchanged, or with the desired state `wanted`.

    Args:
        entry: the resource in the checkpoint.
        platform: the platform it belongs to.
        parent: its parent.
        after: the resources it depends on.
        wanted: its desired state; None to keep it unchanged.
    """
    if not entry.custom:
        return ComponentResource(entry.type, entry.name, None, below(parent))
    arguments: dict[str, Any] = {"ignore_changes": ["*"]}
    if wanted:
        arguments = {"hooks": wanted.hooks, "custom_timeouts": wanted.timeouts, "ignore_changes": wanted.theirs}
        arguments |= {"delete_before_replace": True}  # The names are fixed, so both can't exist at once.
        arguments |= {"additional_secret_outputs": wanted.secret_outputs} if wanted.secret_outputs else {}
    opts = below(parent, depends_on=after, provider=platform.provider, **arguments)
    inputs = dict.fromkeys(wanted.reads) | dict(wanted.inputs) if wanted else {}
    return CustomResource(entry.type, entry.name, inputs, opts)
