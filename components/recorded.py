"""Settings of the last update that succeeded, kept in the state: going back works on them where today's files can't be used.

They are the plain values of `app` and `environment`, which hold no secrets, and the stack file's secrets as they are there: encrypted.
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
"""Name of the output."""


def load(root: Path, answer: Callable[[], Checkpoint]) -> Settings:
    """Return the settings that the files describe, or those of the last update if the files can't be used on the way back.

    Args:
        root: the application's folder.
        answer: returns the checkpoint.

    Raises:
        ConfigError: the files can't be used, and this is another update than the way back, or none has succeeded before.
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
            f"the files can't be used, so this works with the settings of the last update; mend them:\n{error}"
        )
        return replace(config.settings_of(plain["app"], plain["environment"]), plain=plain)


def record(plain: Mapping[str, Any]) -> str:
    """Return the settings as the text that the state keeps."""
    secrets = {} if "secrets" in plain else {"secrets": _encrypted(Path(pulumi.get_root_directory()))}
    return json.dumps({**secrets, **plain}, sort_keys=True)


def _encrypted(root: Path) -> dict[str, Any]:
    """Return the secrets of the stack file by name, in the form it has them in. One that is not encrypted is left out."""
    try:
        found = files.read(root / f"Pulumi.{pulumi.get_stack()}.yaml").get("config")
    except files.FileError:
        return {}
    values = cast(dict[str, Any], found).get(f"{pulumi.get_project()}:secrets") if isinstance(found, dict) else None
    named = cast(dict[str, Any], values) if isinstance(values, dict) else {}
    return {
        name: value for name, value in named.items() if isinstance(value, dict) and set(cast(Any, value)) == {"secure"}
    }


def recall(known: Checkpoint) -> dict[str, Any] | None:
    """Return the plain settings of the last update that succeeded, or None if the state has none."""
    found = text(known)
    return cast(dict[str, Any], json.loads(found)) if found else None


def text(known: Checkpoint) -> str | None:
    """Return the same as the text that the state keeps: in the switch's component, or in a slot that stayed when an update failed."""
    places = [known.of(SWITCH, "switch"), *(known.of(SLOT, slot) for slot in Slot)]
    return next((str(entry.outputs[RECORDED]) for entry in places if entry and entry.outputs.get(RECORDED)), None)
