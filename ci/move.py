"""Move of the data of a single database into a database cluster: `python -m ci.move STACK`; `--reopen` reverts it.

The single database is set read-only, and the backup workload copies it into a new database of the cluster and
compares the two table by table. Then the stack file names the new database. `make up` releases the tiers with it, and
`make back` returns to the single one.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from pulumi import RunError

from components import backup, checkpoint, guard
from components.checkpoint import Checkpoint
from components.config import App, Environment, TierName
from components.platforms import cluster
from components.tier import REPLICATED

from . import edge
from .beside import DATABASE, copied, fresh, use
from .described import load, state
from .process import undo_when_stopped

WITHIN = 60
"""Seconds within which sessions that may write must have ended."""


@dataclass(frozen=True, kw_only=True)
class Single:
    """Database of the single server, queried in its own pod as its owner."""

    environment: Environment
    instance: str
    name: str
    owner: str

    def close(self) -> None:
        """Set the database read-only."""
        self._set("SET default_transaction_read_only = on")

    def open(self) -> None:
        """Make the database accept writes again."""
        self._set("RESET default_transaction_read_only")

    def written(self) -> int:
        """Return the number of rows ever written.

        It grows if a session overrides the read-only setting and writes.
        """
        rows = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables"
        return int(self._ask(rows, of=self.name))

    def _set(self, setting: str) -> None:
        since = self._ask(f'ALTER DATABASE "{self.name}" {setting}', "SELECT clock_timestamp()")
        older = f"datname = '{self.name}' AND backend_type = 'client backend' AND backend_start < '{since}'"
        deadline = time.monotonic() + WITHIN
        # The setting applies to sessions that begin after it. A session that was just starting is visible a moment
        # later, so the check must pass twice.
        rounds_without_sessions = 0
        while rounds_without_sessions < 2:
            # config.Identifier restricts the characters of names.
            session_count = self._ask(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {older}")  # noqa: S608
            rounds_without_sessions = rounds_without_sessions + 1 if session_count == "0" else 0
            if time.monotonic() > deadline:
                raise RunError(f"{session_count} sessions of {self.name} do not end; see pg_stat_activity")
            time.sleep(1)

    def _ask(self, *queries: str, of: str = "template1") -> str:
        # Queries run in another database unless they need this one, because the read-only setting does not apply
        # there.
        labels = {"app.kubernetes.io/name": str(TierName.DATABASE)}
        return cluster.sql(self.environment.cluster, self.instance, labels, *queries, user=self.owner, database=of)


def move(stack: str) -> None:
    """Copy the single database into the cluster, and write the new database's name to the stack file."""
    app, environment = load(stack)
    stack_state = checkpoint.parse(state(stack))
    if problem := unfit(environment, stack_state):
        raise RunError(problem)
    assert app.database
    name, into = told(stack_state)["DATABASE_NAME"], fresh(app, datetime.now(UTC))
    single = _single(app, environment, stack, name)
    with read_only(single, stack):
        before = single.written()
        print(copied(app, environment, stack, (str(TierName.DATABASE), name), app.database.name, into))
        if additional := single.written() - before:
            raise RunError(
                f"{additional} rows of {name} were written while it was read-only; stop what says BEGIN READ WRITE first"
            )
        use(app, environment, stack, single="kept", name=into)
    print(
        f"  `make up ENV={stack}` moves the tiers to it; until then, and after `make back`, their database is read-only"
    )


def reopen(stack: str) -> None:
    """Make the single database accept writes again if the live slot uses it."""
    app, environment = load(stack)
    live = told(checkpoint.parse(state(stack)))
    if live.get("DATABASE_HOST") != TierName.DATABASE:
        raise RunError("the live release does not use the single database; run `make back` first")
    # Written first: otherwise the next `make up` would leave the writes made from here on behind.
    use(app, environment, stack, single="live", name=live["DATABASE_NAME"])
    _single(app, environment, stack, live["DATABASE_NAME"]).open()
    print(f"move: the single database {live['DATABASE_NAME']} takes writes again")


def unfit(environment: Environment, known: Checkpoint) -> str:
    """Return the reason why data can't be moved, or an empty text."""
    size = environment.size(TierName.DATABASE)
    if not (size.ha and size.single == "live"):
        return f"{DATABASE}.single: data is moved out of one that is live beside the three; set ha: true and single: live, then `make up`"
    if not size.backup:
        return f"{backup.PATH}: what takes backups is what copies, and no data is moved without one; set it, then `make up`"
    if not known.of(guard.SEVERAL, REPLICATED):
        return f"{DATABASE}.ha: the three are not there yet; run `make up` first"
    if told(known).get("DATABASE_HOST") != TierName.DATABASE:
        return f"{DATABASE}.single: what is live does not use the single one; run `make up` first"
    return ""


def told(known: Checkpoint) -> dict[str, str]:
    """Return the environment variables of the database that the live tiers have."""
    live = checkpoint.observe(known).live
    return checkpoint.told(known, live) if live else {}


@contextmanager
def read_only(single: Single, stack: str) -> Generator[None]:
    """Set the single database read-only during the block. If the block fails, it takes writes again."""
    print(
        f"move: {single.name} is read-only from here on; if this is killed, run `make reopen ENV={stack}`", flush=True
    )
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
    return Single(environment=environment, instance=f"{app.name}-{stack}", name=name, owner=app.database.user)


def main(words: Sequence[str]) -> None:
    undo_when_stopped("move")
    if words[1:] == ["--reopen"]:
        reopen(words[0])
    else:
        move(words[0])


if __name__ == "__main__":
    words = edge.arguments("move STACK [--reopen]", 1, 2)
    edge.end("move", lambda: main(words))
