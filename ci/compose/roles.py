"""Which service of a Compose file is which tier: by its image, its name, its port, and what it shares with others."""

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
"""What people call the services that are a tier."""
_PROXY = "a proxy is the gateway's job: app.api.paths go to the api, all others to web; headers and TLS by them"
_ALL_DATA = set[str]().union(*DATA.values())
_ALL_WORDS = set[str]().union(*WORDS.values())


@dataclass(frozen=True, kw_only=True)
class Roles:
    """The service that is each tier, those that run to their end, and the proxies before them."""

    tiers: dict[TierName, Given]
    once: list[Given] = field(default_factory=list[Given])
    proxies: list[Given] = field(default_factory=list[Given])

    def tier(self, service: str) -> TierName | None:
        return next((tier for tier, each in self.tiers.items() if each.name == service), None)


def roles(services: Mapping[str, Given], profiles: Collection[str], notes: Notes) -> Roles:
    """Who is what, and why."""
    found = Roles(tiers={})
    own: list[Given] = []
    for service in services.values():
        wanted = listing(service.raw, "profiles")
        data = next((tier for tier, products in DATA.items() if service.product in products), None)
        if wanted and not set(wanted) & set(profiles):
            notes.left(
                service.path, f"of profile {wanted[0]}, not asked for; COMPOSE_PROFILES={wanted[0]} brings it in"
            )
        elif data and data in found.tiers:
            notes.left(
                service.path, f"the {data} is {found.tiers[data].name}; run this one elsewhere and name it in env"
            )
        elif data:
            found.tiers[data] = service
            notes.taken(service.path, f"it is the {data}, by its image")
        elif service.product in PROXIES:
            found.proxies.append(service)
        elif _runs_once(service, services):
            found.once.append(service)
        elif not service.build and not service.words & _ALL_WORDS:
            notes.left(service.path, "no tier for it; run it elsewhere and name it in env")
        else:
            own.append(service)
    _own(own, services, found, notes)
    for proxy in found.proxies:
        notes.left(proxy.path, _PROXY)
    return found


def _own(own: Sequence[Given], services: Mapping[str, Given], found: Roles, notes: Notes) -> None:
    """Web, api and worker, of what the application's own services are."""
    workers = [each for each in own if each.words & WORDS[TierName.WORKER] or _only_works(each, own)]
    listening = [each for each in own if each not in workers]
    # An nginx whose image is not the application's serves others, where there are others.
    found.proxies.extend(each for each in listening if each.product == "nginx" and len(listening) > 1)
    listening = [each for each in listening if each not in found.proxies]
    apis = [each for each in listening if each.words & WORDS[TierName.API]]
    if not apis and len(listening) > 1:
        # Of several that could be a page, the one with data behind it is what the page asks.
        apis = [each for each in listening if _has_data(each, services)][:1]
    webs = [each for each in listening if each not in apis]
    for tier, several in ((TierName.API, apis), (TierName.WEB, webs), (TierName.WORKER, workers)):
        several = sorted(several, key=lambda each: (not each.words & WORDS[tier], not each.ports, each.name))
        for service in several[:1]:
            found.tiers[tier] = service
            why = "by its name" if service.words & WORDS[tier] else _WHY[tier]
            notes.taken(service.path, f"it is the {tier}, {why}")
        for service in several[1:]:
            notes.left(service.path, f"the {tier} is {several[0].name}; make this one an application of its own")


_WHY = {
    TierName.API: "for it has data behind it, and another listens, too",
    TierName.WEB: "for it listens, and nothing says that it is the api",
    TierName.WORKER: "for it has no port, and runs another command of an image that listens elsewhere",
}


def _only_works(service: Given, own: Sequence[Given]) -> bool:
    same = [each for each in own if each is not service and each.source == service.source]
    return bool(service.command) and service.port is None and any(each.port for each in same)


def _runs_once(service: Given, services: Mapping[str, Given]) -> bool:
    awaited = any(each.after.get(service.name) == "service_completed_successfully" for each in services.values())
    return awaited or (service.raw.get("restart") == "no" and bool(service.command) and not service.ports)


def _has_data(service: Given, services: Mapping[str, Given]) -> bool:
    return any(each.product in _ALL_DATA and service.talks_to(each) for each in services.values())
