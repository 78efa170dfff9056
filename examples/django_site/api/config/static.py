"""Folders of collected static files, one for each release."""

import fcntl
import os
import shutil
from pathlib import Path

from .release import RELEASE

FOLDERS = Path(os.environ.get("STATIC_ROOT", "/srv/static"))
NEWEST = 5


def hold() -> int:
    """Lock the folder of this release until the process ends, because `clear` must not remove the folder of a running release.

    Return the file descriptor that holds the lock.
    """
    descriptor = os.open(FOLDERS / RELEASE, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def clear() -> list[Path]:
    """Remove all unlocked folders except the newest ones, and return the removed folders.

    Folders are compared by the time of their manifest, because each run of collectstatic writes a new manifest.
    """
    folders = sorted((folder for folder in FOLDERS.iterdir() if folder.is_dir()), key=_collection_time, reverse=True)
    return [folder for folder in folders[NEWEST:] if _remove_if_unlocked(folder)]


def _collection_time(folder: Path) -> float:
    manifest = folder / "staticfiles.json"
    return (manifest if manifest.exists() else folder).stat().st_mtime


def _remove_if_unlocked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
