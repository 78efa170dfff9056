"""Backups of one database and of the tiers' volumes: `backup VERB`. What it needs to know is in its environment.

DATABASE_HOST (or DATABASE_DIRECT_HOST), _PORT, _NAME, _USER, _PASSWORD_FILE; RESTIC_REPOSITORY, RESTIC_PASSWORD_FILE and, for S3,
BACKUP_S3_ACCESS_KEY_FILE, _SECRET_KEY_FILE; BACKUP_TIMES, BACKUP_RETENTION (days), BACKUP_WITHIN (seconds that a run may take),
BACKUP_ROOM (bytes of the database's volume, where it is of a size).
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from . import postgres, repository
from .repository import BackupError, Run

SCRATCH = "backup_verification"
TOLD = {
    "key": "RESTIC_PASSWORD_FILE",
    "access_key": "BACKUP_S3_ACCESS_KEY_FILE",
    "secret_key": "BACKUP_S3_SECRET_KEY_FILE",
}
"""What opens another environment's backups → the variable that says which file has it."""


def backup(kind: str) -> None:
    """The database; `full`: the tiers' volumes, too."""
    started = time.monotonic()
    made: list[tuple[str, int]] = []
    repository.begin()
    try:
        made.append(repository.save(repository.DATABASE, postgres.dump()))
        if kind == "full" and Path("/", repository.VOLUMES).is_dir():
            made.append(repository.save_folder(repository.VOLUMES))
    except BackupError:
        _failed(kind, started)
        raise
    size, seconds = sum(size for _, size in made), time.monotonic() - started
    repository.record(kind, ok=True, of=[one for one, _ in made], size=size, seconds=seconds)
    print(f"backup: {kind} {made[0][0]} of {_bytes(size)} in {seconds:.1f} s")


def verify() -> None:
    """Read the whole repository, and have the last backup come back in a scratch database, which is compared and removed."""
    started = time.monotonic()
    try:
        repository.check()
        last = repository.chosen(_runs(), "latest")
        with repository.read(last.of[0], repository.DATABASE) as stream:
            header = postgres.load(stream, SCRATCH)
        postgres.drop(SCRATCH)
    except BackupError:
        _failed("verify", started)
        raise
    seconds = time.monotonic() - started
    repository.record("verify", ok=True, of=[last.of[0]], size=last.size, seconds=seconds)
    print(f"backup: {last.of[0]} of {_when(last)} came back: {_rows(header)} equal what was saved, in {seconds:.1f} s")


def dump() -> None:
    """What would be saved, on standard output."""
    for chunk in postgres.dump():
        sys.stdout.buffer.write(chunk)


def restore(which: str, into: str, then: Sequence[Path]) -> None:
    """A new database from a backup, or from what `dump` printed (`-`)."""
    if which == "-":
        header = postgres.restore(sys.stdin.buffer, into, then)
        print(f"backup: database {into} is there: {_rows(header)} equal what was copied")
        return
    if missing := [str(file) for file in then if not file.is_file()]:
        raise BackupError(f"--sql: {missing[0]} is not there")
    found = repository.chosen(_runs(), which)
    with repository.read(found.of[0], repository.DATABASE) as stream:
        header = postgres.restore(stream, into, then)
    print(f"backup: {found.of[0]} of {_when(found)} is database {into}: {_rows(header)} equal what was saved")


@contextmanager
def told() -> Generator[list[Path]]:
    """Whose backup it is and what SQL runs at last: a line on standard input says it, and nothing of it stays behind."""
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as folder:
        # What others make of these secrets is put here, too.
        tempfile.tempdir = folder
        os.environ |= {"RESTIC_REPOSITORY": given["repository"], "AWS_DEFAULT_REGION": given["region"]}
        for name, variable in TOLD.items():
            file = Path(folder, name)
            file.touch(mode=0o600)
            file.write_text(given[name])
            os.environ[variable] = str(file)
        files = [Path(folder, f"{number:02}.sql") for number, _ in enumerate(given["sql"])]
        for file, text in zip(files, given["sql"], strict=True):
            file.write_text(text)
        repository.credentials()
        yield files


def prune(days: int) -> None:
    """Forget what is older than it has to be kept."""
    started = time.monotonic()
    gone = repository.expired(repository.snapshots(), timedelta(days=days), datetime.now(UTC))
    repository.forget(gone)
    repository.record("prune", ok=True, seconds=time.monotonic() - started)
    print(f"backup: {len(gone)} snapshots are forgotten")


def listed() -> None:
    """The backups there are, the oldest first: the id of the database, and of a full one that of the volumes."""
    for run in repository.backups(_runs()):
        volumes = "".join(f"  volumes {one}" for one in run.of[1:])
        print(f"{run.of[0]}  {_when(run)}  {run.kind:<6}  {_bytes(run.size):>10}  {run.seconds:.1f} s{volumes}")


def status() -> None:
    """When it was last backed up and verified.

    Raises:
        BackupError: not as it should have been.
    """
    from . import serve

    known, now = _runs(), datetime.now(UTC)
    late = [kind for kind, is_late in serve.overdue(known, serve.times(), now).items() if is_late]
    made, verified = repository.backups(known), [run for run in known if run.kind == "verify"]
    last = f"last backup {_ago(now - made[-1].at)} ago, {_bytes(made[-1].size)}" if made else "no backup yet"
    proven = f"verified {_ago(now - verified[-1].at)} ago" if verified else "not verified yet"
    if late:
        raise BackupError(f"{', '.join(late)} overdue: {last}, {proven}; the log of `backup` says why")
    if verified and not verified[-1].ok:
        raise BackupError(
            f"the last verification, {_ago(now - verified[-1].at)} ago, failed: {last}; `make verify` says why"
        )
    print(f"{last}, {proven}")


def _failed(kind: str, started: float) -> None:
    try:
        repository.record(kind, ok=False, seconds=time.monotonic() - started)
    except BackupError as error:
        print(f"backup: that it failed can't be recorded: {error}", file=sys.stderr)


def _runs() -> list[Run]:
    return repository.runs(repository.snapshots())


def _rows(header: dict[str, Any] | Any) -> str:
    tables = header["tables"]
    return f"{len(tables)} tables with {sum(rows for rows, _ in tables.values())} rows"


def _when(run: Run) -> str:
    return f"{run.at:%Y-%m-%dT%H:%M:%SZ}"


def _ago(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    days, hours = minutes // 1440, minutes // 60
    return f"{days} days" if days else f"{hours} h" if hours else f"{minutes} min"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="backup", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("backup", "full", "verify", "prune", "dump", "list", "status"):
        verbs.add_parser(name)
    verbs.add_parser("serve").add_argument("due", nargs="*", help="NAME=TIMES: runs to start where nobody else does")
    verb = verbs.add_parser("restore")
    verb.add_argument("--snapshot", default="latest", help="latest, an id, or a time: the last one before it")
    verb.add_argument("--into", required=True, help="the new database")
    verb.add_argument("--told", action="store_true", help="a line on standard input says whose")
    verb.add_argument("--sql", type=Path, action="append", default=[], help="run there at last")
    return parser.parse_args()


def _bounded() -> None:
    """Being told to stop, or taking too long, ends a run as a failure does: what it began is taken back."""

    def stop(number: int, _: object) -> None:
        raise BackupError("it takes too long" if number == signal.SIGALRM else "it was told to stop")

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(os.environ.get("BACKUP_WITHIN", "0")))


def main() -> None:
    given = _arguments()
    repository.credentials()
    if given.verb == "serve":
        from . import serve

        serve.serve(dict(each.split("=", 1) for each in given.due))
        return
    _bounded()
    postgres.credentials()
    if given.verb in repository.MAKING:
        backup(given.verb)
    elif given.verb == "restore":
        with told() if given.told else nullcontext(given.sql) as then:
            restore(given.snapshot, given.into, then)
    elif given.verb == "prune":
        prune(int(os.environ["BACKUP_RETENTION"]))
    else:
        {"dump": dump, "verify": verify, "list": listed, "status": status}[given.verb]()


if __name__ == "__main__":
    try:
        main()
    except BackupError as error:
        sys.exit(f"backup: {error}")
