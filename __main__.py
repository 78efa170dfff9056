"""Deploy one web application with Pulumi: load the settings, plan the release, then register data tiers, slots and the switch."""

import os
from functools import partial
from pathlib import Path

import pulumi

from components import checkpoint

ROOT = pulumi.get_root_directory()
# Before the other imports: Pulumi exports the checkpoint while they run.
ASKED = checkpoint.Asked(pulumi.get_stack(), ROOT)

from components import config, guard, kept, platforms, recorded, release, shared, tier
from components.monitoring import Monitoring
from components.outputs import export
from components.slot import Slot
from components.switch import Gateway, Switch


def main() -> None:
    settings = recorded.load(Path(ROOT), ASKED.answer)
    app, environment = settings.app, settings.environment
    versions = tier.secrets_of(settings, f"{app.name}/{pulumi.get_stack()}")
    description = tier.Description(app=app, environment=environment, secrets=versions, root=Path(ROOT))
    workloads = {name: tier.service(name, described, description) for name, described in app.services.items()}
    scales = {name: description.scale(name) for name in workloads}
    routes = tier.routes(app, environment)
    data = shared.described(description)

    known = ASKED.answer()
    checkpoint.refuse_cut_off(known)
    platforms.check(settings, known, routes)
    stack = pulumi.get_stack()
    observed = checkpoint.settle(
        known, partial(platforms.routing, app, environment, stack), release.named_live(os.environ), stack
    )
    wanted = release.identify(app.version, [*workloads.values(), *routes], contract=app.contract)
    platform = platforms.connect(settings, known, observed.live)
    observed = kept.observe(platform, known, observed)
    plan = release.plan(observed, wanted, *release.asked(os.environ), manual=environment.release.promote == "manual")
    pulumi.log.info(release.explain(observed, plan))
    holding = [*workloads.values(), *data.holding]
    kept.refuse_unavailable(platform, plan, known)
    guard.refuse(known, app, environment, platform.stores(holding), holding, guard.forced(os.environ))

    ready = data.make(platform)
    gateway = Gateway(platform).running
    standing = [*platform.foundation, *(each for resources in ready.values() for each in resources), gateway]
    gates: dict[str, pulumi.Output[pulumi.Resource]] = {}
    if plan.render:
        place = platforms.Place(slot=plan.render, release=plan.release)
        gates |= Slot(platform, place, observed.switches + 1, workloads, scales, routes, ready, gateway).gates
    for name in plan.keep:
        rests = environment.release.resting if plan.rests(name, observed) else frozenset[config.TierName]()
        wanted_scales = scales if name is plan.live else {}
        gates |= kept.KeptSlot(
            platform, name, observed.held[name], known, standing, wanted_scales, rests, workloads
        ).gates
    switch = Switch(platform, observed, plan, routes, gates, standing, known, settings.plain)
    data.back_up(platform, {} if plan.render is plan.live else checkpoint.told(known, plan.live), switch.moved)
    if environment.monitoring:
        Monitoring(platform, description, ready, switch)
    export(platform, observed, plan, switch, gates.get("smoke"), known)


main()
