"""Escaping of texts in manifests, because the kubelet replaces `$(NAME)` in commands, arguments and environment variables.

Commands of lifecycle hooks and of `kubectl exec` need no escaping, because the kubelet replaces nothing in them.

Source: Kubernetes 1.34, third_party/forked/golang/expansion (Expand) and its callers: pkg/kubelet/kubelet_pods.go (variables),
container/helpers.go (command and args of a container and of its probes).
"""

import re
from collections.abc import Collection, Iterable

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\((?P<name>[^)]*)\)|(?P<other>[^\x00-\x7f]))")


def literal(text: str, names: Collection[str] = ()) -> str:
    """Escape a text for the kubelet: double every dollar, but only if the kubelet would change the text.

    Return any other text unchanged, such as a script with `$(command)`. An unnecessary escape would restart containers of
    deployed stacks. In `$(NAME)` every name in capitals counts as a variable, because the cluster adds its own variables
    (for Services, or by admission webhooks).

    Args:
        text: the text.
        names: names of the container's environment variables.
    """
    return (
        text.replace("$", "$$") if any(_replaced(reference, names) for reference in _REFERENCE.finditer(text)) else text
    )


def literals(texts: Iterable[str], names: Collection[str] = ()) -> list[str]:
    """Return each text escaped by `literal`."""
    return [literal(text, names) for text in texts]


def _replaced(reference: re.Match[str], names: Collection[str]) -> bool:
    """Return whether the kubelet changes the text of `reference`, a match of `_REFERENCE`.

    The text is `$$`, `$(NAME)`, or a dollar before a non-ASCII character. The kubelet reads a single byte after a dollar, and
    therefore breaks a character of several bytes, such as `ü`.
    """
    name = reference["name"]
    return name is None or name in names or re.fullmatch(r"[A-Z_][A-Z0-9_.-]*", name) is not None
