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
from .slot import identity
from .workload import Scale


class KeptSlot(ComponentResource):
    """A slot that stays as it is. Two things may pass, for they are no part of a release.

    `scales` are those that are wanted now. `resting` are the tiers that don't run while it is not:
    what ran of them is remembered in this component's inputs, and run again as it was when traffic comes back.
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
        entries = {entry.urn: entry for entry in known.below(slot, checkpoint.SLOT)}
        stopped = {urn: entry for urn, entry in entries.items() if entry.runs and entry.tier in resting}
        rested = {entry.urn: entry for entry in checkpoint.rested(known, slot)} | stopped
        inputs = identity(slot, held.release, held.order)
        inputs |= {"rested": [checkpoint.remembered(entry) for entry in rested.values()]} if rested else {}
        super().__init__(checkpoint.SLOT, slot, inputs, None)
        again = {} if resting else {urn: entry for urn, entry in rested.items() if urn not in entries}
        made: dict[str, Resource] = {}
        self.gates: dict[str, Output[Resource]] = {}
        """What gets another scale or runs again: before traffic comes to this slot it has to be there."""
        for urn, entry in (entries | again).items():
            if urn in stopped:
                continue
            # What lies outside of the slot can't be told by its URN here: it waits for all of it. Without dependencies
            # `pulumi destroy` would take networks and volumes away before the containers on them.
            after = [*shared, *(made[each] for each in entry.dependencies if each in made)]
            parent = made.get(entry.parent, self)
            wanted = platform.revived(entry, scales) if urn in again else platform.rescaled(entry, scales)
            made[urn] = replay(entry, platform, parent, after, wanted)
            if wanted:
                self.gates[entry.name] = made[urn].urn.apply(lambda _, resource=made[urn]: resource)
        self.register_outputs(inputs)


def replay(
    entry: Entry, platform: Platform, parent: Resource, after: Sequence[Resource], wanted: Wanted | None = None
) -> Resource:
    """A resource as it stands, but for what is `wanted` of it now."""
    if not entry.custom:
        return ComponentResource(entry.type, entry.name, None, below(parent))
    given: dict[str, Any] = {"ignore_changes": ["*"]}
    if wanted:
        given = {"hooks": wanted.hooks, "custom_timeouts": wanted.timeouts, "ignore_changes": wanted.theirs}
    opts = below(parent, depends_on=after, provider=platform.provider, **given)
    return CustomResource(entry.type, entry.name, dict(wanted.inputs) if wanted else {}, opts)
