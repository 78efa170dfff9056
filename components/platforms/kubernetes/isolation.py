"""Check of network isolation, based on the objects that a cluster reports. All functions are pure.

Users may connect only through the gateway. A tier may connect only to the tiers in its `needs`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from ...config import App
from ...model.names import LABEL_SLOT
from ..process import listening_ports
from .reachability import Network, Pod


def unexpected_routes(app: App, objects: Mapping[str, Sequence[Mapping[str, Any]]], namespace: str) -> Iterator[str]:
    """Yield a description of each forbidden network route that the objects of a namespace allow.

    Args:
        app: the application.
        objects: objects of the namespace, by kind.
        namespace: name of the namespace.
    """
    for service in objects["Service"]:
        if service["spec"].get("type") != "ClusterIP" or service["spec"].get("externalIPs"):
            yield f"Service {service['metadata']['name']} is open to the outside ({service['spec'].get('type')})"
    routed = {record.name for record in app.catalogue.routed}
    for route in objects["HTTPRoute"]:
        backends = {to["name"] for rule in route["spec"].get("rules") or () for to in rule.get("backendRefs") or ()}
        if wrong := sorted(name for name in backends if name.rpartition("-")[0] not in routed):
            yield f"HTTPRoute {route['metadata']['name']} leads to {', '.join(wrong)}"
    network = Network(namespace, objects["NetworkPolicy"])
    pods: dict[str, Pod] = {pod["metadata"]["name"]: (namespace, pod["metadata"]["labels"]) for pod in objects["Pod"]}
    strangers: dict[str, Pod] = {"a pod of another namespace": ("elsewhere", {}), "a pod of no tier": (namespace, {})}
    ports = listening_ports(app)
    for (one, source), (other, target) in product((pods | strangers).items(), pods.items()):
        port = ports.get(_tier(target))
        if one != other and port and not _needs(app, source, target) and network.reaches(source, target, port):
            yield f"{one} can connect to {other}, but must not"


def _tier(pod: Pod) -> str:
    return pod[1].get("app.kubernetes.io/component", "")


def _needs(app: App, source: Pod, target: Pod) -> bool:
    # Allow connections within a tier that both slots share, because members of a replicated service need them.
    if _tier(source) == _tier(target) and app.catalogue.is_shared(_tier(target)):
        return True
    if (_tier(source), _tier(target)) == ("backup", "database"):
        return True
    service, slot = app.slot_services.get(_tier(source)), target[1].get(LABEL_SLOT)
    return service is not None and _tier(target) in service.needs and slot in (None, source[1].get(LABEL_SLOT))
