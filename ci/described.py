"""What a stack's files say, for what runs beside Pulumi."""

import copy
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pulumi import RunError

from components import files
from components.config import App, ConfigError, Environment, load_app, load_environment

ROOT = Path.cwd()


def undo_when_stopped(name: str) -> None:
    """From here on being told to stop, once or often, is a failure like any other: what was begun is undone.

    What `nohup` has it not hear it goes on not to hear.
    """
    told = [each for each in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]

    def stop(number: int, _: object) -> None:
        for each in told:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(f"{name}: it was told to stop ({signal.Signals(number).name})")

    for each in told:
        signal.signal(each, stop)


def project_file() -> files.Project:
    """Return what Pulumi.yaml says.

    Raises:
        ConfigError: it is missing or can't be used.
    """
    try:
        return files.read_project(ROOT)
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def stack_file(stack: str) -> files.StackFile:
    """Return what a stack file says.

    Raises:
        ConfigError: it is missing or can't be used.
    """
    try:
        return files.read_stack(ROOT, stack, project_file().name)
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
    """What a Pulumi command prints.

    Raises:
        RunError: it fails.
    """
    try:
        done = subprocess.run(["pulumi", *words, "--non-interactive"], capture_output=True, text=True, cwd=ROOT)
    except FileNotFoundError:
        raise RunError("pulumi is not on PATH; run `make lab`, or install it") from None
    if done.returncode:
        raise RunError(f"`pulumi {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


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
