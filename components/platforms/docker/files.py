"""Images, secrets and scripts of workloads. Secrets and scripts are files in volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi_docker as docker
from pulumi import Input, Output, Resource

from ...model import names
from ...model.workload import SCRIPTS, SECRETS, Image, Workload
from ...release.checkpoint import Entry
from ..base import DesiredState, SlotTarget
from ..process import Process, service_urls
from .containers import hardened_args, prevent_start
from .haproxy import USER
from .images import remote_image
from .programs import SOURCE, env_file
from .registrar import PROGRAMS, Registrar, image_key, scripts_key, secrets_key


@dataclass(frozen=True, kw_only=True)
class FileVolume:
    """Volume and its files. A container copies the files into the volume before the workload's container starts."""

    name: str
    """Resource name of the volume. The volume's name on the engine is `APP-STACK-NAME`."""
    role: str
    """Value of the label `tiers.role` of the container that copies the files."""
    folder: str
    """Mount path of the volume in this container."""
    files: Mapping[str, Input[str]]
    """Content of each file, by its absolute path in the container."""
    secret: bool = False
    """True to encrypt the contents in Pulumi's state."""


class FileOperations(Registrar):
    """Operations that provision images, secrets and scripts of workloads."""

    def provision(
        self, parent: Resource, workloads: Sequence[Workload], target: SlotTarget | None
    ) -> Mapping[str, Resource]:
        provisioned: dict[str, Resource] = {}
        images: dict[str, docker.RemoteImage] = {}
        # The image of a store may have no HTTP client for its health check.
        if target or any(workload.secret_env or workload.belongs_to for workload in workloads):
            provisioned[PROGRAMS] = self._programs(parent, workloads, target)
        for workload in workloads:
            reference = workload.image.reference
            owner = _image_owner(workload, target)
            image = images.get(reference) or remote_image(parent, workload.image, self.provider_for(parent), owner)
            images[reference] = provisioned[image_key(workload)] = image
            if workload.all_secrets:
                provisioned[secrets_key(workload)] = self._secret_files(parent, workload, target, image.image_id)
            if workload.scripts:
                provisioned[scripts_key(workload)] = self._script_files(parent, workload, image.image_id)
        return provisioned

    def _secrets_name(self, owner: str, workload: Workload) -> str:
        """Return the name of the volume with a workload's secrets.

        The length is limited, because the engine creates a folder with this name.
        """
        room = names.FOLDER_NAME - len(f"{self.prefix}-{owner}-secrets")
        versions = names.version_suffix([secret.version for secret in workload.all_secrets], room)
        return names.SECRET_FILES.format(owner=owner, versions=versions)

    def _secret_files(
        self, parent: Resource, workload: Workload, target: SlotTarget | None, image: Input[str]
    ) -> docker.Container:
        """Deploy a workload's secrets as files in a volume.

        Changed secrets get a new volume. Pulumi deletes the old volume once no container uses it.
        """
        name = self._secrets_name(f"{target.slot}-{workload.tier}" if target else workload.tier, workload)
        files = self._secret_values(workload, target)
        volume = FileVolume(name=name, role="secrets", folder=SECRETS, files=files, secret=True)
        return self._files(parent, workload, image, volume)

    def _secret_values(self, workload: Workload, target: SlotTarget | None) -> dict[str, Output[str]]:
        """Return the values of a workload's secrets by the paths of their files.

        Secrets for environment variables are files too, because the provider would store variables in plain text.
        """
        urls = service_urls(workload, target, self.app.ports)
        variables = [*workload.secret_env, *(entry for task in workload.tasks for entry in task.secret_env)]
        files = {secret.path: secret for secret in workload.secrets}
        files |= {env_file(name, secret): secret for name, secret in variables}
        return {
            path: self.context.sealed.apply(lambda values, secret=secret: secret.value(values, urls))
            for path, secret in files.items()
        }

    def _programs(self, parent: Resource, workloads: Sequence[Workload], target: SlotTarget | None) -> docker.Container:
        """Deploy a volume with BusyBox. The engine copies the program from its image when it creates the container.

        One volume serves all services of a slot. The name has a hash of the image, so another image gets another volume.
        """
        image = Image(reference=self.environment.docker.busybox, path="environment.docker.busybox")
        pulled = remote_image(parent, image, self.provider_for(parent), _image_owner(workloads[0], target))
        owner = "-".join(([str(target.slot)] if target else []) + [w.tier for w in workloads if len(workloads) == 1])
        name = names.PROGRAMS.format(owner=owner, version=names.short_hash(image.reference, 6))
        args = hardened_args(
            f"{self.prefix}-{name}",
            pulled.image_id,
            self.labels(role="programs"),
            Process(command=("true",), user=USER, writable=()),
        )
        prevent_start(args)
        volume = self._volume(parent, name)
        args.volumes = [docker.ContainerVolumeArgs(container_path=SOURCE, volume_name=volume.name)]
        opts = self._options(parent, delete_before_replace=True)
        return docker.Container(f"{name}-files", args, opts=opts)

    def _script_files(self, parent: Resource, workload: Workload, image: Input[str]) -> docker.Container:
        """Deploy a workload's scripts in a volume.

        The volume has a fixed name, so changed scripts leave the data service's container unchanged.
        """
        name = names.SCRIPTS.format(data=workload.tier)
        files = {f"{SCRIPTS}/{script.name}": script.text for script in workload.scripts}
        return self._files(parent, workload, image, FileVolume(name=name, role="scripts", folder=SCRIPTS, files=files))

    def _files(self, parent: Resource, workload: Workload, image: Input[str], volume: FileVolume) -> docker.Container:
        """Copy files into a volume, through a container that mounts the volume. The workload's user owns the files."""
        args = hardened_args(
            f"{self.prefix}-{volume.name}",
            image,
            self.labels(role=volume.role, tier=workload.tier),
            Process(command=("true",), user=workload.user, writable=()),
        )
        prevent_start(args, uploads=True)
        mounted = self._volume(parent, volume.name)
        args.volumes = [docker.ContainerVolumeArgs(container_path=volume.folder, volume_name=mounted.name)]
        args.uploads = [docker.ContainerUploadArgs(file=path, content=text) for path, text in volume.files.items()]
        sealed = ["uploads"] if volume.secret else None
        opts = self._options(parent, additional_secret_outputs=sealed, delete_before_replace=True)
        return docker.Container(f"{volume.name}-files", args, opts=opts)

    def with_current_secrets(self, entry: Entry, workload: Workload, target: SlotTarget) -> DesiredState | None:
        if entry.name != f"{self._secrets_name(f'{target.slot}-{workload.tier}', workload)}-files":
            return None
        uploads = [{"file": path, "content": value} for path, value in self._secret_values(workload, target).items()]
        return DesiredState(inputs={**entry.inputs, "uploads": uploads}, secret_outputs=["uploads"])


def _image_owner(workload: Workload, target: SlotTarget | None) -> str:
    """Return the beginning of the resource name of a workload's image: the slot, or the store. Other shared workloads have none."""
    if target:
        return str(target.slot)
    return workload.tier if workload.belongs_to else ""
