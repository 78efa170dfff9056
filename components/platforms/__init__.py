"""Where workloads become provider resources. A tier sees only the verbs of `Platform`."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pulumi import CustomTimeouts, Input, Output, ProviderResource, Resource, ResourceHookBinding

from ..alerts import Watched
from ..checkpoint import LABEL_SLOT, Checkpoint, Entry
from ..config import GATEWAY_PATHS, App, ConfigError, Environment, Settings, TierName, questions
from ..live import Routing
from ..names import LABEL_APP
from ..release import Release, Slot
from ..workload import DatabaseCluster, Elsewhere, Route, Scale, Task, Timed, Workload, Zone
from .inventory import Location, engine_host

SLOT_HEADER = "X-Tiers-Slot"
"""A request with it goes to the slot it names, and the answer says which slot gave it."""
COOKIE = "tiers-release"
"""Names the release a page came from, so that what the page asks for comes from there, too."""
SHARED = "it is shared by both slots"
"""The effect on users of a failed shared tier; `impact` has that of a slot."""
ONCE_WITHIN = 6 * 3600
"""Seconds that a command which somebody runs by hand may take."""
Dependencies = Sequence[Input[Resource]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A slot and the release it is getting."""

    slot: Slot
    release: Release


class Line(NamedTuple):
    """A line that a container has written, with the platform's own time of it. `slot` and `release` are empty of what is shared."""

    when: str
    tier: str
    slot: str
    release: str
    text: str


def readiness(route: Route) -> str:
    """Where the gateway passes on the question whether a tier is ready, if the request names a slot."""
    return f"{GATEWAY_PATHS}/{route.tier}"


def smoke_checks(app: App, routes: Sequence[Route]) -> str:
    """Return the questions of the smoke test as the toolbox reads them: each tier's readiness, then `app.checks`.

    Each names its config path, for errors.
    """
    listening = {TierName.WEB: app.web, TierName.API: app.api}
    asked: list[dict[str, Any]] = []
    for route in routes:
        tier = listening.get(TierName(route.tier))
        key = "ready" if tier and tier.ready else "health"
        asked.append({"name": f"app.{route.tier}.{key}: {route.health}", "path": readiness(route)})
    return json.dumps(asked + questions(app.checks))


def variables(
    workload: Workload, place: Place | None, api_port: int | None, task: Task | None = None
) -> dict[str, str]:
    """What a workload, or one of its tasks, is told by its environment: its settings, where its secrets are, and where it is itself."""
    values = dict(workload.env)
    values |= {f"{secret.name.upper().replace('-', '_')}_FILE": secret.path for secret in workload.secrets}
    if place:
        values |= {"RELEASE": str(place.release), "SLOT": place.slot}
        if "api" in workload.needs and api_port:
            values["API_URL"] = f"http://api-{place.slot}:{api_port}"
    values |= dict(task.env if task else ())
    return dict(sorted(values.items()))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A kept resource as it is wanted now: its inputs, what explains it if they can't be had, and who else sets some.

    `passed` is the resource once it has done what it is for, where being there is not enough: it is asked for the outputs
    that `reads` names.
    """

    inputs: Mapping[str, Any]
    hooks: ResourceHookBinding | None = None
    timeouts: CustomTimeouts | None = None
    theirs: list[str] | None = None
    reads: tuple[str, ...] = ()
    passed: Callable[[Resource], Output[Resource]] | None = None
    secret_outputs: list[str] | None = None
    """Outputs that the state keeps encrypted."""


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

    @property
    def url(self) -> str:
        """What users open."""
        ...

    @property
    def namespace(self) -> str:
        """What this environment's figures are told from others' by."""
        ...

    def logs(self, live: Slot) -> Mapping[str, str]:
        """The command that follows the log of each tier."""
        ...

    def prepare(self, parent: Resource, workloads: Sequence[Workload], place: Place | None) -> Mapping[str, Resource]:
        """Bring what these workloads need before they run: images, and secrets as files. What it returns goes to the verbs below."""
        ...

    def stores(self, workloads: Sequence[Workload | DatabaseCluster]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        """Name → type and inputs of each resource that holds data of theirs, as it will be registered."""
        ...

    def keep(self, parent: Resource, workload: Workload, supplies: Mapping[str, Resource]) -> Sequence[Resource]:
        """Run a workload that holds data, once, shared by both slots."""
        ...

    def keep_several(self, parent: Resource, wanted: DatabaseCluster) -> Sequence[Resource]:
        """Run a database of several instances, shared by both slots; what is returned is there once all of them are ready."""
        ...

    def schedule(
        self, parent: Resource, workload: Workload, times: Sequence[Timed], supplies: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        """Keep a workload, as above, and run its commands at their times.

        Where the platform has nothing that does, the workload itself is told of them, as `NAME=TIMES` at the end of its command.
        """
        ...

    def reach(self, parent: Resource, elsewhere: Elsewhere) -> Sequence[Resource]:
        """Let those who need it reach a data tier that runs somewhere else."""
        ...

    def run(
        self,
        parent: Resource,
        workload: Workload,
        place: Place,
        scale: Scale,
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

    def rescaled(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted | None:
        """What a resource that is kept becomes at the scale that is wanted now; None if it stays as it is."""
        ...

    def revived(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted:
        """A resource that ran once, to be run again as it was, at the scale that is wanted now."""
        ...

    def resealed(self, entry: Entry, workload: Workload, place: Place) -> Wanted | None:
        """Return a holder of a workload's secrets as it was made, with today's values; None if those are of another version."""
        ...

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        """Return those of these images (as containers name them) that nothing can be run from any more, if that can be told."""
        ...

    def closed(self, entry: Entry) -> Wanted | None:
        """What leads to a slot those who hold a page of its release, as it is once nothing runs there; None for all else."""
        ...

    def opened(self, entry: Entry) -> Wanted:
        """The same, as it was made."""
        ...

    def gateway(self, parent: Resource) -> Resource:
        """What users connect to."""
        ...

    def expose(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Dependencies:
        """A way through the gateway into a slot, live or not: for requests whose header asks for it, and for those of its pages.

        Once what is returned is there, no request comes to the release that was in the slot before.
        """
        ...

    def smoke(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Output[Resource]:
        """Ask every route of a slot through the gateway, and all that `app.checks` names, as users will."""
        ...

    def switch(
        self, parent: Resource, place: Place, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        """Move all traffic to a slot: the only thing that does. `count` numbers the switches of this stack.

        `routes` are None if the slot is kept: then it has its own, and what runs in it is asked first if it is well.
        """
        ...

    def put_back(
        self, parent: Resource, place: Place, count: int, after: Dependencies, *, beside: bool
    ) -> Output[Resource]:
        """Make a lost switch again: switch number `count`, to the slot that is live already.

        `beside` if the same update moves traffic on by another switch, which comes later.
        """
        ...

    def watch(
        self,
        parent: Resource,
        watched: Watched,
        exporters: Mapping[TierName, Workload],
        after: Mapping[TierName, Sequence[Resource]],
    ) -> None:
        """Have tiers and exporters asked how they are, and the rules about it looked after. Each exporter is run after its tier."""
        ...

    def announce(self, parent: Resource, watched: Watched, live: Output[Mapping[str, str]]) -> None:
        """Let those who watch know which release is live, and in which slot."""
        ...


def refuse_another(app: str, checkpoint: Checkpoint) -> None:
    """Another application is not put in the place of the one this stack holds.

    Raises:
        ConfigError: the stack holds another.
    """
    held = {entry.labels[LABEL_APP] for entry in checkpoint.entries if LABEL_APP in entry.labels}
    if held - {app}:
        raise ConfigError(
            f"app.name: this stack holds {', '.join(sorted(held))}, and under another name it would start without its data; "
            f"keep the name, or remove the stack first (`pulumi destroy`)"
        )


def routing(app: App, environment: Environment, stack: str) -> Routing:
    """Ask the platform itself which slot it sends users to; its answer says so if it can't be asked."""
    if environment.kubernetes:
        from . import cluster

        return cluster.routing(environment.kubernetes, app.name, f"{app.name}-{stack}")
    from . import engine

    return engine.routing(environment, app.name, stack)


def ready(app: App, environment: Environment, stack: str) -> Mapping[tuple[str, str], tuple[int, int]]:
    """(slot or "", tier) → how many of it are ready, of how many there are to be: as the platform says now."""
    return ready_at(locate_described(app, environment, stack))


def ready_at(location: Location) -> Mapping[tuple[str, str], tuple[int, int]]:
    """Return (slot or "", tier) → how many replicas are ready, and how many there are to be, as the platform says now."""
    if location.context:
        from . import cluster

        return cluster.ready(location)
    from . import engine

    return engine.ready(location)


def locate_described(app: App, environment: Environment, stack: str) -> Location:
    """Return the platform that the files name for a stack."""
    if environment.kubernetes:
        home = environment.kubernetes.home(f"{app.name}-{stack}")
        return Location(app=app.name, stack=stack, context=environment.kubernetes.context, namespace=home)
    return Location(app=app.name, stack=stack, host=engine_host(environment.docker.host))


def execute(
    app: App, environment: Environment, stack: str, tier: str, slot: Slot | None, command: Sequence[str]
) -> str:
    """What a command prints in one of the running containers of a tier.

    Raises:
        RunError: there is none, or it ends with another code than 0.
    """
    held = {LABEL_SLOT: str(slot)} if slot else {}
    if environment.kubernetes:
        from . import cluster

        labels = {"app.kubernetes.io/component": tier, **held}
        return cluster.execute(environment.kubernetes, f"{app.name}-{stack}", labels, command)
    from . import engine

    labels = engine.stack_labels(app.name, stack) | {"tiers.role": "tier", "tiers.tier": tier, **held}
    return engine.execute(environment, labels, command)


def tell(app: App, environment: Environment, stack: str, workload: str, command: Sequence[str], given: str) -> str:
    """What a command prints in the running container of a workload, given a line on its standard input, where secrets may be.

    Raises:
        RunError: it does not run, or the command ends with another code than 0.
    """
    if environment.kubernetes:
        from . import cluster

        labels = {"app.kubernetes.io/component": workload}
        return cluster.execute(environment.kubernetes, f"{app.name}-{stack}", labels, command, given, ONCE_WITHIN)
    from . import engine

    labels = engine.stack_labels(app.name, stack) | {"tiers.role": "tier", "tiers.tier": workload}
    return engine.tell(environment, labels, command, given, ONCE_WITHIN)


def lines(app: App, environment: Environment, stack: str) -> Iterator[Line]:
    """All that the containers of a stack have written, those of both slots and what is shared, one after the other."""
    if environment.kubernetes:
        from . import cluster

        return cluster.lines(environment.kubernetes, f"{app.name}-{stack}")
    from . import engine

    return engine.lines(environment, engine.stack_labels(app.name, stack))


def run_once(app: App, environment: Environment, stack: str, workload: str, name: str, command: Sequence[str]) -> str:
    """What a command prints that is run, to its end, as a workload's timed command `name` would be.

    Raises:
        RunError: there is no such workload, or it ends with another code than 0.
    """
    if environment.kubernetes:
        from . import cluster

        return cluster.run_once(environment.kubernetes, f"{app.name}-{stack}", f"{workload}-{name}", command)
    from . import engine

    labels = engine.stack_labels(app.name, stack) | {"tiers.role": "tier", "tiers.tier": workload}
    return engine.execute(environment, labels, command, within=ONCE_WITHIN)


def ways_in(app: App, environment: Environment, stack: str, live: Slot) -> list[str]:
    """Which ways there are to what is live, besides the gateway's and those between tiers that need each other."""
    from . import isolation

    if environment.kubernetes:
        from . import cluster

        instance = f"{app.name}-{stack}"
        found = cluster.objects(environment.kubernetes, instance, live)
        return list(isolation.of_cluster(app, found, environment.kubernetes.home(instance)))
    from . import engine

    containers = engine.containers(environment, engine.stack_labels(app.name, stack), live)
    outside = f"{app.name}-{stack}-{Zone.OUTSIDE}"
    answering = engine.answering(environment, containers, isolation.ports(app), outside)
    return list(isolation.of_engine(app, containers, answering))


def check(settings: Settings, checkpoint: Checkpoint) -> None:
    """Find out before anything is touched whether the platform is there, and the stack's own.

    Raises:
        RunError: it is not.
    """
    refuse_another(settings.app.name, checkpoint)
    # Each platform's provider costs time to import.
    if settings.environment.kubernetes:
        from . import kubernetes

        kubernetes.check(settings)
    else:
        from . import docker

        docker.check(settings, checkpoint)


def connect(settings: Settings, checkpoint: Checkpoint, live: Slot | None) -> Platform:
    """Return the platform that the environment names; `live` is the slot that must keep serving."""
    if settings.environment.kubernetes:
        from . import kubernetes

        return kubernetes.connect(settings, checkpoint, live)
    from . import docker

    return docker.connect(settings, checkpoint, live)
