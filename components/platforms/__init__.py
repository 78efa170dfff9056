"""Where workloads become provider resources. A tier sees only the verbs of `Platform`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pulumi import Input, Output, ProviderResource, Resource

from ..checkpoint import Checkpoint
from ..config import Settings
from ..release import Release, Slot
from ..workload import Route, Task, Workload

Dependencies = Sequence[Input[Resource]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A slot and the release it is getting."""

    slot: Slot
    release: Release


class Platform(Protocol):
    """The same few verbs on every platform. Each registers resources below `parent` and returns what to wait for."""

    @property
    def provider(self) -> ProviderResource:
        """What everything on this platform is made through."""
        ...

    @property
    def foundation(self) -> Sequence[Resource]:
        """What everything stands on: it goes last."""
        ...

    def prepare(self, parent: Resource, workloads: Sequence[Workload], place: Place | None) -> Mapping[str, Resource]:
        """Bring what these workloads need before they run: images, and secrets as files. What it returns goes to the verbs below."""
        ...

    def keep(self, parent: Resource, workload: Workload, supplies: Mapping[str, Resource]) -> Sequence[Resource]:
        """Run a workload that holds data, once, shared by both slots."""
        ...

    def run(
        self,
        parent: Resource,
        workload: Workload,
        place: Place,
        replicas: int,
        supplies: Mapping[str, Resource],
        after: Dependencies,
    ) -> Sequence[Resource]:
        """Run a tier of a slot; what is returned is there once every replica is healthy."""
        ...

    def finish(
        self,
        parent: Resource,
        workload: Workload,
        task: Task,
        place: Place,
        supplies: Mapping[str, Resource],
        after: Dependencies,
    ) -> Output[Resource]:
        """Run a task to its end; the output fails with the last lines of its log if the task does."""
        ...

    def gateway(self, parent: Resource, routes: Sequence[Route]) -> Resource:
        """What users connect to, with a way to either slot of every route."""
        ...

    def smoke(
        self, parent: Resource, name: str, routes: Sequence[Route], place: Place, after: Dependencies
    ) -> Output[Resource]:
        """Ask every route of a slot through the gateway, as users will."""
        ...

    def switch(self, parent: Resource, slot: Slot, count: int, after: Dependencies) -> Output[Resource]:
        """Move all traffic to `slot`: the only thing that does. `count` numbers the switches of this stack."""
        ...


def connect(settings: Settings, checkpoint: Checkpoint) -> Platform:
    """The platform that the environment names, found to be there.

    Raises:
        RunError: it is not; nothing has been touched yet.
    """
    from . import docker

    return docker.connect(settings, checkpoint)
