"""The worker tier: processes jobs from a queue, and accepts no connections."""

from dataclasses import dataclass

from .service import SlotService, SlotServiceArgs


@dataclass(frozen=True, kw_only=True)
class WorkerArgs(SlotServiceArgs):
    """Arguments of `Worker`, the same as those of `SlotService`."""


class Worker(SlotService):
    """Deploy the worker tier of one slot. Workers process jobs from a queue and accept no connections.

    Workers of both slots may take jobs from the same queue during a release. `environment.release.workers` says whether the
    workers of the standby slot keep running.

    Args:
        name: resource name, which is part of the state.
        args: see `WorkerArgs`.
        opts: options of the component.

    Example:
        worker = Worker("green-worker", WorkerArgs(platform=platform, workload=workload, target=target, scale=Scale(replicas=2)))
    """
