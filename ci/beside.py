"""New database beside the one in use: its name, a copy of another server's data, and the settings that make tiers use it."""

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
"""Shell command that copies a database from one server to another and compares both, as every restore does."""


def fresh(app: App, now: datetime) -> str:
    """Return an unused name for a new database, made of the current second."""
    if not app.database:
        raise RunError("app.database: the application has no database")
    return f"{app.database.name[:45]}_r{now:%Y%m%d_%H%M%S}"


def copied(app: App, environment: Environment, stack: str, source: tuple[str, str], through: str, into: str) -> str:
    """Copy a database of another server into a new database of the database cluster, and return the output.

    Args:
        source: host and name of the database to copy. The database that `backup` normally saves is configured
            elsewhere.
        through: an existing database of the cluster, because a client that creates a database must be connected to
            one.
        into: name of the new database.
    """
    command = ("sh", "-c", COPIED, "sh", *source, f"{REPLICATED}-rw", through, into)
    return platforms.run_once(app, environment, stack, backup.NAME, "verify", command)


def use(app: App, environment: Environment, stack: str, **settings: str) -> None:
    """Write database settings to the stack file, all in one step, as a subset might name a missing database.

    A pooler in front of the database is first made to accept clients of it.
    """
    size = environment.size(TierName.DATABASE).model_copy(update=settings)
    if size.several and size.name:
        recovery.introduce(environment.cluster, f"{app.name}-{stack}", REPLICATED, size.name)
    words = [
        word for key, value in settings.items() for word in ("--plaintext", f"{project()}:{DATABASE}.{key}={value}")
    ]
    pulumi("config", "set-all", "--stack", stack, "--path", *words)
    print(f"  Pulumi.{stack}.yaml: {DATABASE} has {', '.join(f'{key}: {value}' for key, value in settings.items())}")
