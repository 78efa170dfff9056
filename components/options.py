"""Options and hooks of resources. Components create their options with these functions only."""

from collections.abc import Callable, Sequence
from typing import Any

from pulumi import (
    ErrorHook,
    ErrorHookArgs,
    Input,
    Resource,
    ResourceHook,
    ResourceHookArgs,
    ResourceHookBinding,
    ResourceOptions,
)
from pulumi.runtime import mocks, settings


def child_options(parent: Resource, *, depends_on: Sequence[Input[Resource]] = (), **more: Any) -> ResourceOptions:
    """Return the options of a child resource.

    Args:
        parent: the parent component.
        depends_on: resources that must exist before the child is created.
        more: additional arguments of `ResourceOptions`, by name.
    """
    return ResourceOptions(parent=parent, depends_on=list(depends_on) or None, **more)


def data_options(protected: bool) -> dict[str, Any]:
    """Return the options that protect a stateful resource against deletion, or no options if `protected` is false.

    `protect` makes Pulumi refuse to delete the resource. If somebody removes the protection from the state,
    `retain_on_delete` keeps the object on its platform, and the next update adopts the object.

    Args:
        protected: whether data is protected (`environment.protect_data`).
    """
    return {"protect": True, "retain_on_delete": True} if protected else {}


def with_dependency(opts: ResourceOptions | None, dependency: Input[Resource] | None) -> ResourceOptions | None:
    """Return `opts` with one more dependency. If `dependency` is None, return `opts` unchanged."""
    if dependency is None:
        return opts
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=[dependency]))


def has_engine() -> bool:
    """Return whether Pulumi's engine runs this program. Unit tests have no engine (`pulumi.runtime.set_mocks`).

    Without an engine no resource is created, and registering a hook raises an error (pulumi 3.256,
    runtime/settings.py, `_get_callbacks`).
    """
    return type(settings.get_monitor()) is not mocks.MockMonitor


def on_error(name: str, explain: Callable[[ErrorHookArgs], bool]) -> ResourceHookBinding:
    """Return a hook that calls `explain` if Pulumi can't create or update a resource. Return no hook without an engine."""
    return ResourceHookBinding(on_error=[ErrorHook(name, explain)]) if has_engine() else ResourceHookBinding()


def before_change(name: str, check: Callable[[ResourceHookArgs], None]) -> list[ResourceHook]:
    """Return a hook that calls `check` before a resource changes. Return no hook without an engine."""
    return [ResourceHook(name, check)] if has_engine() else []
