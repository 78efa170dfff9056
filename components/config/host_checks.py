"""Check the hosts of services with a host of their own: refuse hosts that are invalid, or that mean something else already."""

from collections.abc import Iterator

from . import explain, grammar
from .app import App
from .environment import Environment
from .grammar import RefusalError
from .hosts import includes


def host_errors(app: App, environment: Environment) -> Iterator[str]:
    """Yield an error for each host in `environment.hosts` that no service has, and for each host that can't route requests."""
    owners: dict[str, str] = {}
    hosts = environment.own_hosts(app)
    for name in environment.hosts:
        if name not in hosts:
            known = f"{explain.write_one_of([*hosts], name)}, or remove it" if hosts else "remove it"
            yield f"environment.hosts.{name}: no service has the host {name}; {known}"
    for name, host in hosts.items():
        path = f"environment.hosts.{name}"
        try:
            grammar.exact_host(host)
        except RefusalError as refusal:
            yield f"{path}: the default is not valid: {refusal}"
        for shared in _application_hosts(environment):
            if includes(shared, host):
                yield f"{path}: {host} is a host of the whole application ({shared}); use another host for the services with `host: {name}`"
        if (owner := owners.setdefault(host, name)) != name:
            yield f"{path}: {owner} has the host {host}, too; use another host, or set the same `host` for the services of both"


def _application_hosts(environment: Environment) -> tuple[str, ...]:
    """Return the hosts at which users open the application itself. They may begin with `*.`."""
    cluster = environment.kubernetes
    return (cluster.host, *cluster.hostnames) if cluster else ("localhost",)
