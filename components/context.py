"""The build context of an image: its digest, and the files of this project that may be in it.

The digest is part of the image's name, so it covers everything that `docker build` sends, except files that name images
themselves: a stack file would otherwise never match the image that it pins (docs/adr/027-own-names.md).
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from .config import ConfigError
from .named import readable

OWN = ("Pulumi.yaml", "Pulumi.*.yaml", "reports", "release.json")
"""Files that people, Pulumi and `make` write into the folder of a project."""
IGNORE = ".dockerignore"


def digest(context: Path, base: str = "", path: str = "build", root: Path | None = None) -> str:
    """Return twelve hexadecimal digits over paths, modes and contents that `docker build` sends, without the project's own files.

    Args:
        context: the build context.
        base: the base image, if the Dockerfile has the argument BASE.
        path: the setting that names the context, for errors.
        root: the folder of Pulumi.yaml, which may be inside the context.

    Raises:
        ConfigError: a file can't be read, or .dockerignore can't be parsed.
    """
    own_files = _own_patterns(context, root)
    total = hashlib.sha256(base.encode())
    with readable(path):
        for name in _sent(context, path):
            if not _is_own(name, own_files):
                total.update(_record(context, name, path))
    return total.hexdigest()[:12]


def refuse_own_files(context: Path, path: str, root: Path) -> None:
    """Refuse a context that contains the project's own files: the image would contain them, with encrypted secrets.

    Raises:
        ConfigError: .dockerignore does not exclude them.
    """
    patterns = _own_patterns(context, root)
    if not patterns:
        return
    with readable(path):
        sent = [pattern for pattern in patterns if any(_is_own(name, [pattern]) for name in _sent(context, path))]
    if sent:
        raise ConfigError(
            f"{path}: files of Pulumi would be in the image ({', '.join(sent)}); write {_lines(patterns)} into {IGNORE}"
        )


def _lines(patterns: Sequence[str]) -> str:
    return f"{', '.join(patterns[:-1])} and {patterns[-1]}, each on a line of its own,"


def _own_patterns(context: Path, root: Path | None) -> list[str]:
    """Return the patterns of the project's own files relative to the context, for each project folder in it."""
    folders = [context, *([root] if root else [])]
    inside = [folder.relative_to(context) for folder in folders if folder.is_relative_to(context)]
    projects = dict.fromkeys(folder for folder in inside if (context / folder / "Pulumi.yaml").is_file())
    return [str(PurePosixPath(folder) / name) for folder in projects for name in OWN]


def _is_own(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}/") for pattern in patterns)


def _sent(context: Path, path: str) -> list[str]:
    """Return the sorted names of all files that `docker build` sends."""
    from docker.utils.build import exclude_paths

    patterns = list(_ignored(context, path))
    try:
        return sorted(exclude_paths(str(context), patterns))
    except re.error as error:
        raise ConfigError(
            f"{path}: {context.name}/{IGNORE} has a pattern that is invalid ({error}); correct it"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: folders are nested too deeply; exclude them in {IGNORE}") from None


def _ignored(context: Path, path: str) -> Iterator[str]:
    file = context / IGNORE
    if file.is_dir():
        raise ConfigError(f"{path}: {context.name}/{IGNORE} is a folder; make it a file, or remove it")
    if not file.is_file():
        return
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: {context.name}/{IGNORE} is not UTF-8; save it as UTF-8") from None
    for line in text.splitlines():
        if line.strip() == "!":
            raise ConfigError(f"{path}: {context.name}/{IGNORE} has a line with only `!`; remove it")
        if line and not line.startswith("#"):
            yield line


def _record(context: Path, name: str, path: str) -> bytes:
    """Return name, mode and content of a file or link. An image gets no content of folders, sockets and devices."""
    file = context / name
    if file.is_symlink():
        content = os.fsencode(file.readlink())
    elif file.is_file():
        content = file.read_bytes()
    else:
        return b""
    executable = file.stat(follow_symlinks=False).st_mode & 0o100
    try:
        return f"{name}\0{executable}\0{len(content)}\0".encode() + content
    except UnicodeEncodeError:
        raise ConfigError(
            f"{path}: the name of {name!a} is not UTF-8; rename that file, or exclude it in {IGNORE}"
        ) from None
