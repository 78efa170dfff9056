"""Conversion of ports and health checks: the port of each service, its health path, and the ports of the gateway."""

from components.model.services import API, WEB

from .compose_service import ComposeService, Plain
from .project import Project

PORTS = {WEB.name: 8080, API.name: 8000}
"""Default port of each tier, for services with an unknown port or with a port that requires root."""


def convert_port(project: Project, service: ComposeService, tier: str, home: str) -> int:
    """Return the port on which a service listens. `home` is the config path of the service, for notes."""
    for published, target in service.ports[1:]:
        project.notes.add_unconverted(
            f"{service.path}.ports",
            f"{published or target} is not used, because a tier listens on one port; use the first port",
        )
    if service.port is None:
        project.notes.add_assumption(service.path, f"its port is unknown; {home}.port is {PORTS[tier]}")
    elif service.port < 1024:
        project.notes.add_unconverted(
            f"{service.path}.ports",
            f"only root may listen on {service.port}; let the service listen on {PORTS[tier]}, which is {home}.port now",
        )
    else:
        return service.port
    return PORTS[tier]


def convert_health(project: Project, service: ComposeService, tier: str, home: str) -> Plain:
    """Return the health check of a service. `home` is the config path of the service, for notes."""
    if tier not in PORTS:
        return {"alive": service.healthcheck} if service.healthcheck else {}
    if service.health_url:
        return {"health": service.health_url[2] or "/"}
    reason = "its healthcheck has no URL" if service.healthcheck else "it has no healthcheck"
    path = "/" if tier == WEB.name else "/health"
    project.notes.add_assumption(
        f"{service.path}.healthcheck", f"{reason}, so {home}.health is {path}; set a path that answers with 200"
    )
    return {"health": path}


def note_conflicting_port(project: Project, service: ComposeService, part: Plain) -> None:
    """Add a note if the value of the variable PORT differs from `port` of the converted service."""
    port = service.env.get("PORT")
    if port and port.isdecimal() and "port" in part and int(port) != part["port"]:
        project.notes.add_unconverted(
            f"{service.path}.environment.PORT",
            f"it is {port}, but `port` is {part['port']}; let both have the port that the service listens on",
        )


def convert_gateway(project: Project) -> Plain:
    """Return the settings of the gateway. It publishes the host ports that proxy, web and api have in the Compose file."""
    published = {tier: project.roles.tiers[tier].published for tier in PORTS if tier in project.roles.tiers}
    api = published.get(API.name)
    proxy_port = next((proxy.published for proxy in project.roles.proxies if proxy.published), None)
    port = proxy_port or published.get(WEB.name) or api
    if not port:
        return {}
    project.notes.add_assumption(
        "environment.gateway", "it listens on 127.0.0.1; set `address: 0.0.0.0` to open it to the network"
    )
    return {"port": port} | ({"ports": {API.name: api}} if api and api != port else {})
