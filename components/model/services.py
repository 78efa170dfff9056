"""Definition of each service that an application may have, as a record (`Service`).

A record defines the kind, port, routing and dependencies of a service. `SERVICES` has the records of the services that every
application may have. An application may define further services (`app.services`). A `Catalogue` contains both.

Other modules read these records, and contain no lists of service names. Only code for one product, such as PostgreSQL, names a
single record (`DATABASE`). docs/how-to/add-a-tier.md explains how to add a service to `SERVICES`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from graphlib import TopologicalSorter


class Kind(StrEnum):
    """Kind of a service. The kind decides where the service is deployed, and which settings the service has.

    Example:
        kinds = {service.name: service.kind for service in SERVICES}  # {"web": Kind.HTTP, …}
    """

    HTTP = "http"
    """Service that answers HTTP requests. Each slot has its own instance."""
    WORKER = "worker"
    """Service that processes jobs and accepts no connections. Each slot has its own instance."""
    DATA = "data"
    """Service that stores data. Both slots share one instance."""


class AccessMode(StrEnum):
    """Access mode of a volume: one node, or any number of nodes, may mount the volume at the same time. The values are the names in
    Kubernetes.

    Example:
        volume = Volume(name="search-data", path="/var/lib/search", access=AccessMode.ONE_NODE)
    """

    ONE_NODE = "ReadWriteOnce"
    """Only one node may mount the volume."""
    ANY_NODE = "ReadWriteMany"
    """Any number of nodes may mount the volume."""


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """Metrics exporter of a data service, which environments with monitoring deploy.

    Example:
        exporter = Exporter(port=9187, image="prometheuscommunity/postgres-exporter:v0.11.1")
    """

    port: int
    """Port of the exporter's metrics."""
    image: str
    """Image of the exporter. `environment.monitoring.exporters` may replace it."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """Definition of one service: name, kind, ports, routing, and the services that it may connect to.

    The records in `SERVICES` are the same in every application. The record of a further service (`app.services`) is a copy of the
    record of its tier, with another name.

    Example:
        SEARCH = Service(name="search", tier="search", kind=Kind.DATA, holds_data=True, port=7700)
    """

    name: str
    """Key of the service below `app` or `app.services`, and name of the service in labels, resource names and DNS."""
    tier: str
    """Tier of the service, such as `web` or `database`. The type token of the service's component contains the tier."""
    kind: Kind
    """Kind of the service, which decides whether the service belongs to a slot and how the service is probed."""
    may_need: frozenset[str] = frozenset()
    """Tiers of the same slot to which the service may connect, in addition to all data services."""
    routed: bool = False
    """True if the gateway routes requests of users to the service."""
    holds_data: bool = False
    """True if the volumes that the program creates for the service contain data to protect. Volumes that the configuration
    names always contain data to protect."""
    access: AccessMode | None = None
    """Access mode of the service's volumes; None for the default of the service's kind (`volume_access`)."""
    port: int | None = None
    """Port that the service listens on; None if the configuration sets the port."""
    exporter: Exporter | None = None
    """Metrics exporter of a data service; None without an exporter."""
    further_variables: tuple[str, ...] = ()
    """Environment variables that dependent services get in addition to the address. Names have no prefix: `NAME` means
    DATABASE_NAME."""
    ha: bool = False
    """True if the service has the setting `ha`, which deploys several instances."""
    products: frozenset[str] = frozenset()
    """Image names, without registry and tag, by which the import of a Compose file recognises the service."""
    settings: type | None = None
    """Pydantic model of the service's settings. None: the type of the service's field in `App`, or else the default model of the
    service's kind."""

    @property
    def prefix(self) -> str:
        """Prefix of the environment variables with the service's address, such as `DATABASE`."""
        return prefix(self.name)

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables that dependent services get: the address, and `further_variables`."""
        address = ("HOST", "PORT") if self.kind is Kind.DATA else ("URL",) if self.kind is Kind.HTTP else ()
        return tuple(f"{self.prefix}_{part}" for part in (*address, *self.further_variables))

    @property
    def is_shared(self) -> bool:
        """True if both slots use the same instance of the service."""
        return self.kind is Kind.DATA

    @property
    def volume_access(self) -> AccessMode:
        """Access mode of the service's volumes: `access`, or the default of the kind.

        The default of a data service is ONE_NODE, because one instance mounts the volume. The default of a service in a slot is
        ANY_NODE, because both slots mount the volumes.
        """
        return self.access or (AccessMode.ONE_NODE if self.is_shared else AccessMode.ANY_NODE)


POSTGRES_PORT, REDIS_PORT = 5432, 6379
DATABASE = Service(
    name="database",
    tier="database",
    kind=Kind.DATA,
    holds_data=True,
    port=POSTGRES_PORT,
    exporter=Exporter(port=9187, image="prometheuscommunity/postgres-exporter:v0.11.1"),
    further_variables=("DIRECT_HOST", "READ_HOST", "NAME", "USER"),
    ha=True,
    products=frozenset({"postgres", "postgis", "timescaledb", "pgvector"}),
)
"""PostgreSQL."""
CACHE = Service(
    name="cache",
    tier="cache",
    kind=Kind.DATA,
    holds_data=True,
    port=REDIS_PORT,
    exporter=Exporter(port=9121, image="oliver006/redis_exporter:v1.45.0-alpine"),
    ha=True,
    products=frozenset({"redis", "valkey"}),
)
"""Redis."""
API = Service(name="api", tier="api", kind=Kind.HTTP, routed=True, may_need=frozenset({"api"}))
"""The application's HTTP interface."""
WEB = Service(name="web", tier="web", kind=Kind.HTTP, routed=True, may_need=frozenset({API.tier}))
"""Pages and static assets."""
WORKER = Service(name="worker", tier="worker", kind=Kind.WORKER, may_need=frozenset({API.tier}))
"""Processes that take jobs from a queue."""

SERVICES: tuple[Service, ...] = (WEB, API, WORKER, DATABASE, CACHE)
"""Services that every application may have, in the order in which messages and documents list them. Add new services at the end."""
STORE = Service(name="store", tier="store", kind=Kind.DATA, holds_data=True)
"""Tier of the stores: further services (`app.services`) that both slots share, with any image. No service is named after this tier."""


def further_service(name: str, tier: str, *, routed: bool = False, port: int | None = None) -> Service:
    """Return the record of a further service of a tier (`app.services`).

    Args:
        name: name of the service.
        tier: tier of the service: `store`, or the name of a record in `SERVICES`.
        routed: True if the gateway routes requests of users to the service.
        port: port of a store; None for a service in a slot.
    """
    record = next(record for record in (*SERVICES, STORE) if record.name == tier)
    return replace(record, name=name, routed=routed, port=port)


@dataclass(frozen=True)
class Catalogue:
    """Records of the services in `SERVICES`, then of an application's further services (`app.services`).

    Example:
        workers = [record.name for record in catalogue.records if record.kind is Kind.WORKER]
    """

    records: tuple[Service, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all services, in the order of the records."""
        return tuple(record.name for record in self.records)

    @property
    def in_slots(self) -> tuple[Service, ...]:
        """Services that belong to a slot."""
        return tuple(record for record in self.records if not record.is_shared)

    @property
    def data(self) -> tuple[Service, ...]:
        """Services that both slots share."""
        return tuple(record for record in self.records if record.is_shared)

    @property
    def routed(self) -> tuple[Service, ...]:
        """Services to which the gateway routes requests. Each service comes after the services that it may connect to."""
        by_name = {record.name: record for record in self.records}
        return tuple(by_name[name] for name in self.start_order({}, self.names) if by_name[name].routed)

    def find(self, name: str | None) -> Service | None:
        """Return the record of a service. Return None for an unknown name, such as a service of another version of the program."""
        return next((record for record in self.records if record.name == name), None)

    def is_shared(self, name: str) -> bool:
        """Return whether both slots use the same instance of a service."""
        record = self.find(name)
        return record is not None and record.is_shared

    def is_routed(self, name: str) -> bool:
        """Return whether the gateway routes requests of users to a service."""
        record = self.find(name)
        return record is not None and record.routed

    def may_need(self, name: str) -> frozenset[str]:
        """Return the names of the services that a service may need: slot services of its `may_need` tiers, and data services."""
        return self._may_need_in_slot(name) | {data.name for data in self.data} if self.find(name) else frozenset()

    def _may_need_in_slot(self, name: str) -> frozenset[str]:
        record = self.find(name)
        tiers = record.may_need if record else ()
        return frozenset(other.name for other in self.in_slots if other.tier in tiers and other.name != name)

    def position(self, name: str) -> int:
        """Return the position of a service among the records, as a sort key. Unknown services come last."""
        return self.names.index(name) if name in self.names else len(self.records)

    def start_order(self, needs: Mapping[str, Iterable[str]], names: Iterable[str]) -> list[str]:
        """Return names of services in start order: each service after the services that it needs. Unknown names come last.

        Within `SERVICES`, each service also starts after the services that it may need.

        Args:
            needs: names of the services that each service connects to.
            names: the services to order.

        Raises:
            graphlib.CycleError: services need each other.
        """
        fixed = {record.name for record in SERVICES}
        graph = {
            record.name: sorted(
                {
                    *(other for other in needs.get(record.name, ()) if self.find(other)),
                    *(other for other in self._may_need_in_slot(record.name) if {record.name, other} <= fixed),
                },
                key=self.position,
            )
            for record in self.records
        }
        requested = list(names)
        ordered = [name for name in TopologicalSorter(graph).static_order() if name in requested]
        return [*ordered, *(name for name in requested if name not in ordered)]


def common_catalogue() -> Catalogue:
    """Return the services that every application may have. Read `SERVICES` on each call, because tests replace it."""
    return Catalogue(SERVICES)


def prefix(name: str) -> str:
    """Return the prefix of the environment variables about a service or a secret, such as `DATABASE`."""
    return name.upper().replace("-", "_")


def public_variable(name: str) -> str:
    """Return the environment variable with the public address of a service that has a host of its own, such as `ADMIN_PUBLIC_URL`."""
    return f"{prefix(name)}_PUBLIC_URL"


def holds_data(name: str) -> bool:
    """Return whether the volumes of a workload contain data that no update may delete.

    Return True for a workload without a record in `SERVICES`, such as the backup workload or a store.
    """
    record = common_catalogue().find(name)
    return record is None or record.holds_data


def type_token(name: str, tier: str = "") -> str:
    """Return the type token of a service's component, such as `tiers:database:Database`. Stacks store the token in their state.

    Args:
        name: name of the service.
        tier: tier of the service; empty for a service in `SERVICES`.
    """
    record = common_catalogue().find(name)
    tier = tier or (record.tier if record else name)
    return f"tiers:{tier}:{tier.capitalize()}"


def port_of(name: str) -> int:
    """Return the port of a data service."""
    record = common_catalogue().find(name)
    assert record is not None
    assert record.port is not None, "the record of a data service has a port"
    return record.port


def of_product(product: str) -> Service | None:
    """Return the data service of a product such as `postgres` or `valkey`, or None for an unknown product.

    Args:
        product: name of the image without registry and tag.
    """
    return next((record for record in common_catalogue().data if product in record.products), None)
