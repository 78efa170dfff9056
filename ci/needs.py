"""The lab's parts that an environment needs on this machine: an engine, the lab's cluster, or only a cluster's provider."""

from typing import Any, cast

from components import files

from .call import TEMPLATE, Call


def needs(call: Call) -> list[str]:
    """Return the parts, as `python3 -m lab` names them.

    Raises:
        FileError: the stack file is missing or can't be read.
    """
    return parts(_like(call).environment)


def keeper(call: Call) -> str:
    """Return the secrets provider of a new stack, as `pulumi stack select --create` takes it.

    Raises:
        FileError: as `needs`.
    """
    return _like(call).secretsprovider or "default"


def _like(call: Call) -> files.StackFile:
    """Return the stack file; that of staging for a pull request's environment, which is made like it."""
    project = files.read_project(call.folder).name
    return files.read_stack(call.folder, TEMPLATE if call.is_pull_request else call.env, project)


def parts(environment: dict[str, Any]) -> list[str]:
    """Return the parts for an environment's plain settings, which no model has checked yet."""
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
