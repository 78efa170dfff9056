"""Takes one web application from a laptop to production: load, plan, then database, cache, slots and the switch."""

import os
from collections.abc import Sequence
from pathlib import Path

import pulumi

from components import checkpoint

ASKED = checkpoint.Asked(pulumi.get_stack())  # first: it is answered while the rest is imported and described

from components import cache, config, database, platforms, release, tier
from components.config import TierName
from components.outputs import export
from components.slot import KeptSlot, Slot
from components.switch import Gateway, Switch


def main() -> None:
    settings = config.load()
    app, environment = settings.app, settings.environment
    versions = tier.secrets_of(settings.secrets, f"{app.name}/{pulumi.get_stack()}")
    description = tier.Description(app=app, environment=environment, secrets=versions, root=Path.cwd())
    workloads = {name: tier.service(name, described, description) for name, described in app.services.items()}
    replicas = {name: environment.size(name).replicas for name in workloads}

    known = ASKED.answer()
    observed = checkpoint.observe(known)
    wanted = release.identify(app.version, workloads.values())
    plan = release.plan(observed, wanted, back=os.environ.get("TIERS_RELEASE") == "previous")
    platform = platforms.connect(settings, known)

    shared: dict[TierName, Sequence[pulumi.Resource]] = {}
    if app.database:
        described = database.workload(app.database, description)
        shared[TierName.DATABASE] = database.Database("database", platform, described).ready
    if app.cache:
        described = cache.workload(app.cache, description)
        shared[TierName.CACHE] = cache.Cache("cache", platform, described).ready

    routes = tier.routes(app)
    gateway = Gateway(platform, routes)
    gates: list[pulumi.Input[pulumi.Resource]] = [gateway.running]
    if plan.render:
        place = platforms.Place(slot=plan.render, release=plan.release)
        gates += Slot(platform, place, workloads, replicas, routes, shared, gateway.running).gates
    standing = [*platform.foundation, *(each for ready in shared.values() for each in ready), gateway.running]
    for name in plan.keep:
        KeptSlot(platform, name, observed.held[name].release, known, standing)
    moved = Switch(platform, plan, routes, gates, known).moved

    export(settings, observed, plan, moved)


main()
