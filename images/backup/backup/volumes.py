"""Copies of the volumes of a store: files that another process may change during the copy."""

import hashlib
import os
import sys
import tarfile
import time
from pathlib import Path

from . import repository
from .repository import BackupError

ROOT = Path("/", repository.VOLUMES)
ATTEMPTS, PAUSE = 5, 15
"""Number of copies until the run fails because files change during each of them, and seconds between two copies."""
TICK = 0.1
"""Seconds after which a changed file certainly has another time of change. Kernels count this time in steps of up to 10 ms."""


def save(*, live: bool) -> tuple[str, int]:
    """Save all volumes as one snapshot.

    A snapshot counts only if no file changed from the beginning to the end of the copy. Then the snapshot has all files as they were
    at one moment, and the store can start from them as after a crash. Otherwise the copy is repeated.

    Args:
        live: True to accept a snapshot of files that changed during the copy.

    Returns:
        The id of the snapshot, and the number of saved bytes.

    Raises:
        BackupError: files changed during each copy, or a file can't be read.
    """
    changed = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        before, _ = _fingerprint()
        time.sleep(TICK)
        saved, missing = repository.save_changing_folder(repository.VOLUMES)
        after, changed = _fingerprint()
        if before == after and not missing:
            return saved
        if before == after:
            raise BackupError(f"the data can't be saved: {missing}")
        if live:
            return saved
        print(f"backup: {changed} changed during the copy", file=sys.stderr)
    raise BackupError(
        f"files changed during each of {ATTEMPTS} copies, the last of them {changed}; choose a `schedule` at which the store writes nothing, save a "
        "dump instead, or set `live: true` if the store can read such a copy (docs/how-to/back-up-a-store.md)"
    )


def restore(snapshot: str) -> int:
    """Replace the content of all volumes by a snapshot, and return the number of restored files.

    Raises:
        BackupError: a volume can't be written, or the snapshot can't be read.
    """
    if read_only := [str(folder) for folder in _folders() if not os.access(folder, os.W_OK)]:
        raise BackupError(f"{read_only[0]} is read-only; run `make restore SERVICE=…`, which stops the store first")
    with repository.read(snapshot, repository.VOLUMES):
        pass  # Read the whole snapshot before any file is removed, because the repository may be damaged.
    try:
        for folder in _folders():
            _empty(folder)
        with (
            repository.read(snapshot, repository.VOLUMES) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            return _extract(archive)
    except (OSError, tarfile.TarError) as error:
        raise BackupError(f"the volumes can't be written: {error}; run the restore again") from error


def is_empty() -> bool:
    """Return whether the volumes contain no file."""
    return not any(files for folder in _folders() for _, _, files in os.walk(folder))


def _extract(archive: tarfile.TarFile) -> int:
    """Extract the content of the volumes, and return the number of files. Folders get their modes last, because a folder may be
    read-only."""
    files, folders = 0, list[tarfile.TarInfo]()
    for member in archive:
        # Skip the folders at which volumes are mounted, because their owner and mode belong to the platform.
        if len(Path(member.name).parts) <= len(ROOT.parts):
            continue
        archive.extract(member, "/", set_attrs=not member.isdir())
        files += member.isfile()
        folders += [member] if member.isdir() else []
    for member in reversed(folders):
        path = Path("/", member.name)
        path.chmod(member.mode)
        os.utime(path, (member.mtime, member.mtime))
    return files


def _folders() -> list[Path]:
    """Return the folders at which the volumes are mounted."""
    return sorted(ROOT.iterdir())


def _empty(folder: Path) -> None:
    """Remove all files and folders in a folder, including those in read-only folders."""
    for path, folders, _ in os.walk(folder):
        for name in folders:
            if not Path(path, name).is_symlink():
                Path(path, name).chmod(0o700)
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            Path(path, name).unlink()
        for name in folders:
            inner = Path(path, name)
            inner.unlink() if inner.is_symlink() else inner.rmdir()


def _fingerprint() -> tuple[str, str]:
    """Return a hash over paths, sizes and times of change of all files, and the path of the file that changed last.

    No program can set the time of change (ctime).
    """
    total, newest = hashlib.sha256(), (0, "")
    for folder, folders, files in os.walk(ROOT):
        folders.sort()
        for path in (folder, *(f"{folder}/{name}" for name in sorted(files))):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                # Another process has just removed the file. The folder's time of change tells so, too.
                continue
            newest = max(newest, (status.st_ctime_ns, path))
            total.update(f"{path}\0{status.st_size}\0{status.st_ctime_ns}\0".encode(errors="surrogateescape"))
    return total.hexdigest(), newest[1]
