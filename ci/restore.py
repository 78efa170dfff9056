"""Restore of data into a new database beside the one in use: `python -m ci.restore STACK TO [OF]`.

TO is `latest`, the id of a backup or a time. OF is the database that was live at that time, if another one is live
today. `python -m ci.restore STACK --from OTHER` restores another environment's data from its last verified backup,
through the application's `anonymise`. The existing database is never written to. Once the new database is complete
and compared with the backup, the stack file names it: `make up` releases the tiers with it, and `make back` returns
to the former one.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pulumi import RunError

from components import backup, database, platforms, tier
from components.config import App, Environment, TierName
from components.named import read_text
from components.platforms import recovery
from components.platforms.manifests import Scope
from components.tier import Description
from components.workload import DatabaseCluster, Secret

from . import edge
from .backup import run
from .beside import DATABASE, copied, fresh, use
from .described import ROOT, load, pulumi
from .process import undo_when_stopped

COPY_OF = f"{DATABASE}.copy_of"


def restore(stack: str, to: str, of: str = "") -> None:
    """Restore the environment's own data. `of` is the database that was live at the time `to`, if another one is live now."""
    app, environment = load(stack)
    if not to:
        raise RunError(
            "TO is not given; say latest, an id that `make backups` lists, or a time like 2026-11-21T03:20:00Z"
        )
    into, moment = fresh(app, datetime.now(UTC)), moment_of(to)
    if moment and environment.archived and environment.size(TierName.DATABASE).several:
        print(_recovered(app, environment, stack, moment, of, into))
    elif of:
        raise RunError("OF: a backup is of one database, and of whichever was live; leave it out, it is for a moment")
    else:
        print(run(stack, "restore", "--snapshot", to, "--into", into))
    _use(app, environment, stack, into)


def refresh(stack: str, of: str) -> None:
    """Restore another environment's data. It is anonymised before the database gets the name that tiers use."""
    app, environment = load(stack)
    if problem := unfit(app, environment, stack, of):
        raise RunError(problem)
    into = fresh(app, datetime.now(UTC))
    request = json.dumps(_whose(of) | {"sql": _anonymise(app)})
    command = (backup.NAME, "restore", "--snapshot", "verified", "--into", into, "--told")
    print(platforms.tell(app, environment, stack, backup.NAME, command, request))
    _use(app, environment, stack, into)


def unfit(app: App, environment: Environment, stack: str, of: str) -> str:
    """Return the reason why this environment may not get the data of `of`, or an empty text. Only this function allows it."""
    size = environment.size(TierName.DATABASE)
    if not of:
        return "FROM is not given; say which environment's data it is to be"
    if size.copy_of != of:
        state = f"it is a copy of {size.copy_of}" if size.copy_of else "it is nobody's copy"
        return f"{COPY_OF}: {stack} is not for the data of {of}, {state}; set it to {of} if nothing here is real data"
    if not app.database or not app.database.anonymise:
        return f"app.database.anonymise: the data of {of} is of real people; name the SQL files that make it nobody's"
    return ""


# ---------------------------------------------------------------------- as it was


def moment_of(to: str) -> datetime | None:
    """Return the time that `to` names, in UTC by default; None for a word, or for an id, which may look like a day."""
    try:
        moment = datetime.fromisoformat(to) if "-" in to else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _recovered(app: App, environment: Environment, stack: str, moment: datetime, of: str, into: str) -> str:
    """Recover a database to any moment: its server is restored temporarily, and the database is copied from there."""
    assert app.database
    cluster = database.workload(app.database, _description(app, environment))
    assert isinstance(cluster, DatabaseCluster)
    scope = Scope.of(app.name, environment.cluster, f"{app.name}-{stack}")
    with recovery.recovered(environment.cluster, scope, cluster, moment) as host:
        name = tier.database_name(app.database, environment)
        return copied(app, environment, stack, (host, of or name), name, into)


def _description(app: App, environment: Environment) -> Description:
    """Return a description of the environment without the values of secrets."""
    names = {*app.secrets, *environment.secrets}
    return Description(
        app=app, environment=environment, secrets={name: Secret(name=name, version="") for name in names}, root=ROOT
    )


def _use(app: App, environment: Environment, stack: str, name: str) -> None:
    use(app, environment, stack, name=name)
    print(f"  `make up ENV={stack}` moves the tiers to it, `make back` returns")


# ---------------------------------------------------------------------- another environment's data


def _whose(of: str) -> dict[str, Any]:
    """Return the location and the keys of an environment's backups, from its stack file."""
    app, environment = load(of)
    settings = environment.size(TierName.DATABASE).backup
    if not settings or not settings.target.s3:
        raise RunError(
            f"{backup.PATH}.target: the backups of {of} are where no other environment reaches them; back up to s3"
        )
    s3 = settings.target.s3
    return {
        "repository": backup.repository(settings.target, app, of),
        "region": s3.region,
        "key": _value(of, environment, settings.key),
        "access_key": _value(of, environment, s3.access_key),
        "secret_key": _value(of, environment, s3.secret_key),
    }


def _value(stack: str, environment: Environment, secret: str) -> str:
    cluster: Mapping[str, object] = environment.kubernetes.secrets if environment.kubernetes else {}
    if secret in cluster:
        raise RunError(
            f"secrets.{secret}: the value is in the cluster of {stack}, and this reads stack files; set it there"
        )
    return pulumi("config", "get", "--stack", stack, "--path", f"secrets.{secret}").rstrip("\n")


def _anonymise(app: App) -> list[str]:
    assert app.database
    return [
        read_text(name, f"app.database.anonymise.{number}", ROOT) for number, name in enumerate(app.database.anonymise)
    ]


def main(stack: str, *words: str) -> None:
    undo_when_stopped("restore")
    if words[:1] == ("--from",):
        refresh(stack, words[1])
    else:
        restore(stack, *words)


if __name__ == "__main__":
    words = edge.arguments("restore STACK TO [OF] | STACK --from OTHER", 2, 3)
    edge.end("restore", lambda: main(*words))
