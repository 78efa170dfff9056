"""Restore of data into a new database: `python -m ci.restore STACK TO [OF]`.

TO is `latest`, the id of a backup, or a time. If TO is a time, OF is the name of the database that was live at that time.
OF is not needed if the same database is live now.

`python -m ci.restore STACK --from OTHER` restores the last verified backup of the environment OTHER, and anonymises the
data with the SQL files of `app.database.anonymise`.

`python -m ci.restore STACK TO --service STORE` replaces the content of a store's volumes by a backup. The store is stopped meanwhile, and the
replaced files become a backup.

The existing database does not change. The new database is compared with the backup, then its name is written to the
stack file. `make up` then releases the tiers with the new database, and `make back` returns to the existing database.
"""

import json
from datetime import UTC, datetime
from typing import Any

from pulumi import RunError

from components import backup, database, platforms, rendering
from components.config import App, Environment
from components.config.own_files import read_text
from components.context import Description
from components.model.names import store_backup
from components.model.services import DATABASE
from components.model.workload import DatabaseCluster, Secret
from components.platforms import VolumeRestore

from . import command_line
from .backup import check_service, run
from .new_database import PATH, copy_database, set_database, unused_name
from .process import undo_when_stopped
from .pulumi_stack import ROOT, load, pulumi

COPY_OF = f"{PATH}.copy_of"


def restore(stack: str, to: str, source_database: str = "") -> None:
    """Restore data of the environment into a new database, and write the name of the new database to the stack file.

    Args:
        stack: the stack's name.
        to: `latest`, the id of a backup or a time.
        source_database: name of the database that was live at the time `to`, or an empty text for the database that is live now.
    """
    app, environment = load(stack)
    if not to:
        raise RunError(
            "TO is missing; set TO to latest, an id from `make backups`, or a time like 2026-11-21T03:20:00Z"
        )
    into, moment = unused_name(app, datetime.now(UTC)), parse_time(to)
    if moment and environment.archived and environment.tier_settings(DATABASE.name).uses_cluster:
        print(_recover(app, environment, stack, moment, source_database, into))
    elif source_database:
        archive = "an archive of a database cluster (ha: true, backups to a bucket)"
        required = archive if moment else f"a time in TO, and {archive}"
        raise RunError(f"OF: a backup contains only one database; remove OF, or use {required}")
    else:
        print(run(stack, "restore", "--snapshot", to, "--into", into))
    _use(app, environment, stack, into)


def refresh(stack: str, source: str) -> None:
    """Restore another environment's data into a new database. The data is anonymised before the tiers can use it."""
    app, environment = load(stack)
    if problem := refresh_problem(app, environment, stack, source):
        raise RunError(problem)
    into = unused_name(app, datetime.now(UTC))
    request = json.dumps(_source_settings(source) | {"sql": _anonymise(app)})
    command = (backup.NAME, "restore", "--snapshot", "verified", "--into", into, "--told")
    print(platforms.inspector(app, environment, stack).run_with_input(backup.NAME, command, request))
    _use(app, environment, stack, into)


def restore_store(stack: str, to: str, store: str) -> None:
    """Replace the content of a store's volumes by a backup. The store is stopped meanwhile, and started again in any case.

    Args:
        stack: the stack's name.
        to: `latest`, the id of a backup or a time.
        store: name of the store.
    """
    app, environment = load(stack)
    check_service(app, environment, stack, store)
    if not to:
        raise RunError(
            f"TO is missing; set TO to latest, an id from `make backups SERVICE={store}`, or a time like 2026-11-21T03:20:00Z"
        )
    # A stopped make must start the store again.
    undo_when_stopped("restore")
    volumes = VolumeRestore(
        store=store,
        workload=store_backup(store),
        folder=backup.VOLUMES,
        ready_within=app.stores[store].start_within,
    )
    command = (backup.NAME, "restore-volumes", "--snapshot", to)
    print(platforms.inspector(app, environment, stack).run_on_volumes(environment, volumes, command))


def refresh_problem(app: App, environment: Environment, stack: str, source: str) -> str:
    """Return the reason why this environment may not get the data of environment `source`, or an empty text."""
    settings = environment.tier_settings(DATABASE.name)
    if not source:
        return "FROM is missing; set FROM to the environment to copy the data from"
    if settings.copy_of != source:
        reason = f"copy_of is {settings.copy_of}" if settings.copy_of else "copy_of is not set"
        return f"{COPY_OF}: {reason}, so {stack} does not accept the data of {source}; set copy_of to {source} if this data may replace the data of {stack}"
    if not app.database or not app.database.anonymise:
        return (
            f"app.database.anonymise: the data of {source} contains personal data; list the SQL files that anonymise it"
        )
    return ""


# ---------------------------------------------------------------------- restore to a time


def parse_time(to: str) -> datetime | None:
    """Parse a time and return it in UTC. A time without a zone counts as UTC. Return None if the text is `latest` or the id of a backup."""
    try:
        moment = datetime.fromisoformat(to) if "-" in to else None
    except ValueError:
        return None
    if moment is None:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _recover(app: App, environment: Environment, stack: str, moment: datetime, source_database: str, into: str) -> str:
    """Copy a database as it was at the time `moment` into the new database `into`, and return the output.

    The copy is made from a temporary server, which is restored to that time.
    """
    assert app.database
    cluster = database.workload(app.database, _description(app, environment, stack))
    assert isinstance(cluster, DatabaseCluster)
    with platforms.cluster_inspector(app, environment, stack).recovered(cluster, moment) as host:
        name = rendering.database_name(app.database, environment)
        return copy_database(app, environment, stack, (host, source_database or name), name, into)


def _description(app: App, environment: Environment, stack: str) -> Description:
    """Return a description of the environment without the values of secrets."""
    names = {*app.secrets, *environment.secrets}
    return Description(
        app=app,
        environment=environment,
        secrets={name: Secret(name=name, version="") for name in names},
        stack=stack,
        root=ROOT,
    )


def _use(app: App, environment: Environment, stack: str, name: str) -> None:
    set_database(app, environment, stack, name=name)
    print(
        f"  run `make up ENV={stack}` to deploy a release that uses the new database; `make back` returns to the former one"
    )


# ---------------------------------------------------------------------- another environment's data


def _source_settings(source: str) -> dict[str, Any]:
    """Read another environment's stack file. Return the location of that environment's backups, and the keys to read them."""
    app, environment = load(source)
    settings = environment.tier_settings(DATABASE.name).backup
    if not settings or not settings.target.s3:
        raise RunError(
            f"{backup.PATH}.target: the backups of {source} are in a volume that other environments can't read; set backup.target.s3 in {source}"
        )
    s3 = settings.target.s3
    return {
        "repository": backup.repository(settings.target, app, source),
        "region": s3.region,
        "key": _value(source, environment, settings.key),
        "access_key": _value(source, environment, s3.access_key),
        "secret_key": _value(source, environment, s3.secret_key),
    }


def _value(stack: str, environment: Environment, secret: str) -> str:
    if secret in environment.secrets_in_cluster:
        raise RunError(
            f"secrets.{secret}: the value is in the cluster of {stack}, but this command reads it from Pulumi.{stack}.yaml; set the value there"
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
    elif words[1:2] == ("--service",):
        restore_store(stack, words[0], words[2])
    else:
        restore(stack, *words)


if __name__ == "__main__":
    words = command_line.arguments("restore STACK TO [OF] | STACK TO --service STORE | STACK --from OTHER", 2, 4)
    command_line.run_and_exit("restore", lambda: main(*words))
