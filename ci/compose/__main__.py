"""Describes what a Compose file runs: `python -m ci.compose FILE [NAME [FOLDER]]` (`make import COMPOSE=path/docker-compose.yml`).

Compose itself reads the file and all that it refers to; `carried.py` says what becomes of it. Written are `Pulumi.yaml` and
`Pulumi.dev.yaml`, in a folder of their own, and the list of what could not be carried.
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
    """Write what `file` comes to, and say what is left.

    Raises:
        ConfigError: it comes to something that the models refuse.
        RunError: Compose can't read it, nothing of it can be reached, or there is something in the way.
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
    found = carried(
        compose,
        name=name,
        base=str(path.parent),
        folder=str(folder),
        password=lambda: secrets.token_hex(24),
        profiles=os.environ.get("COMPOSE_PROFILES", "").split(","),
    )
    load_environment(found.environment, load_app(found.app))
    read, missing = _from_files(found.files, compose)
    values = found.secrets | read
    listed = "".join(f"{line}\n" for line in lines(in_order([*found.notes, *missing])))
    files = {
        "Pulumi.yaml": project_file(name, folder, _indented(found.app, 3)),
        "Pulumi.dev.yaml": stack_file(name, folder, _indented(found.environment, 2)) + sealed(name, values),
        NOTES: listed,
    }
    folder.mkdir(parents=True)
    for each, text in files.items():
        (folder / each).write_text(text)
    here = str(folder.relative_to(ROOT))
    print(f"{listed}\n{here} is there, with this list in {NOTES}. Next:\n")
    print(f"  make up APP={quote(here)}\n  make check APP={quote(here)}")


def _existing(file: str) -> Path:
    try:
        path = Path(file).resolve()
        if path.is_file():
            return path
    except (OSError, RuntimeError, ValueError):
        pass  # A name that is too long, a link to itself: there is no such file.
    raise RunError(
        f"{file[:80] or 'COMPOSE'}: there is no such file; name one, as in COMPOSE=../shop/docker-compose.yml"
    )


def _from_files(files: Mapping[str, str], compose: Mapping[str, Any]) -> tuple[dict[str, str], list[Note]]:
    """Return the values of secrets that are in files, and a note on each that is not."""
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
    """The file as Compose understands it: variables, anchors, `extends` and `env_file` are resolved, services of all profiles in it.

    Raises:
        RunError: there is no Compose here, or it refuses the file.
    """
    done = subprocess.run(
        [*_compose(), "--file", str(file), *_all_profiles(), "config"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        # The older program shows where in itself it failed.
        raise RunError(f"{file}: Compose refuses it: {said[-1] if 'Traceback' in done.stderr else ' '.join(said)}")
    # Which variables are not set here, above all.
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
    # The older program leaves no service out.
    return ["--profile", "*"] if _plugin() else []


def _plugin() -> bool:
    found = shutil.which("docker")
    return bool(found) and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode


def lines(notes: Sequence[Note]) -> Iterator[str]:
    """The notes under their headings."""
    for kind, several in groupby(notes, key=lambda note: note.kind):
        yield f"\n{kind}"
        for note in several:
            yield f"  {note.path}: {note.text}"


class _Style(Dumper):
    """Mappings as blocks, lists on a line, as one writes them by hand."""

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
