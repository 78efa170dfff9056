"""Conversion of the services in a slot: web, api, worker and further services of these tiers."""

import re
from collections.abc import Sequence

from .commands import add_command
from .compose_service import ComposeService, Plain
from .mounts import add_mounts
from .ports import PORTS, convert_health, convert_port, note_conflicting_port
from .project import Project
from .settings import Reader


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
    settings = Reader(project.services, project.roles, project.secrets, project.notes).read(service, name)
    part |= {"env": settings.env} if settings.env else {}
    data_passwords = {project.secrets.passwords.get(need) for need in needs}
    secrets = [secret for secret in dict.fromkeys(settings.secrets) if secret not in data_passwords]
    part |= {"secrets": secrets} if secrets else {}
    if grace := _seconds(str(service.raw.get("stop_grace_period", ""))):
        part["stop_within"] = f"{grace}s"
    _add_user(project, service, part)
    return part, settings.local_env


def _source(project: Project, service: ComposeService) -> Plain:
    """Return the settings for the image of a service: `image`, or `build` and `target`."""
    path = service.path
    if not service.build:
        if service.tag not in ("", "latest") or service.digest:
            return {"image": service.image}
        project.notes.add_unconverted(
            f"{path}.image", "the image has no version, and 1.0.0 is a placeholder; set the version that you tested"
        )
        return {"image": f"{service.image.removesuffix(':latest')}:1.0.0"}
    part: Plain = {"build": project.relative(str(service.build["context"]))}
    if target := service.build.get("target"):
        part["target"] = target
    if (file := str(service.build.get("dockerfile") or "Dockerfile")) != "Dockerfile":
        project.notes.add_unconverted(
            f"{path}.build.dockerfile", f"only a file named Dockerfile is built, not {project.shown(file)}; rename it"
        )
    if service.build.get("args"):
        project.notes.add_unconverted(
            f"{path}.build.args", "builds get no arguments; set the defaults of the ARGs in the Dockerfile"
        )
    if service.build.get("secrets") or service.build.get("ssh"):
        project.notes.add_unconverted(
            f"{path}.build.secrets", "builds get no secrets; download what needs them before the build"
        )
    return part


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
