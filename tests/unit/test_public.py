"""Tests of the public API of the package `components`. The wheel contains this package under the name `tiers`."""

import ast
import dataclasses
import inspect
import itertools
import json
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pulumi
import pytest
from pulumi import ComponentResource, Output, ResourceOptions

import components
from components import Context, plan_rollout
from components.release.checkpoint import observe, parse

from . import program
from .program import Deployment, environment, project

PUBLIC: dict[str, Any] = {name: getattr(components, name) for name in components.__all__}
COMPONENTS: dict[str, type[ComponentResource]] = {
    name: value for name, value in PUBLIC.items() if isinstance(value, type) and issubclass(value, ComponentResource)
}
ARGS = {name: typing.get_type_hints(component.__init__)["args"] for name, component in COMPONENTS.items()}


def test_dunder_all_lists_every_public_name_in_order() -> None:
    names = {
        name for name, value in vars(components).items() if not (name.startswith("_") or isinstance(value, ModuleType))
    }
    assert list(components.__all__) == sorted(names)


@pytest.mark.parametrize("name", COMPONENTS)
def test_public_component_has_the_parameters_name_args_and_opts(name: str) -> None:
    parameters = list(inspect.signature(COMPONENTS[name].__init__).parameters.values())[1:]
    assert [parameter.name for parameter in parameters] == ["name", "args", "opts"]
    assert [parameter.default for parameter in parameters] == [inspect.Parameter.empty] * 2 + [None]
    assert typing.get_type_hints(COMPONENTS[name].__init__)["opts"] == ResourceOptions | None


@pytest.mark.parametrize("name", COMPONENTS)
def test_args_class_of_a_component_is_frozen_keyword_only_and_public(name: str) -> None:
    args = ARGS[name]
    assert dataclasses.is_dataclass(args)
    assert args.__dataclass_params__.frozen  # pyright: ignore[reportAttributeAccessIssue]
    assert all(field.kw_only for field in dataclasses.fields(args))
    assert args in PUBLIC.values()
    assert f"{name}Args" in PUBLIC


def _documented_attributes(cls: type) -> Iterator[str]:
    """Yield the name of every documented attribute of a class, including inherited attributes."""
    for base in cls.__mro__:
        if base.__module__.startswith("components"):
            tree = ast.parse(Path(inspect.getfile(base)).read_text())
            [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == base.__name__]
            for statement, following in itertools.pairwise(body):
                is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and is_text:
                    yield statement.target.id


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_argument_and_every_output_has_a_docstring(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(ARGS[name])}
    assert fields <= set(_documented_attributes(ARGS[name]))
    outputs = {
        name
        for base in COMPONENTS[name].__mro__
        for name in vars(base).get("__annotations__", ())
        if base.__module__.startswith("components")
    }
    assert outputs <= set(_documented_attributes(COMPONENTS[name]))


@pytest.mark.parametrize("name", COMPONENTS)
def test_docstring_of_a_component_has_an_example(name: str) -> None:
    text = COMPONENTS[name].__doc__ or ""
    assert f"{name}Args(" in text.partition("Example:")[2]


# ---------------------------------------------------------------------- options


def run(stack: str, body: Callable[[], object]) -> Deployment:
    """Run `body` as a Pulumi program and return the registered resources."""
    return program.deploy(stack=stack, body=body)


def deploy_board(opts: Callable[[pulumi.Resource], ResourceOptions]) -> None:
    """Deploy the application `board` inside a component that a user wrote, with other resource names than __main__.py."""
    context = Context.load()
    application = components.Application.from_context(context)
    rollout = plan_rollout(context, application)
    parent = ComponentResource("own:index:Shop", "shop")
    platform = rollout.platform
    data = {
        name: components.DataService(
            f"own-{name}", components.DataServiceArgs(platform=platform, data=value), opts(parent)
        ).ready
        for name, value in application.data.items()
    }
    gateway = components.Gateway("own-gateway", components.GatewayArgs(platform=platform), opts(parent)).running
    args = components.SlotArgs(rollout=rollout, data=data, gateway=gateway)
    slot = components.Slot("own-slot", args, opts(parent))
    components.Switch("own-switch", components.SwitchArgs(rollout=rollout, gates=slot.gates), opts(parent))


STACKS = ("dev", "staging")


@pytest.mark.parametrize("stack", STACKS)
def test_public_component_applies_the_options_parent_protect_and_aliases(stack: str) -> None:
    deployment = run(
        stack,
        lambda: deploy_board(
            lambda parent: ResourceOptions(parent=parent, protect=True, aliases=[pulumi.Alias(name="former")])
        ),
    )
    [shop] = [entry for entry in deployment if entry.name == "shop"]
    user_components = [entry for entry in deployment if entry.name.startswith("own-")]
    assert len(user_components) == 5
    assert {entry.parent for entry in user_components} == {shop.urn}
    assert all(entry.protect and entry.aliases for entry in user_components)


@pytest.mark.parametrize("stack", STACKS)
def test_children_of_a_component_have_the_component_as_ancestor(stack: str) -> None:
    deployment = run(stack, lambda: deploy_board(lambda parent: ResourceOptions(parent=parent)))
    roots = {entry.name for entry in deployment if entry.parent not in deployment.by_urn}
    assert roots == {"shop", "ground"}


@pytest.mark.parametrize("stack", STACKS)
def test_live_slot_is_read_from_a_checkpoint_in_which_the_user_chose_the_resource_names(stack: str) -> None:
    body = lambda: deploy_board(lambda parent: ResourceOptions(parent=parent))  # noqa: E731
    first = run(stack, body)
    state = observe(parse(program.exported(first)))
    assert state.live == "blue"
    assert set(state.slots) == {"blue"}


def test_switch_records_author_and_encrypted_secrets_of_the_context_instead_of_global_state(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.other.yaml").write_text("config:\n  shop:secrets: {key: {secure: v1:a:b}}\n")

    def body() -> None:
        context = Context.load()
        application = components.Application.from_context(context)
        description = dataclasses.replace(context.description, stack="other", root=tmp_path)
        context = dataclasses.replace(context, description=description, project="shop", variables={"TIERS_WHO": "Ada"})
        rollout = plan_rollout(context, application)
        gate = Output.from_input(ComponentResource("own:index:Gate", "gate"))
        components.Switch("switch", components.SwitchArgs(rollout=rollout, gates={"smoke": gate}))

    [switch] = [entry for entry in run("dev", body) if entry.type == "tiers:switch:Switch"]
    assert switch.outputs["journal"][0]["who"] == "Ada"
    assert json.loads(switch.outputs["settings"])["secrets"] == {"key": {"secure": "v1:a:b"}}


def test_cache_component_has_the_outputs_host_port_and_url() -> None:
    outputs_by_key: dict[str, object] = {}

    def body() -> None:
        context = Context.load()
        application = components.Application.from_context(context)
        platform = plan_rollout(context, application).platform
        cache = components.Cache("cache", components.CacheArgs(platform=platform, data=application.data["cache"]))
        Output.all(cache.host, cache.port, cache.url).apply(
            lambda values: outputs_by_key.update(zip("hpu", values, strict=True))
        )

    run("dev", body)
    assert outputs_by_key == {"h": "cache", "p": 6379, "u": "tcp://cache:6379"}


def test_context_of_plain_values_is_refused_with_the_path_of_an_invalid_value() -> None:
    with pytest.raises(components.ConfigError, match=r"^app\.api\.port: "):
        run(
            "dev",
            lambda: Context.from_values(
                app=project() | {"api": {"image": "a:1", "port": "80"}}, environment=environment()
            ),
        )
