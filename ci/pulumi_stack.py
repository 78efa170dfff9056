"""Access to a stack's configuration files, state and history, for the modules of `ci`."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, cast

from pulumi import RunError

from components.config import App, ConfigError, Environment, files, load_stack

from . import process

ROOT = Path.cwd()
FOLDER = ROOT
"""Folder in which Pulumi runs. `fallback_folder` sets another folder if the application's files are invalid."""


def project_file() -> files.Project:
    """Return the content of Pulumi.yaml.

    Raises:
        ConfigError: the file is missing or invalid.
    """
    try:
        return files.read_project(FOLDER)
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def stack_file(stack: str) -> files.StackFile:
    """Return the content of a stack file.

    Raises:
        ConfigError: the file is missing or invalid.
    """
    try:
        return files.read_stack(FOLDER, stack, project_file().name)
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def project() -> str:
    """Return the name of the Pulumi project."""
    return project_file().name


def load(stack: str) -> tuple[App, Environment]:
    """Return the application and the environment from their files. The application has only the stores of the stack.

    Images may lack digests, because `make images` adds the digests later.

    Raises:
        ConfigError: a file is missing or invalid.
    """
    settings = stack_file(stack).environment
    pinned = settings.get("pinned")
    # Validate with `pinned: False`, because images may have no digests yet. Keep a value of `pinned` that is not a
    # boolean, so that the validation refuses it.
    without_pins = unpinned(settings) | ({"pinned": False} if isinstance(pinned, bool) else {})
    app, environment = load_stack(project_file().app, without_pins, stack)
    return app, environment.model_copy(update={"pinned": bool(pinned)})


def unpinned(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return the raw settings of an environment without the images that `make images` writes."""
    settings: dict[str, Any] = {**copy.deepcopy(dict(environment)), "images": {}}
    for backups in backups_of(settings).values():
        backups.pop("image", None)
    return settings


def backups_of(environment: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the raw backup settings of an environment by tier. The values may be invalid."""
    tiers = {tier: _mapping(settings) for tier, settings in _mapping(environment.get("tiers")).items()}
    return {tier: _mapping(settings["backup"]) for tier, settings in tiers.items() if _mapping(settings.get("backup"))}


def _mapping(value: object) -> dict[str, Any]:
    """Return a value of a YAML file if it is a mapping, or an empty mapping."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def pulumi(*words: str, text: str = "") -> str:
    """Run a Pulumi command with a text as its standard input, and return its output.

    Raises:
        RunError: the command fails, or Pulumi is not installed.
    """
    return pulumi_in(FOLDER, *words, text=text)


def pulumi_in(folder: Path, *words: str, text: str = "") -> str:
    """Run a Pulumi command in a folder and return its output. Raises the same errors as `pulumi`."""
    try:
        done = process.capture(["pulumi", *words, "--non-interactive"], cwd=folder, text=text)
    except FileNotFoundError:
        raise RunError("pulumi is not on PATH; run `make lab`, or install Pulumi") from None
    if done.returncode:
        raise RunError(f"`pulumi {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def pulumi_import(stack: str, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint with a state in the form of `pulumi stack export`. The state's secrets stay encrypted.

    Raises:
        RunError: Pulumi refuses the state.
    """
    with NamedTemporaryFile("w", prefix="tiers-state-", suffix=".json") as file:
        json.dump(state, file)
        file.flush()
        pulumi("stack", "import", "--stack", stack, "--file", file.name)


def last_update(stack: str) -> dict[str, Any]:
    """Return the last update from `pulumi stack history`, or an empty mapping if the stack was never updated."""
    history = _parsed(pulumi("stack", "history", "--json", "--page-size", "1", "--stack", stack))
    return history[0] if history else {}


def state(stack: str) -> dict[str, Any]:
    """Return the stack's checkpoint as `pulumi stack export` prints it, or an empty mapping."""
    return _parsed(pulumi("stack", "export", "--stack", stack)) or {}


def secrets(stack: str) -> dict[str, str]:
    """Return the decrypted secrets of the stack file. Never print the result.

    Raises:
        RunError: Pulumi can't decrypt the secrets.
    """
    printed = pulumi("config", "--show-secrets", "--json", "--stack", stack)
    settings: dict[str, dict[str, Any]] = _parsed(printed) or {}
    return settings.get(f"{project()}:secrets", {}).get("objectValue") or {}


def set_secret(stack: str, name: str, value: str) -> None:
    """Write a secret into the stack file, encrypted. Pulumi gets the value on its standard input.

    Raises:
        RunError: Pulumi can't encrypt the value.
    """
    pulumi("config", "set", "--secret", "--path", f"secrets.{name}", "--stack", stack, text=value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise RunError(f"pulumi printed no JSON: {text.strip():.200}; check its version with `make doctor`") from None
