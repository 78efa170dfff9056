"""Move of data from the single database (one instance) to the database cluster: `python -m ci.move STACK`.

1. The single database becomes read-only.
2. The backup workload copies the data to a new database of the cluster, and compares both databases table by table.
3. The stack file gets the name of the new database.

`make up` then releases the tiers with the new database, and `make back` returns to the single database.
`python -m ci.move STACK --reopen` makes the single database accept writes again.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from pulumi import RunError

from components import backup, platforms
from components.config import App, Environment
from components.model.services import DATABASE
from components.platforms import InspectsClusters
from components.release import checkpoint
from components.release.checkpoint import Checkpoint
from components.rendering import REPLICATED
from components.state.kubernetes import CLUSTER

from . import command_line
from .new_database import PATH, copy_database, set_database, unused_name
from .process import undo_when_stopped
from .pulumi_stack import load, state

SESSION_TIMEOUT = 60
"""Maximum seconds to wait until older sessions have ended. A session keeps the read-only setting that it started with."""


@dataclass(frozen=True, kw_only=True)
class Single:
    """Database that runs as a single instance. Queries run in the database's pod, as the owner of the database."""

    inspector: InspectsClusters
    name: str
    owner: str

    def close(self) -> None:
        """Set the database read-only."""
        self._set("SET default_transaction_read_only = on")

    def open(self) -> None:
        """Make the database accept writes again."""
        self._set("RESET default_transaction_read_only")

    def count_writes(self) -> int:
        """Return the number of rows that were inserted, updated or deleted so far.

        If the number grows during the move, a session has overridden the read-only setting.
        """
        rows = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables"
        return int(self._query(rows, database=self.name))

    def _set(self, setting: str) -> None:
        since = self._query(f'ALTER DATABASE "{self.name}" {setting}', "SELECT clock_timestamp()")
        old_sessions = f"datname = '{self.name}' AND backend_type = 'client backend' AND backend_start < '{since}'"
        deadline = time.monotonic() + SESSION_TIMEOUT
        # The setting applies only to new sessions, so older sessions must end. A session that is just starting becomes
        # visible a moment later, so require two rounds without sessions.
        rounds_without_sessions = 0
        while rounds_without_sessions < 2:
            # The name can't inject SQL, because config.Identifier restricts the characters of names.
            query = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {old_sessions}"  # noqa: S608
            session_count = self._query(query)
            rounds_without_sessions = rounds_without_sessions + 1 if session_count == "0" else 0
            if time.monotonic() > deadline:
                raise RunError(
                    f"{session_count} sessions of database {self.name} did not end within {SESSION_TIMEOUT} s; find their clients in pg_stat_activity, and stop them"
                )
            time.sleep(1)

    def _query(self, *queries: str, database: str = "template1") -> str:
        # By default queries run in template1, because the read-only setting does not apply there.
        return self.inspector.query_single_instance(DATABASE.name, queries, user=self.owner, database=database)


def move(stack: str) -> None:
    """Copy the single database to the cluster, and write the name of the new database to the stack file."""
    app, environment = load(stack)
    stack_state = checkpoint.parse(state(stack))
    if problem := move_problem(environment, stack_state):
        raise RunError(problem)
    assert app.database
    name, into = database_env(stack_state)["DATABASE_NAME"], unused_name(app, datetime.now(UTC))
    single = _single(app, environment, stack, name)
    with read_only(single, stack):
        before = single.count_writes()
        print(copy_database(app, environment, stack, (DATABASE.name, name), app.database.name, into))
        if additional := single.count_writes() - before:
            raise RunError(
                f"{additional} rows were written into database {name}, although it was read-only; stop the program that uses BEGIN READ WRITE"
            )
        set_database(app, environment, stack, single="kept", name=into)
    print(
        f"  run `make up ENV={stack}` to deploy a release that uses the new database; before that, and after `make back`, the tiers can only read"
    )


def reopen(stack: str) -> None:
    """Make the single database accept writes again.

    Raises:
        RunError: the live release does not use the single database.
    """
    app, environment = load(stack)
    live = database_env(checkpoint.parse(state(stack)))
    if live.get("DATABASE_HOST") != DATABASE.name:
        raise RunError("the live release does not use the single database; run `make back` first")
    # Write the stack file first. Otherwise the next `make up` would use the copy, which lacks the new writes.
    set_database(app, environment, stack, single="live", name=live["DATABASE_NAME"])
    _single(app, environment, stack, live["DATABASE_NAME"]).open()
    print(f"move: the single database {live['DATABASE_NAME']} takes writes again")


def move_problem(environment: Environment, stack_state: Checkpoint) -> str:
    """Return the reason why the data can't be moved, or an empty text."""
    settings = environment.tier_settings(DATABASE.name)
    if not (settings.ha and settings.single == "live"):
        return f"{PATH}.single: a move needs a live single database and a database cluster; set ha: true and single: live, then run `make up`"
    if not settings.backup:
        return f"{backup.PATH}: the backup workload copies the data, but backups are not set; set this key, then run `make up`"
    if not stack_state.find(CLUSTER, REPLICATED):
        return f"{PATH}.ha: the database cluster does not exist yet; run `make up` first"
    if database_env(stack_state).get("DATABASE_HOST") != DATABASE.name:
        return f"{PATH}.single: the live release does not use the single database; run `make up` first"
    return ""


def database_env(stack_state: Checkpoint) -> dict[str, str]:
    """Return the DATABASE_… environment variables of the live tiers."""
    live = checkpoint.observe(stack_state).live
    return checkpoint.database_env(stack_state, live) if live else {}


@contextmanager
def read_only(single: Single, stack: str) -> Generator[None]:
    """Make the single database read-only. If the `with` block fails, make the database writable again."""
    print(f"move: {single.name} is read-only now; if this command is killed, run `make reopen ENV={stack}`", flush=True)
    moved = False
    try:
        single.close()
        yield
        moved = True
    finally:
        if not moved:
            single.open()
            print(f"move: {single.name} takes writes again; the copy is not used", flush=True)


def _single(app: App, environment: Environment, stack: str, name: str) -> Single:
    assert app.database
    inspector = platforms.cluster_inspector(app, environment, stack)
    return Single(inspector=inspector, name=name, owner=app.database.user)


def main(words: Sequence[str]) -> None:
    undo_when_stopped("move")
    if words[1:] == ["--reopen"]:
        reopen(words[0])
    else:
        move(words[0])


if __name__ == "__main__":
    words = command_line.arguments("move STACK [--reopen]", 1, 2)
    command_line.run_and_exit("move", lambda: main(words))
