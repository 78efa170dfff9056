"""An environment for a pull request: `python -m ci.ephemeral pr-123`. Writes the stack file of one more environment like staging.

It has a namespace, a host and secrets of its own, and no protected data. Its stack is made if it is not there; if it is, its
secrets are those of its last update, for the database knows them. `make down ENV=pr-123` removes all of it.
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
    load_environment(unpinned(template) | {"pinned": False}, app)  # Of any other type it could not be copied.
    made = like(template, app.name, stack)  # It is refused before a stack is made for it.
    key = f"{described.name}:environment"
    file = ROOT / f"Pulumi.{stack}.yaml"
    if not file.exists():
        _begin(stack)
    settings: dict[str, Any] = _settings(file)
    config: dict[str, Any] = settings.get("config") or {}
    settings["config"] = config
    config[key] = made
    file.write_text(yaml.dump(settings, Dumper=files.Dumper))
    elsewhere = template["kubernetes"].get("secrets", {})
    for name in sorted(set(app.secrets) - set(elsewhere)):
        if name not in (config.get(f"{described.name}:secrets") or {}):
            words = ["config", "set", "--stack", stack, "--secret", "--path", f"secrets.{name}"]
            # Not among the words, which every process here may read.
            subprocess.run(["pulumi", *words], input=secrets.token_hex(24), text=True, check=True, cwd=ROOT)


def like(template: dict[str, Any], app: str, stack: str) -> dict[str, Any]:
    """The plain settings of an environment beside the template's, under a host beside the template's host.

    Raises:
        ConfigError: the template is not on a cluster, or the stack's name is none of a host.
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
    # One certificate for *.example.com is good for all of them.
    url = re.sub(r"(?<=://)[^.:]+", host, cluster["url"])
    own = {key: value for key, value in cluster.items() if key != "hostnames"} | {"url": url, "namespace": namespace}
    kept = {key: value for key, value in template.items() if key not in ("images", "pinned", "release")}
    made: dict[str, Any] = {**copy.deepcopy(kept), "kubernetes": own, "protect_data": False, "seed": True}
    # What is seeded and soon removed is not worth a backup.
    for key in ("backup", "copy_of", "name"):
        made.get("tiers", {}).get("database", {}).pop(key, None)
    return made


def _settings(file: Path) -> dict[str, Any]:
    try:
        return files.read(file) if file.exists() else {}
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def _begin(stack: str) -> None:
    """Make the stack, or bring back the stack file of its last update."""
    known = [each["name"] for each in json.loads(pulumi("stack", "ls", "--json"))]
    if stack not in known:
        pulumi("stack", "init", stack, "--no-select")
    elif last_update(stack):
        pulumi("config", "refresh", "--stack", stack)


if __name__ == "__main__":
    words = edge.arguments("ephemeral pr-123", 1, 1)
    edge.end("ephemeral", lambda: main(*words))
