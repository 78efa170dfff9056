"""Check an environment on Kubernetes: refuse values that a cluster would refuse during an update."""

from collections.abc import Collection, Iterator

from ..model.services import DATABASE
from . import grammar, template
from .app import App, Worker
from .app_checks import all_route_paths
from .environment import Environment, TierSettings
from .grammar import RefusalError
from .template import Placeholder

HOSTNAMES, RULES, MATCHES_OF_A_RULE, MATCHES = 16, 16, 64, 128
"""Limits of an HTTPRoute: host names, rules, matches of a rule, and matches of all rules (Gateway API v1, httproute_types.go)."""
STEADY_SECONDS = 10
"""Time in seconds after which a running worker without a probe counts as started (`minReadySeconds`)."""
LEAST_STORAGE = 64 * 2**20
"""Minimum size of a database's volume in bytes: the size of an empty database with its first WAL file."""


def cluster_errors(app: App, environment: Environment) -> Iterator[str]:
    """Yield an error for each value that would make an update fail in a Kubernetes cluster."""
    cluster = environment.cluster
    yield from _route_errors(app, environment)
    yield from _data_errors(app, environment)
    shared: dict[str, tuple[str, TierSettings]] = {}
    for tier, service in app.slot_services.items():
        within = round(service.start_within + cluster.schedule_within)
        if isinstance(service, Worker) and not service.alive and within <= STEADY_SECONDS:
            fix = f"use more than {STEADY_SECONDS}s in total, or set a health check command ({app.path(tier)}.alive)"
            yield (
                f"{app.path(tier)}.start_within: start_within and kubernetes.schedule_within add up to {within}s, but a worker without a health check "
                f"counts as started only after {STEADY_SECONDS}s; {fix}"
            )
        if service.build and tier not in environment.images and not environment.registry:
            yield f"{app.path(tier)}.build: the cluster must pull this image from a registry; set environment.registry"
        if service.user <= 10_000:
            yield f"{app.path(tier)}.user: UID {service.user} may belong to a user of the node; set a UID above 10000, and build the image for this UID"
        if service.volumes and not environment.tier_settings(tier).storage_class:
            yield (
                f"environment.tiers.{tier}.storage_class: both slots mount the volumes of {tier}, possibly on different nodes; "
                "set a StorageClass that supports ReadWriteMany"
            )
        for name in service.volumes:
            size = environment.tier_settings(tier)
            first, other = shared.setdefault(name, (tier, size))
            if (size.storage, size.storage_class) != (other.storage, other.storage_class):
                yield f"environment.tiers.{tier}: {tier} shares volume {name} with {first}; set the same storage and storage_class for both"
    if app.database and environment.pooled(app):
        reference = cluster.secrets.get(app.database.password)
        if reference and reference.secret and reference.key != "password":
            yield (
                f"environment.kubernetes.secrets.{app.database.password}.key: CloudNativePG requires a Secret of type "
                "kubernetes.io/basic-auth; name such a Secret, and set `key: password`"
            )
    for name, reference in cluster.secrets.items():
        if reference.secret:
            try:
                grammar.secret_key(reference.key)
            except RefusalError as refusal:
                yield f"environment.kubernetes.secrets.{name}.key: {refusal}"
    yield from _template_errors(app, cluster.secrets)
    for name in cluster.secrets:
        if name not in app.secrets | environment.secrets:
            yield f"environment.kubernetes.secrets.{name}: no setting uses this secret; remove it"


def _template_errors(app: App, in_cluster: Collection[str]) -> Iterator[str]:
    """Yield an error for each template that combines a secret in the cluster with other text. The program can't read such a secret."""
    for tier, service in app.processes.items():
        for key, text in service.templates.items():
            parts = template.parse(text)
            for placeholder in (part for part in parts if isinstance(part, Placeholder)):
                name = app.secret_of(placeholder)
                if name in in_cluster and len(parts) > 1:
                    yield (
                        f"{app.path(tier)}.{key}: environment.kubernetes.secrets.{name} keeps this value in the cluster, where the program can't "
                        "insert it into a text; store the whole text in the cluster as one secret, and write ${secrets.NAME} here"
                    )


def _route_errors(app: App, environment: Environment) -> Iterator[str]:
    """Yield an error for each value that an HTTPRoute can't contain."""
    cluster, routes = environment.cluster, app.routes
    compared = {f"{app.path(tier)}.metrics": service.metrics for tier, service in app.measured.items()}
    compared |= all_route_paths(app)
    for name, path in compared.items():
        if path and "%" in path:
            yield f"{name}: {path} has percent-encoded characters, which a Gateway compares without decoding; use a path without %, like /api"
    own = len(environment.own_hosts(app))
    if (hosts := 1 + len(cluster.hostnames) + own) > HOSTNAMES:
        others = f"the host of `url`, and {own} of services with `host`," if own else "the host of `url`"
        fix = f"use at most {max(HOSTNAMES - 1 - own, 0)}"
        yield f"environment.kubernetes.hostnames: these hosts and {others} are {hosts} hosts, but an HTTPRoute accepts {HOSTNAMES}; {fix}"
    hidden = sum(name in app.measured for name in routes)
    per_service = 2 if environment.release.standby == "warm" else 1
    if len(routes) + hidden + per_service * len(routes) > RULES:
        most = (RULES - hidden) // (1 + per_service)
        yield (
            f"app.services: the gateway routes requests to {len(routes)} services, but an HTTPRoute has rules for {most}; use at most {most} "
            "with `paths`"
        )
    others = 0
    for name, paths in sorted(routes.items(), key=lambda entry: len(entry[1])):
        most = min(MATCHES_OF_A_RULE, (MATCHES - len(routes) - 2 * hidden) // per_service - others)
        if len(paths) > most:
            yield f"{app.path(name)}.paths: {len(paths)} paths are more than an HTTPRoute accepts; use at most {most}, for example common prefixes"
        others += len(paths)


def _data_errors(app: App, environment: Environment) -> Iterator[str]:
    """Yield an error for each setting of database and cache that a cluster can't apply."""
    for tier in environment.data(app):
        storage = environment.tier_settings(tier).storage
        if tier == DATABASE.name and storage and storage < LEAST_STORAGE:
            yield f"environment.tiers.{tier}.storage: an empty database needs more; use at least {LEAST_STORAGE // 2**20}Mi"
    if app.database and environment.pooled(app):
        used = {
            "app.database.name": app.database.name,
            "environment.tiers.database.name": environment.tier_settings(DATABASE.name).name,
        }
        for path in (path for path, name in used.items() if name == "pgbouncer"):
            yield f"{path}: PgBouncer reserves the name pgbouncer for its console; use another name, such as app"
    if (
        app.database
        and environment.pooled(app)
        and app.database.user in ("postgres", "streaming_replica", "cnpg_pooler_pgbouncer")
    ):
        yield f"app.database.user: CloudNativePG reserves the role {app.database.user}; use another name, such as app"
