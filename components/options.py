"""The one place where resource options come from."""

from collections.abc import Sequence
from typing import Any

from pulumi import Input, Resource, ResourceOptions


def below(parent: Resource, *, depends_on: Sequence[Input[Resource]] = (), **more: Any) -> ResourceOptions:
    """Options of a child: its parent, what it waits for, and what `more` of `ResourceOptions` is set."""
    return ResourceOptions(parent=parent, depends_on=list(depends_on) or None, **more)


def of_data(protected: bool) -> dict[str, Any]:
    """Further options of whatever holds data: where it is protected the engine deletes it for nobody.

    And if somebody takes that off in the state by hand, what is deleted there stays where it is: the next update takes it up.
    """
    return {"protect": True, "retain_on_delete": True} if protected else {}
