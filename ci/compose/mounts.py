"""Conversion of mounts: volumes, writable folders, and source code that is mounted in development."""

import re
from pathlib import PurePath

from .compose_service import ComposeService, Mount, Plain, as_name, listing, mapping
from .project import Project, is_inside

_DATA_FOLDER = {
    "uploads",
    "upload",
    "media",
    "data",
    "storage",
    "files",
    "static",
    "attachments",
    "backups",
    "logs",
    "log",
}
"""Words in the name of a folder that contains data, not source code."""


def add_mounts(project: Project, service: ComposeService, part: Plain) -> None:
    """Add the mounts of a service to its settings `part`, as `volumes`, `writable` and `reload`."""
    path, context = f"{service.path}.volumes", str(service.build.get("context", ""))
    source_mounts: dict[str, str] = {}
    for mount in service.mounts:
        if mount.in_memory:
            part.setdefault("writable", ["/tmp"]).append(mount.target)
        elif not mount.source:
            project.notes.add_unnecessary(
                path, f"{mount.target}: an anonymous volume keeps no data; the content is in the image"
            )
        elif not mount.is_host_path:
            _add_volume(project, mount, part, path)
        elif mount.target.startswith("/run/secrets"):
            project.notes.add_unconverted(
                path, f"list each file of {project.shown(mount.source)} in secrets, and set its value in `make shell`"
            )
        elif _DATA_FOLDER & set(re.split(r"[^a-z]+", PurePath(mount.source).name.lower())) and not mount.read_only:
            project.notes.add_unconverted(
                path,
                f"{project.shown(mount.source)} looks like data, not like source code; use a volume for {mount.target}, and copy the data",
            )
        elif context and is_inside(mount.source, context) and not PurePath(mount.source).suffix:
            source_mounts[project.relative(mount.source)] = mount.target
        else:
            project.notes.add_unconverted(
                path, f"{project.shown(mount.source)} is a path of the host; COPY it into the image, or use a volume"
            )
    for watch in listing(mapping(service.raw, "develop"), "watch"):
        source, target = str(watch.get("path") or ""), str(watch.get("target") or "")
        if "sync" in str(watch.get("action")) and source and target:
            source_mounts.setdefault(project.relative(str(PurePath(project.base, source))), target)
    part |= {"reload": {"mounts": source_mounts}} if source_mounts else {}
    for entry in listing(service.raw, "tmpfs"):
        if (target := str(entry).partition(":")[0]) != "/tmp":
            part.setdefault("writable", ["/tmp"]).append(target)


def _add_volume(project: Project, mount: Mount, part: Plain, path: str) -> None:
    volumes = part.setdefault("volumes", {})
    name, target = as_name(mount.source), f"{mount.target}:ro" if mount.read_only else mount.target
    declared = mapping(mapping(project.compose, "volumes"), mount.source)
    if name in volumes:
        project.notes.add_unconverted(
            path,
            f"{mount.source} is mounted at {volumes[name].removesuffix(':ro')}, but not at {mount.target}, because a service can mount a volume only once",
        )
        return
    volumes[name] = target
    if declared.get("external") or declared.get("driver_opts") or declared.get("driver") not in (None, "local"):
        project.notes.add_unconverted(
            f"volumes.{mount.source}",
            f"it is external or has a driver, and the new volume {name} is empty; copy the data",
        )
