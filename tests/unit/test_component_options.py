"""Tests that every public component and its children honour the Pulumi resource options of the component."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pulumi import Alias, ComponentResource, CustomResource, Output, ProviderResource, Resource, ResourceOptions

import components
from components import Application, Context, Rollout, plan_rollout

from . import program
from .program import Deployment, Registered, checkpoint_of, environment, project

STACKS = ("dev", "staging")
NAME = "own"
"""Resource name of the component under test."""
SECRETS = program.SECRETS | {"backup-key": "the-key-of-backups"}

Build = Callable[[Rollout, ResourceOptions], object]


def service_args(rollout: Rollout, name: str) -> dict[str, Any]:
    """Return the arguments of a `SlotService`, by name."""
    target = components.SlotTarget(slot=rollout.plan.live, release=rollout.plan.release)
    return {"platform": rollout.platform, "workload": rollout.application.workloads[name], "target": target}


def data_args(rollout: Rollout, name: str) -> dict[str, Any]:
    """Return the arguments of a `DataService`, by name."""
    return {"platform": rollout.platform, "data": rollout.application.data[name]}


def backup_args(rollout: Rollout) -> components.BackupArgs:
    assert rollout.live_backups
    return components.BackupArgs(platform=rollout.platform, plan=rollout.live_backups)


def monitoring_args(rollout: Rollout) -> components.MonitoringArgs:
    live = Output.from_input({"release": "1-a", "slot": "blue"})
    description = rollout.context.description
    return components.MonitoringArgs(platform=rollout.platform, description=description, data={}, live=live)


def slot_args(rollout: Rollout) -> components.SlotArgs:
    return components.SlotArgs(rollout=rollout, data={}, gateway=any_resource(rollout))


def switch_args(rollout: Rollout) -> components.SwitchArgs:
    return components.SwitchArgs(rollout=rollout, gates={"smoke": Output.from_input(any_resource(rollout))})


def live_service_args(rollout: Rollout) -> components.LiveServiceArgs:
    """Return the arguments for an object with the inputs of the board's worker."""
    workload = rollout.application.workloads["worker"]
    target = components.SlotTarget(slot=components.SlotName.BLUE, release=rollout.application.release)
    parent = ComponentResource("own:index:Slot", "slot")
    provisioned = rollout.platform.provision(parent, [workload], target)
    single, _ = rollout.platform.prepare_single(parent, replace(workload, single=True), target, provisioned)
    moved = Output.from_input(any_resource(rollout))
    return components.LiveServiceArgs(rollout=rollout, live_object=single, moved=moved)


def any_resource(rollout: Rollout) -> Resource:
    return rollout.platform.foundation_resources[0]


BUILDERS: Mapping[str, Build] = {
    "Api": lambda rollout, opts: components.Api(NAME, components.ApiArgs(**service_args(rollout, "api")), opts),
    "Backup": lambda rollout, opts: components.Backup(NAME, backup_args(rollout), opts),
    "Cache": lambda rollout, opts: components.Cache(NAME, components.CacheArgs(**data_args(rollout, "cache")), opts),
    "DataService": lambda rollout, opts: components.DataService(
        NAME, components.DataServiceArgs(**data_args(rollout, "cache")), opts
    ),
    "Database": lambda rollout, opts: components.Database(
        NAME, components.DatabaseArgs(**data_args(rollout, "database")), opts
    ),
    "Gateway": lambda rollout, opts: components.Gateway(NAME, components.GatewayArgs(platform=rollout.platform), opts),
    "KeptSlot": lambda rollout, opts: components.KeptSlot(
        NAME, components.KeptSlotArgs(rollout=rollout, slot=components.SlotName.BLUE), opts
    ),
    "LiveService": lambda rollout, opts: components.LiveService(NAME, live_service_args(rollout), opts),
    "Monitoring": lambda rollout, opts: components.Monitoring(NAME, monitoring_args(rollout), opts),
    "Slot": lambda rollout, opts: components.Slot(NAME, slot_args(rollout), opts),
    "SlotService": lambda rollout, opts: components.SlotService(
        NAME, components.SlotServiceArgs(**service_args(rollout, "web")), opts
    ),
    "Store": lambda rollout, opts: components.Store(NAME, components.StoreArgs(**data_args(rollout, "cache")), opts),
    "Switch": lambda rollout, opts: components.Switch(NAME, switch_args(rollout), opts),
    "Web": lambda rollout, opts: components.Web(NAME, components.WebArgs(**service_args(rollout, "web")), opts),
    "Worker": lambda rollout, opts: components.Worker(
        NAME, components.WorkerArgs(**service_args(rollout, "worker")), opts
    ),
}
"""Name of a public component → function that registers the component with the given options."""


def every_option(context: Context, alias: Alias) -> ResourceOptions:
    """Return options with an alias, protection, and a new parent, provider and dependency."""
    return ResourceOptions(
        parent=ComponentResource("own:index:Shop", "shop"),
        aliases=[alias],
        provider=ProviderResource(context.environment.platform, "own-provider", {}, ResourceOptions()),
        protect=True,
        depends_on=[CustomResource("own:index:Dependency", "dependency")],
    )


def deploy(stack: str, body: Callable[[Context], object], version: str = "1.0.0", **more: Any) -> Deployment:
    """Run `body` as a program for the application `board`, with backups and monitoring."""
    env: dict[str, Any] = environment(stack) | {"monitoring": True, "pinned": False, "release": {}}
    env.setdefault("tiers", {}).setdefault("database", {})["backup"] = {"target": {"volume": True}}
    app = project() | {"version": version}
    return program.deploy(app, env, stack=stack, secrets=SECRETS, body=lambda: body(Context.load()), **more)


def deploy_component(stack: str, name: str) -> Deployment:
    """Deploy one public component with every option. For `KeptSlot`, first deploy the slot that this component keeps."""

    def body(context: Context) -> None:
        rollout = plan_rollout(context, Application.from_context(context))
        BUILDERS[name](rollout, every_option(context, Alias(name="former")))

    more: dict[str, Any] = {"export": checkpoint_of(deploy(stack, deploy_slot))} if name == "KeptSlot" else {}
    return deploy(stack, body, **more)


def deploy_slot(context: Context) -> None:
    """Deploy the first release, with a gateway, a slot and a switch."""
    rollout = plan_rollout(context, Application.from_context(context))
    slots = components.deploy_slots(rollout, {}, any_resource(rollout))
    components.Switch("switch", components.SwitchArgs(rollout=rollout, gates=slots.gates))


def descendants(deployment: Deployment, component: Registered) -> Iterator[Registered]:
    for entry in deployment:
        if entry.parent == component.urn:
            yield entry
            yield from descendants(deployment, entry)


def component_named(deployment: Deployment, name: str) -> Registered:
    [entry] = [entry for entry in deployment if entry.name == name and not entry.custom]
    return entry


def assert_options_are_honoured(deployment: Deployment, component: Registered) -> None:
    children = [entry for entry in descendants(deployment, component) if entry.custom]
    assert component.parent == component_named(deployment, "shop").urn
    assert component.aliases
    assert deployment.by_name["dependency"].urn in component.waits_for
    assert component.protect
    assert children
    assert all(entry.protect for entry in children)
    assert {entry.provider.split("::")[3] for entry in children} == {"own-provider"}


def test_every_public_component_is_covered() -> None:
    public = {name: getattr(components, name) for name in components.__all__}
    names = {n for n, value in public.items() if isinstance(value, type) and issubclass(value, ComponentResource)}
    assert BUILDERS.keys() == names


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", BUILDERS)
def test_component_honours_parent_aliases_provider_protect_and_depends_on(name: str, stack: str) -> None:
    deployment = deploy_component(stack, name)
    assert_options_are_honoured(deployment, component_named(deployment, NAME))


@pytest.mark.parametrize("stack", STACKS)
def test_resource_options_of_plan_rollout_are_applied_to_the_foundation(stack: str) -> None:
    def body(context: Context) -> None:
        plan_rollout(context, Application.from_context(context), every_option(context, Alias(name="former")))

    deployment = deploy(stack, body)
    assert_options_are_honoured(deployment, component_named(deployment, "ground"))


@pytest.mark.parametrize("stack", STACKS)
def test_resource_options_of_deploy_slots_are_applied_to_the_new_slot_and_to_the_kept_slot(stack: str) -> None:
    def body(context: Context) -> None:
        rollout = plan_rollout(context, Application.from_context(context))
        options = every_option(context, Alias(parent=any_resource(rollout)))
        components.deploy_slots(rollout, {}, any_resource(rollout), options)

    deployment = deploy(stack, body, "2.0.0", export=checkpoint_of(deploy(stack, deploy_slot)))
    for slot in components.SlotName:
        assert_options_are_honoured(deployment, component_named(deployment, slot))
