"""Tests of the public API of the package `components`. The wheel contains this package under the name `tiers`."""

import ast
import dataclasses
import inspect
import itertools
import json
import re
import textwrap
import typing
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pulumi
import pytest
from pulumi import ComponentResource, Output, ResourceOptions
from pydantic import BaseModel

import components
from ci import prose
from components import Context, plan_rollout
from components.release.checkpoint import observe, parse

from . import program
from .program import Deployment, environment, project

PUBLIC: dict[str, Any] = {name: getattr(components, name) for name in components.__all__}
COMPONENTS: dict[str, type[ComponentResource]] = {
    name: value for name, value in PUBLIC.items() if isinstance(value, type) and issubclass(value, ComponentResource)
}
ARGS = {name: typing.get_type_hints(component.__init__)["args"] for name, component in COMPONENTS.items()}


def test_list_of_public_names_is_complete_and_sorted() -> None:
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
def test_docstring_of_a_component_describes_its_parameters_and_has_an_example(name: str) -> None:
    text = COMPONENTS[name].__doc__ or ""
    parameters, _, example = text.partition("Args:\n")[2].partition("Example:")
    assert re.findall(r"^ {8}(\w+): ", parameters.partition("Raises:")[0], re.MULTILINE) == ["name", "args", "opts"]
    assert f"        args: see `{name}Args`." in parameters
    assert f"{name}Args(" in example


# ---------------------------------------------------------------------- docstrings and names

DOCUMENTED = sorted(
    name for name, value in PUBLIC.items() if not (isinstance(value, type) and issubclass(value, BaseModel))
)
"""Public names except the configuration models. docs/configuration.md describes the keys of these models, with examples."""
AMBIGUOUS = frozenset({"bucket", "number", "smoke"})
"""Names of internal functions that docstrings may contain, because they are also words for a time series, a key and a gate."""
VAGUE = prose.VAGUE_NAMES | {"beside", "elsewhere", "theirs", "timed", "vault"}
"""Names that the public API must not use, because they don't say what a value is. `vault` means the archive proxy."""


def _nodes(name: str) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Yield the definition of a public class and of its base classes in `components`, or of a public function."""
    value = PUBLIC[name]
    for definition in value.__mro__ if isinstance(value, type) else (value,):
        if definition.__module__.startswith("components"):
            tree = ast.parse(Path(inspect.getfile(definition)).read_text())
            yield from (
                node
                for node in tree.body
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == definition.__name__
            )


def _public_parts(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a definition, without the bodies of its private methods."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.FunctionDef) and child.name.startswith("_") and child.name != "__init__"):
            yield child
            yield from _public_parts(child)


@cache
def _names_of_parts(name: str) -> set[str]:
    """Return the names of the attributes, methods and parameters of a public name."""
    parts = [part for node in _nodes(name) for part in _public_parts(node)]
    names = {part.target.id for part in parts if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)}
    names |= {part.name for part in parts if isinstance(part, ast.FunctionDef)}
    return names | {part.arg for part in parts if isinstance(part, ast.arg)}


@cache
def _internal_names() -> set[str]:
    """Return the names of all top-level classes and functions in `components` that are not public."""
    names = {
        node.name
        for file in Path(components.__file__).parent.rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    return names - PUBLIC.keys() - AMBIGUOUS


def _texts(name: str) -> Iterator[str]:
    """Yield the docstrings of a public name, of its attributes and of its public methods."""
    for node in _nodes(name):
        for part in _public_parts(node):
            if (
                isinstance(part, ast.Expr)
                and isinstance(part.value, ast.Constant)
                and isinstance(part.value.value, str)
            ):
                yield part.value.value


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_of_a_public_name_refers_only_to_public_names(name: str) -> None:
    parts = {part for public in DOCUMENTED for part in _names_of_parts(public)} | {"database"}
    quoted = {word for text in _texts(name) for word in re.findall(r"`([A-Za-z_]\w*)[\w.]*`", text)}
    assert not quoted & (_internal_names() - parts)


@pytest.mark.parametrize("name", [name for name in DOCUMENTED if not name.endswith("Args")])
def test_docstring_of_a_public_name_has_an_example_with_public_names_only(name: str) -> None:
    example = inspect.cleandoc(PUBLIC[name].__doc__ or "").partition("Example:\n")[2]
    tree = ast.parse(textwrap.dedent(example))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    used -= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    classes = {word for word in used if word[0].isupper()}
    assert example
    assert classes <= PUBLIC.keys() | {"Output", "SERVICES"}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_documents_every_exception_raised_by_the_code_of_a_public_name(name: str) -> None:
    for node in _nodes(name):
        raised = {
            part.exc.func.id
            for part in ast.walk(node)
            if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call) and isinstance(part.exc.func, ast.Name)
        }
        documented = re.findall(r"^ +(\w+): ", "".join(_texts(name)).partition("Raises:\n")[2], re.MULTILINE)
        assert raised <= {*documented}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_vague_words_are_not_used_as_public_names_or_attributes_or_parameters(name: str) -> None:
    assert not {name.lower(), *_names_of_parts(name)} & VAGUE


# ---------------------------------------------------------------------- components in a program of a user


def run(stack: str, body: Callable[[], object]) -> Deployment:
    """Run `body` as a Pulumi program and return the registered resources."""
    return program.deploy(stack=stack, body=body)


def deploy_board() -> None:
    """Deploy the application `board` inside a component that a user wrote, with other resource names than __main__.py."""
    context = Context.load()
    application = components.Application.from_context(context)
    opts = ResourceOptions(parent=ComponentResource("own:index:Shop", "shop"))
    rollout = plan_rollout(context, application, opts)
    platform = rollout.platform
    data = {
        name: components.DataService(
            f"own-{name}", components.DataServiceArgs(platform=platform, data=value), opts
        ).ready
        for name, value in application.data.items()
    }
    gateway = components.Gateway("own-gateway", components.GatewayArgs(platform=platform), opts).running
    args = components.SlotArgs(rollout=rollout, data=data, gateway=gateway)
    slot = components.Slot("own-slot", args, opts)
    components.Switch("own-switch", components.SwitchArgs(rollout=rollout, gates=slot.gates), opts)
    Output.all(**{name: service.url for name, service in slot.services.items()}).apply(
        lambda urls: pulumi.export("urls", urls)
    )


STACKS = ("dev", "staging")


@pytest.mark.parametrize("stack", STACKS)
def test_all_resources_have_the_component_of_the_user_as_ancestor(stack: str) -> None:
    deployment = run(stack, deploy_board)
    roots = {entry.name for entry in deployment if entry.parent not in deployment.by_urn}
    assert roots == {"shop"}


@pytest.mark.parametrize("stack", STACKS)
def test_live_slot_is_read_from_a_checkpoint_with_resource_names_chosen_by_the_user(stack: str) -> None:
    first = run(stack, deploy_board)
    state = observe(parse(program.checkpoint_of(first)))
    assert state.live == "blue"
    assert set(state.slots) == {"blue"}


@pytest.mark.parametrize("stack", STACKS)
def test_slot_has_the_address_of_each_of_its_services_as_output(stack: str) -> None:
    urls = run(stack, deploy_board).outputs["urls"]
    assert urls == {"api": "http://api-blue:8000", "web": "http://web-blue:8080", "worker": ""}


def test_slot_is_refused_if_the_update_deploys_no_release() -> None:
    def body() -> None:
        context = Context.load()
        rollout = plan_rollout(context, components.Application.from_context(context))
        assert rollout.plan.render is None
        args = components.SlotArgs(rollout=rollout, data={}, gateway=rollout.platform.foundation_resources[0])
        components.Slot("slot", args)

    with pytest.raises(
        ValueError, match=r"^args\.rollout: `plan\.render` is None, so this update deploys no release; "
    ):
        program.deploy(export=program.checkpoint_of(program.first_release()), body=body)


def test_kept_slot_is_refused_if_the_plan_does_not_keep_the_slot() -> None:
    def body() -> None:
        context = Context.load()
        rollout = plan_rollout(context, components.Application.from_context(context))
        components.KeptSlot("slot", components.KeptSlotArgs(rollout=rollout, slot=components.SlotName.GREEN))

    with pytest.raises(ValueError, match=r"^args\.slot: the plan does not keep green; pass one of \['blue'\]$"):
        program.deploy(export=program.checkpoint_of(program.first_release()), body=body)


def test_monitoring_is_refused_without_the_setting_monitoring() -> None:
    def body() -> None:
        context = Context.load()
        platform = plan_rollout(context, components.Application.from_context(context)).platform
        live = Output.from_input({"release": "1-a", "slot": "blue"})
        args = components.MonitoringArgs(platform=platform, description=context.description, data={}, live=live)
        components.Monitoring("monitoring", args)

    with pytest.raises(components.ConfigError, match=r"^environment\.monitoring: it is not set; "):
        run("dev", body)


def test_monitoring_has_its_scope_as_output() -> None:
    def body() -> None:
        context = Context.load()
        platform = plan_rollout(context, components.Application.from_context(context)).platform
        live = Output.from_input({"release": "1-a", "slot": "blue"})
        args = components.MonitoringArgs(platform=platform, description=context.description, data={}, live=live)
        monitoring = components.Monitoring("monitoring", args)
        pulumi.export("query", monitoring.scope.selector("up", job="api"))

    deployment = program.deploy(env=environment() | {"monitoring": True}, body=body)
    assert deployment.outputs["query"] == 'up{namespace="board-dev",job="api"}'


def test_switch_takes_author_and_encrypted_secrets_from_the_context_and_not_from_global_state(tmp_path: Path) -> None:
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


def test_context_from_values_refuses_an_invalid_value_with_its_path() -> None:
    with pytest.raises(components.ConfigError, match=r"^app\.api\.port: "):
        run(
            "dev",
            lambda: Context.from_values(
                app=project() | {"api": {"image": "a:1", "port": "80"}}, environment=environment()
            ),
        )
