"""Texts of containers that arrive as they are written: the kubelet replaces `$(NAME)` in commands, arguments and variables.

Source: Kubernetes 1.34, third_party/forked/golang/expansion (Expand) and its callers: pkg/kubelet/kubelet_pods.go (variables),
container/helpers.go (command and args of a container, and of its probes). Commands of lifecycle hooks and of `exec` are passed on.
"""

import re
from collections.abc import Collection, Iterable

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\((?P<name>[^)]*)\)|(?P<other>[^\x00-\x7f]))")


def literal(text: str, names: Collection[str] = ()) -> str:
    """Return a text that the kubelet turns into `text`. `names` are the variables of the container.

    A text that the kubelet leaves alone is returned as it is, for its bytes are state of deployed stacks: scripts have
    `$(command)`, which is no variable. The cluster adds variables of its own (Services, admission webhooks), so every name in
    capitals counts as one. In a text that would change each dollar is doubled.
    """
    return text.replace("$", "$$") if any(_replaced(found, names) for found in _REFERENCE.finditer(text)) else text


def literals(texts: Iterable[str], names: Collection[str] = ()) -> list[str]:
    """Return each text as `literal` does."""
    return [literal(text, names) for text in texts]


def _replaced(found: re.Match[str], names: Collection[str]) -> bool:
    """Return True if the kubelet writes something else. After a dollar it takes one byte for a character, which ü is not."""
    name = found["name"]
    return name is None or name in names or re.fullmatch(r"[A-Z_][A-Z0-9_.-]*", name) is not None
