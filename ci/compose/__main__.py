"""Describes what a Compose file runs: `python -m ci.compose FILE [NAME [FOLDER]]` (`make import COMPOSE=path/docker-compose.yml`).

Compose itself reads the file and all that it refers to; `carried.py` says what becomes of it. Written are `Pulumi.yaml` and
`Pulumi.dev.yaml`, in a folder of their own, and the list of what could not be carried.
"""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from pulumi import RunError

from ci.new import ROOT, free_folder, project_file, sealed, stack_file
from components.config import ConfigError, load_app, load_environment

from .carried import carried
from .given import Note, as_name

NOTES = "IMPORTED.txt"


def main(file: str, name: str = "", at: str = "") -> None:
    """Write what `file` comes to, and say what is left.

    Raises:
        ConfigError: it comes to something that the models refuse.
        RunError: Compose can't read it, nothing of it can be reached, or there is something in the way.
    """
    path = Path(file).resolve()
    if not path.is_file():
        raise RunError(
            f"{file or 'COMPOSE'}: there is no such file; name one, as in COMPOSE=../shop/docker-compose.yml"
        )
    compose = normalised(path)
    name = name or as_name(str(compose.get("name") or path.parent.name))
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
    values = found.secrets | {secret: Path(each).read_text().strip() for secret, each in found.files.items()}
    listed = "".join(f"{line}\n" for line in lines(found.notes))
    files = {
        "Pulumi.yaml": project_file(name, folder, _indented(found.app, 3)),
        "Pulumi.dev.yaml": stack_file(name, folder, _indented(found.environment, 2)) + sealed(name, values),
        NOTES: listed,
    }
    folder.mkdir(parents=True)
    for each, text in files.items():
        (folder / each).write_text(text)
    here = folder.relative_to(ROOT)
    print(f"{listed}\n{here} is there, with this list in {NOTES}. Next:\n")
    print(f"  make up APP={here}\n  make check APP={here}")


def normalised(file: Path) -> dict[str, Any]:
    """The file as Compose understands it: variables, anchors, `extends` and `env_file` are resolved, services of all profiles in it.

    Raises:
        RunError: there is no Compose here, or it refuses the file.
    """
    done = subprocess.run(
        [*_compose(), "--file", str(file), *_all_profiles(), "config"], capture_output=True, text=True
    )
    if done.returncode:
        raise RunError(f"{file}: Compose refuses it: {done.stderr.strip()}")
    # Which variables are not set here, above all.
    sys.stderr.write(done.stderr)
    return yaml.safe_load(done.stdout)


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


class _Style(yaml.SafeDumper):
    """Mappings as blocks, lists on a line, as one writes them by hand."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:  # noqa: ARG002
        return super().represent_sequence(tag, sequence, flow_style=True)


def _indented(value: dict[str, Any], depth: int) -> str:
    text = yaml.dump(value, Dumper=_Style, sort_keys=False, default_flow_style=False, allow_unicode=True, width=110)
    return "".join(f"{'  ' * depth}{line}\n" for line in text.splitlines())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ConfigError, RunError) as error:
        sys.exit(f"import: {error}")
