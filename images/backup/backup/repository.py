"""Repository of the backups. The repository belongs to restic, which encrypts all data and stores each piece of data once.

The repository is the only state. Each run writes a record, which is a snapshot with tags that describe the result of the run. So
the records can be read wherever the repository can be read, on both platforms. Data is a backup only if a record names it. Data of
an interrupted run has no record, and is never listed or restored.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

DATABASE, VOLUMES = "database", "volumes"
"""Names of the saved data: the dump of the database, and the folder `/volumes`, where the volumes of services or of a store are
mounted."""
RECORD = "record"
"""Tag of the snapshots that are records of runs."""
BACKUP_KINDS = ("backup", "full")
"""Kinds of runs that create a backup."""
REPLACED = "replaced"
"""Kind of a run that saves the volumes of a store before a restore replaces them. `latest` and times don't select such a run."""
SAVED_KINDS = (*BACKUP_KINDS, REPLACED)
"""Kinds of runs that save data. This data is kept as long as the record of its run."""
INCOMPLETE = 3
"""Exit code of `restic backup` if it created a snapshot without the files that it could not read."""
LOCK_TIMEOUT = 600
"""Seconds to wait until another process unlocks the repository."""
UNRECORDED_RETENTION = timedelta(days=1)
"""Age at which data without a record expires. Younger data may belong to a run that has not ended."""


class BackupError(Exception):
    """Failure of a run. The message says why the run failed, and contains no secret."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot in the repository: saved data, or the record of a run."""

    id: str
    time: datetime
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def is_record(self) -> bool:
        """True for the record of a run, False for saved data."""
        return RECORD in self.tags


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, as its record describes it."""

    id: str
    """Id of the record."""
    kind: str
    """`begin` (the repository was created), `backup`, `full`, `replaced`, `verify` or `prune`."""
    time: datetime
    """Time of the record, which is the end of the run."""
    ok: bool
    """True if the run succeeded."""
    snapshots: tuple[str, ...] = ()
    """Ids of the snapshots that the run saved or verified. The first id is the snapshot of the database or of a store's volumes."""
    size: int = 0
    """Size of the saved data in bytes."""
    seconds: float = 0
    """Duration of the run."""


def runs(snapshots: Iterable[Snapshot]) -> list[Run]:
    """Return all recorded runs, the oldest first."""
    history = [
        Run(
            id=snapshot.id,
            kind=snapshot.tags["kind"],
            time=snapshot.time,
            ok=snapshot.tags.get("ok") == "yes",
            snapshots=tuple(filter(None, snapshot.tags.get("of", "").split("+"))),
            size=int(snapshot.tags.get("size", 0)),
            seconds=float(snapshot.tags.get("seconds", 0)),
        )
        for snapshot in snapshots
        if snapshot.is_record
    ]
    return sorted(history, key=lambda run: run.time)


def backups(history: Iterable[Run]) -> list[Run]:
    """Return the successful runs that created a backup, in the order of `history`."""
    return [run for run in history if run.ok and run.kind in BACKUP_KINDS]


def saved(history: Iterable[Run]) -> list[Run]:
    """Return the successful runs that saved data, in the order of `history`."""
    return [run for run in history if run.ok and run.kind in SAVED_KINDS]


def select_backup(history: Sequence[Run], selector: str) -> Run:
    """Return the backup that a selector names. If several backups match, return the last one.

    Args:
        history: all recorded runs, the oldest first.
        selector: `latest`; `verified` for the last verified backup; the beginning of an id; or a time, for the last backup
            before this time.

    Raises:
        BackupError: no backup matches the selector.
    """
    matches = backups(history)
    if selector == "verified":
        verified = {snapshot for run in history if run.kind == "verify" and run.ok for snapshot in run.snapshots}
        matches = [run for run in matches if run.snapshots[0] in verified]
    elif selector != "latest":
        moment = _parse_selector_time(selector)
        candidates = matches if moment else saved(history)
        matches = [
            run for run in candidates if (run.time <= moment if moment else run.snapshots[0].startswith(selector))
        ]
    if not matches:
        raise BackupError(f"there is no backup {selector}; choose one that `make backups` lists")
    return matches[-1]


def _parse_selector_time(selector: str) -> datetime | None:
    """Parse a time, or return None for an id. A text without a dash is an id, because an id may have only digits."""
    try:
        moment = datetime.fromisoformat(selector) if "-" in selector else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment and not moment.tzinfo else moment


def expired_ids(snapshots: Collection[Snapshot], retention: timedelta, now: datetime) -> list[str]:
    """Return the ids of all expired snapshots: expired runs with their data, and data of interrupted runs.

    A run expires when it is older than the last successful run of its kind by more than `retention`. So no backup expires if new
    backups fail. Runs with a time in the future are not counted as the last run: a wrong clock must not make all backups expire.
    """
    history = runs(snapshots)
    last_times = {run.kind: run.time for run in history if run.ok and run.time <= now}
    expired = {run.id for run in history if run.kind in last_times and run.time < last_times[run.kind] - retention}
    backup_runs = [run for run in history if run.kind in SAVED_KINDS]
    recorded = {snapshot for run in backup_runs for snapshot in run.snapshots}
    retained = {snapshot for run in backup_runs if run.id not in expired for snapshot in run.snapshots}
    expired_data = {
        snapshot.id
        for snapshot in snapshots
        if not snapshot.is_record
        and snapshot.id not in retained
        and (snapshot.id in recorded or snapshot.time < now - UNRECORDED_RETENTION)
    }
    return sorted(expired | expired_data)


def begin() -> None:
    """Create the repository if it does not exist.

    Raises:
        BackupError: the repository can't be reached, or has another key.
    """
    if _restic("cat", "config", allow_failure=True).returncode:
        if _restic("init", allow_failure=True).returncode:
            # The repository may exist. Then the error of reading it says more than the error of creating it.
            _restic("cat", "config")
        record("begin", ok=True)


def snapshots() -> list[Snapshot]:
    """Return all snapshots of the repository."""
    entries: list[dict[str, Any]] = json.loads(_restic("snapshots", "--json", "--no-lock").stdout or "[]") or []
    return [
        Snapshot(
            id=str(entry["id"])[:8],
            time=_parse_time(entry["time"]),
            tags=dict(tag.partition("=")[::2] for tag in entry.get("tags") or ()),
        )
        for entry in entries
    ]


def record(kind: str, *, ok: bool, snapshots: Sequence[str] = (), size: int = 0, seconds: float = 0) -> None:
    """Write the record of a run. The parameters are the fields of `Run`."""
    tags = {RECORD: "", "kind": kind, "ok": "yes" if ok else "no", "size": str(size), "seconds": f"{seconds:.1f}"}
    save(f"{RECORD}-{kind}", [b"{}\n"], tags | ({"of": "+".join(snapshots)} if snapshots else {}))


def save(name: str, chunks: Iterable[bytes], tags: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Save a stream. If `chunks` raises an error, no snapshot is created.

    Args:
        name: file name of the stream in the snapshot.
        chunks: the content of the stream.
        tags: tags of the snapshot.

    Returns:
        The id of the snapshot, and the number of saved bytes.

    Raises:
        BackupError: restic failed. Errors that `chunks` raises are passed on.
    """
    words = ["backup", "--stdin", "--stdin-filename", name, "--json", "--quiet", *_tags(tags or {})]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(_command(*words), stdin=subprocess.PIPE, stdout=output, stderr=errors)
        assert process.stdin
        try:
            for chunk in chunks:
                process.stdin.write(chunk)
            process.stdin.close()
        except BrokenPipeError:
            pass  # restic has ended. Its errors are read below.
        except BaseException:
            # Don't close the input: restic would save the incomplete stream as if it were complete.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        code = process.wait()
        output.seek(0)
        errors.seek(0)
        return _saved_snapshot(code, output.read().decode(), errors.read().decode())


def save_folder(name: str) -> tuple[str, int]:
    """Save the folder `/name`.

    Returns:
        The id of the snapshot, and the number of saved bytes.

    Raises:
        BackupError: restic failed, or could not read a file.
    """
    result = _restic("backup", f"/{name}", "--json", "--quiet", allow_failure=True)
    return _saved_snapshot(result.returncode, result.stdout, result.stderr)


def save_changing_folder(name: str) -> tuple[tuple[str, int], str]:
    """Save the folder `/name`, in which files may change or disappear during the copy.

    Returns:
        The id of the snapshot with the number of saved bytes, and the error about files that could not be read, or an empty text.

    Raises:
        BackupError: restic failed, or could not read a file that still exists.
    """
    result = _restic("backup", f"/{name}", "--json", "--quiet", allow_failure=True)
    if result.returncode != INCOMPLETE:
        return _saved_snapshot(result.returncode, result.stdout, result.stderr), ""
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    if not all("no such file" in line for line in errors):
        raise BackupError(f"the data can't be saved: {reason(result.stderr)}")
    return _saved_snapshot(0, result.stdout, result.stderr), reason(result.stderr)


@contextmanager
def read(snapshot: str, name: str) -> Generator[Any]:
    """Return the stream `name` of a snapshot.

    Raises:
        BackupError: at the end, if restic could not read the whole stream.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            _command("dump", "--no-lock", snapshot, f"/{name}"), stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdout
        try:
            yield process.stdout
            while process.stdout.read(2**20):
                pass  # The caller may not have read the stream to its end.
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code:
            errors.seek(0)
            raise BackupError(f"snapshot {snapshot} can't be read: {reason(errors.read().decode())}")


def forget(ids: Collection[str]) -> None:
    """Delete snapshots, and the data that no other snapshot uses."""
    if ids:
        _restic("forget", *ids)
    _restic("prune", "--quiet")


def check() -> None:
    """Read the whole repository and verify its checksums.

    Raises:
        BackupError: the repository is damaged.
    """
    result = _restic("check", "--read-data", "--quiet", allow_failure=True)
    if result.returncode:
        raise BackupError(
            f"the repository is damaged: {reason(result.stderr or result.stdout)}; "
            "set another backup.target and take a backup (docs/runbook.md#backup-stale)"
        )


def reason(text: str) -> str:
    """Return the last three lines of an error output as one line, without empty lines and repeated lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-3:])) or "no error message"


def _saved_snapshot(code: int, output: str, errors: str) -> tuple[str, int]:
    """Return the id and the size of the snapshot in the output of `restic backup --json`."""
    if code:
        raise BackupError(f"the data can't be saved: {reason(errors)}")
    summary: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return str(summary["snapshot_id"])[:8], int(summary["total_bytes_processed"])


def _tags(tags: Mapping[str, str]) -> list[str]:
    return [word for name, value in tags.items() for word in ("--tag", f"{name}={value}" if value else name)]


def _command(*words: str) -> list[str]:
    # Use no cache: it would need a volume, and is of little use to runs that mostly write.
    verb, *rest = words
    host = ["--host", "tiers"] if verb == "backup" else []
    return ["restic", "--no-cache", verb, *host, *rest]


def _restic(*words: str, allow_failure: bool = False) -> subprocess.CompletedProcess[str]:
    """Run restic. If another process has locked the repository, wait up to `LOCK_TIMEOUT` seconds.

    Raises:
        BackupError: restic failed, and `allow_failure` is False.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        result = subprocess.run(_command(*words), capture_output=True, text=True)
        if not (result.returncode and "already locked" in result.stderr and time.monotonic() < deadline):
            break
        print(f"backup: {words[0]} waits for the lock of the repository: {reason(result.stderr)}", file=sys.stderr)
        # `unlock` removes only stale locks, which are locks of processes that have ended.
        subprocess.run(_command("unlock"), capture_output=True)
        time.sleep(5)
    if result.returncode and not allow_failure:
        raise BackupError(f"restic {words[0]}: {reason(result.stderr)}")
    return result


def _parse_time(text: str) -> datetime:
    # restic writes nanoseconds. Python parses at most microseconds.
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", text).replace("Z", "+00:00")).astimezone(UTC)


def write_credentials() -> None:
    """Write the keys of S3 to a private file for restic, so that no environment variable contains a key."""
    names = [os.environ.get(f"BACKUP_S3_{kind}_KEY_FILE") for kind in ("ACCESS", "SECRET")]
    if all(names):
        access, secret = (Path(name or "").read_text().strip() for name in names)
        text = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = private_file("aws", text)


def private_file(name: str, text: str) -> str:
    """Write a file to the temporary folder and return its path. Only this user can read the file.

    The file is replaced in one step, because another run may be reading it.
    """
    file = Path(tempfile.gettempdir()) / name
    handle, new_file = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "w") as opened:
        opened.write(text)
    return str(Path(new_file).replace(file))
