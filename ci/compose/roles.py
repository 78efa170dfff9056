"""Assignment of a Compose file's services to tiers, by image, name, port, and what they share with each other."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from components.config import TierName

from .given import Given, Notes, listing

DATA = {
    TierName.DATABASE: {"postgres", "postgis", "timescaledb", "pgvector"},
    TierName.CACHE: {"redis", "valkey"},
}
"""Images of data tiers, without their registry and tag."""
PROXIES = {"traefik", "caddy", "haproxy", "envoy", "nginx-proxy", "nginx-proxy-manager", "swag"}
WORDS = {
    TierName.API: {"api", "backend", "back", "server", "rest", "graphql"},
    TierName.WORKER: {
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
    TierName.WEB: {"web", "frontend", "front", "client", "ui", "www", "spa", "site", "app", "nginx"},
}
"""Tier → words in the usual names of such services."""
_PROXY = "a proxy is the gateway's job: app.api.paths go to the api, all others to web; headers and TLS by them"
_ALL_DATA = set[str]().union(*DATA.values())
_ALL_WORDS = set[str]().union(*WORDS.values())


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Service of each tier, services that run to their end, and proxies."""

    tiers: dict[TierName, Given]
    once: list[Given] = field(default_factory=list[Given])
    proxies: list[Given] = field(default_factory=list[Given])

    def tier(self, service: str) -> TierName | None:
        return next((tier for tier, candidate in self.tiers.items() if candidate.name == service), None)


def roles(services: Mapping[str, Given], profiles: Collection[str], notes: Notes) -> Roles:
    """Assign services to tiers, and note the reasons."""
    result = Roles(tiers={})
    candidates: list[Given] = []
    for service in services.values():
        required_profiles = listing(service.raw, "profiles")
        data = next((tier for tier, products in DATA.items() if service.product in products), None)
        if required_profiles and not set(required_profiles) & set(profiles):
            notes.left(
                service.path,
                f"of profile {required_profiles[0]}, not asked for; COMPOSE_PROFILES={required_profiles[0]} brings it in",
            )
        elif data and data in result.tiers:
            notes.left(
                service.path, f"the {data} is {result.tiers[data].name}; run this one elsewhere and name it in env"
            )
        elif data:
            result.tiers[data] = service
            notes.taken(service.path, f"it is the {data}, by its image")
        elif service.product in PROXIES:
            result.proxies.append(service)
        elif _runs_once(service, services):
            result.once.append(service)
        elif not service.build and not service.words & _ALL_WORDS:
            notes.left(service.path, "no tier for it; run it elsewhere and name it in env")
        else:
            candidates.append(service)
    _own(candidates, services, result, notes)
    for proxy in result.proxies:
        notes.left(proxy.path, _PROXY)
    return result


def _own(own: Sequence[Given], services: Mapping[str, Given], found: Roles, notes: Notes) -> None:
    """Assign the application's own services to web, api and worker."""
    workers = [service for service in own if service.words & WORDS[TierName.WORKER] or _only_works(service, own)]
    listening = [service for service in own if service not in workers]
    # An nginx from a public image is a proxy if other services listen too.
    found.proxies.extend(service for service in listening if service.product == "nginx" and len(listening) > 1)
    listening = [service for service in listening if service not in found.proxies]
    apis = [service for service in listening if service.words & WORDS[TierName.API]]
    if not apis and len(listening) > 1:
        # Among several candidates for web, the one that uses data is the api.
        apis = [service for service in listening if _has_data(service, services)][:1]
    webs = [service for service in listening if service not in apis]
    for tier, candidates in ((TierName.API, apis), (TierName.WEB, webs), (TierName.WORKER, workers)):
        candidates = sorted(
            candidates, key=lambda service: (not service.words & WORDS[tier], not service.ports, service.name)
        )
        for service in candidates[:1]:
            found.tiers[tier] = service
            why = "by its name" if service.words & WORDS[tier] else _WHY[tier]
            notes.taken(service.path, f"it is the {tier}, {why}")
        for service in candidates[1:]:
            notes.left(service.path, f"the {tier} is {candidates[0].name}; make this one an application of its own")


_WHY = {
    TierName.API: "for it has data behind it, and another listens, too",
    TierName.WEB: "for it listens, and nothing says that it is the api",
    TierName.WORKER: "for it has no port, and runs another command of an image that listens elsewhere",
}


def _only_works(service: Given, own: Sequence[Given]) -> bool:
    others = [other for other in own if other is not service and other.source == service.source]
    return bool(service.command) and service.port is None and any(other.port for other in others)


def _runs_once(service: Given, services: Mapping[str, Given]) -> bool:
    awaited = any(other.after.get(service.name) == "service_completed_successfully" for other in services.values())
    return awaited or (service.raw.get("restart") == "no" and bool(service.command) and not service.ports)


def _has_data(service: Given, services: Mapping[str, Given]) -> bool:
    return any(other.product in _ALL_DATA and service.talks_to(other) for other in services.values())
