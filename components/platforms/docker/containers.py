"""Arguments of containers: limits, hardening, health checks. All functions are pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi_docker as docker
from pulumi import Input

from ...model.workload import Probe, Workload
from ..process import Process
from .cpus import format_cpus

_PROBE = """\
if command -v curl >/dev/null; then exec curl -fsS -o /dev/null -m 5 {url}
elif command -v wget >/dev/null; then exec wget -q -T 5 -O /dev/null {url}
elif command -v bash >/dev/null; then exec bash -c '
  exec 3<>/dev/tcp/127.0.0.1/{port} && printf "GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n" >&3 &&
  read -r _ code _ <&3 && [ "$code" = 200 ]'
elif command -v node >/dev/null; then exec node -e 'fetch("{url}").then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))'
else exec python3 -c 'import urllib.request; urllib.request.urlopen("{url}", timeout=5)'; fi"""


def healthcheck_command(probe: Probe) -> list[str]:
    """Return the command of a health check: the probe's own command, or an HTTP request.

    The request uses the first HTTP client that the container has.
    """
    if probe.command:
        return ["CMD", *probe.command]
    url = f"http://127.0.0.1:{probe.port}{probe.path}"
    # Escape `%`, because bash's `printf` would read a code such as %20 as a format.
    return ["CMD-SHELL", _PROBE.format(url=url, port=probe.port, path=probe.path.replace("%", "%%"))]


def duration(seconds: float) -> str:
    """Return a duration in the engine's format, such as `1m30s`. In any other format `pulumi refresh` would show a change."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def healthcheck(workload: Workload, command: Sequence[str]) -> docker.ContainerHealthcheckArgs:
    """Return a container's health check, which runs `command` every second."""
    return docker.ContainerHealthcheckArgs(
        tests=list(command),
        interval="1s",
        timeout="6s",
        start_period=duration(workload.start_within),
        retries=5,
    )


def inputs_of(args: docker.ContainerArgs) -> dict[str, Input[Any]]:
    """Return the arguments of a container as the inputs of its resource, by the provider's names, such as `memorySwap`."""
    return {
        re.sub("_([a-z])", lambda letter: letter[1].upper(), name): value
        for name, value in vars(args).items()
        if value is not None
    }


def label_inputs(labels: Mapping[str, str]) -> list[Any]:
    """Return labels as an input of a container's resource: as mappings, as they are in a checkpoint."""
    return [{"label": label, "value": value} for label, value in sorted(labels.items())]


def prevent_start(args: docker.ContainerArgs, *, uploads: bool = False) -> None:
    """Change the arguments of a container that only fills the volumes that it mounts: it is created, but never starts.

    Args:
        args: arguments of the container.
        uploads: True if files are copied into the container. The engine refuses this if the root is read-only, even if the files go into a
            volume.
    """
    args.start, args.must_run, args.restart, args.network_mode = False, False, "no", "none"
    args.read_only = not uploads


def hardened_args(name: str, image: Input[str], labels: Mapping[str, str], process: Process) -> docker.ContainerArgs:
    """Return the arguments of a hardened container: read-only root, no capabilities, memory and processor limits."""
    megabytes, room = max(process.resources.memory // 2**20, 6), max(process.scratch // 2**20, 1)
    user, options = process.user, "rw,noexec,nosuid,nodev"
    return docker.ContainerArgs(
        name=name,
        image=image,
        command=list(process.command) or None,
        user=f"{user}:{user}",
        read_only=True,
        # Set the owner too, because the mode alone is not enough: if the image has this folder, runc uses the image's mode.
        tmpfs=dict.fromkeys(sorted(process.writable), f"{options},size={room}m,mode=1777,uid={user},gid={user}"),
        security_opts=["no-new-privileges:true"],
        capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
        cpus=format_cpus(process.resources.cpu),
        memory=megabytes,
        memory_swap=megabytes,
        restart="unless-stopped",
        log_driver="json-file",
        log_opts={"max-size": "10m", "max-file": "3"},
        network_mode="bridge",
        labels=label_inputs(labels),
    )
