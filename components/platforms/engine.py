"""What the program asks the Docker engine itself: whether it is there, and why something failed."""

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
    """A container of a stack, and how it is connected."""

    name: str
    role: str
    tier: str
    published: tuple[str, ...]
    """Its ports that are opened on the engine's host."""
    addresses: Mapping[str, str]
    """Network → its address there, with the size of the network: 172.20.0.3/16."""


def address(environment: Environment) -> str:
    """The engine's address: the environment names it, else DOCKER_HOST does, else it is the local socket."""
    return engine_host(environment.docker.host)


def stack_labels(app: str, stack: str) -> dict[str, str]:
    """What everything of a stack on an engine is found by."""
    return {LABEL_APP: app, LABEL_ENVIRONMENT: stack}


def check(environment: Environment, own: Collection[int]) -> None:
    """Find out before anything is touched whether the engine answers and the gateway's ports are free.

    `own` are the ports that this stack's own gateway has already. An engine behind ssh:// is left to the provider,
    which reports the connection's own error.

    Raises:
        RunError: it does not; the message names the setting and the fix.
    """
    host = address(environment)
    named = "environment.docker.host" if environment.docker.host else "DOCKER_HOST"
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
            f"{named}: no Docker engine answers at {host} ({error.strerror or error}); start it (`make lab` starts one "
            "where there is none), or name another in environment.docker.host"
        ) from None
    if url.scheme == "unix":
        _check_ports(environment, own)


def _check_ports(environment: Environment, own: Collection[int]) -> None:
    gateway, monitoring = environment.gateway, environment.monitoring
    wanted = {f"gateway.{key}": port for key, port in gateway.published.items()}
    wanted |= {"monitoring.port": monitoring.port} if monitoring else {}
    for key, port in wanted.items():
        where = "127.0.0.1" if key in ("gateway.metrics_port", "monitoring.port") else gateway.address
        if port in own:
            continue
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind((where, port))
            except OSError as error:
                raise RunError(
                    f"environment.{key}: {port} can't be opened on {where} ({error.strerror}); "
                    "stop what uses it, or choose another port"
                ) from None


def explain_container(
    name: str, real: str, path: str, within: float, environment: Environment, touched: Callable[[], str]
) -> ResourceHookBinding:
    """When the container can't be made or does not become healthy, say so with its state and last log lines."""

    def explain(args: ErrorHookArgs) -> bool:
        cause = args.errors[0].strip() if args.errors else ""
        if "healthy" in cause:
            cause = f"it is not healthy within {within:g}s"
        cause = with_remedy(cause, pulumi.get_stack())
        pulumi.log.error(f"{path}: container {real}: {cause}; {touched()}.\n{_last_words(environment, real)}")
        return False

    return _on_error(f"explain-{name}", explain)


def with_remedy(cause: str, stack: str) -> str:
    """Return an error of the engine with the command that helps, if something of the stack's state is gone from the engine."""
    gone = any(text in cause for text in ("No such container", "No such image", "No such network", "no such volume"))
    return f"{cause}; it was removed by hand: run `make heal ENV={stack}`, then this again" if gone else cause


def explain_image(name: str, image: Image) -> ResourceHookBinding:
    """When an image can't be had, name the setting it comes from."""

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
    """Check that the containers with these labels are there, and that the engine calls them healthy.

    Raises:
        RunError: they are not; `impact` says what that means for users.
    """
    found = _labelled(environment, labels)
    ill = sorted(str(each.name) for each in found if each.health != "healthy")
    if ill or not found:
        raise RunError(f"{', '.join(ill) or 'what ran there'} is not healthy; {impact()}. Release anew instead")


def healthy(environment: Environment, labels: Mapping[str, str]) -> bool:
    """Return whether there are containers with these labels, and all of them are healthy."""
    found = _labelled(environment, labels)
    return bool(found) and all(each.health == "healthy" for each in found)


def _labelled(environment: Environment, labels: Mapping[str, str]) -> list[Any]:
    wanted = [f"{name}={value}" for name, value in labels.items()]
    return client(environment).containers.list(all=True, filters={"label": wanted})


def routing(environment: Environment, app: str, stack: str) -> Routing:
    """Ask the gateway which slot it sends users to: its process, or the file that it starts with."""
    source = f"the gateway of {app}-{stack}"
    from docker.errors import DockerException

    try:
        return _routing(environment, source, stack_labels(app, stack), f"{app}-{stack}-gateway")
    except (DockerException, OSError) as error:
        return Routing(source=source, problem=" ".join(str(error).split())[:300])


def _routing(environment: Environment, source: str, labels: Mapping[str, str], gateway: str) -> Routing:
    here = client(environment, within=60)
    wanted = [f"{name}={value}" for name, value in {**labels, "tiers.role": "tier"}.items()]
    tiers = here.containers.list(all=True, ignore_removed=True, filters={"label": wanted})
    running = frozenset(Slot(each.labels[LABEL_SLOT]) for each in tiers if each.labels.get(LABEL_SLOT) in [*Slot])
    if gateway not in {each.name for each in here.volumes.list(filters={"name": gateway})}:
        return Routing(source=source, running=running, absent=True)
    # As the containers that tell the gateway something: the map is in a volume, and belongs to the gateway's user.
    name = here.containers.run(
        environment.toolbox,
        ["python3", "-c", Path(__file__).with_name("toolbox.py").read_text(), "live", FOLDER],
        volumes={gateway: {"bind": FOLDER, "mode": "rw"}},
        user=f"{USER}:{USER}", network_mode="none", read_only=True, cap_drop=["ALL"], remove=True,
        security_opt=["no-new-privileges:true"], mem_limit="64m",
    ).decode().strip()  # fmt: skip
    return Routing(source=source, live=Slot(name) if name in [*Slot] else None, running=running)


def remove_strays(location: Location, known: Collection[str]) -> list[str]:
    """Remove the containers and networks of a stack whose ids are not known. Volumes stay: they may hold data.

    Returns:
        Their names.
    """
    labels = stack_labels(location.app, location.stack)
    wanted = {"label": [f"{name}={value}" for name, value in labels.items()]}
    here = connect(location.host)
    strays = [each for each in here.containers.list(all=True, filters=wanted) if each.id not in known]
    for container in strays:
        container.remove(force=True)
    alone = [each for each in here.networks.list(filters=wanted) if each.id not in known]
    for network in alone:
        network.remove()
    return sorted(str(each.name) for each in (*strays, *alone))


def run_again(location: Location, name: str) -> None:
    """Run a one-shot that has ended once more, to its end."""
    container = connect(location.host).containers.get(name)
    container.start()
    container.wait(timeout=60)


def ready(location: Location) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (slot or "", tier) → how many of its containers are healthy, and how many there are."""
    labels = stack_labels(location.app, location.stack) | {"tiers.role": "tier"}
    wanted = [f"{name}={value}" for name, value in labels.items()]
    counted: dict[tuple[str, str], tuple[int, int]] = {}
    for each in connect(location.host).containers.list(all=True, filters={"label": wanted}):
        key = (each.labels.get("tiers.slot", ""), each.labels["tiers.tier"])
        healthy, there = counted.get(key, (0, 0))
        counted[key] = (healthy + (each.health == "healthy"), there + 1)
    return counted


def execute(environment: Environment, labels: Mapping[str, str], command: Sequence[str], within: float = 60) -> str:
    """What a command prints in the first of the containers with these labels.

    Raises:
        RunError: none of them runs, or it ends with another code than 0.
    """
    wanted = [f"{name}={value}" for name, value in labels.items()]
    found = client(environment, within).containers.list(filters={"label": wanted})
    if not found:
        raise RunError("nothing runs there")
    code, said = found[0].exec_run(list(command))
    text = said.decode(errors="replace").strip()
    if code:
        raise RunError(f"`{' '.join(command)}` ended with exit code {code}: {text[-500:] or 'it printed nothing'}")
    return text


def tell(environment: Environment, labels: Mapping[str, str], command: Sequence[str], given: str, within: float) -> str:
    """As `execute`, of a command that reads a line."""
    api = client(environment, within)
    found = api.containers.list(filters={"label": [f"{name}={value}" for name, value in labels.items()]})
    if not found:
        raise RunError("nothing runs there")
    begun = api.api.exec_create(found[0].id, list(command), stdin=True)["Id"]
    connected: Any = api.api.exec_start(begun, socket=True)
    # Over TLS and ssh it is the connection itself.
    getattr(connected, "_sock", connected).sendall(f"{given}\n".encode())
    frames: Any = import_module("docker.utils.socket").frames_iter(connected, tty=False)
    text = b"".join(part for _, part in frames).decode(errors="replace").strip()
    if code := api.api.exec_inspect(begun)["ExitCode"]:
        raise RunError(f"`{' '.join(command)}` ended with exit code {code}: {text[-500:] or 'it printed nothing'}")
    return text


def lines(environment: Environment, labels: Mapping[str, str]) -> Iterator[Line]:
    """All that the containers with these labels have written, as far back as the engine keeps it."""
    wanted = [f"{name}={value}" for name, value in labels.items()]
    for each in client(environment, within=60).containers.list(all=True, filters={"label": wanted}):
        of = each.labels
        place = of.get("tiers.tier") or of["tiers.role"], of.get(LABEL_SLOT, ""), of.get(LABEL_RELEASE, "")
        for line in each.logs(timestamps=True).decode(errors="replace").splitlines():
            when, _, text = line.partition(" ")
            yield Line(when, *place, text)


def containers(environment: Environment, labels: Mapping[str, str], slot: str) -> list[Container]:
    """The containers with these labels that run, but for those of the other slot."""
    wanted = [f"{name}={value}" for name, value in labels.items()]
    return [
        Container(
            name=str(each.name),
            role=each.labels["tiers.role"],
            tier=each.labels.get("tiers.tier", ""),
            published=tuple(sorted(port for port, bound in each.ports.items() if bound)),
            addresses={
                name: f"{network['IPAddress']}/{network['IPPrefixLen']}"
                for name, network in each.attrs["NetworkSettings"]["Networks"].items()
                if network["IPAddress"]
            },
        )
        for each in client(environment).containers.list(filters={"label": wanted})
        if each.labels.get("tiers.slot", slot) == slot
    ]


def answering(
    environment: Environment, found: Collection[Container], ports: Mapping[str, int], outside: str
) -> set[str]:
    """Those that take a connection from this machine; network `outside` is left out, for this machine is on it.

    An engine on another machine has addresses that mean nothing here.
    """
    if urlsplit(address(environment)).scheme != "unix":
        return set()
    ways = [
        (each.name, where, ports[each.tier])
        for each in found
        if each.tier in ports
        for network, where in each.addresses.items()
        if network != outside
    ]
    return {name for name, where, port in ways if _takes(ip_interface(where), port)}


def _takes(where: IPv4Interface | IPv6Interface, port: int) -> bool:
    """Whether it takes a connection that begins on its own network.

    One that leaves this machine by another way was taken by somebody else: there are proxies that take them all.
    """
    try:
        with socket.create_connection((str(where.ip), port), timeout=1) as client:
            return ip_address(client.getsockname()[0]) in where.network
    except OSError:
        return False


def client(environment: Environment, within: float = 10) -> Any:
    """The engine's own client."""
    return connect(address(environment), within)


def connect(host: str, within: float = 10) -> Any:
    """Return a client of the engine at an address."""
    # Imported where it is needed: it costs every preview a tenth of a second otherwise.
    import docker

    return docker.DockerClient(base_url=host, use_ssh_client=True, timeout=within)


def inventory(location: Location) -> Inventory:
    """List what the engine has of a stack: four listings, none of which looks into a container.

    Containers, networks and volumes are found by the stack's labels. An image has none of them: all are listed.
    """
    labels = stack_labels(location.app, location.stack)
    wanted = {"label": [f"{name}={value}" for name, value in labels.items()]}
    api = connect(location.host, within=60).api
    found: list[dict[str, Any]] = api.containers(all=True, filters=wanted)
    networks: list[dict[str, Any]] = api.networks(filters=wanted)
    volumes: list[dict[str, Any]] = api.volumes(filters=wanted)["Volumes"] or []
    images: list[dict[str, Any]] = api.images()
    return Inventory(
        keys=frozenset(
            [
                *(f"container {each['Id']}" for each in found),
                *(f"network {each['Id']}" for each in networks),
                *(f"volume {each['Name']}" for each in volumes),
                *(f"image {each['Id']}" for each in images),
            ]
        ),
        stopped={f"container {each['Id']}": each["State"] for each in found if each["State"] not in _RUNNING},
        unhealthy={
            f"container {each['Id']}": each["Status"]
            for each in found
            if each["State"] in _RUNNING and ("(unhealthy)" in each["Status"] or each["State"] == "restarting")
        },
    )


def confirm(location: Location, keys: Iterable[str]) -> frozenset[str]:
    """Return those of `keys` that the engine has though no listing named them: a volume of an older release has no labels."""
    from docker.errors import NotFound

    here, found = connect(location.host).api, set[str]()
    inspect = {
        "container": here.inspect_container,
        "network": here.inspect_network,
        "volume": here.inspect_volume,
        "image": here.inspect_image,
    }
    for key in keys:
        kind, _, identity = key.partition(" ")
        with suppress(NotFound):
            inspect[kind](identity)
            found.add(key)
    return frozenset(found)


_RUNNING = ("running", "restarting", "removing")
"""States of a container, in the engine's words, in which nobody has to start it."""


def absent_images(environment: Environment, images: Collection[str]) -> list[str]:
    """Return those of these image ids that the engine does not have. One that does not answer says so when it is needed."""
    from docker.errors import DockerException

    try:
        there = {each["Id"] for each in client(environment).api.images()}
    except DockerException:
        return []
    return sorted(set(images) - there)


def start(location: Location, ids: Sequence[str]) -> dict[str, str]:
    """Start containers one after the other, and remove those that the engine can't start.

    Returns:
        The id of each removed container, and the engine's reason.
    """
    from docker.errors import APIError

    failed: dict[str, str] = {}
    here = connect(location.host, within=60)
    for identity in ids:
        try:
            container = here.containers.get(identity)
            container.unpause() if container.status == "paused" else container.start()
        except APIError as error:
            failed[identity] = str(error.explanation or error)
            with suppress(APIError):
                here.api.remove_container(identity, force=True)
    return failed


def wait_healthy(location: Location, ids: Sequence[str], within: float) -> dict[str, str]:
    """Wait until containers are healthy, or run if they have no health check.

    Returns:
        The name of each container that is not after `within` seconds, and its state.
    """
    here = connect(location.host, within=60)
    deadline = time.monotonic() + within
    while True:
        states = [here.api.inspect_container(identity) for identity in ids]
        ill = {str(each["Name"]).lstrip("/"): state for each in states if (state := _illness(each["State"]))}
        if not ill or time.monotonic() > deadline:
            return ill
        time.sleep(0.5)


def _illness(state: Mapping[str, Any]) -> str:
    """Return the state of a container in a word if it does not serve, else nothing."""
    if not state["Running"]:
        return str(state["Status"])
    health = str(state["Health"]["Status"]) if state.get("Health") else "healthy"
    return "" if health == "healthy" else health


def _last_words(environment: Environment, container: str) -> str:
    from docker.errors import DockerException

    from .docker import plain_log

    try:
        found = client(environment).containers.get(container)
        state = found.attrs["State"]
        log = found.logs(tail=20).decode(errors="replace")
    except DockerException as error:
        return f"Its log could not be read: {error}"
    told = f"It is {state['Status']}, exit code {state['ExitCode']}, out of memory: {'yes' if state['OOMKilled'] else 'no'}."
    return f"{told} Its last lines:\n{plain_log(log)}"
