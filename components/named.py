"""Files and folders that settings name: resolved and read, or refused with the path of the setting."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .config import ConfigError

_SHOWN = 80
"""Limit of a name in messages, in characters."""


def find(given: str, path: str, root: Path) -> Path:
    """Return the file or folder that a setting names, relative to Pulumi.yaml.

    Args:
        given: The value of the setting.
        path: The path of the setting, for errors.
        root: The folder of Pulumi.yaml.

    Raises:
        ConfigError: the file or folder does not exist, or can't be resolved.
    """
    shown = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}…"
    missing = ConfigError(f"{path}: {shown} is not there; give a path relative to Pulumi.yaml")
    try:
        resolved = (root / given).resolve()
        if not resolved.exists():
            raise missing
        str(resolved).encode()
    except RuntimeError:  # Path.resolve raises this for a link to itself.
        raise ConfigError(f"{path}: {shown} leads to itself; have the link lead to a file or folder") from None
    except PermissionError:
        raise ConfigError(f"{path}: {shown} can't be read (permission denied); let this user read it") from None
    except (OSError, ValueError):
        raise missing from None
    return resolved


def find_folder(given: str, path: str, root: Path) -> Path:
    """Return the folder that a setting names.

    Raises:
        ConfigError: as `find`, or the path is not a folder.
    """
    folder = find(given, path, root)
    if not folder.is_dir():
        raise ConfigError(f"{path}: {given} is not a folder; name the folder that it is in")
    return folder


def own_path(given: str, path: str, root: Path) -> Path:
    """Return a file or folder in the repository that a setting names. Its content leaves this machine, or is mounted.

    Links are followed first. The repository is the nearest folder above Pulumi.yaml with `.git`. Without one it is the
    program's folder if that contains Pulumi.yaml, else the folder of Pulumi.yaml.

    Raises:
        ConfigError: the path is absolute, outside of the repository, neither a file nor a folder, or does not exist.
    """
    fix = "copy it into the repository, and give its path relative to Pulumi.yaml"
    if Path(given).is_absolute():
        raise ConfigError(f"{path}: {given} is an absolute path, which is another file on every machine; {fix}")
    resolved, repository = find(given, path, root), _repository(root.resolve())
    if not resolved.is_relative_to(repository):
        raise ConfigError(
            f"{path}: {given} leads to {resolved}, which is outside of the repository {repository}; {fix}"
        )
    if not (resolved.is_file() or resolved.is_dir()):
        raise ConfigError(f"{path}: {given} is neither a file nor a folder; {fix}")
    return resolved


def _repository(root: Path) -> Path:
    for parent in (root, *root.parents):
        if (parent / ".git").exists():
            return parent
    program = Path(__file__).resolve().parents[1]
    return program if root.is_relative_to(program) else root


def read_text(given: str, path: str, root: Path) -> str:
    """Return the text of the file that a setting names.

    Raises:
        ConfigError: as `own_path`, or the file is not UTF-8 text.
    """
    file = own_path(given, path, root)
    if not file.is_file():
        raise ConfigError(f"{path}: {given} is not a file; name each file")
    try:
        with readable(path):
            text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        packed = file.suffix in (".gz", ".xz", ".zst", ".bz2", ".zip", ".dump")
        fix = "unpack it" if packed else "save it as UTF-8"
        raise ConfigError(f"{path}: {given} is no text in UTF-8; {fix}")
    return text


@contextmanager
def readable(path: str) -> Generator[None]:
    """Report a file that can't be read as an error of the setting `path`.

    Raises:
        ConfigError: the operating system refuses to read the file.
    """
    try:
        yield
    except OSError as error:
        name = ascii(str(error.filename or "a file")).strip("'")
        reason = (error.strerror or "it can't be read").lower()
        raise ConfigError(
            f"{path}: {name} can't be read ({reason}); mend that, and let nothing change it meanwhile"
        ) from None
