"""Docker platform: workloads as containers of one engine.

Pure functions render a workload into the arguments of a container; `DockerPlatform` registers them. The program
relies on these properties of the engine and the provider (kreuzwerker/terraform-provider-docker, bridged by
pulumi-docker). An image must be given by its ID, else the next update replaces the container. `wait` polls health
once a second. `attach` waits for the end of a one-shot container, and an exit code does not fail it. Files can't be
uploaded into a read-only root, so they go into a volume through a container that is never started.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
import pulumi_docker as docker
from pulumi import (
    ComponentResource,
    Input,
    Output,
    Resource,
    ResourceHook,
    ResourceHookArgs,
    ResourceHookBinding,
    ResourceOptions,
    RunError,
)

from .. import guard, names
from ..alerts import Watched
from ..checkpoint import LABEL_ATTEMPT, LABEL_RELEASE, LABEL_SLOT, Checkpoint, Entry, observe
from ..config import App, ConfigError, Environment, Settings, TierName
from ..explain import LONGEST
from ..options import below, of_data
from ..release import Slot
from ..workload import (
    SCRATCH,
    SCRIPTS,
    SECRETS,
    DatabaseCluster,
    Elsewhere,
    Image,
    Probe,
    Resources,
    Route,
    Scale,
    Task,
    Timed,
    Volume,
    Workload,
    Zone,
)
from . import SHARED, Dependencies, Place, Wanted, engine, haproxy, impact, prometheus, smoke_checks, variables
from .cpus import text_of_cpus

TOOLBOX = Path(__file__).with_name("toolbox.py").read_text()
GATEWAY_USER = haproxy.USER
CLAIM_WITHIN = "75"
"""Seconds that the gateway has to take a slot. The engine may wait a minute before it restarts a gateway that has ended."""
SMALL = Resources(cpu=0.5, memory=64 * 2**20)

_PROBE = """\
if command -v curl >/dev/null; then exec curl -fsS -o /dev/null -m 5 {url}
elif command -v wget >/dev/null; then exec wget -q -T 5 -O /dev/null {url}
elif command -v bash >/dev/null; then exec bash -c '
  exec 3<>/dev/tcp/127.0.0.1/{port} && printf "GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n" >&3 &&
  read -r _ code _ <&3 && [ "$code" = 200 ]'
elif command -v node >/dev/null; then exec node -e 'fetch("{url}").then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))'
else exec python3 -c 'import urllib.request; urllib.request.urlopen("{url}", timeout=5)'; fi"""


def test_command(probe: Probe) -> list[str]:
    """Return the engine's health command for a probe. It runs inside the container, with whatever client the image has."""
    if probe.command:
        return ["CMD", *probe.command]
    url = f"http://127.0.0.1:{probe.port}{probe.path}"
    # In bash's `printf` a code such as %20 would be a format.
    return ["CMD-SHELL", _PROBE.format(url=url, port=probe.port, path=probe.path.replace("%", "%%"))]


def duration(seconds: float) -> str:
    """Return whole seconds in the form that the engine reports (Go's `time.Duration`), so that a refresh shows no change."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def healthcheck(workload: Workload) -> docker.ContainerHealthcheckArgs:
    """Return a health check that runs every second. A tier without a probe is healthy after one second."""
    probe = workload.ready or workload.probe or Probe(command=("true",))
    return docker.ContainerHealthcheckArgs(
        tests=test_command(probe),
        interval="1s",
        timeout="6s",
        start_period=duration(workload.start_within),
        retries=5,
    )


def plain_log(text: str | None, lines: int = 20) -> str:
    """Return the last lines of a container's log, without the engine's 8-byte stream headers and control characters."""
    plain = re.sub(r"[\x00-\x02]\x00{3}[\s\S]{4}|[^\S\n]*[\x00-\x08\x0b-\x1f\x7f]", "", text or "")
    return "\n".join(f"    {line}" for line in plain.strip().splitlines()[-lines:]) or "    (it printed nothing)"


def _hardened(
    name: str,
    image: Input[str],
    resources: Resources,
    labels: Mapping[str, str],
    *,
    command: Sequence[Input[str]],
    user: int,
    writable: Sequence[str] = ("/tmp",),
    scratch: int = SCRATCH,
) -> docker.ContainerArgs:
    """Return the arguments that all containers have in common."""
    megabytes, room = max(resources.memory // 2**20, 6), max(scratch // 2**20, 1)
    return docker.ContainerArgs(
        name=name,
        image=image,
        command=list(command) or None,
        user=f"{user}:{user}",
        read_only=True,
        # The owner is set too: for a folder of the image, runc restores the image's mode over the one requested here.
        tmpfs=dict.fromkeys(sorted(writable), f"rw,noexec,nosuid,nodev,size={room}m,mode=1777,uid={user},gid={user}"),
        security_opts=["no-new-privileges:true"],
        capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
        cpus=text_of_cpus(resources.cpu),
        memory=megabytes,
        memory_swap=megabytes,
        restart="unless-stopped",
        log_driver="json-file",
        log_opts={"max-size": "10m", "max-file": "3"},
        network_mode="bridge",
        labels=[docker.ContainerLabelArgs(label=label, value=value) for label, value in sorted(labels.items())],
    )


@dataclass(frozen=True, kw_only=True)
class DockerPlatform:
    """Operations of `Platform` on one Docker engine."""

    app: App
    environment: Environment
    checkpoint: Checkpoint
    secrets: Output[Mapping[str, str]]
    live: Slot | None

    @property
    def prefix(self) -> str:
        return f"{self.app.name}-{pulumi.get_stack()}"

    @property
    def provider(self) -> docker.Provider:
        return self.ground.provider

    @property
    def foundation(self) -> Sequence[Resource]:
        return [self.ground.toolbox, *self.ground.networks.values(), *self.ground.volumes.values()]

    @property
    def url(self) -> str:
        return self.environment.url

    @property
    def namespace(self) -> str:
        return self.prefix

    def logs(self, live: Slot) -> Mapping[str, str]:
        follow = f"docker logs --follow {self.prefix}"
        slot_tiers = {str(tier): f"{follow}-{live}-{tier}-1" for tier in self.app.services}
        return (
            slot_tiers
            | {str(tier): f"{follow}-{tier}-1" for tier in self.environment.data(self.app)}
            | {"gateway": f"{follow}-gateway"}
        )

    @cached_property
    def ground(self) -> "Ground":
        return Ground(self)

    def labels(self, **labels: str) -> dict[str, str]:
        return engine.stack_labels(self.app.name, pulumi.get_stack()) | {
            f"tiers.{name}": value for name, value in labels.items()
        }

    def _options(self, parent: Resource, after: Dependencies = (), **more: Any) -> ResourceOptions:
        return below(parent, provider=self.ground.provider, depends_on=after, **more)

    # ------------------------------------------------------------------ images

    def prepare(self, parent: Resource, workloads: Sequence[Workload], place: Place | None) -> Mapping[str, Resource]:
        supplies: dict[str, Resource] = {}
        images: dict[str, docker.RemoteImage] = {}
        for workload in workloads:
            reference = workload.image.reference
            image = images.get(reference) or _remote_image(parent, workload.image, self.ground.provider, place)
            images[reference] = supplies[_image_of(workload)] = image
            if workload.secrets:
                owner = f"{place.slot}-{workload.tier}" if place else workload.tier
                supplies[_secrets_of(workload)] = self._secret_files(parent, workload, owner, image.image_id)
            if workload.scripts:
                supplies[_scripts_of(workload)] = self._script_files(parent, workload, image.image_id)
        return supplies

    # ------------------------------------------------------------------ files

    def _secrets_name(self, owner: str, workload: Workload) -> str:
        """Return the name of the volume with a workload's secrets, within the length limit of a folder's name."""
        room = names.FOLDER_NAME - len(f"{self.prefix}-{owner}-secrets")
        versions = names.versions([secret.version for secret in workload.secrets], room)
        return names.SECRET_FILES.of(owner=owner, versions=versions)

    def _secret_files(self, parent: Resource, workload: Workload, owner: str, image: Input[str]) -> docker.Container:
        """Deploy a workload's secrets as files in a volume.

        New content goes into a new volume; the old one is deleted once no container uses it.
        """
        name = self._secrets_name(owner, workload)
        files = [
            docker.ContainerUploadArgs(
                file=secret.path, content=self.secrets.apply(lambda values, name=secret.name: values[name])
            )
            for secret in workload.secrets
        ]
        return self._files(parent, workload, name, "secrets", SECRETS, image, files, secret=True)

    def _script_files(self, parent: Resource, workload: Workload, image: Input[str]) -> docker.Container:
        """Deploy a workload's scripts in a volume that keeps its name.

        New content therefore changes nothing of the container that has the data.
        """
        files = [
            docker.ContainerUploadArgs(file=f"{SCRIPTS}/{script.name}", content=script.text)
            for script in workload.scripts
        ]
        return self._files(parent, workload, names.SCRIPTS.of(data=workload.tier), "scripts", SCRIPTS, image, files)

    def _files(
        self,
        parent: Resource,
        workload: Workload,
        name: str,
        role: str,
        folder: str,
        image: Input[str],
        files: Sequence[docker.ContainerUploadArgs],
        *,
        secret: bool = False,
    ) -> docker.Container:
        """Copy files through a container into a volume that is mounted on `folder`."""
        volume = self._volume(parent, name, f"{self.prefix}-{name}", self.ground.provider)
        args = _hardened(
            f"{self.prefix}-{name}",
            image,
            SMALL,
            self.labels(role=role, tier=workload.tier),
            command=["true"],
            user=workload.user,
            writable=(),
        )
        # Never started: the engine refuses to copy files into a read-only root, even into a volume below it.
        args.read_only, args.start, args.must_run, args.restart = False, False, False, "no"
        args.network_mode = "none"
        args.volumes = [docker.ContainerVolumeArgs(container_path=folder, volume_name=volume.name)]
        args.uploads = list(files)
        sealed = ["uploads"] if secret else None
        opts = self._options(parent, additional_secret_outputs=sealed, delete_before_replace=True)
        return docker.Container(f"{name}-files", args, opts=opts)

    def _volume(self, parent: Resource, name: str, real: str, provider: docker.Provider, **more: Any) -> docker.Volume:
        return docker.Volume(
            name,
            name=real,
            labels=[docker.VolumeLabelArgs(label=label, value=value) for label, value in sorted(self.labels().items())],
            opts=below(parent, provider=provider, **more),
        )

    # ------------------------------------------------------------------ containers

    def _environment(self, workload: Workload, place: Place | None, task: Task | None = None) -> list[str]:
        values = variables(workload, place, self.app.api.port if self.app.api else None, task)
        return [f"{name}={value}" for name, value in values.items()]

    def _networks(self, zones: Sequence[Zone], *aliases: str) -> list[docker.ContainerNetworksAdvancedArgs]:
        return [
            docker.ContainerNetworksAdvancedArgs(name=self.ground.networks[zone].name, aliases=list(aliases))
            for zone in zones
        ]

    def _labels(self, role: str, name: str, place: Place | None = None, **more: str) -> dict[str, str]:
        labels = self.labels(role=role, **more)
        if place:
            labels |= {LABEL_SLOT: place.slot, LABEL_RELEASE: str(place.release)}
        attempt = self.checkpoint.attempt(name)
        return labels | ({LABEL_ATTEMPT: str(attempt)} if attempt > 1 else {})

    def _container(
        self,
        parent: Resource,
        workload: Workload,
        name: str,
        alias: str,
        supplies: Mapping[str, Resource],
        volumes: Sequence[docker.ContainerVolumeArgs],
        place: Place | None,
        after: Dependencies,
        *,
        role: str = "tier",
        ports: Sequence[docker.ContainerPortArgs] = (),
    ) -> docker.Container:
        real = f"{self.prefix}-{name}"
        args = _hardened(
            real,
            _image_id(supplies, workload),
            workload.resources,
            self._labels(role, name, place, tier=workload.tier),
            command=workload.command,
            user=workload.user,
            writable=workload.writable,
            scratch=workload.scratch,
        )
        args.ports = list(ports) or None
        if role == "exporter" and workload.command:
            # The image of an exporter would take the command for flags of its own entrypoint.
            args.entrypoints, args.command = list(workload.command[:1]), list(workload.command[1:])
        args.envs = self._environment(workload, place)
        args.healthcheck = healthcheck(workload)
        args.wait, args.wait_timeout = True, round(workload.start_within)
        args.stop_timeout = args.destroy_grace_seconds = round(workload.stop_within)
        args.init = True
        args.networks_advanced = self._networks(workload.zones, alias)
        args.volumes = [*volumes, *_secret_volume(supplies, workload)] or None
        args.mounts = [
            docker.ContainerMountArgs(type="bind", source=mount.source, target=mount.path, read_only=not mount.writable)
            for mount in workload.mounts
        ] or None
        hooks = engine.explain_container(
            name,
            real,
            workload.path or (f"app.{workload.tier}" if role == "tier" else workload.image.path),
            workload.start_within,
            self.environment,
            touched=self.impact if place else lambda: SHARED,
        )
        return docker.Container(name, args, opts=self._options(parent, after, hooks=hooks, delete_before_replace=True))

    def data(self, parent: Resource, volume: Volume, provider: docker.Provider) -> docker.Volume:
        """Create a volume that outlives every release."""
        options = of_data(self.environment.protect_data)
        return self._volume(parent, volume.name, f"{self.prefix}-{volume.name}", provider, **options)

    def stores(self, workloads: Sequence[Workload | DatabaseCluster]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
        names = {volume.name for workload in workloads if isinstance(workload, Workload) for volume in workload.volumes}
        return {name: (guard.VOLUME, {"name": f"{self.prefix}-{name}"}) for name in names}

    def keep(self, parent: Resource, workload: Workload, supplies: Mapping[str, Resource]) -> Sequence[Resource]:
        tiers = self.ground.volumes
        volumes = [
            docker.ContainerVolumeArgs(
                container_path=volume.path,
                volume_name=(tiers.get(volume.name) or self.data(parent, volume, self.ground.provider)).name,
                read_only=volume.read_only or None,
            )
            for volume in workload.volumes
        ]
        after: Dependencies = ()
        if workload.scripts:
            # Only the volume's name is an input. The scripts exist first, and changing them leaves the container
            # unchanged.
            name, after = f"{self.prefix}-{names.SCRIPTS.of(data=workload.tier)}", [supplies[_scripts_of(workload)]]
            volumes.append(docker.ContainerVolumeArgs(container_path=SCRIPTS, volume_name=name, read_only=True))
        return [self._container(parent, workload, f"{workload.tier}-1", workload.tier, supplies, volumes, None, after)]

    def keep_several(self, parent: Resource, wanted: DatabaseCluster) -> Sequence[Resource]:
        raise AssertionError("config refuses it: an engine is lost as a whole")

    def schedule(
        self, parent: Resource, workload: Workload, times: Sequence[Timed], supplies: Mapping[str, Resource]
    ) -> Sequence[Resource]:
        command = (*workload.command, *(f"{timed.name}={timed.at}" for timed in times))
        return self.keep(parent, replace(workload, command=command), supplies)

    def reach(self, parent: Resource, elsewhere: Elsewhere) -> Sequence[Resource]:
        # Tiers that need it are on the network that leads outside, so no resource is needed.
        return []

    def rescaled(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted | None:
        return None

    def revived(self, entry: Entry, scales: Mapping[TierName, Scale]) -> Wanted:
        path, within = f"app.{entry.tier}", float(entry.inputs["waitTimeout"])
        real = entry.inputs["name"]
        hooks = engine.explain_container(entry.name, real, path, within, self.environment, touched=self.impact)
        return Wanted(inputs=entry.inputs, hooks=hooks)

    def resealed(self, entry: Entry, workload: Workload, place: Place) -> Wanted | None:
        if entry.name != f"{self._secrets_name(f'{place.slot}-{workload.tier}', workload)}-files":
            return None
        uploads = [
            {"file": secret.path, "content": self.secrets.apply(lambda values, name=secret.name: values[name])}
            for secret in workload.secrets
        ]
        return Wanted(inputs={**entry.inputs, "uploads": uploads}, secret_outputs=["uploads"])

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        return engine.absent_images(self.environment, images)

    def run(
        self,
        parent: Resource,
        workload: Workload,
        place: Place,
        scale: Scale,
        supplies: Mapping[str, Resource],
        after: Dependencies,
    ) -> Sequence[Resource]:
        owner = f"{place.slot}-{workload.tier}"
        alias, volumes = f"{workload.tier}-{place.slot}", self._tier_volumes(workload)
        return [
            self._container(parent, workload, f"{owner}-{number}", alias, supplies, volumes, place, after)
            for number in range(1, scale.replicas + 1)
        ]

    def _tier_volumes(self, workload: Workload) -> list[docker.ContainerVolumeArgs]:
        return [
            docker.ContainerVolumeArgs(
                container_path=volume.path,
                volume_name=self.ground.volumes[volume.name].name,
                read_only=volume.read_only or None,
            )
            for volume in workload.volumes
        ]

    # ------------------------------------------------------------------ tasks

    def _one_shot(
        self, parent: Resource, name: str, args: docker.ContainerArgs, what: str, after: Dependencies, **more: Any
    ) -> Output[Resource]:
        """Run a container to its end. The output fails with the end of its log unless its exit code is 0."""
        args.restart, args.must_run, args.attach, args.logs = "no", False, True, True
        container = docker.Container(name, args, opts=self._options(parent, after, delete_before_replace=True, **more))
        return self._passed(container, container.exit_code, container.container_logs, what)

    def _passed(self, container: Resource, code: Output[Any], log: Output[Any], what: str) -> Output[Resource]:
        """Return the container once it has ended with exit code 0."""

        def passed(result: Sequence[Any]) -> Resource:
            code, log = result
            if code not in (None, 0):
                reason = "did not finish in time" if code in (124, 143) else f"ended with exit code {code:g}"
                raise RunError(f"{what} {reason}; {self.impact()}. Its last lines:\n{plain_log(str(log or ''))}")
            return container

        return Output.all(code, log).apply(passed)

    def impact(self) -> str:
        """Return the effect of a failure on users, as probed at the live slot."""
        if self.live is None:
            return impact.describe(None, self.url, (), lambda: False)
        labels = self.labels(role="tier") | {LABEL_SLOT: self.live}
        paths = impact.paths(self.checkpoint, self.live)
        return impact.describe(self.live, self.url, paths, lambda: engine.healthy(self.environment, labels))

    def finish(
        self,
        parent: Resource,
        workload: Workload,
        task: Task,
        place: Place,
        supplies: Mapping[str, Resource],
        after: Dependencies,
    ) -> Output[Resource]:
        owner = f"{place.slot}-{workload.tier}-{task.name}"
        args = _hardened(
            f"{self.prefix}-{owner}",
            _image_id(supplies, workload),
            workload.resources,
            self._labels("task", owner, place, tier=workload.tier),
            # BusyBox reads no exponent, which `g` writes from a million on.
            command=["timeout", f"{task.timeout:g}" if task.timeout < 10**6 else f"{task.timeout:.0f}", *task.command],
            user=workload.user,
            writable=workload.writable,
            scratch=workload.scratch,
        )
        args.envs = self._environment(workload, place, task)
        args.networks_advanced = self._networks(workload.zones)
        args.volumes = [*self._tier_volumes(workload), *_secret_volume(supplies, workload)] or None
        args.init = True
        return self._one_shot(parent, owner, args, f"{task.path}: it", after)

    def _tool(self, name: str, labels: Mapping[str, str], *words: str) -> docker.ContainerArgs:
        toolbox = self.ground.toolbox
        return _hardened(
            f"{self.prefix}-{name}",
            toolbox.image_id,
            SMALL,
            labels,
            command=["python3", "-c", TOOLBOX, *words],
            user=GATEWAY_USER,
        )

    def smoke(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Output[Resource]:
        name = f"{place.slot}-smoke"
        # The Host header is that of users, because an application may refuse other names.
        host = urlsplit(self.url).netloc
        arguments = [f"http://gateway:{haproxy.PORT}", host, place.slot, "30", smoke_checks(self.app, routes)]
        args = self._tool(name, self._labels("smoke", name, place), "smoke", *arguments)
        args.networks_advanced = self._networks([Zone.EDGE])
        return self._one_shot(parent, name, args, f"smoke test of {place.slot}: it", after)

    # ------------------------------------------------------------------ traffic

    def gateway(self, parent: Resource) -> Resource:
        gateway = self.environment.gateway
        image = Image(reference=gateway.image, path="environment.gateway.image")
        name = "gateway"
        args = _hardened(
            f"{self.prefix}-gateway",
            _remote_image(parent, image, self.ground.provider).image_id,
            Resources(cpu=gateway.cpu, memory=gateway.memory),
            self._labels("gateway", name),
            command=["sh", "-c", haproxy.START],
            user=GATEWAY_USER,
        )
        args.envs = [f"CONFIG={haproxy.FIRST}"]
        probe = Probe(path="/.gateway/health", port=haproxy.PORT)
        args.healthcheck = docker.ContainerHealthcheckArgs(
            tests=test_command(probe), interval="5s", timeout="6s", retries=3
        )
        args.networks_advanced = self._networks([Zone.OUTSIDE, Zone.EDGE], "gateway")
        ports = {haproxy.PORT: gateway.port, **{haproxy.PORTS[tier]: port for tier, port in gateway.ports.items()}}
        args.ports = [
            docker.ContainerPortArgs(internal=inside, external=port, ip=gateway.address)
            for inside, port in sorted(ports.items())
        ]
        if gateway.metrics_port:
            args.ports.append(
                docker.ContainerPortArgs(internal=haproxy.METRICS_PORT, external=gateway.metrics_port, ip="127.0.0.1")
            )
        args.volumes = [docker.ContainerVolumeArgs(container_path=haproxy.FOLDER, volume_name=self._state(parent).name)]
        args.stop_timeout = args.destroy_grace_seconds = 30
        return docker.Container(
            name,
            args,
            opts=self._options(
                parent,
                hooks=engine.explain_container(
                    name, f"{self.prefix}-gateway", "environment.gateway", 0, self.environment, touched=lambda: SHARED
                ),
                delete_before_replace=True,
            ),
        )

    def _state(self, parent: Resource) -> docker.Volume:
        return self._volume(parent, names.GATEWAY_STATE, f"{self.prefix}-{names.GATEWAY}", self.ground.provider)

    def expose(self, parent: Resource, routes: Sequence[Route], place: Place, after: Dependencies) -> Dependencies:
        # The claim gives the gateway the release of the slot, and the routes of this release beside those of the
        # other slot.
        other = observe(self.checkpoint).held.get(place.slot.other)
        text = haproxy.of_stack(
            {place.slot: routes, place.slot.other: other.release.routes if other else routes}, self.environment
        )
        checks = [
            self._checked(parent, place, text, gateway) for gateway in after if isinstance(gateway, docker.Container)
        ]
        name = f"{place.slot}-claim"
        args = self._tell_gateway(name, self._labels("claim", name, place), place.slot, str(place.release), text)
        return [
            self._one_shot(parent, name, args, f"environment.gateway: the claim of {place.slot}", [*after, *checks])
        ]

    def _checked(self, parent: Resource, place: Place, text: str, gateway: docker.Container) -> Output[Resource]:
        """Check a configuration with the gateway's own image before it is installed, so that an invalid one never is."""
        name = f"{place.slot}-gateway-check"
        args = _hardened(
            f"{self.prefix}-{name}",
            gateway.image,
            SMALL,
            self._labels("task", name, place),
            command=["sh", "-c", haproxy.CHECK],
            user=GATEWAY_USER,
            writable=[haproxy.FOLDER],
        )
        args.envs = [f"CONFIG={text}"]
        args.network_mode = "none"
        description = f"environment.gateway.image: `haproxy -c` of {self.environment.gateway.image} over the routes of {place.slot}"
        return self._one_shot(parent, name, args, description, [gateway])

    def closed(self, entry: Entry) -> Wanted | None:
        return self._claim(entry, None) if entry.role == "claim" else None

    def opened(self, entry: Entry) -> Wanted:
        return self._claim(entry, entry.labels[LABEL_RELEASE])

    def _claim(self, entry: Entry, release: str | None) -> Wanted:
        """Return the claim of a kept slot with another release, or with none.

        The gateway's configuration stays unchanged.
        """
        inputs, attempt = dict(entry.inputs), self.checkpoint.attempt(entry.name)
        words: list[str] = inputs["command"]
        inputs["command"] = words[: words.index("route") + 4] + ([release] if release else [])
        labels = [label for label in inputs["labels"] if label["label"] != LABEL_ATTEMPT]
        inputs["labels"] = labels + ([{"label": LABEL_ATTEMPT, "value": str(attempt)}] if attempt > 1 else [])

        def passed(resource: Any) -> Output[Resource]:
            return self._passed(resource, resource.exitCode, resource.containerLogs, f"{entry.name}: it")

        return Wanted(inputs=inputs, reads=("exitCode", "containerLogs"), passed=passed)

    def _tell_gateway(
        self, name: str, labels: Mapping[str, str], key: str, value: str, *text: str
    ) -> docker.ContainerArgs:
        args = self._tool(name, labels, "route", haproxy.FOLDER, CLAIM_WITHIN, key, value, *text)
        args.network_mode = "none"
        args.volumes = [
            docker.ContainerVolumeArgs(container_path=haproxy.FOLDER, volume_name=f"{self.prefix}-{names.GATEWAY}")
        ]
        return args

    # ------------------------------------------------------------------ monitoring

    def watch(
        self,
        parent: Resource,
        watched: Watched,
        exporters: Mapping[TierName, Workload],
        after: Mapping[TierName, Sequence[Resource]],
    ) -> None:
        server = prometheus.workload(watched)
        supplies = self.prepare(parent, [*exporters.values(), server], None)
        for tier, exporter in exporters.items():
            self._container(
                parent, exporter, exporter.tier, exporter.tier, supplies, [], None, after[tier], role="exporter"
            )
        texts = prometheus.files(watched)
        # New content gets a new volume name, because Prometheus reads its configuration only when it starts.
        version = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:6]
        files = [docker.ContainerUploadArgs(file=name, content=text) for name, text in texts.items()]
        image = _image_id(supplies, server)
        name = names.PROMETHEUS_CONFIG.of(version=version)
        config = self._files(parent, server, name, "config", prometheus.CONFIG, image, files)
        data_volume = self._volume(
            parent, names.PROMETHEUS_DATA, f"{self.prefix}-{names.PROMETHEUS_DATA}", self.ground.provider
        )
        release_volume = self._volume(
            parent, names.PROMETHEUS_RELEASED, f"{self.prefix}-{names.PROMETHEUS_RELEASED}", self.ground.provider
        )
        volumes = [
            docker.ContainerVolumeArgs(container_path=prometheus.DATA, volume_name=data_volume.name),
            docker.ContainerVolumeArgs(
                container_path=prometheus.RELEASED, volume_name=release_volume.name, read_only=True
            ),
            docker.ContainerVolumeArgs(
                container_path=prometheus.CONFIG, volume_name=f"{self.prefix}-{name}", read_only=True
            ),
        ]
        port = docker.ContainerPortArgs(internal=prometheus.PORT, external=watched.settings.port, ip="127.0.0.1")
        self._container(
            parent, server, server.tier, server.tier, supplies, volumes, None, [config], role="watch", ports=[port]
        )

    def announce(self, parent: Resource, watched: Watched, live: Output[Mapping[str, str]]) -> None:
        args = self._tool("released", self.labels(role="released"))
        args.command = ["true"]
        # Never started, as in `_files`. Prometheus notices a new file itself.
        args.read_only, args.start, args.must_run, args.restart = False, False, False, "no"
        args.network_mode = "none"
        volume = f"{self.prefix}-{names.PROMETHEUS_RELEASED}"
        args.volumes = [docker.ContainerVolumeArgs(container_path=prometheus.RELEASED, volume_name=volume)]
        text = live.apply(prometheus.released)
        args.uploads = [docker.ContainerUploadArgs(file=f"{prometheus.RELEASED}/{prometheus.TARGETS}", content=text)]
        docker.Container("released", args, opts=self._options(parent, delete_before_replace=True))

    def switch(
        self, parent: Resource, place: Place, routes: Sequence[Route] | None, count: int, after: Dependencies
    ) -> Output[Resource]:
        # Each switch is a new resource, so that the checkpoint always has one: the old one is deleted after the new
        # one exists.
        name = f"switch-{count}"
        labels = self._labels("switch", name, switch=str(count)) | {LABEL_SLOT: place.slot}
        args = self._tell_gateway(name, labels, "live", place.slot)
        hooks = None if routes else ResourceHookBinding(before_create=[self._ask(place)])
        return self._one_shot(parent, name, args, f"the switch to {place.slot}: it", after, hooks=hooks)

    def put_back(
        self, parent: Resource, place: Place, count: int, after: Dependencies, *, beside: bool
    ) -> Output[Resource]:
        name = f"switch-{count}"
        labels = self._labels("switch", name, switch=str(count)) | {LABEL_SLOT: place.slot}
        args = self._tell_gateway(name, labels, "live", place.slot)
        return self._one_shot(parent, name, args, f"the switch to {place.slot}, made again: it", after)

    def _ask(self, place: Place) -> ResourceHook:
        """Return a hook that checks before a switch back that the engine still calls the slot's containers healthy."""
        labels = self.labels(role="tier") | {LABEL_SLOT: place.slot}

        def ask(_: ResourceHookArgs) -> None:
            engine.check_healthy(self.environment, labels, self.impact)

        return ResourceHook(f"ask-{place.slot}", ask)


def check(settings: Settings, checkpoint: Checkpoint, routes: Sequence[Route]) -> None:
    """Check that the engine of the environment is available.

    Raises:
        RunError: the engine does not answer, or a port of the gateway is taken.
        ConfigError: the configuration of the gateway is too long.
    """
    text = haproxy.of_stack(dict.fromkeys(Slot, routes), settings.environment)
    if (size := len(text.encode())) > LONGEST:
        wrong = f"with them the gateway's configuration has {size} bytes, and a process takes {LONGEST} in one text"
        raise ConfigError(f"app.api.paths: {wrong}; give fewer, as the beginnings of others")
    ports = [
        port
        for entry in checkpoint.entries
        if entry.name in ("gateway", prometheus.NAME)
        for port in entry.inputs.get("ports") or ()
    ]
    engine.check(settings.environment, own={int(port["external"]) for port in ports})


def connect(settings: Settings, checkpoint: Checkpoint, live: Slot | None) -> DockerPlatform:
    """Return the platform of the engine that the environment names."""
    return DockerPlatform(
        app=settings.app,
        environment=settings.environment,
        checkpoint=checkpoint,
        secrets=settings.sealed,
        live=live,
    )


class Ground(ComponentResource):
    """Resources that every container of a stack depends on: provider, toolbox image, networks and the tiers' volumes."""

    def __init__(self, platform: DockerPlatform) -> None:
        super().__init__("tiers:docker:Ground", "ground")
        host = platform.environment.docker.host
        self.provider = docker.Provider("engine", host=host, opts=below(self))
        toolbox = Image(reference=platform.environment.toolbox, path="environment.toolbox")
        self.toolbox = _remote_image(self, toolbox, self.provider)
        volumes = {name for service in platform.app.services.values() for name in service.volumes}
        self.volumes = {
            name: platform.data(self, Volume(name=name, path=""), self.provider) for name in sorted(volumes)
        }
        zones = [zone for zone in Zone if zone is not Zone.WATCH or platform.environment.monitoring]
        self.networks = {zone: self._network(zone, platform) for zone in zones}
        self.register_outputs({"engine": host or "DOCKER_HOST or the local socket"})

    def _network(self, zone: Zone, platform: DockerPlatform) -> docker.Network:
        # The bridge of an internal network has no address: containers reach each other, and the host reaches none.
        internal = zone is not Zone.OUTSIDE
        return docker.Network(
            zone,
            name=f"{platform.prefix}-{zone}",
            driver="bridge",
            internal=internal,
            options={"com.docker.network.bridge.inhibit_ipv4": "true"} if internal else None,
            labels=[
                docker.NetworkLabelArgs(label=label, value=value) for label, value in sorted(platform.labels().items())
            ],
            opts=below(self, provider=self.provider),
        )


def _remote_image(
    parent: Resource, image: Image, provider: docker.Provider, place: Place | None = None
) -> docker.RemoteImage:
    # Images stay on the engine after their release is gone: going back is then quick, at the cost of disk space only.
    name = f"{place.slot}-image-{image.reference}" if place else f"image-{image.reference}"
    return docker.RemoteImage(
        name,
        name=image.reference,
        build=_build(image),
        keep_locally=True,
        opts=below(parent, provider=provider, hooks=engine.explain_image(name, image)),
    )


def _build(image: Image) -> docker.RemoteImageBuildArgs | None:
    if not image.context:
        return None
    build_args = {"BASE": image.base} if image.base else None
    return docker.RemoteImageBuildArgs(context=image.context, target=image.target, build_args=build_args)


def _image_of(workload: Workload) -> str:
    return f"{workload.tier}/image"


def _secrets_of(workload: Workload) -> str:
    return f"{workload.tier}/secrets"


def _scripts_of(workload: Workload) -> str:
    return f"{workload.tier}/scripts"


def _image_id(supplies: Mapping[str, Resource], workload: Workload) -> Output[str]:
    image = supplies[_image_of(workload)]
    assert isinstance(image, docker.RemoteImage)
    return image.image_id


def _secret_volume(supplies: Mapping[str, Resource], workload: Workload) -> list[docker.ContainerVolumeArgs]:
    holder = supplies.get(_secrets_of(workload))
    if not isinstance(holder, docker.Container):
        return []
    volume = holder.volumes.apply(lambda volumes: volumes[0].volume_name if volumes else None)
    return [docker.ContainerVolumeArgs(container_path=SECRETS, volume_name=volume, read_only=True)]
