"""Import of a Compose file: `python -m ci.compose FILE [NAME [FOLDER]]` (`make import COMPOSE=path/docker-compose.yml`).

Docker Compose reads the file and all files that the file refers to. Then `conversion.py` converts Compose's output. The
command writes `Pulumi.yaml`, `Pulumi.dev.yaml` and a list of notes about the conversion to a new folder.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import Any

import yaml
from pulumi import RunError

from ci.new import ROOT, encrypted_secrets, free_folder, project_file, refuse_existing_name, stack_file
from ci.random_secret import random_secret
from components.config import ConfigError, load_app, load_environment
from components.config.files import Dumper

from .compose_service import Kind, Note, as_name, in_order
from .conversion import convert
from .validation import validate

NOTES = "IMPORTED.txt"


def main(file: str = "", name: str = "", at: str = "") -> None:
    """Write the application that a Compose file describes, and print the notes about the conversion.

    Raises:
        ConfigError: the converted configuration is invalid.
        RunError: Compose can't read the file, no service fits the tier web or api, or the name or folder is in use.
    """
    path = _existing_file(file)
    compose = normalise(path)
    name = name or as_name(str(compose.get("name") or path.parent.name))
    if not name:
        raise RunError(
            f"NAME: the folder name {path.parent.name!r} gives no valid name; set one in lower-case letters, as in NAME=shop"
        )
    refuse_existing_name(name)
    folder = free_folder(at or f"apps/{name}")
    converted = convert(
        compose,
        name=name,
        base=str(path.parent),
        folder=str(folder),
        password=random_secret,
        profiles=selected_profiles(path.parent, os.environ),
    )
    load_environment(converted.environment, load_app(converted.app))
    file_secrets, missing = _read_secret_files(converted.files, compose)
    values = converted.secrets | file_secrets
    notes_text = "".join(f"{line}\n" for line in note_lines(in_order([*converted.notes, *missing])))
    files = {
        "Pulumi.yaml": project_file(name, folder, _as_yaml(converted.app, 3)),
        "Pulumi.dev.yaml": stack_file(name, folder, _as_yaml(converted.environment, 2))
        + encrypted_secrets(name, values),
        NOTES: notes_text,
    }
    folder.mkdir(parents=True)
    for file_name, text in files.items():
        (folder / file_name).write_text(text)
    relative = str(folder.relative_to(ROOT))
    print(f"{notes_text}\nWrote {relative}, with this list in {NOTES}. Next:\n")
    print(f"  make up APP={quote(relative)}\n  make check APP={quote(relative)}")


def selected_profiles(folder: Path, variables: Mapping[str, str]) -> list[str]:
    """Return the profiles that COMPOSE_PROFILES selects.

    As in Compose, the variable in `variables` takes precedence over the variable in the folder's `.env` file.
    """
    value = variables.get("COMPOSE_PROFILES")
    if value is None:
        try:
            text = (folder / ".env").read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        lines = re.findall(r"^\s*(?:export\s+)?COMPOSE_PROFILES\s*=\s*(.*?)\s*(?:#.*)?$", text, re.MULTILINE)
        value = lines[-1].strip("'\"") if lines else ""
    return [profile.strip() for profile in value.split(",") if profile.strip()]


def _existing_file(file: str) -> Path:
    try:
        path = Path(file).resolve()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):
        pass  # Treat an invalid path, such as a link to itself, as a missing file.
    raise RunError(
        f"{file[:80] or 'COMPOSE'}: the file does not exist; name a Compose file, as in COMPOSE=../shop/docker-compose.yml"
    )


def _read_secret_files(files: Mapping[str, str], compose: Mapping[str, Any]) -> tuple[dict[str, str], list[Note]]:
    """Read the values of secrets from files.

    Returns:
        The value of each secret by name, and a note for each file that is missing, empty or not UTF-8 text.
    """
    declared = {as_name(name): name for name in compose.get("secrets") or ()}
    values, notes = dict[str, str](), list[Note]()
    for secret, file in files.items():
        try:
            value, problem = Path(file).read_text(encoding="utf-8").strip(), "its file is empty"
        except UnicodeDecodeError:
            value, problem = "", "its file is not UTF-8 text"
        except (OSError, ValueError):
            value, problem = "", "its file does not exist here"
        if value:
            values[secret] = value
        else:
            text = f"{problem}; set the value of secrets.{secret} in `make shell`"
            notes.append(Note(kind=Kind.UNCONVERTED, path=f"secrets.{declared.get(secret, secret)}", text=text))
    return values, notes


def normalise(file: Path) -> dict[str, Any]:
    """Return the output of `docker compose config`: the file with resolved variables, anchors, `extends` and `env_file`.

    The services of all profiles are included.

    Raises:
        RunError: Compose is not installed, or the file is invalid.
    """
    done = subprocess.run(
        [*_compose(), "--file", str(file), *_all_profiles(), "config"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        errors = done.stderr.strip().splitlines() or ["it prints no reason"]
        # Compose 1 prints a traceback whose last line is the error.
        raise RunError(
            f"{file}: Compose can't read this file: {errors[-1] if 'Traceback' in done.stderr else ' '.join(errors)}"
        )
    # After a success, standard error contains only warnings, mostly about unset variables.
    sys.stderr.write(done.stderr)
    try:
        return validate(yaml.safe_load(done.stdout))
    except (yaml.YAMLError, RecursionError):
        raise RunError(f"{file}: the output of `docker compose config` is not valid YAML; correct the file") from None
    except RunError as error:
        raise RunError(f"{file}: {error}") from None


def _compose() -> Sequence[str]:
    """Return the command of Compose 2 (Docker's plugin), or of Compose 1 if only that is installed."""
    if _has_plugin():
        return ["docker", "compose"]
    if not shutil.which("docker-compose"):
        raise RunError(
            "Docker Compose is needed to read the file and is not installed; install Docker's Compose plugin"
        )
    return ["docker-compose"]


def _all_profiles() -> Sequence[str]:
    # Compose 1 always includes the services of all profiles.
    return ["--profile", "*"] if _has_plugin() else []


def _has_plugin() -> bool:
    docker = shutil.which("docker")
    return bool(docker) and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode


def note_lines(notes: Sequence[Note]) -> Iterator[str]:
    """Yield the notes as lines, with a heading before the notes of each kind."""
    for kind, group in groupby(notes, key=lambda note: note.kind):
        yield f"\n{kind}"
        for note in group:
            yield f"  {note.path}: {note.text}"


class _Style(Dumper):
    """YAML style of hand-written files: mappings as blocks, lists on one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:  # noqa: ARG002
        return super().represent_sequence(tag, sequence, flow_style=True)


def _as_yaml(value: dict[str, Any], depth: int) -> str:
    text = yaml.dump(value, Dumper=_Style, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110)
    return "".join(f"{'  ' * depth}{line}\n" for line in text.splitlines())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except (ConfigError, RunError) as error:
        sys.exit(f"import: {error}")
    except OSError as error:
        sys.exit(f"import: {error.filename or 'a file'}: {error.strerror}; check its permissions")
