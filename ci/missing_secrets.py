"""Secrets of a new environment: `make secrets ENV=staging` generates the missing secrets, or asks for them.

The command generates the passwords of the services that the environment deploys, and the keys of its backups. A person
enters all other secrets.
"""

import sys
from collections.abc import Collection
from getpass import getpass

from pulumi import RunError

from components.config import App, Environment, passwords
from components.config.secret_checks import secret_problem

from . import pulumi_stack
from .random_secret import random_secret


def main(stack: str) -> None:
    """Write each missing secret into the stack file, encrypted.

    Raises:
        RunError: a person must enter a secret, but this process has no terminal.
    """
    app, environment = pulumi_stack.load(stack)
    existing = [name for name, value in pulumi_stack.secrets(stack).items() if value]
    missing = missing_secrets(app, environment, existing)
    can_generate = generatable_secrets(app, environment) if missing and not _is_deployed(stack) else frozenset[str]()
    unknown: list[str] = []
    for name, path in missing.items():
        if name in can_generate:
            pulumi_stack.set_secret(stack, name, random_secret())
            print(f"  {name:<24} generated", flush=True)
        elif sys.stdin.isatty():
            pulumi_stack.set_secret(stack, name, _ask(name, path))
            print(f"  {name:<24} written", flush=True)
        else:
            unknown.append(f"secrets.{name}: {path} uses this secret, but its value is missing")
    if unknown:
        fix = f"run `make secrets ENV={stack}` in a terminal, or `pulumi config set --secret --path secrets.NAME` in `make shell`"
        raise RunError("\n".join([*unknown, fix]))
    print(f"  Pulumi.{stack}.yaml has all secrets of {stack}")


def missing_secrets(app: App, environment: Environment, existing: Collection[str]) -> dict[str, str]:
    """Return the names of the secrets that have no value, each with the config path of the setting that uses the secret.

    Args:
        app: the application.
        environment: the environment. Secrets that are in its cluster (`kubernetes.secrets`) are left out.
        existing: names of the secrets that have a value.
    """
    in_cluster = environment.secrets_in_cluster
    used = {**environment.secrets, **app.secrets}
    return {name: path for name, path in sorted(used.items()) if name not in existing and name not in in_cluster}


def generatable_secrets(app: App, environment: Environment) -> frozenset[str]:
    """Return the names of the secrets that may get a random value if nothing is deployed yet.

    The passwords of external services are left out, because the servers of these services already have a password.
    """
    deployed = [settings.password_secret for settings in environment.data(app).values()]
    keys = [backups.key for backups in environment.backups.values()]
    return frozenset(name for name in (*deployed, *keys) if name)


def _is_deployed(stack: str) -> bool:
    """Return True if the stack has resources. They already use passwords, so a random password would not fit."""
    return bool(pulumi_stack.state(stack).get("deployment", {}).get("resources"))


def _ask(name: str, path: str) -> str:
    """Ask a person for the value of a secret. If the person enters nothing, return a random value.

    Raises:
        RunError: the person ends the input.
    """
    while True:
        try:
            value = getpass(f"  {name}, for {path} (Enter generates a random value): ")
        except EOFError:
            raise RunError(f"secrets.{name}: no value was entered; run the same command again") from None
        if not value:
            return random_secret()
        if not (problem := passwords.problem(path, value) or secret_problem(value)):
            return value
        print(f"  {problem}; enter another value", flush=True)
