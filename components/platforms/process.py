"""Container processes on both platforms: command, user, limits, environment variables, ports and toolbox program."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from ..config import App
from ..model import services
from ..model.names import secret_variable
from ..model.workload import SCRATCH, Probe, Resources, Secret, Task, Workload
from .base import SlotTarget

SMALL = Resources(cpu=0.5, memory=64 * 2**20, reserve=0.01)
"""Limits of processes that need few resources, such as the programs of toolbox.py."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """Process of a container: its command, its user, its limits and its writable folders.

    Example:
        process = Process(command=("true",), user=10001)
    """

    command: tuple[str, ...]
    """Command and arguments; empty for the image's command."""
    user: int
    """UID and GID of the process."""
    resources: Resources = SMALL
    """Processor and memory limits."""
    writable: tuple[str, ...] = ("/tmp",)
    """Writable paths in memory. All other paths of the container, except volumes, are read-only."""
    scratch: int = SCRATCH
    """Size of each `writable` path, in bytes."""

    @classmethod
    def from_workload(cls, workload: Workload) -> "Process":
        """Return the process that a workload keeps running."""
        return cls(
            command=workload.command,
            user=workload.user,
            resources=workload.resources,
            writable=workload.writable,
            scratch=workload.scratch,
        )


@cache
def toolbox_program() -> str:
    """Return the text of toolbox.py. Containers run this program to wait for a service, to run the smoke test, and to move traffic.

    Any change of the text changes these containers, because the text is an argument of their command.
    """
    return Path(__file__).with_name("toolbox.py").read_text()


def toolbox_process(user: int, *words: str) -> Process:
    """Return the process that runs a command of toolbox.py. `words` are the command and its arguments."""
    return Process(command=("python3", "-c", toolbox_program(), *words), user=user)


def variables(
    workload: Workload, target: SlotTarget | None, ports: Mapping[str, int], task: Task | None = None
) -> dict[str, str]:
    """Return the environment variables of a workload or of one of its tasks.

    The variables are the workload's settings and the paths of its secret files. A workload in a slot also gets RELEASE, SLOT and
    the URL of each service that it needs.

    Args:
        workload: the workload.
        target: slot and release of the workload; None for a workload that both slots share.
        ports: ports of the services in slots, by the service's name. Services without a port are absent.
        task: the task; None for the workload itself.
    """
    values = dict(workload.env)
    values |= {secret_variable(secret.name): secret.path for secret in workload.secrets}
    if target:
        values |= {"RELEASE": str(target.release), "SLOT": target.slot}
        values |= {f"{services.prefix(name)}_URL": url for name, url in service_urls(workload, target, ports).items()}
    values |= dict(task.env if task else ())
    return dict(sorted(values.items()))


def service_urls(workload: Workload, target: SlotTarget | None, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the URLs of the services that a workload needs and that run in its slot, by name. The arguments are those of `variables`."""
    if not target:
        return {}
    return {name: f"http://{name}-{target.slot}:{ports[name]}" for name in workload.needs if name in ports}


def secret_variables(workload: Workload, task: Task | None = None) -> dict[str, Secret]:
    """Return the secrets in environment variables of a workload or of one of its tasks, by the variable's name."""
    return dict(workload.secret_env) | dict(task.secret_env if task else ())


def probe_headers(probe: Probe, url: str) -> dict[str, str]:
    """Return the headers of a health check's request. They are those of a user's request through the gateway.

    Many frameworks refuse other hosts (Django's ALLOWED_HOSTS, Rails' config.hosts) or redirect requests without TLS.

    Args:
        probe: the health check.
        url: address that users open.
    """
    address = urlsplit(url)
    return {"Host": probe.host or address.netloc, "X-Forwarded-Proto": address.scheme}


def listening_ports(app: App) -> dict[str, int]:
    """Return the port of each tier that accepts connections: name of the tier → port."""
    return app.ports | {record.name: record.port for record in app.catalogue.data if record.port}
