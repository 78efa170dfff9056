"""What stays as it is: registered again from the checkpoint, so that today's program can't touch it.

Every resource by type, name and parent, without inputs and with all changes ignored: the engine answers "unchanged" and
keeps what the state holds (seen with pulumi 3.256, on both providers).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pulumi import ComponentResource, CustomResource, Output, Resource

from . import checkpoint
from .checkpoint import Checkpoint, Entry
from .config import TierName
from .options import below
from .platforms import Platform, Wanted
from .release import Held, Slot
from .slot import facts, identity
from .workload import Scale


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
    ) -> None:
        there = {entry.urn: entry for entry in known.below(slot, checkpoint.SLOT)}
        memory = {entry.urn: entry for entry in checkpoint.rested(known, slot)}
        stay, memory = _resting(there, memory, resting, platform) if resting else _back(there, memory, scales, platform)
        inputs = identity(slot, held.release, held.order)
        inputs |= {"rested": [checkpoint.remembered(entry) for entry in memory.values()]} if memory else {}
        super().__init__(checkpoint.SLOT, slot, inputs, None)
        made: dict[str, Resource] = {}
        self.gates: dict[str, Output[Resource]] = {}
        """What gets another scale, runs again or leads elsewhere: it has to be there before traffic moves."""
        for entry, wanted in stay:
            # What lies outside of the slot can't be told by its URN here: it waits for all of it. Without dependencies
            # `pulumi destroy` would take networks and volumes away before the containers on them.
            opened = wanted and not entry.runs and not resting
            needed = list(made) if opened else entry.dependencies
            after = [*shared, *(made[each] for each in needed if each in made)]
            made[entry.urn] = resource = replay(entry, platform, made.get(entry.parent, self), after, wanted)
            if wanted:
                self.gates[entry.name] = passed(resource) if (passed := wanted.passed) else _there(resource)
        self.register_outputs(facts(inputs, proven=str(held.release) if held.proven else None))


_Stay = Sequence[tuple[Entry, Wanted | None]]
_Entries = Mapping[str, Entry]


def _resting(there: _Entries, memory: _Entries, resting: Collection[str], platform: Platform) -> tuple[_Stay, _Entries]:
    """What stays of a slot whose tiers rest, and what is remembered of it. If all of them do, nobody is led to it."""
    running = {urn: entry for urn, entry in there.items() if entry.runs}
    stopped = {urn: entry for urn, entry in running.items() if entry.tier in resting}
    whole = stopped.keys() == running.keys()
    # A way that an update was cut off in closing is in memory only.
    all_of_it = {urn: entry for urn, entry in memory.items() if not entry.runs} | dict(there) if whole else there
    stay = [
        (entry, _unless_done(there, platform.closed(entry) if whole else None, entry)) for entry in all_of_it.values()
    ]
    shut = {entry.urn: entry for entry, wanted in stay if wanted}
    return [each for each in stay if each[0].urn not in stopped], {**shut, **memory, **stopped}


def _back(
    there: _Entries, memory: _Entries, scales: Mapping[TierName, Scale], platform: Platform
) -> tuple[_Stay, _Entries]:
    """What stays of a slot that does not rest, or no longer: what is remembered runs again, and last the way in is opened."""
    again = {urn: entry for urn, entry in memory.items() if entry.runs and urn not in there}
    ways = {urn: entry for urn, entry in memory.items() if not entry.runs}
    stay = [(entry, platform.rescaled(entry, scales)) for urn, entry in there.items() if urn not in ways]
    stay += [(entry, platform.revived(entry, scales)) for entry in again.values()]
    stay += [(entry, _unless_done(there, platform.opened(entry), entry)) for entry in ways.values()]
    return stay, memory


def _unless_done(there: _Entries, wanted: Wanted | None, entry: Entry) -> Wanted | None:
    """What is wanted, unless it is there like that already."""
    found = there.get(entry.urn)
    return None if wanted and found and not found.failed and found.inputs == wanted.inputs else wanted


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
    opts = below(parent, depends_on=after, provider=platform.provider, **given)
    inputs = dict.fromkeys(wanted.reads) | dict(wanted.inputs) if wanted else {}
    return CustomResource(entry.type, entry.name, inputs, opts)
