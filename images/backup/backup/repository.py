"""Where backups are: a repository of restic, which encrypts all of it and keeps each piece of data once.

The repository is all the state there is. Each run leaves a record in it, a snapshot whose tags say how the run went, so that
whoever can read the repository knows what happened, on either platform. Data counts as a backup only once a record names it:
what a run left that was cut off is never listed or restored.
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
"""Names of what is saved: the stream of a database, and the folder of the root in which the tiers' volumes are mounted."""
RECORD = "record"
MAKING = ("backup", "full")
"""The runs that make a backup."""
PATIENCE = 600
"""Seconds until a repository that somebody else is at work on has to be free."""
ABANDONED = timedelta(days=1)
"""Data without a record that is older was left by a run that was cut off."""


class BackupError(Exception):
    """A run failed; the message says why, and never tells a secret."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What restic knows of something it keeps."""

    id: str
    time: datetime
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def record(self) -> bool:
        return RECORD in self.tags


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run as its record tells of it."""

    id: str
    kind: str
    at: datetime
    ok: bool
    of: tuple[str, ...] = ()
    """The snapshots it made, or the one it verified; that of the database first."""
    size: int = 0
    seconds: float = 0


def runs(snapshots: Iterable[Snapshot]) -> list[Run]:
    """All runs on record, the oldest first."""
    found = [
        Run(
            id=each.id,
            kind=each.tags["kind"],
            at=each.time,
            ok=each.tags.get("ok") == "yes",
            of=tuple(filter(None, each.tags.get("of", "").split("+"))),
            size=int(each.tags.get("size", 0)),
            seconds=float(each.tags.get("seconds", 0)),
        )
        for each in snapshots
        if each.record
    ]
    return sorted(found, key=lambda run: run.at)


def backups(known: Iterable[Run]) -> list[Run]:
    """The runs that made a backup, the oldest first."""
    return [run for run in known if run.ok and run.kind in MAKING]


def chosen(known: Sequence[Run], which: str) -> Run:
    """The backup that `which` names: `latest`, `verified`, the beginning of an id, or a time, for the last one before it.

    Raises:
        BackupError: there is none.
    """
    made = backups(known)
    if which == "verified":
        proven = {one for run in known if run.kind == "verify" and run.ok for one in run.of}
        made = [run for run in made if run.of[0] in proven]
    elif which != "latest":
        moment = _moment(which)
        made = [run for run in made if (run.at <= moment if moment else run.of[0].startswith(which))]
    if not made:
        raise BackupError(f"there is no backup {which}; `make backups` lists those there are")
    return made[-1]


def _moment(which: str) -> datetime | None:
    """The time that is meant; None if it is an id, which may be all digits, as a day without dashes is."""
    try:
        moment = datetime.fromisoformat(which) if "-" in which else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment and not moment.tzinfo else moment


def expired(snapshots: Collection[Snapshot], keep: timedelta, now: datetime) -> list[str]:
    """The ids of what is to be forgotten: older than `keep`, and what runs that were cut off have left.

    Age is counted from the last run of the same kind that went well: where backups have stopped, none goes.
    What a clock that was ahead has dated is not that one: nothing would be left of the time until then.
    """
    known = runs(snapshots)
    newest = {run.kind: run.at for run in known if run.ok and run.at <= now}
    old = {run.id for run in known if run.kind in newest and run.at < newest[run.kind] - keep}
    made = [run for run in known if run.kind in MAKING]
    named = {one for run in made for one in run.of}
    kept = {one for run in made if run.id not in old for one in run.of}
    data = {each.id: each.time for each in snapshots if not each.record and each.id not in kept}
    return sorted(old | {one for one, made_at in data.items() if one in named or made_at < now - ABANDONED})


def begin() -> None:
    """Make the repository where there is none.

    Raises:
        BackupError: it can't be reached, or another key opens it.
    """
    if _restic("cat", "config", fails=True).returncode:
        made = _restic("init", fails=True)
        if made.returncode:
            # It may be there all the same: what is said of reading it tells more then.
            _restic("cat", "config")
        record("begin", ok=True)


def snapshots() -> list[Snapshot]:
    """All that is kept."""
    found: list[dict[str, Any]] = json.loads(_restic("snapshots", "--json", "--no-lock").stdout or "[]") or []
    return [
        Snapshot(
            id=str(each["id"])[:8],
            time=_time(each["time"]),
            tags=dict(tag.partition("=")[::2] for tag in each.get("tags") or ()),
        )
        for each in found
    ]


def record(kind: str, *, ok: bool, of: Sequence[str] = (), size: int = 0, seconds: float = 0) -> None:
    """Write down how a run went."""
    tags = {RECORD: "", "kind": kind, "ok": "yes" if ok else "no", "size": str(size), "seconds": f"{seconds:.1f}"}
    save(f"{RECORD}-{kind}", [b"{}\n"], tags | ({"of": "+".join(of)} if of else {}))


def save(name: str, chunks: Iterable[bytes], tags: Mapping[str, str] | None = None) -> tuple[str, int]:
    """Keep a stream under a name: the snapshot's id, and its bytes. A stream that breaks off is not kept.

    Raises:
        BackupError: restic fails; what it was reading may raise its own.
    """
    words = ["backup", "--stdin", "--stdin-filename", name, "--json", "--quiet", *_tags(tags or {})]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as wrong:
        process = subprocess.Popen(_command(*words), stdin=subprocess.PIPE, stdout=said, stderr=wrong)
        assert process.stdin
        try:
            for chunk in chunks:
                process.stdin.write(chunk)
            process.stdin.close()
        except BrokenPipeError:
            pass  # restic has ended, and says why
        except BaseException:
            # Not by closing its input: the end of that would be taken for the end of the stream.
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        code = process.wait()
        said.seek(0)
        wrong.seek(0)
        return _kept(code, said.read().decode(), wrong.read().decode())


def save_folder(name: str) -> tuple[str, int]:
    """Keep a folder of the root.

    Raises:
        BackupError: restic fails, or can't read a file.
    """
    done = _restic("backup", f"/{name}", "--json", "--quiet", fails=True)
    return _kept(done.returncode, done.stdout, done.stderr)


@contextmanager
def read(snapshot: str, name: str) -> Generator[Any]:
    """What is kept under a name, as a stream; an error at its end if not all of it could be read."""
    with tempfile.TemporaryFile() as wrong:
        process = subprocess.Popen(
            _command("dump", "--no-lock", snapshot, f"/{name}"), stdout=subprocess.PIPE, stderr=wrong
        )
        assert process.stdout
        try:
            yield process.stdout
            while process.stdout.read(2**20):
                pass  # whoever read it may have had enough before its end
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code:
            wrong.seek(0)
            raise BackupError(f"{snapshot} can't be read: {reason(wrong.read().decode())}")


def forget(ids: Collection[str]) -> None:
    """Forget snapshots, and give back the room of what only they held."""
    if ids:
        _restic("forget", *ids)
    _restic("prune", "--quiet")


def check() -> None:
    """Read all of it and hold it against its checksums.

    Raises:
        BackupError: something is damaged.
    """
    done = _restic("check", "--read-data", "--quiet", fails=True)
    if done.returncode:
        raise BackupError(f"the repository is damaged: {reason(done.stderr or done.stdout)}")


def reason(text: str) -> str:
    """The lines of an error that say something, in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-3:])) or "it says nothing"


def _kept(code: int, said: str, wrong: str) -> tuple[str, int]:
    if code:
        raise BackupError(f"it can't be kept: {reason(wrong)}")
    summary: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return str(summary["snapshot_id"])[:8], int(summary["total_bytes_processed"])


def _tags(tags: Mapping[str, str]) -> list[str]:
    return [word for name, value in tags.items() for word in ("--tag", f"{name}={value}" if value else name)]


def _command(*words: str) -> list[str]:
    # What is cached of a repository on this machine would have to be kept, and is worth little to one who writes.
    verb, *rest = words
    host = ["--host", "tiers"] if verb == "backup" else []
    return ["restic", "--no-cache", verb, *host, *rest]


def _restic(*words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
    """Run restic to its end, once nobody else is at work there that it has to wait for.

    Raises:
        BackupError: it failed, unless that `fails` is for the caller to see.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(_command(*words), capture_output=True, text=True)
        if not (done.returncode and "already locked" in done.stderr and time.monotonic() < deadline):
            break
        print(f"backup: {words[0]} waits: {reason(done.stderr)}", file=sys.stderr)
        # Only those whose owner is gone.
        subprocess.run(_command("unlock"), capture_output=True)
        time.sleep(5)
    if done.returncode and not fails:
        raise BackupError(f"restic {words[0]}: {reason(done.stderr)}")
    return done


def _time(text: str) -> datetime:
    # restic writes nanoseconds, which Python reads only so far.
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", text).replace("Z", "+00:00")).astimezone(UTC)


def credentials() -> None:
    """What restic and the clients of S3 read, made from the files of the secrets: nothing of it is a variable's value."""
    names = [os.environ.get(f"BACKUP_S3_{which}_KEY_FILE") for which in ("ACCESS", "SECRET")]
    if all(names):
        access, secret = (Path(name or "").read_text().strip() for name in names)
        text = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = private("aws", text)


def private(name: str, text: str) -> str:
    """The path of a file, in memory, that nobody else can read. Another run may be reading it: it is always whole."""
    file = Path(tempfile.gettempdir()) / name
    handle, made = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "w") as opened:
        opened.write(text)
    return str(Path(made).replace(file))
