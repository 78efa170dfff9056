"""Parts of the lab that an environment needs on this machine: an engine, the lab's cluster, or only a cluster's provider."""

from typing import Any, cast

from components import files

from .call import TEMPLATE, Call


def needs(call: Call) -> list[str]:
    """Return the parts by the names that `python3 -m lab` has for them.

    Raises:
        FileError: the stack file is missing or can't be read.
    """
    return parts(_like(call).environment)


def keeper(call: Call) -> str:
    """Return the secrets provider of a new stack for `pulumi stack select --create`.

    Raises:
        FileError: the stack file is missing or can't be read.
    """
    return _like(call).secretsprovider or "default"


def _like(call: Call) -> files.StackFile:
    """Return the stack file, or that of staging for a pull request's environment."""
    project = files.read_project(call.folder).name
    return files.read_stack(call.folder, TEMPLATE if call.is_pull_request else call.env, project)


def parts(environment: dict[str, Any]) -> list[str]:
    """Return the parts for an environment's plain settings, which may be invalid."""
    monitored = bool(environment.get("monitoring"))
    if environment.get("platform") != "kubernetes":
        return ["dev", *(["monitoring"] if monitored else [])]
    if _at(environment, "kubernetes", "context") != "lab":
        return ["provider"]
    replicated = any(_at(environment, "tiers", name, "ha") is True for name in ("database", "cache"))
    archived = _at(environment, "tiers", "database", "backup", "target", "s3") is not None
    data = ["archive" if archived else "data"] if replicated else []
    return ["cluster", *data, *(["operator"] if monitored else [])]


def _at(settings: object, *path: str) -> object:
    for key in path:
        settings = cast(dict[str, object], settings).get(key) if isinstance(settings, dict) else None
    return settings
