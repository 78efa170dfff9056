"""Check the name of a stack, which is part of the names and labels of resources."""

import re
from collections.abc import Iterator

from .app import App
from .environment import Environment
from .grammar import describe

_STACK_CHARACTERS = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"


def stack_name_errors(stack: str, app: App, environment: Environment) -> Iterator[str]:
    """Yield an error if a label or the namespace on Kubernetes can't contain the name of the stack."""
    if not environment.kubernetes:
        return
    instance, most = f"{app.name}-{stack}", 63
    if len(instance) > most:
        yield f"stack: {describe(instance, 120)} has {len(instance)} characters, but the value of a Kubernetes label has at most {most}; use a shorter stack name"
    elif not re.fullmatch(_STACK_CHARACTERS, instance, re.ASCII):
        yield f"stack: {describe(instance)} can't be the value of a Kubernetes label; end the stack name with a letter or digit"
    elif environment.kubernetes.namespace.name is None and not re.fullmatch(r"[a-z0-9-]+", instance, re.ASCII):
        fix = "use lower-case letters, digits and dashes, or set environment.kubernetes.namespace.name"
        yield f"stack: {describe(instance)} can't be the name of a namespace; {fix}"
    elif environment.kubernetes.namespace_name(instance).startswith("kube-"):
        fix = "use another name, or set environment.kubernetes.namespace.name"
        yield f"app.name: namespace {instance} belongs to the cluster; {fix}"
