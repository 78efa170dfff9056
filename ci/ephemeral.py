"""Environment of a pull request: `python -m ci.ephemeral pr-123` writes its stack file, modelled on that of staging.

The environment has its own namespace, host and secrets, and no protected data. The stack is created if it is missing.
If it exists, its secrets are those of the last update, which the database has. `make down ENV=pr-123` removes
everything.
"""

import copy
import json
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

import yaml

from components import files
from components.config import ConfigError, load_app, load_environment
from components.names import is_dns_label

from . import edge
from .described import ROOT, last_update, project_file, pulumi, stack_file, unpinned

TEMPLATE = "staging"


def main(stack: str) -> None:
    described = project_file()
    app = load_app(described.app)
    template = stack_file(TEMPLATE).environment
    load_environment(unpinned(template) | {"pinned": False}, app)  # An invalid template could not be copied.
    environment = like(template, app.name, stack)  # An invalid name is refused before a stack is created for it.
    key = f"{described.name}:environment"
    file = ROOT / f"Pulumi.{stack}.yaml"
    if not file.exists():
        _begin(stack)
    settings: dict[str, Any] = _settings(file)
    config: dict[str, Any] = settings.get("config") or {}
    settings["config"] = config
    config[key] = environment
    file.write_text(yaml.dump(settings, Dumper=files.Dumper))
    references = template["kubernetes"].get("secrets", {})
    for name in sorted(set(app.secrets) - set(references)):
        if name not in (config.get(f"{described.name}:secrets") or {}):
            words = ["config", "set", "--stack", stack, "--secret", "--path", f"secrets.{name}"]
            # The value is passed on standard input, because every process here may read a command line.
            subprocess.run(["pulumi", *words], input=secrets.token_hex(24), text=True, check=True, cwd=ROOT)


def like(template: dict[str, Any], app: str, stack: str) -> dict[str, Any]:
    """Return the plain settings of an environment like the template, with its own host and namespace.

    Raises:
        ConfigError: the template is not on a cluster, or the stack's name can't be part of a host name.
    """
    host = f"{app}-{stack}"
    if not is_dns_label(host):
        raise ConfigError(
            f"ENV: {host} begins the host of its url; use lower-case letters, digits and dashes, at most 63 in all, as in pr-123"
        )
    if template["platform"] != "kubernetes":
        raise ConfigError(
            f"Pulumi.{TEMPLATE}.yaml: environments of pull requests are made like it, so it has to be on kubernetes"
        )
    cluster: dict[str, Any] = template["kubernetes"]
    namespace = {key: value for key, value in cluster.get("namespace", {}).items() if key not in ("name", "create")}
    # The host keeps the template's domain, so one certificate for *.example.com covers all environments.
    url = re.sub(r"(?<=://)[^.:]+", host, cluster["url"])
    own_cluster = {key: value for key, value in cluster.items() if key != "hostnames"} | {
        "url": url,
        "namespace": namespace,
    }
    common = {key: value for key, value in template.items() if key not in ("images", "pinned", "release")}
    settings: dict[str, Any] = {**copy.deepcopy(common), "kubernetes": own_cluster, "protect_data": False, "seed": True}
    # Seeded data that is removed soon needs no backup.
    for key in ("backup", "copy_of", "name"):
        settings.get("tiers", {}).get("database", {}).pop(key, None)
    return settings


def _settings(file: Path) -> dict[str, Any]:
    try:
        return files.read(file) if file.exists() else {}
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def _begin(stack: str) -> None:
    """Create the stack, or restore the stack file of its last update."""
    stacks = [entry["name"] for entry in json.loads(pulumi("stack", "ls", "--json"))]
    if stack not in stacks:
        pulumi("stack", "init", stack, "--no-select")
    elif last_update(stack):
        pulumi("config", "refresh", "--stack", stack)


if __name__ == "__main__":
    words = edge.arguments("ephemeral pr-123", 1, 1)
    edge.end("ephemeral", lambda: main(*words))
