"""Escaping of texts for containers: the kubelet replaces `$(NAME)` in commands, arguments and variables.

Source: Kubernetes 1.34, third_party/forked/golang/expansion (Expand) and its callers: pkg/kubelet/kubelet_pods.go
(variables), container/helpers.go (command and args of a container, and of its probes). The kubelet does not replace
anything in commands of lifecycle hooks and of `exec`.
"""

import re
from collections.abc import Collection, Iterable

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\((?P<name>[^)]*)\)|(?P<other>[^\x00-\x7f]))")


def literal(text: str, names: Collection[str] = ()) -> str:
    """Return a text that the kubelet turns into `text`. `names` are the variables of the container.

    Every dollar is doubled if the kubelet would change the text. Otherwise the text is returned unchanged, because
    its bytes are state of deployed stacks: scripts contain `$(command)`, which is not a variable. The cluster adds
    variables of its own (Services, admission webhooks), so every name in capitals counts as a variable.
    """
    return (
        text.replace("$", "$$") if any(_replaced(reference, names) for reference in _REFERENCE.finditer(text)) else text
    )


def literals(texts: Iterable[str], names: Collection[str] = ()) -> list[str]:
    """Return each text escaped by `literal`."""
    return [literal(text, names) for text in texts]


def _replaced(reference: re.Match[str], names: Collection[str]) -> bool:
    """Return True if the kubelet replaces a reference.

    After a dollar the kubelet reads a single byte as the next character, which breaks characters such as `ü`.
    """
    name = reference["name"]
    return name is None or name in names or re.fullmatch(r"[A-Z_][A-Z0-9_.-]*", name) is not None
