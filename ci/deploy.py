"""Make targets that change an environment or preview a change: up, down, back, promote, move, restore and others."""

import json
import os
import re
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from pulumi import RunError

from . import (
    command_line,
    ephemeral,
    gateway,
    heal,
    images,
    lock,
    missing_secrets,
    process,
    pulumi_environment,
    url_check,
)
from . import move as moving
from . import reseal as resealing
from . import restore as restoring
from .fallback_folder import usable_folder
from .lab_parts import lab_parts, secrets_provider
from .make_call import REPOSITORY, Call, CallError
from .pulumi_stack import load, pulumi

REPORTS = Path("reports")


@contextmanager
def locked(call: Call, *, works_on_state: bool = False) -> Generator[None]:
    """Hold the stack's lock during the `with` block. A second make call for this stack fails before it changes anything.

    Args:
        call: the make call.
        works_on_state: True for a target that works without a stack file.

    Raises:
        LockedError: another make holds the lock.
        CallError: the stack file is missing.
    """
    with lock.hold(pulumi_environment.lock_file(call), f"make {call.target}", call.env):
        if not works_on_state:
            call.refuse_missing_stack_file()
        yield


def up(call: Call) -> int:
    """Deploy the environment, then request its URL and print the response."""
    with locked(call):
        _select(call)
        _heal(call)
        if lab_parts(call)[0] != "dev":
            images.main(call.env, unless_pinned=True, pin=False)
        words = ["--skip-preview"] if call.env == "dev" else []
        if code := _up(call, *_policy_options(call), *words):
            return code
        # If the gateway's volume was lost, the update has created a gateway without routes, so write the routes again.
        gateway.main(call.env)
        _print_address(call)
    return 0


def down(call: Call) -> int:
    """Remove the environment, even if its configuration files are invalid. Pulumi refuses to remove protected data."""
    with locked(call, works_on_state=True), usable_folder(call.env, deploys=False) as folder:
        pulumi("stack", "select", call.env)
        heal.main(call.env)
        heal.remove_one_offs(call.env)
        options = ["--remove"] if call.is_pull_request else []
        command = ["pulumi", "destroy", "--refresh", "--yes", "--non-interactive", *_color_options(), *options]
        if process.run(command, cwd=folder):
            raise RunError(
                "the environment was not removed; if its data is protected, set environment.protect_data: false, then run make up "
                "and make down"
            )
    return 0


def back(call: Call) -> int:
    """Make the previous release live again, even if the configuration files are invalid.

    The policy pack does not run, because this target is for emergencies.
    """
    with locked(call, works_on_state=True), usable_folder(call.env, deploys=True) as folder:
        _heal(call)
        return _up(call, "--skip-preview", folder=folder, TIERS_RELEASE="previous")


def promote(call: Call) -> int:
    """Make the release that waits for promotion live."""
    with locked(call):
        _heal(call)
        return _up(call, *_policy_options(call), "--skip-preview", TIERS_RELEASE="promote")


def _heal(call: Call) -> None:
    """Reconcile the state with the platform, and repair the gateway's configuration."""
    heal.main(call.env)
    gateway.main(call.env)


def heal_stack(call: Call) -> int:
    """Reconcile the stack's state with its platform, for example after an update was killed."""
    os.environ["TIERS_FORCE"] = call["FORCE"]
    with locked(call, works_on_state=True), usable_folder(call.env, deploys=False):
        _heal(call)
    return 0


def preview(call: Call) -> int:
    """Print the changes that `up` would make, and write them to `reports/`."""
    _select(call)
    words = ["pulumi", "preview", "--stack", call.env, "--diff", "--non-interactive", *_policy_options(call)]
    return process.run(words, env=_force_env(call), copy=REPORTS / f"preview-{call.env}.txt")


def drift(call: Call) -> int:
    """Print the differences between the environment, its state and its files, and write them to `reports/`."""
    words = [sys.executable, "-m", "ci.drift", call.env]
    return process.run(words, env=_module_env(), copy=REPORTS / f"drift-{call.env}.txt")


def push_images(call: Call) -> int:
    """Build and push the environment's images.

    The images' digests are written to the stack file if `environment.pinned` is true, if the stack file already has
    digests, or with PIN=yes.
    """
    with locked(call):
        images.main(call.env, unless_pinned=False, pin=bool(call["PIN"]))
    return 0


def move(call: Call) -> int:
    """Move the data of the single database to the database cluster, then deploy a release that uses the cluster.

    If the release fails, the single database accepts writes again.
    """
    process.undo_when_stopped("move")
    with locked(call):
        moving.move(call.env)
    if not command_line.attempt("up", lambda: up(call)):
        return 0
    with locked(call):
        moving.reopen(call.env)
    return 1


def reopen(call: Call) -> int:
    """Make the single database accept writes again."""
    with locked(call):
        moving.reopen(call.env)
    return 0


def restore(call: Call) -> int:
    """Restore a backup into a new database, and deploy a release that uses the new database. With SERVICE, restore a store instead."""
    if call["SERVICE"]:
        with locked(call):
            restoring.restore_store(call.env, call["TO"], call["SERVICE"])
        return 0
    with locked(call):
        restoring.restore(call.env, call["TO"], call["OF"])
    return up(call)


def refresh(call: Call) -> int:
    """Restore and anonymise another environment's backup in a new database, and deploy a release that uses this database."""
    with locked(call):
        restoring.refresh(call.env, call["FROM"])
    return up(call)


def complete_secrets(call: Call) -> int:
    """Write the missing secrets into the stack file. Create the stack if it does not exist."""
    with locked(call):
        _refuse_missing_passphrase(call)
        _select(call)
        missing_secrets.main(call.env)
    return 0


def _refuse_missing_passphrase(call: Call) -> None:
    """Refuse a call that needs a passphrase and has none, because Pulumi's error does not say how to choose one.

    Raises:
        CallError: the secrets provider is a passphrase (the default), and no variable sets the passphrase.
    """
    variables = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
    if secrets_provider(call) in ("default", "passphrase") and not any(name in os.environ for name in variables):
        raise CallError(
            f"{variables[0]} is not set; export the passphrase that encrypts the secrets in Pulumi.{call.env}.yaml, "
            "or choose one for a new stack"
        )


def reseal(call: Call) -> int:
    """Remove the secrets from the state after the passphrase was lost. The next update writes the new secrets."""
    with locked(call):
        resealing.main(call.env)
    return 0


def write_stack_file(call: Call) -> None:
    """If the environment belongs to a pull request, write the environment's stack file."""
    if call.is_pull_request:
        ephemeral.main(call.env)


def _select(call: Call) -> None:
    pulumi("stack", "select", "--create", call.env, "--secrets-provider", secrets_provider(call))


def _up(call: Call, *words: str, folder: Path | None = None, **variables: str) -> int:
    command = ["pulumi", "up", "--stack", call.env, "--yes", "--non-interactive", *_color_options(), *words]
    return process.run(command, cwd=folder, env={**_force_env(call), **variables})


def _force_env(call: Call) -> Mapping[str, str]:
    return {**os.environ, "TIERS_FORCE": call["FORCE"]}


def _policy_options(call: Call) -> list[str]:
    return ["--policy-pack", call.policy] if call.policy else []


def _color_options() -> list[str]:
    # Pulumi can't detect the terminal, because Pulumi writes to a file that the runner reads.
    return ["--color", "always"] if sys.stdout.isatty() and "NO_COLOR" not in os.environ else []


def _module_env() -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def _print_address(call: Call) -> None:
    """Request the environment's URLs, then print the URLs and the live release."""
    outputs: dict[str, Any] = json.loads(pulumi("stack", "output", "--json"))
    url, app = str(outputs.get("url", "")), load(call.env)[0]
    print(flush=True)
    url_check.check(url, app, call.env)
    urls: dict[str, str] = outputs.get("urls", {})
    for service, own_url in urls.items():
        url_check.check_service(own_url, app, service, call.env)
    print(f"\n  open it    {url}")
    for service, own_url in urls.items():
        print(f"  {service:<9}  {own_url}")
    for key in ("release", "go_back"):
        print(f"  {key:<9}  {outputs.get(key, '')}")
    print(f"  logs       {' '.join(['make logs', *_selection(call)])}", flush=True)


def _selection(call: Call) -> Iterator[str]:
    """Yield the make variables of a call (ENV, APP) that differ from the defaults."""
    if call.env != "dev":
        yield f"ENV={call.env}"
    if call.app != ".":
        yield f"APP={quote(call.app)}"


def print_waiting_release(call: Call) -> int:
    """Print the release that waits for promotion as `release=…`. Print nothing if no release waits."""
    try:
        output = pulumi("stack", "output", "waiting", "--stack", call.env)
    except RunError:
        return 0
    if match := re.match(r"(\S+) waits on ", output):
        print(f"release={match[1]}")
    return 0
