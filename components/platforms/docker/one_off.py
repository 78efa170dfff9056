"""Containers that run one command of a service: settings, creation and removal."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from secrets import token_hex
from typing import Any

from pulumi import RunError

from ...model.names import LABEL_RELEASE, LABEL_ROLE
from ..base import ONCE_WITHIN, STOP_WITHIN, OneOff
from .client import connect, sdk

_COPIED = ("Entrypoint", "Env", "User", "WorkingDir")
"""Settings of a service's container that the new container gets unchanged. All settings of the host, such as limits and volumes, are also copied."""


def settings(attributes: Mapping[str, Any], command: Sequence[str], *, terminal: bool) -> dict[str, Any]:
    """Return the settings of a new container that runs one command. They are those of a service's container, except for the command.

    The entrypoint stays, as in tasks. It includes the program that exports the variables with secrets. The container has no health
    check and publishes no port, and the engine removes it when the command ends.

    Args:
        attributes: attributes of the service's container, as `docker inspect` prints them.
        command: the command, with arguments.
        terminal: True to give the command a terminal.
    """
    copied, networks = attributes["Config"], networks_of(attributes)
    host = {
        **attributes["HostConfig"],
        "AutoRemove": True,
        "NetworkMode": networks[0],
        "PortBindings": {},
        "RestartPolicy": {"Name": "no"},
    }
    return {
        **{name: copied.get(name) for name in _COPIED},
        "AttachStderr": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "Cmd": list(command),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host,
        # Take the id of the image, because a tag may mean another image by now.
        "Image": attributes["Image"],
        "Labels": {**copied["Labels"], LABEL_ROLE: "run"},
        "OpenStdin": True,
        "StdinOnce": True,
        "Tty": terminal,
    }


def run_to_end(host: str, source: Any, command: Sequence[str], *, writable: str) -> tuple[int, str]:
    """Run a command with the settings of the container `source`. Return its exit code and output, and remove the container.

    Args:
        host: address of the engine.
        source: running container of a workload.
        command: the command, with arguments.
        writable: folder below which the container may write to the volumes that `source` mounts read-only.
    """
    api, attributes = connect(host, within=ONCE_WITHIN).api, source.attrs
    created = with_writable_volumes(settings(attributes, command, terminal=False), writable)
    # The log of a container that the engine removes at its end can't be read.
    created["HostConfig"] |= {"AutoRemove": False}
    identity = api.create_container_from_config(created, _run_name(source))["Id"]
    try:
        for network in networks_of(attributes)[1:]:
            api.connect_container_to_network(identity, network)
        api.start(identity)
        code = api.wait(identity)["StatusCode"]
        return code, api.logs(identity).decode(errors="replace").strip()
    finally:
        _remove(api, identity)


def with_writable_volumes(container: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return the settings of a container in which the volumes below a folder are writable."""
    host: Mapping[str, Any] = container["HostConfig"]
    binds = [
        bind.removesuffix(":ro") if bind.split(":")[1].startswith(f"{folder}/") else bind
        for bind in host.get("Binds") or ()
    ]
    return {**container, "HostConfig": {**host, "Binds": binds}}


def networks_of(attributes: Mapping[str, Any]) -> list[str]:
    """Return the names of a container's networks."""
    return sorted(attributes["NetworkSettings"]["Networks"])


@contextmanager
def created(host: str, source: Any, command: Sequence[str], *, terminal: bool) -> Generator[OneOff]:
    """Create a container with the settings of the container `source`, and remove it after the `with` block.

    The container joins the networks without the host name of the service, so no request of users reaches it.

    Args:
        host: address of the engine.
        source: running container of the service.
        command: the command, with arguments.
        terminal: True to give the command a terminal.
    """
    # Creation copies no file, but a busy engine answers slowly.
    api = connect(host, within=60).api
    name = _run_name(source)
    attributes = source.attrs
    identity = api.create_container_from_config(settings(attributes, command, terminal=terminal), name)["Id"]
    try:
        for network in networks_of(attributes)[1:]:
            api.connect_container_to_network(identity, network)
        yield OneOff(
            name=name,
            release=attributes["Config"]["Labels"].get(LABEL_RELEASE, ""),
            # The client attaches before it starts the container, so no output is lost.
            attach=["docker", "--host", host, "start", "--attach", "--interactive", name],
            exit_code=lambda code: _exit_code(api, identity, name, code),
        )
    finally:
        _remove(api, identity)


def _run_name(source: Any) -> str:
    return f"{source.name.rpartition('-')[0]}-run-{token_hex(3)}"


def _exit_code(api: Any, identity: str, name: str, code: int) -> int:
    """Return the exit code of the client, which is the exit code of the command unless the client ended first."""
    with suppress(sdk().errors.NotFound):
        if api.inspect_container(identity)["State"]["Status"] == "running":
            raise RunError(f"{name}: the client ended before the command, so the command was stopped; run it again")
    return code


def _remove(api: Any, identity: str) -> None:
    # The engine may remove the container at the same time (404), or may have begun to do so (409).
    with suppress(sdk().errors.APIError):
        api.stop(identity, timeout=STOP_WITHIN)
    with suppress(sdk().errors.APIError):
        api.remove_container(identity, v=True, force=True)
