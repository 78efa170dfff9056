"""Lock of a stack on this machine: one make at a time. No child inherits it, and it ends with its process.

The lock file names the holder for the error message of the second make. docs/adr/023-one-runner-behind-make.md
"""

import fcntl
import getpass
import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO


class LockedError(Exception):
    """Another make holds the lock; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Process that holds a lock. Its start time is part of its identity, because process ids are reused."""

    pid: int
    started: str
    host: str
    user: str
    command: str
    since: str

    @staticmethod
    def current(command: str) -> "Holder":
        pid = os.getpid()
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return Holder(
            pid=pid, started=_started(pid), host=socket.gethostname(), user=_user(), command=command, since=since
        )

    @property
    def is_dead(self) -> bool:
        """True if the process has surely ended. Processes of another machine can't be checked."""
        return self.host == socket.gethostname() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"`{self.command}`, process {self.pid} of {self.user}@{self.host}, since {self.since}"


@contextmanager
def alone(file: Path, command: str, stack: str) -> Generator[None]:
    """Hold the lock of a stack during the block.

    Raises:
        LockedError: a living process holds the lock.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _take(file, stack)
    try:
        lock.seek(0)
        lock.truncate()
        lock.write(json.dumps(asdict(Holder.current(command))) + "\n")
        lock.flush()
        yield
    finally:
        lock.truncate(0)
        lock.close()


def _take(file: Path, stack: str) -> IO[str]:
    while True:
        lock = file.open("a+")  # Python opens files so that no child inherits them.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _named(lock)
            lock.close()
            if holder and holder.is_dead:
                # A child of the holder still has the file open. A new file gets a new lock.
                file.unlink(missing_ok=True)
                continue
            who = f": {holder}" if holder else f" (`fuser {file}` names it)"
            raise LockedError(
                f"another make is at work on stack {stack} here{who}; wait for it to end, then run this again"
            ) from None
        if _is_current(lock, file):
            return lock
        lock.close()


def _named(lock: IO[str]) -> Holder | None:
    try:
        lock.seek(0)
        return Holder(**json.loads(lock.read()))
    except (ValueError, TypeError):
        return None


def _is_current(lock: IO[str], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except OSError:
        return False


def _started(pid: int) -> str:
    """Return a process's start in clock ticks since the machine's start, or an empty text if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
