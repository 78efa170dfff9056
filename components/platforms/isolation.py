"""Check of network isolation: pure functions over the objects that an engine or a cluster reports.

Allowed are routes through the gateway and, between tiers, those of the tier graph.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from ..checkpoint import LABEL_SLOT
from ..config import App, Listening, Service
from ..tier import DATA_PORTS
from .engine import Container
from .reachability import Network, Pod


def ports(app: App) -> dict[str, int]:
    """Return tier → the port it listens on, of tiers that listen."""
    listening = {str(tier): service.port for tier, service in app.services.items() if isinstance(service, Listening)}
    return listening | {str(tier): port for tier, port in DATA_PORTS.items()}


def of_engine(app: App, containers: Sequence[Container], answering: Collection[str]) -> Iterator[str]:
    """Yield the containers that are reachable but should not be.

    `answering` are containers that accepted a connection from this machine on a closed network.
    """
    for container in containers:
        if container.role not in ("gateway", "watch") and container.published:
            yield f"{container.name} publishes {', '.join(container.published)}"
        if container.name in answering:
            yield f"{container.name} takes connections from this machine"
    data = [container for container in containers if container.tier in list(DATA_PORTS)]
    for container, other in product(containers, data):
        service = _service(app, container.tier)
        # A tier that needs one data tier is on the network of all of them (docs/adr/003-networks.md).
        if (
            service
            and not DATA_PORTS.keys() & set(service.needs)
            and (shared := container.addresses.keys() & other.addresses)
        ):
            yield f"{container.name} can reach {other.name}, by network {', '.join(sorted(shared))}"


def of_cluster(app: App, objects: Mapping[str, Sequence[Mapping[str, Any]]], namespace: str) -> Iterator[str]:
    """Yield the objects of a namespace, by kind, that open a route which should not exist."""
    for service in objects["Service"]:
        if service["spec"].get("type") != "ClusterIP" or service["spec"].get("externalIPs"):
            yield f"Service {service['metadata']['name']} is open to the outside ({service['spec'].get('type')})"
    for route in objects["HTTPRoute"]:
        backends = {to["name"] for rule in route["spec"].get("rules") or () for to in rule.get("backendRefs") or ()}
        if wrong := sorted(name for name in backends if name.rpartition("-")[0] not in ("web", "api")):
            yield f"HTTPRoute {route['metadata']['name']} leads to {', '.join(wrong)}"
    network = Network(namespace, objects["NetworkPolicy"])
    pods: dict[str, Pod] = {pod["metadata"]["name"]: (namespace, pod["metadata"]["labels"]) for pod in objects["Pod"]}
    strangers: dict[str, Pod] = {"a pod of another namespace": ("elsewhere", {}), "a pod of no tier": (namespace, {})}
    for (one, source), (other, target) in product((pods | strangers).items(), pods.items()):
        port = ports(app).get(_tier(target))
        if one != other and port and not _needs(app, source, target) and network.reaches(source, target, port):
            yield f"{one} may connect to {other}"


def _tier(pod: Pod) -> str:
    return pod[1].get("app.kubernetes.io/component", "")


def _needs(app: App, source: Pod, target: Pod) -> bool:
    if _tier(source) == _tier(target) in list(DATA_PORTS):  # Members of a replicated data tier connect to each other.
        return True
    if (_tier(source), _tier(target)) == ("backup", "database"):
        return True
    service, slot = _service(app, _tier(source)), target[1].get(LABEL_SLOT)
    return service is not None and _tier(target) in service.needs and slot in (None, source[1].get(LABEL_SLOT))


def _service(app: App, tier: str) -> Service | None:
    return next((service for name, service in app.services.items() if name == tier), None)
