"""Interface of a platform: the protocols that Docker and Kubernetes implement, and the types of their arguments and results.

A `Deployer` registers resources. An `Inspector` reads a deployed environment. Components use only these protocols. Docker and
Kubernetes import this module, but not each other.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol, runtime_checkable

from pulumi import CustomTimeouts, Input, Output, ProviderResource, Resource, ResourceHookBinding

from ..config import App, Environment
from ..context import Context
from ..model.names import LABEL_RELEASE
from ..model.workload import DatabaseCluster, ExternalService, Route, Scale, ScheduledCommand, Task, Workload
from ..observability.alerts import MonitoringScope
from ..release.checkpoint import Checkpoint, Entry
from ..release.live import Routing
from ..release.planner import Release, Slot
from ..state import reader

SHARED = "both slots share this service"
"""Effect on users, for errors of a tier that both slots share. The module `impact` writes the text for all other tiers."""
ONCE_WITHIN = 6 * 3600
"""Time limit in seconds of a long command in a deployed environment (`run_once`, `run_with_input`)."""
STOP_WITHIN = 10
"""Seconds that a command of `Inspector.one_off` gets to end after SIGTERM, before it is killed."""
Dependencies = Sequence[Input[Resource]]


@dataclass(frozen=True, kw_only=True)
class SlotTarget:
    """Target of a deployment: a slot, and the release that the slot gets.

    Example:
        target = SlotTarget(slot=rollout.plan.render, release=rollout.plan.release)
    """

    slot: Slot
    """Slot to deploy to."""
    release: Release
    """Release that the slot gets."""


class Line(NamedTuple):
    """Line of a container's log, with the timestamp of the platform.

    `slot` and `release` are empty for tiers that both slots share.

    Example:
        errors = [line.text for line in inspector.log_lines() if line.tier == "api" and "error" in line.text]
    """

    when: str
    """Time of the line, as the platform formats it (RFC 3339, in UTC)."""
    tier: str
    """Name of the tier."""
    slot: str
    """Slot of the container."""
    release: str
    """Release of the container, as `VERSION-DIGEST`."""
    text: str
    """Text of the line."""


@dataclass(frozen=True, kw_only=True)
class Location:
    """Address of a stack's platform: the host of a Docker engine, or the context and namespace in a Kubernetes cluster.

    Example:
        location = rollout.platform.inspector.location
        pulumi.export("platform", location.name)
    """

    app: str
    """Name of the application."""
    stack: str
    """Name of the stack."""
    host: str = ""
    """URL of the Docker engine; empty on Kubernetes."""
    context: str = ""
    """Context of the cluster in the kubeconfig; empty on Docker."""
    namespace: str = ""
    """Namespace in the cluster; empty on Docker."""

    @property
    def platform(self) -> str:
        """Name of the platform in the configuration: `docker` or `kubernetes`."""
        return "kubernetes" if self.context else "docker"

    @property
    def name(self) -> str:
        """Name of the platform for error messages."""
        return f"the cluster of context {self.context}" if self.context else f"the engine at {self.host}"

    @property
    def metrics_namespace(self) -> str:
        """Value of the metrics label `namespace`, which distinguishes this environment from other environments."""
        return self.namespace or self.instance

    @property
    def instance(self) -> str:
        """Name of the stack on its platform: `APP-STACK`. Container names begin with this name, and Kubernetes objects have it as a label."""
        return f"{self.app}-{self.stack}"


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """Objects of a stack that exist on its platform. Each object has a key, such as `volume NAME` on Docker.

    Example:
        stopped = inspector.inventory(["docker:index/container:Container"]).stopped
    """

    keys: frozenset[str] = frozenset()
    """Keys of all objects that were listed."""
    stopped: Mapping[str, str] = field(default_factory=dict[str, str])
    """Containers that do not run, and Deployments and StatefulSets that a person scaled to 0: key → state."""
    unhealthy: Mapping[str, str] = field(default_factory=dict[str, str])
    """Containers that run but are unhealthy, and containers that restart: key → state."""
    kinds: frozenset[str] | None = None
    """Kinds of objects that this list covers; None for all kinds. An object of another kind counts as existing."""

    def lacks(self, key: str) -> bool:
        """Return True if the object with this key is missing: the list covers its kind, but not the object."""
        return key not in self.keys and (self.kinds is None or key.partition(" ")[0] in self.kinds)


@dataclass(frozen=True, kw_only=True)
class DesiredState:
    """Desired state of a resource in a kept slot (a slot that gets no new release). `KeptSlot` registers this state.

    Example:
        state = DesiredState(inputs=entry.inputs)
    """

    inputs: Mapping[str, Any]
    """Inputs of the resource."""
    hooks: ResourceHookBinding | None = None
    """Pulumi hooks of the resource, such as a hook that explains an error; None for no hooks."""
    timeouts: CustomTimeouts | None = None
    """Time limits of the provider; None for the provider's defaults."""
    ignore_changes: list[str] | None = None
    """Paths of inputs that a controller in the cluster, such as an autoscaler, sets. Pulumi ignores changes of these inputs."""
    reads: tuple[str, ...] = ()
    """Names of the outputs that `passed` reads."""
    passed: Callable[[Resource], Output[Resource]] | None = None
    """Function that waits until the resource's command has succeeded; None to wait only until the resource exists."""
    secret_outputs: list[str] | None = None
    """Names of outputs that Pulumi encrypts in the state."""


@dataclass(frozen=True, kw_only=True)
class LiveObject:
    """Object on the platform that only the live release has, such as the container of a process that must never run twice, or a CronJob.

    The component `Slot` stores the object, so a rollback can deploy the object of an older release.

    Example:
        live_object = slots.live_objects["beat"]
        state = live_object.to_state()
    """

    path: str
    """Config path of the process or job, for errors."""
    type: str
    """Type token of the resource."""
    name: str
    """Name of the resource. It is the same in every release, so the object of a new release replaces that of the old one."""
    inputs: Mapping[str, Any]
    """Inputs of the resource, by the provider's names."""
    within: float
    """Time limit in seconds to become ready."""

    @property
    def release(self) -> str:
        """Release of the object, as `VERSION-DIGEST`."""
        return reader(self.inputs).labels(self.inputs)[LABEL_RELEASE]

    def to_state(self) -> dict[str, Any]:
        """Return the object for an output of the component `Slot`."""
        return {
            "path": self.path,
            "type": self.type,
            "name": self.name,
            "inputs": self.inputs,
            "within": self.within,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "LiveObject":
        """Return the object that `to_state` stored."""
        return cls(
            path=state["path"],
            type=state["type"],
            name=state["name"],
            inputs=state["inputs"],
            within=float(state["within"]),
        )


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """Run of a scheduled job.

    Example:
        failed = [run.job for run in inspector.job_runs() if run.code not in (0, None)]
    """

    job: str
    """Name of the job."""
    due: datetime
    """Due time of the run."""
    release: str = ""
    """Release of the run, as `VERSION-DIGEST`; empty if the platform does not store it."""
    code: int | None = None
    """Exit code of the last attempt; None while the run has not ended, or if it was interrupted."""
    seconds: float | None = None
    """Time in seconds from the start to the end of the run; None while it has not ended, or if it was interrupted."""


@dataclass(frozen=True, kw_only=True)
class OneOff:
    """New container or pod that runs one command with the settings of a service, and the command lines for this machine to follow it.

    Example:
        with inspector.one_off(environment, "api", slot, ["alembic", "current"], terminal=False) as one_off:
            subprocess.run(one_off.attach)
    """

    name: str
    """Name of the container or pod."""
    release: str
    """Release of the service, as `VERSION-DIGEST`."""
    attach: Sequence[str]
    """Command line that prints the output of the command, until the command ends. It passes its standard input to the command,
    unless `feed` does so."""
    feed: Sequence[str] = ()
    """Command line that passes its standard input to the command; empty if `attach` does so."""
    printed: Callable[[], str] = lambda: ""
    """Function that returns the output up to now, of which `attach` prints only the part after it connects; an empty text if `attach`
    prints all output."""
    exit_code: Callable[[int], int]
    """Function that gets the exit code of `attach`, and returns the exit code of the command."""


@dataclass(frozen=True, kw_only=True)
class VolumeRestore:
    """A store whose volumes a command of its backup workload replaces.

    Example:
        restore = VolumeRestore(store="mysql", workload="mysql-backup", folder="/volumes", ready_within=120)
    """

    store: str
    """Name of the store, which is stopped during the command."""
    workload: str
    """Name of the backup workload, which mounts the volumes of the store read-only."""
    folder: str
    """Folder in the container of the backup workload, below which the volumes are mounted."""
    ready_within: float
    """Time limit in seconds for the store to become ready after its start."""


class Deployer(Protocol):
    """Operations that deploy to a platform. An operation registers resources as children of `parent`.

    Most operations return the resources that later operations must wait for. Components call the operations, so a program passes
    the deployer (`rollout.platform`) to its components.

    Example:
        gateway = Gateway("gateway", GatewayArgs(platform=rollout.platform))
    """

    @property
    def inspector(self) -> "Inspector":
        """Inspector of this platform's environment."""
        ...

    def provider_for(self, parent: Resource) -> ProviderResource:
        """Return the provider for children of the component `parent`.

        A provider in the component's options takes precedence over the platform's provider.
        """
        ...

    @property
    def foundation_resources(self) -> Sequence[Resource]:
        """Resources that every other resource depends on. `pulumi destroy` therefore deletes them last."""
        ...

    @property
    def url(self) -> str:
        """URL that users open."""
        ...

    @property
    def namespace(self) -> str:
        """Value of the metrics label `namespace`, which distinguishes this environment from other environments."""
        ...

    def logs(self, live: Slot) -> Mapping[str, str]:
        """Return shell commands that follow logs: name of the tier → command.

        For a tier that runs in slots, the command follows the log of slot `live`.
        """
        ...

    def provision(
        self, parent: Resource, workloads: Sequence[Workload], target: SlotTarget | None
    ) -> Mapping[str, Resource]:
        """Provision images, secret files and scripts of workloads. Pass the result to other operations as `provisioned`."""
        ...

    def deploy_stateful(
        self, parent: Resource, workload: Workload, provisioned: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        """Deploy a stateful workload that both slots share."""
        ...

    def deploy_scheduled(
        self,
        parent: Resource,
        workload: Workload,
        commands: Sequence[ScheduledCommand],
        provisioned: Mapping[str, Resource],
    ) -> Sequence[Resource]:
        """Deploy a workload that both slots share, and run its commands on their schedules.

        On a platform without a scheduler the workload itself runs the commands. It gets each schedule as an argument
        `NAME=SCHEDULE`.
        """
        ...

    def allow_external_access(self, parent: Resource, external: ExternalService) -> Sequence[Resource]:
        """Allow connections to an external data service from the tiers that need it."""
        ...

    def deploy_service(
        self,
        parent: Resource,
        workload: Workload,
        target: SlotTarget,
        scale: Scale,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> Sequence[Resource]:
        """Deploy a service to a slot.

        Returns:
            Resources that exist once every replica is healthy.
        """
        ...

    def prepare_single(
        self, parent: Resource, workload: Workload, target: SlotTarget, provisioned: Mapping[str, Resource]
    ) -> tuple[LiveObject, Sequence[Resource]]:
        """Prepare a process that must never run twice, but don't start it.

        Returns:
            The object that runs the process while the slot is live, and resources that must exist before it.
        """
        ...

    def prepare_jobs(
        self,
        parent: Resource,
        workloads: Sequence[Workload],
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> tuple[Mapping[str, LiveObject], Sequence[Resource]]:
        """Prepare the scheduled jobs of a slot's workloads. They don't run before their slot is live.

        Returns:
            Objects of the live release that run the jobs, by their name, and resources that must exist before traffic moves.
        """
        ...

    def live_objects(self, target: SlotTarget) -> Mapping[str, LiveObject]:
        """Return the objects that every live release has, by their name. They depend only on the slot that is live."""
        ...

    def deploy_live_object(self, parent: Resource, live_object: LiveObject, after: Dependencies) -> Resource:
        """Deploy an object of the live release.

        The object of the previous release is deleted first, and its process has then ended. A CronJob is updated.

        Returns:
            Resource that exists once the object is ready.
        """
        ...

    def run_task(
        self,
        parent: Resource,
        workload: Workload,
        task: Task,
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> Output[Resource]:
        """Run a task to its end. If the task fails, the returned output fails with the last lines of the task's log."""
        ...

    def rescaled(self, entry: Entry, scales: Mapping[str, Scale]) -> DesiredState | None:
        """Return the desired state of a kept slot's resource at the configured scale, or None if nothing changes."""
        ...

    def resumed(self, entry: Entry, scales: Mapping[str, Scale]) -> DesiredState:
        """Return the desired state that recreates a suspended or lost resource at the configured scale."""
        ...

    def with_current_secrets(self, entry: Entry, workload: Workload, target: SlotTarget) -> DesiredState | None:
        """Return the desired state of the resource `entry` with the current values of a workload's secrets.

        Return None if `entry` holds no secrets of the workload, or holds another version of the secrets.
        """
        ...

    def suspended_route(self, entry: Entry) -> DesiredState | None:
        """Return the desired state of a routing resource in a suspended slot. The resource then ignores the release cookie.

        Return None if `entry` is not a routing resource.
        """
        ...

    def active_route(self, entry: Entry) -> DesiredState:
        """Return the desired state of a routing resource with its original inputs, to undo `suspended_route`."""
        ...

    def deploy_gateway(self, parent: Resource) -> Resource:
        """Deploy the gateway that users connect to."""
        ...

    def route_slot(
        self, parent: Resource, routes: Sequence[Route], target: SlotTarget, after: Dependencies
    ) -> Dependencies:
        """Route requests to a slot if `SLOT_HEADER` names the slot or `COOKIE` names the slot's release.

        The slot may be live or idle. Once the returned resources exist, no request reaches the release that the slot had before.
        """
        ...

    def run_smoke_test(
        self, parent: Resource, routes: Sequence[Route], target: SlotTarget, after: Dependencies
    ) -> Output[Resource]:
        """Run the smoke test of a slot: request every route and all of `app.checks` through the gateway."""
        ...

    def move_traffic(
        self, parent: Resource, target: SlotTarget, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        """Move all traffic to a slot. No other operation moves traffic.

        Args:
            routes: routes of the new release; None for a kept slot. A kept slot keeps its routes, and its health is checked
                before the switch.
            count: sequence number of this switch in the stack; the first switch is 1.
        """
        ...

    def restore_switch(
        self, parent: Resource, target: SlotTarget, count: int, after: Dependencies, *, before_switch: bool
    ) -> Output[Resource]:
        """Recreate the missing resource of the last switch. Traffic does not move, because the slot in `target` is already live.

        Args:
            count: sequence number of the last switch in the stack.
            before_switch: True if this update later moves traffic with a new switch.
        """
        ...

    def deploy_monitoring(
        self,
        parent: Resource,
        monitored: MonitoringScope,
        exporters: Mapping[str, Workload],
        after: Mapping[str, Sequence[Resource]],
    ) -> None:
        """Collect metrics of tiers and exporters, and deploy the alert rules.

        Args:
            parent: the parent component.
            monitored: the monitored environment.
            exporters: name of a data service → workload of its metrics exporter.
            after: name of a data service → resources that its metrics exporter waits for.
        """
        ...

    def publish_release(self, parent: Resource, monitored: MonitoringScope, live: Output[Mapping[str, str]]) -> None:
        """Publish the live slot and its release as a metric."""
        ...


@runtime_checkable
class DeploysClusters(Protocol):
    """Operations of a platform with database clusters. On other platforms the database can't have `ha: true`.

    Example:
        has_clusters = isinstance(rollout.platform, DeploysClusters)
    """

    def deploy_database_cluster(self, parent: Resource, database: DatabaseCluster) -> Sequence[Resource]:
        """Deploy a database cluster that both slots share.

        Returns:
            Resources that exist once all instances are ready.
        """
        ...


class Inspector(Protocol):
    """Operations that read a deployed environment, run commands in it, and clean up after an interrupted update.

    An inspector needs only the location of a stack, so it also works with invalid configuration files. Operations that need
    settings take these settings as arguments.

    Example:
        inspector = rollout.platform.inspector
        pulumi.log.info(str(inspector.routing(context.environment)))
    """

    @property
    def location(self) -> Location:
        """Address of the environment."""
        ...

    def check(self, context: Context, checkpoint: Checkpoint, routes: Sequence[Route]) -> None:
        """Check before any change that the platform is available and has all features that the environment uses.

        Raises:
            RunError: the platform is not available.
            ConfigError: the platform can't apply the configured routes.
        """
        ...

    def routing(self, environment: Environment) -> Routing:
        """Return the slot that the platform routes users to.

        If the platform can't be read, `Routing.problem` has the reason.
        """
        ...

    def replica_counts(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        """Return (slot, tier) → (ready replicas, expected replicas). The slot is "" for tiers that both slots share."""
        ...

    def job_runs(self) -> Sequence[JobRun]:
        """Return the last runs of the scheduled jobs, oldest first. The platform keeps some runs of each job."""
        ...

    def is_ready(self, slot: Slot) -> bool:
        """Return True if the slot has tiers and all of them are ready."""
        ...

    def check_ready(self, slot: Slot, touched: Callable[[], str]) -> None:
        """Check that the slot has tiers and that all of them are ready.

        Args:
            slot: the slot.
            touched: function that describes the effect on users, for the error message.

        Raises:
            RunError: a tier is not ready, or the slot has no tiers.
        """
        ...

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        """Return the images that the platform no longer has, or an empty list if it can't list its images.

        Args:
            images: image ids or references, as containers use them.
        """
        ...

    def execute(self, tier: str, slot: Slot | None, command: Sequence[str]) -> str:
        """Run a command in a running container of a tier and return its output.

        Raises:
            RunError: no container of the tier runs, or the command exits with a code other than 0.
        """
        ...

    def run_with_input(self, workload: str, command: Sequence[str], line: str) -> str:
        """Run a command in a workload's container, write `line` to its standard input, and return its output.

        Pass secrets in `line`, not as arguments.

        Raises:
            RunError: the container does not run, or the command exits with a code other than 0.
        """
        ...

    def run_once(self, environment: Environment, workload: str, name: str, command: Sequence[str]) -> str:
        """Run a command now, wait until it ends, and return its output.

        The container has the settings of the scheduled command `name`.

        Args:
            environment: the environment.
            workload: name of the workload with the schedule.
            name: name of the scheduled command.
            command: the command to run, with arguments.

        Raises:
            RunError: the workload does not exist, or the command exits with a code other than 0.
        """
        ...

    def run_on_volumes(self, environment: Environment, restore: "VolumeRestore", command: Sequence[str]) -> str:
        """Stop a store, run a command that may write to the volumes of the store, start the store again, and return the output.

        Args:
            environment: the environment.
            restore: the store, and the backup workload whose settings the command's container gets.
            command: the command to run, with arguments.

        Raises:
            RunError: the workload or the store does not exist, the command exits with a code other than 0, or the store does not
                start again. The store is started in any case.
        """
        ...

    def log_lines(self, since: float = 0) -> Iterator[Line]:
        """Yield the log lines of both slots and of shared tiers, one container after the other.

        Args:
            since: time of the first line, in seconds since 1970; 0 for all lines. The first lines may be up to a second older.
        """
        ...

    def command_in(self, tier: str, slot: Slot | None, command: Sequence[str], *, terminal: bool) -> list[str]:
        """Return a command line for this machine that runs `command` in a running container of a tier.

        The command line passes its own standard input to `command`.

        Args:
            tier: name of the tier.
            slot: slot of the tier; None for a tier that both slots share.
            command: the command in the container, with arguments.
            terminal: True to give the command a terminal.

        Raises:
            RunError: no container of the tier runs.
        """
        ...

    def one_off(
        self, environment: Environment, service: str, slot: Slot, command: Sequence[str], *, terminal: bool
    ) -> AbstractContextManager[OneOff]:
        """Create a container or pod for one command, with the settings of a service's container, and remove it after the `with` block.

        The container gets the same image, variables, secrets, volumes, networks and limits, but no requests of users. It does not count as a
        replica of the service.

        Args:
            environment: the environment.
            service: name of a service that runs in slots.
            slot: slot of the service.
            command: the command, with arguments. It replaces the command of the image, and the entrypoint stays.
            terminal: True to give the command a terminal.

        Raises:
            RunError: the service is not deployed in the slot, or the container does not start.
        """
        ...

    def remove_one_offs(self) -> list[str]:
        """Remove the containers of `one_off` that would prevent the removal of the stack, and return their names."""
        ...

    def unexpected_routes(self, app: App, live: Slot) -> list[str]:
        """Return a description of each forbidden network route that is open in the live slot or in shared tiers.

        Only two kinds of routes are allowed: from the gateway, and from a tier to the tiers that it needs.
        """
        ...

    @property
    def checked_objects(self) -> str:
        """Kinds of objects that `unexpected_routes` checks, as text for a message, such as `ports and networks`."""
        ...

    def inventory(self, types: Iterable[str]) -> Inventory:
        """List the objects of the stack. `types` are the resource types in the stack's state."""
        ...

    def confirm(self, types: Mapping[str, str]) -> frozenset[str]:
        """Look up each object that `inventory` did not list, and return the keys of the existing objects.

        Args:
            types: key of each object to check → resource type of the object.
        """
        ...

    def remove_strays(self, resources: Sequence[Mapping[str, Any]]) -> list[str]:
        """Remove objects that belong to the stack but are missing from the stack's state. Objects that may hold data stay.

        Args:
            resources: resources in the state.

        Returns:
            The names of the removed objects.
        """
        ...

    def manual_start(self, key: str) -> str:
        """Return the shell command that starts a stopped object, or an empty text if `start` can start the object."""
        ...

    def start(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Start stopped objects one after the other, and remove objects that can't be started.

        Returns:
            Removed objects: key → error of the platform.
        """
        ...

    def wait_healthy(self, keys: Sequence[str], within: float) -> Mapping[str, str]:
        """Wait until objects are healthy. An object without a health check counts as healthy once it runs.

        Args:
            keys: keys of the objects.
            within: time limit in seconds.

        Returns:
            Objects that are still unhealthy: name → state.
        """
        ...

    def repair_gateway(self, environment: Environment, read_checkpoint: Callable[[], Checkpoint]) -> bool:
        """Write a new gateway configuration if the gateway can't start with the present one.

        Args:
            environment: the environment.
            read_checkpoint: function that returns the stack's checkpoint, called only if a repair is needed.

        Returns:
            True if the configuration was rewritten; False on a platform whose gateway has no configuration file.

        Raises:
            RunError: the platform does not answer, or the gateway does not accept the configuration.
        """
        ...

    def repeat_switch(self, name: str) -> bool:
        """Repeat a switch, and return True. On a platform where a switch is atomic, do nothing and return False.

        Args:
            name: name of the container that performs the switch on Docker.
        """
        ...


@runtime_checkable
class InspectsClusters(Protocol):
    """Operations of an inspector on database clusters, for platforms that have them (`DeploysClusters`).

    Except in `recovered`, `cluster` is the name of a cluster.
    """

    def check_quorum(self, cluster: str) -> str:
        """Check that a failover requires a quorum, and return a text that confirms the check.

        Raises:
            RunError: a failover requires no quorum.
        """
        ...

    def check_archive(self, cluster: str) -> str:
        """Check that archiving works, and return a text with the earliest time to which the database can be recovered.

        Raises:
            RunError: archiving or the last base backup has failed.
        """
        ...

    def pool_database(self, cluster: str, database: str) -> None:
        """Make the connection pooler of a cluster accept clients of a new database."""
        ...

    def recovered(self, cluster: DatabaseCluster, moment: datetime) -> AbstractContextManager[str]:
        """Restore a cluster's data of the time `moment` into a temporary database server, and yield its host name.

        Raises:
            RunError: the archive does not cover the time, or the recovery fails.
        """
        ...

    def query_single_instance(self, workload: str, queries: Sequence[str], *, user: str, database: str) -> str:
        """Run SQL queries in a single-instance database, and return the output of the last query.

        The single instance exists in addition to a database cluster.

        Args:
            workload: name of the single instance's workload.
            queries: the queries. If a query fails, the queries after it do not run.
            user: PostgreSQL user that runs the queries.
            database: name of the database.

        Raises:
            RunError: the single instance does not run, or a query fails.
        """
        ...
