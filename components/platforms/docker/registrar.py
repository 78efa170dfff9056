"""Registration of containers: the base class of all operations of `DockerDeployer`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi_docker as docker
from pulumi import Output, ProviderResource, Resource, ResourceOptions, RunError

from ...config import App, Environment
from ...context import Context
from ...model.names import ROLE_SERVICE, SERVICE_ROLES
from ...model.workload import SECRETS, Probe, Task, Workload, Zone
from ...options import child_options
from ...release.checkpoint import LABEL_RELEASE, LABEL_SLOT, Checkpoint
from ...release.planner import Slot
from .. import impact
from ..base import SHARED, Dependencies, SlotTarget
from ..process import Process, toolbox_process, variables
from . import haproxy, programs
from .containers import hardened_args, healthcheck, healthcheck_command
from .errors import explain_container, plain_log
from .foundation import Foundation, named_volume
from .inspect import DockerInspector
from .keys import CONTAINER, stack_labels


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One container of a workload: its names, slot, volumes and published ports."""

    name: str
    """Resource name. The container's name on the engine is `APP-STACK-NAME`."""
    alias: str
    """Host name of the container in its networks. All replicas of a service have the same host name."""
    role: str = ROLE_SERVICE
    """Value of the label `tiers.role`: `tier`, `single`, `exporter`, or `watch` for Prometheus."""
    target: SlotTarget | None = None
    """Slot and release of the container; None if both slots share the workload."""
    volumes: Sequence[docker.ContainerVolumeArgs] = ()
    """Volumes that the container mounts, except the volume with its secrets."""
    ports: Sequence[docker.ContainerPortArgs] = ()
    """Ports that the container publishes on the engine's host."""


@dataclass(frozen=True, kw_only=True)
class Registrar:
    """Operations that register containers. All base classes of `DockerDeployer` inherit from this class."""

    context: Context
    live: Slot | None
    """Slot that was live when the update began; None if no slot was live."""
    inspector: DockerInspector
    foundation: Foundation

    @property
    def app(self) -> App:
        return self.context.app

    @property
    def environment(self) -> Environment:
        return self.context.environment

    @property
    def checkpoint(self) -> Checkpoint:
        return self.context.checkpoint

    @property
    def prefix(self) -> str:
        """Prefix of the names of all objects of the stack on the engine."""
        return self.inspector.location.instance

    @property
    def url(self) -> str:
        return self.environment.url

    @property
    def namespace(self) -> str:
        return self.prefix

    @property
    def foundation_resources(self) -> Sequence[Resource]:
        return self.foundation.resources

    def provider_for(self, parent: Resource) -> ProviderResource:
        """Return the provider of the component `parent`, or the foundation's provider if the component has none."""
        return parent.get_provider(CONTAINER) or self.foundation.provider

    def impact(self) -> str:
        """Probe the live slot, and return a description of how a failed update affects users."""
        return impact.describe_live(self.live, self.url, self.checkpoint, self.inspector)

    def labels(self, **labels: str) -> dict[str, str]:
        return stack_labels(self.app.name, self.context.stack) | {
            f"tiers.{name}": value for name, value in labels.items()
        }

    def _options(self, parent: Resource, after: Dependencies = (), **more: Any) -> ResourceOptions:
        return child_options(parent, provider=self.provider_for(parent), depends_on=after, **more)

    def _volume(
        self, parent: Resource, name: str, suffix: str | None = None, *, holds_data: bool = False
    ) -> docker.Volume:
        return named_volume(self.context, parent, self.provider_for(parent), name, suffix, holds_data=holds_data)

    def _environment(self, workload: Workload, target: SlotTarget | None, task: Task | None = None) -> list[str]:
        values = variables(workload, target, self.app.ports, task)
        return [f"{name}={value}" for name, value in values.items()]

    def _networks(self, zones: Sequence[Zone], *aliases: str) -> list[docker.ContainerNetworksAdvancedArgs]:
        return [
            docker.ContainerNetworksAdvancedArgs(name=self.foundation.networks[zone].name, aliases=list(aliases))
            for zone in zones
        ]

    def tier_volumes(self, workload: Workload) -> list[docker.ContainerVolumeArgs]:
        """Return the data volumes of a workload in a slot."""
        return [
            docker.ContainerVolumeArgs(
                container_path=volume.path,
                volume_name=self.foundation.volumes[volume.name].name,
                read_only=volume.read_only or None,
            )
            for volume in workload.volumes
        ]

    def _labels(self, role: str, name: str, target: SlotTarget | None = None, **more: str) -> dict[str, str]:
        labels = self.labels(role=role, **more)
        if target:
            labels |= {LABEL_SLOT: target.slot, LABEL_RELEASE: str(target.release)}
        return labels | self.checkpoint.attempt_label(name)

    def _container(
        self,
        parent: Resource,
        workload: Workload,
        replica: Replica,
        provisioned: Mapping[str, Resource],
        after: Dependencies,
    ) -> docker.Container:
        """Register a container of a workload. The provider waits until the container is healthy."""
        path = workload.path or (f"app.{workload.tier}" if replica.role == ROLE_SERVICE else workload.image.path)
        hooks = explain_container(
            replica.name,
            f"{self.prefix}-{replica.name}",
            path,
            workload.start_within,
            self.inspector.location,
            impact=self.impact if replica.target else lambda: SHARED,
        )
        opts = self._options(parent, after, hooks=hooks, delete_before_replace=True)
        return docker.Container(replica.name, self._container_args(workload, replica, provisioned), opts=opts)

    def _container_args(
        self, workload: Workload, replica: Replica, provisioned: Mapping[str, Resource]
    ) -> docker.ContainerArgs:
        args = hardened_args(
            f"{self.prefix}-{replica.name}",
            image_id(provisioned, workload),
            self._labels(replica.role, replica.name, replica.target, tier=workload.tier),
            Process.from_workload(workload),
        )
        args.ports = list(replica.ports) or None
        if replica.role == "exporter" and workload.command:
            # Replace the entrypoint, because the entrypoint of an exporter's image would read the command as its flags.
            args.entrypoints, args.command = list(workload.command[:1]), list(workload.command[1:])
        args.envs = self._environment(workload, replica.target)
        url = self.url if replica.target else ""
        args.healthcheck = healthcheck(workload, self._test(workload, url, provisioned))
        if replica.role in SERVICE_ROLES:
            wrapper = programs.export(programs.env_folders()) if workload.secret_env else []
            self._start(args, workload, workload.command, wrapper)
        args.wait, args.wait_timeout = True, round(workload.start_within)
        args.stop_timeout = args.destroy_grace_seconds = round(workload.stop_within)
        args.init = True
        args.networks_advanced = self._networks(workload.zones, replica.alias)
        args.volumes = [*replica.volumes, *mounted_files(provisioned, workload)] or None
        args.mounts = [
            docker.ContainerMountArgs(type="bind", source=mount.source, target=mount.path, read_only=not mount.writable)
            for mount in workload.mounts
        ] or None
        return args

    def _test(self, workload: Workload, url: str, provisioned: Mapping[str, Resource]) -> list[str]:
        """Return the health check of a workload's container. It uses BusyBox if the container has it.

        Args:
            workload: the workload.
            url: address that users open, for the headers of a request; empty for a workload that users can't open.
            provisioned: images and files of the workload.
        """
        probe = workload.ready or workload.probe or Probe(command=("true",))
        if PROGRAMS not in provisioned:
            return healthcheck_command(probe)
        if probe.path:
            return ["CMD", *programs.request(probe, url)]
        if not workload.probe:
            return ["CMD", programs.BUSYBOX, "true"]
        return ["CMD", *(programs.export(programs.env_folders()) if workload.secret_env else ()), *probe.command]

    def _start(
        self, args: docker.ContainerArgs, workload: Workload, command: Sequence[str], wrapper: Sequence[str]
    ) -> None:
        """Set the entrypoint and the command of a container. `wrapper` is the beginning of the command line, or empty.

        An engine that gets an entrypoint ignores both the entrypoint and the command of the image. With a wrapper both are therefore
        read from the engine.
        """
        args.command = list(command) or None
        if workload.entrypoint:
            args.entrypoints = [*wrapper, *workload.entrypoint]
        elif wrapper:
            image = Output.from_input(args.image).apply(self.inspector.image_process)
            args.entrypoints = image.apply(lambda process: [*wrapper, *process.entrypoint])
            args.command = image.apply(lambda process: list(command) or process.command)

    def _one_shot(
        self,
        parent: Resource,
        name: str,
        args: docker.ContainerArgs,
        description: str,
        after: Dependencies,
        **more: Any,
    ) -> Output[Resource]:
        """Run a container until it ends. If its exit code is not 0, the returned output fails with the last lines of the log."""
        args.restart, args.must_run, args.attach, args.logs = "no", False, True, True
        container = docker.Container(name, args, opts=self._options(parent, after, delete_before_replace=True, **more))
        return self._require_success(container, container.exit_code, container.container_logs, description)

    def _require_success(
        self, container: Resource, code: Output[Any], log: Output[Any], description: str
    ) -> Output[Resource]:
        """Return the container as an output. The output fails if the container's exit code is not 0."""

        def container_or_error(result: Sequence[Any]) -> Resource:
            code, log = result
            if code not in (None, 0):
                reason = "did not finish in time" if code in (124, 143) else f"ended with exit code {code:g}"
                raise RunError(
                    f"{description} {reason}; {self.impact()}. The last lines of the log:\n{plain_log(str(log or ''))}"
                )
            return container

        return Output.all(code, log).apply(container_or_error)

    def _toolbox_args(self, name: str, labels: Mapping[str, str], *words: str) -> docker.ContainerArgs:
        toolbox = self.foundation.toolbox
        return hardened_args(
            f"{self.prefix}-{name}",
            toolbox.image_id,
            labels,
            toolbox_process(haproxy.USER, *words),
        )


PROGRAMS = "programs"
"""Key of the container that fills the volume with BusyBox, among the provisioned resources."""


def image_key(workload: Workload) -> str:
    return f"{workload.tier}/image"


def secrets_key(workload: Workload) -> str:
    return f"{workload.tier}/secrets"


def scripts_key(workload: Workload) -> str:
    return f"{workload.tier}/scripts"


def image_id(provisioned: Mapping[str, Resource], workload: Workload) -> Output[str]:
    image = provisioned[image_key(workload)]
    assert isinstance(image, docker.RemoteImage)
    return image.image_id


def mounted_files(provisioned: Mapping[str, Resource], workload: Workload) -> list[docker.ContainerVolumeArgs]:
    """Return the read-only volumes with the files of a workload: its secrets, and BusyBox."""
    return [
        *_mounted(provisioned.get(secrets_key(workload)), SECRETS),
        *_mounted(provisioned.get(PROGRAMS), programs.FOLDER),
    ]


def _mounted(holder: Resource | None, folder: str) -> list[docker.ContainerVolumeArgs]:
    """Return the volume that the container `holder` has filled, mounted at a folder."""
    if not isinstance(holder, docker.Container):
        return []
    volume = holder.volumes.apply(lambda volumes: volumes[0].volume_name if volumes else None)
    return [docker.ContainerVolumeArgs(container_path=folder, volume_name=volume, read_only=True)]
