"""Targets that change an environment: up, down, back, promote, preview, and releases onto another database."""

import json
import os
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pulumi import RunError

from . import answer, ephemeral, gateway, heal, images, lock, process, surroundings
from .call import Call
from .described import load, pulumi
from .fallback import usable_folder
from .needs import keeper, needs

REPORTS = Path("reports")


@contextmanager
def locked(call: Call, *, works_on_state: bool = False) -> Generator[None]:
    """Hold the stack's lock during the block. A second make fails at once instead of half-way.

    Raises:
        LockedError: another make holds the lock.
        CallError: the stack file is missing.
    """
    with lock.alone(surroundings.lock(call), f"make {call.target}", call.env):
        if not works_on_state:
            call.refuse_missing_stack_file()
        yield


def up(call: Call) -> int:
    """Deploy, then print the URL and the response of a real request."""
    with locked(call):
        _select(call)
        _heal(call)
        if needs(call)[0] != "dev":
            images.main(call.env, unless_pinned=True, pin=False)
        words = ["--skip-preview"] if call.env == "dev" else []
        if code := _up(call, *_held_to(call), *words):
            return code
        # A gateway that was replaced around an empty volume routes nowhere, although no slot has changed.
        gateway.main(call.env)
        _tell(call)
    return 0


def down(call: Call) -> int:
    """Remove the environment, whatever its files contain; protected data prevents it."""
    with locked(call, works_on_state=True), usable_folder(call.env, deploys=False) as folder:
        pulumi("stack", "select", call.env)
        heal.main(call.env)
        options = ["--remove"] if call.is_pull_request else []
        command = ["pulumi", "destroy", "--refresh", "--yes", "--non-interactive", *_colours(), *options]
        if process.run(command, cwd=folder):
            raise RunError(
                "nothing was removed if data is protected here; to remove it too, set environment.protect_data: false, "
                "make up, make down"
            )
    return 0


def back(call: Call) -> int:
    """Make the previous release live again, whatever the files contain.

    The policy pack is not run, because this is for emergencies.
    """
    with locked(call, works_on_state=True), usable_folder(call.env, deploys=True) as folder:
        _heal(call)
        return _up(call, "--skip-preview", folder=folder, TIERS_RELEASE="previous")


def promote(call: Call) -> int:
    """Switch to the release that waits for promotion."""
    with locked(call):
        _heal(call)
        return _up(call, *_held_to(call), "--skip-preview", TIERS_RELEASE="promote")


def _heal(call: Call) -> None:
    """Reconcile the state with the platform, and make sure that the gateway can start with its configuration."""
    heal.main(call.env)
    gateway.main(call.env)


def healed(call: Call) -> int:
    """Heal the stack after a killed update."""
    os.environ["TIERS_FORCE"] = call["FORCE"]
    with locked(call, works_on_state=True), usable_folder(call.env, deploys=False):
        _heal(call)
    return 0


def preview(call: Call) -> int:
    """Print what `up` would do, and write it to `reports/`."""
    _select(call)
    words = ["pulumi", "preview", "--stack", call.env, "--diff", "--non-interactive", *_held_to(call)]
    return process.run(words, env=_forced(call), copy=REPORTS / f"preview-{call.env}.txt")


def drift(call: Call) -> int:
    """Print differences between the environment and its files, and write them to `reports/`."""
    words = [sys.executable, "-m", "ci.drift", call.env]
    return process.run(words, env=_with_modules(), copy=REPORTS / f"drift-{call.env}.txt")


def bring_images(call: Call) -> int:
    """Build and push the images, and write their digests where images are pinned."""
    with locked(call):
        images.main(call.env, unless_pinned=False, pin=bool(call["PIN"]))
    return 0


def move(call: Call) -> int:
    """Move the single database into the database cluster. If the release fails the single database takes writes again."""
    from . import edge
    from . import move as moving

    process.undo_when_stopped("move")
    with locked(call):
        moving.move(call.env)
    if not edge.attempt("up", lambda: up(call)):
        return 0
    with locked(call):
        moving.reopen(call.env)
    return 1


def reopen(call: Call) -> int:
    """Make the single database accept writes again."""
    from . import move as moving

    with locked(call):
        moving.reopen(call.env)
    return 0


def restore(call: Call) -> int:
    """Restore data into a new database, and deploy a release that uses it."""
    from . import restore as restoring

    with locked(call):
        restoring.restore(call.env, call["TO"], call["OF"])
    return up(call)


def refresh(call: Call) -> int:
    """Copy another environment's data, anonymised, and deploy a release that uses it."""
    from . import restore as restoring

    with locked(call):
        restoring.refresh(call.env, call["FROM"])
    return up(call)


def reseal(call: Call) -> int:
    """Encrypt the state under the stack file's passphrase."""
    from . import reseal as resealing

    with locked(call):
        resealing.main(call.env)
    return 0


def write_stack_file(call: Call) -> None:
    """Write the stack file of a pull request's environment."""
    if call.is_pull_request:
        ephemeral.main(call.env)


def _select(call: Call) -> None:
    pulumi("stack", "select", "--create", call.env, "--secrets-provider", keeper(call))


def _up(call: Call, *words: str, folder: Path | None = None, **variables: str) -> int:
    command = ["pulumi", "up", "--stack", call.env, "--yes", "--non-interactive", *_colours(), *words]
    return process.run(command, cwd=folder, env={**_forced(call), **variables})


def _forced(call: Call) -> Mapping[str, str]:
    return {**os.environ, "TIERS_FORCE": call["FORCE"]}


def _held_to(call: Call) -> list[str]:
    return ["--policy-pack", call.policy] if call.policy else []


def _colours() -> list[str]:
    # Pulumi writes into the runner's file, which is no terminal, although the runner's output may be one.
    return ["--color", "always"] if sys.stdout.isatty() and "NO_COLOR" not in os.environ else []


def _with_modules() -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


def _tell(call: Call) -> None:
    """Request the URL, and print the environment's address and its live release."""
    outputs: dict[str, Any] = json.loads(pulumi("stack", "output", "--json"))
    url = str(outputs.get("url", ""))
    print(flush=True)
    answer.check(url, load(call.env)[0], call.env)
    print(f"\n  open it    {url}")
    for key in ("release", "go_back"):
        print(f"  {key:<9}  {outputs.get(key, '')}")
    print("  logs       pulumi stack output logs, in `make shell`", flush=True)


def waiting(call: Call) -> int:
    """Print the release that waits for promotion as `release=…`, or nothing."""
    try:
        output = pulumi("stack", "output", "waiting", "--stack", call.env)
    except RunError:
        return 0
    if match := re.match(r"(\S+) waits on ", output):
        print(f"release={match[1]}")
    return 0
