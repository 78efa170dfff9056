"""The one source of resource options."""

from collections.abc import Sequence
from typing import Any

from pulumi import Input, Resource, ResourceOptions


def below(parent: Resource, *, depends_on: Sequence[Input[Resource]] = (), **more: Any) -> ResourceOptions:
    """Return the options of a child: its parent, its dependencies, and any further option of `ResourceOptions` in `more`."""
    return ResourceOptions(parent=parent, depends_on=list(depends_on) or None, **more)


def of_data(protected: bool) -> dict[str, Any]:
    """Return further options of a resource that holds data. Pulumi refuses to delete it while it is protected.

    If somebody removes the protection from the state by hand, the object itself stays on its platform when the state drops
    it, and the next update adopts it.
    """
    return {"protect": True, "retain_on_delete": True} if protected else {}
