"""What a stack's files say, for what runs beside Pulumi."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, cast

from pulumi import RunError

from components import files
from components.config import App, ConfigError, Environment, load_app, load_environment

from . import process

ROOT = Path.cwd()
FOLDER = ROOT
"""Folder in which Pulumi runs: another one where the application's files can't be used (`fallback`)."""


def project_file() -> files.Project:
    """Return what Pulumi.yaml says.

    Raises:
        ConfigError: it is missing or can't be used.
    """
    try:
        return files.read_project(FOLDER)
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def stack_file(stack: str) -> files.StackFile:
    """Return what a stack file says.

    Raises:
        ConfigError: it is missing or can't be used.
    """
    try:
        return files.read_stack(FOLDER, stack, project_file().name)
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def project() -> str:
    """Return the name of the Pulumi project."""
    return project_file().name


def load(stack: str) -> tuple[App, Environment]:
    """Return the application and the environment. Images need not be pinned yet, for a command is there to do that.

    Raises:
        ConfigError: a file is missing or can't be used.
    """
    settings = stack_file(stack).environment
    app = load_app(project_file().app)
    pinned = settings.get("pinned")
    # A flag is left out until the images are named; any other value is the models' to refuse.
    plain = unpinned(settings) | ({"pinned": False} if isinstance(pinned, bool) else {})
    return app, load_environment(plain, app).model_copy(update={"pinned": bool(pinned)})


def unpinned(environment: Mapping[str, Any]) -> dict[str, Any]:
    """An environment's plain settings without the images that `make images` names there."""
    found: dict[str, Any] = {**copy.deepcopy(dict(environment)), "images": {}}
    backups_of(found).pop("image", None)
    return found


def backups_of(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What an environment's plain settings say of backups."""
    found = cast(dict[str, Any], environment)
    for key in ("tiers", "database", "backup"):
        inner = found.get(key)
        found = cast(dict[str, Any], inner) if isinstance(inner, dict) else {}
    return found


def pulumi(*words: str) -> str:
    """Return the output of a Pulumi command.

    Raises:
        RunError: it fails, or Pulumi is not there.
    """
    return pulumi_in(FOLDER, *words)


def pulumi_in(folder: Path, *words: str) -> str:
    """Return the output of a Pulumi command in another application's folder; otherwise as `pulumi`."""
    try:
        done = process.capture(["pulumi", *words, "--non-interactive"], cwd=folder)
    except FileNotFoundError:
        raise RunError("pulumi is not on PATH; run `make lab`, or install it") from None
    if done.returncode:
        raise RunError(f"`pulumi {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def pulumi_import(stack: str, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint by a state in the form of `pulumi stack export`; its secrets stay encrypted.

    Raises:
        RunError: Pulumi refuses it.
    """
    with NamedTemporaryFile("w", prefix="tiers-state-", suffix=".json") as file:
        json.dump(state, file)
        file.flush()
        pulumi("stack", "import", "--stack", stack, "--file", file.name)


def last_update(stack: str) -> dict[str, Any]:
    """Return the last update as `pulumi stack history` has it; empty if there was none."""
    found = _parsed(pulumi("stack", "history", "--json", "--page-size", "1", "--stack", stack))
    return found[0] if found else {}


def state(stack: str) -> dict[str, Any]:
    """Return the checkpoint, as `pulumi stack export` prints it."""
    return _parsed(pulumi("stack", "export", "--stack", stack)) or {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise RunError(
            f"pulumi printed no JSON: {text.strip():.200}; is it the version that `make doctor` names?"
        ) from None
