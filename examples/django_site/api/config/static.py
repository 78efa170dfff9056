"""The folders of collected static files, one for each release: whose is in use, and which may go."""

import fcntl
import os
import shutil
from pathlib import Path

from .release import RELEASE

FOLDERS = Path(os.environ.get("STATIC_ROOT", "/srv/static"))
NEWEST = 5


def hold() -> int:
    """As long as this process lives, its release's folder stays, however many newer ones there are."""
    descriptor = os.open(FOLDERS / RELEASE, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def clear() -> list[Path]:
    """Remove the folders that are neither among the newest nor held. A folder is as old as its last manifest."""
    folders = sorted((each for each in FOLDERS.iterdir() if each.is_dir()), key=_collected, reverse=True)
    return [folder for folder in folders[NEWEST:] if _removed(folder)]


def _collected(folder: Path) -> float:
    manifest = folder / "staticfiles.json"
    return (manifest if manifest.exists() else folder).stat().st_mtime


def _removed(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
