"""Settings of the last successful update, recorded in the state. A rollback uses them if the current files are invalid.

The settings are the values of `app` and `environment`, and the encrypted secrets of the stack file.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pulumi

from .. import config
from ..config import ConfigError, Settings, files
from .checkpoint import SLOT, SWITCH, Checkpoint
from .planner import ReleaseAction, Slot

RECORDED = "settings"
"""Name of the output that stores the settings. Don't change the name, because states of stacks contain it."""


def load(root: Path, stack: str, variables: Mapping[str, str], read_checkpoint: Callable[[], Checkpoint]) -> Settings:
    """Return the settings from the files. For a rollback with invalid files, return the settings of the last successful update.

    Args:
        root: folder of Pulumi.yaml.
        stack: name of the stack.
        variables: environment variables. TIERS_RELEASE requests a rollback.
        read_checkpoint: function that returns the checkpoint of the stack.

    Raises:
        ConfigError: the files are invalid, and the recorded settings can't replace them. Either this update is no rollback, or
            the state has no recorded settings.
    """
    try:
        if problems := files.problems(root, stack):
            raise ConfigError(problems)
        return config.load()
    except ConfigError as error:
        plain = recall(read_checkpoint()) if variables.get("TIERS_RELEASE") == ReleaseAction.PREVIOUS else None
        if not plain:
            raise
        pulumi.log.warn(
            f"the files are invalid, so this rollback uses the settings of the last successful update; correct the files:\n{error}"
        )
        return replace(config.settings_of(plain["app"], plain["environment"]), plain=plain)


def record(plain: Mapping[str, Any], stack_file: Path, project: str) -> str:
    """Return the JSON text of the settings, to record in the state.

    Args:
        plain: values of `app` and `environment`.
        stack_file: path of Pulumi.<stack>.yaml, which contains the encrypted secrets.
        project: name of the Pulumi project.
    """
    secrets = {} if "secrets" in plain else {"secrets": _encrypted(stack_file, project)}
    return json.dumps({**secrets, **plain}, sort_keys=True)


def _encrypted(stack_file: Path, project: str) -> dict[str, Any]:
    """Return the encrypted secrets of the stack file by name. Secrets in plain text are left out."""
    try:
        entry = files.read(stack_file).get("config")
    except files.FileError:
        return {}
    values = cast(dict[str, Any], entry).get(f"{project}:secrets") if isinstance(entry, dict) else None
    named = cast(dict[str, Any], values) if isinstance(values, dict) else {}
    return {
        name: value for name, value in named.items() if isinstance(value, dict) and set(cast(Any, value)) == {"secure"}
    }


def recall(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the recorded settings of the last successful update, or None if the state has no recorded settings."""
    settings = settings_json(checkpoint)
    return cast(dict[str, Any], json.loads(settings)) if settings else None


def settings_json(checkpoint: Checkpoint) -> str | None:
    """Return the recorded settings as JSON text, or None if the state has no recorded settings.

    The text is an output of the component `Switch`. A failed update may remove this output, so the components of kept
    slots have a copy.
    """
    sources = [checkpoint.find(SWITCH, "switch"), *(checkpoint.find(SLOT, slot) for slot in Slot)]
    return next((str(entry.outputs[RECORDED]) for entry in sources if entry and entry.outputs.get(RECORDED)), None)
