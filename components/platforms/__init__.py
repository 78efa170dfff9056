"""Platform interface: the operations that turn workloads into provider resources on Docker or Kubernetes.

Tiers only see the methods of `Platform`.
"""

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
"""Request header that selects a slot. Responses carry it with the slot that answered."""
COOKIE = "tiers-release"
"""Cookie with the release a page came from. The page's further requests are routed to the same release."""
SHARED = "it is shared by both slots"
"""Effect of a failed shared tier on users, for error messages; `impact` describes that of a slot."""
ONCE_WITHIN = 6 * 3600
"""Timeout in seconds of a command that a person runs by hand."""
Dependencies = Sequence[Input[Resource]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Target of a deployment: a slot and the release it gets."""

    slot: Slot
    release: Release


class Line(NamedTuple):
    """Line of a container's log, with the platform's own timestamp.

    `slot` and `release` are empty for tiers that both slots share.
    """

    when: str
    tier: str
    slot: str
    release: str
    text: str


def readiness(route: Route) -> str:
    """Return the gateway's path for the readiness of a tier, for requests that name a slot."""
    return f"{GATEWAY_PATHS}/{route.tier}"


def smoke_checks(app: App, routes: Sequence[Route]) -> str:
    """Return the requests of the smoke test as JSON for the toolbox: each tier's readiness, then `app.checks`.

    Each request carries its config path, for errors.
    """
    listening = {TierName.WEB: app.web, TierName.API: app.api}
    requests: list[dict[str, Any]] = []
    for route in routes:
        tier = listening.get(TierName(route.tier))
        key = "ready" if tier and tier.ready else "health"
        requests.append({"name": f"app.{route.tier}.{key}: {route.health}", "path": readiness(route)})
    return json.dumps(requests + questions(app.checks))


def variables(
    workload: Workload, place: Place | None, api_port: int | None, task: Task | None = None
) -> dict[str, str]:
    """Return the environment variables of a workload or of one of its tasks.

    These are its settings, the paths of its secret files, and in a slot RELEASE, SLOT and API_URL.
    """
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
    """Desired state of a kept resource: its inputs, hooks and timeouts.

    Attributes:
        theirs: input paths that another controller sets, such as an autoscaler; changes of them are ignored.
        reads: names of the outputs that `passed` reads.
        passed: returns the resource once its work succeeded, where its existence is not enough.
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
    """Operations of a platform. Each registers resources below `parent` and returns the ones to depend on."""

    @property
    def provider(self) -> ProviderResource:
        """Pulumi provider of every resource on this platform."""
        ...

    @property
    def foundation(self) -> Sequence[Resource]:
        """Resources that every other resource depends on; they are deleted last."""
        ...

    @property
    def url(self) -> str:
        """URL that users open."""
        ...

    @property
    def namespace(self) -> str:
        """Name that distinguishes the metrics of this environment from those of others."""
        ...

    def logs(self, live: Slot) -> Mapping[str, str]:
        """Return tier → command that follows the tier's log."""
        ...

    def prepare(self, parent: Resource, workloads: Sequence[Workload], place: Place | None) -> Mapping[str, Resource]:
        """Provision the images, secret files and scripts of workloads; pass the result on as `supplies`."""
        ...

    def stores(self, workloads: Sequence[Workload | DatabaseCluster]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        """Return name → type and inputs of each resource that holds data of these workloads, as it will be registered."""
        ...

    def keep(self, parent: Resource, workload: Workload, supplies: Mapping[str, Resource]) -> Sequence[Resource]:
        """Deploy a stateful workload that both slots share."""
        ...

    def keep_several(self, parent: Resource, wanted: DatabaseCluster) -> Sequence[Resource]:
        """Deploy a database cluster that both slots share.

        Returns:
            Resources that exist once all instances are ready.
        """
        ...

    def schedule(
        self, parent: Resource, workload: Workload, times: Sequence[Timed], supplies: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        """Deploy a workload as `keep` does, and run its commands on their schedules.

        On a platform without a scheduler the workload gets each schedule as `NAME=TIMES` at the end of its command.
        """
        ...

    def reach(self, parent: Resource, elsewhere: Elsewhere) -> Sequence[Resource]:
        """Allow tiers to connect to an external data service that they need."""
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
        """Deploy a tier of a slot.

        Returns:
            Resources that exist once every replica is healthy.
        """
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
        """Run a task to its end. The output fails with the last lines of the log if the task fails."""
        ...

    def rescaled(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted | None:
        """Return the desired state of a kept resource at the configured scale, or None if it stays unchanged."""
        ...

    def revived(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted:
        """Return the desired state that runs a suspended resource again, at the configured scale."""
        ...

    def resealed(self, entry: Entry, workload: Workload, place: Place) -> Wanted | None:
        """Return the desired state of a resource that holds a workload's secrets, with today's values.

        Returns None if today's values are of another version than the deployed ones.
        """
        ...

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        """Return the images (as containers name them) that the platform no longer has.

        Returns nothing where the platform can't tell.
        """
        ...

    def closed(self, entry: Entry) -> Wanted | None:
        """Return the inputs that stop cookie-pinned requests from reaching a suspended slot.

        Returns None if `entry` is not a routing resource.
        """
        ...

    def opened(self, entry: Entry) -> Wanted:
        """Return the original inputs of a routing resource that `closed` has changed."""
        ...

    def gateway(self, parent: Resource) -> Resource:
        """Deploy the gateway that users connect to."""
        ...

    def expose(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Dependencies:
        """Route requests through the gateway to a slot, live or idle, by header and by release cookie.

        Once the returned resources exist, no request reaches the release that was in the slot before.
        """
        ...

    def smoke(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Output[Resource]:
        """Request every route of a slot and all of `app.checks` through the gateway, as users do."""
        ...

    def switch(
        self, parent: Resource, place: Place, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        """Move all traffic to a slot. No other operation moves traffic.

        Args:
            routes: routes of the slot, or None if the slot is kept. A kept slot keeps its own routes, and its health
                is
                checked before the switch.
            count: number of this switch in the stack.
        """
        ...

    def put_back(
        self, parent: Resource, place: Place, count: int, after: Dependencies, *, beside: bool
    ) -> Output[Resource]:
        """Recreate the lost switch number `count`, to the slot that is live already.

        Args:
            beside: True if another switch moves traffic on, later in the same update.
        """
        ...

    def watch(
        self,
        parent: Resource,
        watched: Watched,
        exporters: Mapping[TierName, Workload],
        after: Mapping[TierName, Sequence[Resource]],
    ) -> None:
        """Set up metrics collection from tiers and exporters, and the alert rules. An exporter starts after its tier."""
        ...

    def announce(self, parent: Resource, watched: Watched, live: Output[Mapping[str, str]]) -> None:
        """Publish the live slot and its release as a metric."""
        ...


def refuse_another(app: str, checkpoint: Checkpoint) -> None:
    """Refuse to deploy an application over another one that this stack holds.

    Raises:
        ConfigError: the stack holds an application of another name.
    """
    names = {entry.labels[LABEL_APP] for entry in checkpoint.entries if LABEL_APP in entry.labels}
    if names - {app}:
        raise ConfigError(
            f"app.name: this stack holds {', '.join(sorted(names))}, and under another name it would start without its data; "
            f"keep the name, or remove the stack first (`pulumi destroy`)"
        )


def routing(app: App, environment: Environment, stack: str) -> Routing:
    """Read from the platform which slot gets users' traffic. A failure is reported in the result, not raised."""
    if environment.kubernetes:
        from . import cluster

        return cluster.routing(environment.kubernetes, app.name, f"{app.name}-{stack}")
    from . import engine

    return engine.routing(environment, app.name, stack)


def ready(app: App, environment: Environment, stack: str) -> Mapping[tuple[str, str], tuple[int, int]]:
    """Return (slot or "", tier) → how many replicas are ready, and how many are expected, read from the platform."""
    return ready_at(locate_described(app, environment, stack))


def ready_at(location: Location) -> Mapping[tuple[str, str], tuple[int, int]]:
    """Return (slot or "", tier) → how many replicas are ready, and how many are expected, read from a location."""
    if location.context:
        from . import cluster

        return cluster.ready(location)
    from . import engine

    return engine.ready(location)


def locate_described(app: App, environment: Environment, stack: str) -> Location:
    """Return the platform location that the configuration files name for a stack."""
    if environment.kubernetes:
        home = environment.kubernetes.home(f"{app.name}-{stack}")
        return Location(app=app.name, stack=stack, context=environment.kubernetes.context, namespace=home)
    return Location(app=app.name, stack=stack, host=engine_host(environment.docker.host))


def execute(
    app: App, environment: Environment, stack: str, tier: str, slot: Slot | None, command: Sequence[str]
) -> str:
    """Run a command in a running container of a tier and return its output.

    Raises:
        RunError: no container of the tier runs, or the command exits with a code other than 0.
    """
    slot_labels = {LABEL_SLOT: str(slot)} if slot else {}
    if environment.kubernetes:
        from . import cluster

        labels = {"app.kubernetes.io/component": tier, **slot_labels}
        return cluster.execute(environment.kubernetes, f"{app.name}-{stack}", labels, command)
    from . import engine

    labels = engine.stack_labels(app.name, stack) | {"tiers.role": "tier", "tiers.tier": tier, **slot_labels}
    return engine.execute(environment, labels, command)


def tell(app: App, environment: Environment, stack: str, workload: str, command: Sequence[str], given: str) -> str:
    """Run a command in a workload's container, write a line to its standard input, and return its output.

    Secrets can be passed in this line.

    Raises:
        RunError: the container does not run, or the command exits with a code other than 0.
    """
    if environment.kubernetes:
        from . import cluster

        labels = {"app.kubernetes.io/component": workload}
        return cluster.execute(environment.kubernetes, f"{app.name}-{stack}", labels, command, given, ONCE_WITHIN)
    from . import engine

    labels = engine.stack_labels(app.name, stack) | {"tiers.role": "tier", "tiers.tier": workload}
    return engine.tell(environment, labels, command, given, ONCE_WITHIN)


def lines(app: App, environment: Environment, stack: str) -> Iterator[Line]:
    """Yield every log line of a stack's containers, of both slots and of shared tiers, one container after the other."""
    if environment.kubernetes:
        from . import cluster

        return cluster.lines(environment.kubernetes, f"{app.name}-{stack}")
    from . import engine

    return engine.lines(environment, engine.stack_labels(app.name, stack))


def run_once(app: App, environment: Environment, stack: str, workload: str, name: str, command: Sequence[str]) -> str:
    """Run a scheduled command now, to its end, and return its output.

    `workload` and `name` select the schedule that it runs like.

    Raises:
        RunError: the workload does not exist, or the command exits with a code other than 0.
    """
    if environment.kubernetes:
        from . import cluster

        return cluster.run_once(environment.kubernetes, f"{app.name}-{stack}", f"{workload}-{name}", command)
    from . import engine

    labels = engine.stack_labels(app.name, stack) | {"tiers.role": "tier", "tiers.tier": workload}
    return engine.execute(environment, labels, command, within=ONCE_WITHIN)


def ways_in(app: App, environment: Environment, stack: str, live: Slot) -> list[str]:
    """Return the routes to the live slot that are neither the gateway's nor between tiers that need each other."""
    from . import isolation

    if environment.kubernetes:
        from . import cluster

        instance = f"{app.name}-{stack}"
        objects = cluster.objects(environment.kubernetes, instance, live)
        return list(isolation.of_cluster(app, objects, environment.kubernetes.home(instance)))
    from . import engine

    containers = engine.containers(environment, engine.stack_labels(app.name, stack), live)
    outside = f"{app.name}-{stack}-{Zone.OUTSIDE}"
    answering = engine.answering(environment, containers, isolation.ports(app), outside)
    return list(isolation.of_engine(app, containers, answering))


def check(settings: Settings, checkpoint: Checkpoint, routes: Sequence[Route]) -> None:
    """Check before any change that the platform is available and that the stack holds the same application.

    Raises:
        RunError: the platform is not available.
        ConfigError: the stack holds another application.
    """
    refuse_another(settings.app.name, checkpoint)
    # Imported here because each platform's provider takes time to import.
    if settings.environment.kubernetes:
        from . import kubernetes

        kubernetes.check(settings)
    else:
        from . import docker

        docker.check(settings, checkpoint, routes)


def connect(settings: Settings, checkpoint: Checkpoint, live: Slot | None) -> Platform:
    """Return the platform of the environment. `live` is the slot that must keep serving users."""
    if settings.environment.kubernetes:
        from . import kubernetes

        return kubernetes.connect(settings, checkpoint, live)
    from . import docker

    return docker.connect(settings, checkpoint, live)
