"""Environment of a pull request: `python -m ci.ephemeral pr-123` writes the environment's stack file.

The file is a copy of staging's stack file, but has its own namespace, host and secrets, and does not protect the data.
If the stack does not exist, the command creates the stack. An existing stack keeps the secrets of its last update,
because its database still uses these passwords. `make down ENV=pr-123` removes everything.
"""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from components.config import ConfigError, files, load_stack
from components.model.names import is_dns_label

from . import command_line
from .make_call import TEMPLATE
from .missing_secrets import missing_secrets
from .pulumi_stack import ROOT, last_update, load, project, project_file, pulumi, set_secret, stack_file
from .random_secret import random_secret


def main(stack: str) -> None:
    app, _ = load(TEMPLATE)  # Report errors of the template first.
    environment = pr_settings(stack_file(TEMPLATE).environment, app.name, stack, sorted({*app.hosts.values()}))
    # Report an invalid name or setting before creating a stack.
    app, validated = load_stack(project_file().app, environment, stack)
    name = project()
    file = ROOT / f"Pulumi.{stack}.yaml"
    if not file.exists():
        _create_or_restore(stack)
    settings: dict[str, Any] = _settings(file)
    config: dict[str, Any] = settings.get("config") or {}
    settings["config"] = config
    # `pulumi config refresh` also restores the values of Pulumi.yaml, which a stack file must not contain.
    config.pop(f"{name}:app", None)
    config[f"{name}:environment"] = environment
    file.write_text(yaml.dump(settings, Dumper=files.Dumper))
    for secret in missing_secrets(app, validated, config.get(f"{name}:secrets") or {}):
        set_secret(stack, secret, random_secret())


def pr_settings(template: dict[str, Any], app: str, stack: str, host_names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the environment settings for a pull request, made from the template's settings.

    The environment gets its own hosts and namespace. The database gets seed data, and is neither protected nor backed up.
    The template's settings `images`, `pinned` and `release` are left out.

    Args:
        template: settings of the template's environment.
        app: name of the application.
        stack: name of the stack.
        host_names: names of the hosts of services (`host`).

    Raises:
        ConfigError: the template's platform is not Kubernetes, or the stack's name can't be part of a host name.
    """
    host = f"{app}-{stack}"
    for label in (host, *(f"{name}-{host}" for name in host_names)):
        if not is_dns_label(label):
            raise ConfigError(
                f"ENV: {label} can't be the first part of a host name; use at most 63 lower-case letters, digits and dashes, as in pr-123"
            )
    if template["platform"] != "kubernetes":
        raise ConfigError(
            f"Pulumi.{TEMPLATE}.yaml: the template for environments of pull requests requires Kubernetes; set platform: kubernetes"
        )
    cluster: dict[str, Any] = template["kubernetes"]
    namespace = {key: value for key, value in cluster.get("namespace", {}).items() if key not in ("name", "create")}
    # All hosts keep the template's domain, so one certificate for *.example.com covers all environments.
    url = re.sub(r"(?<=://)[^.:]+", host, cluster["url"])
    hosts = {name: f"{name}-{urlsplit(url).hostname}" for name in host_names}
    own_cluster = {key: value for key, value in cluster.items() if key != "hostnames"} | {
        "url": url,
        "namespace": namespace,
    }
    common = {key: value for key, value in template.items() if key not in ("hosts", "images", "pinned", "release")}
    settings: dict[str, Any] = {**copy.deepcopy(common), "kubernetes": own_cluster, "protect_data": False, "seed": True}
    settings |= {"hosts": hosts} if hosts else {}
    # The data is seeded and soon removed, so it needs no backup.
    for tier in settings.get("tiers", {}).values():
        for key in ("backup", "copy_of", "name"):
            tier.pop(key, None)
    return settings


def _settings(file: Path) -> dict[str, Any]:
    try:
        return files.read(file) if file.exists() else {}
    except files.FileError as error:
        raise ConfigError(str(error)) from None


def _create_or_restore(stack: str) -> None:
    """Create the stack if it does not exist. Otherwise write the stack file of its last update."""
    stacks = [entry["name"] for entry in json.loads(pulumi("stack", "ls", "--json"))]
    if stack not in stacks:
        pulumi("stack", "init", stack, "--no-select")
    elif last_update(stack):
        pulumi("config", "refresh", "--stack", stack)


if __name__ == "__main__":
    words = command_line.arguments("ephemeral pr-123", 1, 1)
    command_line.run_and_exit("ephemeral", lambda: main(*words))
