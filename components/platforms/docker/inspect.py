"""Inspector of a stack on a Docker engine: availability checks, state of containers, logs, commands in containers."""

import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any
from urllib.parse import urlsplit

from pulumi import RunError

from ...config import App, ConfigError, Environment
from ...config.explain import LONGEST
from ...context import Context
from ...model.names import LABEL_RELEASE, LABEL_SLOT, ROLE_JOB, SERVICE_ROLES
from ...model.workload import Route, Zone
from ...release.checkpoint import Checkpoint
from ...release.live import Routing
from ...release.planner import Slot
from ..base import ONCE_WITHIN, Inventory, JobRun, Line, Location, OneOff, VolumeRestore
from ..process import listening_ports, toolbox_program
from . import gateway_repair, haproxy, isolation, job_runner, one_off, prometheus
from .client import connect, is_local, output_of, read_files, sdk
from .haproxy import FOLDER, USER
from .isolation import Container
from .keys import engine_host, stack_labels
from .programs import export_of

_RUNNING = ("running", "restarting", "removing")
"""Engine's names of the states of running containers. An inventory lists a container in any other state as stopped."""


def check_engine(environment: Environment, used_ports: Collection[int]) -> None:
    """Check that the engine answers, before any change.

    On a local engine, also check that the ports of the gateway and of Prometheus are free. Don't check an engine with an
    ssh:// address, because the provider itself reports a failed connection.

    Args:
        environment: the environment.
        used_ports: ports that this stack's containers already use. These ports are not checked.

    Raises:
        RunError: the engine does not answer, or a port is in use.
    """
    host = engine_host(environment.docker.host)
    setting = "environment.docker.host" if environment.docker.host else "DOCKER_HOST"
    url = urlsplit(host)
    try:
        if url.scheme == "unix":
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(url.path)
        elif url.scheme == "tcp":
            socket.create_connection((url.hostname or "", url.port or 2375), timeout=5).close()
    except OSError as error:
        raise RunError(
            f"{setting}: no Docker engine answers at {host} ({error.strerror or error}); start an engine, for example with `make lab`, "
            "or set another address in environment.docker.host"
        ) from None
    if url.scheme == "unix":
        _check_ports(environment, used_ports)


def _check_ports(environment: Environment, used_ports: Collection[int]) -> None:
    gateway, monitoring = environment.gateway, environment.monitoring
    ports = {f"gateway.{key}": port for key, port in gateway.published.items()}
    ports |= {"monitoring.port": monitoring.port} if monitoring else {}
    for key, port in ports.items():
        address = "127.0.0.1" if key in ("gateway.metrics_port", "monitoring.port") else gateway.address
        if port in used_ports:
            continue
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind((address, port))
            except OSError as error:
                raise RunError(
                    f"environment.{key}: port {port} can't be opened on {address} ({error.strerror}); "
                    "stop the program that uses it, or choose another port"
                ) from None


@dataclass(frozen=True, kw_only=True)
class DockerInspector:
    """Implementation of `Inspector` for one Docker engine."""

    location: Location

    def check(self, context: Context, checkpoint: Checkpoint, routes: Sequence[Route]) -> None:
        text = haproxy.stack_configuration(dict.fromkeys(Slot, routes), context.environment)
        if (size := len(text.encode())) > LONGEST:
            wrong = f"these paths make the gateway's configuration {size} bytes long, but a process accepts {LONGEST} bytes in one text"
            raise ConfigError(f"app.api.paths: {wrong}; use fewer paths, for example common prefixes")
        ports = [
            port
            for entry in checkpoint.entries
            if entry.name in ("gateway", prometheus.NAME)
            for port in entry.inputs.get("ports") or ()
        ]
        check_engine(context.environment, used_ports={int(port["external"]) for port in ports})

    def routing(self, environment: Environment) -> Routing:
        """Read the live slot from the gateway, or from the gateway's map file if the gateway does not answer."""
        source = f"the gateway of {self.location.instance}"
        try:
            return self._routing(source, environment.toolbox)
        except (sdk().errors.DockerException, OSError) as error:
            return Routing(source=source, problem=" ".join(str(error).split())[:300])

    def _routing(self, source: str, toolbox: str) -> Routing:
        engine, gateway = connect(self.location.host, within=60), f"{self.location.instance}-gateway"
        tiers = engine.containers.list(all=True, ignore_removed=True, filters=self._labels(role="tier"))
        running = frozenset(
            Slot(container.labels[LABEL_SLOT]) for container in tiers if container.labels.get(LABEL_SLOT) in [*Slot]
        )
        if gateway not in {volume.name for volume in engine.volumes.list(filters={"name": gateway})}:
            return Routing(source=source, running=running, absent=True)
        # Run as the gateway's user, because this user owns the map file.
        name = engine.containers.run(
            toolbox,
            ["python3", "-c", toolbox_program(), "live", FOLDER],
            volumes={gateway: {"bind": FOLDER, "mode": "rw"}},
            user=f"{USER}:{USER}", network_mode="none", read_only=True, cap_drop=["ALL"], remove=True,
            security_opt=["no-new-privileges:true"], mem_limit="64m",
        ).decode().strip()  # fmt: skip
        return Routing(source=source, live=Slot(name) if name in [*Slot] else None, running=running)

    def replica_counts(self) -> Mapping[tuple[str, str], tuple[int, int]]:
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        for container in self._list_containers(all=True):
            if container.labels["tiers.role"] not in SERVICE_ROLES:
                continue
            key = (container.labels.get("tiers.slot", ""), container.labels["tiers.tier"])
            healthy, total = counts.get(key, (0, 0))
            counts[key] = (healthy + (container.health == "healthy"), total + 1)
        return counts

    def job_runs(self) -> Sequence[JobRun]:
        containers = self._list_containers(role=ROLE_JOB)
        # Every container of a job has the volume with the state of all jobs.
        return job_runner.parse_runs(read_files(containers[0], job_runner.FOLDER)) if containers else []

    def is_ready(self, slot: Slot) -> bool:
        containers = self._list_containers(all=True, role="tier", slot=slot)
        return bool(containers) and all(container.health == "healthy" for container in containers)

    def check_ready(self, slot: Slot, touched: Callable[[], str]) -> None:
        containers = self._list_containers(all=True, role="tier", slot=slot)
        unhealthy = sorted(str(container.name) for container in containers if container.health != "healthy")
        if unhealthy or not containers:
            raise RunError(
                f"slot {slot} can't go live, because {'these containers are not healthy: ' + ', '.join(unhealthy) if unhealthy else 'it has no containers'}; {touched()}. Deploy a new release instead"
            )

    def absent_images(self, images: Collection[str]) -> Sequence[str]:
        """Return the ids in `images` that are missing on the engine.

        If the engine does not answer, return no ids, because the next step that uses the engine reports the error.
        """
        try:
            present = {image["Id"] for image in connect(self.location.host).api.images()}
        except sdk().errors.DockerException:
            return []
        return sorted(set(images) - present)

    def image_process(self, image: str) -> "ImageProcess":
        """Return the entrypoint and the command of an image. Both are empty if the engine lacks the image.

        The creation of a container from a missing image fails with an error that names the fix.

        Args:
            image: id of the image.
        """
        try:
            settings = connect(self.location.host).api.inspect_image(image)["Config"]
        except sdk().errors.ImageNotFound:
            return ImageProcess(entrypoint=[], command=[])
        return ImageProcess(entrypoint=list(settings["Entrypoint"] or ()), command=list(settings["Cmd"] or ()))

    def execute(self, tier: str, slot: Slot | None, command: Sequence[str]) -> str:
        return self._execute(tier, slot, command, within=60)

    def run_once(self, environment: Environment, workload: str, name: str, command: Sequence[str]) -> str:
        return self._execute(workload, None, command, within=ONCE_WITHIN)

    def _execute(self, tier: str, slot: Slot | None, command: Sequence[str], within: float) -> str:
        container = self._running(tier, slot, within)[0]
        code, output = container.exec_run([*_export_of(container), *command])
        return _output_or_error(command, code, output.decode(errors="replace").strip())

    def run_on_volumes(self, environment: Environment, restore: VolumeRestore, command: Sequence[str]) -> str:
        source = self._running(restore.workload, None, ONCE_WITHIN)[0]
        instances = self._list_containers(all=True, within=ONCE_WITHIN, role="tier", tier=restore.store)
        if not instances:
            raise RunError(f"{restore.store} has no container; create it with `make up`")
        try:
            for instance in instances:
                # Without a time limit the engine waits as long as the container's own setting says.
                instance.stop()
            result = one_off.run_to_end(self.location.host, source, command, writable=restore.folder)
            output = _output_or_error(command, *result)
        finally:
            for instance in instances:
                instance.start()
        if unhealthy := self.wait_healthy([f"container {instance.id}" for instance in instances], restore.ready_within):
            states = ", ".join(unhealthy.values())
            raise RunError(
                f"{restore.store} has started again, but is {states}; read `make logs SERVICE={restore.store}`"
            )
        return output

    def run_with_input(self, workload: str, command: Sequence[str], line: str) -> str:
        container = self._running(workload, None, ONCE_WITHIN)[0]
        api = container.client.api
        execution = api.exec_create(container.id, [*_export_of(container), *command], stdin=True)["Id"]
        connection: Any = api.exec_start(execution, socket=True)
        # With TLS or ssh `exec_start` returns the connection itself. Otherwise the connection is in `_sock` of the result.
        getattr(connection, "_sock", connection).sendall(f"{line}\n".encode())
        text = output_of(connection)
        return _output_or_error(command, api.exec_inspect(execution)["ExitCode"], text)

    def command_in(self, tier: str, slot: Slot | None, command: Sequence[str], *, terminal: bool) -> list[str]:
        container = self._running(tier, slot, within=60)[0]
        options = ["--interactive", "--tty"] if terminal else ["--interactive"]
        return [
            "docker",
            "--host",
            self.location.host,
            "exec",
            *options,
            str(container.name),
            *_export_of(container),
            *command,
        ]

    def one_off(
        self, environment: Environment, service: str, slot: Slot, command: Sequence[str], *, terminal: bool
    ) -> AbstractContextManager[OneOff]:
        source = self._running(service, slot, within=60)[0]
        return one_off.created(self.location.host, source, command, terminal=terminal)

    def remove_one_offs(self) -> list[str]:
        # The engine refuses to remove a network or a volume that a container uses.
        containers = self._list_containers(all=True, within=60, role="run")
        for container in containers:
            # The engine itself removes a container whose command ends.
            with suppress(sdk().errors.NotFound):
                container.remove(force=True, v=True)
        return [str(container.name) for container in containers]

    def log_lines(self, since: float = 0) -> Iterator[Line]:
        """Yield the log lines of all containers of the stack on the engine, including stopped containers."""
        for container in self._list_containers(all=True, within=60):
            labels = container.labels
            origin = (
                labels.get("tiers.tier") or labels["tiers.role"],
                labels.get(LABEL_SLOT, ""),
                labels.get(LABEL_RELEASE, ""),
            )
            # The SDK refuses 0 as a time.
            log = container.logs(timestamps=True, since=int(since) or None)
            for line in log.decode(errors="replace").splitlines():
                when, _, text = line.partition(" ")
                yield Line(when, *origin, text)

    def unexpected_routes(self, app: App, live: Slot) -> list[str]:
        containers = self._containers(live)
        # Skip a remote engine: this machine can't connect to the addresses of its containers.
        local = is_local(self.location.host)
        outside = f"{self.location.instance}-{Zone.OUTSIDE}"
        answering = answering_containers(containers, listening_ports(app), outside) if local else set[str]()
        return list(isolation.unexpected_routes(app, containers, answering))

    @property
    def checked_objects(self) -> str:
        return "ports and networks"

    def _containers(self, slot: Slot) -> list[Container]:
        """Return the running containers of `slot`, and the running containers that both slots share."""
        return [
            Container(
                name=str(container.name),
                role=container.labels["tiers.role"],
                tier=container.labels.get("tiers.tier", ""),
                published=tuple(sorted(port for port, bound in container.ports.items() if bound)),
                addresses={
                    name: f"{network['IPAddress']}/{network['IPPrefixLen']}"
                    for name, network in container.attrs["NetworkSettings"]["Networks"].items()
                    if network["IPAddress"]
                },
            )
            for container in self._list_containers()
            if container.labels.get("tiers.slot", slot) == slot
        ]

    # ------------------------------------------------------------------ repair

    def inventory(self, types: Iterable[str]) -> Inventory:
        """List the objects of a stack on the engine, with four requests in total.

        Containers, networks and volumes are selected by the stack's labels. Images have no such labels, so all images are listed.
        """
        label_filter, api = self._labels(), connect(self.location.host, within=60).api
        listed: list[dict[str, Any]] = api.containers(all=True, filters=label_filter)
        networks: list[dict[str, Any]] = api.networks(filters=label_filter)
        volumes: list[dict[str, Any]] = api.volumes(filters=label_filter)["Volumes"] or []
        images: list[dict[str, Any]] = api.images()
        return Inventory(
            keys=frozenset(
                [
                    *(f"container {container['Id']}" for container in listed),
                    *(f"network {network['Id']}" for network in networks),
                    *(f"volume {volume['Name']}" for volume in volumes),
                    *(f"image {image['Id']}" for image in images),
                ]
            ),
            stopped={
                f"container {container['Id']}": container["State"]
                for container in listed
                if container["State"] not in _RUNNING
            },
            unhealthy={
                f"container {container['Id']}": container["Status"]
                for container in listed
                if container["State"] in _RUNNING
                and ("(unhealthy)" in container["Status"] or container["State"] == "restarting")
            },
        )

    def confirm(self, types: Mapping[str, str]) -> frozenset[str]:
        """Look up objects that `inventory` did not list, and return the keys of the objects that exist on the engine.

        For example, `inventory` can't find a volume of an older version of this program, because the volume has no labels.
        """
        api, existing = connect(self.location.host).api, set[str]()
        inspect = {
            "container": api.inspect_container,
            "network": api.inspect_network,
            "volume": api.inspect_volume,
            "image": api.inspect_image,
        }
        for key in types:
            kind, _, identity = key.partition(" ")
            with suppress(sdk().errors.NotFound):
                inspect[kind](identity)
                existing.add(key)
        return frozenset(existing)

    def remove_strays(self, resources: Sequence[Mapping[str, Any]]) -> list[str]:
        """Remove the stack's containers and networks that are missing from the state. Keep volumes, because they may hold data."""
        ids_in_state = {str(resource.get("id")) for resource in resources}
        engine = connect(self.location.host)
        strays = [
            container
            for container in engine.containers.list(all=True, filters=self._labels())
            if container.id not in ids_in_state
        ]
        for container in strays:
            container.remove(force=True)
        networks = [
            network for network in engine.networks.list(filters=self._labels()) if network.id not in ids_in_state
        ]
        for network in networks:
            network.remove()
        return sorted(str(stray.name) for stray in (*strays, *networks))

    def manual_start(self, key: str) -> str:
        return ""

    def start(self, keys: Sequence[str]) -> Mapping[str, str]:
        failed: dict[str, str] = {}
        engine, api_error = connect(self.location.host, within=60), sdk().errors.APIError
        for key in keys:
            identity = _container_id(key)
            try:
                container = engine.containers.get(identity)
                container.unpause() if container.status == "paused" else container.start()
            except api_error as error:
                failed[key] = str(error.explanation or error)
                with suppress(api_error):
                    engine.api.remove_container(identity, force=True)
        return failed

    def wait_healthy(self, keys: Sequence[str], within: float) -> Mapping[str, str]:
        engine = connect(self.location.host, within=60)
        deadline = time.monotonic() + within
        while True:
            states = [engine.api.inspect_container(_container_id(key)) for key in keys]
            unhealthy = {
                str(container["Name"]).lstrip("/"): state
                for container in states
                if (state := _unhealthy_state(container["State"]))
            }
            if not unhealthy or time.monotonic() > deadline:
                return unhealthy
            time.sleep(0.5)

    def repair_gateway(self, environment: Environment, read_checkpoint: Callable[[], Checkpoint]) -> bool:
        return gateway_repair.repair(self.location, environment, read_checkpoint)

    def repeat_switch(self, name: str) -> bool:
        """Run the container of a switch again, and wait until it ends."""
        container = connect(self.location.host).containers.get(name)
        container.start()
        container.wait(timeout=60)
        return True

    # ------------------------------------------------------------------ containers

    def _labels(self, **labels: str) -> dict[str, list[str]]:
        """Return an engine filter for the stack's objects with these labels. Each label name gets the prefix `tiers.`."""
        prefixed = {f"tiers.{name}": value for name, value in labels.items()}
        required = stack_labels(self.location.app, self.location.stack) | prefixed
        return {"label": [f"{name}={value}" for name, value in required.items()]}

    def _list_containers(self, *, all: bool = False, within: float = 10, **labels: str) -> list[Any]:
        """Return the stack's containers that have these labels. Without `all`, return only running containers."""
        return connect(self.location.host, within).containers.list(all=all, filters=self._labels(**labels))

    def _running(self, tier: str, slot: Slot | None, within: float) -> list[Any]:
        labels = {"tier": tier} | ({"slot": str(slot)} if slot else {})
        listed = connect(self.location.host, within).containers.list(filters=self._labels(**labels))
        containers = [container for container in listed if container.labels["tiers.role"] in SERVICE_ROLES]
        if not containers:
            raise RunError(f"{tier} has no running container; start one with `make up`")
        return containers


@dataclass(frozen=True, kw_only=True)
class ImageProcess:
    """Entrypoint and command of an image."""

    entrypoint: list[str]
    command: list[str]


def inspector(location: Location) -> DockerInspector:
    """Return the inspector of an engine."""
    return DockerInspector(location=location)


def answering_containers(containers: Collection[Container], ports: Mapping[str, int], outside: str) -> set[str]:
    """Connect from this machine to each container, and return the names of the containers that accept a connection.

    The network `outside` is skipped, because connections on this network are allowed.
    """
    targets = [
        (container.name, interface, ports[container.tier])
        for container in containers
        if container.tier in ports
        for network, interface in container.addresses.items()
        if network != outside
    ]
    return {name for name, interface, port in targets if _accepts(ip_interface(interface), port)}


def _accepts(interface: IPv4Interface | IPv6Interface, port: int) -> bool:
    """Return True if a container accepts a connection from this machine, from an address in the container's network.

    With any other source address the connection does not count, because a proxy on the way may accept every connection.

    Args:
        interface: address of the container, with its network.
        port: port of the container.
    """
    try:
        with socket.create_connection((str(interface.ip), port), timeout=1) as client:
            return ip_address(client.getsockname()[0]) in interface.network
    except OSError:
        return False


def _output_or_error(command: Sequence[str], code: int, text: str) -> str:
    """Return the output of a command. Raise RunError if the command's exit code is not 0."""
    if code:
        raise RunError(f"`{' '.join(command)}` ended with exit code {code}: {text[-500:] or 'it printed nothing'}")
    return text


def _export_of(container: Any) -> list[str]:
    """Return the beginning of a command that gets the variables with secrets of a container (`programs.export`)."""
    return export_of(container.attrs["Config"]["Entrypoint"] or ())


def _container_id(key: str) -> str:
    """Return the id in a container's inventory key, such as `container ID`."""
    return key.partition(" ")[2]


def _unhealthy_state(state: Mapping[str, Any]) -> str:
    """Return the state of an unhealthy container, such as `starting`, or an empty text for a healthy container."""
    if not state["Running"]:
        return str(state["Status"])
    health = str(state["Health"]["Status"]) if state.get("Health") else "healthy"
    return "" if health == "healthy" else health
