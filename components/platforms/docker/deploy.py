"""Docker platform: workloads as containers of one engine.

Pure functions render a workload as arguments of a container; `DockerDeployer` registers the container. The program relies on
these properties of the engine and the provider (kreuzwerker/terraform-provider-docker, bridged by pulumi-docker):

- A container must name its image by id. Otherwise the next update replaces the container.
- The provider's option `wait` checks the health of a container once a second.
- The provider's option `attach` waits until a container ends, and ignores the exit code.
- The engine refuses uploads into a read-only root. Files are uploaded into a volume instead, through a container that never starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pulumi_docker as docker
from pulumi import CustomResource, Input, Output, Resource, ResourceOptions

from ...context import Context
from ...model import names, services
from ...model.workload import SCRIPTS, DatabaseCluster, ExternalService, Scale, ScheduledCommand, Task, Volume, Workload
from ...release.checkpoint import LABEL_ATTEMPT, Entry
from ...release.planner import Slot
from ...state.docker import VOLUME, without_label
from ..base import Dependencies, Deployer, DesiredState, LiveObject, SlotTarget
from ..process import Process
from . import keys, programs
from .containers import hardened_args, inputs_of, label_inputs
from .errors import explain_container
from .foundation import Foundation
from .gateway import GatewayOperations
from .inspect import inspector
from .jobs import JobOperations
from .keys import CONTAINER
from .monitoring import MonitoringOperations
from .registrar import Replica, image_id, mounted_files, scripts_key


class DockerDeployer(GatewayOperations, JobOperations, MonitoringOperations):
    """Implementation of `Deployer` for one Docker engine."""

    def logs(self, live: Slot) -> Mapping[str, str]:
        follow = f"docker logs --follow {self.prefix}"
        slot_tiers = {name: f"{follow}-{live}-{name}-1" for name in self.app.slot_services}
        outside_slots = [*self.app.single_processes, *self.environment.data(self.app)]
        return slot_tiers | {name: f"{follow}-{name}-1" for name in outside_slots} | {"gateway": f"{follow}-gateway"}

    def deploy_stateful(
        self, parent: Resource, workload: Workload, provisioned: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        volumes = [
            docker.ContainerVolumeArgs(
                container_path=volume.path,
                volume_name=self._volume_name(parent, workload, volume),
                read_only=volume.read_only or None,
            )
            for volume in workload.volumes
        ]
        after: Dependencies = ()
        if workload.scripts:
            # Only the volume's name is an input of the container, so changed scripts leave the container unchanged.
            name, after = (
                f"{self.prefix}-{names.SCRIPTS.format(data=workload.tier)}",
                [provisioned[scripts_key(workload)]],
            )
            volumes.append(docker.ContainerVolumeArgs(container_path=SCRIPTS, volume_name=name, read_only=True))
        replica = Replica(name=f"{workload.tier}-1", alias=workload.tier, volumes=volumes)
        return [self._container(parent, workload, replica, provisioned, after)]

    def _volume_name(self, parent: Resource, workload: Workload, volume: Volume) -> Input[str]:
        """Return the name of a volume on the engine. Register the volume, unless the foundation or a store has it."""
        if volume.name in self.foundation.volumes:
            return self.foundation.volumes[volume.name].name
        if workload.reads_store and volume.read_only:
            return f"{self.prefix}-{volume.name}"
        return self._volume(parent, volume.name, holds_data=services.holds_data(workload.tier)).name

    def deploy_scheduled(
        self,
        parent: Resource,
        workload: Workload,
        commands: Sequence[ScheduledCommand],
        provisioned: Mapping[str, Resource],
    ) -> Sequence[Resource]:
        command = (*workload.command, *(f"{command.name}={command.schedule}" for command in commands))
        return self.deploy_stateful(parent, replace(workload, command=command), provisioned)

    def allow_external_access(self, parent: Resource, external: ExternalService) -> Sequence[Resource]:
        # No resource is needed: tiers with an external service are on the network with access to the outside.
        return []

    def rescaled(self, entry: Entry, scales: Mapping[str, Scale]) -> DesiredState | None:
        return None

    def resumed(self, entry: Entry, scales: Mapping[str, Scale]) -> DesiredState:
        path, within = self.app.path(str(entry.tier)), float(entry.inputs["waitTimeout"])
        real = entry.inputs["name"]
        hooks = explain_container(entry.name, real, path, within, self.inspector.location, impact=self.impact)
        return DesiredState(inputs=entry.inputs, hooks=hooks)

    def deploy_service(
        self,
        parent: Resource,
        workload: Workload,
        target: SlotTarget,
        scale: Scale,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> Sequence[Resource]:
        alias, volumes = f"{workload.tier}-{target.slot}", self.tier_volumes(workload)
        replicas = [
            Replica(name=f"{target.slot}-{workload.tier}-{number}", alias=alias, target=target, volumes=volumes)
            for number in range(1, scale.replicas + 1)
        ]
        return [self._container(parent, workload, replica, provisioned, after) for replica in replicas]

    def prepare_single(
        self, parent: Resource, workload: Workload, target: SlotTarget, provisioned: Mapping[str, Resource]
    ) -> tuple[LiveObject, Sequence[Resource]]:
        name, volumes = f"{workload.tier}-1", self.tier_volumes(workload)
        replica = Replica(name=name, alias=workload.tier, role=names.ROLE_SINGLE, target=target, volumes=volumes)
        single = LiveObject(
            path=self.app.path(workload.tier),
            type=CONTAINER,
            name=name,
            inputs=inputs_of(self._container_args(workload, replica, provisioned)),
            within=workload.start_within,
        )
        return single, [*provisioned.values()]

    def deploy_live_object(self, parent: Resource, live_object: LiveObject, after: Dependencies) -> Resource:
        name = live_object.name
        # After a failed attempt another label replaces the container, so the process starts again.
        attempt = label_inputs(self.checkpoint.attempt_label(name))
        hooks = explain_container(
            name,
            f"{self.prefix}-{name}",
            live_object.path,
            live_object.within,
            self.inspector.location,
            impact=self.impact,
        )
        opts = self._options(parent, after, hooks=hooks, delete_before_replace=True)
        inputs = without_label(live_object.inputs, LABEL_ATTEMPT)
        inputs["labels"] = [*inputs["labels"], *attempt]
        return CustomResource(live_object.type, name, inputs, opts)

    def run_task(
        self,
        parent: Resource,
        workload: Workload,
        task: Task,
        target: SlotTarget,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> Output[Resource]:
        owner = f"{target.slot}-{workload.tier}-{task.name}"
        args = hardened_args(
            f"{self.prefix}-{owner}",
            image_id(provisioned, workload),
            self._labels("task", owner, target, tier=workload.tier),
            Process.from_workload(workload),
        )
        variables = programs.export(programs.env_folders(task)) if workload.secret_env else []
        self._start(args, workload, task.command, [*variables, *programs.limit(task.timeout)])
        args.envs = self._environment(workload, target, task)
        args.networks_advanced = self._networks(workload.zones)
        args.volumes = [*self.tier_volumes(workload), *mounted_files(provisioned, workload)] or None
        args.init = True
        return self._one_shot(parent, owner, args, f"{task.path}: the command", after)


def data_resources(
    context: Context, workloads: Sequence[Workload | DatabaseCluster]
) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """Return the volumes that these workloads need: resource name → (type token, inputs)."""
    prefix = keys.configured_location(context.app, context.environment, context.stack).instance
    names = {volume.name for workload in workloads if isinstance(workload, Workload) for volume in workload.volumes}
    return {name: (VOLUME, {"name": f"{prefix}-{name}"}) for name in names}


def connect(context: Context, live: Slot | None, opts: ResourceOptions | None) -> Deployer:
    """Register the foundation on the environment's engine, and return the deployer."""
    location = keys.configured_location(context.app, context.environment, context.stack)
    return DockerDeployer(
        context=context,
        live=live,
        inspector=inspector(location),
        foundation=Foundation(context, location, opts),
    )
