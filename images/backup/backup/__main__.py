"""Backups of one database and of the services' volumes, or of the volumes of a store: `backup COMMAND`.

All settings are environment variables. Without DATABASE_NAME the program backs up the volumes of a store.

Database: DATABASE_HOST (or DATABASE_DIRECT_HOST), DATABASE_PORT, DATABASE_NAME, DATABASE_USER, DATABASE_PASSWORD_FILE.
Repository: RESTIC_REPOSITORY, RESTIC_PASSWORD_FILE; for S3 also BACKUP_S3_ACCESS_KEY_FILE, BACKUP_S3_SECRET_KEY_FILE.
Schedule: BACKUP_TIMES (JSON: cron expression of each kind of run), BACKUP_RETENTION (days), BACKUP_WITHIN (time limit of a run in
seconds), BACKUP_ROOM (size of the database's volume in bytes, if known).
Store: BACKUP_LIVE (`yes` to accept copies of files that change during the copy).
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import postgres, repository, volumes
from .repository import BackupError, Run

SCRATCH_DATABASE = "backup_verification"
"""Name of the database that a verification creates and drops."""
CREDENTIAL_VARIABLES = {
    "key": "RESTIC_PASSWORD_FILE",
    "access_key": "BACKUP_S3_ACCESS_KEY_FILE",
    "secret_key": "BACKUP_S3_SECRET_KEY_FILE",
}
"""Environment variable with the file of each credential. The keys are the keys in the input of `source_from_stdin`."""


def backup(kind: str) -> None:
    """Save the database, or the volumes of a store.

    Args:
        kind: `backup`, or `full` to save the services' volumes too.
    """
    _record_run(kind, lambda: [*_save(kind)])


def _save(kind: str) -> Generator[tuple[str, int]]:
    """Save the data of a run. Yield the id and the size of each snapshot."""
    if not _has_database():
        yield volumes.save(live=os.environ.get("BACKUP_LIVE") == "yes")
        return
    yield repository.save(repository.DATABASE, postgres.dump())
    if kind == "full" and Path("/", repository.VOLUMES).is_dir():
        yield repository.save_folder(repository.VOLUMES)


def _record_run(kind: str, save: Callable[[], list[tuple[str, int]]]) -> str:
    """Save data and write the record of the run. Return the id of the first snapshot."""
    started = time.monotonic()
    repository.begin()
    try:
        saved = save()
    except BackupError:
        _record_failure(kind, started)
        raise
    ids, size, seconds = (
        [snapshot_id for snapshot_id, _ in saved],
        sum(size for _, size in saved),
        time.monotonic() - started,
    )
    repository.record(kind, ok=True, snapshots=ids, size=size, seconds=seconds)
    print(f"backup: saved {ids[0]} ({kind}, {_size(size)}) in {seconds:.1f} s")
    return ids[0]


def _has_database() -> bool:
    return "DATABASE_NAME" in os.environ


def verify() -> None:
    """Read the whole repository. Then restore the last backup of a database into a scratch database, compare the two, and drop the
    database."""
    started = time.monotonic()
    try:
        repository.check()
        last = repository.select_backup(_history(), "latest")
        result = _compare(last) if _has_database() else "all its files can be read"
    except BackupError:
        _record_failure("verify", started)
        raise
    snapshot_id, seconds = last.snapshots[0], time.monotonic() - started
    repository.record("verify", ok=True, snapshots=[snapshot_id], size=last.size, seconds=seconds)
    print(f"backup: verified {snapshot_id} of {_timestamp(last)} in {seconds:.1f} s: {result}")


def _compare(run: Run) -> str:
    """Restore a backup into a scratch database, compare the two, drop the database, and return the result as text."""
    with repository.read(run.snapshots[0], repository.DATABASE) as stream:
        header = postgres.load(stream, SCRATCH_DATABASE)
    postgres.drop(SCRATCH_DATABASE)
    return f"{_rows(header)} are equal to the backup"


def restore_volumes(selector: str) -> None:
    """Replace the content of a store's volumes by a backup. Save the present content before, so the restore can be undone.

    Args:
        selector: backup to restore (see `repository.select_backup`).
    """
    run = repository.select_backup(_history(), selector)
    undo = ""
    if not volumes.is_empty():
        replaced = _record_run(repository.REPLACED, lambda: [volumes.save(live=False)])
        undo = f"; the replaced files are backup {replaced}"
    files = volumes.restore(run.snapshots[0])
    print(f"backup: restored {files} files of {run.snapshots[0]} of {_timestamp(run)}{undo}")


def dump() -> None:
    """Write a dump of the database to standard output, in the format of a saved backup."""
    for chunk in postgres.dump():
        sys.stdout.buffer.write(chunk)


def restore(selector: str, database: str, sql_files: Sequence[Path]) -> None:
    """Restore a backup into a new database.

    Args:
        selector: backup to restore (see `repository.select_backup`), or `-` to read the output of `dump` from standard input.
        database: name of the new database.
        sql_files: SQL files that run in the new database before it gets its name.
    """
    if selector == "-":
        header = postgres.restore(sys.stdin.buffer, database, sql_files)
        print(f"backup: copied into database {database}: {_rows(header)} are equal to the original")
        return
    if missing := [str(file) for file in sql_files if not file.is_file()]:
        raise BackupError(f"--sql: {missing[0]} does not exist; name an existing file")
    run = repository.select_backup(_history(), selector)
    with repository.read(run.snapshots[0], repository.DATABASE) as stream:
        header = postgres.restore(stream, database, sql_files)
    print(
        f"backup: restored {run.snapshots[0]} of {_timestamp(run)} into database {database}: "
        f"{_rows(header)} are equal to the backup"
    )


@contextmanager
def source_from_stdin() -> Generator[list[Path]]:
    """Use the repository of another environment. Read its location, its keys and SQL texts as one line of JSON from standard input.

    The keys and the SQL texts are written to a temporary folder, which is removed at the end. The result is the list of SQL files.
    """
    source: dict[str, Any] = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as folder:
        # `repository.private_file` must write to this folder too, so that all files with secrets are removed.
        tempfile.tempdir = folder
        os.environ |= {"RESTIC_REPOSITORY": source["repository"], "AWS_DEFAULT_REGION": source["region"]}
        for name, variable in CREDENTIAL_VARIABLES.items():
            file = Path(folder, name)
            file.touch(mode=0o600)
            file.write_text(source[name])
            os.environ[variable] = str(file)
        files = [Path(folder, f"{number:02}.sql") for number, _ in enumerate(source["sql"])]
        for file, text in zip(files, source["sql"], strict=True):
            file.write_text(text)
        repository.write_credentials()
        yield files


def prune(days: int) -> None:
    """Delete the backups and records that have expired.

    Args:
        days: retention in days (see `repository.expired_ids`).
    """
    started = time.monotonic()
    ids = repository.expired_ids(repository.snapshots(), timedelta(days=days), datetime.now(UTC))
    repository.forget(ids)
    repository.record("prune", ok=True, seconds=time.monotonic() - started)
    print(f"backup: deleted {len(ids)} expired snapshots")


def list_backups() -> None:
    """Print the backups, the oldest first. Each line begins with the id of the snapshot of the database, or of a store's volumes.

    The line of a full backup ends with the id of the volumes' snapshot.
    """
    for run in repository.saved(_history()):
        further = "".join(f"  volumes {snapshot_id}" for snapshot_id in run.snapshots[1:])
        print(
            f"{run.snapshots[0]}  {_timestamp(run)}  {run.kind:<6}  {_size(run.size):>10}  {run.seconds:.1f} s{further}"
        )


def status() -> None:
    """Print the time of the last backup and of the last verification.

    Raises:
        BackupError: a run is overdue, or the last verification failed.
    """
    from . import serve

    history, now = _history(), datetime.now(UTC)
    late = [kind for kind, is_late in serve.overdue(history, serve.schedules(), now).items() if is_late]
    backups, verifications = repository.backups(history), [run for run in history if run.kind == "verify"]
    backup_text = (
        f"last backup {_duration(now - backups[-1].time)} ago, {_size(backups[-1].size)}"
        if backups
        else "no backup yet"
    )
    verification_text = (
        f"verified {_duration(now - verifications[-1].time)} ago" if verifications else "not verified yet"
    )
    if late:
        raise BackupError(
            f"{', '.join(late)} overdue ({backup_text}, {verification_text}); read the log of `backup` for the reason"
        )
    if verifications and not verifications[-1].ok:
        raise BackupError(
            f"the last verification failed {_duration(now - verifications[-1].time)} ago ({backup_text}); "
            "run `make verify` to see the reason"
        )
    print(f"{backup_text}, {verification_text}")


def _record_failure(kind: str, started: float) -> None:
    try:
        repository.record(kind, ok=False, seconds=time.monotonic() - started)
    except BackupError as error:
        print(f"backup: the failed run can't be recorded: {error}", file=sys.stderr)


def _history() -> list[Run]:
    return repository.runs(repository.snapshots())


def _rows(header: Mapping[str, Any]) -> str:
    """Return the number of tables and rows as text."""
    tables = header["tables"]
    return f"{len(tables)} tables with {sum(rows for rows, _ in tables.values())} rows"


def _timestamp(run: Run) -> str:
    return f"{run.time:%Y-%m-%dT%H:%M:%SZ}"


def _duration(duration: timedelta) -> str:
    minutes = int(duration.total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60
    return f"{days} days" if days else f"{hours} h" if hours else f"{minutes} min"


def _size(count: float) -> str:
    """Return a number of bytes as text, such as `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("backup", "full", "verify", "prune", "dump", "list", "status"):
        commands.add_parser(name)
    serve_parser = commands.add_parser("serve")
    serve_parser.add_argument(
        "schedules", nargs="*", help="KIND=CRON: runs to start, if the platform does not start them"
    )
    restore_volumes_parser = commands.add_parser("restore-volumes")
    restore_volumes_parser.add_argument("--snapshot", default="latest", help="latest, verified, an id, or a time")
    restore_parser = commands.add_parser("restore")
    restore_parser.add_argument(
        "--snapshot", default="latest", help="latest, verified, an id, a time, or - for standard input"
    )
    restore_parser.add_argument("--into", required=True, help="name of the new database")
    # `make refresh` passes --told to the running container. A new name would fail in containers with an older image.
    restore_parser.add_argument(
        "--told",
        dest="source_from_stdin",
        action="store_true",
        help="read the backup of another environment; standard input has its location and keys, as one line of JSON",
    )
    restore_parser.add_argument(
        "--sql", type=Path, action="append", default=[], help="SQL file to run in the new database"
    )
    return parser.parse_args()


def _set_time_limit() -> None:
    """End the run with a `BackupError` at SIGTERM and after BACKUP_WITHIN seconds, so that the run removes its temporary data."""

    def stop(number: int, _: object) -> None:
        cause = "its time limit (BACKUP_WITHIN) has passed" if number == signal.SIGALRM else "it got SIGTERM"
        raise BackupError(f"the run was stopped, because {cause}; run it again")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(os.environ.get("BACKUP_WITHIN", "0")))


def main() -> None:
    """Run the command of the command line."""
    arguments = _arguments()
    repository.write_credentials()
    if arguments.command == "serve":
        from . import serve

        serve.serve(dict(word.split("=", 1) for word in arguments.schedules))
        return
    _set_time_limit()
    if _has_database():
        postgres.write_credentials()
    if arguments.command in repository.BACKUP_KINDS:
        backup(arguments.command)
    elif arguments.command == "restore":
        with source_from_stdin() if arguments.source_from_stdin else nullcontext(arguments.sql) as sql_files:
            restore(arguments.snapshot, arguments.into, sql_files)
    elif arguments.command == "restore-volumes":
        restore_volumes(arguments.snapshot)
    elif arguments.command == "prune":
        prune(int(os.environ["BACKUP_RETENTION"]))
    else:
        {"dump": dump, "verify": verify, "list": list_backups, "status": status}[arguments.command]()


if __name__ == "__main__":
    try:
        main()
    except BackupError as error:
        sys.exit(f"backup: {error}")
