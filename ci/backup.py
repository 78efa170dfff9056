"""Manual backup commands: `python -m ci.backup STACK backup | full | verify | prune | list | status | restore …`.

Each command runs the program of images/backup in a container of the environment, as scheduled backups do.
"""

from collections.abc import Sequence

from pulumi import RunError

from components import backup, platforms
from components.model.services import DATABASE

from . import command_line
from .pulumi_stack import load

QUICK = ("list", "status")
"""Commands that only read backups. They run in the existing backup container. All other commands run in a new container."""


def run(stack: str, *words: str) -> str:
    """Run the command `backup WORDS` in the environment and return the output.

    Raises:
        RunError: the environment has no backups, or the command failed; the message says why.
    """
    app, environment = load(stack)
    if not environment.tier_settings(DATABASE.name).backup:
        raise RunError(f"{backup.PATH}: stack {stack} has no backups; set this key (docs/data.md)")
    command, inspector = (backup.NAME, *words), platforms.inspector(app, environment, stack)
    if words[0] in QUICK:
        return inspector.execute(backup.NAME, None, command)
    return inspector.run_once(environment, backup.NAME, "verify", command)


def main(stack: str, words: Sequence[str]) -> None:
    print(run(stack, *words))
    if words[0] == "list":
        print(run(stack, "status"))


if __name__ == "__main__":
    words = command_line.arguments("backup STACK backup | full | verify | prune | list | status | restore …", 2, 9)
    command_line.run_and_exit("backup", lambda: main(words[0], words[1:]))
