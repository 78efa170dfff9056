"""A slot: web, api and worker of one release. Rendered when it gets a release, replayed as it is when it is kept."""

from collections.abc import Mapping, Sequence

from pulumi import ComponentResource, CustomResource, Input, Output, Resource

from . import release
from .api import Api
from .checkpoint import Checkpoint, Entry
from .config import TierName
from .options import below
from .platforms import Place, Platform
from .tier import TierArgs
from .web import Web
from .worker import Worker
from .workload import Route, Workload

KIND = "tiers:slot:Slot"
_COMPONENTS = {TierName.WEB: Web, TierName.API: Api, TierName.WORKER: Worker}


class Slot(ComponentResource):
    """A slot that gets a release: its migrations, then its tiers, and the smoke test as its last gate.

    A tier that needs neither database nor cache starts at once; the others start when the migrations have passed and
    what they need is ready. `gates` is what the switch waits for.
    """

    def __init__(
        self,
        platform: Platform,
        place: Place,
        workloads: Mapping[TierName, Workload],
        replicas: Mapping[TierName, int],
        routes: Sequence[Route],
        shared: Mapping[TierName, Sequence[Resource]],
        gateway: Resource,
    ) -> None:
        super().__init__(KIND, place.slot, _identity(place), None)
        supplies = platform.prepare(self, list(workloads.values()), place)
        migrations: list[Output[Resource]] = []
        seeds: list[Output[Resource]] = []
        for workload in workloads.values():
            data = [resource for need in workload.needs for resource in shared.get(TierName(need), ())]
            for task in workload.tasks:
                passed = platform.finish(self, workload, task, place, supplies, [*data, *migrations])
                (migrations if task.name == "migrate" else seeds).append(passed)
        ready: dict[str, Sequence[Resource]] = {str(tier): resources for tier, resources in shared.items()}
        running: list[Resource] = []
        for tier in (TierName.API, TierName.WORKER, TierName.WEB):
            if workload := workloads.get(tier):
                needed = [resource for need in workload.needs for resource in ready.get(need, ())]
                after: list[Input[Resource]] = [*needed]
                if set(workload.needs) & set(shared):
                    after += migrations
                args = TierArgs(workload=workload, replicas=replicas[tier], place=place, supplies=supplies, after=after)
                ready[tier] = _COMPONENTS[tier](f"{place.slot}-{tier}", platform, args, below(self)).ready
                running += ready[tier]
        self.gates = [
            platform.smoke(self, f"{place.slot}-smoke", routes, place, [gateway, *running, *migrations, *seeds])
        ]
        self.register_outputs(_identity(place))


class KeptSlot(ComponentResource):
    """A slot that stays as it is: registered again from the checkpoint, so that today's program can't touch it.

    Every resource by type, name and parent, without inputs and with all changes ignored: the engine answers
    "unchanged" and keeps what the state holds (seen with pulumi 3.256, on both providers).
    """

    def __init__(
        self,
        platform: Platform,
        slot: release.Slot,
        held: release.Release,
        checkpoint: Checkpoint,
        shared: Sequence[Resource],
    ) -> None:
        identity = _identity(Place(slot=slot, release=held))
        super().__init__(KIND, slot, identity, None)
        made: dict[str, Resource] = {}
        for entry in checkpoint.below(slot, KIND):
            # What lies outside of the slot can't be told by its URN here: it waits for all of it. Without dependencies
            # `pulumi destroy` would take networks and volumes away before the containers on them.
            after = [*shared, *(made[urn] for urn in entry.dependencies if urn in made)]
            made[entry.urn] = _replay(entry, platform, made.get(entry.parent, self), after)
        self.register_outputs(identity)


def _replay(entry: Entry, platform: Platform, parent: Resource, after: Sequence[Resource]) -> Resource:
    if not entry.custom:
        return ComponentResource(entry.type, entry.name, None, below(parent))
    opts = below(parent, depends_on=after, provider=platform.provider, ignore_changes=["*"])
    return CustomResource(entry.type, entry.name, {}, opts)


def _identity(place: Place) -> dict[str, Input[str]]:
    return {"slot": str(place.slot), "version": place.release.version, "digest": place.release.digest}
