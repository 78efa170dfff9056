"""Foundation of a stack on an engine: the resources that every container depends on."""

import pulumi_docker as docker
from pulumi import ComponentResource, ProviderResource, Resource, ResourceOptions

from ...context import Context
from ...model.names import JOB_STATE
from ...model.workload import Image, Zone
from ...options import child_options, data_options
from ...safety.data import data_labels
from ...state.docker import FOUNDATION, VOLUME
from ..base import Location
from .images import remote_image
from .keys import stack_labels


class Foundation(ComponentResource):
    """Resources that every container of a stack depends on: provider, toolbox image, networks, and volumes of services."""

    def __init__(self, context: Context, location: Location, opts: ResourceOptions | None = None) -> None:
        super().__init__(FOUNDATION, "ground", None, opts)
        environment = context.environment
        host = environment.docker.host
        self.provider = self.get_provider(VOLUME) or docker.Provider("engine", host=host, opts=child_options(self))
        toolbox = Image(reference=environment.toolbox, path="environment.toolbox")
        self.toolbox = remote_image(self, toolbox, self.provider)
        volumes = {name for service in context.app.slot_services.values() for name in service.volumes}
        self.volumes = {
            name: named_volume(context, self, self.provider, name, holds_data=True) for name in sorted(volumes)
        }
        # Keep the volume until the stack is destroyed: a kept slot may have jobs that today's configuration no longer has.
        if context.app.jobs or context.checkpoint.find(VOLUME, JOB_STATE):
            self.volumes[JOB_STATE] = named_volume(context, self, self.provider, JOB_STATE)
        zones = [zone for zone in Zone if zone is not Zone.WATCH or environment.monitoring]
        self.networks = {zone: self._network(zone, location) for zone in zones}
        self.register_outputs({"engine": host or "DOCKER_HOST or the local socket"})

    @property
    def resources(self) -> list[Resource]:
        """Toolbox image, networks and volumes. Every other resource depends on them."""
        return [self.toolbox, *self.networks.values(), *self.volumes.values()]

    def _network(self, zone: Zone, location: Location) -> docker.Network:
        # The bridge of an internal network gets no address, so the host can't connect to containers on the network.
        internal = zone is not Zone.OUTSIDE
        return docker.Network(
            zone,
            name=f"{location.instance}-{zone}",
            driver="bridge",
            internal=internal,
            options={"com.docker.network.bridge.inhibit_ipv4": "true"} if internal else None,
            labels=[
                docker.NetworkLabelArgs(label=label, value=value)
                for label, value in sorted(stack_labels(location.app, location.stack).items())
            ],
            opts=child_options(self, provider=self.provider),
        )


def named_volume(
    context: Context,
    parent: Resource,
    provider: ProviderResource,
    name: str,
    suffix: str | None = None,
    *,
    holds_data: bool = False,
) -> docker.Volume:
    """Register a volume. Its name on the engine is `APP-STACK-SUFFIX`.

    Args:
        context: configuration and checkpoint of the stack.
        parent: the parent component.
        provider: provider of the engine.
        name: resource name.
        suffix: end of the volume's name on the engine; None to use `name`.
        holds_data: True for a volume with data. The label `tiers.data` records this value, and `protect_data` protects the volume.
    """
    labels = stack_labels(context.app.name, context.stack)
    labels |= data_labels(context.checkpoint.find(VOLUME, name), holds_data=holds_data)
    protection = data_options(context.environment.protect_data and holds_data)
    return docker.Volume(
        name,
        name=f"{context.description.instance}-{suffix or name}",
        labels=[docker.VolumeLabelArgs(label=label, value=value) for label, value in sorted(labels.items())],
        # Ignore changed labels. If a volume of this name exists, the engine returns the volume with its old labels, and the provider
        # would replace the volume because of the difference (terraform-provider-docker, resource_docker_volume_funcs.go).
        opts=child_options(parent, provider=provider, ignore_changes=["labels"], **protection),
    )
