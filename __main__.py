"""Takes one web application from a laptop to production: load, plan, then database, cache, slots and the switch."""

import os
from collections.abc import Sequence
from pathlib import Path

import pulumi

from components import checkpoint

ROOT = pulumi.get_root_directory()
ASKED = checkpoint.Asked(pulumi.get_stack(), ROOT)  # first: it is answered while the rest is imported and described

from components import backup, cache, config, database, guard, platforms, release, tier
from components.config import TierName
from components.kept import KeptSlot
from components.monitoring import Monitoring
from components.outputs import export
from components.slot import Slot
from components.switch import Gateway, Switch
from components.workload import DatabaseCluster


def main() -> None:
    settings = config.load()
    app, environment = settings.app, settings.environment
    versions = tier.secrets_of(settings, f"{app.name}/{pulumi.get_stack()}")
    description = tier.Description(app=app, environment=environment, secrets=versions, root=Path(ROOT))
    workloads = {name: tier.service(name, described, description) for name, described in app.services.items()}
    scales = {name: description.scale(name) for name in workloads}
    routes = tier.routes(app, environment)

    known = ASKED.answer()
    checkpoint.refuse_cut_off(known)
    observed = checkpoint.observe(known)
    wanted = release.identify(app.version, [*workloads.values(), *routes], contract=app.contract)
    plan = release.plan(observed, wanted, *release.asked(os.environ), manual=environment.release.promote == "manual")
    pulumi.log.info(release.explain(observed, plan))
    platform = platforms.connect(settings, known)

    data: dict[TierName, tier.Data] = {}
    if app.database:
        data[TierName.DATABASE] = database.workload(app.database, description)
    if app.cache:
        data[TierName.CACHE] = cache.workload(app.cache, description)
    kept = backup.described(description)
    running = [*workloads.values(), *(each for one in data.values() for each in tier.alone(one))]
    running += [kept.holder] if kept else []
    stores = platform.stores([*running, *(each for each in data.values() if isinstance(each, DatabaseCluster))])
    guard.refuse(known, app, environment, stores, running, guard.forced(os.environ))

    shared: dict[TierName, Sequence[pulumi.Resource]] = {}
    if app.database:
        shared[TierName.DATABASE] = database.Database("database", platform, data[TierName.DATABASE]).ready
    if app.cache:
        shared[TierName.CACHE] = cache.Cache("cache", platform, data[TierName.CACHE]).ready

    if kept:
        backup.Backup("backup", platform, kept)

    gateway = Gateway(platform).running
    standing = [*platform.foundation, *(each for ready in shared.values() for each in ready), gateway]
    gates: dict[str, pulumi.Output[pulumi.Resource]] = {}
    if plan.render:
        place = platforms.Place(slot=plan.render, release=plan.release)
        gates |= Slot(platform, place, observed.switches + 1, workloads, scales, routes, shared, gateway).gates
    for name in plan.keep:
        rests = environment.release.resting if plan.rests(name, observed) else frozenset[TierName]()
        gates |= KeptSlot(
            platform, name, observed.held[name], known, standing, scales if name is plan.live else {}, rests
        ).gates
    switch = Switch(platform, observed, plan, routes, gates, standing, known)

    if environment.monitoring:
        Monitoring(platform, description, shared, switch)

    export(platform, observed, plan, switch, gates.get("smoke"))


main()
