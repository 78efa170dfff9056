"""Check of kubeconfig files: the context of an environment exists, and its API server answers."""

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import yaml
from pulumi import RunError


def check(context: str) -> None:
    """Check before any change that the kubeconfig has the context and that the context's API server answers.

    Don't check a server behind a proxy: the provider itself reports a failed connection.

    Raises:
        RunError: the context is missing, or the server does not answer.
    """
    files = [Path(name).expanduser() for name in os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)]
    # Don't use Path.is_file, because it raises an error for a name that is too long.
    parts = [_read(file) for file in files if os.path.isfile(file)]  # noqa: PTH113
    contexts = {name: entry for part in reversed(parts) for name, entry in _named(part, "contexts", "context")}
    clusters = {name: entry for part in reversed(parts) for name, entry in _named(part, "clusters", "cluster")}
    if context not in contexts:
        available_contexts = f"contexts: {', '.join(sorted(contexts))}" if contexts else "the file is empty or missing"
        raise RunError(
            f"environment.kubernetes.context: the context {context} is not in {os.pathsep.join(str(file) for file in files)} ({available_contexts}); "
            f"use an existing context, or set KUBECONFIG to the file that has {context} (`make lab-cluster` creates the context lab)"
        )
    target = clusters.get(str(contexts[context].get("cluster")), {})
    host, port = _server(context, str(target.get("server", "")))
    if "proxy-url" in target or (getproxies().get("https") and not proxy_bypass(host)):
        return
    try:
        socket.create_connection((host, port), timeout=5).close()
    except (OSError, UnicodeError) as error:
        raise RunError(
            f"environment.kubernetes.context: the server of context {context} does not answer at {host}:{port} "
            f"({getattr(error, 'strerror', None) or error}); start it, for example with `make lab-cluster`, or name another context"
        ) from None


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        wrong = " ".join(str(error).split())
        raise RunError(
            f"KUBECONFIG: {file} is not YAML ({wrong:.200}); correct the file, or name another file"
        ) from None
    except OSError as error:
        wrong = error.strerror or str(error)
        raise RunError(f"KUBECONFIG: {file} can't be read ({wrong}); let this user read it") from None
    return cast(Mapping[str, Any], content) if isinstance(content, Mapping) else {}


def _named(part: Mapping[str, Any], key: str, inner: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read a list of the kubeconfig, such as `contexts`. Yield the name and the field `inner` of each valid entry."""
    entries: object = part.get(key)
    for entry in cast(list[object], entries) if isinstance(entries, list) else ():
        fields = cast(Mapping[str, object], entry if isinstance(entry, Mapping) else {})
        name, value = fields.get("name"), fields.get(inner)
        if isinstance(name, str) and isinstance(value, Mapping):
            yield name, cast(Mapping[str, Any], value)


def _server(context: str, url: str) -> tuple[str, int]:
    """Return the host and the port in the URL of an API server."""
    try:
        server = urlsplit(url)
        return server.hostname or "", server.port or 443
    except ValueError:
        raise RunError(
            f"environment.kubernetes.context: the server of {context} is {url!r:.80}, which is not a valid address; "
            "correct the address in the kubeconfig, or name another context"
        ) from None
