"""A folder in which Pulumi can work on a stack whose files can't be used: what is deployed can be removed, or gone back to, all the same.

The folder has the application's files by links. Pulumi.yaml and the stack file are made from the state: its salt, and the settings
of the last update that succeeded (`components/recorded.py`).
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

from components import files, recorded
from components.checkpoint import parse
from components.config import ConfigError

from . import described

REPOSITORY = Path(__file__).parents[1]
Document = dict[str, Any]


@contextmanager
def usable_folder(stack: str, *, deploys: bool) -> Generator[Path]:
    """Yield the application's folder, or one made from the state if the application's files can't be used.

    Commands of Pulumi (`described.pulumi`) run in it for the length of the block.

    Args:
        stack: the stack's name.
        deploys: True for an update, which needs settings; False for a removal, which needs none.

    Raises:
        ConfigError: the files can't be used, and the state has no settings to deploy with.
        RunError: Pulumi can't read the state.
    """
    problem = _problem(stack, deploys)
    if not problem:
        yield described.FOLDER
        return
    before = described.FOLDER
    with TemporaryDirectory(prefix="tiers-") as name:
        folder = Path(name).resolve()
        for path in before.iterdir():
            if path.name not in ("Pulumi.yaml", f"Pulumi.{stack}.yaml"):
                (folder / path.name).symlink_to(path)
        project = _project(before)
        (folder / "Pulumi.yaml").write_text(files.as_json(_project_document(project, folder, before)))
        state = _state(folder, stack, problem)
        settings = recorded.recall(parse(state))
        if deploys and not settings:
            raise ConfigError(problem)
        (folder / "Pulumi.yaml").write_text(files.as_json(_project_document(project, folder, before, settings)))
        (folder / f"Pulumi.{stack}.yaml").write_text(files.as_json(_stack_document(project, state, settings)))
        print(
            f"  the files can't be used, so the state says what is deployed; mend them:\n{_indented(problem)}",
            flush=True,
        )
        described.FOLDER = folder
        try:
            yield folder
        finally:
            described.FOLDER = before


def _problem(stack: str, deploys: bool) -> str:
    """Return what is wrong with the application's files for a command, or nothing."""
    try:
        if deploys:
            described.load(stack)
        else:
            described.stack_file(stack)
    except ConfigError as error:
        return str(error)
    return ""


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _project(folder: Path) -> str:
    """Return the project's name, from a file that may be no YAML."""
    try:
        text = (folder / "Pulumi.yaml").read_text(errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^name:[ \t]*[\"']?([\w.-]+)", text, re.MULTILINE)
    if not found:
        raise ConfigError("Pulumi.yaml: it has no line `name: …`, and the state is found by that; put the line back")
    return found[1]


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
    """Return where Pulumi.yaml says that state is kept, also if the rest of it is no YAML."""
    try:
        found = files.read(application / "Pulumi.yaml").get("backend")
    except files.FileError:
        text = (application / "Pulumi.yaml").read_text(errors="replace")
        url = re.search(r"^backend:[ \t]*\n[ \t]+url:[ \t]*[\"']?([^\s\"']+)", text, re.MULTILINE)
        found = {"url": url[1]} if url else None
    return {"backend": found} if found else {}


def _state(folder: Path, stack: str, problem: str) -> Document:
    """Return the stack's state. Without a stack the problem of the files is what a person has to mend."""
    command = ["pulumi", "stack", "export", "--stack", stack, "--non-interactive"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise ConfigError(f"{problem}\npulumi is not on PATH; run `make lab`, or install it") from None
    said = (done.stderr or done.stdout).strip()
    if done.returncode and "no stack named" in said:
        raise ConfigError(problem)
    if done.returncode:
        raise RunError(f"`{' '.join(command)}` failed: {said}")
    return json.loads(done.stdout)


def _stack_document(project: str, state: Mapping[str, Any], settings: Mapping[str, Any] | None) -> Document:
    """Return a stack file with what decrypts the state's secrets, and the settings if there are any."""
    deployment = cast(Mapping[str, Any], state.get("deployment") or {})
    keeper = cast(Mapping[str, Any], deployment.get("secrets_providers") or {})
    given = cast(Mapping[str, Any], keeper.get("state") or {})
    keys = {"salt": "encryptionsalt", "url": "secretsprovider", "encryptedkey": "encryptedkey"}
    document: Document = {name: given[key] for key, name in keys.items() if given.get(key)}
    if settings:
        config = {f"{project}:environment": settings["environment"]}
        config |= {f"{project}:secrets": settings["secrets"]} if settings.get("secrets") else {}
        document["config"] = config
    return document
