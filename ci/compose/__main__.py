"""Import of a Compose file: `python -m ci.compose FILE [NAME [FOLDER]]` (`make import COMPOSE=path/docker-compose.yml`).

Compose itself reads the file and all files it refers to; `carried.py` converts the result. The command writes
`Pulumi.yaml`, `Pulumi.dev.yaml` and a list of the parts that were not converted, to a new folder.
"""

import os
import secrets
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

from ci.new import ROOT, free_folder, project_file, refuse_taken, sealed, stack_file
from components.config import ConfigError, load_app, load_environment
from components.files import Dumper

from .carried import carried
from .given import Kind, Note, as_name, in_order
from .shape import checked

NOTES = "IMPORTED.txt"


def main(file: str = "", name: str = "", at: str = "") -> None:
    """Write the application that a Compose file describes, and print the parts that were not converted.

    Raises:
        ConfigError: the models refuse the result.
        RunError: Compose can't read the file, no service can be routed to, or the name or folder is in use.
    """
    path = _existing(file)
    compose = normalised(path)
    name = name or as_name(str(compose.get("name") or path.parent.name))
    if not name:
        raise RunError(
            f"NAME: the project {path.parent.name} has no name of small letters; give it one, as in NAME=shop"
        )
    refuse_taken(name)
    folder = free_folder(at or f"apps/{name}")
    converted = carried(
        compose,
        name=name,
        base=str(path.parent),
        folder=str(folder),
        password=lambda: secrets.token_hex(24),
        profiles=os.environ.get("COMPOSE_PROFILES", "").split(","),
    )
    load_environment(converted.environment, load_app(converted.app))
    file_secrets, missing = _from_files(converted.files, compose)
    values = converted.secrets | file_secrets
    listed = "".join(f"{line}\n" for line in lines(in_order([*converted.notes, *missing])))
    files = {
        "Pulumi.yaml": project_file(name, folder, _indented(converted.app, 3)),
        "Pulumi.dev.yaml": stack_file(name, folder, _indented(converted.environment, 2)) + sealed(name, values),
        NOTES: listed,
    }
    folder.mkdir(parents=True)
    for file_name, text in files.items():
        (folder / file_name).write_text(text)
    relative = str(folder.relative_to(ROOT))
    print(f"{listed}\n{relative} is there, with this list in {NOTES}. Next:\n")
    print(f"  make up APP={quote(relative)}\n  make check APP={quote(relative)}")


def _existing(file: str) -> Path:
    try:
        path = Path(file).resolve()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):
        pass  # The name is too long, or is a link to itself: the file does not exist.
    raise RunError(
        f"{file[:80] or 'COMPOSE'}: there is no such file; name one, as in COMPOSE=../shop/docker-compose.yml"
    )


def _from_files(files: Mapping[str, str], compose: Mapping[str, Any]) -> tuple[dict[str, str], list[Note]]:
    """Return the values of secrets that are in files, and a note for each file that has none."""
    declared = {as_name(name): name for name in compose.get("secrets") or ()}
    values, notes = dict[str, str](), list[Note]()
    for secret, file in files.items():
        try:
            value, wrong = Path(file).read_text(encoding="utf-8").strip(), "its file is empty"
        except UnicodeDecodeError:
            value, wrong = "", "its file is no text in UTF-8"
        except (OSError, ValueError):
            value, wrong = "", "its file is not here"
        if value:
            values[secret] = value
        else:
            text = f"{wrong}; set it as secrets.{secret} in `make shell`"
            notes.append(Note(kind=Kind.LEFT, path=f"secrets.{declared.get(secret, secret)}", text=text))
    return values, notes


def normalised(file: Path) -> dict[str, Any]:
    """Return the file as Compose normalises it.

    Variables, anchors, `extends` and `env_file` are resolved, and the services of all profiles are included.

    Raises:
        RunError: Compose is not installed, or refuses the file.
    """
    done = subprocess.run(
        [*_compose(), "--file", str(file), *_all_profiles(), "config"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        errors = done.stderr.strip().splitlines() or ["it says nothing"]
        # The older program prints a traceback, whose last line is the error.
        raise RunError(f"{file}: Compose refuses it: {errors[-1] if 'Traceback' in done.stderr else ' '.join(errors)}")
    # These are mostly warnings about unset variables.
    sys.stderr.write(done.stderr)
    try:
        return checked(yaml.safe_load(done.stdout))
    except (yaml.YAMLError, RecursionError):
        raise RunError(f"{file}: what Compose makes of it is not YAML; mend the file") from None
    except RunError as error:
        raise RunError(f"{file}: {error}") from None


def _compose() -> Sequence[str]:
    if _plugin():
        return ["docker", "compose"]
    if not shutil.which("docker-compose"):
        raise RunError("a Compose file is read by Compose, and it is not here; install Docker's Compose plugin")
    return ["docker-compose"]


def _all_profiles() -> Sequence[str]:
    # The older program always includes the services of all profiles.
    return ["--profile", "*"] if _plugin() else []


def _plugin() -> bool:
    docker = shutil.which("docker")
    return bool(docker) and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode


def lines(notes: Sequence[Note]) -> Iterator[str]:
    """Yield the notes under their headings."""
    for kind, group in groupby(notes, key=lambda note: note.kind):
        yield f"\n{kind}"
        for note in group:
            yield f"  {note.path}: {note.text}"


class _Style(Dumper):
    """YAML style of hand-written files: mappings as blocks, lists on one line."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:  # noqa: ARG002
        return super().represent_sequence(tag, sequence, flow_style=True)


def _indented(value: dict[str, Any], depth: int) -> str:
    text = yaml.dump(value, Dumper=_Style, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110)
    return "".join(f"{'  ' * depth}{line}\n" for line in text.splitlines())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except (ConfigError, RunError) as error:
        sys.exit(f"import: {error}")
    except OSError as error:
        sys.exit(f"import: {error.filename or 'a file'}: {error.strerror}; see that it can be read and written")
