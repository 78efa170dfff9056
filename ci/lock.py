"""Lock that limits a stack to one make call at a time on this machine. The lock ends when the make process ends.

The lock file describes the holder, so that a second make call can name the holder in its error message.
See docs/adr/023-one-runner-behind-make.md.
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
    """Raised if another make process holds the lock. The message names that process."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Process that holds a lock. The start time is part of the process's identity, because process ids are reused."""

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
            pid=pid, started=_start_time(pid), host=socket.gethostname(), user=_user(), command=command, since=since
        )

    @property
    def is_dead(self) -> bool:
        """True if the process has ended. A process of another machine counts as alive, because its end can't be checked here."""
        return self.host == socket.gethostname() and _start_time(self.pid) != self.started

    def __str__(self) -> str:
        return f"`{self.command}`, process {self.pid} of {self.user}@{self.host}, since {self.since}"


@contextmanager
def hold(file: Path, command: str, stack: str) -> Generator[None]:
    """Hold the lock of a stack during the `with` block.

    Raises:
        LockedError: a living process holds the lock.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _acquire(file, stack)
    try:
        lock.seek(0)
        lock.truncate()
        lock.write(json.dumps(asdict(Holder.current(command))) + "\n")
        lock.flush()
        yield
    finally:
        lock.truncate(0)
        lock.close()


def _acquire(file: Path, stack: str) -> IO[str]:
    while True:
        # Commands that are started later don't inherit the open file, because Python opens files with O_CLOEXEC.
        lock = file.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(lock)
            lock.close()
            if holder and holder.is_dead:
                # The holder is dead, but a child process still has the file open and locked. So lock a new file.
                file.unlink(missing_ok=True)
                continue
            who = f": {holder}" if holder else f" (`fuser {file}` shows its process)"
            raise LockedError(
                f"another make command uses stack {stack} in this folder{who}; wait until that command ends, then repeat your command"
            ) from None
        if _is_current(lock, file):
            return lock
        lock.close()


def _read_holder(lock: IO[str]) -> Holder | None:
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


def _start_time(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot, or an empty text if the process has ended."""
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
