"""Backups on demand: `python -m ci.backup STACK backup | full | verify | prune | list | status | restore …`.

It runs the command of the environment's schedule in the same place, and fails if that fails. The verbs are those of
images/backup.
"""

from collections.abc import Sequence

from pulumi import RunError

from components import backup, platforms
from components.config import TierName

from . import edge
from .described import load

QUICK = ("list", "status")
"""Verbs that only read; they run in the container that is already running."""


def run(stack: str, *words: str) -> str:
    """Run `backup WORDS` and return its output.

    Raises:
        RunError: the environment has no backups, or the command failed; the message says why.
    """
    app, environment = load(stack)
    if not environment.size(TierName.DATABASE).backup:
        raise RunError(f"{backup.PATH}: {stack} is not backed up; set it, see docs/data.md")
    command = (backup.NAME, *words)
    if words[0] in QUICK:
        return platforms.execute(app, environment, stack, backup.NAME, None, command)
    return platforms.run_once(app, environment, stack, backup.NAME, "verify", command)


def main(stack: str, words: Sequence[str]) -> None:
    print(run(stack, *words))
    if words[0] == "list":
        print(run(stack, "status"))


if __name__ == "__main__":
    words = edge.arguments("backup STACK backup | full | verify | prune | list | status | restore …", 2, 9)
    edge.end("backup", lambda: main(words[0], words[1:]))
