"""Deploy a release to a slot, with services rendered from the configuration. The module `kept` registers unchanged slots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from .model.workload import SEED
from .options import child_options
from .platforms import Dependencies, LiveObject, SlotTarget
from .release import content, memory, planner
from .release.checkpoint import LIVE_OBJECTS, SLOT
from .release.planner import Release
from .rollout import Rollout
from .service import SlotService, SlotServiceArgs


@dataclass(frozen=True, kw_only=True)
class SlotArgs:
    """Arguments of `Slot`."""

    rollout: Rollout
    """The planned update (`plan_rollout`). `rollout.plan.render` is the slot that gets the release; it must not be None."""
    data: Mapping[str, Sequence[Resource]]
    """Resources of each data service by its name (`DataService.ready`). The resources exist once the service
    accepts connections."""
    gateway: Resource
    """The running gateway (`Gateway.running`). The smoke test sends its requests through this gateway."""


class Slot(ComponentResource):
    """Deploy a release to the idle slot: run migrations and other tasks, start services, run the smoke test.

    No traffic moves. If a step fails, the live slot stays unchanged.

    A service that has tasks or needs a data service starts after the tasks of all services: it may need the new database
    schema. Other services don't wait for tasks. A seed task runs after the other tasks of its service. No service waits for
    a seed task.

    Args:
        name: resource name, which is part of the state. The program of this repository uses "blue" or "green".
        args: see `SlotArgs`.
        opts: options of the component.

    Raises:
        ValueError: `rollout.plan.render` is None, so the update deploys no release.

    Example:
        slot = Slot("green", SlotArgs(rollout=rollout, data={"database": database.ready}, gateway=gateway.running))
        switch = Switch("switch", SwitchArgs(rollout=rollout, gates=slot.gates))
        pulumi.export("web", slot.services["web"].url)
    """

    gates: Mapping[str, Output[Resource]]
    """Gates by name: `TIER.TASK` for each task, `tiers` for all services, `smoke` for the smoke test. Pass all gates to `Switch`."""
    live_objects: Mapping[str, LiveObject]
    """Objects to deploy once the slot is live, by the name of their component. Pass them to `LiveService` after the switch."""
    services: Mapping[str, SlotService]
    """Components of the services by name, in their start order. `services["web"].url` is the address of `web` in this slot."""

    def __init__(self, name: str, args: SlotArgs, opts: ResourceOptions | None = None) -> None:
        rollout, platform, routes = args.rollout, args.rollout.platform, args.rollout.application.routes
        if not rollout.plan.render:
            raise ValueError(
                "args.rollout: `plan.render` is None, so this update deploys no release; register the slots in `plan.keep` with KeptSlot"
            )
        target = SlotTarget(slot=rollout.plan.render, release=rollout.plan.release)
        inputs = identity(target.slot, target.release, rollout.observed.switches + 1)
        super().__init__(SLOT, name, inputs, opts)
        # Reroute requests that a cookie pins to the slot's former release before the resources of the slot change.
        rerouted = platform.route_slot(self, routes, target, [args.gateway])
        provisioned = platform.provision(self, list(rollout.application.workloads.values()), target)
        tasks = self._run_tasks(args, target, provisioned)
        self.services = self._start_services(args, target, provisioned, rerouted, tasks.before_services)
        running = [resource for service in self.services.values() for resource in service.ready]
        workloads, before_jobs = list(rollout.application.workloads.values()), [*running, *tasks.before_services]
        jobs, job_resources = platform.prepare_jobs(self, workloads, target, provisioned, before_jobs)
        running += job_resources
        before_smoke = [args.gateway, *rerouted, *running, *tasks.gates.values()]
        smoke = platform.run_smoke_test(self, routes, target, before_smoke)
        started = Output.all(*(resource.urn for resource in running)).apply(lambda _: running[-1])
        self.gates = {**tasks.gates, "tiers": started, "smoke": smoke}
        passed = smoke.apply(lambda _: str(target.release))
        singles = {name: service.live_object for name, service in self.services.items() if service.live_object}
        self.live_objects = {**singles, **jobs}
        stored = {name: item.to_state() for name, item in self.live_objects.items()} or None
        snapshot = memory.record(rollout.context.stack, rollout.context.root, target.slot, smoke)
        self.register_outputs(component_outputs(inputs, proven=passed, made=snapshot, **{LIVE_OBJECTS: stored}))

    def _run_tasks(self, args: SlotArgs, target: SlotTarget, provisioned: Mapping[str, Resource]) -> "_Tasks":
        """Run the tasks of all services one after the other, in the order of the services.

        Services and other tasks don't wait for a seed task. Only the smoke test and the switch wait for seed tasks.
        """
        platform = args.rollout.platform
        gates: dict[str, Output[Resource]] = {}
        steps: list[Output[Resource]] = []
        for workload in args.rollout.application.workloads.values():
            data = [resource for need in workload.needs for resource in args.data.get(need, ())]
            for task in workload.tasks:
                passed = platform.run_task(self, workload, task, target, provisioned, [*data, *steps])
                gates[f"{workload.tier}.{task.name}"] = passed
                if task.name != SEED:
                    steps.append(passed)
        return _Tasks(gates=gates, before_services=steps)

    def _start_services(
        self,
        args: SlotArgs,
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        rerouted: Dependencies,
        steps: Dependencies,
    ) -> Mapping[str, SlotService]:
        """Start each service after the services that it needs. Return the components of the services, in this order."""
        application = args.rollout.application
        ready, services = dict(args.data), dict[str, SlotService]()
        workloads = application.workloads
        needs = {name: workload.needs for name, workload in workloads.items()}
        for name in args.rollout.context.app.catalogue.start_order(needs, workloads):
            workload = workloads[name]
            needed = [resource for need in workload.needs for resource in ready.get(need, ())]
            waits_for_tasks = workload.tasks or set(workload.needs) & args.data.keys()
            service_args = SlotServiceArgs(
                platform=args.rollout.platform,
                workload=workload,
                target=target,
                scale=application.scales[name],
                provisioned=provisioned,
                after=[*needed, *rerouted, *(steps if waits_for_tasks else ())],
            )
            services[name] = SlotService(f"{target.slot}-{name}", service_args, child_options(self))
            ready[name] = services[name].ready
        return services


@dataclass(frozen=True, kw_only=True)
class _Tasks:
    """Results of the tasks of a release."""

    gates: Mapping[str, Output[Resource]]
    """Gate of each task, by `TIER.TASK`."""
    before_services: Sequence[Output[Resource]]
    """Tasks that services wait for: all except seed tasks."""


def identity(slot: planner.Slot, release: Release, switch_number: int) -> dict[str, Any]:
    """Return the inputs of a slot's component. `checkpoint.observe` reads the slot's release from these inputs.

    Args:
        slot: the slot.
        release: the release in the slot.
        switch_number: number of the switch to this release, as planned when the release was deployed.
    """
    inputs: dict[str, Any] = {"slot": str(slot), "version": release.version, "digest": release.digest}
    inputs |= {"order": switch_number}
    inputs |= {"parts": dict(release.parts), "routes": [content.to_state(route) for route in release.routes]}
    return inputs | ({"contract": True} if release.contract else {})


def component_outputs(inputs: Mapping[str, Any], **results: Any) -> dict[str, Any]:
    """Return the outputs of a slot's component: its inputs, and results of the update that deployed the release.

    A component has no provider, so neither `pulumi refresh` nor a deletion on the platform removes its outputs. Pulumi writes
    the outputs once all of them are known, and keeps them while the inputs stay the same.

    Args:
        inputs: the component's inputs.
        results: results by name, such as `proven`, the release that passed its gates. Results that are None are dropped.
    """
    return {**inputs, **{name: value for name, value in results.items() if value is not None}}
