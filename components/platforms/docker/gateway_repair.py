"""Repair of the gateway's configuration file before an update. With an invalid file the gateway can't restart.

An update checks a new configuration before it installs the file (docs/adr/024). The installed file can still be invalid:
an older version of the program wrote the file without a check, the volume was lost, or somebody edited the file. The
repair writes a new file with the routes that the state has for each slot.
"""

import io
import tarfile
from collections.abc import Callable
from typing import Any

from pulumi import RunError

from ...config import Environment
from ...release.checkpoint import Checkpoint, observe
from ..base import Location
from ..process import toolbox_program
from . import client, haproxy


def repair(location: Location, environment: Environment, read_checkpoint: Callable[[], Checkpoint]) -> bool:
    """Write a new configuration if the gateway can't start with the installed one, and restart a stopped gateway.

    Returns:
        True if the configuration was rewritten.

    Raises:
        RunError: the engine does not answer, or the gateway does not accept the configuration.
    """
    try:
        engine_client = client.connect(location.host, within=float(haproxy.CLAIM_WITHIN) + 30)
        return _repair(engine_client, f"{location.instance}-gateway", environment, read_checkpoint)
    except client.sdk().errors.DockerException as error:
        raise RunError(str(error)) from error


def _repair(engine_client: Any, name: str, environment: Environment, read_checkpoint: Callable[[], Checkpoint]) -> bool:
    container = _container(engine_client, name)
    if container is None and not _has_volume(engine_client, name):
        return False  # Repair nothing, because the update creates the container and the volume.
    image, running = environment.gateway.image, container if container and container.status == "running" else None
    try:
        can_start = _can_start(engine_client, name, image, running)
    except client.sdk().errors.APIError:
        # The container ended during the check, as a gateway with an invalid configuration does.
        running, can_start = None, _can_start(engine_client, name, image, None)
    if can_start:
        return False
    observed = observe(read_checkpoint())
    if not observed.live or observed.live not in observed.slots:
        return False
    live, standby = observed.slots[observed.live].release, observed.standby
    slots = {observed.live: live.routes, observed.live.other: standby.release.routes if standby else live.routes}
    text = haproxy.stack_configuration(slots, environment)
    if running is None:
        _run(engine_client, name, environment.toolbox, *_tool("restore", haproxy.FOLDER, text))
        if container is None:
            return True  # The update creates the container.
        container.restart()
    # Write the map of releases too, because a lost volume contained both the configuration and the map.
    releases = [
        (str(slot), str(slot_state.release))
        for slot, slot_state in observed.slots.items()
        if slot is observed.live or slot_state.proven
    ]
    for key, value in [*releases, ("live", str(observed.live))]:
        _run(
            engine_client,
            name,
            environment.toolbox,
            *_tool("route", haproxy.FOLDER, haproxy.CLAIM_WITHIN, key, value, text),
        )
    return True


def _can_start(engine_client: Any, name: str, image: str, running: Any | None) -> bool:
    """Return True if the gateway can start with its configuration file.

    If a running gateway has the initial file of a new volume, return False. This file is valid, but has no routes.
    """
    command = ["haproxy", "-c", "-f", haproxy.FILE]
    if running is not None:
        return running.exec_run(command).exit_code == 0 and _file(running) != haproxy.FIRST
    try:
        _run(engine_client, name, image, *command)
    except client.sdk().errors.ContainerError:
        return False
    return True


def _file(container: Any) -> str:
    parts, _ = container.get_archive(haproxy.FILE)
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read().decode(errors="replace") if file else ""


def _container(engine_client: Any, name: str) -> Any | None:
    try:
        return engine_client.containers.get(name)
    except client.sdk().errors.NotFound:
        return None


def _has_volume(engine_client: Any, name: str) -> bool:
    try:
        engine_client.volumes.get(name)
    except client.sdk().errors.NotFound:
        return False
    return True


def _tool(*words: str) -> list[str]:
    return ["python3", "-c", toolbox_program(), *words]


def _run(engine_client: Any, name: str, image: str, *command: str) -> None:
    """Run a command in a new container with the gateway's volume, and wait for its end."""
    engine_client.containers.run(
        image,
        list(command),
        remove=True,
        user=f"{haproxy.USER}:{haproxy.USER}",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        volumes={name: {"bind": haproxy.FOLDER, "mode": "rw"}},
    )
