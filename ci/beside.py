"""A new database beside the one there is: its name, what comes into it from another server, and that tiers may use it."""

from datetime import datetime

from pulumi import RunError

from components import backup, platforms
from components.config import App, Environment, TierName
from components.platforms import recovery
from components.tier import REPLICATED

from .described import project, pulumi

DATABASE = "environment.tiers.database"
COPIED = (
    'DATABASE_DIRECT_HOST="$1" DATABASE_NAME="$2" backup dump | '
    'DATABASE_DIRECT_HOST="$3" DATABASE_NAME="$4" backup restore --snapshot - --into "$5"'
)
"""From one server into the other, compared as everything is that comes back."""


def fresh(app: App, now: datetime) -> str:
    """A name that no database has: they are made of the second they begin."""
    if not app.database:
        raise RunError("app.database: the application has no database")
    return f"{app.database.name[:45]}_r{now:%Y%m%d_%H%M%S}"


def copied(app: App, environment: Environment, stack: str, source: tuple[str, str], through: str, into: str) -> str:
    """What another server holds, in a new database of the three. `source` is that server and its database: which one takes backups
    are of is said elsewhere. `through` is one of the three's own: who makes another has to be in one.
    """
    command = ("sh", "-c", COPIED, "sh", *source, f"{REPLICATED}-rw", through, into)
    return platforms.run_once(app, environment, stack, backup.NAME, "verify", command)


def use(app: App, environment: Environment, stack: str, **said: str) -> None:
    """What the stack file says of the database from here on, all at once: one without the other may lead to one that is not there.

    Before that, a pooler in front of it has to let tiers in.
    """
    size = environment.size(TierName.DATABASE).model_copy(update=said)
    if size.several and size.name:
        recovery.introduce(environment.cluster, f"{app.name}-{stack}", REPLICATED, size.name)
    words = [word for key, value in said.items() for word in ("--plaintext", f"{project()}:{DATABASE}.{key}={value}")]
    pulumi("config", "set-all", "--stack", stack, "--path", *words)
    print(f"  Pulumi.{stack}.yaml: {DATABASE} has {', '.join(f'{key}: {value}' for key, value in said.items())}")
