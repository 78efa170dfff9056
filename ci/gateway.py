"""Repair of a Docker gateway's configuration, before an update: a gateway that restarts must find a file it can start with.

Claims put only checked configurations in place (docs/adr/024). An older program did not check them, a volume may be lost, and
somebody may have written the file by hand: then the routes of the slots that the state has are written anew.
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
    """Repair the gateway of a stack. What can't be read or reached is the update's to explain."""
    try:
        app, environment = load(stack)
    except ConfigError:
        return
    try:
        mend(app, environment, stack, lambda: parse(state(stack)))
    except DockerException as error:
        print(f"  the gateway's configuration could not be repaired: {error}", file=sys.stderr)


def mend(app: App, environment: Environment, stack: str, read: Callable[[], Checkpoint]) -> bool:
    """Write the gateway's configuration anew if the gateway can't start with it, and start the gateway if it does not run.

    Args:
        read: the stack's checkpoint; it is read only if there is something to repair.

    Returns:
        True if something was repaired.

    Raises:
        DockerException: the engine does not answer, or the gateway does not take the configuration.
    """
    if environment.kubernetes:
        return False
    here, name = engine.client(environment, within=float(CLAIM_WITHIN) + 30), f"{app.name}-{stack}-gateway"
    try:
        container = here.containers.get(name)
    except NotFound:
        container = None
    if container is None and not _has_volume(here, name):
        return False  # The update makes both.
    image, running = environment.gateway.image, container if container and container.status == "running" else None
    try:
        can_start = _can_start(here, name, image, running)
    except APIError:
        # It ended meanwhile, as one does that can't start.
        running, can_start = None, _can_start(here, name, image, None)
    if can_start:
        return False
    known = observe(read())
    if not known.live or known.live not in known.held:
        return False
    live, standby = known.held[known.live].release, known.standby
    slots = {known.live: live.routes, known.live.other: standby.release.routes if standby else live.routes}
    text = haproxy.of_stack(slots, environment)
    if running is None:
        _run(here, name, environment.toolbox, *_tool("restore", haproxy.FOLDER, text))
        if container is None:
            return True  # The update makes it.
        container.restart()
    # A volume that was lost has lost its map, too.
    releases = [
        (str(slot), str(held.release)) for slot, held in known.held.items() if slot is known.live or held.proven
    ]
    for key, value in [*releases, ("live", str(known.live))]:
        _run(here, name, environment.toolbox, *_tool("route", haproxy.FOLDER, CLAIM_WITHIN, key, value, text))
    print(f"  wrote the configuration of {name} anew: it could not start with the one it had")
    return True


def _can_start(here: Any, name: str, image: str, running: Any | None) -> bool:
    """Tell if the gateway can start with its file, and would lead to slots."""
    command = ["haproxy", "-c", "-f", haproxy.FILE]
    if running is not None:
        return running.exec_run(command).exit_code == 0 and _file(running) != haproxy.FIRST
    try:
        _run(here, name, image, *command)
    except ContainerError:
        return False
    return True


def _file(container: Any) -> str:
    parts, _ = container.get_archive(haproxy.FILE)
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read().decode(errors="replace") if file else ""


def _has_volume(here: Any, name: str) -> bool:
    try:
        here.volumes.get(name)
    except NotFound:
        return False
    return True


def _tool(*words: str) -> list[str]:
    return ["python3", "-c", TOOLBOX, *words]


def _run(here: Any, name: str, image: str, *command: str) -> None:
    """Run a command to its end in the gateway's volume."""
    here.containers.run(
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
