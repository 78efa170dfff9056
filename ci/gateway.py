"""Repair of a Docker gateway's configuration before an update, so that a restarted gateway can start with it.

Claims install only checked configurations (docs/adr/024). Still the file can be invalid: an older program did not
check it, a volume may be lost, or a person may have edited it. Then the routes of the slots in the state are written
again.
"""

import io
import sys
import tarfile
from collections.abc import Callable
from typing import Any

from docker.errors import APIError, ContainerError, DockerException, NotFound

from components.checkpoint import Checkpoint, observe, parse
from components.config import App, ConfigError, Environment
from components.platforms import engine, haproxy
from components.platforms.docker import CLAIM_WITHIN, GATEWAY_USER, TOOLBOX

from .described import load, state


def main(stack: str) -> None:
    """Repair the gateway of a stack. Errors in reading or connecting are left for the update to report."""
    try:
        app, environment = load(stack)
    except ConfigError:
        return
    try:
        mend(app, environment, stack, lambda: parse(state(stack)))
    except DockerException as error:
        print(f"  the gateway's configuration could not be repaired: {error}", file=sys.stderr)


def mend(app: App, environment: Environment, stack: str, read: Callable[[], Checkpoint]) -> bool:
    """Write the gateway's configuration again if the gateway can't start with it, and start a stopped gateway.

    Args:
        read: returns the stack's checkpoint; called only if there is something to repair.

    Returns:
        True if something was repaired.

    Raises:
        DockerException: the engine does not answer, or the gateway does not accept the configuration.
    """
    if environment.kubernetes:
        return False
    engine_client, name = engine.client(environment, within=float(CLAIM_WITHIN) + 30), f"{app.name}-{stack}-gateway"
    try:
        container = engine_client.containers.get(name)
    except NotFound:
        container = None
    if container is None and not _has_volume(engine_client, name):
        return False  # The update creates both.
    image, running = environment.gateway.image, container if container and container.status == "running" else None
    try:
        can_start = _can_start(engine_client, name, image, running)
    except APIError:
        # The container ended meanwhile, as it does with a configuration that it can't start with.
        running, can_start = None, _can_start(engine_client, name, image, None)
    if can_start:
        return False
    observed = observe(read())
    if not observed.live or observed.live not in observed.held:
        return False
    live, standby = observed.held[observed.live].release, observed.standby
    slots = {observed.live: live.routes, observed.live.other: standby.release.routes if standby else live.routes}
    text = haproxy.of_stack(slots, environment)
    if running is None:
        _run(engine_client, name, environment.toolbox, *_tool("restore", haproxy.FOLDER, text))
        if container is None:
            return True  # The update creates it.
        container.restart()
    # A lost volume has lost the map file too.
    releases = [
        (str(slot), str(slot_state.release))
        for slot, slot_state in observed.held.items()
        if slot is observed.live or slot_state.proven
    ]
    for key, value in [*releases, ("live", str(observed.live))]:
        _run(engine_client, name, environment.toolbox, *_tool("route", haproxy.FOLDER, CLAIM_WITHIN, key, value, text))
    print(f"  rewrote the configuration of {name}, because it could not start with the former one")
    return True


def _can_start(engine_client: Any, name: str, image: str, running: Any | None) -> bool:
    """Tell whether the gateway can start with its file and whether the file routes to slots."""
    command = ["haproxy", "-c", "-f", haproxy.FILE]
    if running is not None:
        return running.exec_run(command).exit_code == 0 and _file(running) != haproxy.FIRST
    try:
        _run(engine_client, name, image, *command)
    except ContainerError:
        return False
    return True


def _file(container: Any) -> str:
    parts, _ = container.get_archive(haproxy.FILE)
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read().decode(errors="replace") if file else ""


def _has_volume(engine_client: Any, name: str) -> bool:
    try:
        engine_client.volumes.get(name)
    except NotFound:
        return False
    return True


def _tool(*words: str) -> list[str]:
    return ["python3", "-c", TOOLBOX, *words]


def _run(engine_client: Any, name: str, image: str, *command: str) -> None:
    """Run a command to its end in the gateway's volume."""
    engine_client.containers.run(
        image,
        list(command),
        remove=True,
        user=f"{GATEWAY_USER}:{GATEWAY_USER}",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        volumes={name: {"bind": haproxy.FOLDER, "mode": "rw"}},
    )
