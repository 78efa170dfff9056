"""The slot that gets a release: web, api and worker, rendered from the configuration. `kept` has the slots that stay unchanged."""

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
    """The slot that gets a release: its migrations and other tasks, then its tiers, then the smoke test as its last gate.

    A tier without tasks that needs neither database nor cache starts at once. Every other tier starts when all tasks have
    passed and its data tiers are ready. `gates` maps a name to each gate that the switch depends on.
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
        inputs = identity(place.slot, place.release, order)
        super().__init__(SLOT, place.slot, inputs, None)
        self.gates: dict[str, Output[Resource]] = {}
        # Requests pinned to the slot's former release get another route before any resource of that release changes.
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
        before_smoke = [gateway, *opened, *running, *steps, *seeds]
        self.gates["tiers"] = Output.all(*(resource.urn for resource in running)).apply(lambda _: running[-1])
        self.gates["smoke"] = smoke = platform.smoke(self, routes, place, before_smoke)
        passed = smoke.apply(lambda _: str(place.release))
        self.register_outputs(facts(inputs, proven=passed, made=memory.record(place.slot, smoke)))


def identity(slot: release.Slot, held: Release, order: int) -> dict[str, Any]:
    """Return the inputs that identify a slot's release in the checkpoint: everything that a plan reads."""
    inputs: dict[str, Any] = {"slot": str(slot), "version": held.version, "digest": held.digest, "order": order}
    inputs |= {"parts": dict(held.parts), "routes": [asdict(route) for route in held.routes]}
    return inputs | ({"contract": True} if held.contract else {})


def facts(known: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the outputs of a slot's component: its inputs, and facts that only the slot's last update could learn.

    A component has no provider, so neither a refresh nor a cleanup of the engine removes its outputs. Pulumi writes them
    once all of them are known, and keeps them while the component's inputs stay the same.

    Args:
        known: the component's inputs.
        more: facts by name; a fact without a value (None) is left out. `proven` is the release that passed its gates.
    """
    return {**known, **{name: value for name, value in more.items() if value is not None}}
