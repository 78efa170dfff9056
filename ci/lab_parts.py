"""Parts of the lab that an environment needs on this machine, such as a Docker engine or the lab's cluster."""

from typing import Any, cast

from components.config import files
from components.model import services

from .make_call import TEMPLATE, Call


def lab_parts(call: Call) -> list[str]:
    """Return the parts of the lab that a make call needs. The names are those of the command `python3 -m lab up`.

    Raises:
        FileError: the stack file is missing or can't be read.
    """
    return required_parts(_stack_file(call).environment)


def secrets_provider(call: Call) -> str:
    """Return the `secretsprovider` of the stack file, or `default`. `pulumi stack select --create` uses it for a new stack.

    Raises:
        FileError: the stack file is missing or can't be read.
    """
    return _stack_file(call).secretsprovider or "default"


def _stack_file(call: Call) -> files.StackFile:
    """Return the stack file of the environment, or of staging if the environment belongs to a pull request."""
    project = files.read_project(call.folder).name
    return files.read_stack(call.folder, TEMPLATE if call.is_pull_request else call.env, project)


def required_parts(environment: dict[str, Any]) -> list[str]:
    """Return the parts of the lab that an environment needs. `environment` may contain invalid settings."""
    monitored = bool(environment.get("monitoring"))
    if environment.get("platform") != "kubernetes":
        return ["dev", *(["monitoring"] if monitored else [])]
    if _at(environment, "kubernetes", "context") != "lab":
        return ["provider"]
    replicated = any(
        _at(environment, "tiers", record.name, "ha") is True for record in services.common_catalogue().data if record.ha
    )
    archived = _at(environment, "tiers", "database", "backup", "target", "s3") is not None
    data = ["archive" if archived else "data"] if replicated else []
    return ["cluster", *data, *(["operator"] if monitored else [])]


def _at(settings: object, *path: str) -> object:
    for key in path:
        settings = cast(dict[str, object], settings).get(key) if isinstance(settings, dict) else None
    return settings
