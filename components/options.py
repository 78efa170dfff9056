"""The one place where resource options come from."""

from collections.abc import Sequence
from typing import Any

from pulumi import Input, Resource, ResourceOptions


def below(parent: Resource, *, depends_on: Sequence[Input[Resource]] = (), **more: Any) -> ResourceOptions:
    """Options of a child: its parent, what it waits for, and what `more` of `ResourceOptions` is set."""
    return ResourceOptions(parent=parent, depends_on=list(depends_on) or None, **more)
