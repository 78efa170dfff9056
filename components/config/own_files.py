"""Find and read the files and folders that settings name. Errors begin with the config path of the setting."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from . import ConfigError

_SHOWN = 80
"""Maximum length of a file name in messages, in characters."""


def find(name: str, path: str, root: Path) -> Path:
    """Return the absolute path of the file or folder that a setting names.

    Args:
        name: value of the setting, a path relative to Pulumi.yaml.
        path: config path of the setting, for errors.
        root: folder of Pulumi.yaml.

    Raises:
        ConfigError: the file or folder does not exist, or can't be resolved.
    """
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
    missing = ConfigError(f"{path}: {shown} does not exist; use a path relative to Pulumi.yaml")
    try:
        resolved = (root / name).resolve()
        if not resolved.exists():
            raise missing
        str(resolved).encode()
    except RuntimeError:  # Path.resolve raises this error for a symbolic link to itself.
        raise ConfigError(f"{path}: {shown} is a link to itself; make it a link to a file or folder") from None
    except PermissionError:
        raise ConfigError(f"{path}: {shown} can't be read (permission denied); let this user read it") from None
    except (OSError, ValueError):
        raise missing from None
    return resolved


def find_folder(name: str, path: str, root: Path) -> Path:
    """Return the folder that a setting names.

    Raises:
        ConfigError: the folder does not exist, can't be resolved, or is not a folder.
    """
    folder = find(name, path, root)
    if not folder.is_dir():
        raise ConfigError(f"{path}: {name} is not a folder; write the path of the folder that contains {name}")
    return folder


def find_in_repository(name: str, path: str, root: Path) -> Path:
    """Return the file or folder that a setting names, and refuse a path outside of the repository.

    Symbolic links are resolved before the check, because the program deploys or mounts the content of the file.
    The repository is the first of these folders that exists:

    1. The nearest parent folder of Pulumi.yaml with `.git`.
    2. The folder of this program, if it contains Pulumi.yaml.
    3. The folder of Pulumi.yaml.

    Raises:
        ConfigError: the path is absolute, outside of the repository, neither a file nor a folder, or does not exist.
    """
    fix = "copy it into the repository, and write its path relative to Pulumi.yaml"
    if Path(name).is_absolute():
        raise ConfigError(f"{path}: {name} is an absolute path, which may differ on another machine; {fix}")
    resolved, repository = find(name, path, root), _repository(root.resolve())
    if not resolved.is_relative_to(repository):
        raise ConfigError(f"{path}: {name} leads to {resolved}, which is outside of the repository {repository}; {fix}")
    if not (resolved.is_file() or resolved.is_dir()):
        raise ConfigError(f"{path}: {name} is neither a file nor a folder; {fix}")
    return resolved


def _repository(root: Path) -> Path:
    for parent in (root, *root.parents):
        if (parent / ".git").exists():
            return parent
    program = Path(__file__).resolve().parents[2]
    return program if root.is_relative_to(program) else root


def read_text(name: str, path: str, root: Path) -> str:
    """Return the text of the file that a setting names.

    Raises:
        ConfigError: the file does not exist, is outside of the repository, or is not UTF-8 text.
    """
    file = find_in_repository(name, path, root)
    if not file.is_file():
        raise ConfigError(f"{path}: {name} is not a file; list the path of each file")
    try:
        with convert_read_errors(path):
            text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        is_packed = file.suffix in (".gz", ".xz", ".zst", ".bz2", ".zip", ".dump")
        fix = "unpack it" if is_packed else "save it as UTF-8"
        raise ConfigError(f"{path}: {name} is not UTF-8 text; {fix}")
    return text


@contextmanager
def convert_read_errors(path: str) -> Generator[None]:
    """Convert an OSError into a ConfigError with the path of a setting. Use this context manager to read the file of the setting.

    Args:
        path: config path of the setting.

    Raises:
        ConfigError: the operating system refuses to read the file.
    """
    try:
        yield
    except OSError as error:
        name = ascii(str(error.filename or "a file")).strip("'")
        reason = (error.strerror or "it can't be read").lower()
        raise ConfigError(
            f"{path}: {name} can't be read ({reason}); make it readable, and don't change files during an update"
        ) from None
