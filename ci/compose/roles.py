"""Assignment of the services of a Compose file to tiers, by image, name, port and dependencies.

The first service of each tier gets the key of that tier (`app.worker`). Each other service of the application becomes a further
service of its tier (`app.services.NAME`).
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from components.model import names, services
from components.model.services import API, CACHE, DATABASE, WEB, WORKER, Catalogue, Kind, of_product

from .compose_service import ComposeService, Notes, as_name, listing

PROXIES = {"traefik", "caddy", "haproxy", "envoy", "nginx-proxy", "nginx-proxy-manager", "swag"}
_PROXY_WORDS = {"nginx", "proxy", "traefik", "caddy", "haproxy", "envoy", "edge", "ingress", "balancer", "lb"}
"""Words in the name of a service that is probably a proxy, if the service is built from a Dockerfile."""
_TOOLS = {
    "flower",
    "adminer",
    "pgadmin",
    "phpmyadmin",
    "mailhog",
    "mailpit",
    "maildev",
    "grafana",
    "prometheus",
    "portainer",
    "dozzle",
}
"""Words in the name or command of a tool for developers or operators, which is no part of the application."""
_OTHER_PRODUCTS = {
    "postgresql": DATABASE.name,
    "redis-stack-server": CACHE.name,
    "redis-stack": CACHE.name,
    "keydb": CACHE.name,
}
"""Image name → data service with the same protocol.

The default image of the data service replaces such an image, because the two images have different settings.
"""
_ONCE = {
    "migrate",
    "migration",
    "migrations",
    "seed",
    "seeder",
    "setup",
    "init",
    "initdb",
    "bootstrap",
    "collectstatic",
}
"""Words in the name or command of a service that runs once and ends."""
WORDS = {
    API.name: {"api", "backend", "back", "server", "rest", "graphql"},
    WORKER.name: {
        "worker",
        "workers",
        "queue",
        "celery",
        "job",
        "jobs",
        "beat",
        "scheduler",
        "consumer",
        "sidekiq",
    },
    WEB.name: {"web", "frontend", "front", "client", "ui", "www", "spa", "site", "app", "nginx"},
}
"""Tier → words that are usual in the names of its services."""
_PROXY = "the gateway replaces this proxy: app.api.paths lead to the api, all other paths to web; set its headers and TLS there"
_ALL_WORDS = set[str]().union(*WORDS.values())
_SCHEDULER = {"beat", "celerybeat", "scheduler", "clockwork"}
"""Words in the name or command of a process that starts jobs at their times."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Compose services by their role: services of the application, services that run once and end, and proxies."""

    tiers: dict[str, ComposeService]
    """Name in the new application (key of a tier, or name of a further service) → Compose service."""
    further: dict[str, str] = field(default_factory=dict[str, str])
    """Name of each further service (`app.services`) → its tier, such as `api`."""
    one_off: list[ComposeService] = field(default_factory=list[ComposeService])
    proxies: list[ComposeService] = field(default_factory=list[ComposeService])
    copies: dict[str, int] = field(default_factory=dict[str, int])
    """Name of a Compose service → number of equal Compose services, including itself. They become replicas of one service."""

    @property
    def catalogue(self) -> Catalogue:
        """Catalogue of the new application: all standard services, and the further services."""
        further = (
            services.further_service(name, tier, routed=tier != WORKER.name) for name, tier in self.further.items()
        )
        return Catalogue((*services.SERVICES, *further))

    @property
    def http(self) -> dict[str, ComposeService]:
        """Services in a slot that answer HTTP requests: name in the new application → Compose service."""
        return {
            record.name: self.tiers[record.name]
            for record in self.catalogue.records
            if record.kind is Kind.HTTP and record.name in self.tiers
        }

    def tier_of(self, name: str) -> str:
        """Return the tier of a service. `name` is the service's name in the new application."""
        return self.further.get(name, name)

    def path(self, name: str) -> str:
        """Return the configuration path of a service, such as `app.web`. `name` is the service's name in the new application."""
        return f"app.services.{name}" if name in self.further else f"app.{name}"

    def new_name(self, service: str) -> str | None:
        """Return the name of a Compose service in the new application, or None if it does not become a service."""
        return next((tier for tier, candidate in self.tiers.items() if candidate.name == service), None)


def assign_roles(all_services: Mapping[str, ComposeService], profiles: Collection[str], notes: Notes) -> Roles:
    """Assign each service to a tier or another role, and add notes with the reasons."""
    result = Roles(tiers={})
    candidates: list[ComposeService] = []
    for service in all_services.values():
        required_profiles = listing(service.raw, "profiles")
        data_tier = data_tier_of(service)
        if required_profiles and not set(required_profiles) & set(profiles):
            notes.add_unconverted(
                service.path,
                f"its profile {required_profiles[0]} is not selected; import with COMPOSE_PROFILES={required_profiles[0]} to include it",
            )
        elif data_tier and data_tier in result.tiers:
            notes.add_unconverted(
                service.path,
                f"the {data_tier} is already {result.tiers[data_tier].name}; run this service elsewhere, and set its address in env",
            )
        elif data_tier:
            result.tiers[data_tier] = service
            why = "its variables" if service.build else "its image"
            notes.add_assumption(service.path, f"it is the {data_tier}, because of {why}")
        elif service.product in PROXIES or _is_built_proxy(service, all_services):
            result.proxies.append(service)
        elif _TOOLS & {*service.words, *service.command}:
            notes.add_unconverted(
                service.path, "it looks like a tool, which is no part of the application; run it elsewhere"
            )
        elif _runs_once(service, all_services):
            result.one_off.append(service)
        else:
            candidates.append(service)
    app_services = [service for service in candidates if service.build or service.words & _ALL_WORDS]
    # If no service has a build folder or a usual name, only the first service with a published port belongs to the application.
    app_services = app_services or [service for service in candidates if service.published][:1]
    for service in candidates:
        if service not in app_services:
            notes.add_unconverted(
                service.path,
                "no tier fits it; run it elsewhere, set its address in env, and set egress: true on the services that connect to it",
            )
    _assign_slot_tiers(_merge_replicas(app_services, result, notes), all_services, result, notes)
    for proxy in result.proxies:
        notes.add_unconverted(proxy.path, _PROXY)
    return result


def _assign_slot_tiers(
    app_services: Sequence[ComposeService], all_services: Mapping[str, ComposeService], result: Roles, notes: Notes
) -> None:
    """Assign the application's own services to web, api and worker."""
    workers = [
        service for service in app_services if service.words & WORDS[WORKER.name] or _is_worker(service, app_services)
    ]
    listening = [service for service in app_services if service not in workers]
    if any(service.port for service in listening):
        for service in [
            entry for entry in listening if not (entry.port or entry.words & (WORDS[API.name] | WORDS[WEB.name]))
        ]:
            listening.remove(service)
            notes.add_unconverted(
                service.path,
                "no tier fits it, because its port is unknown and its name is not that of a worker; set `expose`, or rename it",
            )
    # An nginx from a public image is a proxy if other services listen on a port, too.
    result.proxies.extend(service for service in listening if service.product == "nginx" and len(listening) > 1)
    listening = [service for service in listening if service not in result.proxies]
    apis = [service for service in listening if service.words & WORDS[API.name]]
    if not apis and len(listening) > 1:
        # Among several candidates for web, a service that uses the database or cache is the api.
        apis = [service for service in listening if _uses_data(service, all_services)][:1]
    webs = [service for service in listening if service not in apis]
    for tier, candidates in ((API.name, apis), (WEB.name, webs), (WORKER.name, workers)):
        candidates = sorted(
            candidates,
            key=lambda service: (
                _is_scheduler(service),
                service.name != tier,
                not service.words & WORDS[tier],
                not service.ports,
                service.name,
            ),
        )
        for service in candidates[:1]:
            result.tiers[tier] = service
            why = "because of its name" if service.words & WORDS[tier] else _WHY[tier]
            notes.add_assumption(service.path, f"it is the {tier}, {why}")
        for service in candidates[1:]:
            if tier == WORKER.name and _is_scheduler(service):
                notes.add_unconverted(service.path, _TWICE)
            else:
                # Only services of the tier api can be needed by other services.
                is_needed = any(other.talks_to(service) for other in app_services if other is not service)
                _add_further(service, API.name if tier == WEB.name and is_needed else tier, result, notes)


_WHY = {
    API.name: "because it uses the database or cache, and another service listens too",
    WEB.name: "because it listens, and neither its name nor its data makes it the api",
    WORKER.name: "because it has no port, and another service with the same image listens",
}


_TWICE = (
    "it looks like a scheduler, which must not run twice, but both slots run for a moment during a release; "
    "run it inside a worker with a lock, or elsewhere"
)


def _add_further(service: ComposeService, tier: str, result: Roles, notes: Notes) -> None:
    """Add a further service to the application, with a name that the program accepts."""
    name = as_name(service.name)
    if names.is_reserved_workload(name) or name in services.common_catalogue().names or name in result.tiers:
        name = as_name(f"app-{name}")
    if name in result.tiers:
        notes.add_unconverted(
            service.path, f"another service has the name {name} here; rename one of them, and import again"
        )
        return
    result.tiers[name], result.further[name] = service, tier
    notes.add_assumption(service.path, f"it is app.services.{name}, a service of the tier {tier}")
    if tier != WORKER.name and service.ports:
        notes.add_unconverted(
            f"{service.path}.ports",
            f"users can't reach its ports; list its paths in app.services.{name}.paths",
        )


def _is_scheduler(service: ComposeService) -> bool:
    """Return True if a service starts scheduled jobs. Two instances of such a service would start each job twice."""
    return bool(_SCHEDULER & {*service.words, *service.command})


def has_public_image(service: ComposeService) -> bool:
    """Return True if a data service runs a known public image, such as `postgres` or `valkey`. A built image does not count."""
    return not service.build and of_product(service.product) is not None


def data_tier_of(service: ComposeService) -> str | None:
    """Return the data service that a Compose service becomes, such as `database`, or None.

    A pulled image is recognised by its name. A service that builds its image becomes the database if it has a name such as `db`,
    the variable POSTGRES_PASSWORD and no published port.
    """
    if not service.build:
        record = of_product(service.product)
        return record.name if record else _OTHER_PRODUCTS.get(service.product)
    is_database = "POSTGRES_PASSWORD" in service.env and bool(
        service.words & {"postgres", "postgresql", "db", "database"}
    )
    return DATABASE.name if is_database and not service.published else None


def _is_built_proxy(service: ComposeService, all_services: Mapping[str, ComposeService]) -> bool:
    """Return True if a service is built from a Dockerfile and looks like a proxy in front of other services.

    Such a service has the name of a proxy and refers to another service, or its Dockerfile has the name of a proxy.
    """
    file = set(re.split(r"[^a-z]+", str(service.build.get("dockerfile") or "").lower()))
    is_named = bool(_PROXY_WORDS & service.words) and (
        service.dependencies or any(service.talks_to(other) for other in all_services.values())
    )
    others = [other for other in all_services.values() if other is not service and data_tier_of(other) is None]
    return bool(service.build) and bool(others) and bool(is_named or PROXIES & file)


def _merge_replicas(candidates: Sequence[ComposeService], result: Roles, notes: Notes) -> list[ComposeService]:
    """Merge services with the same source, command and variables into replicas. Return one service of each group."""
    firsts: list[ComposeService] = []
    for service in candidates:
        first = next((other for other in firsts if _is_copy(service, other)), None)
        if first:
            result.copies[first.name] = result.copies.get(first.name, 1) + 1
            notes.add_assumption(
                service.path,
                f"it is a replica of {first.name}, because both have the same image, command and variables",
            )
        else:
            firsts.append(service)
    return firsts


def _is_copy(service: ComposeService, other: ComposeService) -> bool:
    return (service.source, service.command, service.env) == (other.source, other.command, other.env)


def _is_worker(service: ComposeService, app_services: Sequence[ComposeService]) -> bool:
    """Return True if a service has its own command and no port, and another service with its image has a port."""
    others = [other for other in app_services if other is not service and other.source == service.source]
    return bool(service.command) and service.port is None and any(other.port for other in others)


def _runs_once(service: ComposeService, all_services: Mapping[str, ComposeService]) -> bool:
    """Return True if a service runs once and ends.

    Other services wait for the end of such a service, or its name or command has a word such as `migrate`. The words do
    not count if the service has a port or a worker's name, has no command, or joins commands with `&&`.
    """
    is_waited_for = any(
        other.dependencies.get(service.name) == "service_completed_successfully" for other in all_services.values()
    )
    text = " ".join(service.command)
    if is_waited_for or service.port or "&&" in text or service.words & WORDS[WORKER.name]:
        return is_waited_for
    words = {*service.words, *re.split(r"[^a-z]+", text.lower())}
    return bool(text) and bool(words & _ONCE)


def _uses_data(service: ComposeService, all_services: Mapping[str, ComposeService]) -> bool:
    return any(data_tier_of(other) is not None and service.talks_to(other) for other in all_services.values())
