"""Check an environment on Docker: refuse values that have no effect on Docker, or that a Docker engine can't apply."""

from collections.abc import Iterator

from ..model import services
from .app import App
from .environment import Environment
from .explain import alternatives


def engine_errors(app: App, environment: Environment) -> Iterator[str]:
    """Yield an error for each value that has no effect on Docker, or that a Docker engine can't apply."""
    monitoring, gateway = environment.monitoring, environment.gateway
    if monitoring and monitoring.port in gateway.published.values():
        yield f"environment.monitoring.port: the gateway has port {monitoring.port} too; use different ports"
    routed = [record.name for record in services.SERVICES if record.routed]
    for tier in environment.gateway.ports:
        if tier not in routed or tier not in app.names:
            yield f"environment.gateway.ports.{tier}: only {alternatives(routed)} of the application can have a port; remove `{tier}`"
    for tier, size in environment.tiers.items():
        for key in ("autoscale", "ha", "priority_class", "reserve", "single", "storage", "storage_class"):
            if key in size.model_fields_set:
                yield f"environment.tiers.{tier}.{key}: it has no effect on Docker; remove it"
        if size.replicas > 10:
            yield f"environment.tiers.{tier}.replicas: {size.replicas} replicas are too many for one Docker engine; use at most 10"
