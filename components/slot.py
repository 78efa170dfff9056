"""A slot that gets a release: web, api and worker, rendered from the configuration. `kept` has those that stay."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pulumi import ComponentResource, Input, Output, Resource

from . import memory, release
from .api import Api
from .checkpoint import SLOT
from .config import TierName
from .options import below
from .platforms import Place, Platform
from .release import Release
from .tier import TierArgs
from .web import Web
from .worker import Worker
from .workload import Route, Scale, Workload

_COMPONENTS = {TierName.WEB: Web, TierName.API: Api, TierName.WORKER: Worker}


class Slot(ComponentResource):
    """A slot that gets a release: its migrations and other tasks, then its tiers, and the smoke test as its last gate.

    A tier that has no task and needs neither database nor cache starts at once; the others start when all tasks have
    passed and what they need is ready. `gates` is what the switch waits for, by name.
    """

    def __init__(
        self,
        platform: Platform,
        place: Place,
        order: int,
        workloads: Mapping[TierName, Workload],
        scales: Mapping[TierName, Scale],
        routes: Sequence[Route],
        shared: Mapping[TierName, Sequence[Resource]],
        gateway: Resource,
    ) -> None:
        known = identity(place.slot, place.release, order)
        super().__init__(SLOT, place.slot, known, None)
        self.gates: dict[str, Output[Resource]] = {}
        # Whoever holds a page of the release that was here is led elsewhere before anything of it is touched.
        opened = platform.expose(self, routes, place, [gateway])
        supplies = platform.prepare(self, list(workloads.values()), place)
        steps: list[Output[Resource]] = []
        seeds: list[Output[Resource]] = []
        for workload in workloads.values():
            data = [resource for need in workload.needs for resource in shared.get(TierName(need), ())]
            for task in workload.tasks:
                passed = platform.finish(self, workload, task, place, supplies, [*data, *steps])
                (seeds if task.name == "seed" else steps).append(passed)
                self.gates[f"{workload.tier}.{task.name}"] = passed
        ready: dict[str, Sequence[Resource]] = {str(tier): resources for tier, resources in shared.items()}
        running: list[Resource] = []
        for tier in (TierName.API, TierName.WORKER, TierName.WEB):
            if workload := workloads.get(tier):
                needed = [resource for need in workload.needs for resource in ready.get(need, ())]
                after: list[Input[Resource]] = [*needed, *opened]
                if workload.tasks or set(workload.needs) & set(shared):
                    after += steps
                args = TierArgs(workload=workload, scale=scales[tier], place=place, supplies=supplies, after=after)
                ready[tier] = _COMPONENTS[tier](f"{place.slot}-{tier}", platform, args, below(self)).ready
                running += ready[tier]
        proven = [gateway, *opened, *running, *steps, *seeds]
        self.gates["tiers"] = Output.all(*(resource.urn for resource in running)).apply(lambda _: running[-1])
        self.gates["smoke"] = smoke = platform.smoke(self, routes, place, proven)
        passed = smoke.apply(lambda _: str(place.release))
        self.register_outputs(facts(known, proven=passed, made=memory.record(place.slot, smoke)))


def identity(slot: release.Slot, held: Release, order: int) -> dict[str, Any]:
    """What a slot is known by in the checkpoint: all that a plan asks of it."""
    named: dict[str, Any] = {"slot": str(slot), "version": held.version, "digest": held.digest, "order": order}
    named |= {"parts": dict(held.parts), "routes": [asdict(route) for route in held.routes]}
    return named | ({"contract": True} if held.contract else {})


def facts(known: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the outputs of a slot's component: its inputs, and the facts that only its last update could learn.

    A component has no provider: no refresh and no clean-up of the engine takes its outputs away. The engine writes them
    once all of them are known, and keeps them while the component's inputs stay the same.

    Args:
        known: the component's inputs.
        more: facts by name; one without a value (None) is left out. `proven` is the release that passed its gates.
    """
    return {**known, **{name: value for name, value in more.items() if value is not None}}
