"""The worker tier: processes jobs from a queue, and accepts no connections."""

from dataclasses import dataclass

from .service import SlotService, SlotServiceArgs


@dataclass(frozen=True, kw_only=True)
class WorkerArgs(SlotServiceArgs):
    """Arguments of `Worker`, the same as those of `SlotService`. `workload.tier` must be `worker`."""


class Worker(SlotService):
    """Deploy the worker tier of one slot. Workers process jobs from a queue and accept no connections.

    Workers of both slots may take jobs from the same queue during a release. `environment.release.workers` says whether the
    workers of the standby slot keep running.

    Example:
        worker = Worker("green-worker", WorkerArgs(platform=platform, workload=workload, target=target, scale=Scale(replicas=2)))
    """
