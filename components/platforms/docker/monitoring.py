"""Operations for monitoring on Docker: Prometheus and the metrics exporters."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import pulumi_docker as docker
from pulumi import Output, Resource

from ...model import names
from ...model.workload import Workload
from ...observability.alerts import MonitoringScope
from . import prometheus
from .files import FileOperations, FileVolume
from .registrar import Replica, image_id


class MonitoringOperations(FileOperations):
    """Operations that deploy monitoring and publish the live release to Prometheus."""

    def deploy_monitoring(
        self,
        parent: Resource,
        monitored: MonitoringScope,
        exporters: Mapping[str, Workload],
        after: Mapping[str, Sequence[Resource]],
    ) -> None:
        server = prometheus.workload(monitored)
        provisioned = self.provision(parent, [*exporters.values(), server], None)
        for tier, exporter in exporters.items():
            replica = Replica(name=exporter.tier, alias=exporter.tier, role="exporter")
            self._container(parent, exporter, replica, provisioned, after[tier])
        texts = prometheus.files(monitored)
        # Write a changed configuration to a new volume. Prometheus then restarts, because only a restart loads the configuration.
        version = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:6]
        image = image_id(provisioned, server)
        name = names.PROMETHEUS_CONFIG.format(version=version)
        config_volume = FileVolume(name=name, role="config", folder=prometheus.CONFIG, files=texts)
        config = self._files(parent, server, image, config_volume)
        data_volume = self._volume(parent, names.PROMETHEUS_DATA)
        release_volume = self._volume(parent, names.PROMETHEUS_RELEASED)
        volumes = [
            docker.ContainerVolumeArgs(container_path=prometheus.DATA, volume_name=data_volume.name),
            docker.ContainerVolumeArgs(
                container_path=prometheus.RELEASED, volume_name=release_volume.name, read_only=True
            ),
            docker.ContainerVolumeArgs(
                container_path=prometheus.CONFIG, volume_name=f"{self.prefix}-{name}", read_only=True
            ),
        ]
        port = docker.ContainerPortArgs(internal=prometheus.PORT, external=monitored.settings.port, ip="127.0.0.1")
        replica = Replica(name=server.tier, alias=server.tier, role="watch", volumes=volumes, ports=[port])
        self._container(parent, server, replica, provisioned, [config])

    def publish_release(self, parent: Resource, monitored: MonitoringScope, live: Output[Mapping[str, str]]) -> None:
        args = self._toolbox_args("released", self.labels(role="released"))
        args.command = ["true"]
        # Don't start this container: like the containers of `_files`, it only copies a file into a volume. Prometheus detects the
        # new file by itself.
        args.read_only, args.start, args.must_run, args.restart = False, False, False, "no"
        args.network_mode = "none"
        volume = f"{self.prefix}-{names.PROMETHEUS_RELEASED}"
        args.volumes = [docker.ContainerVolumeArgs(container_path=prometheus.RELEASED, volume_name=volume)]
        text = live.apply(prometheus.release_targets)
        args.uploads = [docker.ContainerUploadArgs(file=f"{prometheus.RELEASED}/{prometheus.TARGETS}", content=text)]
        docker.Container("released", args, opts=self._options(parent, delete_before_replace=True))
