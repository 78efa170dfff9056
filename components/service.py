"""Components of services: `DataService` for a service that both slots share, `SlotService` for a service of one slot.

`Database`, `Cache` and `Store` are subclasses of `DataService`; `Web`, `Api` and `Worker` are subclasses of `SlotService`. The type
token of each component comes from the record of its service (`model/services.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pulumi import ComponentResource, Output, Resource, ResourceOptions

from .config import ConfigError
from .model import services
from .model.workload import DatabaseCluster, ExternalService, Scale, Workload
from .platforms import Dependencies, Deployer, DeploysClusters, LiveObject, SlotTarget
from .rendering import Data, single_instances


@dataclass(frozen=True, kw_only=True)
class DataServiceArgs:
    """Arguments of `DataService`."""

    platform: Deployer
    """The platform to deploy to (`Rollout.platform`)."""
    data: Data
    """The service to deploy (`Application.data`): a single instance, replicated Redis, a database cluster or an external
    service."""


class DataService(ComponentResource):
    """Deploy a stateful service that both slots share, such as a database.

    Deploying a release changes no resource of the service. With `environment.protect_data` Pulumi refuses to delete the
    volumes of the service. For an external service, the component only allows connections to its server.

    Args:
        name: resource name, which is part of the state.
        args: see `DataServiceArgs`.
        opts: options of the component. `protect` applies to every child; `environment.protect_data` protects the volumes only.

    Raises:
        ConfigError: the service is a database cluster, but the platform has none (Docker).

    Example:
        cache = DataService("cache", DataServiceArgs(platform=platform, data=application.data["cache"]))
        pulumi.export("cache", cache.url)
    """

    host: Output[str]
    """Host name that services connect to; for a database cluster, the host name of its pooler. Known once the service is ready."""
    port: Output[int]
    """Port that services connect to; 0 if the service has none."""
    url: Output[str]
    """Host and port as `tcp://host:port`, without user, password and database name."""
    ready: Sequence[Resource]
    """Resources that exist once the service accepts connections. Depend on these resources and not on the component,
    because the component exists earlier."""

    def __init__(self, name: str, args: DataServiceArgs, opts: ResourceOptions | None = None) -> None:
        belongs_to = args.data.belongs_to if isinstance(args.data, Workload) else ""
        super().__init__(services.type_token(args.data.tier, belongs_to), name, None, opts)
        self.ready, host = self._deploy(args.platform, args.data)
        ready = Output.all(*(resource.urn for resource in self.ready))
        self.host, self.port = ready.apply(lambda _: host), ready.apply(lambda _: args.data.port or 0)
        self.url = Output.format("tcp://{0}:{1}", self.host, self.port)
        self.register_outputs({"host": host, "port": args.data.port})

    def _deploy(self, platform: Deployer, data: Data) -> tuple[Sequence[Resource], str]:
        match data:
            case ExternalService():
                return platform.allow_external_access(self, data), data.host
            case DatabaseCluster():
                if not isinstance(platform, DeploysClusters):
                    raise ConfigError(
                        f"environment.tiers.{data.tier}.ha: this platform has no database clusters; "
                        "remove `ha`, or deploy to Kubernetes"
                    )
                single = [
                    resource
                    for instance in single_instances(data)
                    for resource in self._deploy_instance(platform, instance)
                ]
                return [*single, *platform.deploy_database_cluster(self, data)], data.pooled
            case Workload():
                return self._deploy_instance(platform, data), data.tier

    def _deploy_instance(self, platform: Deployer, workload: Workload) -> Sequence[Resource]:
        return platform.deploy_stateful(self, workload, platform.provision(self, [workload], None))


@dataclass(frozen=True, kw_only=True)
class SlotServiceArgs:
    """Arguments of `SlotService`."""

    platform: Deployer
    """The platform to deploy to (`Rollout.platform`)."""
    workload: Workload
    """The process to run, with its image, environment, secrets and volumes (`Application.workloads`)."""
    target: SlotTarget
    """The slot to deploy to, and the release that the slot gets."""
    scale: Scale = field(default_factory=Scale)
    """Number of replicas (`Application.scales`). A new number makes no new release."""
    provisioned: Mapping[str, Resource] | None = None
    """Images, secret files and scripts that `Deployer.provision` returned; None to provision them for this workload only."""
    after: Dependencies = ()
    """Resources that must exist before the first replica starts, such as `DataService.ready`."""


class SlotService(ComponentResource):
    """Deploy a service to a slot. No traffic moves, because only `Switch` moves traffic.

    The service is ready once all its replicas have passed their health checks. The update fails if a replica does not pass in
    time (`workload.start_within`). A process that must never run twice (`workload.single`) does not start: `LiveService` starts it
    after the switch.

    Args:
        name: resource name, which is part of the state.
        args: see `SlotServiceArgs`.
        opts: options of the component.

    Example:
        worker = SlotService("green-worker", SlotServiceArgs(platform=platform, workload=workload, target=target))
    """

    url: Output[str]
    """Address for other services, such as `http://api-green:8000`; empty without a port. Known once the service is ready."""
    ready: Sequence[Resource]
    """Resources that exist once every replica is healthy. For a process that must never run twice, the resources that it needs."""
    live_object: LiveObject | None
    """Object that runs the process after the switch; None for a service with replicas in the slot."""

    def __init__(self, name: str, args: SlotServiceArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__(services.type_token(args.workload.tier, args.workload.belongs_to), name, None, opts)
        platform, workload, target = args.platform, args.workload, args.target
        provisioned = args.provisioned
        if provisioned is None:
            provisioned = platform.provision(self, [workload], target)
        if workload.single:
            self.live_object, self.ready = platform.prepare_single(self, workload, target, provisioned)
        else:
            self.live_object = None
            self.ready = platform.deploy_service(self, workload, target, args.scale, provisioned, args.after)
        address = f"http://{workload.tier}-{target.slot}:{workload.port}" if workload.port else ""
        self.url = Output.all(*(resource.urn for resource in self.ready)).apply(lambda _: address)
        self.register_outputs({"release": str(target.release), "replicas": args.scale.replicas})
