"""Compute the digest of a build context, and refuse a build context that contains Pulumi's files.

The digest becomes the tag of the image. The digest covers all files that `docker build` sends, except `PROJECT_FILES`. A stack
file may contain the tag. If the digest covered this file, each new tag would change the digest (docs/adr/027-own-names.md).
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from .config import DOCKERFILE, ConfigError
from .config.own_files import convert_read_errors

PROJECT_FILES = ("Pulumi.yaml", "Pulumi.*.yaml", "reports", "release.json")
"""Files that the digest of a build context excludes: Pulumi's configuration, and files that `make` writes next to Pulumi.yaml."""
IGNORE = ".dockerignore"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of a build that its digest covers.

    Example:
        options = BuildOptions(dockerfile="docker/api.Dockerfile", args={"NODE_VERSION": "22"})
    """

    base: str = ""
    """Base image, if the Dockerfile has the argument BASE. The digest covers the name of the base image."""
    dockerfile: str | None = None
    """Path of the Dockerfile in the build context; None for `Dockerfile`."""
    args: Mapping[str, str] = field(default_factory=dict[str, str])
    """Build arguments: name → value."""

    def to_bytes(self) -> bytes:
        """Return the options as bytes. Options without a value add no bytes, so images keep the tags of earlier versions."""
        options = {"dockerfile": self.dockerfile, "args": dict(self.args)}
        further = json.dumps({name: value for name, value in options.items() if value}, sort_keys=True)
        # No name of a file begins with NUL, so the options differ from the records of the files that follow.
        return self.base.encode() + (f"\0{further}\0".encode() if further != "{}" else b"")


def digest(context: Path, options: BuildOptions | None = None, path: str = "build", root: Path | None = None) -> str:
    """Return the digest of a build context: 12 hexadecimal digits of a hash over the paths, modes and contents of all files.

    Args:
        context: folder of the build context.
        options: options of the build, which the digest covers, too; None for the defaults.
        path: config path of the context, for errors.
        root: folder of Pulumi.yaml. If this folder is inside the context, the digest excludes `PROJECT_FILES` in this folder.

    Raises:
        ConfigError: a file can't be read, or .dockerignore can't be parsed.
    """
    project_files, options = _project_patterns(context, root), options or BuildOptions()
    total = hashlib.sha256(options.to_bytes())
    with convert_read_errors(path):
        for name in _sent_files(context, path, options.dockerfile):
            if not _matches_any(name, project_files):
                total.update(_record(context, name, path))
    return total.hexdigest()[:12]


def check_dockerfile(context: Path, folder: str, dockerfile: str, path: str) -> None:
    """Refuse a Dockerfile that is missing, or that two builders would read differently.

    The provider's builder reads files that the engine's own builder ignores (docs/adr/035-build-options.md).

    Args:
        context: folder of the build context.
        folder: the folder as the configuration names it, for errors.
        dockerfile: path of the Dockerfile in the build context.
        path: config path of the build, for errors.

    Raises:
        ConfigError: the Dockerfile does not exist, is outside of the build context, has an ignore file of its own, or the
            program's folder has another file with the same path.
    """
    file = context / dockerfile
    with convert_read_errors(path):
        if dockerfile == DOCKERFILE:
            if not file.is_file():
                raise ConfigError(
                    f"{path}: {folder} has no Dockerfile; add a Dockerfile, or replace `build` by `image`"
                )
            return
        path = f"{path}.dockerfile"
        if not file.is_file():
            raise ConfigError(f"{path}: {folder} has no file {dockerfile}; write the path relative to `context`")
        if not file.resolve().is_relative_to(context):
            raise ConfigError(
                f"{path}: {dockerfile} leads out of the build context {folder}; move the file into this folder"
            )
        ignore = file.with_name(f"{file.name}{IGNORE}")
        if ignore.exists():
            raise ConfigError(
                f"{path}: not every builder reads {dockerfile}{IGNORE}; move its lines to {folder}/{IGNORE}"
            )
        # The provider prefers a file in its own folder, which is the program's folder.
        if Path(dockerfile).exists() and not Path(dockerfile).samefile(file):
            raise ConfigError(
                f"{path}: the engine would build {Path.cwd().name}/{dockerfile}, which has the same name, instead of {folder}/{dockerfile}; rename one of these two files"
            )


def refuse_project_files(context: Path, path: str, root: Path) -> None:
    """Refuse a build context that contains `PROJECT_FILES`, because the image would contain the stack's encrypted secrets.

    Raises:
        ConfigError: .dockerignore does not exclude these files.
    """
    patterns = _project_patterns(context, root)
    if not patterns:
        return
    with convert_read_errors(path):
        sent = [
            pattern for pattern in patterns if any(_matches_any(name, [pattern]) for name in _sent_files(context, path))
        ]
    if sent:
        raise ConfigError(
            f"{path}: the image would contain files of Pulumi ({', '.join(sent)}); add {_lines(patterns)} to {IGNORE}"
        )


def _lines(patterns: Sequence[str]) -> str:
    return f"{', '.join(patterns[:-1])} and {patterns[-1]}, each on a line of its own,"


def _project_patterns(context: Path, root: Path | None) -> list[str]:
    """Return glob patterns for the `PROJECT_FILES` in a build context. The patterns are relative to the context.

    The context and `root` may contain such files. Skip `root` if it is outside of the context, and skip a folder without
    Pulumi.yaml.
    """
    folders = [context, *([root] if root else [])]
    inside = [folder.relative_to(context) for folder in folders if folder.is_relative_to(context)]
    projects = dict.fromkeys(folder for folder in inside if (context / folder / "Pulumi.yaml").is_file())
    return [str(PurePosixPath(folder) / name) for folder in projects for name in PROJECT_FILES]


def _matches_any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) or name.startswith(f"{pattern}/") for pattern in patterns)


def _sent_files(context: Path, path: str, dockerfile: str | None = None) -> list[str]:
    """Return the sorted names of all files in a build context that `docker build` sends to the engine.

    The Dockerfile is sent even if .dockerignore excludes it.
    """
    from docker.utils.build import exclude_paths

    patterns = list(_ignore_patterns(context, path))
    try:
        return sorted(exclude_paths(str(context), patterns, dockerfile))
    except re.error as error:
        raise ConfigError(
            f"{path}: {context.name}/{IGNORE} has an invalid pattern ({error}); correct this pattern"
        ) from None
    except RecursionError:
        raise ConfigError(f"{path}: folders are nested too deeply; exclude them in {IGNORE}") from None


def _ignore_patterns(context: Path, path: str) -> Iterator[str]:
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
            raise ConfigError(f"{path}: {context.name}/{IGNORE} has a line with only `!`; remove this line")
        if line and not line.startswith("#"):
            yield line


def _record(context: Path, name: str, path: str) -> bytes:
    """Return the name, mode and content of a file or link as bytes. Return no bytes for a folder, socket or device."""
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
            f"{path}: the file name {name!a} is not UTF-8; rename the file, or exclude it in {IGNORE}"
        ) from None
