"""Settings of the last successful update, kept in the state. Going back uses them when the current files are invalid.

They are the plain values of `app` and `environment`, which contain no secrets, and the encrypted secrets of the stack file.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pulumi

from . import config, files
from .checkpoint import SLOT, SWITCH, Checkpoint
from .config import ConfigError, Settings
from .release import Ask, Slot

RECORDED = "settings"
"""Name of the output that stores the settings."""


def load(root: Path, answer: Callable[[], Checkpoint]) -> Settings:
    """Return the settings from the files. If the files are invalid while going back, return those of the last update.

    Args:
        root: the application's folder.
        answer: returns the checkpoint.

    Raises:
        ConfigError: the files are invalid, and this update does not go back or no update has succeeded before.
    """
    try:
        if problems := files.problems(root, pulumi.get_stack()):
            raise ConfigError(problems)
        return config.load()
    except ConfigError as error:
        plain = recall(answer()) if os.environ.get("TIERS_RELEASE") == Ask.PREVIOUS else None
        if not plain:
            raise
        pulumi.log.warn(
            f"the files are invalid, so this update uses the settings of the last one; correct them:\n{error}"
        )
        return replace(config.settings_of(plain["app"], plain["environment"]), plain=plain)


def record(plain: Mapping[str, Any]) -> str:
    """Return the settings as the JSON text that the state keeps."""
    secrets = {} if "secrets" in plain else {"secrets": _encrypted(Path(pulumi.get_root_directory()))}
    return json.dumps({**secrets, **plain}, sort_keys=True)


def _encrypted(root: Path) -> dict[str, Any]:
    """Return the encrypted secrets of the stack file by name. Secrets in plain text are left out."""
    try:
        entry = files.read(root / f"Pulumi.{pulumi.get_stack()}.yaml").get("config")
    except files.FileError:
        return {}
    values = cast(dict[str, Any], entry).get(f"{pulumi.get_project()}:secrets") if isinstance(entry, dict) else None
    named = cast(dict[str, Any], values) if isinstance(values, dict) else {}
    return {
        name: value for name, value in named.items() if isinstance(value, dict) and set(cast(Any, value)) == {"secure"}
    }


def recall(known: Checkpoint) -> dict[str, Any] | None:
    """Return the plain settings of the last successful update, or None if the state has none."""
    recorded = text(known)
    return cast(dict[str, Any], json.loads(recorded)) if recorded else None


def text(known: Checkpoint) -> str | None:
    """Return the recorded JSON text from the switch's component, or after a failed update from a kept slot; None if there is none."""
    sources = [known.of(SWITCH, "switch"), *(known.of(SLOT, slot) for slot in Slot)]
    return next((str(entry.outputs[RECORDED]) for entry in sources if entry and entry.outputs.get(RECORDED)), None)
