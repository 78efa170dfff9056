"""Queries and commands to a Docker engine: availability checks, state of containers, logs, and causes of failures."""

import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi
from pulumi import ErrorHook, ErrorHookArgs, ResourceHookBinding, RunError

from ..checkpoint import LABEL_RELEASE, LABEL_SLOT
from ..config import Environment
from ..live import Routing
from ..names import LABEL_APP, LABEL_ENVIRONMENT
from ..release import Slot
from ..workload import Image
from . import Line
from .haproxy import FOLDER, USER
from .inventory import Inventory, Location, engine_host


@dataclass(frozen=True, kw_only=True)
class Container:
    """Container of a stack with its ports and networks."""

    name: str
    role: str
    tier: str
    published: tuple[str, ...]
    """Ports of the container that the engine's host publishes."""
    addresses: Mapping[str, str]
    """Network → the container's address in it, with the prefix length: 172.20.0.3/16."""


def address(environment: Environment) -> str:
    """Return the engine's address: the environment's, else DOCKER_HOST, else the local socket."""
    return engine_host(environment.docker.host)


def stack_labels(app: str, stack: str) -> dict[str, str]:
    """Return the labels of everything that belongs to a stack on an engine."""
    return {LABEL_APP: app, LABEL_ENVIRONMENT: stack}


def check(environment: Environment, own: Collection[int]) -> None:
    """Check before any change that the engine answers and that the gateway's ports are free.

    `own` are the ports that this stack's gateway already uses. An engine behind ssh:// is not checked: the provider
    reports the error of its connection.

    Raises:
        RunError: the engine does not answer or a port is taken; the message names the setting and the fix.
    """
    host = address(environment)
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
            f"{setting}: no Docker engine answers at {host} ({error.strerror or error}); start it (`make lab` starts one "
            "where there is none), or name another in environment.docker.host"
        ) from None
    if url.scheme == "unix":
        _check_ports(environment, own)


def _check_ports(environment: Environment, own: Collection[int]) -> None:
    gateway, monitoring = environment.gateway, environment.monitoring
    ports = {f"gateway.{key}": port for key, port in gateway.published.items()}
    ports |= {"monitoring.port": monitoring.port} if monitoring else {}
    for key, port in ports.items():
        address = "127.0.0.1" if key in ("gateway.metrics_port", "monitoring.port") else gateway.address
        if port in own:
            continue
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind((address, port))
            except OSError as error:
                raise RunError(
                    f"environment.{key}: port {port} can't be opened on {address} ({error.strerror}); "
                    "stop what uses it, or choose another port"
                ) from None


def explain_container(
    name: str, real: str, path: str, within: float, environment: Environment, touched: Callable[[], str]
) -> ResourceHookBinding:
    """Return hooks that explain why a container was not created or not healthy: its state and last log lines."""

    def explain(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else ""
        if "healthy" in cause:
            cause = f"it is not healthy within {within:g}s"
        cause = with_remedy(cause, pulumi.get_stack())
        pulumi.log.error(f"{path}: container {real}: {cause}; {touched()}.\n{_last_words(environment, real)}")
        return False

    return _on_error(f"explain-{name}", explain)


def with_remedy(cause: str, stack: str) -> str:
    """Return an engine's error, with `make heal` as the fix if it names an object that no longer exists."""
    is_missing = any(
        text in cause for text in ("No such container", "No such image", "No such network", "no such volume")
    )
    return f"{cause}; it was removed by hand: run `make heal ENV={stack}`, then this again" if is_missing else cause


def explain_image(name: str, image: Image) -> ResourceHookBinding:
    """Return hooks that name the setting of an image that was not pulled or built, and the fix."""

    def explain(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else "no reason was given"
        if "no space left" in cause:
            fix = "the engine's disk is full: free some with `docker system prune`, then run it again"
        elif image.context:
            fix = f"its build in {image.context} failed: mend the Dockerfile; `docker build {image.context}` shows every line"
        else:
            fix = "check its name and tag, and that the engine may pull it (`docker pull`)"
        pulumi.log.error(f"{image.path}: {image.reference} can't be had; {fix}.\n    {cause}")
        return False

    return _on_error(f"explain-{name}", explain)


def _on_error(name: str, explain: Callable[[ErrorHookArgs], bool]) -> ResourceHookBinding:
    return ResourceHookBinding(on_error=[ErrorHook(name, explain)])


def check_healthy(environment: Environment, labels: Mapping[str, str], impact: Callable[[], str]) -> None:
    """Check that containers with these labels exist and that the engine calls all of them healthy.

    Raises:
        RunError: one is not healthy, or none exists; `impact` describes the effect on users.
    """
    containers = _labelled(environment, labels)
    unhealthy = sorted(str(container.name) for container in containers if container.health != "healthy")
    if unhealthy or not containers:
        raise RunError(
            f"{', '.join(unhealthy) or 'no container of the slot'} is not healthy; {impact()}. Release anew instead"
        )


def healthy(environment: Environment, labels: Mapping[str, str]) -> bool:
    """Tell whether containers with these labels exist and all of them are healthy."""
    containers = _labelled(environment, labels)
    return bool(containers) and all(container.health == "healthy" for container in containers)


def _labelled(environment: Environment, labels: Mapping[str, str]) -> list[Any]:
    label_filter = [f"{name}={value}" for name, value in labels.items()]
    return client(environment).containers.list(all=True, filters={"label": label_filter})


def routing(environment: Environment, app: str, stack: str) -> Routing:
    """Read from the gateway's process, or from its map file, which slot it sends users to."""
    source = f"the gateway of {app}-{stack}"
    from docker.errors import DockerException

    try:
        return _routing(environment, source, stack_labels(app, stack), f"{app}-{stack}-gateway")
    except (DockerException, OSError) as error:
        return Routing(source=source, problem=" ".join(str(error).split())[:300])


def _routing(environment: Environment, source: str, labels: Mapping[str, str], gateway: str) -> Routing:
    engine = client(environment, within=60)
    label_filter = [f"{name}={value}" for name, value in {**labels, "tiers.role": "tier"}.items()]
    tiers = engine.containers.list(all=True, ignore_removed=True, filters={"label": label_filter})
    running = frozenset(
        Slot(container.labels[LABEL_SLOT]) for container in tiers if container.labels.get(LABEL_SLOT) in [*Slot]
    )
    if gateway not in {volume.name for volume in engine.volumes.list(filters={"name": gateway})}:
        return Routing(source=source, running=running, absent=True)
    # Run as the containers that configure the gateway do: the map file is in a volume that belongs to the gateway's
    # user.
    name = engine.containers.run(
        environment.toolbox,
        ["python3", "-c", Path(__file__).with_name("toolbox.py").read_text(), "live", FOLDER],
        volumes={gateway: {"bind": FOLDER, "mode": "rw"}},
        user=f"{USER}:{USER}", network_mode="none", read_only=True, cap_drop=["ALL"], remove=True,
        security_opt=["no-new-privileges:true"], mem_limit="64m",
    ).decode().strip()  # fmt: skip
    return Routing(source=source, live=Slot(name) if name in [*Slot] else None, running=running)


def remove_strays(location: Location, known: Collection[str]) -> list[str]:
    """Remove the containers and networks of a stack whose ids are not in `known`. Volumes stay, as they may hold data.

    Returns:
        The names of the removed objects.
    """
    labels = stack_labels(location.app, location.stack)
    label_filter = {"label": [f"{name}={value}" for name, value in labels.items()]}
    engine = connect(location.host)
    strays = [
        container for container in engine.containers.list(all=True, filters=label_filter) if container.id not in known
    ]
    for container in strays:
        container.remove(force=True)
    stray_networks = [network for network in engine.networks.list(filters=label_filter) if network.id not in known]
    for network in stray_networks:
        network.remove()
    return sorted(str(stray.name) for stray in (*strays, *stray_networks))


def run_again(location: Location, name: str) -> None:
    """Run a one-shot container again, to its end."""
    container = connect(location.host).containers.get(name)
    container.start()
    container.wait(timeout=60)


def ready(location: Location) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (slot or "", tier) → how many containers are healthy, and how many exist."""
    labels = stack_labels(location.app, location.stack) | {"tiers.role": "tier"}
    label_filter = [f"{name}={value}" for name, value in labels.items()]
    counts: dict[tuple[str, str], tuple[int, int]] = {}
    for container in connect(location.host).containers.list(all=True, filters={"label": label_filter}):
        key = (container.labels.get("tiers.slot", ""), container.labels["tiers.tier"])
        healthy, total = counts.get(key, (0, 0))
        counts[key] = (healthy + (container.health == "healthy"), total + 1)
    return counts


def execute(environment: Environment, labels: Mapping[str, str], command: Sequence[str], within: float = 60) -> str:
    """Run a command in the first container with these labels and return its output.

    Raises:
        RunError: no such container runs, or the command exits with a code other than 0.
    """
    label_filter = [f"{name}={value}" for name, value in labels.items()]
    containers = client(environment, within).containers.list(filters={"label": label_filter})
    if not containers:
        raise RunError("no container of it runs")
    code, output = containers[0].exec_run(list(command))
    text = output.decode(errors="replace").strip()
    if code:
        raise RunError(f"`{' '.join(command)}` ended with exit code {code}: {text[-500:] or 'it printed nothing'}")
    return text


def tell(environment: Environment, labels: Mapping[str, str], command: Sequence[str], given: str, within: float) -> str:
    """Run a command as `execute` does, and write a line to its standard input."""
    api = client(environment, within)
    containers = api.containers.list(filters={"label": [f"{name}={value}" for name, value in labels.items()]})
    if not containers:
        raise RunError("no container of it runs")
    execution = api.api.exec_create(containers[0].id, list(command), stdin=True)["Id"]
    connection: Any = api.api.exec_start(execution, socket=True)
    # Over TLS and ssh `exec_start` returns the connection itself.
    getattr(connection, "_sock", connection).sendall(f"{given}\n".encode())
    frames: Any = import_module("docker.utils.socket").frames_iter(connection, tty=False)
    text = b"".join(part for _, part in frames).decode(errors="replace").strip()
    if code := api.api.exec_inspect(execution)["ExitCode"]:
        raise RunError(f"`{' '.join(command)}` ended with exit code {code}: {text[-500:] or 'it printed nothing'}")
    return text


def lines(environment: Environment, labels: Mapping[str, str]) -> Iterator[Line]:
    """Yield all log lines of the containers with these labels, as far back as the engine keeps them."""
    label_filter = [f"{name}={value}" for name, value in labels.items()]
    for container in client(environment, within=60).containers.list(all=True, filters={"label": label_filter}):
        container_labels = container.labels
        origin = (
            container_labels.get("tiers.tier") or container_labels["tiers.role"],
            container_labels.get(LABEL_SLOT, ""),
            container_labels.get(LABEL_RELEASE, ""),
        )
        for line in container.logs(timestamps=True).decode(errors="replace").splitlines():
            when, _, text = line.partition(" ")
            yield Line(when, *origin, text)


def containers(environment: Environment, labels: Mapping[str, str], slot: str) -> list[Container]:
    """Return the running containers with these labels, without those of the other slot."""
    label_filter = [f"{name}={value}" for name, value in labels.items()]
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
        for container in client(environment).containers.list(filters={"label": label_filter})
        if container.labels.get("tiers.slot", slot) == slot
    ]


def answering(
    environment: Environment, found: Collection[Container], ports: Mapping[str, int], outside: str
) -> set[str]:
    """Return the names of containers that accept a connection from this machine.

    Network `outside` is skipped, because this machine is on it. Of an engine on another machine none is probed: its
    addresses mean nothing here.
    """
    if urlsplit(address(environment)).scheme != "unix":
        return set()
    targets = [
        (container.name, interface, ports[container.tier])
        for container in found
        if container.tier in ports
        for network, interface in container.addresses.items()
        if network != outside
    ]
    return {name for name, interface, port in targets if _takes(ip_interface(interface), port)}


def _takes(interface: IPv4Interface | IPv6Interface, port: int) -> bool:
    """Tell whether an address accepts a connection that this machine opens from the address's own network.

    A connection that leaves this machine another way reaches something else: some proxies accept every connection.
    """
    try:
        with socket.create_connection((str(interface.ip), port), timeout=1) as client:
            return ip_address(client.getsockname()[0]) in interface.network
    except OSError:
        return False


def client(environment: Environment, within: float = 10) -> Any:
    """Return a client of the environment's engine; `within` is the timeout in seconds."""
    return connect(address(environment), within)


def connect(host: str, within: float = 10) -> Any:
    """Return a client of the engine at an address; `within` is the timeout in seconds."""
    # Imported here because the import would add a tenth of a second to every preview.
    import docker

    return docker.DockerClient(base_url=host, use_ssh_client=True, timeout=within)


def inventory(location: Location) -> Inventory:
    """List the objects of a stack on the engine, in four requests, none of which inspects a container.

    Containers, networks and volumes are selected by the stack's labels. Images have none of these labels, so all are
    listed.
    """
    labels = stack_labels(location.app, location.stack)
    label_filter = {"label": [f"{name}={value}" for name, value in labels.items()]}
    api = connect(location.host, within=60).api
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


def confirm(location: Location, keys: Iterable[str]) -> frozenset[str]:
    """Return the keys whose objects exist on the engine although the listing lacks them.

    A volume of an older release has no labels.
    """
    from docker.errors import NotFound

    api, existing = connect(location.host).api, set[str]()
    inspect = {
        "container": api.inspect_container,
        "network": api.inspect_network,
        "volume": api.inspect_volume,
        "image": api.inspect_image,
    }
    for key in keys:
        kind, _, identity = key.partition(" ")
        with suppress(NotFound):
            inspect[kind](identity)
            existing.add(key)
    return frozenset(existing)


_RUNNING = ("running", "restarting", "removing")
"""States of a container, in the engine's words, that need no start."""


def absent_images(environment: Environment, images: Collection[str]) -> list[str]:
    """Return the image ids that the engine does not have.

    Returns none if the engine does not answer: the step that needs the image reports that.
    """
    from docker.errors import DockerException

    try:
        present = {image["Id"] for image in client(environment).api.images()}
    except DockerException:
        return []
    return sorted(set(images) - present)


def start(location: Location, ids: Sequence[str]) -> dict[str, str]:
    """Start containers one after the other, and remove those that the engine can't start.

    Returns:
        Id of each removed container → the engine's reason.
    """
    from docker.errors import APIError

    failed: dict[str, str] = {}
    engine = connect(location.host, within=60)
    for identity in ids:
        try:
            container = engine.containers.get(identity)
            container.unpause() if container.status == "paused" else container.start()
        except APIError as error:
            failed[identity] = str(error.explanation or error)
            with suppress(APIError):
                engine.api.remove_container(identity, force=True)
    return failed


def wait_healthy(location: Location, ids: Sequence[str], within: float) -> dict[str, str]:
    """Wait until containers are healthy, or running if they have no health check.

    Returns:
        Name of each container that is not, after `within` seconds → its state.
    """
    engine = connect(location.host, within=60)
    deadline = time.monotonic() + within
    while True:
        states = [engine.api.inspect_container(identity) for identity in ids]
        unhealthy = {
            str(container["Name"]).lstrip("/"): state for container in states if (state := _illness(container["State"]))
        }
        if not unhealthy or time.monotonic() > deadline:
            return unhealthy
        time.sleep(0.5)


def _illness(state: Mapping[str, Any]) -> str:
    """Return the state of a container in one word, or an empty text if it serves."""
    if not state["Running"]:
        return str(state["Status"])
    health = str(state["Health"]["Status"]) if state.get("Health") else "healthy"
    return "" if health == "healthy" else health


def _last_words(environment: Environment, container: str) -> str:
    from docker.errors import DockerException

    from .docker import plain_log

    try:
        record = client(environment).containers.get(container)
        state = record.attrs["State"]
        log = record.logs(tail=20).decode(errors="replace")
    except DockerException as error:
        return f"Its log could not be read: {error}"
    summary = f"It is {state['Status']}, exit code {state['ExitCode']}, out of memory: {'yes' if state['OOMKilled'] else 'no'}."
    return f"{summary} Its last lines:\n{plain_log(log)}"
