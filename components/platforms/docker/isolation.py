"""Check of network isolation, based on the ports and networks of containers. All functions are pure.

Only the gateway and Prometheus may publish ports. A tier may connect only to the tiers in its `needs`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ...config import App


@dataclass(frozen=True, kw_only=True)
class Container:
    """Container of a stack with its ports and networks."""

    name: str
    role: str
    tier: str
    published: tuple[str, ...]
    """Ports of the container that are published on the engine's host."""
    addresses: Mapping[str, str]
    """Address of the container in each network, with the prefix length, such as 172.20.0.3/16."""


def unexpected_routes(app: App, containers: Sequence[Container], answering: Collection[str]) -> Iterator[str]:
    """Yield a description of each network route that is open but forbidden.

    Args:
        app: the application.
        containers: containers of the stack.
        answering: names of containers that accepted a connection from this machine, on a network other than `outside`.
    """
    for container in containers:
        if container.role not in ("gateway", "watch") and container.published:
            yield f"{container.name} publishes a port that must stay closed: {', '.join(container.published)}"
        if container.name in answering:
            yield f"{container.name} accepts connections from this machine, but must not"
    names = {record.name for record in app.catalogue.data}
    data = [container for container in containers if container.tier in names]
    for container, other in product(containers, data):
        service = app.slot_services.get(container.tier)
        # All data services share a network, so a tier that needs one of them can connect to all (docs/adr/003-networks.md).
        if service and not names & set(service.needs) and (shared := container.addresses.keys() & other.addresses):
            yield f"{container.name} can connect to {other.name} through network {', '.join(sorted(shared))}, but must not"
