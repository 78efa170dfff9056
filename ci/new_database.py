"""New database for a restore or a move: choose its name, copy data to it, and set it in the stack file."""

from datetime import datetime

from pulumi import RunError

from components import backup, platforms
from components.config import App, Environment
from components.model.services import DATABASE
from components.rendering import REPLICATED

from .pulumi_stack import project, pulumi

PATH = "environment.tiers.database"
COPY_COMMAND = (
    'DATABASE_DIRECT_HOST="$1" DATABASE_NAME="$2" backup dump | '
    'DATABASE_DIRECT_HOST="$3" DATABASE_NAME="$4" backup restore --snapshot - --into "$5"'
)
"""Shell command that copies a database to another server, and compares the copy with the original.

Arguments: old host ($1), old name ($2), new host ($3), name of an existing database on the new host ($4), new name ($5).
"""


def unused_name(app: App, now: datetime) -> str:
    """Return a name for a new database. The name is unused, because it contains the current time."""
    if not app.database:
        raise RunError("app.database: the application has no database; add one")
    return f"{app.database.name[:45]}_r{now:%Y%m%d_%H%M%S}"


def copy_database(
    app: App, environment: Environment, stack: str, source: tuple[str, str], through: str, into: str
) -> str:
    """Copy a database of another server into a new database of the database cluster, and return the output.

    Args:
        source: host and name of the database to copy.
        through: name of an existing database of the cluster. The copy connects to this database to create the new database.
        into: name of the new database.
    """
    command = ("sh", "-c", COPY_COMMAND, "sh", *source, f"{REPLICATED}-rw", through, into)
    return platforms.inspector(app, environment, stack).run_once(environment, backup.NAME, "verify", command)


def set_database(app: App, environment: Environment, stack: str, **settings: str) -> None:
    """Write database settings to the stack file.

    Write all settings in one step. One setting without the others could refer to a database that does not exist.

    In a database cluster, first add the new database to the connection pooler.
    """
    updated = environment.tier_settings(DATABASE.name).model_copy(update=settings)
    if updated.uses_cluster and updated.name:
        platforms.cluster_inspector(app, environment, stack).pool_database(REPLICATED, updated.name)
    words = [word for key, value in settings.items() for word in ("--plaintext", f"{project()}:{PATH}.{key}={value}")]
    pulumi("config", "set-all", "--stack", stack, "--path", *words)
    print(f"  Pulumi.{stack}.yaml: {PATH} is now {', '.join(f'{key}: {value}' for key, value in settings.items())}")
