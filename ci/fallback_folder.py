"""Temporary folder for Pulumi, to remove or roll back a stack that has invalid files.

The folder has links to the application's files except Pulumi.yaml and the stack file. These two files are generated from
the state, which contains the encryption salt and the settings of the last successful update
(`components/release/recorded.py`).
"""

import json
import os
import re
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from pulumi import RunError

from components.config import ConfigError, files
from components.release import recorded
from components.release.checkpoint import parse

from . import pulumi_stack
from .make_call import REPOSITORY

Document = dict[str, Any]


@contextmanager
def usable_folder(stack: str, *, deploys: bool) -> Generator[Path]:
    """Yield the application's folder, or a folder generated from the state if the application's files are invalid.

    During the `with` block, `pulumi_stack.pulumi` runs its commands in the yielded folder.

    Args:
        stack: the stack's name.
        deploys: True if the command needs the environment's settings, as an update does. A removal works without settings.

    Raises:
        ConfigError: the files are invalid, and the state has no settings to deploy with.
        RunError: Pulumi can't read the state.
    """
    problem = _problem(stack, deploys)
    if not problem:
        yield pulumi_stack.FOLDER
        return
    app_folder = pulumi_stack.FOLDER
    with TemporaryDirectory(prefix="tiers-") as name:
        folder = Path(name).resolve()
        for path in app_folder.iterdir():
            if path.name not in ("Pulumi.yaml", f"Pulumi.{stack}.yaml"):
                (folder / path.name).symlink_to(path)
        project = _project(app_folder)
        (folder / "Pulumi.yaml").write_text(files.as_json(_project_document(project, folder, app_folder)))
        state = _state(folder, stack, problem)
        settings = recorded.recall(parse(state))
        if deploys and not settings:
            raise ConfigError(problem)
        (folder / "Pulumi.yaml").write_text(files.as_json(_project_document(project, folder, app_folder, settings)))
        (folder / f"Pulumi.{stack}.yaml").write_text(files.as_json(_stack_document(project, state, settings)))
        print(
            f"  the files are invalid, so the settings of the last update are used; correct the files:\n{_indented(problem)}",
            flush=True,
        )
        pulumi_stack.FOLDER = folder
        try:
            yield folder
        finally:
            pulumi_stack.FOLDER = app_folder


def _problem(stack: str, deploys: bool) -> str:
    """Return the error in the application's files, or an empty text if the command can use the files."""
    try:
        if deploys:
            pulumi_stack.load(stack)
        else:
            pulumi_stack.stack_file(stack)
    except ConfigError as error:
        return str(error)
    return ""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _project(folder: Path) -> str:
    """Return the project's name from Pulumi.yaml, even if the file is not valid YAML."""
    try:
        text = (folder / "Pulumi.yaml").read_text(errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^name:[ \t]*[\"']?([\w.-]+)", text, re.MULTILINE)
    if not match:
        raise ConfigError(
            "Pulumi.yaml: the line `name: …` is missing, which is needed to find the state; add this line"
        )
    return match[1]


def _project_document(
    name: str, folder: Path, application: Path, settings: Mapping[str, Any] | None = None
) -> Document:
    virtualenv = os.path.relpath(REPOSITORY / ".venv", folder)
    document: Document = {
        "name": name,
        "main": os.path.relpath(REPOSITORY, folder),
        "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": virtualenv}},
    }
    if settings:
        document["config"] = {"app": {"value": settings["app"]}}
    return document | _backend(application)


def _backend(application: Path) -> Document:
    """Return the key `backend` of Pulumi.yaml with its value, or an empty mapping if the key is not set.

    The rest of the file may be invalid YAML.
    """
    try:
        backend = files.read(application / "Pulumi.yaml").get("backend")
    except files.FileError:
        text = (application / "Pulumi.yaml").read_text(errors="replace")
        url = re.search(r"^backend:[ \t]*\n[ \t]+url:[ \t]*[\"']?([^\s\"']+)", text, re.MULTILINE)
        backend = {"url": url[1]} if url else None
    return {"backend": backend} if backend else {}


def _state(folder: Path, stack: str, problem: str) -> Document:
    """Return the stack's state.

    Raises:
        ConfigError: the stack does not exist, or Pulumi is not installed. The message contains `problem`.
        RunError: Pulumi can't read the state.
    """
    command = ["pulumi", "stack", "export", "--stack", stack, "--non-interactive"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError(f"{problem}\npulumi is not on PATH; run `make lab`, or install Pulumi") from None
    output = (done.stderr or done.stdout).strip()
    if done.returncode and "no stack named" in output:
        raise ConfigError(problem)
    if done.returncode:
        raise RunError(f"`{' '.join(command)}` failed: {output}")
    return json.loads(done.stdout)


def _stack_document(project: str, state: Mapping[str, Any], settings: Mapping[str, Any] | None) -> Document:
    """Return the content of the stack file: the secrets provider of the state, and `settings` if there are any."""
    deployment = cast(Mapping[str, Any], state.get("deployment") or {})
    secrets_provider = cast(Mapping[str, Any], deployment.get("secrets_providers") or {})
    provider_state = cast(Mapping[str, Any], secrets_provider.get("state") or {})
    keys = {"salt": "encryptionsalt", "url": "secretsprovider", "encryptedkey": "encryptedkey"}
    document: Document = {name: provider_state[key] for key, name in keys.items() if provider_state.get(key)}
    if settings:
        config = {f"{project}:environment": settings["environment"]}
        config |= {f"{project}:secrets": settings["secrets"]} if settings.get("secrets") else {}
        document["config"] = config
    return document
