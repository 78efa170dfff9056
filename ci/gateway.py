"""Repair of a Docker gateway's configuration, before an update: a gateway that restarts must find a file it can start with.

Claims put only checked configurations in place (docs/adr/024). An older program did not check them, a volume may be lost, and
somebody may have written the file by hand: then the routes of the slots that the state has are written anew.
"""

import io
import tarfile
from typing import Any

from docker.errors import ContainerError, NotFound

from components.checkpoint import Checkpoint, Entry, observe
from components.config import App, Environment
from components.platforms import engine, haproxy
from components.platforms.docker import CLAIM_WITHIN, GATEWAY_USER, TOOLBOX


def mend(app: App, environment: Environment, stack: str, known: Checkpoint) -> bool:
    """Write the gateway's configuration anew if the gateway can't start with it, and start the gateway if it does not run.

    Returns:
        True if something was mended.

    Raises:
        RunError: the engine does not answer.
        ContainerError: the gateway does not take the configuration.
    """
    observed = observe(known)
    if environment.kubernetes or not observed.live or observed.live not in observed.held:
        return False
    here, name = engine.client(environment, within=float(CLAIM_WITHIN) + 30), f"{app.name}-{stack}-gateway"
    try:
        container = here.containers.get(name)
    except NotFound:
        return False  # The update makes it.
    text = _configuration(container)
    if text in {claim for entry in known.entries if (claim := claimed(entry))} or _starts_with(here, container, text):
        return False
    live = observed.held[observed.live].release
    standby = observed.standby
    slots = {observed.live: live.routes, observed.live.other: standby.release.routes if standby else live.routes}
    wanted = haproxy.of_stack(slots, environment)
    if container.status == "running":
        words = ["route", haproxy.FOLDER, CLAIM_WITHIN, str(observed.live), str(live), wanted]
        _run(here, name, environment.toolbox, ["python3", "-c", TOOLBOX, *words])
    else:
        _run(here, name, environment.toolbox, ["python3", "-c", TOOLBOX, "restore", haproxy.FOLDER, wanted])
        container.restart()
    print(f"  wrote the configuration of {name} anew: it could not start with the one it had")
    return True


def claimed(entry: Entry) -> str | None:
    """Return the configuration that a claim has put in place, or None if `entry` is no claim that has."""
    words: list[str] = entry.inputs.get("command") or []
    if entry.role != "claim" or entry.failed or "route" not in words:
        return None
    given = words[words.index("route") :]
    return given[5] if len(given) > 5 else None


def _configuration(container: Any) -> str:
    """Read the gateway's haproxy.cfg, of a container that runs or not."""
    try:
        parts, _ = container.get_archive(haproxy.FILE)
    except NotFound:
        return ""
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        return file.read().decode(errors="replace") if file else ""


def _starts_with(here: Any, container: Any, text: str) -> bool:
    """Tell if the gateway's image accepts the file that it would start with, and that leads to slots."""
    if text in ("", haproxy.FIRST):
        return False
    command = ["haproxy", "-c", "-f", haproxy.FILE]
    if container.status == "running":
        return container.exec_run(command).exit_code == 0
    try:
        _run(here, str(container.name), container.attrs["Image"], command)
    except ContainerError:
        return False
    return True


def _run(here: Any, name: str, image: str, command: list[str]) -> None:
    """Run a command to its end in the gateway's volume."""
    here.containers.run(
        image,
        command,
        remove=True,
        user=f"{GATEWAY_USER}:{GATEWAY_USER}",
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        volumes={name: {"bind": haproxy.FOLDER, "mode": "rw"}},
    )
