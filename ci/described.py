"""What a stack's files say, for what runs beside Pulumi."""

import copy
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pulumi import RunError

from components.config import App, Environment, load_app, load_environment

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


def project() -> str:
    """The name of the Pulumi project."""
    return str(yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["name"])


def load(stack: str) -> tuple[App, Environment]:
    """The application and the environment; images need not be pinned yet, for a command is there to do that.

    Raises:
        ConfigError: the files are there and can't be used.
    """
    described = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
    settings = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    app = load_app(described["config"]["app"]["value"])
    given = cast(dict[str, Any], settings.get(f"{described['name']}:environment") or {})
    environment = load_environment({**unpinned(given), "pinned": False}, app)
    return app, environment.model_copy(update={"pinned": bool(given.get("pinned"))})


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
    done = subprocess.run(["pulumi", *words, "--non-interactive"], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RunError(f"`pulumi {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def last_update(stack: str) -> dict[str, Any]:
    """The last update as `pulumi stack history` tells of it; empty if there was none."""
    found: list[dict[str, Any]] = json.loads(pulumi("stack", "history", "--json", "--page-size", "1", "--stack", stack))
    return found[0] if found else {}


def state(stack: str) -> dict[str, Any]:
    """The checkpoint, as `pulumi stack export` prints it."""
    return json.loads(pulumi("stack", "export", "--stack", stack))
