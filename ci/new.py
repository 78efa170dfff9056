"""Starts an application of one's own: `python -m ci.new NAME [FOLDER]` (`make new NAME=shop`).

What is in `examples/starter` under another name, with every option of the models in its files, dev's secrets made, and a port
that is free. It comes up as it is.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any, cast

import yaml
from pulumi import RunError

from components.config import App, ConfigError, Environment, load_app
from components.files import Dumper
from components.reference import commented

ROOT = Path(__file__).parents[1]
STARTER = ROOT / "examples" / "starter"
STACKS = ("dev", "staging", "prod")
PASSPHRASE = "dev"  # noqa: S105 (known to all, and why: docs/adr/004-dev-secrets.md)
FIRST_PORT = 8080
_LEFT = ("__pycache__", "reports", "release.json")


def main(name: str = "", at: str = "") -> None:
    """Write the files of a new application.

    Raises:
        ConfigError: `name` is no name.
        RunError: the name or the folder is taken, or the folder is not of this repository.
    """
    try:
        app = load_app(_described(STARTER.name) | {"name": name})
    except ConfigError as error:
        raise ConfigError(str(error).replace("app.name: ", "NAME: ", 1)) from None
    refuse_taken(name)
    folder = free_folder(at or f"apps/{name}")
    port = free_port()
    files = {
        "Pulumi.yaml": project_file(name, folder, commented(App, _described(name), 3)),
        **{
            f"Pulumi.{stack}.yaml": stack_file(name, folder, commented(Environment, _environment(name, stack, port), 2))
            for stack in STACKS
        },
    }
    files["Pulumi.dev.yaml"] += sealed(name, {secret: secrets.token_hex(24) for secret in app.secrets})
    for file in sorted(STARTER.rglob("*")):
        if file.is_file() and file.name not in files and not set(_LEFT) & set(file.parts):
            files[str(file.relative_to(STARTER))] = file.read_text().replace(STARTER.name, name)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    here = str(folder.relative_to(ROOT))
    print(f"{here} is there: what it is in Pulumi.yaml, where it runs in Pulumi.dev.yaml. Next:")
    print(f"\n  make up APP={quote(here)}      # http://127.0.0.1:{port}\n  make check APP={quote(here)}")


def refuse_taken(name: str) -> None:
    """Refuse the name of a project of this repository: both would be one stack in one state.

    Raises:
        RunError: a Pulumi.yaml has it.
    """
    for file in sorted(
        each for pattern in ("Pulumi.yaml", "*/Pulumi.yaml", "*/*/Pulumi.yaml") for each in ROOT.glob(pattern)
    ):
        if _project(file) == name:
            raise RunError(f"NAME: ./{file.relative_to(ROOT)} is project {name}; take another")


def _project(file: Path) -> object:
    """Return the name of a project; None if its file can't be read, for then it has no stack either."""
    try:
        described: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cast(dict[str, object], described).get("name") if isinstance(described, dict) else None


def free_folder(at: str) -> Path:
    """Return a folder to write into.

    Raises:
        RunError: it is there, or is not of this repository.
    """
    try:
        if not at.isprintable() or at.startswith(("-", "~")):
            raise ValueError
        folder = (ROOT / at).resolve()
        taken = folder.exists()
        blocked = next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None)
    except (OSError, RuntimeError, ValueError):
        raise RunError(f"AT: {at[:80]!a} is no path of a folder; give one as in apps/shop") from None
    if blocked:
        raise RunError(
            f"AT: {blocked.relative_to(ROOT) if blocked.is_relative_to(ROOT) else blocked} is a file; give another folder"
        )
    if not folder.is_relative_to(ROOT) or folder == ROOT:
        raise RunError(f"AT: {at} is not in this repository, where the one program is; give a folder of it")
    if taken:
        raise RunError(f"AT: {at} is there already; give another NAME, or another folder by AT")
    return folder


def free_port() -> int:
    """The first port of this machine, from 8080, that nobody listens on."""
    for port in range(FIRST_PORT, FIRST_PORT + 1000):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RunError(f"no port of {FIRST_PORT} and the thousand above is free; say one in gateway.port")


def project_file(name: str, folder: Path, app: str) -> str:
    """Pulumi.yaml of an application in a folder of its own, from `app` as YAML."""
    up = os.path.relpath(ROOT, folder)
    described = {
        "name": name,
        "main": up,
        "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": f"{up}/.venv"}},
    }
    text = yaml.dump(described, Dumper=Dumper, sort_keys=False)
    return f"# yaml-language-server: $schema={up}/docs/project.schema.json\n{text}config:\n  app:\n    value:\n{app}"


def stack_file(name: str, folder: Path, environment: str) -> str:
    """The file of a stack, from `environment` as YAML."""
    up = os.path.relpath(ROOT, folder)
    return f"# yaml-language-server: $schema={up}/docs/stack.schema.json\nconfig:\n  {name}:environment:\n{environment}"


def sealed(project: str, values: Mapping[str, str]) -> str:
    """The end of a stack file with these secrets, as `pulumi config set --secret` writes it under dev's passphrase.

    Done in a stack of a moment, so that neither state nor a stack that is not deployed is left.

    Raises:
        RunError: Pulumi can't.
    """
    with tempfile.TemporaryDirectory() as there:
        Path(there, "Pulumi.yaml").write_text(yaml.safe_dump({"name": project, "runtime": "python"}))
        known = {"PULUMI_BACKEND_URL": f"file://{there}", "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE}

        def pulumi(*words: str, value: str = "") -> None:
            done = subprocess.run(
                ["pulumi", *words, "--non-interactive"], cwd=there, env={**os.environ, **known},
                input=value, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                raise RunError(f"`pulumi {' '.join(words)}` failed: {done.stderr.strip()}")

        pulumi("stack", "init", "dev")
        for name, value in values.items():
            # Not a word of the command: those are everybody's to see.
            pulumi("config", "set", "--secret", "--path", f"secrets.{name}", value=value)
        settings = yaml.safe_load(Path(there, "Pulumi.dev.yaml").read_text())
    if not values:
        return ""
    text = yaml.dump({f"{project}:secrets": settings["config"][f"{project}:secrets"]}, Dumper=Dumper, width=1000)
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    return f"{indented}encryptionsalt: {settings['encryptionsalt']}\n"


def _described(name: str) -> dict[str, Any]:
    """`app` of the starter under another name."""
    return _renamed("Pulumi.yaml", name)["app"]["value"]


def _environment(name: str, stack: str, port: int) -> dict[str, Any]:
    """`environment` of one of its stacks, likewise; dev's on this port."""
    found = _renamed(f"Pulumi.{stack}.yaml", name)[f"{name}:environment"]
    return found | {"gateway": {"port": port}} if stack == "dev" else found


def _renamed(file: str, name: str) -> dict[str, Any]:
    # As JSON, in which a name stays a text whatever it means to YAML, as `on` does.
    text = json.dumps(yaml.safe_load((STARTER / file).read_text())["config"])
    return json.loads(text.replace(STARTER.name, name))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except (ConfigError, RunError) as error:
        sys.exit(f"new: {error}")
    except OSError as error:
        sys.exit(f"new: {error.filename or 'a file'}: {error.strerror}; see that it can be written")
