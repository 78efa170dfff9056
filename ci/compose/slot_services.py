"""Conversion of the services in a slot: web, api, worker and further services of these tiers."""

import os.path
import re
from collections.abc import Sequence
from pathlib import PurePath

from pydantic import ValidationError

from components.config import DOCKERFILE, Build

from .commands import add_command
from .compose_service import ComposeService, Plain
from .mounts import add_mounts
from .ports import PORTS, convert_health, convert_port, note_conflicting_port
from .project import Project
from .settings import Reader, is_secret


def convert_slot_service(project: Project, name: str, needs: Sequence[str]) -> tuple[Plain, dict[str, str]]:
    """Convert a service of a slot.

    Args:
        project: the Compose file.
        name: name of the service in `app`.
        needs: names of the services that it needs.

    Returns:
        Settings of the service in `app`, and the environment variables whose values belong to one environment.
    """
    service, tier, home = project.roles.tiers[name], project.roles.tier_of(name), project.roles.path(name)
    part = _source(project, service)
    if tier in PORTS:
        part["port"] = convert_port(project, service, tier, home)
    part |= convert_health(project, service, tier, home)
    part |= {"needs": list(needs)} if needs else {}
    add_mounts(project, service, part)
    add_command(project, service, part)
    _add_egress(project, service, part)
    note_conflicting_port(project, service, part)
    settings = Reader(project, name, needs).read()
    part |= {"env": settings.env} if settings.env else {}
    part |= {"secret_env": settings.secret_env} if settings.secret_env else {}
    data_passwords = {project.secrets.passwords.get(need) for need in needs}
    secrets = [secret for secret in dict.fromkeys(settings.secrets) if secret not in data_passwords]
    part |= {"secrets": secrets} if secrets else {}
    if grace := _seconds(str(service.raw.get("stop_grace_period", ""))):
        part["stop_within"] = f"{grace}s"
    _add_user(project, service, part)
    return part, settings.local_env


def _source(project: Project, service: ComposeService) -> Plain:
    """Return the settings for the image of a service: `image` or `build`."""
    path = service.path
    if not service.build:
        if service.tag not in ("", "latest") or service.digest:
            return {"image": service.image}
        project.notes.add_unconverted(
            f"{path}.image", "the image has no version, and 1.0.0 is a placeholder; set the version that you tested"
        )
        return {"image": f"{service.image.removesuffix(':latest')}:1.0.0"}
    if service.build.get("secrets") or service.build.get("ssh"):
        project.notes.add_unconverted(
            f"{path}.build.secrets", "builds get no secrets; download what needs them before the build"
        )
    context = project.relative(str(service.build["context"]))
    target = str(service.build.get("target") or "")
    options = _dockerfile(project, service) | ({"target": target} if target else {}) | _build_args(project, service)
    return {"build": {"context": context, **options} if options else context}


def _dockerfile(project: Project, service: ComposeService) -> Plain:
    """Return the path of the Dockerfile, or add a note if it is outside of the build context."""
    context = str(service.build["context"])
    name = os.path.relpath(PurePath(context, str(service.build.get("dockerfile") or DOCKERFILE)), context)
    if name == DOCKERFILE:
        return {}
    if not _is_valid({"dockerfile": name}):
        project.notes.add_unconverted(
            f"{service.path}.build.dockerfile",
            f"the Dockerfile {name} must be in the build context, and its path must have no spaces; move it, and set build.dockerfile",
        )
        return {}
    return {"dockerfile": name}


def _build_args(project: Project, service: ComposeService) -> Plain:
    """Return the build arguments. Add a note for each argument that can't be converted or looks like a secret."""
    args: dict[str, str] = {}
    for key, value in service.build_args.items():
        path = f"{service.path}.build.args.{key}"
        if value is None:
            project.notes.add_unconverted(path, "it has no value; set it in build.args")
        elif not _is_valid({"args": {key: value}}):
            project.notes.add_unconverted(
                path,
                "a build argument must have a name of letters, digits and underscores; rename it, and set it in build.args",
            )
        elif is_secret(key, value):
            project.notes.add_unconverted(
                path,
                "it looks like a secret, and the history of the image shows build arguments; download what needs it before the build",
            )
        else:
            args[key] = value
    return {"args": args} if args else {}


def _is_valid(options: Plain) -> bool:
    """Return True if the configuration accepts the options of a build."""
    try:
        Build.model_validate({"context": ".", **options})
    except ValidationError:
        return False
    return True


def _add_egress(project: Project, service: ComposeService, part: Plain) -> None:
    """Set `egress: true` for a service if one of its variables contains a host on the internet."""
    if variable := service.internet_variable:
        part["egress"] = True
        project.notes.add_assumption(
            f"{service.path}.environment.{variable}",
            "it contains a host of the internet, so the service may connect to the outside (egress: true)",
        )


def _add_user(project: Project, service: ComposeService, part: Plain) -> None:
    """Set `user` to the user id in Compose, or add a note if the host may have a user with the same id."""
    user = str(service.raw.get("user") or "10001").partition(":")[0]
    if not user.isdecimal() or int(user) <= 10_000:
        project.notes.add_unconverted(
            f"{service.path}.user",
            f"user {user} may also exist on the host, so the service runs as 10001; let the image allow that user",
        )
    elif int(user) != 10_001:
        part["user"] = int(user)


def _seconds(text: str) -> int:
    """Convert a duration of Compose, such as `1m30s`, to whole seconds."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])(?!s)", text))
