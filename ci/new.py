"""Creation of a new application: `python -m ci.new NAME [FOLDER]` (`make new NAME=shop`).

The command copies `examples/starter` under the new name, generates the secrets of dev, and chooses a free port. The
copied files show every configuration option. The new application can be deployed without changes.
"""

import json
import os
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
from components.config.files import Dumper
from components.reference import commented_yaml

from .random_secret import random_secret

ROOT = Path(__file__).parents[1]
STARTER = ROOT / "examples" / "starter"
STACKS = ("dev", "staging", "prod")
PASSPHRASE = "dev"  # noqa: S105 (public, see docs/adr/004-dev-secrets.md)
FIRST_PORT = 8080
_NOT_COPIED = ("__pycache__", "reports", "release.json")


def main(name: str = "", at: str = "") -> None:
    """Write the files of a new application.

    Raises:
        ConfigError: `name` is not a valid name.
        RunError: the name or the folder is in use, or the folder is outside of this repository.
    """
    try:
        app = load_app(_starter_app(STARTER.name) | {"name": name})
    except ConfigError as error:
        raise ConfigError(str(error).replace("app.name: ", "NAME: ", 1)) from None
    refuse_existing_name(name)
    folder = free_folder(at or f"apps/{name}")
    port = free_port()
    files = {
        "Pulumi.yaml": project_file(name, folder, commented_yaml(App, _starter_app(name), 3)),
        **{
            f"Pulumi.{stack}.yaml": stack_file(
                name, folder, commented_yaml(Environment, _environment(name, stack, port), 2)
            )
            for stack in STACKS
        },
    }
    files["Pulumi.dev.yaml"] += encrypted_secrets(name, {secret: random_secret() for secret in app.secrets})
    for file in sorted(STARTER.rglob("*")):
        if file.is_file() and file.name not in files and not set(_NOT_COPIED) & set(file.parts):
            files[str(file.relative_to(STARTER))] = file.read_text().replace(STARTER.name, name)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    relative = str(folder.relative_to(ROOT))
    print(f"Wrote {relative}: the application is in Pulumi.yaml, its environment in Pulumi.dev.yaml. Next:")
    print(f"\n  make up APP={quote(relative)}      # http://127.0.0.1:{port}\n  make check APP={quote(relative)}")


def refuse_existing_name(name: str) -> None:
    """Raise an error if another project of this repository has the name, because both projects would share one state.

    Raises:
        RunError: a Pulumi.yaml in this repository already has this name.
    """
    for file in sorted(
        path for pattern in ("Pulumi.yaml", "*/Pulumi.yaml", "*/*/Pulumi.yaml") for path in ROOT.glob(pattern)
    ):
        if _project(file) == name:
            raise RunError(f"NAME: ./{file.relative_to(ROOT)} already has the name {name}; choose another name")


def _project(file: Path) -> object:
    """Return the name of the project in a Pulumi.yaml, or None if the file can't be read."""
    try:
        described: object = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cast(dict[str, object], described).get("name") if isinstance(described, dict) else None


def free_folder(at: str) -> Path:
    """Return the path of a new folder in this repository. The folder is not created.

    Raises:
        RunError: the folder exists, or is outside of this repository.
    """
    try:
        if not at.isprintable() or at.startswith(("-", "~")):
            raise ValueError
        folder = (ROOT / at).resolve()
        exists = folder.exists()
        blocked = next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None)
    except (OSError, RuntimeError, ValueError):
        raise RunError(f"AT: {at[:80]!a} is not a valid path of a folder; set one, as in AT=apps/shop") from None
    if blocked:
        raise RunError(
            f"AT: {blocked.relative_to(ROOT) if blocked.is_relative_to(ROOT) else blocked} is a file; choose another folder"
        )
    if not folder.is_relative_to(ROOT) or folder == ROOT:
        raise RunError(f"AT: {at} is not a folder inside this repository; choose one, as in AT=apps/shop")
    if exists:
        raise RunError(f"AT: {at} already exists; choose another NAME, or another folder with AT")
    return folder


def free_port() -> int:
    """Return the first free port of this machine, from 8080 on.

    Raises:
        RunError: 1000 ports are in use.
    """
    for port in range(FIRST_PORT, FIRST_PORT + 1000):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RunError(f"no port from {FIRST_PORT} to {FIRST_PORT + 999} is free; free one of them")


def project_file(name: str, folder: Path, app: str) -> str:
    """Return the text of Pulumi.yaml. `app` is the description of the application, as indented YAML."""
    root = os.path.relpath(ROOT, folder)
    described = {
        "name": name,
        "main": root,
        "runtime": {"name": "python", "options": {"toolchain": "pip", "virtualenv": f"{root}/.venv"}},
    }
    text = yaml.dump(described, Dumper=Dumper, sort_keys=False)
    return f"# yaml-language-server: $schema={root}/docs/project.schema.json\n{text}config:\n  app:\n    value:\n{app}"


def stack_file(name: str, folder: Path, environment: str) -> str:
    """Return the text of a stack file. `environment` contains the environment's settings, as indented YAML."""
    root = os.path.relpath(ROOT, folder)
    return (
        f"# yaml-language-server: $schema={root}/docs/stack.schema.json\nconfig:\n  {name}:environment:\n{environment}"
    )


def encrypted_secrets(project: str, values: Mapping[str, str]) -> str:
    """Return the secrets as the last lines of a stack file, encrypted with the passphrase of dev.

    Pulumi needs a stack to encrypt secrets. The stack is in a temporary state, so the real state gets no empty stack.

    Raises:
        RunError: Pulumi fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Pulumi.yaml").write_text(yaml.safe_dump({"name": project, "runtime": "python"}))
        variables = {"PULUMI_BACKEND_URL": f"file://{folder}", "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE}

        def pulumi(*words: str, value: str = "") -> None:
            done = subprocess.run(
                ["pulumi", *words, "--non-interactive"], cwd=folder, env={**os.environ, **variables},
                input=value, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                raise RunError(f"`pulumi {' '.join(words)}` failed: {done.stderr.strip()}")

        pulumi("stack", "init", "dev")
        for name, value in values.items():
            # Pass the value on standard input, because all users can read command lines.
            pulumi("config", "set", "--secret", "--path", f"secrets.{name}", value=value)
        settings = yaml.safe_load(Path(folder, "Pulumi.dev.yaml").read_text())
    if not values:
        return ""
    text = yaml.dump({f"{project}:secrets": settings["config"][f"{project}:secrets"]}, Dumper=Dumper, width=1000)
    indented = "".join(f"  {line}\n" for line in text.splitlines())
    return f"{indented}encryptionsalt: {settings['encryptionsalt']}\n"


def _starter_app(name: str) -> dict[str, Any]:
    """Return the raw `app` settings of the starter, with the starter's name replaced by `name`."""
    return _renamed("Pulumi.yaml", name)["app"]["value"]


def _environment(name: str, stack: str, port: int) -> dict[str, Any]:
    """Return the raw `environment` settings of a stack of the starter, with the starter's name replaced by `name`.

    Only dev gets the gateway port `port`.
    """
    settings = _renamed(f"Pulumi.{stack}.yaml", name)[f"{name}:environment"]
    return settings | {"gateway": {"port": port}} if stack == "dev" else settings


def _renamed(file: str, name: str) -> dict[str, Any]:
    # Replace the name in JSON, because in YAML a name such as `on` would become a boolean.
    text = json.dumps(yaml.safe_load((STARTER / file).read_text())["config"])
    return json.loads(text.replace(STARTER.name, name))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except (ConfigError, RunError) as error:
        sys.exit(f"new: {error}")
    except OSError as error:
        sys.exit(f"new: {error.filename or 'a file'}: {error.strerror}; check its permissions")
