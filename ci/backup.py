"""Manual backup commands: `python -m ci.backup STACK backup | full | verify | prune | list | status | restore …`.

Each command runs the program of images/backup in a container of the environment, as scheduled backups do. `all` backs up the database, the
tiers' volumes, and each store with backups. With `--service STORE` at the end a command concerns the backups of a store.
"""

from collections.abc import Sequence

from pulumi import RunError

from components import backup, platforms
from components.config import App, Environment
from components.model.names import store_backup
from components.model.services import DATABASE

from . import command_line
from .pulumi_stack import load

QUICK = ("list", "status")
"""Commands that only read backups. They run in the existing backup container. All other commands run in a new container."""
SCHEDULED = ("backup", "verify", "prune")
"""Commands of a store that have a schedule of their own. Their containers differ: only `backup` mounts the volumes of the store."""


def run(stack: str, *words: str, service: str = "") -> str:
    """Run the command `backup WORDS` in the environment and return the output.

    Args:
        stack: the stack's name.
        words: the command with its arguments.
        service: name of a store, or an empty text for the backups of the database.

    Raises:
        RunError: the environment has no such backups, or the command failed; the message says why.
    """
    app, environment = load(stack)
    check_service(app, environment, stack, service)
    workload = store_backup(service) if service else backup.NAME
    command, inspector = (backup.NAME, *words), platforms.inspector(app, environment, stack)
    if words[0] in QUICK:
        return inspector.execute(workload, None, command)
    scheduled = words[0] if service and words[0] in SCHEDULED else "verify"
    return inspector.run_once(environment, workload, scheduled, command)


def check_service(app: App, environment: Environment, stack: str, service: str) -> None:
    """Check that the environment has backups of a store, or of the database if `service` is empty.

    Raises:
        RunError: the environment has no such backups.
    """
    if service and service not in app.stores:
        stores = ", ".join(store for store in app.stores if store in environment.backups) or "none has backups"
        raise RunError(
            f"SERVICE: {service!r:.40} is not a store; use the name of a store ({stores}), or remove SERVICE"
        )
    if (service or DATABASE.name) not in environment.backups:
        path = f"environment.tiers.{service or DATABASE.name}.backup"
        raise RunError(f"{path}: stack {stack} has no such backups; set this key (docs/how-to/back-up-data.md)")


def main(stack: str, words: Sequence[str]) -> None:
    service = words[-1] if words[-2:-1] == ["--service"] else ""
    command = words[:-2] if service else words
    if command == ["all"]:
        _back_up_all(stack)
        return
    print(run(stack, *command, service=service))
    if command[0] == "list":
        print(run(stack, "status", service=service))


def _back_up_all(stack: str) -> None:
    """Back up the database with the tiers' volumes, then each store."""
    _, environment = load(stack)
    for tier in environment.backups or [DATABASE.name]:
        is_database = tier == DATABASE.name
        print(run(stack, "full" if is_database else "backup", service="" if is_database else tier))


if __name__ == "__main__":
    words = command_line.arguments(
        "backup STACK backup | full | all | verify | prune | list | status | restore …", 2, 9
    )
    command_line.run_and_exit("backup", lambda: main(words[0], words[1:]))
