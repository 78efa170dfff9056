"""What stays as it is: registered again from the checkpoint, so that today's program can't touch it.

Every resource by type, name and parent, without inputs and with all changes ignored: the engine answers "unchanged" and
keeps what the state holds (seen with pulumi 3.256, on both providers).
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
    """Return the images that a slot needs to serve again and its platform does not have any more."""
    needed = images(suspended(known, slot), known, slot)
    absent = platform.absent_images(needed) if needed else ()
    return [needed[image] for image in absent]


def observe(platform: Platform, known: Checkpoint, observed: Observed) -> Observed:
    """Return `observed` with the note that a live slot is lost: something of it can't be put back, its release is made anew."""
    if not observed.live or observed.live not in observed.held or not unavailable(platform, known, observed.live):
        return observed
    held = replace(observed.held[observed.live], lost=True)
    return replace(observed, held={**observed.held, observed.live: held})


def refuse_unavailable(platform: Platform, plan: Plan, known: Checkpoint) -> None:
    """Refuse to go back to a release that can't run any more.

    Raises:
        ReleaseError: an image of it is gone; nothing has been touched yet.
    """
    absent = unavailable(platform, known, plan.live) if plan.moves and not plan.render else ()
    if absent:
        raise ReleaseError(
            f"{plan.release} can't go live again: {' and '.join(absent)} is gone from the engine, and nothing was changed; "
            "release that commit again (check it out, and `make up`)"
        )


class KeptSlot(ComponentResource):
    """A slot that stays as it is. Two things may pass, for they are no part of a release.

    `scales` are those that are wanted now. `resting` are the tiers that don't run while it is not:
    what ran of them is remembered in this component's inputs, and run again as it was when traffic comes back. Where
    nothing runs, nobody is led to, not even those who hold a page of its release.
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
        there = {entry.urn: entry for entry in known.below(slot, checkpoint.SLOT)}
        memory = {entry.urn: entry for entry in checkpoint.rested(known, slot)}
        remembered = {entry.urn: entry for entry in recall(known, slot)}
        missing = {urn: entry for urn, entry in remembered.items() if urn not in there and urn not in memory}
        linked = [_linked(entry, remembered) for entry in (*there.values(), *missing.values())]
        whole = {entry.urn: entry for entry in ordered(linked)}
        slot_state = _SlotState(whole=whole, there=there, memory=memory)
        stay, memory = _resting(slot_state, resting, platform) if resting else _back(slot_state, scales, platform)
        place = Place(slot=slot, release=held.release)
        sources = images(missing.values(), known, slot)
        absent = frozenset(platform.absent_images(sources) if sources else ())
        inputs = identity(slot, held.release, held.order)
        inputs |= {"rested": [checkpoint.remembered(entry) for entry in memory.values()]} if memory else {}
        super().__init__(checkpoint.SLOT, slot, inputs, None)
        made: dict[str, Resource] = {}
        self.gates: dict[str, Output[Resource]] = {}
        """What gets another scale, runs again or leads elsewhere: it has to be there before traffic moves."""
        for entry, wanted in stay:
            if entry.urn in missing and entry.custom:
                wanted = wanted or _put_back(entry, scales, platform, place, workloads)
                if str(entry.inputs.get("image")) in absent:
                    wanted = None
                if entry.runs and not wanted:
                    pulumi.log.warn(
                        f"{entry.name} is gone, and so is {sources[entry.inputs['image']]}: release it anew"
                    )
                if not wanted:
                    continue
            # What lies outside of the slot can't be told by its URN here: it waits for all of it. Without dependencies
            # `pulumi destroy` would take networks and volumes away before the containers on them.
            opened = wanted and not entry.runs and not resting and entry.urn not in missing
            needed = list(made) if opened else entry.dependencies
            after = [*shared, *(made[each] for each in needed if each in made)]
            made[entry.urn] = resource = replay(entry, platform, made.get(entry.parent, self), after, wanted)
            if wanted:
                self.gates[entry.name] = passed(resource) if (passed := wanted.passed) else _there(resource)
        observed = checkpoint.observe(known)
        noted: dict[str, Any] = {checkpoint.SWITCHES: observed.switches if slot is observed.live else None}
        # An update that fails takes the outputs of the switch's component away.
        noted |= {RECORDED: text(known), MADE: remember(whole.values())}
        self.register_outputs(facts(inputs, proven=str(held.release) if held.proven else None, **noted))


_Stay = Sequence[tuple[Entry, Wanted | None]]
_Entries = Mapping[str, Entry]


@dataclass(frozen=True, kw_only=True)
class _SlotState:
    """Resources of a slot by URN: `there` are in the checkpoint, `whole` are these and those that are gone and remembered.

    `memory` are those that ran before the slot was suspended.
    """

    whole: _Entries
    there: _Entries
    memory: _Entries

    def unless_done(self, wanted: Wanted | None, entry: Entry) -> Wanted | None:
        """Return what is wanted of a resource, or None if the checkpoint has it like that already."""
        found = self.there.get(entry.urn)
        return None if wanted and found and not found.failed and found.inputs == wanted.inputs else wanted


def _resting(slot: _SlotState, resting: Collection[str], platform: Platform) -> tuple[_Stay, _Entries]:
    """What stays of a slot whose tiers rest, and what is remembered of it. If all of them do, nobody is led to it."""
    running = {urn: entry for urn, entry in slot.whole.items() if entry.runs}
    stopped = {urn: entry for urn, entry in running.items() if entry.tier in resting}
    whole = stopped.keys() == running.keys()
    # A way that an update was cut off in closing is in memory only.
    ways = {urn: entry for urn, entry in slot.memory.items() if not entry.runs}
    all_of_it = ways | dict(slot.whole) if whole else slot.whole
    stay = [(entry, slot.unless_done(platform.closed(entry) if whole else None, entry)) for entry in all_of_it.values()]
    shut = {entry.urn: entry for entry, wanted in stay if wanted}
    return [each for each in stay if each[0].urn not in stopped], {**shut, **slot.memory, **stopped}


def _back(slot: _SlotState, scales: Mapping[TierName, Scale], platform: Platform) -> tuple[_Stay, _Entries]:
    """What stays of a slot that does not rest, or no longer: what is remembered runs again, and last the way in is opened."""
    again = {urn: entry for urn, entry in slot.memory.items() if entry.runs and urn not in slot.there}
    ways = {urn: entry for urn, entry in slot.memory.items() if not entry.runs}
    # The scale of a resource that is gone is set when it is put back: an update registers each hook once.
    stay = [
        (entry, platform.rescaled(entry, scales) if urn in slot.there else None)
        for urn, entry in slot.whole.items()
        if urn not in ways
    ]
    stay += [(entry, platform.revived(entry, scales)) for entry in again.values()]
    stay += [(entry, slot.unless_done(platform.opened(entry), entry)) for entry in ways.values()]
    return stay, slot.memory


def _put_back(
    entry: Entry,
    scales: Mapping[TierName, Scale],
    platform: Platform,
    place: Place,
    workloads: Mapping[TierName, Workload],
) -> Wanted | None:
    """Return the inputs of a resource that is gone, as its slot remembers them; None if it can't be had again.

    Secrets are not remembered: their values are today's, if these are of the same version.
    """
    if entry.sealed:
        found = (platform.resealed(entry, workload, place) for workload in workloads.values())
        return next((wanted for wanted in found if wanted), None)
    if not can_be_put_back(entry):
        return None
    if entry.runs:
        return platform.revived(entry, scales)
    leads_to_slot = platform.closed(entry) is not None
    return platform.opened(entry) if leads_to_slot else Wanted(inputs=entry.inputs)


def _linked(entry: Entry, remembered: _Entries) -> Entry:
    """Return an entry with the dependencies it was made with: those that are gone have left the checkpoint."""
    before = remembered[entry.urn].dependencies if entry.urn in remembered else ()
    return replace(entry, dependencies=tuple(dict.fromkeys((*entry.dependencies, *before))))


def _there(resource: Resource) -> Output[Resource]:
    return resource.urn.apply(lambda _: resource)


def replay(
    entry: Entry, platform: Platform, parent: Resource, after: Sequence[Resource], wanted: Wanted | None = None
) -> Resource:
    """A resource as it stands, but for what is `wanted` of it now."""
    if not entry.custom:
        return ComponentResource(entry.type, entry.name, None, below(parent))
    given: dict[str, Any] = {"ignore_changes": ["*"]}
    if wanted:
        given = {"hooks": wanted.hooks, "custom_timeouts": wanted.timeouts, "ignore_changes": wanted.theirs}
        given |= {"delete_before_replace": True}  # Names are taken.
        given |= {"additional_secret_outputs": wanted.secret_outputs} if wanted.secret_outputs else {}
    opts = below(parent, depends_on=after, provider=platform.provider, **given)
    inputs = dict.fromkeys(wanted.reads) | dict(wanted.inputs) if wanted else {}
    return CustomResource(entry.type, entry.name, inputs, opts)
